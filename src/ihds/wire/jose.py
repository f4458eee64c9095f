"""Signed JSON: ES256 keys, JWTs and detached signatures, through joserfc."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from ihds.errors import BadMessage, NotAuthenticated, SetupFailed
from ihds.wire.strict import read_json

ALGORITHM = "ES256"
#: A token that lets somebody in is refused unread if it is longer than this.
MAX_TOKEN = 200_000
#: So is a signed statement longer than this: permits and studies name tens of thousands of genes.
MAX_STATEMENT = 1 << 22


class Signer(Protocol):
    """Signs as one verification method of a DID; where the private key lies is its own affair."""

    @property
    def kid(self) -> str:
        """The verification method id under which the public half is known."""
        ...

    def public_jwk(self) -> dict[str, Any]:
        """Return the public JWK."""
        ...

    def sign(self, data: bytes) -> str:
        """Return a base64 ES256 signature of bytes: r and s, 32 bytes each."""
        ...

    def sign_jwt(self, claims: dict[str, Any], typ: str = "JWT", **header: Any) -> str:
        """Return a compact JWT of claims."""
        ...


def compact(kid: str, claims: dict[str, Any], typ: str, header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """Return a compact JWS over claims; ``sign`` returns the 64 raw bytes of an ES256 signature."""
    parts = ({"alg": ALGORITHM, "typ": typ, "kid": kid, **header}, claims)
    text = ".".join(_b64(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{text}.{_b64(sign(text.encode()))}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@dataclass(frozen=True)
class SigningKey:
    """A P-256 private key in this process and the verification method id of its public half."""

    private: ec.EllipticCurvePrivateKey
    kid: str

    @classmethod
    def new(cls, kid: str) -> SigningKey:
        """Return a fresh key."""
        return cls(ec.generate_private_key(ec.SECP256R1()), kid)

    @classmethod
    def from_pem(cls, pem: bytes, kid: str, passphrase: bytes | None) -> SigningKey:
        """Read a PEM key.

        Raises:
            SetupFailed: it is not such a key, or the passphrase is not its own.

        """
        try:
            key = serialization.load_pem_private_key(pem, password=passphrase)
        except (ValueError, TypeError) as error:
            raise SetupFailed(
                f"the key {kid} cannot be read: {error}",
                remedy="give its passphrase: set passphrase_file in node.toml, or IHDS_PASSPHRASE",
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise SetupFailed(f"the key {kid} is not a P-256 key", remedy="ihds node init makes one")
        return cls(key, kid)

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """Return the key as PKCS#8 PEM, encrypted under a passphrase (PBES2, AES-256) if one is given."""
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption(),
        )

    @functools.cached_property
    def _public(self) -> dict[str, Any]:
        return jwk_of(self.private.public_key())

    def public_jwk(self) -> dict[str, Any]:
        """Return the public JWK."""
        return dict(self._public)

    def _raw(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    def sign(self, data: bytes) -> str:
        """Return a base64 ES256 signature of bytes."""
        return base64.b64encode(self._raw(data)).decode()

    def sign_jwt(self, claims: dict[str, Any], typ: str = "JWT", **header: Any) -> str:
        """Return a compact JWT of claims."""
        return compact(self.kid, claims, typ, header, self._raw)


def jwk_of(public: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    """Return the JWK of a public key."""
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return cast("dict[str, Any]", ECKey.import_key(pem).as_dict(private=False))


@functools.lru_cache(maxsize=1024)
def _imported(jwk: str) -> ECKey:
    return ECKey.import_key(json.loads(jwk))


def _public(jwk: dict[str, Any]) -> ECKey:
    """Return a peer's key; reading one costs more than the signature it checks."""
    return _imported(json.dumps(jwk, sort_keys=True))


#: ES256 only; header parameters we do not know are allowed, unless they are marked critical.
_REGISTRY = JWSRegistry(algorithms=[ALGORITHM], strict_check_header=False)
_REGISTRY.max_payload_length = MAX_STATEMENT


def verify_jwt(token: str, public_jwk: dict[str, Any], longest: int = MAX_STATEMENT) -> dict[str, Any]:
    """Return the claims of a JWT signed by a key.

    Raises:
        NotAuthenticated: the signature does not fit, or the token is longer than ``longest``.

    """
    if len(token) > longest:
        raise NotAuthenticated("the token is too long")
    try:
        return dict(jwt.decode(token, _public(public_jwk), registry=_REGISTRY).claims)
    except (JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotAuthenticated(f"the signature does not verify: {error}") from error


def read_unverified(token: str, longest: int = MAX_STATEMENT) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims without checking anything, to learn which key to ask for.

    Raises:
        NotAuthenticated: the token is not a JWT.

    """
    if len(token) > longest or token.count(".") != 2:
        raise NotAuthenticated("this is not a JWT")

    try:
        parts = [read_json(base64.urlsafe_b64decode(p + "=" * (-len(p) % 4))) for p in token.split(".")[:2]]
    except (ValueError, BadMessage) as error:
        raise NotAuthenticated("this is not a JWT") from error
    if not all(isinstance(p, dict) for p in parts):
        raise NotAuthenticated("this is not a JWT")
    return parts[0], parts[1]


def verify_bytes(data: bytes, signature: str, public_jwk: dict[str, Any]) -> bool:
    """Return whether ``sign`` made this signature."""
    public = _public(public_jwk).public_key
    try:
        raw = base64.b64decode(signature, validate=True)
        if len(raw) != 64:
            return False
        der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
        public.verify(der, data, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True
