"""The data space authority: admits, suspends and expels members, vouches for them, keeps the trust list."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event, now
from ihds.connector.dataplane.plane import Flow
from ihds.connector.dcp import credentials, issuer, status
from ihds.connector.dcp.credentials import MEMBERSHIP, PROFILES, ROLE
from ihds.connector.dcp.issuer import IssuerService, Offered, Rejected
from ihds.connector.dsp.connector import Verdict
from ihds.connector.dsp.negotiation import Negotiation
from ihds.connector.dsp.transfer import Transfer
from ihds.errors import BadMessage, Conflict, NotAuthenticated, NotFound, Refused
from ihds.governance import membership
from ihds.governance.bodies import Matter
from ihds.governance.lifecycle import advance
from ihds.governance.membership import ISSUES, MemberEvent, MemberState
from ihds.governance.policy import Granted
from ihds.governance.policy import Refused as No
from ihds.ids import Did
from ihds.roles.committee import Committee
from ihds.roles.membership import REGISTRATION
from ihds.store.store import Put, Record
from ihds.wire.did import Method
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node

_MEMBERSHIP_DAYS = 365
_LIST_HOURS = 24


class OffersNothing:
    """The connector decisions of an institution that holds no data."""

    def datasets(self) -> list[dict[str, Any]]:
        """Offer nothing."""
        return []

    def judge(self, process: Negotiation) -> Verdict:
        """Refuse."""
        return No(("this institution holds no data",))

    def consider(self, process: Negotiation) -> Granted | No | None:
        """Refuse."""
        return No(("this institution takes no offers",))

    def may_start(self, process: Transfer, agreement: dict[str, Any]) -> Granted | No:
        """Refuse."""
        return No(("this institution holds no data",))

    def ended(self, process: Transfer) -> None:
        """Nothing depends on it."""

    def refresh(self) -> None:
        """Nothing is offered."""

    def proofs(self, transfer: str) -> dict[str, Any]:
        """Keep no proofs."""
        raise NotFound("this institution holds no data")

    def methods(self) -> list[Method]:
        """There is no worker."""
        return []

    def origin(self, dataset: str) -> Path | str:
        """Offer no file."""
        raise NotFound("this institution offers no file")

    def admit(self, flow: Flow) -> None:
        """Nobody receives anything from here."""

    def started(self) -> None:
        """Nothing was interrupted."""

    def stopped(self) -> None:
        """There are no threads."""


class Authority(OffersNothing):
    """Admits whom its configuration lists at once, others by hand, or by carried motions where there is a charter."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node
        self.issuer = IssuerService(
            node.identity, node.tokens, node.resolver, node.http, node.log, node.config.base_url, self
        )
        node.outboxes.append(self.issuer.outbox)
        self.committee = Committee(self)

    def routes(self) -> list[Route]:
        """Return the issuer service, the status list and the trust list."""
        return [
            *self.issuer.routes(),
            *self.committee.routes(),
            Route("/members/status", endpoint(self._status_list), methods=["GET"]),
            Route("/members/trust", endpoint(self._trust_list), methods=["GET"]),
        ]

    def commands(self) -> dict[str, Command]:
        """Return the commands of the secretariat."""
        return {
            "member.list": lambda _a: self.members(),
            "member.decide": self._decide_by_hand,
            **self.committee.commands(),
        }

    def started(self) -> None:
        """Take up the charter, if there is one; answer whom a crash left waiting."""
        self.committee.found()
        self.committee.settle()
        self.committee.keep()

    def stopped(self) -> None:
        """End the thread."""
        self.committee.stop()

    # -- as an issuer ----------------------------------------------------------------------------

    def offered(self) -> list[Offered]:
        """Return the credentials a member gets, in both forms."""
        return [Offered(kind, profile) for profile in PROFILES for kind in (MEMBERSHIP, ROLE)]

    def decide(self, holder: str, asked: list[Offered], request: dict[str, Any]) -> issuer.Verdict:
        """Judge a request: a member gets its credentials, a stranger waits for a decision.

        Whom the configuration lists, with role and country, is admitted at once if it says the same of
        itself; everybody else is looked at by a person, above all who wants to issue credentials.
        """
        found = self.node.log.get("member", holder)
        listed = self._listed().get(holder)
        claims: dict[str, Any] | None
        if REGISTRATION in request:
            claims = self._registration(holder, request[REGISTRATION])
        else:
            claims = {"name": holder, "role": listed[0], "country": listed[1], "signed": ""} if listed else None
        if found is None or found.body["state"] == MemberState.REJECTED:
            if claims is None:
                return Rejected("a request for membership carries a signed registration: ihds member join")
            found = self._register(holder, claims, found)
        state = MemberState(found.body["state"])
        if state is MemberState.REQUESTED and listed == (found.body["role"], found.body["country"]):
            self.decide_member(holder, MemberEvent.ADMIT, "listed in the configuration")
            state = MemberState.MEMBER
        if state is MemberState.MEMBER:
            return self._credentials(holder, asked)
        return None if state is MemberState.REQUESTED else Rejected(f"the membership is {state}")

    def _listed(self) -> dict[str, tuple[str, str]]:
        """Return whom the configuration admits: DID, role and country, as ``members = ["DID ROLE COUNTRY"]``."""
        charter = self.committee.charter()
        lines = [line.split() for line in (charter["founders"] if charter else self.node.config.members)]
        return {words[0]: (words[1], words[2]) for words in lines if len(words) == 3}

    def _registration(self, holder: str, token: Any) -> dict[str, Any]:
        """Return what an applicant says of itself, signed by it."""
        claims = self.node.resolver.verify(str(token), "assertionMethod", holder)
        names = ("name", "role", "country")
        wrong = [n for n in names if not isinstance(claims.get(n), str) or len(claims[n]) > 200]
        if wrong:
            raise BadMessage(f"registration: {wrong[0]} is missing or too long", remedy="ihds member join writes it")
        if claims.get("aud") != self.node.did:
            raise NotAuthenticated("the registration is for another data space")
        return {**{name: claims[name] for name in ("name", "role", "country")}, "signed": str(token)}

    def _register(self, holder: str, claims: dict[str, Any], found: Record | None) -> Record:
        counter = self.node.log.get("counter", "member")
        index = found.body["index"] if found else counter.body["next"] if counter else 0
        body = {"did": holder, **claims, "state": str(MemberState.REQUESTED), "reason": "", "index": index}
        puts = [Put("member", holder, found.version if found else 0, body)]
        if found is None:  # two applicants at once must not share a status bit
            puts.append(Put("counter", "member", counter.version if counter else 0, {"next": index + 1}))
        details = {"member": holder, **{k: claims[k] for k in ("name", "role", "country")}}
        self.node.log.commit(Event("member.requested", holder, details), *puts)
        return self._member(holder)

    def _credentials(self, holder: str, asked: list[Offered]) -> list[str]:
        member = self._member(holder).body
        claims = {name: member[name] for name in ("name", "role", "country")}
        expires = now() + timedelta(days=_MEMBERSHIP_DAYS)
        url, index = f"{self.node.config.base_url}/members/status", int(member["index"])
        return [
            credentials.issue(
                self.node.identity,
                holder,
                item.kind,
                claims,
                expires,
                status.entry(f"{url}{_suffix(item.profile)}", index, item.profile, "suspension"),
                item.profile,
            )
            for item in asked
        ]

    # -- as the secretariat ----------------------------------------------------------------------

    def members(self) -> list[dict[str, Any]]:
        """Return all members and applicants."""
        names = ("did", "name", "role", "country", "state", "reason")
        return [{name: r.body[name] for name in names} for r in self.node.store.list("member")]

    def _member(self, did: str) -> Record:
        record = self.node.log.get("member", Did.parse(did))
        if record is None:
            raise NotFound(f"{did} never asked for membership", remedy="ihds member list shows who did")
        return record

    def decide_member(self, did: str, event: MemberEvent, reason: str) -> dict[str, Any]:
        """Admit, reject, suspend, reinstate or expel; a request that waits is answered.

        Raises:
            IllegalTransition: the membership does not allow it.

        """
        details, put = self.moved(did, event, reason)
        self.node.log.commit(Event("member.advanced", self.node.did, details), put)
        self.answer_waiting()
        return {"did": did, "state": details["state"], "reason": reason}

    def _decide_by_hand(self, arguments: dict[str, Any]) -> dict[str, Any]:
        did, event = str(arguments["did"]), MemberEvent(str(arguments["event"]))
        if body := self.committee.governs(Matter(event)):
            raise Refused(f"the {body} decides this", remedy=f"ihds committee propose BODY {event} {did}")
        return self.decide_member(did, event, str(arguments.get("reason", "")))

    def moved(self, did: str, event: MemberEvent, reason: str) -> tuple[dict[str, Any], Put]:
        """Return what a decision on a member changes: details of its event, and the record to write.

        Raises:
            NotFound: it never asked.
            IllegalTransition: the membership does not allow it.

        """
        record = self._member(did)
        after = advance(membership.NEXT, "the membership", MemberState(record.body["state"]), event)
        details = {"member": did, "state": str(after), "event": str(event), "reason": reason}
        body = {**record.body, "state": str(after), "reason": reason}
        return details, Put("member", record.id, record.version, body)

    def answer_waiting(self) -> None:
        """Answer the requests of those who were admitted or rejected since they asked."""
        by_id = {o.id: o for o in self.offered()}
        for record in self.node.store.list("issuance.request"):
            with contextlib.suppress(Conflict):  # another thread was faster
                self._answer(record, by_id)

    def _answer(self, record: Record, by_id: dict[str, Offered]) -> None:
        member = self.node.log.get("member", str(record.body["holder"]))
        if record.body["status"] != "RECEIVED" or member is None:
            return
        if member.body["state"] == MemberState.MEMBER:
            asked = [by_id[i] for i in record.body["asked"] if i in by_id]
            self.issuer.settle(record.id, self._credentials(member.id, asked))
        elif member.body["state"] == MemberState.REJECTED:
            self.issuer.settle(record.id, Rejected(member.body["reason"] or "rejected"))

    def _status_list(self, call: Call) -> Answer:
        out = {
            int(r.body["index"])
            for r in self.node.store.list("member")
            if r.body["state"] in (MemberState.SUSPENDED, MemberState.EXPELLED)
        }
        profile = next((p for p in PROFILES if _suffix(p) == f"?{call.query_text}"), PROFILES[0])
        url = f"{self.node.config.base_url}/members/status{_suffix(profile)}"
        expires = now() + timedelta(hours=_LIST_HOURS)
        token = status.status_list(self.node.identity, url, out, expires, profile, "suspension")
        return Answer(raw=token.encode(), media_type="application/vc+jwt")

    def _trust_list(self, _call: Call) -> Answer:
        """Return, signed, who is a member and who is trusted to issue which credentials."""
        members = [m for m in self.members() if m["state"] == MemberState.MEMBER]
        issuers: dict[str, list[str]] = {MEMBERSHIP: [self.node.did], ROLE: [self.node.did]}
        for member in members:
            if member["role"] in ISSUES:
                issuers.setdefault(ISSUES[member["role"]], []).append(member["did"])
        claims = {
            "iss": self.node.did,
            "iat": int(now().timestamp()),
            "exp": int((now() + timedelta(hours=_LIST_HOURS)).timestamp()),
            "issuers": issuers,
            **self.committee.published(),
            "members": [{k: m[k] for k in ("did", "name", "role", "country")} for m in members],
        }
        return Answer({"trust": self.node.identity.key.sign_jwt(claims)})


def _suffix(profile: str) -> str:
    return "" if profile == PROFILES[0] else "?bitstring"
