"""Who takes a step of an access decision, and what a step may need (EHDS Art. 55, 62, 68)."""

from __future__ import annotations

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
    CLOCK = "clock"


#: Of these one person holds at most one in a project (EHDS Art. 55(3)).
SEPARATE = frozenset({Role.ASSESSOR, Role.PREPARER, Role.ENVIRONMENT, Role.REVIEWER})


def conflict(roles: frozenset[Role]) -> str:
    """Return why one person may not hold these roles in a project; empty if one may."""
    both = sorted(roles & SEPARATE)
    return f"EHDS 55(3): {' and '.join(both)} are separate duties" if len(both) > 1 else ""


class Shown(StrEnum):
    """What a step may need, in words with its article."""

    COMPLETE = "every field of the form is answered (68(4))"
    ANSWERED = "every question has its verdict (68(1)(2))"
    PASSED = "no verdict fails (68(3))"
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
