"""Self-issued tokens, credentials and status lists: what must verify, and every way it must not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ihds.connector.dcp import credentials, status
from ihds.connector.dcp.credentials import PROFILES, read
from ihds.connector.dcp.presentation import Verifier, scope_of, wanted
from ihds.connector.dcp.status import StatusLists
from ihds.connector.dcp.tokens import Identity, TokenGate
from ihds.errors import CannotVerify, NotAuthenticated, Refused
from ihds.ids import Did
from ihds.wire.did import Resolver, document
from ihds.wire.http import Http
from ihds.wire.jose import SigningKey


def make(name: str) -> Identity:
    did = Did.parse(f"did:web:{name}.example")
    return Identity(did, SigningKey.new(f"{did}#key-1"))


A, B, EVIL = make("a"), make("b"), make("evil")


def documented(who: Identity):
    return lambda: document(who.did, [(who.key.kid, who.key.public_jwk(), True)], {})


KNOWN = {i.did: documented(i) for i in (A, B, EVIL)}


def resolver() -> Resolver:
    return Resolver(Http(), KNOWN)


def signed(who=A, key=None, **changes):
    at = int(datetime.now(UTC).timestamp())
    claims = {
        "iss": who.did,
        "sub": who.did,
        "aud": B.did,
        "jti": str(id(changes)) + str(at),
        "iat": at,
        "exp": at + 300,
    }
    return (key or who.key).sign_jwt({**claims, **changes})


def test_a_good_token_is_good_once():
    gate, token = TokenGate(B.did, resolver()), A.token(B.did)
    assert gate.check(token)["iss"] == A.did
    with pytest.raises(NotAuthenticated, match="used before"):
        gate.check(token)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"sub": B.did}, "not its subject"),
        ({"aud": EVIL.did}, "not for"),
        ({"iat": -900, "exp": -600}, "expired"),
        ({"iat": 600, "exp": 900}, "not valid yet"),
        ({"nbf": 600}, "not valid yet"),
        ({"nbf": "soon"}, "not valid yet"),
        ({"exp": 10**9}, "more than"),
        ({"exp": None}, "no iat or exp"),
        ({"jti": ""}, "no jti"),
        ({"iat": -100, "exp": 100}, "before this node started"),
        ({"iss": EVIL.did}, "not one of"),
    ],
)
def test_every_flaw_of_a_token_is_named(changes, word):
    """Times are seconds from now: the tests before this one may take minutes."""
    at = int(datetime.now(UTC).timestamp())
    changes = {k: at + v if isinstance(v, int) else v for k, v in changes.items()}
    with pytest.raises(NotAuthenticated, match=word):
        TokenGate(B.did, resolver()).check(signed(**changes))


def test_a_token_signed_by_another_key_is_refused():
    with pytest.raises(NotAuthenticated, match="signature|not one of"):
        TokenGate(B.did, resolver()).check(signed(key=EVIL.key))
    forged = SigningKey(EVIL.key.private, A.key.kid)
    with pytest.raises(NotAuthenticated, match="signature"):
        TokenGate(B.did, resolver()).check(signed(key=forged))


@pytest.mark.parametrize("did", ["did:web:127.0.0.1%3A80%2Fa%3Fq%23", "did:web:a@b", "did:key:z6Mk", "did:web:a%2Fb"])
def test_a_did_cannot_lead_a_node_elsewhere(did):
    with pytest.raises(NotAuthenticated):
        Resolver(Http()).resolve(did)


def credential(issuer=A, subject=B.did, **more):
    expires = more.pop("expires", datetime.now(UTC) + timedelta(days=1))
    return credentials.issue(issuer, subject, "MembershipCredential", {"role": "holder"}, expires, **more)


def verifier() -> Verifier:
    return Verifier(B, resolver(), Http(), lambda _kind: frozenset({A.did}), StatusLists(resolver(), Http()))


def believed(token: str):
    return verifier().credential(token, B.did, "MembershipCredential")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_credential_of_a_trusted_issuer_about_its_holder_is_believed_in_both_forms(profile):
    found = believed(credential(profile=profile))
    assert (found.types, found.profile) == (("MembershipCredential",), profile)
    assert found.subject["role"] == "holder"
    assert found.valid_until - found.valid_from > timedelta(hours=23)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_flaw_of_a_credential_is_named(profile):
    with pytest.raises(NotAuthenticated, match="not trusted"):
        believed(credential(EVIL, profile=profile))
    with pytest.raises(NotAuthenticated, match="somebody other"):
        believed(credential(subject=EVIL.did, profile=profile))
    with pytest.raises(NotAuthenticated, match="expired"):
        believed(credential(expires=datetime.now(UTC) - timedelta(days=1), profile=profile))
    with pytest.raises(NotAuthenticated, match="not a DataPermitCredential"):
        verifier().credential(credential(profile=profile), B.did, "DataPermitCredential")


def test_presentations_are_of_one_form_each_and_for_one_verifier():
    tokens = [credential(profile=p) for p in PROFILES]
    shown = credentials.present(B, A.did, tokens)
    assert len(shown) == 2
    at = datetime.now(UTC).timestamp()
    inner = [credentials.presented(resolver(), s, B.did, A.did, at) for s in shown]
    assert inner == [[tokens[0]], [tokens[1]]]
    with pytest.raises(NotAuthenticated, match="not for this node"):
        credentials.presented(resolver(), shown[0], B.did, EVIL.did, at)
    with pytest.raises(NotAuthenticated, match="not by"):
        credentials.presented(resolver(), shown[0], A.did, A.did, at)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"vc": "x"},
        {"vc": {"type": ["A"], "credentialSubject": []}},
        {"vc": {"type": ["A"], "credentialSubject": [{"id": "a"}, {"id": "b"}]}},
        {"vc": {"type": ["A"], "issuer": "did:web:other", "credentialSubject": {"id": "b"}}},
        {"vc": {"type": ["A"], "credentialSubject": {"id": "b"}, "expirationDate": "never"}},
        {"issuer": "did:web:other", "type": ["A"], "credentialSubject": {"id": "b"}},
    ],
)
def test_what_is_no_credential_is_not_read_as_one(claims):
    with pytest.raises(NotAuthenticated):
        read(A.key.sign_jwt({"iss": A.did, **claims}))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_status_bit_is_read_back_and_beyond_the_list_counts_as_revoked(profile):
    encoded = status.encode_bits({0, 7, 8, 131_071}, profile)
    assert encoded.startswith("uH4sI" if profile == PROFILES[1] else "H4sI")
    assert [i for i in (0, 1, 7, 8, 9, 131_071) if status.read_bit(encoded, i)] == [0, 7, 8, 131_071]
    assert status.read_bit(encoded, 131_072)
    with pytest.raises(Refused, match="cannot be read"):
        status.read_bit("not gzip", 1)


def test_a_status_that_cannot_be_learnt_counts_as_no():
    found = believed(credential(status=status.entry("http://127.0.0.1:9/status", 1)))
    with pytest.raises(CannotVerify, match="cannot be fetched"):
        verifier().revoked(found)
    unknown = believed(credential(status={"type": "Crystal", "statusListCredential": "x", "statusListIndex": "1"}))
    with pytest.raises(Refused, match="unknown"):
        verifier().revoked(unknown)


def test_scopes_choose_credentials():
    held = [{"id": "1", "type": "A"}, {"id": "2", "type": "B"}]
    query = {"type": "PresentationQueryMessage", "scope": [scope_of("B")]}
    assert wanted(query, held) == [held[1]]
    assert wanted({**query, "scope": ["org.eclipse.dspace.dcp.vc.id:1"]}, held) == [held[0]]
    for wrong in ({}, {"type": "PresentationQueryMessage"}, {**query, "presentationDefinition": {}}):
        with pytest.raises(Exception, match="PresentationQueryMessage|exactly one"):
            wanted(wrong, held)
