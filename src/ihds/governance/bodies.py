"""The data space's own government: bodies with seats, motions, votes, and what carries a motion; pure.

Nothing here is law: how a committee decides is agreed by the members. The rules are the strict reading: a quorum of
all seats, recused ones too, so that nobody can shrink it; a tie carries nothing; silence is no vote.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from fractions import Fraction
from typing import Any

from ihds.canonical import digest
from ihds.errors import BadInput
from ihds.governance.lifecycle import Table
from ihds.governance.membership import MemberEvent
from ihds.ids import Did


class Matter(StrEnum):
    """What a motion is about."""

    ADMIT = "admit"
    REJECT = "reject"
    SUSPEND = "suspend"
    REINSTATE = "reinstate"
    EXPEL = "expel"
    CODEBOOK = "approve-codebook"
    PROTOCOL = "approve-protocol"
    RULES = "approve-rules"
    WITHDRAW = "withdraw-approval"
    APPOINT = "appoint"
    DISMISS = "dismiss"


#: Those about a member: their subject is its DID, and the seats of that institution are recused.
MEMBERSHIP = {Matter(e): e for e in MemberEvent if e != MemberEvent.REQUEST}
#: Those that approve a version, known by its digest.
APPROVALS = (Matter.CODEBOOK, Matter.PROTOCOL, Matter.RULES)
#: What a data space may say that holders use in approved versions only.
REQUIRABLE = ("approve-codebook", "approve-rules")


class MotionState(StrEnum):
    """Where a motion stands."""

    OPEN = "OPEN"
    CARRIED = "CARRIED"
    REJECTED = "REJECTED"
    LAPSED = "LAPSED"
    WITHDRAWN = "WITHDRAWN"
    VOID = "VOID"


class MotionEvent(StrEnum):
    """What happens to a motion; it is void if it carries but what it asks is no longer possible."""

    CARRY = "carry"
    REJECT = "reject"
    LAPSE = "lapse"
    WITHDRAW = "withdraw"
    VOID = "void"


NEXT: Table[MotionState, MotionEvent] = {
    MotionState.OPEN: {
        MotionEvent.CARRY: MotionState.CARRIED,
        MotionEvent.REJECT: MotionState.REJECTED,
        MotionEvent.LAPSE: MotionState.LAPSED,
        MotionEvent.WITHDRAW: MotionState.WITHDRAWN,
        MotionEvent.VOID: MotionState.VOID,
    },
    MotionState.CARRIED: {},
    MotionState.REJECTED: {},
    MotionState.LAPSED: {},
    MotionState.WITHDRAWN: {},
    MotionState.VOID: {},
}


class Choice(StrEnum):
    """What a seat says."""

    YES = "yes"
    NO = "no"
    ABSTAIN = "abstain"
    RECUSED = "recused"


@dataclass(frozen=True, slots=True)
class Seat:
    """A person of an institution, from a first to a last day."""

    member: str
    person: str
    since: date
    until: date

    @property
    def key(self) -> str:
        """What names the seat in a body."""
        return f"{self.member} {self.person}"

    def in_mandate(self, on: date) -> bool:
        """Return whether the mandate holds on a day."""
        return self.since <= on <= self.until


@dataclass(frozen=True, slots=True)
class Body:
    """A body: who sits in it, what it decides, which part of its seats must vote and which part of yes and no carries.

    A ``majority`` of 1/2 means more than half; any larger part means at least that part.
    """

    id: str
    title: str
    seats: tuple[Seat, ...]
    decides: frozenset[Matter]
    quorum: Fraction = Fraction(1, 2)
    majority: Fraction = Fraction(1, 2)

    def __post_init__(self) -> None:
        """Refuse what no vote could mean."""
        if not 0 < self.quorum <= 1 or not Fraction(1, 2) <= self.majority <= 1:
            raise BadInput(f"{self.id}: quorum {self.quorum}, majority {self.majority}", remedy=_PARTS)
        if len({s.key for s in self.seats}) != len(self.seats):
            raise BadInput(f"{self.id}: one person has two seats", remedy="one seat, one vote")
        if wrong := [s.key for s in self.seats if s.until < s.since]:
            raise BadInput(f"{self.id}: the mandate of {wrong[0]} ends before it begins")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        seats = [
            {"member": s.member, "person": s.person, "since": s.since.isoformat(), "until": s.until.isoformat()}
            for s in self.seats
        ]
        parts = {"quorum": str(self.quorum), "majority": str(self.majority)}
        return {"title": self.title, "decides": sorted(self.decides), **parts, "seats": seats}

    @classmethod
    def from_dict(cls, identifier: str, body: Mapping[str, Any]) -> Body:
        """Read the JSON or TOML form.

        Raises:
            BadInput: something is missing or wrong.

        """
        try:
            return cls(
                id=identifier,
                title=str(body["title"]),
                seats=tuple(seat_of(s) for s in body["seats"]),
                decides=frozenset(Matter(m) for m in body["decides"]),
                quorum=Fraction(str(body.get("quorum", "1/2"))),
                majority=Fraction(str(body.get("majority", "1/2"))),
            )
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise BadInput(
                f"the body {identifier!r} cannot be read: {error!r}", remedy="docs/how-to/govern.md"
            ) from error

    def seated(self, on: date, standing: Collection[str]) -> tuple[str, ...]:
        """Return the seats that may vote on a day: in mandate, of institutions in good standing."""
        return tuple(s.key for s in self.seats if s.in_mandate(on) and s.member in standing)


def seat_of(body: Mapping[str, Any]) -> Seat:
    """Read a seat. Raises what reading dates and identifiers raises."""
    return Seat(
        Did.parse(body["member"]),
        str(body["person"]),
        date.fromisoformat(str(body["since"])),
        date.fromisoformat(str(body["until"])),
    )


@dataclass(frozen=True, slots=True)
class Motion:
    """What a body is asked; ``electorate`` are the seats that could vote when it was opened."""

    id: str
    body: str
    matter: Matter
    subject: str
    title: str
    proposer: str
    opened_at: datetime
    closes_at: datetime
    electorate: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "id": self.id,
            "body": self.body,
            "matter": str(self.matter),
            "subject": self.subject,
            "title": self.title,
            "proposer": self.proposer,
            "opened_at": self.opened_at.isoformat(),
            "closes_at": self.closes_at.isoformat(),
            "electorate": list(self.electorate),
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Motion:
        """Read the JSON form."""
        return cls(
            id=str(body["id"]),
            body=str(body["body"]),
            matter=Matter(body["matter"]),
            subject=str(body["subject"]),
            title=str(body["title"]),
            proposer=str(body["proposer"]),
            opened_at=datetime.fromisoformat(body["opened_at"]),
            closes_at=datetime.fromisoformat(body["closes_at"]),
            electorate=tuple(map(str, body["electorate"])),
        )

    def digest(self) -> str:
        """Return what a voter signs: the motion as it was read."""
        return digest(self.to_dict())

    def concerns(self, seat: str) -> bool:
        """Return whether a seat is of the institution that the motion is about: it is recused."""
        return self.matter in MEMBERSHIP and seat.split(" ", 1)[0] == self.subject


@dataclass(frozen=True, slots=True)
class Tally:
    """The votes on a motion, counted."""

    seats: int
    yes: int
    no: int
    abstained: int
    recused: int

    @property
    def present(self) -> int:
        """Those that voted, abstentions too."""
        return self.yes + self.no + self.abstained

    @property
    def outstanding(self) -> int:
        """Those that may still vote."""
        return self.seats - self.present - self.recused


def tally(motion: Motion, votes: Mapping[str, Choice]) -> Tally:
    """Count the votes of the electorate; those of other seats do not count."""
    said = {s: Choice.RECUSED if motion.concerns(s) else votes.get(s) for s in motion.electorate}
    count = {choice: sum(v is choice for v in said.values()) for choice in Choice}
    return Tally(len(said), count[Choice.YES], count[Choice.NO], count[Choice.ABSTAIN], count[Choice.RECUSED])


def carries(body: Body, yes: int, no: int) -> bool:
    """Return whether so many yes and no carry a motion; a tie never does."""
    part = body.majority * (yes + no)
    return yes > part if body.majority == Fraction(1, 2) else yes > 0 and yes >= part


def outcome(body: Body, motion: Motion, votes: Mapping[str, Choice], on: datetime) -> MotionEvent | None:
    """Return how a motion ended, or None while it is open.

    It ends when it closes, or as soon as no vote still to come could change the end.
    """
    count = tally(motion, votes)
    quorate = count.present >= max(1, math.ceil(body.quorum * count.seats))
    if on >= motion.closes_at or not count.outstanding:
        if not quorate:
            return MotionEvent.LAPSE
        return MotionEvent.CARRY if carries(body, count.yes, count.no) else MotionEvent.REJECT
    if quorate and carries(body, count.yes, count.no + count.outstanding):
        return MotionEvent.CARRY
    if quorate and not carries(body, count.yes + count.outstanding, count.no):
        return MotionEvent.REJECT
    return None


def appointed(body: Body, seat: Seat) -> Body:
    """Return the body with one more seat. Raises BadInput: the person has one."""
    return replace(body, seats=(*body.seats, seat))


def dismissed(body: Body, key: str) -> Body:
    """Return the body without a seat.

    Raises:
        BadInput: there is no such seat, or it is the last.

    """
    left = tuple(s for s in body.seats if s.key != key)
    if len(left) == len(body.seats) or not left:
        raise BadInput(f"{body.id}: {key!r} is no seat that could be left empty")
    return replace(body, seats=left)


def unapproved(required: Collection[str], approved: Collection[str], used: Mapping[str, str]) -> tuple[str, ...]:
    """Return why versions in use may not be used; ``approved`` are "matter digest", ``used`` digests by matter."""
    return tuple(
        f"the data space uses approved versions only: {matter} {used[matter][:16]} was not carried"
        for matter in sorted(required)
        if matter in used and f"{matter} {used[matter]}" not in approved
    )


_PARTS = 'write parts such as "1/2" or "2/3": a quorum above 0, a majority of at least 1/2'
