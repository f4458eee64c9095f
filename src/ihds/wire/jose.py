"""Signed JSON: ES256 keys, JWTs and detached signatures, through joserfc."""

from __future__ import annotations

import base64
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from ihds.errors import NotAuthenticated, SetupFailed

ALGORITHM = "ES256"
#: A token longer than this is refused unread.
MAX_TOKEN = 200_000


@dataclass(frozen=True)
class SigningKey:
    """A P-256 private key and the verification method id under which its public half is known."""

    private: ec.EllipticCurvePrivateKey
    kid: str

    @classmethod
    def new(cls, kid: str) -> SigningKey:
        """Return a fresh key."""
        return cls(ec.generate_private_key(ec.SECP256R1()), kid)

    @classmethod
    def read(cls, path: Path, kid: str) -> SigningKey:
        """Read a PEM key.

        Raises:
            SetupFailed: the file is absent or not such a key.

        """
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise SetupFailed(f"the key {path} cannot be read: {error}", remedy="ihds node init") from error
        return cls(cast("ec.EllipticCurvePrivateKey", key), kid)

    def write(self, path: Path) -> None:
        """Write the key as PEM, readable by its owner only."""
        pem = self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)

    @functools.cached_property
    def _key(self) -> ECKey:
        pem = self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return ECKey.import_key(pem)

    def public_jwk(self) -> dict[str, Any]:
        """Return the public JWK."""
        return cast("dict[str, Any]", _jwk(self.private.public_key()).as_dict(private=False))

    def sign(self, data: bytes) -> str:
        """Return a base64 ECDSA signature of bytes."""
        raw = self.private.sign(data, ec.ECDSA(hashes.SHA256()))
        return base64.b64encode(raw).decode()

    def sign_jwt(self, claims: dict[str, Any], typ: str = "JWT") -> str:
        """Return a compact JWT of claims."""
        header = {"alg": ALGORITHM, "typ": typ, "kid": self.kid}
        return jwt.encode(header, claims, self._key, algorithms=[ALGORITHM])


def _jwk(public: ec.EllipticCurvePublicKey) -> ECKey:
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return ECKey.import_key(pem)


@functools.lru_cache(maxsize=1024)
def _imported(jwk: str) -> ECKey:
    return ECKey.import_key(json.loads(jwk))


def _public(jwk: dict[str, Any]) -> ECKey:
    """Return a peer's key; reading one costs more than the signature it checks."""
    return _imported(json.dumps(jwk, sort_keys=True))


def verify_jwt(token: str, public_jwk: dict[str, Any]) -> dict[str, Any]:
    """Return the claims of a JWT signed by a key.

    Raises:
        NotAuthenticated: the signature does not fit.

    """
    if len(token) > MAX_TOKEN:
        raise NotAuthenticated("the token is too long")
    try:
        return dict(jwt.decode(token, _public(public_jwk), algorithms=[ALGORITHM]).claims)
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise NotAuthenticated(f"the signature does not verify: {error}") from error


def read_unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims without checking anything, to learn which key to ask for.

    Raises:
        NotAuthenticated: the token is not a JWT.

    """
    if len(token) > MAX_TOKEN or token.count(".") != 2:
        raise NotAuthenticated("this is not a JWT")

    try:
        parts = [json.loads(base64.urlsafe_b64decode(p + "=" * (-len(p) % 4))) for p in token.split(".")[:2]]
    except ValueError as error:
        raise NotAuthenticated("this is not a JWT") from error
    if not all(isinstance(p, dict) for p in parts):
        raise NotAuthenticated("this is not a JWT")
    return parts[0], parts[1]


def verify_bytes(data: bytes, signature: str, public_jwk: dict[str, Any]) -> bool:
    """Return whether ``sign`` made this signature."""
    public = _public(public_jwk).public_key
    try:
        public.verify(base64.b64decode(signature), data, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True
