"""Visas: a listed issuer's are evidence, forged ones are shown as such; only a grant in force gives some."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from ihds.audit.log import Event, now
from ihds.cli.studies import _visas
from ihds.errors import BadInput, NotAuthenticated, NotFound, PeerFailed, Refused, SetupFailed
from ihds.governance.permit import Permit, PermitState
from ihds.ids import ApplicationId, Did, PermitId
from ihds.people.passports import (
    CLAIM,
    GRANTS,
    LINKED,
    PASSPORT,
    TYPES,
    Visa,
    VisaDesk,
    one_person,
    tokens_of,
    visas_of,
)
from ihds.privacy.disclosure import Thresholds
from ihds.store.store import Put
from ihds.wire.http import Http
from ihds.wire.jose import SigningKey
from tests.people.world import NODE, Desk

BROKER, KEYS = "https://broker.example", "https://broker.example/jwks"
KEY = ECKey.generate_key("P-256", {"kid": "b"})


def make_permit(**changes) -> Permit:
    values = {
        "id": PermitId.new(),
        "application": ApplicationId.new(),
        "access_body": Did("did:web:hdab.example"),
        "user": Did("did:web:user.example"),
        "legal_regime": "contract",
        "purpose": "scientific_research",
        "datasets": ((Did("did:web:lih.example"), "bladder"), (Did("did:web:ncck.example"), "bladder-kr")),
        "variables": frozenset({"age"}),
        "methods": frozenset({"cox"}),
        "persons": ("A. Researcher",),
        "recipient_country": "LU",
        "thresholds": Thresholds(),
        "max_rounds": 9,
        "issued_at": datetime(2026, 1, 1, tzinfo=UTC),
        "expires_at": datetime(2027, 1, 1, tzinfo=UTC),
        "status_index": 0,
    }
    return Permit(**{**values, **changes})


class Published(Http):
    def __init__(self, **keys):
        super().__init__()
        self.keys = {KEYS: [KEY]} | keys

    def get_json(self, url, token=None, seconds=None):
        if url not in self.keys:
            raise PeerFailed(f"nothing at {url}")
        return KeySet(self.keys[url]).as_dict(private=False)


def visa(key=KEY, header=None, body=None, **changes):
    at = int(time.time())
    told = {"type": "ResearcherStatus", "asserted": at - 9, "value": "https://x", "source": "https://s", "by": "so"}
    told = {k: v for k, v in {**told, **(body or {})}.items() if v is not None}
    claims = {"iss": BROKER, "sub": "s", "iat": at, "exp": at + 60, "jti": "j", CLAIM: told, **changes}
    claims = {k: v for k, v in claims.items() if v is not None}
    return jwt.encode({"alg": "ES256", "kid": key.kid, "jku": KEYS, **(header or {})}, claims, key)


@pytest.fixture
def desk():
    return VisaDesk({BROKER: KEYS}, Published())


@pytest.mark.parametrize("kind", TYPES)
def test_a_visa_of_a_listed_issuer_is_evidence(desk, kind):
    (shown,) = desk.evidence([visa(body={"type": kind})])
    assert (shown["believed"], shown["type"], shown["by"], shown["issuer"]) == (True, kind, "so", BROKER)
    assert shown["means"] == TYPES[kind]


WRONG = {
    "issuer not listed": visa(iss="https://evil.example"),
    "keys said to lie elsewhere": visa(header={"jku": "https://evil.example/jwks"}),
    "a key of somebody else": visa(ECKey.generate_key("P-256", {"kid": "b"})),
    "a key nobody publishes": visa(ECKey.generate_key("P-256", {"kid": "c"})),
    "over": visa(exp=int(time.time()) - 60),
    "no end": visa(exp=None),
    "nobody": visa(sub=None),
    "of the future": visa(body={"asserted": int(time.time()) + 3600}),
    "asserted at no time": visa(body={"asserted": "yesterday"}),
    "asserted by nobody known": visa(body={"by": "me"}),
    "no value": visa(body={"value": None}),
    "no visa": jwt.encode({"alg": "ES256", "kid": "b"}, {"iss": BROKER, "sub": "s", "exp": 9e9}, KEY),
    "unsigned": visa().rsplit(".", 1)[0] + ".",
    "no token": "hello",
}


@pytest.mark.parametrize("token", WRONG.values(), ids=WRONG)
def test_what_is_no_evidence_is_shown_with_the_reason_and_refuses_nothing(desk, token):
    with pytest.raises(NotAuthenticated):
        desk.read(token)
    good, bad = desk.evidence([visa(), token])
    assert good["believed"]
    assert bad == {"believed": False, "why": bad["why"]}
    assert bad["why"]


def test_a_visa_with_conditions_says_that_they_are_not_judged(desk):
    (shown,) = desk.evidence([visa(body={"conditions": [[{"type": "AffiliationAndRole"}]]})])
    assert "conditions" in shown["why"]


def test_an_issuers_keys_are_fetched_by_tls_only():
    with pytest.raises(SetupFailed):
        VisaDesk({BROKER: "http://broker.example/jwks"}, Published())
    unreachable = VisaDesk({BROKER: KEYS + "/gone"}, Published())
    (shown,) = unreachable.evidence([visa(header={"jku": KEYS + "/gone"})])
    assert not shown["believed"]


def _shown(subject, kind="ResearcherStatus", value="https://x"):
    return {"believed": True, "type": kind, "value": value, "subject": subject, "issuer": BROKER}


def test_visas_are_about_one_person_only_where_linked_identities_say_so():
    link = _shown("a", LINKED, "b,https%3A%2F%2Fbroker.example;c,https%3A%2F%2Fbroker.example")
    assert one_person([])
    assert one_person([_shown("a"), _shown("a")])
    assert not one_person([_shown("a"), _shown("b")])
    assert one_person([link, _shown("b"), _shown("c")])
    chain = _shown("c", LINKED, "d,https%3A%2F%2Fbroker.example")
    assert one_person([_shown("d"), chain, link, _shown("b")])
    assert not one_person([_shown("d"), link])
    assert not one_person([_shown("b"), {**link, "believed": False}, _shown("a")])
    assert not one_person([_shown("a"), _shown("z", LINKED, "y,https%3A%2F%2Fbroker.example")])


WORDS = st.sampled_from([CLAIM, "iss", "sub", "exp", "type", PASSPORT])
BODIES = st.recursive(
    st.none() | st.text(max_size=5) | st.integers(),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(WORDS, x, max_size=4),
    max_leaves=8,
)


@given(BODIES)
@settings(max_examples=120, deadline=None)
def test_no_body_breaks_the_reading(body):
    with contextlib.suppress(BadInput):
        assert isinstance(tokens_of(body), tuple)
    with contextlib.suppress(NotAuthenticated):
        Visa.of(body if isinstance(body, dict) else {})


def test_a_passport_is_read_from_a_file(tmp_path):
    file = tmp_path / "p.json"
    for body in ([visa()], {PASSPORT: [visa()]}):
        file.write_text(json.dumps(body))
        assert len(_visas(file)) == 1
    for text in ("{}", "7", "no json", '["a", 7]'):
        file.write_text(text)
        with pytest.raises(BadInput):
            _visas(file)


def test_what_an_access_body_gives_another_believes_until_it_is_over_or_the_permit_is():
    permit = make_permit()
    key = SigningKey.new("did:web:hdab.example#key-1")
    http = Published(**{f"{NODE}/keys": [ECKey.import_key({**key.public_jwk(), "kid": key.kid})]})
    same = {"issuer": "https://login.example/,;x", "subject": "s,1"}
    at = permit.issued_at + timedelta(days=1)
    made = visas_of(permit, key, NODE, f"{NODE}/keys", "person", at, same)
    read = VisaDesk({NODE: f"{NODE}/keys"}, http, lambda: at.timestamp())
    shown = read.evidence(made)
    assert [v["type"] for v in shown] == [GRANTS] * len(permit.datasets) + [LINKED]
    assert [v["value"] for v in shown][:-1] == [f"{h}#{d}" for h, d in permit.datasets]
    assert {v["by"] for v in shown} == {"dac", "so"}
    assert one_person([*shown, {**_shown("s,1"), "issuer": same["issuer"]}])
    assert "EHDS" not in json.dumps(shown)
    late = VisaDesk({NODE: f"{NODE}/keys"}, http, lambda: (at + timedelta(minutes=62)).timestamp())
    assert not any(v["believed"] for v in late.evidence(made))
    last = visas_of(permit, key, NODE, f"{NODE}/keys", "person", permit.expires_at - timedelta(minutes=1), None)
    assert {Visa.of(jwt.decode(t, ECKey.import_key(key.public_jwk())).claims).expires for t in last} == {
        int(permit.expires_at.timestamp())
    }


# -- at a node -----------------------------------------------------------------------------------------


class Members:
    """Lets in whom the test says."""

    who = "did:web:user.example"

    def check(self, _authorization):
        return {"iss": self.who}


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    made = Desk(tmp_path_factory.mktemp("visas"), visa_issuers={BROKER: KEYS})
    made.node.members = Members()
    made.node.institution.applicants.visas.desk = VisaDesk({BROKER: KEYS}, Published())
    yield made
    made.close()


def asked(body, permit, **given):
    return body.web.json("POST", f"{NODE}/access/permits/{permit}/visas", given)


def test_only_a_grant_in_force_gives_visas_to_its_user_for_its_persons(body):
    permit = make_permit(
        issued_at=now().replace(microsecond=0), expires_at=now().replace(microsecond=0) + timedelta(days=9)
    )
    held = {"permit": permit.to_dict(), "state": "GRANTED", "application": "a", "credential": ""}
    body.node.members.who = permit.user
    body.node.log.commit(Event("permit.granted", NODE), Put("permit", permit.id, 0, held))
    status, told = asked(body, permit.id, person=permit.persons[0], signed_in={"issuer": "https://l", "subject": "s"})
    assert (status, len(told[PASSPORT])) == (200, len(permit.datasets) + 1), told
    keys = body.web.get_json(f"{NODE}/access/visas/keys")["keys"]
    read = VisaDesk({NODE: f"{NODE}/access/visas/keys"}, body.web)
    assert all(v["believed"] for v in read.evidence(told[PASSPORT]))
    assert keys[0]["kid"].startswith("did:web:")
    event = body.node.log.entries()[-1]
    assert (event["kind"], event["details"]["person"]) == ("visas.issued", permit.persons[0])
    for words in ({"person": "Somebody Else"}, {}, {"person": permit.persons[0], "signed_in": "me"}):
        assert asked(body, permit.id, **words)[0] in (400, 403)
    body.node.members.who = "did:web:another.example"
    assert asked(body, permit.id, person=permit.persons[0])[0] == 404
    body.node.members.who = permit.user
    for version, state in enumerate((PermitState.REVOKED, PermitState.SUPERSEDED, PermitState.EXPIRED), start=1):
        put = Put("permit", permit.id, version, {**held, "state": str(state)})
        body.node.log.commit(Event("permit.revoked", NODE), put)
        status, said = asked(body, permit.id, person=permit.persons[0])
        assert status == 403
        assert str(state) in str(said)
    over = make_permit(
        issued_at=now() - timedelta(days=9), expires_at=now() - timedelta(seconds=1), id=type(permit.id).new()
    )
    put = Put("permit", over.id, 0, {**held, "permit": over.to_dict()})
    body.node.log.commit(Event("permit.granted", NODE), put)  # its clock was not looked at yet
    assert asked(body, over.id, person=over.persons[0])[0] == 403


def test_visas_that_came_with_an_application_are_evidence_and_no_verdict(body):
    desk = body.node.institution.applicants.visas
    case = "urn:uuid:00000000-0000-4000-8000-000000000001"
    desk.take(case, (visa(), visa(iss="https://evil.example")))
    desk.take(case, (visa(),))  # sent again
    found = desk.shown(case)["evidence"]
    assert [v["believed"] for v in found["visas"]] == [True, False]
    assert (found["one_person"], found["grants"]) == (True, "nothing by itself")
    assert desk.shown("urn:uuid:00000000-0000-4000-8000-000000000002") == {}
    (event,) = [e for e in body.node.log.entries() if e["kind"] == "visas.received"]
    assert event["details"]["not_believed"] == 1
    with pytest.raises((NotFound, Refused)):
        body.admin.call("permit.show", id=case)
