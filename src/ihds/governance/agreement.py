"""Joint research beside the EHDS: an agreement of several institutions, and what it covers (EHDS Art. 1(8)).

A grant under an agreement is no EHDS data permit and is never called one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from enum import StrEnum
from typing import Any

from ihds.canonical import digest
from ihds.errors import BadInput
from ihds.governance.application import Application
from ihds.governance.duties import Role, Shown
from ihds.governance.lifecycle import Step, Steps
from ihds.ids import AgreementId, Did


class AgreementState(StrEnum):
    """Where an agreement stands."""

    PROPOSED = "PROPOSED"
    IN_FORCE = "IN_FORCE"
    ENDED = "ENDED"


class AgreementAction(StrEnum):
    """What can be done to it; the last party's signature brings it into force."""

    SIGN = "sign"
    CONCLUDE = "sign as the last"
    END = "end"


_END = {AgreementAction.END: Step(AgreementState.ENDED, Role.OFFICER, frozenset({Shown.REASONS}))}

STEPS: Steps[AgreementState, AgreementAction] = {
    AgreementState.PROPOSED: {
        AgreementAction.SIGN: Step(AgreementState.PROPOSED, Role.PARTY),
        AgreementAction.CONCLUDE: Step(AgreementState.IN_FORCE, Role.PARTY),
        **_END,
    },
    AgreementState.IN_FORCE: _END,
    AgreementState.ENDED: {},
}

#: Whose approval research on persons needs, by the country of the party that holds or receives data.
#: Luxembourg: CNER opinion; Korea: IRB and data review board; United States: IRB, or its exemption.
BOARDS: dict[str, frozenset[str]] = {
    "LU": frozenset({"CNER"}),
    "KR": frozenset({"IRB", "DRB"}),
    "US": frozenset({"IRB"}),
}


@dataclass(frozen=True, slots=True)
class Party:
    """An institution of the agreement, and what it answers for."""

    did: Did
    name: str
    country: str
    responsibility: str


@dataclass(frozen=True, slots=True)
class Approval:
    """A board's approval, for the parties of one country, until a day."""

    board: str
    country: str
    reference: str
    valid_until: date


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the parties sign: who does what, which research, under which terms of use, how long."""

    id: AgreementId
    body: Did
    title: str
    purposes: tuple[str, ...]
    parties: tuple[Party, ...]
    approvals: tuple[Approval, ...]
    terms: str
    since: date
    until: date

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which is what is signed."""
        body = asdict(self)
        body |= {"purposes": list(self.purposes), "parties": [asdict(p) for p in self.parties]}
        body["approvals"] = [{**asdict(a), "valid_until": a.valid_until.isoformat()} for a in self.approvals]
        return {**body, "since": self.since.isoformat(), "until": self.until.isoformat()}

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Agreement:
        """Read the JSON form.

        Raises:
            BadInput: a field is missing, unknown or wrong, or a party stands twice.

        """
        try:
            parties = tuple(Party(**{**p, "did": Did.parse(p["did"])}) for p in body["parties"])
            approvals = tuple(
                Approval(**{**a, "valid_until": date.fromisoformat(a["valid_until"])}) for a in body["approvals"]
            )
            ready = {
                **body,
                "id": AgreementId.parse(body["id"]),
                "body": Did.parse(body["body"]),
                "purposes": tuple(map(str, body["purposes"])),
                "parties": parties,
                "approvals": approvals,
                "since": date.fromisoformat(body["since"]),
                "until": date.fromisoformat(body["until"]),
            }
            made = cls(**ready)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"the agreement cannot be read: {error!r}", remedy="see its fields in docs/how-to/work-a-case.md"
            ) from error
        if len({p.did for p in parties}) != len(parties) or len(parties) < 2:
            raise BadInput("an agreement has two or more parties, each once", remedy="name each institution once")
        return made

    def digest(self) -> str:
        """Return the digest that each party signs."""
        return digest(self.to_dict())


def covered_until(agreement: Agreement, asked: Application) -> date:
    """Return the last day on which an agreement covers an application: its own, or that of an approval it needs."""
    countries = {p.did: p.country for p in agreement.parties}
    involved = {countries[did] for did in (asked.applicant, *(h for h, _ in asked.datasets)) if did in countries}
    needed = [(country, board) for country in involved for board in BOARDS.get(country, ())]
    approved = [
        max((a.valid_until for a in agreement.approvals if (a.country, a.board) == each), default=agreement.since)
        for each in needed
    ]
    return min([agreement.until, *approved])


def uncovered(agreement: Agreement, state: AgreementState, asked: Application, on: date) -> tuple[str, ...]:
    """Return why an agreement does not cover an application on a day; nothing if it does."""
    countries = {p.did: p.country for p in agreement.parties}
    reasons = []
    if state is not AgreementState.IN_FORCE:
        reasons.append(f"the agreement is {state}: every party has to sign it")
    if not agreement.since <= on <= agreement.until:
        reasons.append(f"the agreement holds from {agreement.since} to {agreement.until}, not on {on}")
    involved = [asked.applicant, *(holder for holder, _ in asked.datasets)]
    reasons += [f"{did} is no party of the agreement" for did in dict.fromkeys(involved) if did not in countries]
    if asked.purpose not in agreement.purposes:
        reasons.append(f"the agreement is not for {asked.purpose}")
    held = {(a.country, a.board) for a in agreement.approvals if on <= a.valid_until}
    for country in sorted({countries[did] for did in involved if did in countries}):
        if country not in BOARDS:
            reasons.append(f"no ethics board is known for {country}: not knowing means no")
        reasons += [
            f"the approval of the {board} ({country}) is missing or over"
            for board in sorted(BOARDS.get(country, ()))
            if (country, board) not in held
        ]
    return tuple(reasons)
