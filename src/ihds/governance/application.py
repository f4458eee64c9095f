"""The data access application and its life (EHDS Art. 67 and 68; states of TEHDAS2 D6.4)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from ihds.errors import BadInput
from ihds.governance.jurisdictions.eu_ehds import CHAPTER_IV, eligible
from ihds.governance.lifecycle import Table
from ihds.governance.permit import PURPOSES, RESERVED_PURPOSES
from ihds.governance.policy import Decision, Granted, Refused
from ihds.ids import ApplicationId, Did


class ApplicationState(StrEnum):
    """Where an application stands."""

    SUBMITTED = "SUBMITTED"
    PRE_SCREENING = "PRE_SCREENING"
    AWAITING_ADDITIONAL_INFORMATION = "AWAITING_ADDITIONAL_INFORMATION"
    PROCESSING = "PROCESSING"
    DECISION_ISSUED = "DECISION_ISSUED"
    WITHDRAWN = "WITHDRAWN"


class ApplicationEvent(StrEnum):
    """What can happen to an application."""

    SCREEN = "screen"
    COMPLETE = "complete"
    ASK = "ask"
    ANSWER = "answer"
    DECIDE = "decide"
    CLOSE = "close as incomplete"
    WITHDRAW = "withdraw"


_S, _E = ApplicationState, ApplicationEvent

NEXT: Table[ApplicationState, ApplicationEvent] = {
    _S.SUBMITTED: {_E.SCREEN: _S.PRE_SCREENING, _E.WITHDRAW: _S.WITHDRAWN},
    _S.PRE_SCREENING: {
        _E.COMPLETE: _S.PROCESSING,
        _E.ASK: _S.AWAITING_ADDITIONAL_INFORMATION,
        _E.WITHDRAW: _S.WITHDRAWN,
    },
    _S.AWAITING_ADDITIONAL_INFORMATION: {
        _E.ANSWER: _S.PRE_SCREENING,
        _E.CLOSE: _S.DECISION_ISSUED,
        _E.WITHDRAW: _S.WITHDRAWN,
    },
    _S.PROCESSING: {
        _E.DECIDE: _S.DECISION_ISSUED,
        _E.ASK: _S.AWAITING_ADDITIONAL_INFORMATION,
        _E.WITHDRAW: _S.WITHDRAWN,
    },
    _S.DECISION_ISSUED: {},
    _S.WITHDRAWN: {},
}


@dataclass(frozen=True, slots=True)
class Application:
    """What an applicant asks for (EHDS Art. 67(2))."""

    id: ApplicationId
    applicant: Did
    applicant_country: str
    public_body: bool
    title: str
    purpose: str
    intended_use: str
    benefit: str
    datasets: tuple[tuple[Did, str], ...]
    variables: tuple[str, ...]
    methods: tuple[str, ...]
    persons: tuple[str, ...]
    legal_basis: str
    ethics: str
    safeguards: str
    period_months: int
    submitted_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        body = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("variables", "methods", "persons"):
            body[name] = list(body[name])
        body["datasets"] = [[h, d] for h, d in self.datasets]
        body["submitted_at"] = self.submitted_at.isoformat()
        return body

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Application:
        """Read the JSON form.

        Raises:
            BadInput: a field is missing, unknown or of the wrong kind.

        """
        names = {f.name for f in fields(cls)}
        missing, unknown = sorted(names - set(body)), sorted(set(body) - names)
        if missing or unknown:
            raise BadInput(
                f"the application lacks {missing} and has unknown fields {unknown}",
                remedy="see the fields in `ihds apply --help`",
            )
        try:
            ready = dict(body)
            for name in _TEXTS:
                _text(name, body[name])
            if not isinstance(body["public_body"], bool):
                raise BadInput("public_body is neither true nor false", remedy="write true or false")
            for name in ("variables", "methods", "persons"):
                if not isinstance(body[name], (list, tuple)):
                    raise BadInput(f"{name} is no list", remedy="write a list of texts")
                ready[name] = tuple(_text(name, item) for item in body[name])
            ready["id"] = ApplicationId.parse(body["id"])
            ready["applicant"] = Did.parse(body["applicant"])
            ready["datasets"] = tuple((Did.parse(h), str(d)) for h, d in body["datasets"])
            ready["submitted_at"] = datetime.fromisoformat(body["submitted_at"])
            if ready["submitted_at"].tzinfo is None:
                raise BadInput("submitted_at has no time zone", remedy="write it with its offset from UTC")
            if type(body["period_months"]) is not int:
                raise BadInput("period_months is no whole number", remedy="write a number of months")
        except (TypeError, ValueError, OverflowError) as error:
            raise BadInput(f"the application cannot be read: {error}") from error
        return cls(**ready)


_TEXTS = (
    "applicant_country",
    "title",
    "purpose",
    "intended_use",
    "benefit",
    "legal_basis",
    "ethics",
    "safeguards",
    "submitted_at",
)
_LONGEST = 20_000


def _text(name: str, value: object) -> str:
    """Return a text that can be kept and shown. Raises BadInput."""
    if not isinstance(value, str) or len(value) > _LONGEST or any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise BadInput(f"{name} is no text of at most {_LONGEST} characters", remedy="see `ihds apply --help`")
    return value


#: The fields of the common form that must be answered, with their ground.
REQUIRED: dict[str, str] = {
    "title": "EHDS 67(2)(a)",
    "purpose": "EHDS 67(2)(b)",
    "intended_use": "EHDS 67(2)(c)",
    "benefit": "EHDS 67(2)(c)",
    "datasets": "EHDS 67(2)(d)",
    "variables": "EHDS 67(2)(d)",
    "methods": "EHDS 67(2)(i)",
    "persons": "EHDS 67(2)(a)",
    "legal_basis": "EHDS 67(4)",
    "ethics": "EHDS 67(2)(j)",
    "safeguards": "EHDS 67(2)(g)",
    "period_months": "EHDS 67(2)(h)",
}


def completeness(application: Application) -> tuple[str, ...]:
    """Return what is missing, as one list (EHDS Art. 68(4))."""
    return tuple(
        f"{article}: {name} is not answered" for name, article in REQUIRED.items() if not getattr(application, name)
    )


def screen(application: Application, legal_regime: str, on: date) -> Decision:
    """Judge as of a day what needs no human: completeness, purpose, eligibility, duration.

    A person still decides; this lists the refusals no person may overrule.
    """
    reasons = [f"R-67-INCOMPLETE {reason}" for reason in completeness(application)]
    if application.purpose not in PURPOSES:
        reasons.append(f"R-53-PURPOSE EHDS 53(1): {application.purpose!r} is not a permitted purpose")
    if application.purpose in RESERVED_PURPOSES and not application.public_body:
        reasons.append(f"R-53-2-RESERVED EHDS 53(2): {application.purpose} is reserved to public bodies")
    if legal_regime == "ehds" and on < CHAPTER_IV:
        reasons.append(f"EHDS 105: permits are issued from {CHAPTER_IV}; until then access rests on contract (1(8))")
    if legal_regime == "ehds" and not eligible(application.applicant_country, on):
        reasons.append("R-91-THIRD-COUNTRY EHDS 91: no reciprocity act names the applicant's country")
    if not 0 < application.period_months <= 120:
        reasons.append("EHDS 68(12): the period must be at most 10 years")
    return Refused(tuple(reasons)) if reasons else Granted(("EHDS 68(1): complete and eligible",))
