"""Proof of possession: a session is good only together with the key it was opened for (RFC 9449, DPoP)."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from ihds.errors import NotAuthenticated
from ihds.wire.jose import SigningKey, read_unverified, verify_jwt

TYPE = "dpop+jwt"
#: How old, or how early, a proof may be.
_FRESH_SECONDS = 60
_LONGEST = 4000


def b64_sha256(text: str) -> str:
    """Return the base64url SHA-256 of a text, without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def thumbprint(jwk: object) -> str:
    """Return the thumbprint of a public P-256 key (RFC 7638).

    Raises:
        NotAuthenticated: it is no such key, or its private half.

    """
    try:
        if not isinstance(jwk, dict) or jwk.get("kty") != "EC" or jwk.get("crv") != "P-256" or "d" in jwk:
            raise ValueError("not a public P-256 key")
        return str(ECKey.import_key(jwk).thumbprint())
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise NotAuthenticated(f"the proof shows no key: {error}") from error


def proof(key: SigningKey, method: str, url: str, session: str = "") -> str:
    """Return a proof that the sender of one request holds a key; with ``session`` it is for that one alone."""
    claims = {"jti": str(uuid.uuid4()), "htm": method, "htu": url, "iat": int(time.time())}
    return key.sign_jwt({**claims, "ath": b64_sha256(session)} if session else claims, TYPE, jwk=key.public_jwk())


@dataclass
class ProofGate:
    """Checks proofs; each is good once.

    Used ids are kept in memory until they are stale; a proof made before this process started is refused, so a
    restart cannot be used to replay one.
    """

    clock: Callable[[], float] = time.time
    _seen: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _since: float = 0.0
    _swept: float = 0.0

    def __post_init__(self) -> None:
        self._since = self.clock()

    def check(self, token: str, method: str, url: str, session: str = "") -> str:
        """Return the thumbprint of the key that made this request.

        Raises:
            NotAuthenticated: the proof is absent, forged, stale, used, or for another request or session.

        """
        header, _ = read_unverified(token, _LONGEST)
        if header.get("typ") != TYPE:
            raise NotAuthenticated("there is no proof of the session's key", remedy="ihds login")
        key = thumbprint(header.get("jwk"))
        claims = verify_jwt(token, header["jwk"], _LONGEST)
        at, issued, used = self.clock(), claims.get("iat"), claims.get("jti")
        if (claims.get("htm"), claims.get("htu")) != (method, url):
            raise NotAuthenticated(f"the proof is for {claims.get('htm')} {claims.get('htu')}, not for {method} {url}")
        if session and claims.get("ath") != b64_sha256(session):
            raise NotAuthenticated("the proof is for another session")
        if not isinstance(issued, (int, float)) or abs(at - issued) > _FRESH_SECONDS or issued < int(self._since):
            raise NotAuthenticated("the proof is stale", remedy="check this machine's clock; ihds login")
        if not isinstance(used, str) or not 0 < len(used) <= 128:
            raise NotAuthenticated("the proof has no jti")
        with self._lock:
            if at > self._swept + _FRESH_SECONDS:
                self._swept, self._seen = at, {k: v for k, v in self._seen.items() if v > at - 2 * _FRESH_SECONDS}
            if f"{key}|{used}" in self._seen:
                raise NotAuthenticated("the proof was used before")
            self._seen[f"{key}|{used}"] = at
        return key
