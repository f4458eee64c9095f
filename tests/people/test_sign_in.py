"""Sign-in: what a provider proves, once; what a session is good for; everything forged, old or used is refused."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from ihds.audit.log import Log, now
from ihds.errors import BadInput, CannotVerify, Conflict, NotAuthenticated, Refused, SetupFailed
from ihds.people import client, provider
from ihds.people.oidc import OpenIdProvider
from ihds.people.proofs import ProofGate, b64_sha256, proof, thumbprint
from ihds.people.sessions import Sessions, nonce_of
from ihds.store.store import Store
from ihds.wire.http import Http
from ihds.wire.jose import SigningKey

ISSUER, CLIENT = "http://127.0.0.1:9", "node"
ME = "did:web:hdab.example"
PASSWORD = "correct horse battery"


class Unsigned:
    def sign(self, data: bytes) -> str:
        return ""


class Published(Http):
    """The network as a table: what a provider publishes, and how often it was asked."""

    def __init__(self, keys):
        super().__init__()
        self.keys, self.asked, self.down = keys, 0, False

    def get_json(self, url, token=None, seconds=None):
        if self.down:
            from ihds.errors import PeerFailed

            raise PeerFailed("down")
        if url.endswith("openid-configuration"):
            return {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}
        self.asked += 1
        return KeySet(self.keys).as_dict(private=False)


class Clock:
    def __init__(self):
        self.at = time.time()

    def __call__(self):
        return self.at


EC = ECKey.generate_key("P-256", {"kid": "a"})
RSA = RSAKey.generate_key(2048, {"kid": "r"})


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def world(clock):
    http = Published([EC])
    return OpenIdProvider(ISSUER, CLIENT, http, clock)


def token(key=EC, alg="ES256", header=None, at=None, **changes):
    at = int(at or time.time())
    claims = {"iss": ISSUER, "sub": "s1", "aud": CLIENT, "iat": at, "exp": at + 300, "nonce": "n", "name": "A"}
    claims = {k: v for k, v in {**claims, **changes}.items() if v is not None}
    return jwt.encode({"alg": alg, "kid": key.kid, **(header or {})}, claims, key, algorithms=[alg])


def test_a_person_is_known_by_issuer_and_subject(world):
    person, _ = world.identify(token(), "n")
    assert (person.issuer, person.subject, person.name) == (ISSUER, "s1", "A")


WRONG = {
    "another audience": {"aud": "other"},
    "several audiences and no party": {"aud": [CLIENT, "other"]},
    "authorised for another": {"azp": "other"},
    "another audience, authorised for us": {"aud": "other", "azp": CLIENT},
    "another issuer": {"iss": "https://evil.example"},
    "no subject": {"sub": None},
    "a subject that is no text": {"sub": 7},
    "no end": {"exp": None},
    "over": {"exp": int(time.time()) - 120, "iat": int(time.time()) - 400},
    "not yet": {"iat": int(time.time()) + 3600, "exp": int(time.time()) + 7200},
    "another sign-in": {"nonce": "m"},
    "no nonce": {"nonce": None},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_a_token_that_is_not_for_this_sign_in_is_refused(world, changes):
    with pytest.raises(NotAuthenticated):
        world.identify(token(**changes), "n")


def test_a_token_signed_by_nobody_or_by_the_public_key_is_refused(world):
    good = token()
    head, body, signature = good.split(".")
    import base64
    import json

    def with_head(**header):
        made = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
        return f"{made}.{body}"

    public = EC.as_pem(private=False)  # the published key, used as a shared secret
    import hashlib
    import hmac as mac

    text = with_head(alg="HS256", kid="a")
    signed = base64.urlsafe_b64encode(mac.new(public, text.encode(), hashlib.sha256).digest()).decode()
    flipped = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")
    forged = [
        f"{with_head(alg='none', kid='a')}.",
        f"{with_head(alg='None', kid='a')}.{signature}",
        f"{text}.{signed.rstrip('=')}",
        f"{head}.{body}.{flipped}",
        f"{head}.{body}.",
        token(ECKey.generate_key("P-256", {"kid": "a"})),
        token(header={"jwk": ECKey.generate_key("P-256").as_dict(private=False), "kid": "b"}),
        token(RSA, "RS256", {"kid": "a"}),
        f"{with_head(alg='ES256')}.{signature}",
        "",
        "a.b.c",
    ]
    for text in forged:
        with pytest.raises(NotAuthenticated):
            world.identify(text, "n")


def test_a_shared_secret_among_the_published_keys_signs_nothing(world):
    world.http.keys.append(OctKey.generate_key(256, {"kid": "o"}))
    with pytest.raises(NotAuthenticated):
        world.identify(token(OctKey.generate_key(256, {"kid": "o"}), "HS256"), "n")


def test_keys_rotate_and_what_is_withdrawn_is_believed_no_more(world, clock):
    world.identify(token(), "n")
    fresh = ECKey.generate_key("P-256", {"kid": "b"})
    world.http.keys = [EC, fresh]
    with pytest.raises(NotAuthenticated, match="publishes no key"):  # asked a moment ago
        world.identify(token(fresh), "n")
    clock.at += 6
    world.identify(token(fresh), "n")
    assert world.http.asked == 2
    for _ in range(20):  # a flood of unknown keys is no flood of requests
        with pytest.raises(NotAuthenticated):
            world.identify(token(ECKey.generate_key("P-256", {"kid": "x"})), "n")
    assert world.http.asked == 2
    world.http.keys = [fresh]
    clock.at += 301
    with pytest.raises(NotAuthenticated):
        world.identify(token(at=clock.at), "n")


def test_without_the_providers_keys_the_answer_is_no_for_this_time(world):
    world.http.down = True
    with pytest.raises(CannotVerify):
        world.identify(token(), "n")


def test_a_provider_that_calls_itself_otherwise_is_not_the_one_that_is_trusted(world):
    world.http.get_json = lambda *_a, **_k: {"issuer": "https://evil.example", "jwks_uri": f"{ISSUER}/keys"}
    with pytest.raises(SetupFailed, match="calls itself"):
        world.identify(token(), "n")


def test_a_provider_beyond_this_machine_is_spoken_to_by_tls_only():
    with pytest.raises(SetupFailed):
        OpenIdProvider("http://login.example", CLIENT, Http())
    OpenIdProvider("https://login.example", CLIENT, Http())


# -- proofs of the key ---------------------------------------------------------------------------------


URL = "http://127.0.0.1:1/api/x"


def test_a_proof_is_good_once_for_one_request_of_one_session(clock):
    gate, key, other = ProofGate(clock), SigningKey.new("k"), SigningKey.new("o")
    made = proof(key, "POST", URL, "secret")
    assert gate.check(made, "POST", URL, "secret") == thumbprint(key.public_jwk())
    with pytest.raises(NotAuthenticated, match="used before"):
        gate.check(made, "POST", URL, "secret")
    assert gate.check(proof(other, "POST", URL, "secret"), "POST", URL, "secret") != thumbprint(key.public_jwk())
    private = ECKey.import_key(key.to_pem(None))

    def fresh(jti):
        return {"htm": "POST", "htu": URL, "iat": int(clock.at), "jti": jti, "ath": b64_sha256("secret")}

    assert gate.check(key.sign_jwt(fresh("0"), "dpop+jwt", jwk=key.public_jwk()), "POST", URL, "secret")
    for text, method, url, session in (
        (proof(key, "GET", URL, "secret"), "POST", URL, "secret"),
        (proof(key, "POST", URL + "y", "secret"), "POST", URL, "secret"),
        (proof(key, "POST", URL, "other"), "POST", URL, "secret"),
        (proof(key, "POST", URL), "POST", URL, "secret"),
        ("", "POST", URL, "secret"),
        (key.sign_jwt(fresh("1"), jwk=key.public_jwk()), "POST", URL, "secret"),
        (key.sign_jwt(fresh("2"), "dpop+jwt", jwk=private.as_dict(private=True)), "POST", URL, "secret"),
        (key.sign_jwt({"htm": "POST"}, "dpop+jwt"), "POST", URL, "secret"),
        (key.sign_jwt({}, "dpop+jwt", jwk=other.public_jwk()), "POST", URL, "secret"),
        (key.sign_jwt({}, "dpop+jwt", jwk=OctKey.generate_key(256).as_dict()), "POST", URL, "secret"),
    ):
        with pytest.raises(NotAuthenticated):
            gate.check(text, method, url, session)


def test_a_stale_proof_and_one_from_before_the_start_are_refused(clock):
    gate, key = ProofGate(clock), SigningKey.new("k")
    made = proof(key, "POST", URL, "s")
    clock.at += 61
    with pytest.raises(NotAuthenticated, match="stale"):
        gate.check(made, "POST", URL, "s")
    clock.at -= 61
    replayed = proof(key, "POST", URL, "s")
    clock.at += 2
    with pytest.raises(NotAuthenticated, match="stale"):  # a node that was started since
        ProofGate(clock).check(replayed, "POST", URL, "s")


# -- sessions ------------------------------------------------------------------------------------------


class Desk:
    """A node's sessions on a clock that is set by hand."""

    def __init__(self, roles_claim=""):
        self.late = timedelta()
        self.log = Log(Store("sqlite://"), ME, Unsigned(), lambda: now() + self.late)
        self.provider = OpenIdProvider(ISSUER, CLIENT, Published([EC]), lambda: self.log.clock().timestamp())
        self.sessions = Sessions(self.log, ME, self.provider, roles_claim=roles_claim)

    def open(self, key="key", subject="s1", **changes):
        challenge = self.sessions.challenge()
        at = self.log.clock().timestamp()
        return self.sessions.open(challenge, token(at=at, sub=subject, nonce=nonce_of(challenge, key), **changes), key)

    def word(self, **changes):
        return token(at=self.log.clock().timestamp(), nonce=None, **changes)


def test_two_sessions_of_two_persons_do_not_mix():
    desk = Desk()
    one, _ = desk.open("k1", "s1")
    two, _ = desk.open("k2", "s2")
    assert desk.sessions.whose(one, "k1").person.subject == "s1"
    assert desk.sessions.whose(two, "k2").person.subject == "s2"
    for secret, key in ((one, "k2"), (two, "k1"), ("", "k1"), ("guess", "k1")):
        with pytest.raises(NotAuthenticated):
            desk.sessions.whose(secret, key)
    desk.sessions.close(one, "k1")
    with pytest.raises(NotAuthenticated):
        desk.sessions.whose(one, "k1")
    assert desk.sessions.whose(two, "k2")
    assert [e["kind"] for e in desk.log.entries()] == ["session.opened", "session.opened", "session.closed"]
    assert one not in "".join(desk.log.store.read())
    assert two not in str(desk.log.store.list("session"))


def test_an_id_token_opens_one_session_for_one_key():
    desk = Desk()
    challenge = desk.sessions.challenge()
    made = token(nonce=nonce_of(challenge, "mine"))
    with pytest.raises(NotAuthenticated):  # whoever saw the token has another key
        desk.sessions.open(challenge, made, "theirs")
    challenge = desk.sessions.challenge()
    made = token(nonce=nonce_of(challenge, "mine"))
    desk.sessions.open(challenge, made, "mine")
    for again in (challenge, desk.sessions.challenge(), "guess"):
        with pytest.raises(NotAuthenticated):
            desk.sessions.open(again, made, "mine")
    late = desk.sessions.challenge()
    desk.late += timedelta(minutes=11)
    with pytest.raises(NotAuthenticated, match="is over"):
        desk.sessions.open(late, token(at=desk.log.clock().timestamp(), nonce=nonce_of(late, "mine")), "mine")


def test_a_session_is_short_and_renewed_by_the_providers_word_only():
    desk = Desk()
    secret, _ = desk.open("k")
    desk.late += timedelta(minutes=14)
    old = desk.word(exp=int(time.time()) + 36_000)
    desk.sessions.renew(secret, "k", desk.word())
    desk.late += timedelta(minutes=14)
    assert desk.sessions.whose(secret, "k")
    for word, key in ((desk.word(sub="s2"), "k"), (desk.word(), "other"), (old, "k"), (desk.word(aud="x"), "k")):
        with pytest.raises(NotAuthenticated):
            desk.sessions.renew(secret, key, word)
    desk.late += timedelta(minutes=2)
    with pytest.raises(NotAuthenticated):
        desk.sessions.whose(secret, "k")
    for _ in range(60):
        try:
            until = desk.sessions.renew(secret, "k", desk.word()).expires_at
            assert until <= now() + timedelta(hours=10)  # by the day's own clock, on which it was opened
        except NotAuthenticated:
            break
        desk.late += timedelta(minutes=11)
    assert timedelta(hours=10) <= desk.late <= timedelta(hours=10, minutes=30)


def test_duties_come_from_the_named_claim_only():
    assert Desk().open(roles=["officer"])[1].roles is None
    named = Desk("duties")
    assert named.open(duties=["officer", 7])[1].roles == ("officer",)
    assert named.open(duties="officer")[1].roles == ()
    assert named.open()[1].roles == ()


# -- the built-in provider -----------------------------------------------------------------------------


class Web(Http):
    """Sends to an application in this process."""

    def __init__(self, app):
        super().__init__()
        self.app = app

    def send(self, method, url, *, body=None, headers=None, seconds=None, limit=0):
        if not url.startswith(ISSUER):
            return httpx.request(method, url, content=body, headers=headers)

        async def sent():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app)) as web:
                return await web.request(method, url, content=body, headers=headers)

        return anyio.run(sent)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("provider") / "p"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IHDS_PASSPHRASE", "word")
        provider.create(folder, provider.ProviderConfig(ISSUER, 9, (CLIENT, "other")))
        made = provider.Provider(folder)
    made.accounts.add("anna", PASSWORD, "A. Assessor")
    yield made
    made.store.close()


@pytest.fixture
def web(house):
    return Web(house.app())


def party(web, client_id=CLIENT):
    return OpenIdProvider(ISSUER, client_id, web)


def test_a_person_signs_in_by_browser_and_is_who_the_provider_says(house, web):
    way = client.by_browser(client.filled_in("anna", PASSWORD, web))
    tokens = way(party(web), "openid offline_access", "n")
    person, claims = party(web).identify(tokens["id_token"], "n")
    assert (person.name, person.subject) == ("A. Assessor", house.accounts.list()[0]["subject"])
    assert claims["exp"] - claims["iat"] <= 300
    with pytest.raises(NotAuthenticated):
        party(web, "other").identify(tokens["id_token"], "n")
    with pytest.raises(NotAuthenticated):
        client.by_browser(client.filled_in("anna", "wrong", web))(party(web), "openid", "n")


def test_a_person_signs_in_by_a_code_typed_elsewhere(web):
    def typed(page, code):
        form = urlencode({"user_code": code, "username": "anna", "password": PASSWORD}).encode()
        assert "signed in" in web.send("POST", page, body=form).text
        assert web.send("POST", page, body=form).status_code == 400  # a code is typed once

    tokens = client.by_code(typed)(party(web), "openid", "n")
    assert party(web).identify(tokens["id_token"], "n")
    assert "refresh_token" not in tokens


def code(web, **changes):
    """Sign in by hand; return the code and the verifier of a sign-in."""
    verifier = "v" * 50
    asked = {
        "response_type": "code",
        "client_id": CLIENT,
        "redirect_uri": "http://127.0.0.1:5/x",
        "scope": "openid offline_access",
        "state": "s",
        "nonce": "n",
        "code_challenge": client.create_s256_code_challenge(verifier),
        "code_challenge_method": "S256",
        "username": "anna",
        "password": PASSWORD,
        **changes,
    }
    answer = web.send("POST", f"{ISSUER}/authorize", body=urlencode(asked).encode())
    if answer.status_code != 303:
        return answer, verifier
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query)), verifier


def exchanged(web, **form):
    given = {"grant_type": "authorization_code", "client_id": CLIENT, "redirect_uri": "http://127.0.0.1:5/x", **form}
    return web.send("POST", f"{ISSUER}/token", body=urlencode(given).encode())


def test_a_code_is_used_once_by_its_client_with_its_verifier(web):
    for wrong in (
        {"code_verifier": "w" * 50},
        {"code_verifier": ""},
        {"client_id": "other"},
        {"redirect_uri": "http://127.0.0.1:6/x"},
    ):
        answer, verifier = code(web)
        refused = exchanged(web, **{"code": answer["code"], "code_verifier": verifier, **wrong})
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    answer, verifier = code(web)
    assert exchanged(web, code=answer["code"], code_verifier=verifier).status_code == 200
    again = exchanged(web, code=answer["code"], code_verifier=verifier)
    assert again.json()["error"] == "invalid_grant"


def test_a_refresh_token_is_used_once_and_ends_with_the_account(house, web):
    house.accounts.add("ben", PASSWORD)
    answer, verifier = code(web, username="ben")
    first = exchanged(web, code=answer["code"], code_verifier=verifier).json()["refresh_token"]
    second = exchanged(web, grant_type="refresh_token", refresh_token=first).json()
    assert "nonce" not in jwt.decode(second["id_token"], ECKey.import_key(house.keys.public_jwk())).claims
    assert exchanged(web, grant_type="refresh_token", refresh_token=first).status_code == 400
    house.accounts.remove("ben")
    assert exchanged(web, grant_type="refresh_token", refresh_token=second["refresh_token"]).status_code == 400
    assert code(web, username="ben")[0].status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "https://evil.example/x"},
        {"redirect_uri": "http://127.0.0.1@evil.example/x"},
        {"redirect_uri": "http://localhost.evil.example/x"},
        {"client_id": "evil"},
        {"code_challenge": ""},
        {"code_challenge_method": "plain"},
        {"response_type": "token"},
        {"scope": "profile"},
    ],
)
def test_nobody_is_sent_anywhere_by_a_request_that_is_none(web, changes):
    answer, _ = code(web, **changes)
    assert answer.status_code == 400
    assert "location" not in answer.headers


def test_passwords_are_guessed_slowly_and_kept_as_scrypt(house, web):
    house.accounts.add("cleo", PASSWORD)
    for _ in range(5):
        with pytest.raises(NotAuthenticated, match="wrong"):
            house.accounts.check("cleo", "guess")
    with pytest.raises(NotAuthenticated, match="too many"):
        house.accounts.check("cleo", PASSWORD)
    assert PASSWORD not in str(house.store.list("person"))
    with pytest.raises(BadInput):
        house.accounts.add("dora", "short")
    said = web.send("POST", f"{ISSUER}/authorize", body=b"username=a&username=b")
    assert said.status_code == 400
    page = web.send("GET", f"{ISSUER}/device?user_code=%3Cscript%3E")
    assert "<script>" not in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


def test_what_two_use_at_once_one_gets(house):
    secret = house.accounts.hand_out("code", {"user": "anna", "client_id": CLIENT}, 60)
    held = house.accounts.held("code", secret)
    house.accounts.use_up("code", secret, held)
    with pytest.raises(Conflict):
        house.accounts.use_up("code", secret, held)


def test_what_strangers_ask_for_leaves_no_record_and_takes_no_more_than_its_room(house, web):
    before = len(house.accounts.log.entries())
    first = house.devices.begin({"client_id": CLIENT, "nonce": "", "scope": "openid"}, "FIRST")
    for number in range(1000):
        last = house.devices.begin({"client_id": CLIENT, "nonce": "", "scope": "openid"}, f"CODE-{number}")
    assert house.devices.held(first) is None
    assert house.devices.held(last)
    assert house.devices.take(last) is None  # nobody typed it
    asked = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": last}
    assert exchanged(web, **asked).json()["error"] == "authorization_pending"
    assert house.devices.approve("CODE-999", "anna")
    assert not house.devices.approve("CODE-999", "mallory")
    assert exchanged(web, **{**asked, "client_id": "other"}).json()["error"] == "expired_token"
    assert len(house.accounts.log.entries()) == before
    assert exchanged(web, **asked).status_code == 200
    assert exchanged(web, **asked).json()["error"] == "expired_token"


@given(st.dictionaries(st.sampled_from(["state", "iss", "code", "error"]), st.text(max_size=8)))
@settings(max_examples=60, deadline=None)
def test_an_answer_that_is_not_ours_gives_no_code(answer):
    class Provider:
        issuer = ISSUER

        def metadata(self):
            return {"authorization_response_iss_parameter_supported": True}

    ours = answer.get("state") == "s" and answer.get("iss") == ISSUER
    assert not ours
    with pytest.raises(NotAuthenticated):
        client.answered(answer, "s", Provider())
    good = {"state": "s", "iss": ISSUER, "code": "c"}
    assert client.answered(good, "s", Provider()) == "c"
    for wrong in (
        {"state": ""},
        {"state": "S"},
        {"iss": ""},
        {"iss": "https://evil.example"},
        {"code": ""},
        {"error": "x"},
    ):
        with pytest.raises(NotAuthenticated):
            client.answered({**good, **wrong}, "s", Provider())


def test_whom_the_node_does_not_know_gets_no_session():
    def nobody(_person, _roles):
        raise Refused("no account")

    desk = Desk()
    desk.sessions.admitted = nobody
    with pytest.raises(Refused):
        desk.open()
    assert desk.log.entries() == []
