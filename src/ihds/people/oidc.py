"""What an OpenID provider publishes, and what its ID tokens prove (OpenID Connect Core 1.0 §3.1.3.7, Discovery 1.0).

Trust: the provider says who signs in, nothing else; which duties a person has is this institution's own table, or the
one claim its configuration names. Signatures are checked with the provider's published keys only, by asymmetric
algorithms only, so that neither ``none`` nor a public key used as a shared secret gets through.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import get_well_known_url
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from ihds.errors import CannotVerify, NotAuthenticated, PeerFailed, SetupFailed
from ihds.wire.http import Http
from ihds.wire.jose import MAX_TOKEN, read_unverified

#: Signature algorithms believed; each needs a key of its own type.
ALGORITHMS = ("ES256", "ES384", "RS256", "PS256", "Ed25519", "EdDSA")
LEEWAY_SECONDS = 30
#: How long published keys are believed unseen, and how soon an unknown key may be looked for again.
_KEEP_SECONDS, _AGAIN_SECONDS = 300.0, 5.0
_LOCAL = ("127.0.0.1", "localhost", "::1")
_REGISTRY = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody a provider vouches for: the pair that names one person for ever, and what the provider calls them."""

    issuer: str
    subject: str
    name: str = ""

    @property
    def id(self) -> str:
        """One text for the pair."""
        return f"{self.issuer}#{self.subject}"


def guarded(url: str, what: str) -> str:
    """Return an address that may carry secrets: TLS, or this machine itself (RFC 8252 §8.3). Raises SetupFailed."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL):
        return url
    raise SetupFailed(f"{what} is {url!r}", remedy="it must begin with https://; http only on this machine itself")


@dataclass
class KeyShelf:
    """The published keys of one address; fetched again when a token names a key that is not there."""

    url: Callable[[], str]
    http: Http
    clock: Callable[[], float] = time.time
    _keys: KeySet | None = None
    _fetched: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def verify(self, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return header and claims of a signed token.

        Raises:
            NotAuthenticated: it is no JWT, its algorithm is not believed, or the signature does not fit.
            CannotVerify: the keys cannot be fetched now.

        """
        header, _ = read_unverified(token, MAX_TOKEN)
        kid = header.get("kid")
        if not isinstance(kid, str):
            raise NotAuthenticated("the token names no key")
        try:
            claims = jwt.decode(token, self._with(kid), registry=_REGISTRY).claims
        except (JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise NotAuthenticated(f"the signature does not verify: {error}") from error
        return header, dict(claims)

    def _with(self, kid: str) -> KeySet:
        at = self.clock()
        with self._lock:
            stale = at > self._fetched + _KEEP_SECONDS
            missing = self._keys is None or all(key.kid != kid for key in self._keys.keys)
            if self._keys is None or stale or (missing and at > self._fetched + _AGAIN_SECONDS):
                self._keys, self._fetched = self._fetch(), at
            # one key by its name: another key of the set is never tried instead
            found = [key for key in self._keys.keys if key.kid == kid and key.key_type != "oct"]
        if len(found) != 1:
            raise NotAuthenticated(f"the signer publishes no key {kid!r}")
        return KeySet(found)

    def _fetch(self) -> KeySet:
        url = self.url()
        try:
            return KeySet.import_key_set(self.http.get_json(url, seconds=10))  # type: ignore[arg-type]
        except (PeerFailed, JoseError, ValueError, KeyError, TypeError) as error:
            raise CannotVerify(f"the keys at {url} cannot be learnt: {error}", remedy="try again later") from error


class OpenIdProvider:
    """One provider as a relying party sees it."""

    def __init__(self, issuer: str, client_id: str, http: Http, clock: Callable[[], float] = time.time) -> None:
        """Trust an issuer for tokens made for ``client_id``."""
        self.issuer, self.client_id, self.http, self.clock = guarded(issuer, "the issuer"), client_id, http, clock
        self.shelf = KeyShelf(lambda: self.endpoint("jwks_uri"), http, clock)
        self._metadata: dict[str, Any] = {}

    def metadata(self) -> dict[str, Any]:
        """Return the provider's discovery document.

        Raises:
            PeerFailed: it does not answer.
            SetupFailed: the document is another issuer's.

        """
        if not self._metadata:
            found = self.http.get_json(get_well_known_url(self.issuer, external=True))
            if found.get("issuer") != self.issuer:
                raise SetupFailed(
                    f"the provider at {self.issuer} calls itself {found.get('issuer')!r}",
                    remedy="write the issuer exactly as the provider does, in [people] of node.toml",
                )
            self._metadata = found
        return self._metadata

    def endpoint(self, name: str) -> str:
        """Return one of its addresses. Raises SetupFailed, PeerFailed."""
        url = self.metadata().get(name)
        if not isinstance(url, str):
            raise SetupFailed(f"the provider {self.issuer} has no {name}", remedy="use another way to sign in")
        return guarded(url, name)

    def identify(self, id_token: str, nonce: str = "") -> tuple[Person, dict[str, Any]]:
        """Return whom an ID token is about, with its claims; with ``nonce`` only for that one sign-in.

        Raises:
            NotAuthenticated: signature, issuer, audience, times or nonce do not fit; which one is named.
            CannotVerify: the provider's keys cannot be learnt now.

        """
        try:
            header, claims = self.shelf.verify(id_token)
        except PeerFailed as error:
            raise CannotVerify(f"{self.issuer} does not answer", remedy="try again later") from error
        options = {
            "iss": {"essential": True, "value": self.issuer},
            "aud": {"essential": True, "value": self.client_id},
        }
        token = CodeIDToken(claims, header, options, {"nonce": nonce, "client_id": self.client_id})
        try:
            token.validate(now=int(self.clock()), leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError) as error:
            raise NotAuthenticated(f"the ID token is not for this sign-in: {error}", remedy="ihds login") from error
        subject, name = claims["sub"], claims.get("name") or claims.get("preferred_username") or ""
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise NotAuthenticated("the ID token names nobody")
        return Person(self.issuer, subject, str(name)[:200]), claims
