"""Who may do what: role by state by action, one table; what is not in it is refused.

Steps of a life have their role in the life's own table (``lives``, ``permit``, ``agreement``), and are rows here by
that. ``BESIDE`` adds what is written outside a life. ``COMMANDS`` says which commands of a node a person in a role may
give, ``ADMINISTRATION`` which only whoever holds the node's own key may: together they name every command there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ihds.governance import agreement, permit
from ihds.governance.duties import Role
from ihds.governance.lifecycle import Steps
from ihds.governance.lives import APPEAL, LIFE
from ihds.governance.policy import Decision, Granted, Refused

ANY = "any"

_OFFICER, _ASSESSOR, _RESEARCHER = Role.OFFICER, Role.ASSESSOR, Role.RESEARCHER

#: The lives, by the noun that moves.
MOVING: dict[str, Steps[Any, Any]] = {
    **{f"{kind} ({regime})": steps for (regime, kind), steps in LIFE.items()},
    "permit": permit.STEPS,
    "appeal": APPEAL,
    "agreement": agreement.STEPS,
}

#: What is written beside the lives: noun, action, who.
BESIDE: dict[str, dict[str, frozenset[Role]]] = {
    "case": {
        "give a verdict": frozenset({_ASSESSOR}),
        "assign a duty": frozenset({_OFFICER}),
    },
    "project": {"take on a duty": frozenset({Role.PREPARER, Role.ENVIRONMENT, Role.REVIEWER})},
    "publication": {
        "give more time": frozenset({_OFFICER}),
        "record deletion": frozenset({_OFFICER, Role.ENVIRONMENT}),
    },
    "applicant": {"exclude": frozenset({_OFFICER})},
    "agreement": {"propose": frozenset({_OFFICER})},
    "opt-out": {"record": frozenset({_OFFICER})},
    "own application": {"send, change, withdraw": frozenset({_RESEARCHER}), "report": frozenset({_RESEARCHER})},
    "study": {"run": frozenset({_RESEARCHER}), "cancel": frozenset({_RESEARCHER})},
    "study at a holder": {"approve": frozenset({Role.STEWARD}), "decline": frozenset({Role.STEWARD})},
    "contract": {"approve": frozenset({Role.STEWARD})},
    "motion": {act: frozenset({Role.SEAT}) for act in ("propose", "vote", "withdraw")},
    "member": {"decide": frozenset({Role.SECRETARY})},
}


@dataclass(frozen=True, slots=True)
class Right:
    """One row: in a state, an action may be taken by a role."""

    noun: str
    state: str
    action: str
    role: Role


def rights() -> tuple[Right, ...]:
    """Return the whole table."""
    rows = [
        Right(noun, str(state), str(action), Role(step.by))
        for noun, steps in MOVING.items()
        for state, row in steps.items()
        for action, step in row.items()
    ]
    rows += [
        Right(noun, ANY, action, role)
        for noun, acts in BESIDE.items()
        for action, roles in acts.items()
        for role in sorted(roles)
    ]
    return tuple(rows)


def who(noun: str, action: str, state: str = ANY) -> frozenset[Role]:
    """Return who may take an action; nobody, if the table has no such row."""
    if state == ANY:
        return BESIDE.get(noun, {}).get(action, frozenset())
    step = next(
        (s for at, row in MOVING.get(noun, {}).items() if at == state for a, s in row.items() if a == action), None
    )
    return frozenset({Role(step.by)}) if step else frozenset()


def may(roles: Iterable[Role], noun: str, action: str, state: str = ANY) -> Decision:
    """Judge whether somebody in these roles may take an action; a refusal says which role it needs."""
    found = who(noun, action, state)
    if found & frozenset(roles):
        return Granted((f"{noun}, {state}: {action}",))
    needed = " or ".join(sorted(found)) or "nobody"
    return Refused((f"{noun}: {action} is for the {needed}" if found else f"{noun}: nobody may {action} here",))


# -- the commands of a node ----------------------------------------------------------------------------

#: Duties an account may be given, by the role of the institution.
DUTIES: dict[str, tuple[Role, ...]] = {
    "access_body": (
        _ASSESSOR,
        _OFFICER,
        Role.PREPARER,
        Role.ENVIRONMENT,
        Role.REVIEWER,
        Role.APPEAL_BODY,
        Role.SEAT,
    ),
    "holder": (Role.STEWARD, Role.PREPARER, Role.SEAT),
    "user": (_RESEARCHER, Role.SEAT),
    "environment": (Role.ENVIRONMENT, Role.PREPARER, Role.REVIEWER, Role.SEAT),
    "authority": (Role.SECRETARY, Role.SEAT),
}
_EVERYBODY = frozenset(role for duties in DUTIES.values() for role in duties)


def _of_life(*nouns: str) -> frozenset[Role]:
    return frozenset(right.role for right in rights() if right.noun.split(" (")[0] in nouns) & _EVERYBODY


def _stepping(*actions: str) -> frozenset[Role]:
    return frozenset(right.role for right in rights() if right.action in actions) & _EVERYBODY


@dataclass(frozen=True, slots=True)
class Given:
    """Who may give a command; ``named`` is its argument that says who does."""

    roles: frozenset[Role]
    named: str = ""

    @property
    def reads(self) -> bool:
        """Whether it changes nothing that anybody answers for."""
        return self.roles == _EVERYBODY


_READ = Given(_EVERYBODY)
_CASES = _of_life("application", "request", "amendment")

COMMANDS: Mapping[str, Given] = {
    **dict.fromkeys(
        (
            "status",
            "member.show",
            "key.list",
            "datasets",
            "catalogue.search",
            "catalogue.show",
            "policy.explain",
            "permit.list",
            "permit.show",
            "permit.clock",
            "permit.overdue",
            "permit.replay",
            "publication.list",
            "joint.list",
            "joint.show",
            "officer.list",
            "duty.list",
            "study.list",
            "study.show",
            "study.steps",
            "studies",
            "study.preview",
            "study.budget",
            "committee.list",
            "member.list",
            "negotiation.list",
            "negotiation.show",
            "agreement.list",
            "transfer.list",
            "transfer.show",
            "witness.list",
        ),
        _READ,
    ),
    "permit.act": Given(_CASES | {_RESEARCHER, Role.STEWARD}, "by"),
    "permit.assess": Given(who("case", "give a verdict"), "by"),
    "permit.fees": Given(_stepping("send the fee notice"), "by"),
    "permit.decide": Given(_stepping("grant", "refuse"), "by"),
    "permit.appeal": Given(_of_life("appeal"), "by"),
    "permit.exclude": Given(who("applicant", "exclude"), "by"),
    "permit.revoke": Given(_stepping("revoke"), "by"),
    "permit.look": Given(frozenset({_OFFICER})),
    "officer.assign": Given(who("case", "assign a duty"), "by"),
    "duty.take": Given(who("project", "take on a duty"), "by"),
    "publication.extend": Given(who("publication", "give more time"), "by"),
    "publication.deleted": Given(who("publication", "record deletion"), "by"),
    "joint.propose": Given(who("agreement", "propose"), "by"),
    "joint.end": Given(_stepping("end"), "by"),
    **{f"citizen.{act}": Given(who("opt-out", "record"), "by") for act in ("opt_out", "reverse", "status")},
    "apply": Given(who("own application", "send, change, withdraw")),
    "permit.amend": Given(who("own application", "send, change, withdraw")),
    "permit.visa": Given(frozenset({_RESEARCHER}), "person"),
    "publication.report": Given(who("own application", "report")),
    "publication.finding": Given(who("own application", "report")),
    "study.run": Given(who("study", "run"), "person"),
    "study.cancel": Given(who("study", "cancel")),
    "study.approve": Given(who("study at a holder", "approve")),
    "study.decline": Given(who("study at a holder", "decline")),
    **{f"committee.{act}": Given(who("motion", act), "person") for act in ("propose", "vote", "withdraw")},
    "member.decide": Given(who("member", "decide")),
    "negotiation.approve": Given(who("contract", "approve")),
}

#: What only whoever holds the node's own key does: keys, accounts, connections, the institution's signature.
ADMINISTRATION = frozenset(
    {
        "officer.add",
        "officer.remove",
        "key.rotate",
        "key.retire",
        "member.join",
        "joint.sign",
        "worker.ticket",
        "audit.export",
        "gdpr.facts",
        "witness.accept",
        "witness.look",
        *(f"negotiation.{act}" for act in ("move", "request")),
        *(f"transfer.{act}" for act in ("address", "move", "request")),
        *(f"gaiax.{act}" for act in ("certify", "keep", "key", "notarise", "present", "submit", "verify")),
    }
)


def allows(roles: Iterable[Role], command: str) -> Decision:
    """Judge whether somebody in these roles may give a command; what is not in the table is the administrator's."""
    given = COMMANDS.get(command)
    if given is None:
        return Refused((f"{command} is for the node's administrator",))
    if given.roles & frozenset(roles):
        return Granted((f"{command}: {' or '.join(sorted(given.roles))}",))
    return Refused((f"{command} is for the {' or '.join(sorted(given.roles))}",))
