"""A node's Gaia-X side: its statements published, others' checked, and sent to a clearing house."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.routing import Route

from ihds.audit.log import Event, now
from ihds.connector.dcp.credentials import read
from ihds.connector.gaiax import chains
from ihds.connector.gaiax.assessment import Assessor, label
from ihds.connector.gaiax.statements import REGISTRATIONS, LegalPerson, Product, Statements, registration_number
from ihds.errors import BadInput, NotFound, PeerFailed, SetupFailed
from ihds.ids import Did
from ihds.store.store import Put
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node

CHAIN_FILE = "x5chain.pem"
_CHAIN_PATH = "/.well-known/x509CertificateChain.pem"


@dataclass
class GaiaX:
    """What a node says of itself in Gaia-X's words. Without a [gaiax] table in node.toml it says nothing."""

    node: Node

    @property
    def base(self) -> str:
        """Where the statements are published."""
        return f"{self.node.config.base_url}/gaiax"

    def chained(self, jwk: dict[str, Any]) -> dict[str, Any]:
        """Return a JWK of the DID document that names its certificate chain, if there is one for it."""
        path = self.node.folder / CHAIN_FILE
        if not path.exists():
            return jwk
        return {**jwk, "alg": "ES256", "x5u": self.node.config.base_url + _CHAIN_PATH}

    def routes(self) -> list[Route]:
        """Return the public endpoints: the presentation, each statement, the certificate chain."""
        return [
            Route(_CHAIN_PATH, endpoint(self._chain), methods=["GET"]),
            Route("/gaiax/participant.vp.jwt", endpoint(self._participant), methods=["GET"]),
            Route("/gaiax/{name:text}", endpoint(self._statement), methods=["GET"]),
        ]

    def commands(self) -> dict[str, Command]:
        """Return the management commands."""
        return {
            "gaiax.present": lambda _a: {"presentation": self.presentation()},
            "gaiax.certify": lambda a: self.keep_chain(str(a["chain"])),
            "gaiax.key": lambda _a: {"did": self.node.did, "jwk": self.node.keys.public_jwk()},
            "gaiax.notarise": self._notarise,
            "gaiax.keep": lambda a: self._keep_registration(str(a["credential"])),
            "gaiax.verify": self._verify,
            "gaiax.submit": lambda a: self.submit(str(a["clearing_house"])),
        }

    # -- what is said ----------------------------------------------------------------------------

    def statements(self) -> dict[str, str]:
        """Return the credentials by name.

        Raises:
            SetupFailed: the configuration names no legal person, or no notary has vouched for its number.

        """
        person = LegalPerson.read(dict(self.node.config.gaiax), self.node.config.country)
        kept = self.node.log.get("gaiax", "registration")
        if kept is None:
            raise SetupFailed(
                "no notary has vouched for the registration number yet",
                remedy="ihds gaiax register, with the authority or a notary",
            )
        registered = read(kept.body["token"])
        made = Statements(self.node.identity, self.base, person)
        policies = [(entry, entry["hasPolicy"][0]) for entry in self.node.institution.datasets()]
        everybody = {"@type": "Set", "permission": [{"action": "use"}]}
        found = {
            "registration": registered.token,
            "issuer": made.issuer(),
            "legal-person": made.legal_person(registered.holder),
            "service-offering": made.service_offering(everybody, self.node.connector.address),
        }
        for entry, policy in policies:
            product = Product(
                entry["@id"], str(entry.get("dct:title", entry["@id"])), str(entry.get("dct:description", ""))
            )
            found[f"data-product/{product.id}"] = made.data_product(product, policy, now())
        return found

    def presentation(self) -> str:
        """Return all statements in one presentation."""
        person = LegalPerson.read(dict(self.node.config.gaiax), self.node.config.country)
        made = Statements(self.node.identity, self.base, person)
        return made.presentation(list(self.statements().values()))

    def _participant(self, _call: Call) -> Answer:
        return Answer(raw=self.presentation().encode(), media_type="application/vp+jwt")

    def _statement(self, call: Call) -> Answer:
        found = self.statements().get(call.path["name"])
        if found is None:
            raise NotFound(f"there is no statement {call.path['name']!r}")
        return Answer(raw=found.encode(), media_type="application/vc+jwt")

    def _chain(self, _call: Call) -> Answer:
        try:
            pem = (self.node.folder / CHAIN_FILE).read_bytes()
        except OSError as error:
            raise NotFound("this node has no certificate chain") from error
        return Answer(raw=pem, media_type="application/x-pem-file")

    def keep_chain(self, pem: str) -> dict[str, Any]:
        """Keep the certificate chain of the key in use.

        Raises:
            NotAuthenticated: it is for another key.

        """
        chain = chains.read(pem.encode())
        name = chains.verify(chain, chain[-1:], self.node.keys.public_jwk())
        (self.node.folder / CHAIN_FILE).write_bytes(chains.pem(chain))
        self.node.log.commit(Event("gaiax.certified", self.node.did, {"anchor": name}))
        return {"anchor": name, "certificates": len(chain)}

    # -- registration numbers --------------------------------------------------------------------

    def _notarise(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Vouch, as a notary, for a number that a person has looked up in its register."""
        kind, number = str(arguments["type"]), str(arguments["number"])
        if kind not in REGISTRATIONS or not number.strip():
            raise BadInput(f"{kind!r} is no registration", remedy=f"use: {', '.join(REGISTRATIONS)}")
        holder = Did.parse(arguments["did"])
        token = registration_number(self.node.identity, self.base, holder, (kind, number))
        details = {"holder": holder, "type": kind, "number": number}
        self.node.log.commit(Event("gaiax.notarised", self.node.did, details))
        return {"credential": token}

    def _keep_registration(self, token: str) -> dict[str, Any]:
        found = read(token)
        self.node.resolver.verify(token, "assertionMethod", found.issuer)
        record = self.node.log.get("gaiax", "registration")
        put = Put("gaiax", "registration", record.version if record else 0, {"token": token})
        details = {"credential": found.id, "type": ", ".join(found.types), "issuer": found.issuer}
        self.node.log.commit(Event("credential.received", found.issuer, details), put)
        return details

    # -- checking and submitting -----------------------------------------------------------------

    def _verify(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Check a presentation, given or fetched; label it if everything holds."""
        token = str(arguments.get("presentation") or "")
        if not token:
            answer = self.node.http.send("GET", str(arguments["url"]))
            if answer.status_code != 200:
                raise PeerFailed(f"{arguments['url']} answered {answer.status_code}: {answer.text[:300]}")
            token = answer.text.strip()
        anchors = chains.read(str(arguments.get("anchors", "")).encode()) if arguments.get("anchors") else []
        notaries = frozenset({*self.node.config.notaries, *map(str, arguments.get("notaries", []))})
        shapes = Path(str(arguments["shapes"])) if arguments.get("shapes") else None
        assessor = Assessor(self.node.resolver, self.node.http, anchors, notaries, shapes)
        assessment = assessor.assess(token)
        told = {"subject": assessment.subject, "passed": assessment.passed}
        self.node.log.commit(Event("gaiax.assessed", self.node.did, told))
        body = assessment.to_dict()
        return {**body, "label": label(self.node.identity, self.base, assessment)} if assessment.passed else body

    def submit(self, clearing_house: str) -> dict[str, Any]:
        """Send the presentation to a clearing house; keep the compliance credential it gives.

        Raises:
            PeerFailed: it refuses; what it said is told.

        """
        identifier = quote(f"{self.base}/compliance", safe="")
        url = f"{clearing_house.rstrip('/')}/api/credential-offers/standard-compliance?vcid={identifier}"
        answer = self.node.http.send(
            "POST", url, body=self.presentation().encode(), headers={"Content-Type": "application/vp+jwt"}
        )
        if answer.status_code not in (200, 201):
            raise PeerFailed(f"{clearing_house} answered {answer.status_code}: {answer.text[:1000]}")
        token = answer.text.strip().strip('"')
        found = read(token)
        record = self.node.log.get("gaiax", "compliance")
        details = {"clearing_house": clearing_house, "credential": found.id, "type": ", ".join(found.types)}
        put = Put("gaiax", "compliance", record.version if record else 0, {"token": token})
        self.node.log.commit(Event("gaiax.submitted", clearing_house, details), put)
        return {**details, "token": token}
