"""Membership of the data space: its life, and what a member is trusted for."""

from __future__ import annotations

from enum import StrEnum

from ihds.governance.lifecycle import Table


class MemberState(StrEnum):
    """Where a membership stands."""

    REQUESTED = "REQUESTED"
    MEMBER = "MEMBER"
    REJECTED = "REJECTED"
    SUSPENDED = "SUSPENDED"
    EXPELLED = "EXPELLED"


class MemberEvent(StrEnum):
    """What the authority decides, or an applicant asks."""

    REQUEST = "request"
    ADMIT = "admit"
    REJECT = "reject"
    SUSPEND = "suspend"
    REINSTATE = "reinstate"
    EXPEL = "expel"


_S, _E = MemberState, MemberEvent

NEXT: Table[MemberState, MemberEvent] = {
    _S.REQUESTED: {_E.ADMIT: _S.MEMBER, _E.REJECT: _S.REJECTED},
    _S.MEMBER: {_E.SUSPEND: _S.SUSPENDED, _E.EXPEL: _S.EXPELLED},
    _S.REJECTED: {_E.REQUEST: _S.REQUESTED},
    _S.SUSPENDED: {_E.REINSTATE: _S.MEMBER, _E.EXPEL: _S.EXPELLED},
    _S.EXPELLED: {},
}

#: The credential type a role may be trusted to issue, once its holder is a member.
ISSUES: dict[str, str] = {"access_body": "DataPermitCredential"}
