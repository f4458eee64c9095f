"""A small OpenID provider for demonstrations and small institutions: accounts, passwords, codes, device codes.

OpenID Connect Core 1.0 (authorization code with PKCE, RFC 7636; refresh with rotation), RFC 8628 (device codes),
RFC 9207 (issuer in the answer). Clients are public programs on a person's own machine: they are answered at loopback
addresses only (RFC 8252). It listens on loopback; beyond that it belongs behind TLS. A real institution uses its own.
"""

from __future__ import annotations

import json
import re
import secrets
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import tomli_w
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from starlette.applications import Starlette
from starlette.routing import Route

from ihds.audit.log import Event, Log
from ihds.errors import BadInput, Conflict, IhdsError, NotAuthenticated, SetupFailed
from ihds.people.accounts import Accounts, Devices
from ihds.people.oidc import guarded
from ihds.store.store import Store, sqlite_url
from ihds.wire.did import did_of
from ihds.wire.keys import Keyring
from ihds.wire.pages import page_of
from ihds.wire.serve import Answer, Call, endpoint

FILE = "provider.toml"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
_CODE_SECONDS, _DEVICE_SECONDS, _REFRESH_SECONDS, _TOKEN_SECONDS = 60.0, 600.0, 36_000.0, 300
_INTERVAL = 1
#: What a client is told of a grant (RFC 6749 §5.2, RFC 8628 §3.5).
_WORDS = ("invalid_grant", "invalid_client", "unsupported_grant_type", "authorization_pending", "expired_token")
_SAFE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """The provider's own file; ``clients`` lists the client ids that may ask it."""

    issuer: str
    port: int
    clients: tuple[str, ...] = ("ihds",)
    host: str = "127.0.0.1"
    passphrase_file: str = ""

    @classmethod
    def read(cls, folder: Path) -> ProviderConfig:
        """Read the file of a folder. Raises SetupFailed."""
        try:
            body = tomllib.loads((folder / FILE).read_text(encoding="utf-8"))
            return cls(**{**body, "clients": tuple(body.get("clients", ("ihds",)))})
        except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
            raise SetupFailed(f"{folder / FILE}: {error}", remedy="ihds person provider FOLDER --url URL") from error


def create(folder: Path, config: ProviderConfig) -> None:
    """Make a provider's folder with its key. Raises SetupFailed."""
    guarded(config.issuer, "the issuer")
    if (folder / FILE).exists():
        raise SetupFailed(f"{folder} holds a provider already", remedy="choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    Keyring.create(folder, did_of(config.issuer), config.passphrase_file)
    body = {**asdict(config), "clients": list(config.clients)}
    (folder / FILE).write_text(tomli_w.dumps(body), encoding="utf-8")


class Provider:
    """The provider of a folder: an application, and the accounts that its administrator keeps."""

    def __init__(self, folder: Path) -> None:
        """Open a provider's folder. Raises SetupFailed."""
        self.config = ProviderConfig.read(folder)
        me = did_of(self.config.issuer)
        self.keys = Keyring(folder, me, self.config.passphrase_file)
        self.store = Store(sqlite_url(folder))
        self.accounts = Accounts(Log(self.store, me, self.keys), me)
        self.devices = Devices(_DEVICE_SECONDS)

    def rotate(self) -> dict[str, str]:
        """Sign with a new key from now on; a provider that runs takes it up when it is started again."""
        before = self.keys.kid
        told = {"key": self.keys.rotate(), "before": before}
        self.accounts.log.commit(Event("key.rotated", self.accounts.me, {**told, "signer": "file"}))
        return told

    def app(self) -> Starlette:
        """Return the web application."""
        pages = [
            ("/.well-known/openid-configuration", self._metadata, "GET"),
            (
                "/keys",
                lambda _c: Answer({"keys": [{**j, "kid": k, "use": "sig"} for k, j, _ in self.keys.methods()]}),
                "GET",
            ),
            ("/authorize", self._ask, "GET"),
            ("/authorize", self._sign_in, "POST"),
            ("/device", self._ask_device, "GET"),
            ("/device", self._sign_in_device, "POST"),
            ("/device_authorization", self._device, "POST"),
            ("/token", self._token, "POST"),
        ]
        return Starlette(
            routes=[Route(path, endpoint(run, on_error=_oauth_error), methods=[m]) for path, run, m in pages]
        )

    def _metadata(self, _call: Call) -> Answer:
        at = self.config.issuer.rstrip("/")
        return Answer(
            {
                "issuer": self.config.issuer,
                "authorization_endpoint": f"{at}/authorize",
                "token_endpoint": f"{at}/token",
                "device_authorization_endpoint": f"{at}/device_authorization",
                "jwks_uri": f"{at}/keys",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", "refresh_token", DEVICE],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "scopes_supported": ["openid", "profile", "offline_access"],
                "token_endpoint_auth_methods_supported": ["none"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    # -- by browser ------------------------------------------------------------------------------

    def _asked(self, given: dict[str, str]) -> dict[str, str]:
        """Return a request that may be shown to a person; until then nobody is sent anywhere."""
        client, back = given.get("client_id", ""), given.get("redirect_uri", "")
        if client not in self.config.clients:
            raise BadInput(f"there is no client {client!r} here", remedy=f"add it to clients in {FILE}")
        parts = urlsplit(back)
        if (
            parts.scheme != "http"
            or parts.hostname not in ("127.0.0.1", "::1")
            or parts.fragment
            or "@" in parts.netloc
        ):
            raise BadInput("the answer goes to a program on this machine only (RFC 8252)", remedy="use ihds login")
        if given.get("response_type") != "code" or "openid" not in given.get("scope", "").split():
            raise BadInput("this is no sign-in: response_type is code, scope has openid", remedy="use ihds login")
        challenge = given.get("code_challenge", "")
        if given.get("code_challenge_method") != "S256" or not re.fullmatch(r"[A-Za-z0-9_-]{43}", challenge):
            raise BadInput("a sign-in needs PKCE by S256 (RFC 7636)", remedy="use ihds login")
        names = ("client_id", "redirect_uri", "response_type", "scope", "state", "nonce", "code_challenge")
        return {**{n: given.get(n, "")[:1000] for n in names}, "code_challenge_method": "S256"}

    def _ask(self, call: Call) -> Answer:
        asked = self._asked(call.query)
        return self._form("authorize", asked, f"Sign in for {asked['client_id']}")

    def _sign_in(self, call: Call) -> Answer:
        given = _form_of(call)
        asked = self._asked(given)
        user = given.get("username", "")
        try:
            self.accounts.check(user, given.get("password", ""))
        except NotAuthenticated as error:
            return self._form("authorize", asked, error.message, 401)
        names = ("client_id", "redirect_uri", "nonce", "code_challenge", "scope")
        code = self.accounts.hand_out("code", {"user": user, **{n: asked[n] for n in names}}, _CODE_SECONDS)
        answer = urlencode({"code": code, "state": asked["state"], "iss": self.config.issuer})
        mark = "&" if urlsplit(asked["redirect_uri"]).query else "?"
        return Answer(raw=b"", status=303, headers={**_SAFE, "Location": f"{asked['redirect_uri']}{mark}{answer}"})

    def _form(self, action: str, hidden: dict[str, str], says: str, status: int = 200) -> Answer:
        page = page_of(
            "ihds.people", "sign_in.html", action=action, hidden=hidden, says=says, issuer=self.config.issuer
        )
        return Answer(raw=page.encode(), status=status, headers=_SAFE, media_type="text/html")

    # -- by a code that is typed elsewhere ---------------------------------------------------------

    def _device(self, call: Call) -> Answer:
        given = _form_of(call)
        client = given.get("client_id", "")
        if client not in self.config.clients:
            raise BadInput("invalid_client")
        letters = "BCDFGHJKLMNPQRSTVWXZ"
        typed = "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(2))
        asked = {"client_id": client, "nonce": given.get("nonce", "")[:1000], "scope": given.get("scope", "")[:1000]}
        device = self.devices.begin(asked, typed)
        at = f"{self.config.issuer.rstrip('/')}/device"
        told = {"device_code": device, "user_code": typed, "verification_uri": at, "interval": _INTERVAL}
        return _json(
            {**told, "verification_uri_complete": f"{at}?user_code={typed}", "expires_in": int(_DEVICE_SECONDS)}
        )

    def _ask_device(self, call: Call) -> Answer:
        typed = call.query.get("user_code", "")[:20]
        return self._form("device", {"user_code": typed}, "Type the code that your program shows, if it is yours")

    def _sign_in_device(self, call: Call) -> Answer:
        given = _form_of(call)
        typed = given.get("user_code", "").strip().upper()[:20]
        try:
            self.accounts.check(given.get("username", ""), given.get("password", ""))
        except NotAuthenticated as error:
            return self._form("device", {"user_code": typed}, error.message, 401)
        if not self.devices.approve(typed, given["username"]):
            return self._form("device", {"user_code": ""}, "There is no such code, or its time is over", 400)
        return self._form("", {}, "You are signed in; go back to your program")

    # -- tokens ----------------------------------------------------------------------------------

    def _token(self, call: Call) -> Answer:
        given = _form_of(call)
        grant = given.get("grant_type", "")
        try:
            if grant == "authorization_code":
                return self._tokens(self._coded(given))
            if grant == DEVICE:
                return self._tokens(self._typed(given))
            if grant == "refresh_token":
                return self._tokens({**self._taken("refresh", given.get("refresh_token", ""), given), "nonce": ""})
        except Conflict as error:  # used twice at once
            raise BadInput("invalid_grant") from error
        raise BadInput("unsupported_grant_type")

    def _taken(self, kind: str, secret: str, given: dict[str, str]) -> dict[str, Any]:
        """Use a grant up; what was used, or is another client's, is none."""
        found = self.accounts.held(kind, secret)
        if found is None or found["client_id"] != given.get("client_id"):
            raise BadInput("invalid_grant")
        self.accounts.use_up(kind, secret, found)
        return found

    def _coded(self, given: dict[str, str]) -> dict[str, Any]:
        found = self._taken("code", given.get("code", ""), given)
        verifier = given.get("code_verifier", "")
        fits = re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", verifier) is not None
        if not fits or create_s256_code_challenge(verifier) != found["code_challenge"]:
            raise BadInput("invalid_grant")
        if found["redirect_uri"] != given.get("redirect_uri"):
            raise BadInput("invalid_grant")
        return found

    def _typed(self, given: dict[str, str]) -> dict[str, Any]:
        device = given.get("device_code", "")
        found = self.devices.held(device)
        if found is None or found["client_id"] != given.get("client_id"):
            raise BadInput("expired_token")
        if not found["user"]:
            raise BadInput("authorization_pending")
        if (taken := self.devices.take(device)) is None:
            raise BadInput("expired_token")
        return taken

    def _tokens(self, granted: dict[str, Any]) -> Answer:
        person = self.accounts.standing(str(granted["user"]))
        if person is None:
            raise BadInput("invalid_grant")
        at = int(time.time())
        claims = {"iss": self.config.issuer, "sub": person["subject"], "aud": granted["client_id"], "iat": at}
        claims |= {"exp": at + _TOKEN_SECONDS, "jti": secrets.token_urlsafe(16), "name": person["name"]}
        if granted.get("nonce"):
            claims["nonce"] = granted["nonce"]
        told = {"token_type": "Bearer", "access_token": secrets.token_urlsafe(32), "expires_in": _TOKEN_SECONDS}
        told["id_token"] = self.keys.sign_jwt(claims)
        if "offline_access" in granted["scope"].split():
            body = {k: granted[k] for k in ("user", "client_id", "scope")}
            told["refresh_token"] = self.accounts.hand_out("refresh", body, _REFRESH_SECONDS)
        return _json(told)


def _json(body: dict[str, Any], status: int = 200) -> Answer:
    return Answer(raw=json.dumps(body).encode(), status=status, headers=_SAFE)


def _form_of(call: Call) -> dict[str, str]:
    """Read a form, each field once. Raises BadInput."""
    try:
        pairs = parse_qsl(call.body.decode(), keep_blank_values=True, max_num_fields=40)
    except ValueError as error:
        raise BadInput("this is no form") from error
    if len({name for name, _ in pairs}) != len(pairs):
        raise BadInput("a field is given twice")
    return dict(pairs)


def _oauth_error(_call: Call, error: IhdsError) -> Answer:
    code = error.message if error.message in _WORDS else "invalid_request"
    return _json({"error": code, "error_description": error.message}, error.http_status)
