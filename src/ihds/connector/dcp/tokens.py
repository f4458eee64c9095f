"""Self-issued ID tokens: what a node says of itself to one counterparty, and the checks of others' (DCP §4.3)."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ihds.canonical import sha256
from ihds.errors import NotAuthenticated
from ihds.ids import Did
from ihds.wire.did import Resolver
from ihds.wire.jose import Signer

TOKEN_SECONDS = 300
LEEWAY = 5
_LONGEST_TOKEN = 3600


@dataclass
class Identity:
    """What a node can say of itself: its DID and key, and the tokens it makes."""

    did: Did
    key: Signer
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def token(self, audience: str, access: str | None = None) -> str:
        """Return a self-issued ID token for one audience; ``access`` opens our credential service."""
        at = int(self.clock().timestamp())
        claims = {
            "iss": self.did,
            "sub": self.did,
            "aud": audience,
            "jti": str(uuid.uuid4()),
            "iat": at,
            "exp": at + TOKEN_SECONDS,
        }
        return self.key.sign_jwt({**claims, "token": access} if access else claims)


@dataclass
class TokenGate:
    """Checks self-issued tokens (DCP §4.3.3); each is good once.

    Used token ids are kept in memory until they expire; a token issued before this process
    started is refused, so a restart cannot be used to replay one (the sender simply makes another).
    """

    me: Did
    resolver: Resolver
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _seen: dict[str, float] = field(default_factory=dict)
    _swept: float = 0.0
    _since: float = field(default_factory=time.time)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, token: str) -> dict[str, Any]:
        """Return the claims of a token addressed to this node.

        Raises:
            NotAuthenticated: any check fails; which one is named.

        """
        if not token:
            raise NotAuthenticated("there is no bearer token", remedy="send a self-issued ID token")
        claims = self.resolver.verify(token, "capabilityInvocation")
        at = self.clock().timestamp()
        if (
            "vp" in claims
            or "vc" in claims
            or not isinstance(claims.get("jti"), str)
            or not 0 < len(claims["jti"]) <= 512
        ):
            raise NotAuthenticated("this is not a self-issued ID token: no jti, or a presentation")
        if claims.get("iss") != claims.get("sub"):
            raise NotAuthenticated("the token's issuer is not its subject")
        if claims.get("aud") not in (self.me, [self.me]):
            raise NotAuthenticated(f"the token is for {claims.get('aud')!r}, not for {self.me}")
        issued, expires = claims.get("iat"), claims.get("exp")
        if not isinstance(issued, (int, float)) or not isinstance(expires, (int, float)):
            raise NotAuthenticated("the token has no iat or exp")
        if expires - issued > _LONGEST_TOKEN:
            raise NotAuthenticated(f"the token is valid for more than {_LONGEST_TOKEN} seconds")
        before = claims.get("nbf", 0)
        if issued > at + LEEWAY or not isinstance(before, (int, float)) or before > at + LEEWAY:
            raise NotAuthenticated("the token is not valid yet")
        if expires < at - LEEWAY:
            raise NotAuthenticated("the token has expired")
        if issued < int(self._since):
            raise NotAuthenticated("the token was made before this node started; make a new one")
        with self._lock:
            self._remember(sha256(f"{claims['iss']}|{claims['jti']}".encode()), expires, at)
        return claims

    def _remember(self, used: str, expires: float, at: float) -> None:
        if used in self._seen:
            raise NotAuthenticated("the token was used before")
        if at > self._swept + 60:
            self._swept, self._seen = at, {k: v for k, v in self._seen.items() if v > at - LEEWAY}
        self._seen[used] = expires
