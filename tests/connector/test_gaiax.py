"""Gaia-X between real nodes: statements published and checked, every flaw named, the label worded as what it is."""

from __future__ import annotations

import dataclasses
import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ihds.audit.log import now
from ihds.cli import main
from ihds.connector.dcp.credentials import presented_tokens, read
from ihds.connector.dcp.tokens import Identity
from ihds.connector.gaiax import chains
from ihds.connector.gaiax.assessment import NOTICE, Assessor
from ihds.connector.gaiax.statements import LegalPerson, Product, Statements, registration_number
from ihds.errors import IhdsError, NotAuthenticated
from ihds.governance.countries import COUNTRIES
from ihds.ids import Did
from ihds.wire.did import Resolver, document
from ihds.wire.http import Http
from ihds.wire.jose import SigningKey, read_unverified
from tests.connector.test_dataplane import Files
from tests.space import Space

SHAPES = """
@prefix sh: <http://www.w3.org/ns/shacl#> .
@prefix gx: <https://w3id.org/gaia-x/development#> .
gx:LegalPersonShape a sh:NodeShape ; sh:targetClass gx:LegalPerson ;
  sh:property [ sh:path gx:registrationNumber ; sh:minCount 1 ] ;
  sh:property [ sh:path gx:headquartersAddress ; sh:minCount 1 ; sh:maxCount 1 ; sh:node gx:AddressShape ] ;
  sh:property [ sh:path gx:legalAddress ; sh:minCount 1 ; sh:maxCount 1 ; sh:node gx:AddressShape ] .
gx:AddressShape a sh:NodeShape ; sh:property [ sh:path gx:countryCode ; sh:minCount 1 ; sh:maxCount 1 ] .
gx:ServiceOfferingShape a sh:NodeShape ; sh:targetClass gx:ServiceOffering ;
  sh:property [ sh:path gx:providedBy ; sh:minCount 1 ; sh:maxCount 1 ] ;
  sh:property [ sh:path gx:serviceOfferingTermsAndConditions ; sh:minCount 1 ] .
gx:DataProductShape a sh:NodeShape ; sh:targetClass gx:DataProduct ;
  sh:property [ sh:path gx:digitalServiceOfferingName ; sh:minCount 1 ] ;
  sh:property [ sh:path gx:digitalServiceOfferingLaunchDate ; sh:minCount 1 ] ;
  sh:property [ sh:path gx:digitalServiceUsageDataPolicy ; sh:minCount 1 ] ;
  sh:property [ sh:path gx:digitalServiceLegalDocuments ; sh:minCount 1 ] ;
  sh:property [ sh:path gx:dataProductDescription ; sh:minCount 1 ] .
gx:TermsShape a sh:NodeShape ; sh:targetClass gx:TermsAndConditions ;
  sh:property [ sh:path gx:url ; sh:minCount 1 ] ; sh:property [ sh:path gx:hash ; sh:minCount 1 ] .
"""
SETTINGS = {
    "legal_name": "Luxembourg Institute of Health",
    "registration_type": "LocalRegistrationNumber",
    "registration_number": "F 0000",
    "terms_url": "https://lih.example/terms",
}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gaiax")
    made = Files.made(folder, gaiax=SETTINGS)
    try:
        for name in made.configs:
            made.start(name)
        Space.wait(made)
        yield made
    finally:
        made.stop()


def everything(nodes) -> int:
    """Return how many credentials the holder has: of number, issuer, person and service, and of each dataset."""
    return 4 + len(nodes.configs["lih"].datasets)


def test_a_participant_is_certified_registered_published_checked_and_submitted(nodes, tmp_path, capsys):
    lih, authority, researcher = (str(nodes.folder / n) for n in ("lih", "authority", "researcher"))
    anchor = str(tmp_path / "anchor")
    assert main(["gaiax", "anchor", anchor]) == 0
    assert main(["gaiax", "present", "--node", lih]) == 18
    assert "no notary has vouched" in capsys.readouterr().err
    for name in (lih, authority):
        assert main(["gaiax", "certify", "--anchor", anchor, "--node", name]) == 0
    assert main(["gaiax", "register", "--notary", authority, "--node", lih]) == 0
    shapes = tmp_path / "shapes"
    shapes.mkdir()
    (shapes / "gaia-x.ttl").write_text(SHAPES)
    capsys.readouterr()
    address = f"{nodes.configs['lih'].base_url}/gaiax/participant.vp.jwt"
    call = ["gaiax", "verify", address, "--anchors", f"{anchor}/anchor.pem", "--node", researcher, "--json"]
    trusted = ["--shapes", str(shapes), "--notary", nodes.dids["authority"]]
    assert main([*call, *trusted]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["notice"] == NOTICE
    found = {c["rule"]: c["found"] for c in answer["checks"]}
    assert "against 1 files" in found["the credentials fit their shapes"]
    label = read(answer["label"])
    assert label.types == ("ihds:SelfAssessment",)
    assert label.subject["ihds:notice"] == NOTICE
    assert len(label.subject["ihds:assessedCredentials"]) == everything(nodes)
    assert main(call) == 12, "nobody's notary is trusted by default"
    assert "not a notary trusted here" in capsys.readouterr().out
    submitted(nodes, capsys, lih)
    statement = nodes.configs["lih"].base_url + "/gaiax/data-product/model"
    import httpx

    assert read(httpx.get(statement).text).types == ("gx:DataProduct",)


def submitted(nodes, capsys, lih: str) -> None:
    """Play a clearing house that answers as the accredited ones do."""
    seen: list[tuple[str, str, bytes]] = []
    key = SigningKey.new("did:web:clearing.example#key-1")

    class House(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, self.headers["Content-Type"], body))
            claims = {
                "id": "https://clearing.example/1",
                "type": ["VerifiableCredential", "gx:LabelCredential"],
                "issuer": "did:web:clearing.example",
                "credentialSubject": {"id": "x", "gx:labelLevel": "SC"},
            }
            answer = key.sign_jwt(claims, typ="vc+jwt").encode()
            self.send_response(201 if "standard-compliance" in self.path else 422)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), House)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert main(["gaiax", "submit", f"http://127.0.0.1:{server.server_port}", "--node", lih]) == 0
    assert "gx:LabelCredential https://clearing.example/1" in capsys.readouterr().out
    path, media, body = seen[0]
    assert path.startswith("/api/credential-offers/standard-compliance?vcid=http%3A%2F%2F127.0.0.1")
    assert media == "application/vp+jwt"
    assert len(presented_tokens(read_unverified(body.decode())[1])) == everything(nodes)
    server.shutdown()
    server.server_close()


# -- flaws, without processes ----------------------------------------------------------------------------

ANCHOR, ANCHOR_KEY = chains.make_anchor("test anchor")


class World:
    """A participant and a notary, their documents and chains; ``change`` spoils one thing."""

    def __init__(self) -> None:
        self.people = {n: self.made(n) for n in ("lih", "notary")}
        self.person = LegalPerson("LIH", "LU", ("LeiCode", "X"), "https://lih.example/terms")
        self.statements = Statements(self.people["lih"], "https://lih.example/gaiax", self.person)
        self.chains = {
            n: [chains.certify(i.did, i.key.public_jwk(), ANCHOR, ANCHOR_KEY)] for n, i in self.people.items()
        }
        self.x5u = True
        number = registration_number(
            self.people["notary"], "https://n.example", self.people["lih"].did, ("LeiCode", "X")
        )
        policy = {"@type": "Set", "permission": [{"action": "use"}]}
        self.tokens = {
            "number": number,
            "issuer": self.statements.issuer(),
            "person": self.statements.legal_person(read(number).holder),
            "service": self.statements.service_offering(policy, "https://lih.example/dsp"),
            "product": self.statements.data_product(Product("m", "Model", ""), policy, now()),
        }

    def made(self, name: str) -> Identity:
        did = Did.parse(f"did:web:{name}.example")
        return Identity(did, SigningKey.new(f"{did}#key-1"))

    def say(self, name: str, kind: str, subject: dict) -> None:
        self.tokens[name] = self.statements.sign(name, kind, subject)

    def document(self, name: str):
        who = self.people[name]
        jwk = who.key.public_jwk() | ({"x5u": f"https://{name}.example/chain"} if self.x5u else {})
        return document(who.did, [(who.key.kid, jwk, True)], {})

    def assess(self, presentation: str | None = None, **changes):
        known = {i.did: (lambda n=n: self.document(n)) for n, i in self.people.items()}
        assessor = Assessor(Resolver(Http(), known), Chains(self), (ANCHOR,), frozenset({self.people["notary"].did}))
        assessor = dataclasses.replace(assessor, **changes)
        return assessor.assess(presentation or self.statements.presentation(list(self.tokens.values())))


class Chains(Http):
    """The participants' chains, without a network."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def send(self, method: str, url: str, **_: object):
        import httpx

        name = url.split("/")[2].split(".")[0]
        return httpx.Response(200, content=chains.pem(self.world.chains[name]))


def failed(assessment) -> str:
    return "; ".join(f"{c.rule}: {c.found}" for c in assessment.checks if not c.holds)


def test_a_sound_presentation_passes_and_says_that_no_shapes_were_checked():
    assessment = World().assess()
    assert failed(assessment) == ""
    assert assessment.checks[-1].found.startswith("not checked")


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda w: w.tokens.pop("number"), "number the legal person names is not in the presentation"),
        (lambda w: w.tokens.pop("person"), "0 legal persons"),
        (lambda w: w.tokens.pop("issuer"), "no gx:Issuer credential"),
        (lambda w: w.tokens.update(again=w.tokens["person"]), "2 legal persons"),
        (lambda w: setattr(w, "x5u", False), "no certificate chain"),
        (lambda w: w.chains.update(lih=w.chains["notary"]), "for another key"),
        (lambda w: w.say("issuer", "Issuer", {"gx:gaiaxTermsAndConditions": "x"}), "other terms"),
        (lambda w: w.say("service", "ServiceOffering", {"gx:providedBy": {"id": "x"}}), "not the legal person"),
        (lambda w: w.tokens.update(bad="a.b.c"), "a credential can be read"),
        (lambda w: w.tokens.update(person=w.tokens["person"][:-6] + "AAAAAA"), "signature does not verify"),
    ],
)
def test_every_flaw_is_named(spoil, word):
    world = World()
    spoil(world)
    assessment = world.assess()
    assert not assessment.passed
    assert word in failed(assessment)


def test_a_country_that_is_none_and_an_expired_credential_are_found():
    world = World()
    world.statements.person = dataclasses.replace(world.person, country="XX")
    world.tokens["person"] = world.statements.legal_person(read(world.tokens["number"]).holder)
    assert "'XX' is no country" in failed(world.assess())
    world = World()
    world.people["lih"].clock = lambda: now() - timedelta(days=200)
    world.tokens["issuer"] = world.statements.issuer()
    world.people["lih"].clock = now
    assert "valid until" in failed(world.assess())
    assert len(COUNTRIES) == 249


def test_an_anchor_that_is_not_accepted_and_an_intermediate_that_may_not_issue():
    world = World()
    assert "nobody here vouches" in failed(world.assess(anchors=()))
    leaf_key = world.people["lih"].key
    rogue = world.made("rogue")
    forged = chains.certify(rogue.did, rogue.key.public_jwk(), world.chains["lih"][0], leaf_key.private)
    with pytest.raises(NotAuthenticated, match="may not issue"):
        chains.verify([forged, *world.chains["lih"]], [ANCHOR], rogue.key.public_jwk())
    old, old_key = chains.make_anchor("old", days=0)
    late = chains.certify(rogue.did, rogue.key.public_jwk(), old, old_key)
    with pytest.raises(NotAuthenticated, match="not valid now|is not valid"):
        chains.verify([late], [old], rogue.key.public_jwk())
    with pytest.raises(NotAuthenticated, match="1 to 8"):
        chains.verify([], [ANCHOR], rogue.key.public_jwk())
    with pytest.raises(NotAuthenticated, match="not a certificate chain"):
        chains.read(b"no")


def test_a_configuration_that_lacks_something_says_what():
    with pytest.raises(IhdsError, match="registration_number"):
        LegalPerson.read({k: v for k, v in SETTINGS.items() if k != "registration_number"}, "LU")
    with pytest.raises(IhdsError, match="known registration_type"):
        LegalPerson.read({**SETTINGS, "registration_type": "Shoe size"}, "LU")
