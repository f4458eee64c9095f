"""The holder's side of DCP: keeps a node's credentials, shows them by scope, asks issuers for more (DCP §5, §6)."""

from __future__ import annotations

import contextlib
import logging
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from starlette.routing import Route

from ihds.audit.log import Event, Log, now
from ihds.connector.dcp.credentials import MEMBERSHIP, PERMISSIONS, PROFILES, ROLE, Profile, present, read
from ihds.connector.dcp.issuer import ISSUED, RECEIVED, REJECTED
from ihds.connector.dcp.message import check, message
from ihds.connector.dcp.presentation import Verifier, scope_of, wanted
from ihds.connector.dcp.tokens import TOKEN_SECONDS, Identity, TokenGate
from ihds.errors import BadMessage, Conflict, IhdsError, NotAuthenticated, NotFound, Refused
from ihds.store.store import Put, Record
from ihds.wire.did import Resolver
from ihds.wire.http import Http, raise_for
from ihds.wire.jose import read_unverified
from ihds.wire.serve import Answer, Call, endpoint
from ihds.wire.strict import clean

_log = logging.getLogger("ihds.wallet")

#: The type of a token that opens this node's credentials; no other token of the same key is one.
_ACCESS = "presentation+jwt"


@dataclass
class CredentialService:
    """What a node can prove, and how it came to be able to."""

    identity: Identity
    tokens: TokenGate
    resolver: Resolver
    http: Http
    log: Log
    verifier: Verifier

    def routes(self) -> list[Route]:
        """Return the endpoints verifiers and issuers call."""
        return [
            Route("/dcp/presentations/query", endpoint(self._present), methods=["POST"]),
            Route("/dcp/credentials", endpoint(self._receive), methods=["POST"]),
            Route("/dcp/offers", endpoint(self._offered), methods=["POST"]),
        ]

    # -- what is held ----------------------------------------------------------------------------

    def held(self) -> list[dict[str, Any]]:
        """Return the credentials this node holds: id, type, token."""
        return [r.body for r in self.log.store.list("credential")]

    def membership(self, days: float = 0.0) -> str | None:
        """Return the token of a membership credential that lasts for so many days still, or None."""
        for body in self.held():
            if body["type"] == MEMBERSHIP:
                until = read(body["token"]).valid_until
                if until is None or until > now() + timedelta(days=days):
                    return str(body["token"])
        return None

    def keep(self, kind: str, identifier: str, token: str) -> None:
        """Store a verified credential, once; a fresh one of a membership takes the place of the old."""
        event = "permit.received" if kind in PERMISSIONS else "credential.received"
        details = {"permit" if kind in PERMISSIONS else "credential": identifier, "type": kind}
        puts = [] if kind in PERMISSIONS else self._older(kind, token, identifier)
        found = self.log.get("credential", identifier)
        if found is not None and read(found.body["token"]).issuer != read(token).issuer:
            raise NotAuthenticated("another issuer's credential has this id already")
        body = {"id": identifier, "type": kind, "token": token}
        if found is None or found.body != body:
            put = Put("credential", identifier, found.version if found else 0, body)
            with contextlib.suppress(Conflict):  # another thread was faster; it is the same credential
                self.log.commit(Event(event, self.identity.did, details), put, *puts)

    def _older(self, kind: str, token: str, identifier: str) -> list[Put]:
        """Return the removal of credentials that a fresh one of its type, issuer and form replaces."""
        fresh = read(token)
        gone = []
        for record in self.log.store.list("credential"):
            if record.body["type"] == kind and record.id != identifier:
                old = read(record.body["token"])
                if (old.issuer, old.profile) == (fresh.issuer, fresh.profile):
                    gone.append(Put("credential", record.id, record.version, None))
        return gone

    # -- showing ---------------------------------------------------------------------------------

    def token(self, verifier: str) -> str:
        """Return a self-issued token for a verifier that opens this node's credentials to it."""
        return self.identity.token(verifier, self.access(verifier))

    def access(self, verifier: str, scopes: list[str] | None = None) -> str:
        """Return the access token for one verifier and some scopes: a statement by this node about it."""
        opened = scopes or [scope_of(kind) for kind in (MEMBERSHIP, ROLE, *PERMISSIONS)]
        at = int(now().timestamp())
        claims = {"iss": self.identity.did, "sub": verifier, "scope": opened, "exp": at + TOKEN_SECONDS}
        return self.identity.key.sign_jwt(claims, typ=_ACCESS)

    def _present(self, call: Call) -> Answer:
        claims = self.tokens.check(call.bearer)
        verifier = str(claims["iss"])
        token = str(claims.get("token") or "")
        access = self.resolver.verify(token, "capabilityInvocation", self.identity.did)
        if read_unverified(token)[0].get("typ") != _ACCESS or access.get("sub") != verifier:
            raise NotAuthenticated("the access token was given to somebody else, or for something else")
        if access.get("exp", 0) < now().timestamp():
            raise NotAuthenticated("the access token has expired")
        found = wanted(call.json(), self.held(), list(access.get("scope") or [""]))
        shown = present(self.identity, verifier, [c["token"] for c in found])
        return Answer(message("PresentationResponseMessage", presentation=shown))

    # -- asking ----------------------------------------------------------------------------------

    def request(self, issuer: str, kinds: list[str], profile: Profile, **words: Any) -> str:
        """Ask an issuer for credentials of some types; return the request's id on this side.

        ``words`` are further properties of the message, for example a registration.

        Raises:
            NotFound: the issuer does not issue them.
            PeerFailed: it does not answer.

        """
        service = self.resolver.service(issuer, "IssuerService")
        token = self.identity.token(issuer)
        supported = self.http.get_json(f"{service}/metadata", token).get("credentialsSupported", [])
        by_kind = {(str(o.get("credentialType")), str(o.get("profile"))): str(o.get("id")) for o in supported}
        missing = [kind for kind in kinds if (kind, profile) not in by_kind]
        if missing:
            raise NotFound(f"{issuer} issues no {', '.join(missing)} as {profile}")
        return self.request_ids(issuer, [by_kind[kind, profile] for kind in kinds], **words)

    def request_ids(self, issuer: str, identifiers: list[str], **words: Any) -> str:
        """Ask an issuer for credentials by the ids of its metadata or offer."""
        pid = self._open(issuer, identifiers, words)
        self.send_request(pid)
        return pid

    def _open(self, issuer: str, identifiers: list[str], words: dict[str, Any]) -> str:
        """Write down a request before it is sent, so that a crash cannot lose it."""
        pid = uuid.uuid4().urn
        body = {"issuer": issuer, "asked": identifiers, "status": RECEIVED, "reason": "", "words": words}
        details = {"request": pid, "issuer": issuer, "credentials": identifiers}
        self.log.commit(Event("credential.requested", self.identity.did, details), Put("my.issuance", pid, 0, body))
        return pid

    def send_open(self) -> None:
        """Send again what was asked and not yet answered; one issuer's silence does not hold up the others."""
        for record in self.log.store.list("my.issuance"):
            if record.body["status"] == RECEIVED:
                try:
                    self.send_request(record.id)
                except IhdsError as error:
                    _log.info("%s: %s", record.body["issuer"], error.message)

    def send_request(self, pid: str) -> None:
        """Send a request, or send it again: the issuer knows it by its id and answers it once.

        Raises:
            PeerFailed: the issuer does not answer; the request stays open.
            Refused: it refuses.

        """
        record = self.log.get("my.issuance", pid)
        if record is None or record.body["status"] != RECEIVED:
            return
        issuer = str(record.body["issuer"])
        asked = [{"id": i} for i in record.body["asked"]]
        request = message("CredentialRequestMessage", holderPid=pid, credentials=asked, **record.body["words"])
        url = f"{self.resolver.service(issuer, 'IssuerService')}/credentials"
        status, answer = self.http.json("POST", url, request, self.identity.token(issuer))
        if 400 <= status < 500 and status not in (401, 404, 408, 409, 429):
            said = answer.get("message", answer) if isinstance(answer, dict) else answer
            self._settle(record, REJECTED, clean(said))
        if status >= 400:
            raise_for(status, answer, url)

    def _receive(self, call: Call) -> Answer:
        issuer = str(self.tokens.check(call.bearer)["iss"])
        body = call.json()
        check(body, "CredentialMessage", "issuerPid", "holderPid", "status")
        pid = str(body["holderPid"])
        record = self.log.get("my.issuance", pid)
        if record is None or record.body["issuer"] != issuer:
            raise NotFound("this node made no such request to you")
        if body["status"] == REJECTED:
            self._settle(record, REJECTED, str(body.get("rejectionReason", "")))
            return Answer({})
        if body["status"] != ISSUED:
            raise BadMessage(f"CredentialMessage: status {body['status']!r} is neither {ISSUED} nor {REJECTED}")
        check(body, "CredentialMessage", "credentials")
        for item in body["credentials"]:
            if not isinstance(item.get("payload"), str):
                raise BadMessage("CredentialMessage: a credential needs credentialType, payload and format")
            kind = str(item.get("credentialType"))
            if kind in (MEMBERSHIP, ROLE, *PERMISSIONS) and issuer not in self.verifier.trusted(kind):
                raise NotAuthenticated(f"{issuer} is not trusted to issue a {kind}")
            found = self.verifier.credential(item["payload"], self.identity.did, kind, issuer)
            self.keep(kind, found.id, found.token)
        self._settle(record, ISSUED, "")
        return Answer({})

    def _settle(self, record: Record, status: str, reason: str) -> None:
        if record.body["status"] == status:
            return
        kind = "credential.rejected" if status == REJECTED else "credential.delivered"
        details = {"request": record.id, "issuer": record.body["issuer"], "status": status, "reasons": [reason]}
        body = {**record.body, "status": status, "reason": reason}
        self.log.commit(
            Event(kind, record.body["issuer"], details), Put("my.issuance", record.id, record.version, body)
        )

    def _offered(self, call: Call) -> Answer:
        issuer = str(self.tokens.check(call.bearer)["iss"])
        body = call.json()
        check(body, "CredentialOfferMessage", "issuer", "credentials")
        if body["issuer"] != issuer:
            raise NotAuthenticated(f"{issuer} makes an offer in the name of {body['issuer']}")
        offers = body["credentials"]
        if not all(isinstance(o.get("id"), str) for o in offers):
            raise BadMessage("CredentialOfferMessage: every credential has an id")
        believed = [
            o["id"]
            for o in offers
            if o.get("profile", PROFILES[0]) in PROFILES
            and issuer in self.verifier.trusted(str(o.get("credentialType")))
        ]
        if not any(issuer in self.verifier.trusted(kind) for kind in (MEMBERSHIP, ROLE, *PERMISSIONS)):
            raise Refused(f"{issuer} is not trusted to issue anything here")
        if not believed:
            return Answer({})
        self._open(issuer, believed, {})
        return Answer({}, after=self.send_open)
