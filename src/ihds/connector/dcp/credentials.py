"""Verifiable credentials and presentations as JWTs: VC 1.1 (``vc`` claim) and VC 2.0 (JOSE enveloping).

Profiles of DCP 1.0.1 §A: vc11-sl2021/jwt and vc20-bssl/jwt. Inside the house both are one ``Credential``.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from ihds.connector.dcp.tokens import LEEWAY, TOKEN_SECONDS, Identity
from ihds.errors import NotAuthenticated
from ihds.wire.did import Resolver
from ihds.wire.jose import read_unverified

Profile = Literal["vc11-sl2021/jwt", "vc20-bssl/jwt"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
VC11, VC20 = PROFILES
MEMBERSHIP = "MembershipCredential"
PERMIT = "DataPermitCredential"
#: What a grant beside the EHDS is: no data permit, and never called one.
AUTHORISATION = "DataUseAuthorisationCredential"
PERMISSIONS = (PERMIT, AUTHORISATION)
ROLE = "DataspaceRoleCredential"
_VC1 = "https://www.w3.org/2018/credentials/v1"
_VC2 = "https://www.w3.org/ns/credentials/v2"
_LISTS = ("StatusList2021Credential", "BitstringStatusListCredential")
_SL2021 = "https://w3id.org/vc/status-list/2021/v1"


@dataclass(frozen=True, slots=True)
class Credential:
    """What an issuer says about a subject, whichever form it came in. ``types`` lacks VerifiableCredential."""

    id: str
    types: tuple[str, ...]
    issuer: str
    subject: dict[str, Any]
    status: tuple[dict[str, Any], ...]
    valid_from: datetime | None
    valid_until: datetime | None
    schemas: tuple[dict[str, Any], ...]
    profile: Profile
    token: str

    @property
    def holder(self) -> str:
        """The DID the credential is about."""
        return str(self.subject.get("id", ""))


def permission_type(legal_regime: str) -> str:
    """Return the type of the credential that carries a grant, by what the grant rests on."""
    return PERMIT if legal_regime == "ehds" else AUTHORISATION


def permission(token: str) -> str:
    """Return which type of permission a credential claims to be; nothing is believed by that."""
    return next((kind for kind in PERMISSIONS if kind in read(token).types), PERMIT)


def read(token: str) -> Credential:
    """Read a credential without believing it.

    Raises:
        NotAuthenticated: it is not a credential in one of the two forms.

    """
    _, claims = read_unverified(token)
    try:
        return _read_11(claims, token) if "vc" in claims else _read_20(claims, token)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, OSError) as error:
        raise NotAuthenticated(f"this is not a verifiable credential: {error!r}") from error


def _read_11(claims: dict[str, Any], token: str) -> Credential:
    body = claims["vc"]
    issuer = str(claims["iss"])
    if "issuer" in body and _name(body["issuer"]) != issuer:
        raise NotAuthenticated("the credential names another issuer than its signer")
    subject = _subject(body)
    subject.setdefault("id", str(claims.get("sub", "")))
    start = [_instant(body.get("issuanceDate") or body.get("validFrom")), _seconds(claims.get("nbf"))]
    end = [_instant(body.get("expirationDate") or body.get("validUntil")), _seconds(claims.get("exp"))]
    return _credential(body, str(body.get("id") or claims.get("jti") or ""), issuer, subject, start, end, VC11, token)


def _read_20(claims: dict[str, Any], token: str) -> Credential:
    issuer = _name(claims["issuer"])
    if claims.get("iss", issuer) != issuer:
        raise NotAuthenticated("the credential names another issuer than its signer")
    start = [_instant(claims.get("validFrom")), _seconds(claims.get("nbf"))]
    end = [_instant(claims.get("validUntil")), _seconds(claims.get("exp"))]
    return _credential(claims, str(claims.get("id", "")), issuer, _subject(claims), start, end, VC20, token)


def _credential(
    body: dict[str, Any],
    identifier: str,
    issuer: str,
    subject: dict[str, Any],
    start: list[datetime | None],
    end: list[datetime | None],
    profile: Profile,
    token: str,
) -> Credential:
    return Credential(
        id=identifier,
        types=tuple(str(t) for t in _list(body["type"]) if t != "VerifiableCredential"),
        issuer=issuer,
        subject=subject,
        status=tuple(map(dict, _list(body.get("credentialStatus")))),
        valid_from=max((t for t in start if t), default=None),
        valid_until=min((t for t in end if t), default=None),
        schemas=tuple(map(dict, _list(body.get("credentialSchema")))),
        profile=profile,
        token=token,
    )


def _subject(body: dict[str, Any]) -> dict[str, Any]:
    found = _list(body["credentialSubject"])
    if len(found) != 1:
        raise ValueError("a credential here has one subject")
    return dict(found[0])


def _list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _name(value: Any) -> str:
    return str(value["id"] if isinstance(value, dict) else value)


def _instant(value: Any) -> datetime | None:
    if value is None:
        return None
    found = datetime.fromisoformat(str(value))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _seconds(value: Any) -> datetime | None:
    return None if value is None else datetime.fromtimestamp(float(value), UTC)


def issue(
    identity: Identity,
    subject: str,
    kind: str,
    claims: dict[str, Any],
    expires: datetime,
    status: dict[str, Any] | None = None,
    profile: Profile = VC11,
) -> str:
    """Return a credential in which this node says ``claims`` about a subject."""
    at = identity.clock()
    identifier = subject if kind in _LISTS else uuid.uuid4().urn  # a list is known by its address
    body: dict[str, Any] = {
        "@context": [_VC1, _SL2021] if profile == VC11 else [_VC2],
        "id": identifier,
        "type": ["VerifiableCredential", kind],
        "issuer": identity.did,
        "credentialSubject": {"id": subject, **claims},
    }
    if status:
        body["credentialStatus"] = status
    seconds = {"nbf": int(at.timestamp()), "exp": int(expires.timestamp())}
    if profile == VC20:
        body |= {"validFrom": at.isoformat(), "validUntil": expires.isoformat()}
        return identity.key.sign_jwt({**body, "iss": identity.did, "sub": subject, **seconds}, typ="vc+jwt", cty="vc")
    body |= {"issuanceDate": at.isoformat(), "expirationDate": expires.isoformat()}
    return identity.key.sign_jwt({"iss": identity.did, "sub": subject, "jti": identifier, **seconds, "vc": body})


def present(identity: Identity, audience: str, tokens: list[str]) -> list[str]:
    """Return presentations of credentials for one verifier: one per profile, each of one form only."""
    found = [read(token) for token in tokens]
    groups = {profile: [c.token for c in found if c.profile == profile] for profile in PROFILES}
    return [_presentation(identity, audience, profile, group) for profile, group in groups.items() if group]


def _presentation(identity: Identity, audience: str, profile: Profile, tokens: list[str]) -> str:
    at = int(identity.clock().timestamp())
    claims = {
        "iss": identity.did,
        "sub": identity.did,
        "aud": audience,
        "jti": uuid.uuid4().urn,
        "iat": at,
        "nbf": at,
        "exp": at + TOKEN_SECONDS,
    }
    kind = ["VerifiablePresentation"]
    if profile == VC11:
        return identity.key.sign_jwt(
            {**claims, "vp": {"@context": [_VC1], "type": kind, "verifiableCredential": tokens}}
        )
    enveloped = [{"@context": _VC2, "id": f"data:application/vc+jwt,{t}", "type": _ENVELOPED} for t in tokens]
    body = {"@context": [_VC2], "type": kind, "holder": identity.did, "verifiableCredential": enveloped}
    return identity.key.sign_jwt({**claims, **body}, typ="vp+jwt", cty="vp")


_ENVELOPED = "EnvelopedVerifiableCredential"


def presented(resolver: Resolver, token: str, holder: str, audience: str, at: float) -> list[str]:
    """Return the credentials inside a presentation that its holder made for one audience.

    Raises:
        NotAuthenticated: it was signed by somebody else, for somebody else, or is old.

    """
    claims = resolver.verify(token, "authentication", holder)
    if claims.get("aud") not in (audience, [audience]):
        raise NotAuthenticated("the presentation is not for this node")
    expires = claims.get("exp", 0)
    if not isinstance(expires, (int, float)) or expires < at - LEEWAY:
        raise NotAuthenticated("the presentation is old")
    return presented_tokens(claims)


def presented_tokens(claims: dict[str, Any]) -> list[str]:
    """Return the credentials inside the claims of a presentation of either form.

    Raises:
        NotAuthenticated: it is none.

    """
    body = claims.get("vp", claims)
    if not isinstance(body, dict):
        raise NotAuthenticated("this is not a presentation")
    return [_unwrapped(item) for item in _list(body.get("verifiableCredential"))]


def _unwrapped(item: Any) -> str:
    if isinstance(item, dict):
        return str(item.get("id", "")).partition(",")[2]
    return str(item)
