"""What a site signs, checks and seals with its own keys, as the gate and the coordinator need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ihds.connector.dcp.tokens import Identity
from ihds.wire.did import Resolver
from ihds.wire.keys import Sealing


@dataclass(frozen=True)
class KeySignatures:
    """Signs with a node's key and checks others through their DID documents."""

    identity: Identity
    resolver: Resolver
    sealing: Sealing

    def sign(self, claims: dict[str, Any]) -> str:
        """Return claims signed by this node."""
        return self.identity.key.sign_jwt({**claims, "iss": self.identity.did})

    def verify(self, token: str, signer: str) -> dict[str, Any]:
        """Return the claims a signer signed."""
        return self.resolver.verify(token, "assertionMethod", signer)

    def seal(self, data: bytes) -> str:
        """Return a secret encrypted for this node only."""
        return self.sealing.seal(data)

    def unseal(self, text: str) -> bytes:
        """Return a sealed secret."""
        return self.sealing.unseal(text)
