"""The bodies of the data space at its authority: motions, signed votes, and what takes effect when carried.

Trust: the authority counts and publishes; each vote is signed with the key of the seat's institution and stands, as
signed, beside the motion, so a false count shows. Which person an institution lets use its node is its own affair.
What is carried takes effect in the transaction that records it, and not before.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import tomllib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event, now
from ihds.errors import BadInput, BadMessage, Conflict, IhdsError, NotAuthenticated, NotFound, Refused, SetupFailed
from ihds.governance import bodies
from ihds.governance.bodies import APPROVALS, MEMBERSHIP, Body, Choice, Matter, Motion, MotionEvent, MotionState
from ihds.governance.lifecycle import advance
from ihds.ids import Did, Identifier
from ihds.store.store import Put, Record
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.authority import Authority
    from ihds.roles.node import Command

_log = logging.getLogger("ihds.committee")

_FRESH_SECONDS = 300
_LOOK_SECONDS = 5.0
_MOST_DAYS = 90


class MotionId(Identifier):
    """Names a motion."""

    __slots__ = ()
    noun = "motion id"


class Committee:
    """The bodies, if the configuration names a charter."""

    def __init__(self, authority: Authority) -> None:
        """Work for an authority."""
        self.authority, self.node = authority, authority.node
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def routes(self) -> list[Route]:
        """Return where members read the bodies and motions, and where signed acts arrive."""
        return [
            Route("/committee", endpoint(self._read), methods=["GET"]),
            Route("/committee/acts", endpoint(self._act), methods=["POST"]),
        ]

    def commands(self) -> dict[str, Command]:
        """Return what the secretariat sees."""
        return {"committee.list": lambda _a: self.told()}

    # -- the charter -------------------------------------------------------------------------------

    def found(self) -> None:
        """Take up the charter of the configuration, once; later only motions change it.

        Raises:
            SetupFailed: it cannot be read.

        """
        name = self.node.config.charter
        if not name or self.node.log.get("charter", "current"):
            return
        try:
            text = (self.node.folder / name).read_text(encoding="utf-8")
            body = tomllib.loads(text)
            require = [str(r) for r in body.pop("require", [])]
            made = {key: Body.from_dict(key, value).to_dict() for key, value in body.items()}
        except (OSError, tomllib.TOMLDecodeError, IhdsError) as error:
            raise SetupFailed(f"the charter {name}: {error}", remedy="docs/how-to/govern.md") from error
        if unknown := set(require) - set(bodies.REQUIRABLE):
            raise SetupFailed(f"the charter {name} requires {sorted(unknown)}", remedy=f"one of {bodies.REQUIRABLE}")
        founders = sorted(self.node.config.members)
        charter = {"bodies": made, "require": require, "founders": founders}
        event = Event("charter.founded", self.node.did, charter)
        self.node.log.commit(event, Put("charter", "current", 0, charter))

    def charter(self) -> dict[str, Any] | None:
        """Return the charter in force, or None where nobody governs but the secretariat."""
        record = self.node.log.get("charter", "current")
        return record.body if record else None

    def body(self, identifier: str) -> Body:
        """Return one body. Raises NotFound."""
        found = (self.charter() or {"bodies": {}})["bodies"]
        if identifier not in found:
            raise NotFound(f"there is no body {identifier!r}", remedy=f"there are: {', '.join(found) or 'none'}")
        return Body.from_dict(identifier, found[identifier])

    def governs(self, matter: Matter) -> str:
        """Return the title of the body that decides a matter; empty if none does."""
        for identifier in (self.charter() or {"bodies": {}})["bodies"]:
            if matter in self.body(identifier).decides:
                return self.body(identifier).title
        return ""

    def published(self) -> dict[str, Any]:
        """Return what the trust list says of approved versions."""
        charter = self.charter()
        if charter is None:
            return {}
        return {"required": charter["require"], "approved": [r.id for r in self.node.store.list("approval")]}

    # -- reading -----------------------------------------------------------------------------------

    def _read(self, call: Call) -> Answer:
        self.node.members.check(call.headers.get("authorization", ""))
        return Answer(self.told())

    def told(self) -> dict[str, Any]:
        """Return the bodies, the motions with their votes, and the approved versions."""
        self.settle()
        charter = self.charter() or {"bodies": {}}
        motions = sorted((r.body for r in self.node.store.list("motion")), key=lambda b: str(b["motion"]["opened_at"]))
        return {"bodies": charter["bodies"], "motions": motions, **self.published()}

    # -- acts of members ---------------------------------------------------------------------------

    def _act(self, call: Call) -> Answer:
        token = str(call.json().get("act", ""))
        claims = self.node.resolver.verify(token, "assertionMethod")
        issued = claims.get("iat")
        if claims.get("aud") != self.node.did:
            raise NotAuthenticated("this is for another data space")
        if not isinstance(issued, (int, float)) or abs(time.time() - issued) > _FRESH_SECONDS:
            raise NotAuthenticated("this was signed too long ago", remedy="sign it again")
        acts = {"propose": self._propose, "vote": self._vote, "withdraw": self._withdraw}
        if claims.get("act") not in acts:
            raise BadMessage(f"there is no act {claims.get('act')!r}", remedy=f"one of {', '.join(acts)}")
        identifier = MotionId.parse(claims.get("motion"))
        with self._lock:
            acts[claims["act"]](identifier, claims, token)
        self.settle()
        return Answer(self._motion(identifier).body)

    def _motion(self, identifier: str) -> Record:
        record = self.node.log.get("motion", identifier)
        if record is None:
            raise NotFound(f"there is no motion {identifier}", remedy="ihds committee list")
        return record

    def _standing(self) -> frozenset[str]:
        """Return the institutions whose seats count: members, and the authority itself."""
        members = (m["did"] for m in self.authority.members() if m["state"] == "MEMBER")
        return frozenset({self.node.did, *members})

    def _seat(self, body: Body, claims: dict[str, Any]) -> str:
        """Return the seat that speaks.

        Raises:
            Refused: it has none, its mandate is over, or its institution is suspended.

        """
        key = f"{claims['iss']} {claims.get('person', '')}"
        if key not in body.seated(now().date(), self._standing()):
            raise Refused(
                f"{claims.get('person')!r} of {claims['iss']} has no seat in the {body.title} today",
                remedy="ihds committee list shows the seats and their mandates",
            )
        return key

    def _propose(self, identifier: MotionId, claims: dict[str, Any], token: str) -> None:
        body = self.body(str(claims.get("body", "")))
        seat = self._seat(body, claims)
        if self.node.log.get("motion", identifier) is not None:
            return  # sent again
        try:
            matter, days = Matter(str(claims.get("matter"))), int(claims.get("days", 14))
        except (TypeError, ValueError) as error:
            raise BadInput(f"this is no motion: {error}", remedy=f"matters: {', '.join(Matter)}") from error
        if matter not in body.decides:
            raise Refused(f"the {body.title} does not decide on {matter}", remedy=f"it decides: {sorted(body.decides)}")
        if not 1 <= days <= _MOST_DAYS:
            raise BadInput(f"a motion is open for 1 to {_MOST_DAYS} days")
        at = now()
        motion = Motion(
            id=identifier,
            body=body.id,
            matter=matter,
            subject=self._subject(matter, str(claims.get("subject", ""))),
            title=str(claims.get("title", ""))[:500],
            proposer=seat,
            opened_at=at,
            closes_at=at + timedelta(days=days),
            electorate=body.seated(at.date(), self._standing()),
        )
        self._effect(motion)  # what could never take effect is not voted on
        record = {
            "motion": motion.to_dict(),
            "state": str(MotionState.OPEN),
            "signed": token,
            "votes": {},
            "reason": "",
        }
        event = Event("motion.opened", seat, {"motion": identifier, **motion.to_dict()})
        self.node.log.commit(event, Put("motion", identifier, 0, record))

    def _subject(self, matter: Matter, subject: str) -> str:
        if matter in MEMBERSHIP:
            return Did.parse(subject)
        if matter in APPROVALS and not (len(subject) == 64 and all(c in "0123456789abcdef" for c in subject)):
            raise BadInput(f"{subject!r} is no digest of a version", remedy="give the file: ihds committee propose")
        return subject[:1000]

    def _vote(self, identifier: MotionId, claims: dict[str, Any], token: str) -> None:
        record = self._motion(identifier)
        motion = Motion.from_dict(record.body["motion"])
        seat = self._seat(self.body(motion.body), claims)
        try:
            choice = Choice(str(claims.get("choice")))
        except ValueError as error:
            raise BadInput(f"{claims.get('choice')!r} is no vote", remedy=f"one of {', '.join(Choice)}") from error
        if claims.get("digest") != motion.digest():
            raise Refused("the vote is on another text than this motion's", remedy="read it again: ihds committee list")
        held = record.body["votes"].get(seat)
        if held is not None and held["choice"] == choice:
            return  # sent again
        if held is not None:
            raise Conflict(f"{seat} has voted {held['choice']}", remedy="one vote per seat; it is not changed")
        if record.body["state"] != MotionState.OPEN or now() >= motion.closes_at:
            raise Refused(f"the motion is {record.body['state']}, closed at {motion.closes_at:%Y-%m-%d %H:%M}")
        if seat not in motion.electorate:
            raise Refused(f"{seat} had no seat when the motion was opened")
        if motion.concerns(seat) and choice is not Choice.RECUSED:
            raise Refused("the motion is about this institution: its seats are recused")
        votes = {**record.body["votes"], seat: {"choice": str(choice), "at": now().isoformat(), "signed": token}}
        details: dict[str, Any] = {"motion": identifier, "seat": seat, "choice": str(choice)}
        if isinstance(claims.get("signed_in"), dict):  # by the word of the seat's institution
            details["person"] = {k: str(claims["signed_in"].get(k, ""))[:1000] for k in ("issuer", "subject")}
        put = Put("motion", identifier, record.version, {**record.body, "votes": votes})
        self.node.log.commit(Event("motion.voted", seat, details), put)

    def _withdraw(self, identifier: MotionId, claims: dict[str, Any], _token: str) -> None:
        record = self._motion(identifier)
        motion = Motion.from_dict(record.body["motion"])
        if self._seat(self.body(motion.body), claims) != motion.proposer:
            raise Refused("only its proposer withdraws a motion")
        if record.body["state"] != MotionState.WITHDRAWN:
            self._close(record, motion, MotionEvent.WITHDRAW, "", {}, [])

    # -- the end of a motion -----------------------------------------------------------------------

    def keep(self) -> None:
        """Close motions whose time is over, in the background."""
        threading.Thread(target=self._keep, name="committee", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    def _keep(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            with contextlib.suppress(IhdsError):
                self.settle()

    def settle(self) -> None:
        """End every motion whose votes or time say so; whoever waits for membership is answered."""
        with self._lock:
            for record in self.node.store.list("motion"):
                if record.body["state"] == MotionState.OPEN:
                    self._settle(record)
        self.authority.answer_waiting()

    def _settle(self, record: Record) -> None:
        motion = Motion.from_dict(record.body["motion"])
        votes = {seat: Choice(v["choice"]) for seat, v in record.body["votes"].items()}
        event = bodies.outcome(self.body(motion.body), motion, votes, now())
        if event is None:
            return
        details: dict[str, Any] = {}
        puts: list[Put] = []
        reason = ""
        if event is MotionEvent.CARRY:
            try:
                details, puts = self._effect(motion)
            except IhdsError as error:
                event, reason = MotionEvent.VOID, error.message
        self._close(record, motion, event, reason, details, puts)

    def _close(
        self,
        record: Record,
        motion: Motion,
        event: MotionEvent,
        reason: str,
        effect: dict[str, Any],
        puts: list[Put],
    ) -> None:
        state = advance(bodies.NEXT, "the motion", MotionState(record.body["state"]), event)
        count = bodies.tally(motion, {s: Choice(v["choice"]) for s, v in record.body["votes"].items()})
        details = {
            "motion": motion.id,
            "body": motion.body,
            "matter": str(motion.matter),
            "subject": motion.subject,
            "outcome": str(state),
            "reason": reason,
            "votes": {"seats": count.seats, "yes": count.yes, "no": count.no, "abstained": count.abstained},
            **effect,
        }
        after = {**record.body, "state": str(state), "reason": reason}
        self.node.log.commit(
            Event("motion.decided", self.node.did, details), Put("motion", motion.id, record.version, after), *puts
        )

    def _effect(self, motion: Motion) -> tuple[dict[str, Any], list[Put]]:
        """Return what a carried motion changes, as details of its event and records to write.

        Raises:
            IhdsError: it is not possible now.

        """
        if motion.matter in MEMBERSHIP:
            reason = f"motion {motion.id}: {motion.title}"
            details, put = self.authority.moved(motion.subject, MEMBERSHIP[motion.matter], reason)
            return details, [put]
        if motion.matter in APPROVALS:
            name = f"{motion.matter} {motion.subject}"
            if self.node.log.get("approval", name):
                raise Conflict("this version is approved already")
            return {"approved": name}, [Put("approval", name, 0, {"motion": motion.id, "title": motion.title})]
        if motion.matter is Matter.WITHDRAW:
            held = self.node.log.get("approval", motion.subject)
            if held is None:
                raise NotFound(f"{motion.subject!r} is not approved", remedy="ihds committee list")
            return {"withdrawn": held.id}, [Put("approval", held.id, held.version, None)]
        return self._reseat(motion)

    def _reseat(self, motion: Motion) -> tuple[dict[str, Any], list[Put]]:
        """Appoint or dismiss: the subject is "BODY DID SINCE UNTIL PERSON", or "BODY DID PERSON"."""
        record = self.node.log.get("charter", "current")
        assert record is not None, "a motion stands in a body"
        name, _, rest = motion.subject.partition(" ")
        body = self.body(name)
        try:
            if motion.matter is Matter.APPOINT:
                member, since, until, person = rest.split(" ", 3)
                seat = bodies.seat_of({"member": member, "since": since, "until": until, "person": person})
                after = bodies.appointed(body, seat)
            else:
                after = bodies.dismissed(body, rest)
        except ValueError as error:
            raise BadInput(
                f"{motion.subject!r}: {error}", remedy="BODY DID SINCE UNTIL PERSON, dates as 2026-12-31"
            ) from error
        charter = {**record.body, "bodies": {**record.body["bodies"], name: after.to_dict()}}
        return {"seats": len(after.seats)}, [Put("charter", "current", record.version, charter)]
