"""The running cases: every step by its table, whoever tries; one decision; clocks that grant nothing."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ihds.audit.log import Event, Log
from ihds.errors import BadInput, IllegalTransition, Refused
from ihds.governance.access import QUESTIONS, ContractQuestion, Question
from ihds.governance.agreement import Agreement, AgreementState, uncovered
from ihds.governance.cases import Case
from ihds.governance.duties import SEPARATE, Actor, Role, taken_on
from ihds.governance.fees import estimate
from ihds.governance.holidays import CALENDARS
from ihds.governance.lives import CaseAction, CaseState, Kind
from ihds.governance.permit import Permit
from ihds.ids import AgreementId, ApplicationId, Did
from ihds.roles.cases import Asked, Cases
from ihds.roles.grants import Grants
from ihds.store.store import Put, Store
from tests.governance.test_governance import make_application

BODY = Did("did:web:hdab.example")
LU = CALENDARS["LU"]
DAY = datetime(2029, 6, 1, 9, tzinfo=UTC)
ASSESSOR, OFFICER = Actor("A", frozenset({Role.ASSESSOR})), Actor("O", frozenset({Role.OFFICER}))
APPLICANT = Actor("applicant", frozenset({Role.APPLICANT}))


class Unsigned:
    def sign(self, data: bytes) -> str:
        return ""


@dataclass
class Body:
    """An access body without a node: store, log with a clock that is set by hand, cases and grants."""

    at: datetime = DAY
    regime: str = "ehds"
    url: str = "sqlite://"

    def __post_init__(self):
        self.log = Log(Store(self.url), BODY, Unsigned(), lambda: self.at)
        self.cases = Cases(self.log, BODY, self.regime, LU)
        self.grants = Grants(self.cases, lambda permit: f"credential of {permit.id}")

    def write(self, put: Put) -> None:
        self.log.commit(Event("agreement.advanced", BODY), put)

    def apply(self, kind=Kind.APPLICATION, agreement="", **changes) -> str:
        asked = make_application(id=ApplicationId.new(), submitted_at=self.at, **changes)
        return self.cases.submit(Asked(asked, kind, agreement)).id

    def stage(self, case: str) -> CaseState:
        return self.cases.case(case).stage

    def assess(self, case: str, answer="yes"):
        return self.grants.assess(case, ASSESSOR, "all", answer, "as the protocol shows")

    def granted(self, **changes) -> str:
        """Return a case that was granted."""
        case = self.apply(**changes)
        self.assess(case)
        self.grants.fee_notice(case, OFFICER)
        self.grants.grant(case, OFFICER, {})
        return case

    def permit(self, case: str) -> str:
        return self.cases.record(case).body["permit"]

    def kinds(self) -> list[str]:
        return [e["kind"] for e in self.log.entries()]


def test_an_application_is_worked_from_arrival_to_permit():
    body = Body()
    case = body.apply()
    assert body.stage(case) is CaseState.ASSESSMENT
    with pytest.raises(IllegalTransition, match="does not fit"):
        body.grants.grant(case, OFFICER, {})
    body.assess(case)
    notice = body.grants.fee_notice(case, OFFICER)
    assert notice["total_euros"] == sum(line.euros for line in estimate(body.cases.case(case).application)) > 0
    body.grants.grant(case, OFFICER, {"max_rounds": 7})
    permit = Permit.from_dict(body.log.get("permit", body.permit(case)).body["permit"])
    assert (permit.legal_regime, permit.max_rounds, permit.user) == ("ehds", 7, make_application().applicant)
    steps = [e["details"] for e in body.log.entries() if e["kind"] == "application.advanced"]
    assert [(s["action"], s["role"], s["by"]) for s in steps] == [
        ("screen", "assessor", "the form's own check"),
        ("complete", "assessor", "the form's own check"),
        ("send the fee notice", "officer", "O"),
    ]
    assert body.kinds()[-1] == "permit.granted"


def test_no_permit_of_the_ehds_is_issued_before_its_chapter_applies():
    body = Body(at=datetime(2029, 3, 25, 12, tzinfo=UTC))
    case = body.apply()
    body.assess(case)
    body.grants.fee_notice(case, OFFICER)
    with pytest.raises(Refused) as caught:
        body.grants.grant(case, OFFICER, {})
    assert "EHDS 105" in str(caught.value)
    assert body.grants.replay(case, date(2029, 3, 26), "ehds")["eligible"]
    body.at = datetime(2029, 3, 26, 12, tzinfo=UTC)
    body.grants.grant(case, OFFICER, {})


def test_an_excluded_applicant_is_granted_nothing():
    body = Body()
    case = body.apply()
    body.assess(case)
    body.grants.fee_notice(case, OFFICER)
    user = body.cases.case(case).application.applicant
    body.write(Put("exclusion", user, 0, {"until": "2030-01-01"}))
    with pytest.raises(Refused, match="R-63-EXCLUDED"):
        body.grants.grant(case, OFFICER, {})


@pytest.mark.parametrize("question", Question)
def test_one_failing_verdict_stops_the_grant(question):
    body = Body()
    case = body.apply()
    body.assess(case)
    body.grants.assess(case, ASSESSOR, question.name.lower(), "no", "it does not")
    body.grants.fee_notice(case, OFFICER)
    with pytest.raises(Refused, match="no verdict fails"):
        body.grants.grant(case, OFFICER, {})


def test_an_incomplete_form_is_sent_back_once_and_closed_after_four_weeks():
    body = Body()
    case = body.apply(ethics="", benefit="")
    assert body.stage(case) is CaseState.AWAITING_INFORMATION
    assert len(body.cases.case(case).reasons) == 2


def test_steps_are_for_their_role_and_verdicts_for_assessors():
    body = Body()
    case = body.apply()
    with pytest.raises(Refused, match="55\\(3\\)"):
        body.grants.assess(case, OFFICER, "all", "yes", "why")
    with pytest.raises(Refused, match="55\\(3\\)"):
        body.cases.act(case, CaseAction.EXTEND, ASSESSOR, reasons=("many questions",))
    with pytest.raises(BadInput, match="justification"):
        body.grants.assess(case, ASSESSOR, "all", "yes", " ")
    with pytest.raises(BadInput, match="no question"):
        body.grants.assess(case, ASSESSOR, "beauty", "yes", "why")


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(sorted(SEPARATE), 2)))
def test_nobody_holds_two_separate_duties_in_a_project(first, second):
    body = Body()
    case, other = body.apply(), body.apply()
    both = Actor("B", frozenset({first, second}))
    body.cases.assign(case, both, first)
    with pytest.raises(Refused, match="separate duties"):
        body.cases.assign(case, both, second)
    body.cases.assign(other, both, second)  # another project is another matter
    assert taken_on({}, both, Role.OFFICER)


def test_who_gave_a_verdict_checks_no_output_of_that_project():
    body = Body()
    both = Actor("B", frozenset({Role.ASSESSOR, Role.REVIEWER}))
    case = body.apply()
    body.grants.assess(case, both, "purpose", "yes", "why")
    with pytest.raises(Refused, match="separate duties"):
        body.cases.assign(case, both, Role.REVIEWER)


def test_two_officers_deciding_at_once_give_one_decision(tmp_path):
    """Each with a connection of its own, as two processes have."""
    bodies = [Body(url=f"sqlite:///{tmp_path / 'store.sqlite'}") for _ in range(2)]
    cases = []
    for _ in range(6):
        case = bodies[0].apply()
        bodies[0].assess(case)
        bodies[0].grants.fee_notice(case, OFFICER)
        cases.append(case)
    for case in cases:
        start, said = threading.Barrier(2), []

        def decide(body, case=case, start=start, said=said):
            start.wait()
            try:
                body.grants.grant(case, OFFICER, {})
            except IllegalTransition:
                said.append("too late")
            else:
                said.append("granted")

        threads = [threading.Thread(target=decide, args=[body]) for body in bodies]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert sorted(said) == ["granted", "too late"]
    assert bodies[0].kinds().count("permit.granted") == len(bodies[0].log.store.list("permit")) == len(cases)


def test_an_id_that_is_somebody_elses_shows_nothing():
    body = Body()
    case = body.apply()
    stranger = make_application(id=ApplicationId(case), applicant=Did("did:web:stranger.example"))
    with pytest.raises(Refused, match="taken"):
        body.cases.submit(Asked(stranger))
    assert body.cases.submit(Asked(body.cases.case(case).application)).id == case  # sent twice: once


@pytest.mark.parametrize("break_after", [1, 2])
def test_a_form_that_a_crash_left_unchecked_is_checked_at_the_next_start(break_after):
    body = Body()
    commit, count = body.log.commit, itertools.count()

    def crashing(event, *puts):
        if next(count) == break_after:
            raise KeyboardInterrupt
        commit(event, *puts)

    body.log.commit = crashing
    with pytest.raises(KeyboardInterrupt):
        body.apply()
    body.log.commit = commit
    body.cases.resume()
    (record,) = body.log.store.list("application")
    assert body.stage(record.id) is CaseState.ASSESSMENT


def test_a_case_is_written_and_read_as_it_is():
    body = Body()
    case = body.cases.case(body.granted())
    assert Case.from_dict(case.to_dict()) == case
    assert case.stage is CaseState.GRANTED


# -- beside the EHDS --------------------------------------------------------------------------------


def make_agreement(**changes) -> Agreement:
    asked = make_application()
    parties = [asked.applicant, *(holder for holder, _ in asked.datasets)]
    text = {
        "id": AgreementId.new(),
        "body": BODY,
        "title": "joint research",
        "purposes": ["scientific_research"],
        "parties": [
            {"did": did, "name": did, "country": country, "responsibility": "its own data"}
            for did, country in zip(parties, ["LU", "KR", "US", "LU"], strict=False)
        ],
        "approvals": [
            {"board": b, "country": c, "reference": "1", "valid_until": "2031-01-01"}
            for b, c in (("CNER", "LU"), ("IRB", "KR"), ("DRB", "KR"), ("IRB", "US"))
        ],
        "terms": "sums only",
        "since": "2026-01-01",
        "until": "2030-12-31",
    }
    return Agreement.from_dict({**text, **changes})


def under(body: Body, state=AgreementState.IN_FORCE, **changes) -> str:
    agreement = make_agreement(**changes)
    held = {"agreement": agreement.to_dict(), "state": str(state), "signatures": {}}
    body.write(Put("joint.agreement", agreement.id, 0, held))
    return agreement.id


def test_under_an_agreement_the_grant_is_none_of_the_ehds():
    body = Body(regime="contract", at=datetime(2026, 11, 25, tzinfo=UTC))
    case = body.apply(agreement=under(body))
    with pytest.raises(BadInput):
        body.grants.assess(case, ASSESSOR, "opt_out", "yes", "that is a question of the EHDS")
    body.assess(case)
    body.grants.grant(case, OFFICER, {})
    permit = Permit.from_dict(body.log.get("permit", body.permit(case)).body["permit"])
    assert permit.legal_regime == "contract"
    assert body.cases.case(case).clocks == ()


def test_no_grant_outlives_its_agreement():
    body = Body(regime="contract", at=datetime(2026, 11, 25, tzinfo=UTC))
    case = body.apply(agreement=under(body, until="2027-01-31"))
    body.assess(case)
    body.grants.grant(case, OFFICER, {})
    assert body.log.get("permit", body.permit(case)).body["permit"]["expires_at"].startswith("2027-01-31T23:59:59")


ONE_PARTY_LESS = [p for p in make_agreement().to_dict()["parties"] if p["did"] != make_application().applicant]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"state": AgreementState.PROPOSED}, "PROPOSED"),
        ({"state": AgreementState.ENDED}, "ENDED"),
        ({"until": "2026-11-24"}, "holds from"),
        ({"since": "2026-11-26"}, "holds from"),
        ({"purposes": ["education"]}, "is not for"),
        ({"approvals": []}, "missing or over"),
        ({"approvals": [{"board": "CNER", "country": "LU", "reference": "1", "valid_until": "2026-11-24"}]}, "over"),
        ({"parties": [*ONE_PARTY_LESS, {**ONE_PARTY_LESS[0], "did": "did:web:other.example"}]}, "no party"),
    ],
)
def test_what_the_agreement_does_not_cover_is_refused(changes, word):
    body = Body(regime="contract", at=datetime(2026, 11, 25, tzinfo=UTC))
    case = body.apply(agreement=under(body, **changes))
    body.assess(case)
    with pytest.raises(Refused) as caught:
        body.grants.grant(case, OFFICER, {})
    assert word in str(caught.value)


def test_without_an_agreement_nothing_is_granted_beside_the_ehds():
    body = Body(regime="contract")
    case = body.apply()
    body.assess(case)
    with pytest.raises(Refused, match="no agreement is named"):
        body.grants.grant(case, OFFICER, {})


def test_a_country_without_a_known_board_is_not_covered():
    agreement = make_agreement()
    parties = tuple(replace(p, country="BR") if p.country == "KR" else p for p in agreement.parties)
    reasons = uncovered(
        replace(agreement, parties=parties), AgreementState.IN_FORCE, make_application(), date(2026, 11, 25)
    )
    assert reasons == ("no ethics board is known for BR: not knowing means no",)


# -- whoever does whatever --------------------------------------------------------------------------


class Anybody(RuleBasedStateMachine):
    """Anybody tries any step on a case, in any order; what was granted had all it needs."""

    def __init__(self):
        super().__init__()
        self.body = Body(regime="ehds")
        self.case = self.body.apply()

    def attempt(self, act):
        try:
            act()
        except (Refused, IllegalTransition, BadInput):
            return

    @rule(
        action=st.sampled_from([a for a in CaseAction if a is not CaseAction.GRANT]),
        actor=st.sampled_from([ASSESSOR, OFFICER, APPLICANT]),
        reasons=st.sampled_from([(), ("because",)]),
    )
    def step(self, action, actor, reasons):
        harmless = {CaseAction.EXTEND, CaseAction.ASK, CaseAction.ANSWER, CaseAction.COMPLETE, CaseAction.FORWARD}
        if action in harmless | {CaseAction.SEND_FEE_NOTICE}:
            self.attempt(lambda: self.body.cases.act(self.case, action, actor, reasons=reasons))

    @rule(
        question=st.sampled_from(["all", *(q.name.lower() for q in Question)]),
        answer=st.sampled_from(["yes", "yes", "no", "not applicable"]),
        actor=st.sampled_from([ASSESSOR, OFFICER]),
    )
    def assess(self, question, answer, actor):
        self.attempt(lambda: self.body.grants.assess(self.case, actor, question, answer, "why"))

    @rule(actor=st.sampled_from([ASSESSOR, OFFICER]))
    def fees(self, actor):
        self.attempt(lambda: self.body.grants.fee_notice(self.case, actor))

    @rule(actor=st.sampled_from([ASSESSOR, OFFICER, OFFICER]))
    def grant(self, actor):
        self.attempt(lambda: self.body.grants.grant(self.case, actor, {}))

    @rule(days=st.sampled_from([1, 10, 40]))
    def wait(self, days):
        self.body.at += timedelta(days=days)

    @invariant()
    def what_is_granted_has_all_it_needs(self):
        case = self.body.cases.case(self.case)
        permits = self.body.log.store.list("permit")
        assert bool(permits) == (case.stage is CaseState.GRANTED)
        if permits:
            assert set(case.verdicts) == set(QUESTIONS["ehds"])
            assert all(v.passes(q) for q, v in case.verdicts.items())
            assert case.fee_notice["on"] <= self.body.at.date().isoformat()


Anybody.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestAnybody = Anybody.TestCase


def test_every_question_of_a_regime_has_a_word_of_its_own():
    for questions in QUESTIONS.values():
        assert len({q.name for q in questions}) == len({str(q) for q in questions}) == len(questions)
    assert not any("EHDS" in str(q) or "permit" in str(q).lower() for q in ContractQuestion)
