"""The people and papers of a simulated data space: who decides, what the institutions agreed on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from ihds.audit.log import Log, now
from ihds.errors import Refused
from ihds.governance.access import QUESTIONS
from ihds.governance.agreement import BOARDS
from ihds.governance.application import Application
from ihds.governance.calendar import wait_months
from ihds.governance.cases import Case
from ihds.governance.duties import Actor, Role
from ihds.governance.holidays import CALENDARS
from ihds.ids import Did
from ihds.roles.cases import Asked, Cases
from ihds.roles.grants import Grants
from ihds.roles.space import Space
from ihds.store.store import Store
from ihds.wire.jose import SigningKey

ASSESSOR, OFFICER = "Demo Assessor", "Demo Officer"
_MONTHS = 36

#: What the officers of simulated holders vouch for; docs/law/rules.md says what each term means, {} is the recipient.
EVIDENCE = {
    "LU": ("research_safeguards", "ethics_opinion"),
    "KR": ("irb_approval", "drb_approval", "no_resident_number", "no_credit_information"),
    "US": ("irb_approval", "safe_harbor", "no_nih_controlled_data", "recipient_screened {}", "no_onward_clause {}"),
}
#: What the researcher of the demo asks for.
APPLICATION: dict[str, Any] = {
    "title": "Recurrence of superficial bladder cancer under intravesical treatment",
    "purpose": "scientific_research",
    "intended_use": "Compare the rate of recurrences between treatments",
    "benefit": "Better choice of treatment after resection",
    "variables": [
        "person_id",
        "treatment",
        "tumour_count",
        "largest_tumour_cm",
        "start_months",
        "stop_months",
        "recurrence",
        "first_months",
        "first_recurrence",
    ],
    "methods": ["describe", "kaplan_meier", "logrank", "cox"],
    "persons": ["Demo Researcher"],
    "legal_basis": "GDPR 6(1)(e), 9(2)(j)",
    "ethics": "CNER opinion (simulated)",
    "safeguards": "federated analysis; only sums leave the holders",
    "period_months": 24,
}


def agree(body: Space, holders: Sequence[Space], researcher: Space) -> str:
    """Have an agreement signed by all its parties; return its id. An access body without people is given some."""
    for name, role in ((ASSESSOR, "assessor"), (OFFICER, "officer")) if not body.people else ():
        body.call("officer.add", name=name, roles=[role])
    duties = [(holder, "holds its data and answers for their lawful use") for holder in holders]
    duties.append((researcher, "runs the studies and answers for what is published"))
    today = now().date()
    until = wait_months(today, _MONTHS).isoformat()
    parties = [
        {"did": s.config.did, "name": s.config.name, "country": s.config.country, "responsibility": duty}
        for s, duty in duties
    ]
    approvals = [
        {"board": board, "country": country, "reference": "simulated", "valid_until": until}
        for country in sorted({str(p["country"]) for p in parties})
        for board in sorted(BOARDS[country])
    ]
    agreement = {
        "title": "Joint research (simulated)",
        "purposes": ["scientific_research"],
        "parties": parties,
        "approvals": approvals,
        "terms": "only sums leave a party; nobody tries to re-identify; results are published, anonymous only",
        "since": today.isoformat(),
        "until": until,
    }
    proposed = str(body.acting(OFFICER).call("joint.propose", agreement=agreement)["agreement"])
    for party, _ in duties:
        party.call("joint.sign", id=proposed, body=body.config.did)
    return proposed


def under_ehds(asked: Application, body: Did, on: datetime) -> Iterator[str]:
    """Work an application by the machinery of the access body under the EHDS, on a clock that stands at an instant.

    Nothing of it leaves memory: the permit is no node's, and no holder would take it today.
    """
    store = Store("sqlite://")
    log = Log(store, body, SigningKey.new(f"{body}#simulated"), lambda: on)
    cases = Cases(log, body, "ehds", CALENDARS["LU"])
    grants = Grants(cases, lambda permit: f"unsigned credential of {permit.id}")
    assessor, officer = Actor(ASSESSOR, frozenset({Role.ASSESSOR})), Actor(OFFICER, frozenset({Role.OFFICER}))
    case = cases.submit(Asked(replace(asked, submitted_at=on))).id
    yield f"{on:%Y-%m-%d}: {cases.case(case).stage}; the decision is due by {_due(cases.case(case), on)}"
    grants.assess(case, assessor, "all", "yes", "simulated")
    notice = grants.fee_notice(case, officer)
    yield f"{len(QUESTIONS['ehds'])} verdicts are given, a notice of {notice['total_euros']} EUR is sent"
    try:
        record = grants.grant(case, officer, {})
        yield f"data permit {record.body['permit']} is granted under the EHDS, in simulated time only"
    except Refused as error:
        yield f"refused: {next(r for r in error.reasons if 'EHDS 105' in r)}"
    store.close()


def _due(case: Case, on: datetime) -> str:
    found = [c.stands(CALENDARS["LU"], on.date()).last for c in case.clocks]
    return f"{found[0]}" if found and found[0] else "no clock of the EHDS"


def grant(body: Space, researcher: Space, application: str, conditions: Mapping[str, Any]) -> str:
    """Give the verdicts on an application and grant it; return the id of what was granted."""
    why = "as the agreement and the protocol show (simulated)"
    body.acting(ASSESSOR).call("permit.assess", id=application, question="all", answer="yes", because=why)
    words = {"grant": True, "conditions": dict(conditions)}
    decided = body.acting(OFFICER).call("permit.decide", id=application, **words)
    researcher.permits()  # the user fetches what was granted
    return str(decided["permit"])
