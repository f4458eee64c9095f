"""A person's own side of sign-in: by browser with a loopback answer (RFC 8252, PKCE), or by a code typed elsewhere.

What is kept lies in one file that only its owner reads: the session, its key and the provider's refresh token.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from ihds.errors import BadInput, NotAuthenticated, PeerFailed, SetupFailed, from_dict
from ihds.people.oidc import OpenIdProvider, guarded
from ihds.people.proofs import proof, thumbprint
from ihds.people.sessions import nonce_of
from ihds.wire.http import Http
from ihds.wire.jose import SigningKey
from ihds.wire.keys import write_secret

FILE = "session.json"
_WAIT_SECONDS = 300.0
#: Renew when so little of a session is left.
_EARLY_SECONDS = 30.0
_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"

#: Shows a person the page where to sign in: opens a browser, or prints it.
Show = Callable[[str], None]


@dataclass
class SignedIn:
    """A session as its person holds it; ``headers`` prove the key with each request and renew when it is time."""

    url: str
    secret: str
    key: SigningKey
    expires_at: float
    provider: OpenIdProvider
    refresh: str = ""
    file: Path | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def headers(self, method: str, url: str) -> dict[str, str]:
        """Return the headers of one request; each proof is good once. Raises NotAuthenticated."""
        with self._lock:
            if time.time() > self.expires_at - _EARLY_SECONDS and self.refresh:
                self._renew()
        return self._headers(method, url)

    def _headers(self, method: str, url: str) -> dict[str, str]:
        return {"Authorization": f"DPoP {self.secret}", "DPoP": proof(self.key, method, url, self.secret)}

    def _renew(self) -> None:
        form = {"grant_type": "refresh_token", "refresh_token": self.refresh}
        try:
            tokens = _tokens(self.provider, form)
        except NotAuthenticated:
            if self._renewed_elsewhere():
                return
            raise
        self.refresh = str(tokens.get("refresh_token") or self.refresh)
        url = f"{self.url}/people/session/renew"
        answer = _sent(self.provider.http, "POST", url, {"id_token": tokens["id_token"]}, self._headers("POST", url))
        self.expires_at = float(answer["expires"])
        self.keep()

    def _renewed_elsewhere(self) -> bool:
        """Take over what another program of the same person kept meanwhile: a refresh token is used once."""
        if self.file is None or not self.file.exists():
            return False
        kept = SignedIn.read(self.file, self.provider.http)
        if kept.secret != self.secret or kept.refresh == self.refresh:
            return False
        self.refresh, self.expires_at = kept.refresh, kept.expires_at
        return True

    def whoami(self) -> dict[str, Any]:
        """Return what the node knows of the person of this session. Raises NotAuthenticated."""
        url = f"{self.url}/people/session"
        return _sent(self.provider.http, "GET", url, None, self.headers("GET", url))

    def leave(self) -> None:
        """End the session at the node and forget it here."""
        url = f"{self.url}/people/session"
        try:
            _sent(self.provider.http, "DELETE", url, None, self._headers("DELETE", url))
        except NotAuthenticated:
            pass  # it was over already
        finally:
            if self.file:
                self.file.unlink(missing_ok=True)

    def keep(self) -> None:
        """Write the session to its file, for its owner only."""
        if self.file is None:
            return
        body = {
            "url": self.url,
            "secret": self.secret,
            "key": self.key.to_pem(None).decode(),
            "expires": self.expires_at,
            "issuer": self.provider.issuer,
            "client_id": self.provider.client_id,
            "refresh": self.refresh,
        }
        fresh = self.file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        write_secret(fresh, json.dumps(body).encode())
        fresh.replace(self.file)

    @classmethod
    def read(cls, file: Path, http: Http) -> SignedIn:
        """Read a kept session. Raises SetupFailed."""
        try:
            body = json.loads(file.read_text(encoding="utf-8"))
            key = SigningKey.from_pem(str(body["key"]).encode(), "session", None)
            provider = OpenIdProvider(body["issuer"], body["client_id"], http)
            words = (str(body["url"]), str(body["secret"]), key, float(body["expires"]), provider)
            return cls(*words, str(body["refresh"]), file)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SetupFailed(f"{file} is no session: {error!r}", remedy="ihds login") from error


def sign_in(url: str, http: Http, way: Callable[[OpenIdProvider, str, str], dict[str, Any]]) -> tuple[SignedIn, Any]:
    """Sign in at a node; return the session, and what the node says of its person.

    ``way`` gets the tokens from the provider, for a scope and a nonce.

    Raises:
        NotAuthenticated: the provider or the node did not believe it.
        Refused: the person has no account there.

    """
    url = guarded(url.rstrip("/"), "the node's address")
    told = _sent(http, "GET", f"{url}/people", None, {})
    if not told.get("issuer"):
        raise BadInput(f"nobody signs in at {url}", remedy="set [people] in its node.toml")
    provider = OpenIdProvider(str(told["issuer"]), str(told["client_id"]), http)
    key = SigningKey.new("session")
    challenge = str(_sent(http, "POST", f"{url}/people/challenge", {}, {})["challenge"])
    tokens = way(provider, str(told["scope"]), nonce_of(challenge, thumbprint(key.public_jwk())))
    where = f"{url}/people/session"
    body = {"challenge": challenge, "id_token": tokens["id_token"]}
    opened = _sent(http, "POST", where, body, {"DPoP": proof(key, "POST", where)})
    refresh = str(tokens.get("refresh_token") or "")
    return SignedIn(url, str(opened["session"]), key, float(opened["expires"]), provider, refresh), opened


# -- two ways to get tokens ----------------------------------------------------------------------------


def by_browser(show: Show) -> Callable[[OpenIdProvider, str, str], dict[str, Any]]:
    """Return the way of a browser: the answer comes back to a port of this machine, once, with our state."""

    def way(provider: OpenIdProvider, scope: str, nonce: str) -> dict[str, Any]:
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        with _Door() as door:
            asked = {
                "response_type": "code",
                "client_id": provider.client_id,
                "redirect_uri": door.url,
                "scope": scope,
                "state": state,
                "nonce": nonce,
                "code_challenge": create_s256_code_challenge(verifier),
                "code_challenge_method": "S256",
            }
            at = provider.endpoint("authorization_endpoint")
            show(f"{at}{'&' if urlsplit(at).query else '?'}{urlencode(asked)}")
            code = answered(door.wait(), state, provider)
            form = {"grant_type": "authorization_code", "code": code, "redirect_uri": door.url}
            return _tokens(provider, {**form, "code_verifier": verifier})

    return way


def answered(answer: dict[str, str], state: str, provider: OpenIdProvider) -> str:
    """Return the code of an answer that is ours (RFC 6749 §10.12, RFC 9207). Raises NotAuthenticated."""
    if not secrets.compare_digest(answer.get("state", "").encode(), state.encode()):
        raise NotAuthenticated("the answer is not to this sign-in", remedy="ihds login")
    named = answer.get("iss", "")
    must = bool(provider.metadata().get("authorization_response_iss_parameter_supported"))
    if (named or must) and named != provider.issuer:
        raise NotAuthenticated(f"the answer is of {named or 'nobody'}, not of {provider.issuer}", remedy="ihds login")
    if "error" in answer or not answer.get("code"):
        raise NotAuthenticated(f"the provider says {answer.get('error', 'nothing')[:100]}", remedy="ihds login")
    return answer["code"]


def by_code(tell: Callable[[str, str], None]) -> Callable[[OpenIdProvider, str, str], dict[str, Any]]:
    """Return the way of a code that is typed on another device (RFC 8628); ``tell`` shows page and code."""

    def way(provider: OpenIdProvider, scope: str, nonce: str) -> dict[str, Any]:
        form = {"client_id": provider.client_id, "scope": scope, "nonce": nonce}
        told = _posted(provider.http, provider.endpoint("device_authorization_endpoint"), form)
        tell(str(told["verification_uri"]), str(told["user_code"]))
        pause, ends = float(told.get("interval", 5)), time.monotonic() + float(told["expires_in"])
        while time.monotonic() < ends:
            time.sleep(pause)
            try:
                return _tokens(provider, {"grant_type": _DEVICE, "device_code": str(told["device_code"])})
            except NotAuthenticated as error:
                if error.reasons == ("slow_down",):
                    pause += 5
                elif error.reasons != ("authorization_pending",):
                    raise
        raise NotAuthenticated("the code was not typed in time", remedy="ihds login")

    return way


def filled_in(user: str, password: str, http: Http) -> Show:
    """Return what a browser does where nobody looks: fill in the form of the built-in provider and send it."""

    def show(page: str) -> None:
        form = _Form()
        form.feed(http.send("GET", page).text)
        fields = {**form.fields, "username": user, "password": password}
        answer = http.send(
            "POST",
            urljoin(page, form.action),
            body=urlencode(fields).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        if answer.status_code != 303:
            raise NotAuthenticated(f"{user!r} could not sign in", remedy="check name and password")
        http.send("GET", answer.headers["location"])

    return show


class _Form(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.action = given.get("action") or ""
        elif tag == "input" and given.get("type") == "hidden":
            self.fields[str(given["name"])] = given.get("value") or ""


class _Door:
    """A port of this machine that takes one answer of a browser."""

    def __enter__(self) -> _Door:
        answers: list[dict[str, str]] = []
        came = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                ours = parts.path == "/signed-in" and not came.is_set()
                self.send_response(200 if ours else 404)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.end_headers()
                if ours:
                    self.wfile.write(b"You may close this page and go back to your program.\n")
                    answers.append(dict(parse_qsl(parts.query)))
                    came.set()

            def log_message(self, *_: Any) -> None:
                """Say nothing: the address carries a code."""

        self._answers, self._came = answers, came
        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/signed-in"
        return self

    def wait(self) -> dict[str, str]:
        """Return the answer. Raises NotAuthenticated."""
        if not self._came.wait(_WAIT_SECONDS):
            raise NotAuthenticated("nobody signed in", remedy="ihds login --device")
        return self._answers[0]

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _tokens(provider: OpenIdProvider, form: dict[str, str]) -> dict[str, Any]:
    found = _posted(provider.http, provider.endpoint("token_endpoint"), {**form, "client_id": provider.client_id})
    if not isinstance(found.get("id_token"), str):
        raise NotAuthenticated("the provider gave no ID token", remedy="ask its operator")
    return found


def _posted(http: Http, url: str, form: dict[str, str]) -> dict[str, Any]:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    answer = http.send("POST", url, body=urlencode(form).encode(), headers=headers)
    try:
        body = answer.json()
    except ValueError as error:
        raise PeerFailed(f"{url} does not answer in JSON") from error
    if answer.status_code >= 400 or not isinstance(body, dict):
        said = str(body.get("error", ""))[:100] if isinstance(body, dict) else ""
        raise NotAuthenticated(f"the provider says {said or answer.status_code}", reasons=(said,), remedy="ihds login")
    return body


def _sent(http: Http, method: str, url: str, body: Any, headers: dict[str, str]) -> dict[str, Any]:
    status, answer = http.json(method, url, body, headers=headers)
    if status >= 400:
        raise from_dict(answer if isinstance(answer, dict) else {})
    return answer if isinstance(answer, dict) else {}
