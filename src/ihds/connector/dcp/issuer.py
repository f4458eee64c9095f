"""The issuer's side of issuance: requests, decisions, delivery to the holder's credential service (DCP §6).

What has to be sent stands in an outbox in the same transaction as the decision, so a crash loses
nothing and a repeat changes nothing.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.routing import Route

from ihds.audit.log import Event, Log
from ihds.connector.dcp.credentials import PROFILES, Profile, read
from ihds.connector.dcp.message import check, message
from ihds.connector.dcp.tokens import Identity, TokenGate
from ihds.connector.outbox import Outbox
from ihds.errors import BadMessage, Conflict, IhdsError, NotFound, Refused
from ihds.store.store import Put, Record
from ihds.wire.did import Resolver
from ihds.wire.http import Http, raise_for
from ihds.wire.serve import Answer, Call, endpoint

#: How a CredentialMessage names the form of a credential.
_FORMAT = dict(zip(PROFILES, ("VC1_0_JWT", "VC2_0_JOSE"), strict=True))
_MOST_WAITING, _MOST_EACH = 1000, 5
#: Applicants that may write at the same moment before one is asked to come again.
_AT_ONCE = 20
RECEIVED, ISSUED, REJECTED = "RECEIVED", "ISSUED", "REJECTED"


@dataclass(frozen=True, slots=True)
class Offered:
    """A credential an issuer can issue; the id is stable, so a request can name it."""

    kind: str
    profile: Profile

    @property
    def id(self) -> str:
        """The id in metadata, offers and requests."""
        return uuid.uuid5(uuid.NAMESPACE_URL, f"{self.kind}|{self.profile}").urn

    def to_dict(self) -> dict[str, Any]:
        """Return the CredentialObject."""
        return {
            "id": self.id,
            "type": "CredentialObject",
            "credentialType": self.kind,
            "bindingMethods": ["did:web"],
            "profile": self.profile,
            "offerReason": "reissue",
            "issuancePolicy": {"id": f"{self.kind}-policy", "input_descriptors": []},
        }


@dataclass(frozen=True, slots=True)
class Rejected:
    """An issuer's no."""

    reason: str


#: What an issuer decides: tokens to deliver, a no, or None: a person will decide.
Verdict = list[str] | Rejected | None


class Issuing(Protocol):
    """What the institution behind an issuer service decides."""

    def offered(self) -> list[Offered]:
        """Return what can be issued at all."""
        ...

    def decide(self, holder: str, asked: list[Offered], request: dict[str, Any]) -> Verdict:
        """Judge a request; the request's own words are in ``request``."""
        ...


@dataclass
class IssuerService:
    """The issuer's side: metadata, requests and their status, delivery."""

    identity: Identity
    tokens: TokenGate
    resolver: Resolver
    http: Http
    log: Log
    base_url: str
    issuing: Issuing
    outbox: Outbox = field(init=False)

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.log, self.identity.did, self._deliver, self._give_up, queue="issuance")

    def routes(self) -> list[Route]:
        """Return the issuer's endpoints."""
        return [
            Route("/issuer/metadata", endpoint(self._metadata), methods=["GET"]),
            Route("/issuer/credentials", endpoint(self._request), methods=["POST"]),
            Route("/issuer/requests/{id}", endpoint(self._status), methods=["GET"]),
        ]

    def _metadata(self, _call: Call) -> Answer:
        supported = [o.to_dict() for o in self.issuing.offered()]
        return Answer(message("IssuerMetadata", issuer=self.identity.did, credentialsSupported=supported))

    def _request(self, call: Call) -> Answer:
        holder = str(self.tokens.check(call.bearer)["iss"])
        body = call.json()
        pid, asked = _check_request(body, self.issuing.offered())
        identifier = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.identity.did}|{holder}|{pid}").urn
        for attempt in range(_AT_ONCE):
            try:
                self._take(holder, pid, identifier, asked, body)
                break
            except Conflict:  # another request was written in between: what was read is read again
                if attempt == _AT_ONCE - 1:
                    raise
        location = f"{self.base_url}/issuer/requests/{identifier}"
        return Answer(None, status=201, headers={"Location": location})

    def _take(self, holder: str, pid: str, identifier: str, asked: list[Offered], body: dict[str, Any]) -> None:
        """Decide a request, or note it, or deliver again what was decided."""
        found = self.log.get("issuance.request", identifier)
        if found is None:
            waiting = [r for r in self.log.store.list("issuance.request") if r.body["status"] == RECEIVED]
            if len(waiting) >= _MOST_WAITING or sum(r.body["holder"] == holder for r in waiting) >= _MOST_EACH:
                raise Refused("too many requests wait for a decision", remedy="wait for the decision on yours")
            record = {
                "holder": holder,
                "holder_pid": pid,
                "asked": [o.id for o in asked],
                "status": RECEIVED,
                "credentials": [],
                "reason": "",
            }
            verdict = self.issuing.decide(holder, asked, body)
            if isinstance(verdict, Rejected):  # told at once: nobody is called back for a no
                raise Refused(verdict.reason, remedy="ask the issuer")
            self._settle(identifier, 0, record, verdict)
        elif found.body["status"] != RECEIVED and not self._delivering(identifier):
            row = self.outbox.row("issuance.request", identifier, holder, task="deliver")
            self.log.commit(Event("credential.requested", holder, {"request": identifier, "again": True}), row)
            self.outbox.wake()

    def _delivering(self, identifier: str) -> bool:
        return any(row.body["pid"] == identifier for row in self.log.store.list("issuance"))

    def settle(self, identifier: str, verdict: Verdict) -> None:
        """Decide a request that waited for a person.

        Raises:
            NotFound: there is no such request.
            Conflict: it was decided before.

        """
        record = self.log.get("issuance.request", identifier)
        if record is None:
            raise NotFound(f"there is no credential request {identifier}")
        if record.body["status"] != RECEIVED:
            raise Conflict(f"the request is {record.body['status']} already")
        self._settle(identifier, record.version, record.body, verdict)

    def _settle(self, identifier: str, version: int, record: dict[str, Any], verdict: Verdict) -> None:
        rows: list[Put] = []
        if verdict is not None:
            refused = isinstance(verdict, Rejected)
            record = {
                **record,
                "status": REJECTED if isinstance(verdict, Rejected) else ISSUED,
                "credentials": [] if isinstance(verdict, Rejected) else verdict,
                "reason": verdict.reason if isinstance(verdict, Rejected) else "",
            }
            rows = [self.outbox.row("issuance.request", identifier, record["holder"], task="deliver")]
            kind = "credential.rejected" if refused else "credential.issued"
        else:
            kind = "credential.requested"
        details = {"request": identifier, "holder": record["holder"], "credentials": record["asked"]}
        self.log.commit(
            Event(kind, record["holder"], details), Put("issuance.request", identifier, version, record), *rows
        )
        self.outbox.wake()

    def _status(self, call: Call) -> Answer:
        holder = str(self.tokens.check(call.bearer)["iss"])
        record = self.log.get("issuance.request", call.path["id"])
        if record is None or record.body["holder"] != holder:
            raise NotFound("there is no such credential request of yours")
        pids = {"issuerPid": record.id, "holderPid": record.body["holder_pid"]}
        return Answer(message("CredentialStatus", **pids, status=record.body["status"]))

    def _deliver(self, row: Record) -> None:
        record = self.log.get("issuance.request", row.body["pid"])
        assert record is not None
        holder, decided = record.body["holder"], record.body
        credentials = [
            {"credentialType": c.types[0], "payload": c.token, "format": _FORMAT[c.profile]}
            for c in map(read, decided["credentials"])
        ]
        body = message(
            "CredentialMessage",
            issuerPid=record.id,
            holderPid=decided["holder_pid"],
            status=decided["status"],
            credentials=credentials or None,
            rejectionReason=decided["reason"] or None,
        )
        url = f"{self.resolver.service(holder, 'CredentialService')}/credentials"
        status, answer = self.http.json("POST", url, body, self.identity.token(holder))
        if status >= 400:
            raise_for(status, answer, url)
        details = {"request": record.id, "holder": holder, "status": decided["status"]}
        self.log.commit(Event("credential.delivered", holder, details), Put("issuance", row.id, row.version, None))

    def _give_up(self, row: Record, error: IhdsError) -> None:
        details = {"request": row.body["pid"], "reasons": [error.message]}
        done = Put("issuance", row.id, row.version, None)
        self.log.commit(Event("message.abandoned", row.body["counterparty"], details), done)

    def offer(self, holder: str, offered: list[Offered]) -> None:
        """Tell a holder that it may ask for credentials (anew)."""
        url = f"{self.resolver.service(holder, 'CredentialService')}/offers"
        credentials = [o.to_dict() for o in offered]
        body = message("CredentialOfferMessage", issuer=self.identity.did, credentials=credentials)
        self.http.call("POST", url, body, self.identity.token(holder))


def _check_request(body: dict[str, Any], offered: list[Offered]) -> tuple[str, list[Offered]]:
    check(body, "CredentialRequestMessage", "holderPid", "credentials")
    by_id = {o.id: o for o in offered}
    identifiers = [str(c.get("id")) for c in body["credentials"]]
    unknown = [i for i in identifiers if i not in by_id]
    if unknown:
        raise BadMessage(f"CredentialRequestMessage: this issuer offers no {unknown[0]!r}", remedy="see its metadata")
    return str(body["holderPid"]), [by_id[i] for i in identifiers]
