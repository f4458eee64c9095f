"""Who takes a step of an access decision, and what a step may need (EHDS Art. 55, 62, 68)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Who takes a step."""

    APPLICANT = "applicant"
    ASSESSOR = "assessor"
    OFFICER = "officer"
    TRUSTED_HOLDER = "trusted holder"
    PREPARER = "data preparer"
    ENVIRONMENT = "operator of the secure environment"
    REVIEWER = "output reviewer"
    APPEAL_BODY = "appeal body"
    PARTY = "party of the agreement"
    CLOCK = "clock"
    RESEARCHER = "researcher"
    STEWARD = "data steward"
    SEAT = "seat of a body"
    SECRETARY = "secretary"


#: Of these one person holds at most one in a project (EHDS Art. 55(3)).
SEPARATE = frozenset({Role.ASSESSOR, Role.PREPARER, Role.ENVIRONMENT, Role.REVIEWER})
#: Four eyes, a rule of this software: who assessed a project does not decide it.
FOUR_EYES = frozenset({Role.ASSESSOR, Role.OFFICER})


def conflict(roles: frozenset[Role]) -> str:
    """Return why one person may not hold these roles in a project; empty if one may."""
    both = sorted(roles & SEPARATE)
    if len(both) > 1:
        return f"EHDS 55(3): {' and '.join(both)} are separate duties"
    return f"four eyes: {' and '.join(sorted(FOUR_EYES))} are separate duties" if roles >= FOUR_EYES else ""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: an account by its name, and the duties it was given. Whoever signs people in makes it.

    ``person`` is whom a provider signed in, "ISSUER#SUBJECT": the same under whatever name the account has.
    """

    name: str
    roles: frozenset[Role]
    person: str = ""

    @property
    def identity(self) -> str:
        """What duties in a project are kept under: the person where one signed in, else the account."""
        return self.person or self.name

    def holds(self, held: Mapping[str, frozenset[Role]]) -> frozenset[Role]:
        """Return what this person holds of who holds what, as a person and as an account."""
        return held.get(self.identity, frozenset()) | held.get(self.name, frozenset())


#: What the node itself does when time has passed.
THE_CLOCK = Actor("the clock", frozenset({Role.CLOCK}))


def taken_on(held: Mapping[str, frozenset[Role]], actor: Actor, role: Role) -> tuple[str, ...]:
    """Return why an account may not act in a role in a project, given who did what there; nothing if it may."""
    if role not in actor.roles:
        return (f"EHDS 55(3): {actor.name} does not hold the duty of the {role}",)
    both = conflict(actor.holds(held) | {role})
    return (f"{both}; {actor.name} holds the other in this project",) if both else ()


class Shown(StrEnum):
    """What a step may need, in words with its article."""

    COMPLETE = "every field of the form is answered (68(4))"
    ANSWERED = "every question has its verdict (68(1)(2))"
    PASSED = "no verdict fails (68(3))"
    AGREEMENT = "an agreement in force, signed by every party, covers what is asked for (1(8))"
    FEE_NOTICE = "the applicant was told the fees and may withdraw (62(5))"
    ELIGIBLE = "applicant, purpose and period are admissible, and the applicant is not excluded (53, 63(3), 68(12), 91)"
    REASONS = "reasons are given (68(9))"
    IN_SCOPE = "same purpose and datasets as the permit (68(13))"
    IN_TIME = "asked for a month before the permit ends, if it is to last longer (68(12))"
    FIRST_EXTENSION = "the permit was not extended before, if it is to last longer (68(12))"
    NEGATIVE = "the decision was a refusal (68(9))"
    ANONYMOUS = "the answer is anonymised statistics (69(1))"


#: Without these nothing is granted.
GRANT_NEEDS = frozenset({Shown.ANSWERED, Shown.PASSED, Shown.FEE_NOTICE, Shown.ELIGIBLE})
#: The same beside the EHDS: the agreement settles who pays.
CONTRACT_NEEDS = frozenset({Shown.ANSWERED, Shown.PASSED, Shown.AGREEMENT, Shown.ELIGIBLE})
