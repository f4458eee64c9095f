"""The running cases: every step by its table, whoever tries; one decision; clocks that grant nothing."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ihds.audit.log import Event, Log
from ihds.connector.dcp.credentials import AUTHORISATION, PERMIT, Credential, permission_type
from ihds.errors import BadInput, IllegalTransition, NotFound, Refused
from ihds.governance.access import QUESTIONS, ContractQuestion, Question
from ihds.governance.agreement import Agreement, AgreementState, uncovered
from ihds.governance.cases import Case
from ihds.governance.duties import SEPARATE, Actor, Role, taken_on
from ihds.governance.fees import estimate
from ihds.governance.holidays import CALENDARS
from ihds.governance.lives import AppealAction, CaseAction, CaseState, Kind
from ihds.governance.permit import Permit, PermitEvent, PermitState, Use, decide
from ihds.governance.policy import Granted
from ihds.ids import AgreementId, ApplicationId, Did
from ihds.roles.cases import Asked, Cases
from ihds.roles.grants import Grants
from ihds.roles.proofs import Proofs
from ihds.roles.publications import Publications
from ihds.roles.redress import Redress
from ihds.roles.timekeeper import Timekeeper
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
        self.redress = Redress(self.cases)
        self.publications = Publications(self.log, BODY, LU)
        self.told: list[str] = []
        self.time = Timekeeper(self.cases, self.publications, lambda permit: self.told.append(permit.id))

    def write(self, put: Put) -> None:
        self.log.commit(Event("agreement.advanced", BODY), put)

    def apply(self, kind=Kind.APPLICATION, agreement="", **changes) -> str:
        asked = make_application(id=ApplicationId.new(), submitted_at=self.at, **changes)
        return self.cases.submit(Asked(asked, kind, agreement)).id

    def amend(self, permit: str, *changes: str, **fields) -> str:
        """Ask for a change of a permit; return the case."""
        before = self.cases.case(self.log.get("permit", permit).body["application"]).application
        asked = replace(before, id=ApplicationId.new(), submitted_at=self.at, **fields)
        return self.cases.submit(Asked(asked, Kind.AMENDMENT, amends=permit, changes=changes)).id

    def decide(self, case: str) -> None:
        self.assess(case)
        self.grants.fee_notice(case, OFFICER)
        self.grants.grant(case, OFFICER, {})

    def state(self, permit: str) -> str:
        return self.log.get("permit", permit).body["state"]

    def stage(self, case: str) -> CaseState:
        return self.cases.case(case).stage

    def assess(self, case: str, answer="yes"):
        return self.grants.assess(case, ASSESSOR, "all", answer, "as the protocol shows")

    def granted(self, **changes) -> str:
        """Return a case that was granted."""
        case = self.apply(**changes)
        self.decide(case)
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
    assert [c["clock"] for c in body.time.clock(case)] == ["D4-COMPLETE"]
    body.at += timedelta(days=28)
    body.time.look()
    assert body.stage(case) is CaseState.AWAITING_INFORMATION  # the last day is a whole day
    body.at += timedelta(days=4)
    body.time.look()
    assert body.stage(case) is CaseState.CLOSED_INCOMPLETE
    assert "R-67-INCOMPLETE" in body.cases.case(case).reasons[0]


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


# -- time --------------------------------------------------------------------------------------------


def test_a_missed_deadline_is_told_twice_and_grants_nothing():
    body = Body(at=datetime(2029, 11, 30, 9, tzinfo=UTC))
    case = body.apply()
    (clock,) = body.time.clock(case)
    assert (clock["clock"], clock["last"]) == ("D4", "2030-02-28")
    assert body.time.look() == 0
    body.at = datetime(2030, 2, 20, 9, tzinfo=UTC)
    assert [body.time.look(), body.time.look()] == [1, 0]
    body.at = datetime(2030, 3, 1, 9, tzinfo=UTC)
    assert [body.time.look(), body.time.look()] == [1, 0]
    assert [k for k in body.kinds() if k.startswith("clock")] == ["clock.warned", "clock.ran_out"]
    assert body.stage(case) is CaseState.ASSESSMENT
    (late,) = body.time.overdue(0)
    assert (late["about"], late["consequence"]) == (case, "nothing is granted; the delay is reported")


def test_an_extension_is_given_once_with_its_reason_and_while_the_clock_runs():
    body = Body(at=datetime(2029, 11, 30, 9, tzinfo=UTC))
    case = body.apply()
    with pytest.raises(Refused, match="reasons are given"):
        body.cases.act(case, CaseAction.EXTEND, OFFICER)
    body.cases.act(case, CaseAction.EXTEND, OFFICER, reasons=("many questions",))
    assert body.time.clock(case)[0]["last"] == "2030-05-31"
    with pytest.raises(BadInput, match="does not fit"):
        body.cases.act(case, CaseAction.EXTEND, OFFICER, reasons=("more",))
    assert body.stage(case) is CaseState.ASSESSMENT


def test_what_is_asked_for_stops_the_clock_and_its_answer_starts_it_anew():
    body = Body()
    case = body.apply()
    body.cases.act(case, CaseAction.ASK, ASSESSOR, reasons=("which committee?",))
    stands = {c["clock"]: c["last"] for c in body.time.clock(case)}
    assert stands == {"D4": None, "D4-COMPLETE": "2029-06-29"}
    body.at += timedelta(days=20)
    body.cases.act(case, CaseAction.ANSWER, APPLICANT)
    body.cases.act(case, CaseAction.COMPLETE, ASSESSOR)
    assert body.time.clock(case)[0]["last"] == "2029-09-21"


@pytest.mark.parametrize(("public", "clock", "last"), [(True, "D5", "2029-08-01"), (False, "D4", "2029-09-03")])
def test_public_bodies_with_their_own_purposes_are_decided_sooner(public, clock, last):
    body = Body()
    case = body.apply(public_body=public, purpose="policy_making")
    assert [(c["clock"], c["last"]) for c in body.time.clock(case)] == [(clock, last)]


def test_a_trusted_holder_that_is_silent_holds_nothing_up():
    body = Body()
    case = body.apply()
    body.cases.act(case, CaseAction.FORWARD, ASSESSOR)
    body.at += timedelta(days=70)
    body.time.look()
    assert body.stage(case) is CaseState.ASSESSMENT
    assert "72(3)" in body.cases.case(case).reasons[0]


def test_a_permit_ends_by_itself_and_what_follows_is_watched():
    body = Body()
    permit = body.permit(body.granted(period_months=1))
    body.at = datetime(2029, 7, 1, 8, 59, 59, tzinfo=UTC)
    body.time.look()
    assert body.state(permit) == PermitState.GRANTED
    body.at += timedelta(seconds=1)
    assert [body.time.look(), body.time.look()] == [1, 0]
    assert body.state(permit) == PermitState.EXPIRED
    assert body.told == [permit]
    assert {c["clock"]: c["last"] for c in body.time.clock(permit)} == {"U1": "2031-01-02", "D11-DELETE": "2030-01-02"}
    body.at = datetime(2030, 1, 3, 9, tzinfo=UTC)
    body.time.look()
    assert [e["details"]["clock"] for e in body.log.entries() if e["kind"] == "clock.ran_out"] == ["D11-DELETE"]
    body.publications.deleted(permit, OFFICER)
    body.publications.extend(permit, OFFICER, date(2031, 6, 30), "under review")
    assert body.time.clock(permit)[0]["last"] == "2031-06-30"
    user = make_application().applicant
    with pytest.raises(Refused):
        body.publications.report(permit, "did:web:stranger.example", "https://doi.org/1", "s")
    for _ in range(2):  # sent twice, kept once
        assert body.publications.report(permit, user, "https://doi.org/1", "s") == {"permit": permit, "reports": 1}
    body.publications.finding(permit, user, "carriers should be seen")
    assert [c["standing"] for c in body.time.clock(permit)] == ["done in time", "done late"]
    assert body.publications.open() == []


def test_a_pass_that_a_crash_cut_short_tells_nothing_twice_and_forgets_nothing():
    body = Body()
    cases = [body.apply() for _ in range(3)]
    permit = body.permit(body.granted(period_months=1))
    body.at += timedelta(days=100)
    commit = body.log.commit
    for stop_at in range(1, 6):
        count = itertools.count()

        def crashing(event, *puts, count=count, stop_at=stop_at):
            if next(count) == stop_at:
                raise KeyboardInterrupt
            commit(event, *puts)

        body.log.commit = crashing
        try:
            body.time.look()
        except KeyboardInterrupt:
            continue
    body.log.commit = commit
    body.time.look()
    told = [e["details"]["application"] for e in body.log.entries() if e["kind"] == "clock.ran_out"]
    assert sorted(told) == sorted(cases)
    assert body.state(permit) == PermitState.EXPIRED
    assert body.kinds().count("permit.expired") == 1


# -- amendments and redress -----------------------------------------------------------------------------


def test_an_amendment_is_a_new_permit_and_supersedes_the_old():
    body = Body()
    permit = body.permit(body.granted())
    case = body.amend(permit, "persons", persons=("P", "Q"))
    body.decide(case)
    new = Permit.from_dict(body.log.get("permit", body.permit(case)).body["permit"])
    old = Permit.from_dict(body.log.get("permit", permit).body["permit"])
    assert (body.state(permit), body.state(new.id)) == (PermitState.SUPERSEDED, PermitState.GRANTED)
    assert (new.persons, new.expires_at, new.id != old.id) == (("P", "Q"), old.expires_at, True)


def test_an_amendment_keeps_the_conditions_of_the_permit_it_changes():
    body = Body()
    first = body.apply()
    body.assess(first)
    body.grants.fee_notice(first, OFFICER)
    body.grants.grant(first, OFFICER, {"max_rounds": 7, "min_cell": 20})
    second = body.amend(body.permit(first), "persons", persons=("P", "Q"))
    body.decide(second)
    third = body.amend(body.permit(second), "persons", persons=("P", "Q", "R"))
    body.assess(third)
    body.grants.fee_notice(third, OFFICER)
    body.grants.grant(third, OFFICER, {"max_rounds": 5})
    last = Permit.from_dict(body.log.get("permit", body.permit(third)).body["permit"])
    assert (last.max_rounds, last.thresholds.min_cell) == (5, 20)


def test_a_permit_is_extended_once_and_asked_for_a_month_before_its_end():
    body = Body()
    permit = body.permit(body.granted(period_months=6))  # until 2029-12-01
    body.at = datetime(2029, 11, 2, 9, tzinfo=UTC)
    late = body.amend(permit, "duration", period_months=12)
    body.assess(late)
    body.grants.fee_notice(late, OFFICER)
    with pytest.raises(Refused, match="68\\(12\\)"):
        body.grants.grant(late, OFFICER, {})
    body.at = datetime(2029, 11, 1, 9, tzinfo=UTC)
    asked = body.amend(permit, "duration", period_months=12)
    body.at = datetime(2029, 11, 20, 9, tzinfo=UTC)  # the day it was asked for counts
    body.decide(asked)
    second = body.permit(asked)
    assert body.log.get("permit", second).body["permit"]["expires_at"].startswith("2030-12-01")
    again = body.amend(second, "duration", period_months=12)
    body.assess(again)
    body.grants.fee_notice(again, OFFICER)
    with pytest.raises(Refused, match="not extended before"):
        body.grants.grant(again, OFFICER, {})


@pytest.mark.parametrize(
    "fields",
    [{"persons": ("Q",)}, {"variables": ("age", "sex")}, {"methods": ("cox", "glm")}, {"purpose": "education"}],
)
def test_what_an_amendment_does_not_declare_is_not_in_its_scope(fields):
    body = Body()
    permit = body.permit(body.granted())
    case = body.amend(permit, "duration", period_months=1, **fields)
    body.assess(case)
    body.grants.fee_notice(case, OFFICER)
    with pytest.raises(Refused, match="68\\(13\\)"):
        body.grants.grant(case, OFFICER, {})


def test_only_the_users_own_permit_in_force_is_amended():
    body = Body()
    permit = body.permit(body.granted())
    with pytest.raises(Refused, match="only the user"):
        body.amend(permit, "persons", applicant=Did("did:web:stranger.example"))
    with pytest.raises(NotFound):
        body.cases.submit(Asked(make_application(), Kind.AMENDMENT, amends=ApplicationId.new()))
    case = body.amend(permit, "persons", persons=("Q",))
    body.time.end(body.log.get("permit", permit), PermitEvent.REVOKE, "permit.revoked", {"reason": "misuse"})
    body.assess(case)
    body.grants.fee_notice(case, OFFICER)
    with pytest.raises(Refused):
        body.grants.grant(case, OFFICER, {})


COURT = Actor("court", frozenset({Role.APPEAL_BODY}))


def test_an_appeal_is_against_a_refusal_and_is_remitted_to_be_assessed_anew():
    body = Body()
    case = body.apply()
    with pytest.raises(Refused, match="was a refusal"):
        body.redress.appeal(case, AppealAction.LODGE, APPLICANT, ("misread",))
    body.grants.refuse(case, OFFICER, ("R-66-MIN",))
    with pytest.raises(Refused, match="reasons"):
        body.redress.appeal(case, AppealAction.LODGE, APPLICANT, ())
    body.redress.appeal(case, AppealAction.LODGE, APPLICANT, ("misread",))
    with pytest.raises(Refused, match="only the appeal body"):
        body.redress.appeal(case, AppealAction.REMIT, OFFICER, ("so be it",))
    again = body.redress.appeal(case, AppealAction.REMIT, COURT, ("it was misread",))["again"]
    assert body.stage(again) is CaseState.ASSESSMENT
    assert body.cases.case(again).verdicts == {}
    assert body.stage(case) is CaseState.REFUSED
    body.redress.resume()
    assert len(body.log.store.list("application")) == 2
    with pytest.raises(IllegalTransition):
        body.redress.appeal(case, AppealAction.DISMISS, COURT, ("no",))


def test_exclusion_lasts_five_years_at_most_and_needs_an_officer_and_a_reason():
    body = Body()
    user = make_application().applicant
    for years, reason, actor, error in (
        (6, "misuse", OFFICER, BadInput),
        (0, "misuse", OFFICER, BadInput),
        (1, " ", OFFICER, BadInput),
        (1, "misuse", ASSESSOR, Refused),
    ):
        with pytest.raises(error):
            body.redress.exclude(user, actor, years, reason)
    assert body.redress.exclude(user, OFFICER, 5, "misuse")["until"] == "2034-06-01"


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


@pytest.mark.parametrize(("regime", "kind"), [("contract", PERMIT), ("ehds", AUTHORISATION)])
def test_a_holder_takes_no_authorisation_for_a_permit_nor_the_reverse(regime, kind):
    body = Body(regime=regime, at=DAY)
    case = body.granted() if regime == "ehds" else body.apply(agreement=under(body))
    if regime == "contract":
        body.assess(case)
        body.grants.grant(case, OFFICER, {})
    permit = body.log.get("permit", body.permit(case)).body["permit"]
    right = permission_type(regime)
    assert {right, kind} == {PERMIT, AUTHORISATION}
    proofs = Proofs(SimpleNamespace(revoked=lambda _credential: False), body.log)
    for types, refused in (((right,), False), ((kind,), True)):
        shown = Credential("c", types, BODY, {"permit": permit}, (), None, None, (), "vc11-sl2021/jwt", "")
        if refused:
            with pytest.raises(Refused, match="another kind"):
                proofs.read(shown)
        else:
            assert proofs.read(shown)[0].legal_regime == regime


def test_a_study_runs_for_persons_the_grant_names_only():
    body = Body()
    permit = Permit.from_dict(body.log.get("permit", body.permit(body.granted())).body["permit"])
    permit = replace(permit, environment=Did("did:web:environment.example"))
    use = Use(permit.user, permit.datasets[0][0], "d", permit.purpose, "cox", frozenset(), frozenset(), person="P")
    assert isinstance(decide(permit, PermitState.GRANTED, use, body.at), Granted)
    for who in ("", "Q", "p"):
        verdict = decide(permit, PermitState.GRANTED, replace(use, person=who), body.at)
        assert "R-73-NOT-LISTED" in str(verdict)
    under_agreement = replace(permit, legal_regime="contract")
    reasons = decide(under_agreement, PermitState.REVOKED, replace(use, person="Q", purpose="x"), body.at).reasons
    assert not any("EHDS" in r or "permit" in r for r in reasons)


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


def test_a_grant_ends_with_the_first_ethics_approval_that_it_needs():
    boards = (("CNER", "LU", "2031-01-01"), ("IRB", "KR", "2027-03-01"), ("DRB", "KR", "2031-01-01"))
    approvals = [
        {"board": b, "country": c, "reference": "1", "valid_until": until}
        for b, c, until in (*boards, ("IRB", "US", "2026-12-01"), ("IRB", "US", "2029-01-01"))  # this one was renewed
    ]
    body = Body(regime="contract", at=datetime(2026, 11, 25, tzinfo=UTC))
    case = body.apply(agreement=under(body, approvals=approvals), period_months=60)
    body.assess(case)
    body.grants.grant(case, OFFICER, {})
    permit = Permit.from_dict(body.log.get("permit", body.permit(case)).body["permit"])
    assert permit.expires_at.date() == date(2027, 3, 1)


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


def test_anybody_does_reach_a_grant():
    """So that what is said of whoever does whatever says something."""
    one = Anybody()
    one.assess("all", "yes", ASSESSOR)
    one.fees(OFFICER)
    one.grant(OFFICER)
    one.what_is_granted_has_all_it_needs()
    assert one.body.stage(one.case) is CaseState.GRANTED


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
FORM = {**make_application().to_dict(), "kind": "application", "agreement": "", "changes": [], "statistics": {}}


@settings(max_examples=200, deadline=None)
@given(
    changed=st.dictionaries(
        st.sampled_from([*sorted(FORM), "amends", "parent", "agreements", "more"]), ODD, max_size=3
    ),
    dropped=st.sets(st.sampled_from(sorted(FORM)), max_size=1),
)
def test_a_form_is_refused_by_name_or_kept_as_it_came(changed, dropped):
    """No form breaks the access body, and none that was taken in is lost."""
    body = Body()
    form = {k: v for k, v in {**FORM, **changed}.items() if k not in dropped}
    try:
        record = body.cases.submit(Asked.read(form))
    except (BadInput, Refused, NotFound):
        assert body.log.store.list("application") == []
    else:
        kept = record.body["application"]
        assert {k: v for k, v in form.items() if k in kept} == kept
        assert Case.from_dict(record.body).stage in (CaseState.ASSESSMENT, CaseState.AWAITING_INFORMATION)
        body.time.look()


def test_every_question_of_a_regime_has_a_word_of_its_own():
    for questions in QUESTIONS.values():
        assert len({q.name for q in questions}) == len({str(q) for q in questions}) == len(questions)
    assert not any("EHDS" in str(q) or "permit" in str(q).lower() for q in ContractQuestion)
