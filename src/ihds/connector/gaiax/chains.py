"""Certificate chains: how a participant's key is traced to a trust anchor (``x5u``), and an anchor for trials."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc.jwk import ECKey

from ihds.errors import NotAuthenticated
from ihds.wire.jose import jwk_of

_MOST = 8


def read(pem: bytes) -> list[x509.Certificate]:
    """Read certificates.

    Raises:
        NotAuthenticated: they are not PEM.

    """
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise NotAuthenticated(f"this is not a certificate chain: {error}") from error


def verify(chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], jwk: dict[str, Any]) -> str:
    """Trace a key to a trust anchor; return the anchor's name.

    Raises:
        NotAuthenticated: the first certificate is for another key, a link does not hold, one has
            expired, or none leads to an anchor.

    """
    if not chain or len(chain) > _MOST:
        raise NotAuthenticated(f"a chain has 1 to {_MOST} certificates, not {len(chain)}")
    first = chain[0].public_key()
    same = isinstance(first, ec.EllipticCurvePublicKey) and all(
        jwk_of(first)[k] == jwk.get(k) for k in ("x", "y", "crv")
    )
    if not same:
        raise NotAuthenticated("the certificate is for another key than the DID document's")
    at = datetime.now(UTC)
    known = {anchor.fingerprint(hashes.SHA256()): anchor for anchor in anchors}
    for number, certificate in enumerate(chain):
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            raise NotAuthenticated(f"the certificate of {_name(certificate)} is not valid now")
        if number and not _may_issue(certificate, number - 1):
            raise NotAuthenticated(f"{_name(certificate)} may not issue certificates")
        if certificate.fingerprint(hashes.SHA256()) in known:
            return _name(certificate)
        following = [*chain[number + 1 : number + 2], *(() if number + 1 < len(chain) else anchors)]
        issuers = [issuer for issuer in following if _issued(certificate, issuer)]
        if not issuers:
            raise NotAuthenticated(f"nobody here vouches for {_name(certificate)}")
        if number + 1 == len(chain):
            anchor = issuers[0]
            if not anchor.not_valid_before_utc <= at <= anchor.not_valid_after_utc or not _may_issue(anchor, number):
                raise NotAuthenticated(f"the anchor {_name(anchor)} is not valid now, or may not issue")
            return _name(anchor)
    raise NotAuthenticated("the chain leads to no anchor")


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _may_issue(certificate: x509.Certificate, below: int) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and (constraints.path_length is None or constraints.path_length >= below)


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()


def pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return certificates as PEM."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def make_anchor(name: str, days: int = 3650) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a trust anchor for trials and its key. In production an anchor is a qualified trust service."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _certificate(name, key.public_key(), name, key, days, ca=True), key


def certify(
    did: str, jwk: dict[str, Any], anchor: x509.Certificate, key: ec.EllipticCurvePrivateKey, days: int = 365
) -> x509.Certificate:
    """Return an anchor's certificate for a participant's key."""
    public = ECKey.import_key(jwk).public_key
    assert isinstance(public, ec.EllipticCurvePublicKey)
    issuer = anchor.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    return _certificate(did, public, str(issuer), key, days, ca=False)


def _certificate(
    subject: str,
    public: ec.EllipticCurvePublicKey,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    days: int,
    *,
    ca: bool,
) -> x509.Certificate:
    at = datetime.now(UTC)

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])

    return (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(minutes=5))
        .not_valid_after(at + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
