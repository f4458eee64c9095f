"""A hostile world: bad tokens, bad addresses, slow and oversized bodies. Each is refused by name; nothing changes."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import uvicorn

from ihds.connector.dcp import credentials, status
from ihds.connector.dcp.credentials import MEMBERSHIP
from ihds.connector.dcp.presentation import scope_of
from ihds.connector.dcp.tokens import Identity
from ihds.connector.dsp.message import message
from ihds.errors import BadMessage, IhdsError, PeerFailed
from ihds.ids import Did
from ihds.roles import node as nodes
from ihds.roles.config import NodeConfig, free_port
from ihds.wire import serve
from ihds.wire.did import Resolver, document
from ihds.wire.guard import LOOPBACK, Guard
from ihds.wire.http import Http
from ihds.wire.jose import SigningKey
from ihds.wire.serve import Answer, Patient, endpoint
from ihds.wire.strict import clean, read_json

CATALOG = message("CatalogRequestMessage")


class Server:
    """A web application in a thread."""

    def __init__(self, app, **more) -> None:
        self.port = more.pop("port", None) or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="error", http=Patient, **more)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.02)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


class Stranger:
    """Somebody with keys, a DID document and a credential service of its own, all as it pleases."""

    def __init__(self) -> None:
        from starlette.applications import Starlette
        from starlette.routing import Route

        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.did = Did.parse(f"did:web:127.0.0.1%3A{self.port}")
        self.identity = Identity(self.did, SigningKey.new(f"{self.did}#key-1"))
        self.credentials: list[str] = []
        self.extra: dict = {}
        self.document = self.plain()
        routes = [
            Route("/.well-known/did.json", endpoint(lambda _c: Answer(self.document))),
            Route("/cs/presentations/query", endpoint(self.present), methods=["POST"]),
            Route("/status", endpoint(lambda _c: Answer(raw=self.list.encode()))),
        ]
        self.list = ""
        self.server = Server(Starlette(routes=routes), port=self.port)

    def plain(self) -> dict:
        key = self.identity.key
        services = {"CredentialService": f"{self.url}/cs", "TrustList": f"{self.url}/trust"}
        return document(self.did, [(key.kid, key.public_jwk(), True)], services)

    def present(self, call) -> Answer:
        verifier = str(read_claims(call.bearer)["iss"])
        shown = credentials.present(self.identity, verifier, self.credentials)
        return Answer({"@context": [], "type": "PresentationResponseMessage", "presentation": shown})

    def member(self, subject: str, **more) -> str:
        until = more.pop("until", datetime.now(UTC) + timedelta(days=1))
        return credentials.issue(self.identity, subject, MEMBERSHIP, {"role": "user", "country": "LU"}, until, **more)


def read_claims(token: str) -> dict:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A node; its authority; a member; a stranger."""
    folder = tmp_path_factory.mktemp("hostile")
    authority, member, stranger = Stranger(), Stranger(), Stranger()
    port = free_port()
    config = NodeConfig(
        "lih",
        "user",
        "LU",
        f"http://127.0.0.1:{port}",
        port,
        authority=authority.did,
        membership_seconds=0.0,
        permit_status_seconds=0.0,
        passphrase_file=str(folder / "word"),
    )
    nodes.create(folder / "lih", config)
    node = nodes.Node(folder / "lih")
    server = Server(node.app(), port=port, lifespan="off")
    authority.credentials = [authority.member(authority.did)]
    member.credentials = [authority.member(member.did)]
    yield node, authority, member, stranger
    server.stop()
    node.http.close()
    node.store.close()
    for each in (authority, member, stranger):
        each.server.stop()


def ask(node, token: str, path: str = "/dsp/2025-1/catalog/request", body: object = CATALOG) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.post(node.config.base_url + path, json=body, headers=headers)


def access(who: Stranger, node) -> str:
    return who.identity.token(node.did, "opens anything")


def claims(who: Stranger, node, **changes) -> dict:
    at = int(time.time())
    made = {"iss": who.did, "sub": who.did, "aud": node.did, "jti": uuid.uuid4().hex, "iat": at, "exp": at + 300}
    return {k: v for k, v in {**made, "token": "x", **changes}.items() if v is not None}


def forged(header: dict, body: dict, signature: bytes = b"x" * 64) -> str:
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in parts)


def corpus(node, member: Stranger, stranger: Stranger) -> dict[str, str]:
    """Return bad tokens by what is bad about them."""
    key, at = member.identity.key, int(time.time())

    def signed(**changes) -> str:
        return key.sign_jwt(claims(member, node, **changes))

    good = {"alg": "ES256", "kid": key.kid, "typ": "JWT"}
    elsewhere = SigningKey(stranger.identity.key.private, key.kid)
    pointing = SigningKey(key.private, f"{stranger.did}#key-1")
    secret = json.dumps(key.public_jwk()).encode()
    import hashlib
    import hmac

    text = forged({**good, "alg": "HS256"}, claims(member, node)).rsplit(".", 1)[0]
    mac = base64.urlsafe_b64encode(hmac.new(secret, text.encode(), hashlib.sha256).digest()).decode().rstrip("=")
    return {
        "none at all": "",
        "no token": "hello",
        "three dots": "...",
        "wrong audience": signed(aud=stranger.did),
        "many audiences": signed(aud=[node.did, stranger.did]),
        "expired": signed(iat=at - 900, exp=at - 600),
        "future": signed(iat=at + 600, exp=at + 900),
        "not before": signed(nbf=at + 600),
        "endless": signed(exp=at + 10**8),
        "no expiry": signed(exp=None),
        "no id": signed(jti=None),
        "id of a list": signed(jti=["a"]),
        "other subject": signed(sub=stranger.did),
        "other issuer": signed(iss=stranger.did),
        "wrong key": elsewhere.sign_jwt(claims(member, node)),
        "key id pointing elsewhere": pointing.sign_jwt(claims(member, node)),
        "key id of nobody": SigningKey(key.private, f"{member.did}#key-9").sign_jwt(claims(member, node)),
        "alg none": forged({**good, "alg": "none"}, claims(member, node), b""),
        "alg of a secret": f"{text}.{mac}",
        "critical header": key.sign_jwt(claims(member, node), crit=["unknown"], unknown=1),
        "huge claims": key.sign_jwt(claims(member, node, x="a" * 300_000)),
        "deep claims": forged(good, {"iss": member.did, "x": deep(200)}),
        "a presentation": key.sign_jwt(claims(member, node, vp={"verifiableCredential": []})),
        "broken text": forged(good, claims(member, node, jti="\ud800")),
        "endless number": forged(good, {**claims(member, node), "iat": 10**400}),
        "no did": key.sign_jwt(claims(member, node, iss="https://x", sub="https://x")),
    }


def deep(levels: int) -> list:
    found: list = []
    for _ in range(levels):
        found = [found]
    return found


def test_every_bad_token_is_refused_everywhere_with_its_code_and_changes_nothing(world):
    node, _, member, stranger = world
    assert ask(node, access(member, node)).status_code == 200, "the member is let in"
    before = node.log.checkpoint()
    for name, token in corpus(node, member, stranger).items():
        answer = ask(node, token)
        assert answer.status_code == 401, (name, answer.text)
        assert answer.json()["code"] == "IHDS-AUTH", name
        for path in ("/dcp/presentations/query", "/dcp/credentials", "/dcp/offers", "/dsp/2025-1/negotiations/x"):
            other = (
                ask(node, token, path)
                if "negotiations" not in path
                else httpx.get(
                    node.config.base_url + path, headers={"Authorization": f"Bearer {token}"} if token else {}
                )
            )
            assert other.status_code == 401, (name, path, other.text)
    assert node.log.checkpoint() == before


def test_a_token_is_good_once_whatever_else_it_says(world):
    node, _, member, _ = world
    token = access(member, node)
    assert ask(node, token).status_code == 200
    assert "used before" in ask(node, token).text
    assert ask(node, token, "/dcp/presentations/query", {}).status_code == 401


def test_only_members_in_good_standing_are_let_in(world):
    node, authority, member, stranger = world
    stranger.credentials = []
    assert "0 membership credentials" in ask(node, access(stranger, node)).text
    stranger.credentials = [stranger.member(stranger.did)]
    assert "not trusted to issue" in ask(node, access(stranger, node)).text
    stranger.credentials = list(member.credentials)
    assert "somebody other" in ask(node, access(stranger, node)).text
    past = datetime.now(UTC) - timedelta(days=1)
    stranger.credentials = [authority.member(stranger.did, until=past)]
    assert "expired" in ask(node, access(stranger, node)).text
    url = f"{authority.url}/status"
    stranger.credentials = [authority.member(stranger.did, status=status.entry(url, 3, purpose="suspension"))]
    until = datetime.now(UTC) + timedelta(hours=1)
    authority.list = status.status_list(authority.identity, url, {4}, until, purpose="suspension")
    assert ask(node, access(stranger, node)).status_code == 200
    authority.list = status.status_list(authority.identity, url, {3}, until, purpose="suspension")
    refused = ask(node, access(stranger, node))
    assert (refused.status_code, refused.json()["code"]) == (403, "IHDS-REFUSED")
    authority.list = status.status_list(stranger.identity, url, {4}, until, purpose="suspension")
    assert ask(node, access(stranger, node)).status_code == 403, "a list of another issuer tells nothing"
    assert "no membership" in ask(node, stranger.identity.token(node.did)).text


def test_an_access_token_opens_to_whom_it_was_given_and_nothing_else(world):
    node, _, member, stranger = world
    mine = node.wallet.access(member.did, [scope_of(MEMBERSHIP)])
    query = {"@context": [], "type": "PresentationQueryMessage", "scope": [scope_of(MEMBERSHIP)]}
    path = "/dcp/presentations/query"
    assert ask(node, member.identity.token(node.did, mine), path, query).status_code == 200
    assert ask(node, stranger.identity.token(node.did, mine), path, query).status_code == 401
    beyond = {**query, "scope": [scope_of("DataPermitCredential")]}
    assert ask(node, member.identity.token(node.did, mine), path, beyond).status_code == 401
    own = node.identity.token(member.did)  # a self-issued token is not an access token
    assert ask(node, member.identity.token(node.did, own), path, query).status_code == 401


# -- addresses -------------------------------------------------------------------------------------------

INSIDE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "168.63.129.16",
    "::1",
    "fe80::1",
    "fc00::1",
    "fec0::1",
    "::ffff:10.0.0.1",
    "::7f00:1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_not_called_unless_allowed(address):
    assert not Guard().allows(address)
    assert Guard().allows("9.9.9.9")
    assert Guard().allows("2620:fe::fe")


def test_allowed_networks_open_exactly_themselves():
    guard = Guard.of(("10.1.0.0/16", *LOOPBACK))
    assert guard.allows("10.1.2.3")
    assert guard.allows("127.0.0.1")
    assert not guard.allows("10.2.0.1")
    with pytest.raises(IhdsError, match="allowed_networks"):
        Guard.of(("ten",))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::1]:{port}/", "http://2130706433:{port}/"]
)
def test_names_and_notations_for_inside_are_refused_before_a_byte_is_sent(url):
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.2)
        http = Http(allowed=())
        with pytest.raises(PeerFailed, match="may not call|does not answer"):
            http.send("GET", url.format(port=trap.getsockname()[1]))
        with pytest.raises(TimeoutError):
            trap.accept()
        http.close()


def test_a_public_node_calls_no_did_and_no_callback_inside(world, tmp_path):
    """did:web and callbackAddress choose whom a node calls; a node with no allowed networks calls nobody inside."""
    _, _, member, _ = world
    http = Http(allowed=())
    with pytest.raises(IhdsError, match="cannot be fetched") as refused:
        Resolver(http).resolve(member.did)
    http.close()
    assert "127.0.0.1:" not in str(refused.value).replace(member.did, ""), "it is not told what our network looks like"


# -- slow, large and strange bodies ----------------------------------------------------------------------


def test_a_head_that_drips_is_cut_off(monkeypatch):
    from starlette.applications import Starlette
    from starlette.routing import Route

    monkeypatch.setattr(serve, "HEAD_SECONDS", 0.5)
    server = Server(Starlette(routes=[Route("/", endpoint(lambda _c: Answer({})))]))
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        line.settimeout(5)
        began = time.monotonic()
        assert line.recv(100).startswith(b"HTTP/1.1 408")
        assert 0.3 < time.monotonic() - began < 4
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        for _ in range(2):  # a kept connection is as patient with its second request
            line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"{}"):  # head and body may come apart
                more = line.recv(1000)
                assert more, answer
                answer += more
            assert answer.startswith(b"HTTP/1.1 200 OK")
    server.stop()


def test_a_body_that_drips_is_refused_by_name(monkeypatch, world):
    node, _, member, _ = world
    monkeypatch.setattr(serve, "BODY_SECONDS", 0.5)
    token = access(member, node)
    head = f"POST /dsp/2025-1/catalog/request HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    with socket.create_connection(("127.0.0.1", node.config.port)) as line:
        line.sendall(f"{head}Content-Length: 100\r\n\r\n".encode() + b"{")
        line.settimeout(5)
        answer = b""
        while b"IHDS-TOO-SLOW" not in answer:
            more = line.recv(2000)
            assert more, answer
            answer += more
    assert b" 408 " in answer


def test_a_body_that_is_too_large_is_refused_by_name_before_it_is_read(world):
    node, _, member, _ = world
    before = node.log.checkpoint()
    answer = httpx.post(
        f"{node.config.base_url}/dsp/2025-1/catalog/request",
        content=b" " * (serve.MAX_JSON + 1),
        headers={"Authorization": f"Bearer {access(member, node)}"},
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "IHDS-TOO-LARGE")
    assert node.log.checkpoint() == before


NO_BODIES = ["", "{", "[]", "5", "null", '{"a": NaN}', '{"a": 1e999}', '{"a": 12345678901234567890}']
NO_BODIES += ['{"a": "\\ud800"}', '{"\\ud800": 1}', "[" * 100 + "]" * 100, "[" * 100_000]


@pytest.mark.parametrize("text", NO_BODIES)
def test_a_body_we_could_not_write_back_is_refused(world, text):
    node, _, member, _ = world
    answer = httpx.post(
        f"{node.config.base_url}/dsp/2025-1/catalog/request",
        content=text,
        headers={"Authorization": f"Bearer {access(member, node)}"},
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "IHDS-MESSAGE")
    if text not in ("[]", "5", "null"):
        with pytest.raises(BadMessage):
            read_json(text)


def test_texts_of_strangers_are_cleaned_for_the_log():
    assert clean("a\ud800b\nc\x1b[31m") == "a?b c [31m"
    assert len(clean("x" * 10_000)) == 500


def test_an_answer_that_drips_or_swells_is_given_up(world):
    """A peer that answers a byte at a time, or without end, costs a bounded wait and bounded memory."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/"

        def drip() -> None:
            line, _ = trap.accept()
            with line:
                line.recv(1000)
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(100):
                    try:
                        line.sendall(b" ")
                    except OSError:
                        return
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        http = Http()
        began = time.monotonic()
        with pytest.raises(PeerFailed, match="too long|timed out"):
            http.send("GET", url, seconds=0.6)
        assert time.monotonic() - began < 3
        http.close()
    node, _, member, _ = world
    member.document = {**member.plain(), "x": "a" * 300_000}
    plain = Http()
    with pytest.raises(IhdsError, match="cannot be fetched"):
        Resolver(plain).resolve(member.did)
    plain.close()
    member.document = member.plain()


NO_DOCUMENTS = [[], "x", {"service": "x"}, {"service": [None, "x", {"type": "CredentialService"}]}]
NO_DOCUMENTS += [{"verificationMethod": "x"}, {"verificationMethod": [{}]}]


@pytest.mark.parametrize("strange", NO_DOCUMENTS)
def test_a_strange_did_document_is_a_refusal_not_a_bug(world, strange):
    node, _, _, stranger = world
    stranger.document = {**stranger.plain(), **strange} if isinstance(strange, dict) else strange
    node.resolver._cache.clear()
    node.resolver._failed.clear()
    assert ask(node, access(stranger, node)).status_code in (401, 403)
    stranger.document = stranger.plain()
    node.resolver._cache.clear()
    node.resolver._failed.clear()
