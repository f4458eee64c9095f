"""Lives of access as tables: state, action, role, needs (EHDS Art. 62, 67 to 69, 72; TEHDAS2 D6.4).

They refine what travels between countries (``application.NEXT``): ``WIRE`` says which of its states an
inner state shows. No step into a grant is the clock's; every one needs ``duties.GRANT_NEEDS``. The
permit's own life is ``permit.STEPS``.
"""

from __future__ import annotations

from enum import StrEnum

from ihds.governance.application import ApplicationState
from ihds.governance.duties import CONTRACT_NEEDS, GRANT_NEEDS, Role, Shown
from ihds.governance.lifecycle import Step, Steps


class CaseState(StrEnum):
    """Where an application, a request or an amendment stands inside the access body."""

    DRAFT = "DRAFT"
    SUBMITTED = "SUBMITTED"
    PRE_SCREENING = "PRE_SCREENING"
    AWAITING_INFORMATION = "AWAITING_INFORMATION"
    ASSESSMENT = "ASSESSMENT"
    WITH_TRUSTED_HOLDER = "WITH_TRUSTED_HOLDER"
    STATISTICS_OFFERED = "STATISTICS_OFFERED"
    FEE_NOTICE_SENT = "FEE_NOTICE_SENT"
    CONDITIONS_PENDING = "CONDITIONS_PENDING"
    GRANTED = "GRANTED"
    REFUSED = "REFUSED"
    CONVERTED = "CONVERTED"
    ANSWERED = "ANSWERED"
    CLOSED_INCOMPLETE = "CLOSED_INCOMPLETE"
    WITHDRAWN = "WITHDRAWN"


class CaseAction(StrEnum):
    """What can be done to it."""

    SUBMIT = "submit"
    SCREEN = "screen"
    COMPLETE = "complete"
    ASK = "ask"
    ANSWER = "answer"
    FORWARD = "forward"
    RETURN = "return"
    EXTEND = "extend"
    OFFER_STATISTICS = "offer statistics"
    SEND_FEE_NOTICE = "send the fee notice"
    SET_CONDITIONS = "set conditions"
    ACCEPT = "accept"
    DECLINE = "decline"
    GRANT = "grant"
    REFUSE = "refuse"
    DELIVER = "deliver the answer"
    LAPSE = "lapse"
    WITHDRAW = "withdraw"


_S, _A = CaseState, CaseAction
_APPLICANT, _ASSESSOR, _OFFICER = Role.APPLICANT, Role.ASSESSOR, Role.OFFICER

_WITHDRAW = {_A.WITHDRAW: Step(_S.WITHDRAWN, _APPLICANT)}
_REFUSE = {_A.REFUSE: Step(_S.REFUSED, _OFFICER, frozenset({Shown.REASONS}))}
_ASK = {_A.ASK: Step(_S.AWAITING_INFORMATION, _ASSESSOR, frozenset({Shown.REASONS}))}
_GRANT = {_A.GRANT: Step(_S.GRANTED, _OFFICER, GRANT_NEEDS)}
_FEE = {_A.SEND_FEE_NOTICE: Step(_S.FEE_NOTICE_SENT, _OFFICER, frozenset({Shown.ANSWERED}))}
_EXTEND = {_A.EXTEND: Step(_S.ASSESSMENT, _OFFICER, frozenset({Shown.REASONS}))}

#: What application, request and amendment have in common until they are assessed.
_ARRIVAL: Steps[CaseState, CaseAction] = {
    _S.DRAFT: {
        _A.SUBMIT: Step(_S.SUBMITTED, _APPLICANT),
        _A.LAPSE: Step(_S.WITHDRAWN, Role.CLOCK),
        **_WITHDRAW,
    },
    _S.SUBMITTED: {_A.SCREEN: Step(_S.PRE_SCREENING, _ASSESSOR), **_WITHDRAW},
    _S.PRE_SCREENING: {
        _A.COMPLETE: Step(_S.ASSESSMENT, _ASSESSOR, frozenset({Shown.COMPLETE})),
        **_ASK,
        **_WITHDRAW,
    },
    _S.AWAITING_INFORMATION: {
        _A.ANSWER: Step(_S.PRE_SCREENING, _APPLICANT),
        _A.LAPSE: Step(_S.CLOSED_INCOMPLETE, Role.CLOCK),
        **_WITHDRAW,
    },
    _S.REFUSED: {},
    _S.CLOSED_INCOMPLETE: {},
    _S.WITHDRAWN: {},
}

APPLICATION: Steps[CaseState, CaseAction] = {
    **_ARRIVAL,
    _S.ASSESSMENT: {
        _A.FORWARD: Step(_S.WITH_TRUSTED_HOLDER, _ASSESSOR),
        _A.OFFER_STATISTICS: Step(_S.STATISTICS_OFFERED, _OFFICER, frozenset({Shown.REASONS})),
        **_EXTEND,
        **_ASK,
        **_FEE,
        **_REFUSE,
        **_WITHDRAW,
    },
    _S.WITH_TRUSTED_HOLDER: {
        _A.RETURN: Step(_S.ASSESSMENT, Role.TRUSTED_HOLDER),
        _A.LAPSE: Step(_S.ASSESSMENT, Role.CLOCK),
        **_WITHDRAW,
    },
    _S.STATISTICS_OFFERED: {
        _A.ACCEPT: Step(_S.CONVERTED, _APPLICANT),
        _A.DECLINE: Step(_S.ASSESSMENT, _APPLICANT),
        _A.LAPSE: Step(_S.ASSESSMENT, Role.CLOCK),
        **_WITHDRAW,
    },
    _S.FEE_NOTICE_SENT: {
        _A.SET_CONDITIONS: Step(_S.CONDITIONS_PENDING, _OFFICER, GRANT_NEEDS),
        **_GRANT,
        **_REFUSE,
        **_WITHDRAW,
    },
    _S.CONDITIONS_PENDING: {
        _A.ACCEPT: Step(_S.FEE_NOTICE_SENT, _APPLICANT),
        _A.DECLINE: Step(_S.WITHDRAWN, _APPLICANT),
        _A.LAPSE: Step(_S.WITHDRAWN, Role.CLOCK),
    },
    _S.GRANTED: {},
    _S.CONVERTED: {},
}

REQUEST: Steps[CaseState, CaseAction] = {
    **_ARRIVAL,
    _S.ASSESSMENT: {**_ASK, **_FEE, **_REFUSE, **_WITHDRAW},
    _S.FEE_NOTICE_SENT: {**_GRANT, **_REFUSE, **_WITHDRAW},
    _S.GRANTED: {_A.DELIVER: Step(_S.ANSWERED, Role.PREPARER, frozenset({Shown.ANONYMOUS}))},
    _S.ANSWERED: {},
}

_AMENDED = GRANT_NEEDS | {Shown.IN_SCOPE, Shown.IN_TIME, Shown.FIRST_EXTENSION}

AMENDMENT: Steps[CaseState, CaseAction] = {
    **_ARRIVAL,
    _S.ASSESSMENT: {**_EXTEND, **_ASK, **_FEE, **_REFUSE, **_WITHDRAW},
    _S.FEE_NOTICE_SENT: {_A.GRANT: Step(_S.GRANTED, _OFFICER, _AMENDED), **_REFUSE, **_WITHDRAW},
    _S.GRANTED: {},
}


#: Beside the EHDS (Art. 1(8)) there is no fee notice; the agreement must cover what is asked for.
CONTRACT: Steps[CaseState, CaseAction] = {
    **_ARRIVAL,
    _S.ASSESSMENT: {_A.GRANT: Step(_S.GRANTED, _OFFICER, CONTRACT_NEEDS), **_ASK, **_REFUSE, **_WITHDRAW},
    _S.GRANTED: {},
}

CONTRACT_REQUEST: Steps[CaseState, CaseAction] = {
    **CONTRACT,
    _S.GRANTED: REQUEST[_S.GRANTED],
    _S.ANSWERED: {},
}

CONTRACT_AMENDMENT: Steps[CaseState, CaseAction] = {
    **CONTRACT,
    _S.ASSESSMENT: {
        **CONTRACT[_S.ASSESSMENT],
        _A.GRANT: Step(_S.GRANTED, _OFFICER, CONTRACT_NEEDS | {Shown.IN_SCOPE}),
    },
}


class Kind(StrEnum):
    """What is asked for."""

    APPLICATION = "application"
    REQUEST = "request"
    AMENDMENT = "amendment"


#: The life of a case by what is asked for and on what it would rest.
LIFE: dict[tuple[str, Kind], Steps[CaseState, CaseAction]] = {
    ("ehds", Kind.APPLICATION): APPLICATION,
    ("ehds", Kind.REQUEST): REQUEST,
    ("ehds", Kind.AMENDMENT): AMENDMENT,
    ("contract", Kind.APPLICATION): CONTRACT,
    ("contract", Kind.REQUEST): CONTRACT_REQUEST,
    ("contract", Kind.AMENDMENT): CONTRACT_AMENDMENT,
}


class AppealState(StrEnum):
    """Where an appeal stands; it is heard under national law and never grants a permit itself."""

    PREPARED = "PREPARED"
    LODGED = "LODGED"
    DISMISSED = "DISMISSED"
    REMITTED = "REMITTED"
    WITHDRAWN = "WITHDRAWN"


class AppealAction(StrEnum):
    """What can be done to it."""

    LODGE = "lodge"
    DISMISS = "dismiss"
    REMIT = "remit to assessment"
    LAPSE = "lapse"
    WITHDRAW = "withdraw"


_BODY, _REASONED = Role.APPEAL_BODY, frozenset({Shown.REASONS})

APPEAL: Steps[AppealState, AppealAction] = {
    AppealState.PREPARED: {
        AppealAction.LODGE: Step(AppealState.LODGED, _APPLICANT, frozenset({Shown.NEGATIVE, Shown.REASONS})),
        AppealAction.LAPSE: Step(AppealState.WITHDRAWN, Role.CLOCK),
    },
    AppealState.LODGED: {
        AppealAction.DISMISS: Step(AppealState.DISMISSED, _BODY, _REASONED),
        AppealAction.REMIT: Step(AppealState.REMITTED, _BODY, _REASONED),
        AppealAction.WITHDRAW: Step(AppealState.WITHDRAWN, _APPLICANT),
    },
    AppealState.DISMISSED: {},
    AppealState.REMITTED: {},
    AppealState.WITHDRAWN: {},
}

#: What an inner state shows to other countries; a draft shows nothing yet.
WIRE: dict[CaseState, ApplicationState | None] = {
    _S.DRAFT: None,
    _S.SUBMITTED: ApplicationState.SUBMITTED,
    _S.PRE_SCREENING: ApplicationState.PRE_SCREENING,
    _S.AWAITING_INFORMATION: ApplicationState.AWAITING_ADDITIONAL_INFORMATION,
    _S.ASSESSMENT: ApplicationState.PROCESSING,
    _S.WITH_TRUSTED_HOLDER: ApplicationState.PROCESSING,
    _S.STATISTICS_OFFERED: ApplicationState.PROCESSING,
    _S.FEE_NOTICE_SENT: ApplicationState.PROCESSING,
    _S.CONDITIONS_PENDING: ApplicationState.PROCESSING,
    _S.GRANTED: ApplicationState.DECISION_ISSUED,
    _S.REFUSED: ApplicationState.DECISION_ISSUED,
    _S.CONVERTED: ApplicationState.DECISION_ISSUED,
    _S.ANSWERED: ApplicationState.DECISION_ISSUED,
    _S.CLOSED_INCOMPLETE: ApplicationState.DECISION_ISSUED,
    _S.WITHDRAWN: ApplicationState.WITHDRAWN,
}
