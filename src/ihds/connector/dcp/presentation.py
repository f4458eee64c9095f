"""Presentations by scope: what a holder shows, what a verifier asks for and believes (DCP §5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs

from ihds.connector.dcp.credentials import MEMBERSHIP, Credential, presented, read
from ihds.connector.dcp.message import message
from ihds.connector.dcp.status import StatusLists
from ihds.connector.dcp.tokens import LEEWAY, Identity, TokenGate
from ihds.errors import BadMessage, IhdsError, NotAuthenticated, Refused
from ihds.wire.did import Resolver
from ihds.wire.http import Http
from ihds.wire.serve import bearer

_TYPE_ALIAS = "org.eclipse.dspace.dcp.vc.type:"
_ID_ALIAS = "org.eclipse.dspace.dcp.vc.id:"
_READ = ":read"


def scope_of(credential_type: str) -> str:
    """Return the scope that asks for a credential type."""
    return f"{_TYPE_ALIAS}{credential_type}{_READ}"


def wanted(
    query: dict[str, Any], held: list[dict[str, Any]], entitled: list[str] | None = None
) -> list[dict[str, Any]]:
    """Return the held credentials a PresentationQueryMessage asks for by scope.

    ``entitled`` are the scopes the asker may use; None means all.

    Raises:
        BadMessage: it has no scope list, or asks by definition (not supported).
        NotAuthenticated: it asks for more than the asker is entitled to.

    """
    scopes = query.get("scope")
    if query.get("type") != "PresentationQueryMessage" or (not scopes) == ("presentationDefinition" not in query):
        raise BadMessage("a PresentationQueryMessage has exactly one of scope and presentationDefinition")
    if not isinstance(scopes, list):
        raise BadMessage("only scopes are supported", remedy="ask by scope")
    asked = [str(scope).removesuffix(_READ) for scope in scopes]
    beyond = set(asked) - {scope.removesuffix(_READ) for scope in entitled or asked}
    if beyond:
        raise NotAuthenticated(f"the access token does not open {', '.join(sorted(beyond))}")
    return [c for c in held if _TYPE_ALIAS + c["type"] in asked or _ID_ALIAS + c["id"] in asked]


@dataclass
class Verifier:
    """Asks a counterparty for credentials and believes those of trusted issuers.

    ``trusted`` returns the DIDs whose word counts for a credential type.
    """

    identity: Identity
    resolver: Resolver
    http: Http
    trusted: Callable[[str], frozenset[str]]
    lists: StatusLists
    _schemas: dict[str, Any] = field(default_factory=dict)

    def ask(self, holder: str, access: str, types: list[str]) -> dict[str, list[Credential]]:
        """Return the verified credentials a holder presents, by type.

        Raises:
            NotAuthenticated: the presentation or a credential does not verify.
            PeerFailed: the holder does not answer now.

        """
        service = self.resolver.service(holder, "CredentialService")
        query = message("PresentationQueryMessage", scope=[scope_of(kind) for kind in types])
        token = self.identity.token(holder, access)
        status, answer = self.http.json("POST", f"{service}/presentations/query", query, token)
        if status >= 400 or not isinstance(answer, dict):
            raise NotAuthenticated(f"{holder} shows no credentials: it answered {status}")
        at = self.identity.clock().timestamp()
        found: dict[str, list[Credential]] = {kind: [] for kind in types}
        given = answer.get("presentation", [])
        for presentation in given if isinstance(given, list) else [given]:
            for inner in presented(self.resolver, str(presentation), holder, self.identity.did, at):
                claimed = read(inner)
                for kind in set(claimed.types) & set(types):  # nobody asked for others, so nobody believes them
                    found[kind].append(self.credential(inner, holder, kind))
        return found

    def membership(self, holder: str, access: str) -> Credential:
        """Return the membership credential a holder presents.

        Raises:
            NotAuthenticated: there is not exactly one, or it does not verify.
            CannotVerify: a status cannot be learnt now.
            Refused: it was revoked.

        """
        found = self.ask(holder, access, [MEMBERSHIP])[MEMBERSHIP]
        if len(found) != 1:
            raise NotAuthenticated(f"{holder} presented {len(found)} membership credentials, not one")
        self.standing(found[0])
        return found[0]

    def standing(self, membership: Credential) -> None:
        """Check that a member is in good standing now.

        Raises:
            CannotVerify: a status cannot be learnt now.
            Refused: the membership is suspended.

        """
        if self.revoked(membership):
            raise Refused(
                f"the membership of {membership.holder} is suspended",
                reasons=("membership: suspended or ended by the data space authority",),
                remedy="ask the data space authority",
            )

    def credential(self, token: str, holder: str, kind: str, issuer: str | None = None) -> Credential:
        """Verify one credential of a type about a holder, from ``issuer`` or from whoever is trusted for it.

        Raises:
            NotAuthenticated: signature, issuer, subject, schema or validity does not fit.

        """
        self.resolver.verify(token, "assertionMethod")
        found = read(token)
        if kind not in found.types:
            raise NotAuthenticated(f"this is a {', '.join(found.types)}, not a {kind}")
        if found.issuer != issuer if issuer else found.issuer not in self.trusted(kind):
            raise NotAuthenticated(f"{found.issuer} is not trusted to issue a {kind}")
        if found.holder != holder:
            raise NotAuthenticated(f"the credential is about somebody other than {holder}")
        at = self.identity.clock().timestamp()
        if found.valid_from is not None and found.valid_from.timestamp() > at + LEEWAY:
            raise NotAuthenticated("the credential is not valid yet")
        if found.valid_until is not None and found.valid_until.timestamp() < at - LEEWAY:
            raise NotAuthenticated("the credential has expired")
        for schema in found.schemas:
            self._check_schema(found, str(schema.get("id", "")))
        return found

    def _check_schema(self, credential: Credential, url: str) -> None:
        """Check a credential's subject against the schema it names; a schema does not change under its id."""
        try:
            if url not in self._schemas:
                self._schemas[url] = jsonschema_rs.validator_for(self.http.get_json(url), retriever=_alone)
            body = {"credentialSubject": credential.subject}
            valid = self._schemas[url].is_valid(body)
        except (IhdsError, jsonschema_rs.ValidationError, ValueError) as error:
            raise NotAuthenticated(f"the credential's schema {url} cannot be read: {error}") from error
        if not valid:
            raise NotAuthenticated(f"the credential does not fit its schema {url}")

    def revoked(self, credential: Credential) -> bool:
        """Return whether a credential's status bit is set; a list older than a few seconds is fetched.

        Raises:
            CannotVerify: the status cannot be learnt now; not knowing means no.
            Refused: the list does not verify.

        """
        return any(self.lists.is_set(status, credential.issuer) for status in credential.status)


@dataclass
class MemberGate:
    """Lets members in: a self-issued token, and the membership credential its sender presents.

    A presentation is believed for ``seconds``; the membership's status is looked up at every call,
    so a suspended member is refused as soon as the status list is fetched anew.
    """

    tokens: TokenGate
    verifier: Verifier
    seconds: float = 3600.0
    _held: dict[str, tuple[float, Credential]] = field(default_factory=dict)

    def check(self, authorization: str) -> dict[str, Any]:
        """Return the claims of a member's Authorization header.

        Raises:
            NotAuthenticated: the token, or the membership of its sender, does not verify.
            Refused: the membership is suspended.

        """
        claims = self.tokens.check(bearer(authorization))
        sender = str(claims["iss"])
        until, membership = self._held.get(sender, (0.0, None))
        if membership is not None and until > time.monotonic() and not _ended(membership):
            self.verifier.standing(membership)
            return claims
        access = str(claims.get("token") or "")
        if not access:
            raise NotAuthenticated(
                f"{sender} shows no membership: its token gives no access to its credentials",
                remedy="send a token claim with the self-issued token",
            )
        self._held[sender] = (time.monotonic() + self.seconds, self.verifier.membership(sender, access))
        return claims

    def country(self, sender: str) -> str:
        """Return the country the authority admitted a member for that was let in; empty if it says none."""
        return str(self._held[sender][1].subject.get("country", ""))

    def role(self, sender: str) -> str:
        """Return the role the authority admitted a member for that was let in; empty if it says none."""
        return str(self._held[sender][1].subject.get("role", ""))


def _alone(url: str) -> Any:
    raise ValueError(f"a schema of ours refers to no other, not to {url}")


def _ended(credential: Credential) -> bool:
    return credential.valid_until is not None and credential.valid_until.timestamp() < time.time()
