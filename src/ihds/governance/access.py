"""What an access decision rests on: verdicts, fee notice, eligibility, and what they show (EHDS Art. 62, 68)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum

from ihds.governance.application import Application, completeness, screen
from ihds.governance.duties import Shown
from ihds.governance.policy import Granted


class Question(StrEnum):
    """What an assessor answers, each for itself."""

    PURPOSE = "68(1)(a) the purpose is one of Art. 53(1)"
    NECESSARY = "68(1)(b) the data are necessary, adequate and proportionate"
    LAWFUL = "68(1)(c) the processing is lawful under the GDPR; pseudonymised data are justified"
    QUALIFIED = "68(1)(d) the applicant is qualified"
    SAFEGUARDS = "68(1)(e) technical and organisational measures suffice"
    ETHICS = "68(1)(f) ethics are assessed where national law asks for it"
    OPT_OUT = "68(1)(g) an exception from opt-outs is justified"
    CHAPTER = "68(1)(h) all else in Chapter IV is met"
    SECURITY = "68(2) risks to defence, security and public order are absent or mitigated"
    REGULATORS = "68(2) confidential data of regulators are not at risk, or protected"


class ContractQuestion(StrEnum):
    """What an assessor answers of joint research under an agreement (EHDS Art. 1(8))."""

    PARTIES = "the applicant and every holder asked are parties, and the agreement is in force"
    PURPOSE = "the research is what the parties agreed on"
    NECESSARY = "the data are necessary, adequate and proportionate (GDPR 5(1)(c))"
    LAWFUL = "each party has its basis in its own law (GDPR, PIPA, HIPAA)"
    ETHICS = "the ethics approvals of every party's country hold (CNER, IRB, DRB)"
    SAFEGUARDS = "technical and organisational measures suffice (GDPR 89(1))"
    TERMS = "variables, methods and persons keep within the data-use terms"


#: What is answered, by what a grant would rest on.
QUESTIONS: dict[str, tuple[StrEnum, ...]] = {"ehds": tuple(Question), "contract": tuple(ContractQuestion)}

#: Questions that may not apply; the others are answered yes or no.
MAY_NOT_APPLY = frozenset({Question.ETHICS, Question.OPT_OUT, Question.SECURITY, Question.REGULATORS})


class Answer(StrEnum):
    """The answer to a question."""

    YES = "yes"
    NO = "no"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer, by whom and why."""

    answer: Answer
    assessor: str
    justification: str

    def passes(self, question: StrEnum) -> bool:
        """Return whether it lets a permit be granted."""
        signed = bool(self.assessor and self.justification)
        fits = self.answer is Answer.YES or (self.answer is Answer.NOT_APPLICABLE and question in MAY_NOT_APPLY)
        return signed and fits


@dataclass(frozen=True, slots=True)
class Dossier:
    """What is on file for an application or request."""

    application: Application
    legal_regime: str
    verdicts: Mapping[StrEnum, Verdict] = field(default_factory=dict)
    fee_notice_on: date | None = None
    excluded_until: date | None = None
    agreed: bool = False
    reasons: tuple[str, ...] = ()

    def revised(self, application: Application) -> Dossier:
        """Return the file after the applicant changed the application: verdicts and fee notice are made anew."""
        return replace(self, application=application, verdicts={}, fee_notice_on=None)

    def shows(self, on: date) -> frozenset[Shown]:
        """Return what the file shows on a day."""
        found = set()
        if not completeness(self.application):
            found.add(Shown.COMPLETE)
        if set(self.verdicts) == set(QUESTIONS[self.legal_regime]):
            found.add(Shown.ANSWERED)
            if all(verdict.passes(question) for question, verdict in self.verdicts.items()):
                found.add(Shown.PASSED)
        if self.fee_notice_on is not None and self.fee_notice_on <= on:
            found.add(Shown.FEE_NOTICE)
        if self.agreed:
            found.add(Shown.AGREEMENT)
        excluded = self.excluded_until is not None and on <= self.excluded_until
        if not excluded and isinstance(screen(self.application, self.legal_regime, on), Granted):
            found.add(Shown.ELIGIBLE)
        if self.reasons:
            found.add(Shown.REASONS)
        return frozenset(found)


class Change(StrEnum):
    """What an amendment of a permit may change; anything else is a new application (TEHDAS2 D6.3)."""

    PERSONS = "persons"
    DURATION = "duration"
    ENVIRONMENT = "secure environment"
    VARIABLES = "further variables of the same datasets"
    EXTRACTION = "longer period of extraction"


@dataclass(frozen=True, slots=True)
class Amendment:
    """What is asked of a permit in force; every change makes a new permit with a new id (EHDS Art. 68(13))."""

    changes: frozenset[Change]
    same_purpose: bool
    same_datasets: bool
    last_request_day: date
    extensions_before: int

    def shows(self, on: date) -> frozenset[Shown]:
        """Return what the request shows, asked for on a day."""
        longer = Change.DURATION in self.changes
        found = set()
        if self.changes and self.same_purpose and self.same_datasets:
            found.add(Shown.IN_SCOPE)
        if not longer or on <= self.last_request_day:
            found.add(Shown.IN_TIME)
        if not longer or self.extensions_before == 0:
            found.add(Shown.FIRST_EXTENSION)
        return frozenset(found)
