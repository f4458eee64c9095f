"""Decentralized Claims Protocol 1.0: self-issued tokens, presentations, credentials, status.

Profile vc11-sl2021/jwt: credentials and presentations are VC 1.1 JWTs, status is StatusList2021.
"""

from __future__ import annotations

import base64
import gzip
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ihds.errors import BadMessage, NotAuthenticated, Refused
from ihds.ids import Did
from ihds.wire.did import Resolver
from ihds.wire.http import Http
from ihds.wire.jose import SigningKey

CONTEXT = "https://w3id.org/dspace-dcp/v1.0/dcp.jsonld"
VC_CONTEXT = "https://www.w3.org/2018/credentials/v1"
STATUS_CONTEXT = "https://w3id.org/vc/status-list/2021/v1"
TOKEN_SECONDS = 300
_LEEWAY = 5
_LONGEST_TOKEN = 3600
_TYPE_ALIAS = "org.eclipse.dspace.dcp.vc.type:"
_ID_ALIAS = "org.eclipse.dspace.dcp.vc.id:"
_STATUS_BITS = 131_072


def scope_of(credential_type: str) -> str:
    """Return the scope that asks for a credential type."""
    return f"{_TYPE_ALIAS}{credential_type}:read"


@dataclass
class Identity:
    """What a node can say of itself: its DID and key, and the tokens it makes."""

    did: Did
    key: SigningKey
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
        if claims.get("iss") != claims.get("sub"):
            raise NotAuthenticated("the token's issuer is not its subject")
        if claims.get("aud") != self.me:
            raise NotAuthenticated(f"the token is for {claims.get('aud')!r}, not for {self.me}")
        issued, expires = claims.get("iat"), claims.get("exp")
        if not isinstance(issued, (int, float)) or not isinstance(expires, (int, float)):
            raise NotAuthenticated("the token has no iat or exp")
        if expires - issued > _LONGEST_TOKEN:
            raise NotAuthenticated(f"the token is valid for more than {_LONGEST_TOKEN} seconds")
        before = claims.get("nbf", 0)
        if issued > at + _LEEWAY or not isinstance(before, (int, float)) or before > at + _LEEWAY:
            raise NotAuthenticated("the token is not valid yet")
        if expires < at - _LEEWAY:
            raise NotAuthenticated("the token has expired")
        if issued < int(self._since) - _LEEWAY:
            raise NotAuthenticated("the token was made before this node started; make a new one")
        with self._lock:
            self._remember(str(claims.get("jti") or ""), expires, at)
        return claims

    def _remember(self, jti: str, expires: float, at: float) -> None:
        if not jti or jti in self._seen:
            raise NotAuthenticated("the token was used before")
        if len(self._seen) > 10_000:
            self._seen = {k: v for k, v in self._seen.items() if v > at - _LEEWAY}
        self._seen[jti] = expires


def issue(
    identity: Identity,
    subject: str,
    kind: str,
    claims: dict[str, Any],
    expires: datetime,
    status: dict[str, Any] | None = None,
) -> str:
    """Return a VC 1.1 JWT in which this node says ``claims`` about a subject."""
    at = identity.clock()
    credential: dict[str, Any] = {
        "@context": [VC_CONTEXT, STATUS_CONTEXT],
        "id": uuid.uuid4().urn,
        "type": ["VerifiableCredential", kind],
        "issuer": identity.did,
        "issuanceDate": at.isoformat(),
        "expirationDate": expires.isoformat(),
        "credentialSubject": {"id": subject, **claims},
    }
    if status:
        credential["credentialStatus"] = status
    return identity.key.sign_jwt(
        {
            "iss": identity.did,
            "sub": subject,
            "jti": credential["id"],
            "nbf": int(at.timestamp()),
            "exp": int(expires.timestamp()),
            "vc": credential,
        }
    )


def present(identity: Identity, audience: str, credentials: list[str]) -> str:
    """Return a VP 1.1 JWT with credentials for one verifier."""
    at = int(identity.clock().timestamp())
    return identity.key.sign_jwt(
        {
            "iss": identity.did,
            "sub": identity.did,
            "aud": audience,
            "jti": uuid.uuid4().urn,
            "iat": at,
            "nbf": at,
            "exp": at + TOKEN_SECONDS,
            "vp": {
                "@context": [VC_CONTEXT],
                "type": ["VerifiablePresentation"],
                "verifiableCredential": credentials,
            },
        }
    )


def wanted(query: dict[str, Any], held: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the held credentials a PresentationQueryMessage asks for by scope.

    Raises:
        BadMessage: it has no scope list, or asks by definition (not supported).

    """
    scopes = query.get("scope")
    if query.get("type") != "PresentationQueryMessage" or (not scopes) == ("presentationDefinition" not in query):
        raise BadMessage("a PresentationQueryMessage has exactly one of scope and presentationDefinition")
    if not isinstance(scopes, list):
        raise BadMessage("only scopes are supported", remedy="ask by scope")
    found = []
    for credential in held:
        for scope in map(str, scopes):
            kind = scope.removeprefix(_TYPE_ALIAS).split(":")[0] if scope.startswith(_TYPE_ALIAS) else ""
            ident = scope.removeprefix(_ID_ALIAS) if scope.startswith(_ID_ALIAS) else ""
            if credential["type"] == kind or (ident and credential["id"] in (ident, ident.removesuffix(":read"))):
                found.append(credential)
                break
    return found


@dataclass
class Verifier:
    """Asks a counterparty for credentials and believes those of trusted issuers.

    ``trusted`` maps a credential type to the DIDs whose word counts for it.
    """

    identity: Identity
    resolver: Resolver
    http: Http
    trusted: dict[str, frozenset[str]]
    status_seconds: float = 5.0
    _lists: dict[str, tuple[float, str]] = field(default_factory=dict)

    def ask(self, holder: str, access: str, types: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Return the verified credential subjects a holder presents, by type.

        Raises:
            NotAuthenticated: the presentation or a credential does not verify.

        """
        service = self.resolver.service(holder, "CredentialService")
        query = {
            "@context": [CONTEXT],
            "type": "PresentationQueryMessage",
            "scope": [scope_of(kind) for kind in types],
        }
        token = self.identity.token(holder, access)
        answer = self.http.call("POST", f"{service}/presentations/query", query, token)
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in types}
        for presentation in answer.get("presentation", []):
            claims = self.resolver.verify(str(presentation), "authentication", holder)
            if claims.get("aud") != self.identity.did or claims.get("exp", 0) < time.time() - _LEEWAY:
                raise NotAuthenticated("the presentation is not for this node, or is old")
            for token in claims.get("vp", {}).get("verifiableCredential", []):
                kind, credential = self.credential(str(token), holder)
                if kind in found:
                    found[kind].append({**credential, "@token": str(token)})
        return found

    def credential(self, token: str, holder: str) -> tuple[str, dict[str, Any]]:
        """Verify one credential about a holder; return its type and the credential.

        Raises:
            NotAuthenticated: signature, issuer, subject or validity does not fit.

        """
        claims = self.resolver.verify(token, "assertionMethod")
        credential = claims.get("vc", {})
        kinds = [k for k in credential.get("type", []) if k != "VerifiableCredential"]
        kind = kinds[0] if len(kinds) == 1 else ""
        if claims["iss"] not in self.trusted.get(kind, frozenset()):
            raise NotAuthenticated(f"{claims['iss']} is not trusted to issue a {kind or 'credential'}")
        if credential.get("issuer") != claims["iss"]:
            raise NotAuthenticated("the credential names another issuer than its signer")
        if credential.get("credentialSubject", {}).get("id") != holder or claims.get("sub") != holder:
            raise NotAuthenticated(f"the credential is about somebody other than {holder}")
        at = self.identity.clock().timestamp()
        if claims.get("nbf", 0) > at + _LEEWAY or claims.get("exp", 0) < at - _LEEWAY:
            raise NotAuthenticated("the credential has expired or is not valid yet")
        return kind, credential

    def revoked(self, credential: dict[str, Any]) -> bool:
        """Return whether a credential's status bit is set; a list older than a few seconds is fetched.

        Raises:
            Refused: the status cannot be learnt; not knowing means no.

        """
        status = credential.get("credentialStatus")
        if not status:
            return False
        url = str(status["statusListCredential"])
        cached = self._lists.get(url)
        if cached is None or time.monotonic() - cached[0] > self.status_seconds:
            cached = (time.monotonic(), self._fetch_list(url, str(credential["issuer"])))
            self._lists[url] = cached
        return read_bit(cached[1], int(status["statusListIndex"]))

    def forget_status(self) -> None:
        """Drop cached status lists, when an issuer says that one changed."""
        self._lists.clear()

    def _fetch_list(self, url: str, issuer: str) -> str:
        try:
            answer = self.http.get_json(url)
            claims = self.resolver.verify(str(answer.get("credential", "")), "assertionMethod", issuer)
            if claims.get("sub") != url or claims.get("exp", 0) < self.identity.clock().timestamp() - _LEEWAY:
                raise NotAuthenticated("it is another list, or an old one")
            return str(claims["vc"]["credentialSubject"]["encodedList"])
        except (NotAuthenticated, KeyError) as error:
            raise Refused(f"the status list {url} does not verify: {error}") from error
        except Exception as error:
            raise Refused(
                f"the status list {url} cannot be fetched: {error}",
                reasons=("permit status unknown: not knowing means no",),
                remedy="wait until the access body answers again",
            ) from error


def status_entry(list_url: str, index: int) -> dict[str, Any]:
    """Return the credentialStatus entry that points at a bit."""
    return {
        "id": f"{list_url}#{index}",
        "type": "StatusList2021Entry",
        "statusPurpose": "revocation",
        "statusListIndex": str(index),
        "statusListCredential": list_url,
    }


def encode_bits(set_bits: set[int]) -> str:
    """Return a StatusList2021 ``encodedList`` with some bits set; bit 0 is the most significant."""
    bits = bytearray(_STATUS_BITS // 8)
    for index in set_bits:
        bits[index // 8] |= 0x80 >> index % 8
    return base64.urlsafe_b64encode(gzip.compress(bytes(bits), mtime=0)).decode().rstrip("=")


def read_bit(encoded: str, index: int) -> bool:
    """Return one bit of an ``encodedList``; an index beyond the list counts as set."""
    padded = encoded + "=" * (-len(encoded) % 4)
    bits = gzip.decompress(base64.urlsafe_b64decode(padded))
    if not 0 <= index < len(bits) * 8:
        return True
    return bool(bits[index // 8] & 0x80 >> index % 8)


def status_list(identity: Identity, url: str, revoked: set[int], expires: datetime) -> str:
    """Return the signed status list credential."""
    claims = {"type": "StatusList2021", "statusPurpose": "revocation", "encodedList": encode_bits(revoked)}
    return issue(identity, url, "StatusList2021Credential", claims, expires)
