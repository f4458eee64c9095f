"""Access lives: total tables of state, action and role; nothing is granted but by verdicts, fee notice, eligibility."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ihds.governance import agreement, application, permit
from ihds.governance.access import MAY_NOT_APPLY, Amendment, Answer, Change, Dossier, Question, Verdict
from ihds.governance.duties import CONTRACT_NEEDS, FOUR_EYES, GRANT_NEEDS, SEPARATE, Role, Shown, conflict
from ihds.governance.lifecycle import permitted, plain
from ihds.governance.lives import (
    AMENDMENT,
    APPEAL,
    APPLICATION,
    CONTRACT,
    CONTRACT_AMENDMENT,
    CONTRACT_REQUEST,
    LIFE,
    REQUEST,
    WIRE,
    AppealAction,
    AppealState,
    CaseAction,
    CaseState,
)
from ihds.governance.permit import PermitEvent, PermitState
from ihds.governance.policy import Granted, Refused
from tests.governance.test_governance import make_application

LIVES = {
    "application": (APPLICATION, CaseAction, CaseState.GRANTED),
    "request": (REQUEST, CaseAction, CaseState.GRANTED),
    "amendment": (AMENDMENT, CaseAction, CaseState.GRANTED),
    "permit": (permit.STEPS, PermitEvent, PermitState.SUPERSEDED),
    "appeal": (APPEAL, AppealAction, None),
    "contract": (CONTRACT, CaseAction, CaseState.GRANTED),
    "contract request": (CONTRACT_REQUEST, CaseAction, CaseState.GRANTED),
    "contract amendment": (CONTRACT_AMENDMENT, CaseAction, CaseState.GRANTED),
    "agreement": (agreement.STEPS, agreement.AgreementAction, None),
}
CASES = ["application", "request", "amendment"]
TODAY = date(2029, 6, 1)


def reachable(steps, without=frozenset(), by=None):
    start = next(iter(steps))
    reached, todo = {start}, [start]
    while todo:
        for step in steps[todo.pop()].values():
            if step.to not in reached | without and (by is None or step.by in by):
                reached.add(step.to)
                todo.append(step.to)
    return reached


@pytest.mark.parametrize("name", LIVES)
def test_a_table_has_every_state_and_leads_to_each(name):
    steps, _, _ = LIVES[name]
    assert reachable(steps) == set(steps)
    assert {step.to for row in steps.values() for step in row.values()} <= set(steps)
    assert {step.by for row in steps.values() for step in row.values()} <= set(Role)
    assert {need for row in steps.values() for step in row.values() for need in step.needs} <= set(Shown)


@pytest.mark.parametrize("name", LIVES)
def test_every_state_action_and_role_has_its_answer(name):
    steps, actions, _ = LIVES[name]
    allowed = 0
    for state in steps:
        for action in actions:
            for role in Role:
                verdict = permitted(steps, name, state, action, role, frozenset(Shown))
                step = steps[state].get(action)
                assert isinstance(verdict, Granted) == (step is not None and step.by == role)
                allowed += isinstance(verdict, Granted)
    assert allowed == sum(len(row) for row in steps.values())  # exactly one role for each step


@pytest.mark.parametrize("name", LIVES)
def test_a_step_is_refused_for_each_thing_it_needs(name):
    steps, _, _ = LIVES[name]
    for state, row in steps.items():
        for action, step in row.items():
            for need in step.needs:
                verdict = permitted(steps, name, state, action, step.by, frozenset(Shown) - {need})
                assert isinstance(verdict, Refused)
                assert verdict.reasons == (f"{action} needs: {need}",)


@pytest.mark.parametrize("name", LIVES)
def test_silence_grants_nothing(name):
    steps, _, target = LIVES[name]
    for row in steps.values():
        for step in row.values():
            if step.to == target:
                assert step.by is Role.OFFICER
                assert step.needs >= (CONTRACT_NEEDS if name.startswith("contract") else GRANT_NEEDS)
            if step.by is Role.CLOCK:
                assert step.to != target


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("gate", [CaseState.PRE_SCREENING, CaseState.ASSESSMENT, CaseState.FEE_NOTICE_SENT])
def test_no_way_to_a_grant_goes_around_screening_assessment_or_fee_notice(name, gate):
    steps, _, target = LIVES[name]
    assert target in reachable(steps)
    assert target not in reachable(steps, without={gate})


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("name", CASES)
def test_no_role_alone_brings_a_case_to_a_grant(name, role):
    steps, _, target = LIVES[name]
    assert target not in reachable(steps, by={role})
    assert target not in reachable(steps, by=set(Role) - {Role.OFFICER})


def test_the_appeal_body_never_grants():
    """A refusal is remitted to assessment; there the access body decides again."""
    assert set(APPEAL) == set(AppealState)
    assert not [s for s in AppealState if "GRANT" in s]
    assert isinstance(
        permitted(
            APPEAL, "appeal", AppealState.PREPARED, AppealAction.LODGE, Role.APPLICANT, frozenset({Shown.REASONS})
        ),
        Refused,
    )


@pytest.mark.parametrize("steps", LIFE.values(), ids=map(" ".join, LIFE))
def test_inner_states_refine_what_travels_between_countries(steps):
    for state, row in steps.items():
        for step in row.values():
            before, after = WIRE[state], WIRE[step.to]
            if before is None:
                assert after in (application.ApplicationState.SUBMITTED, application.ApplicationState.WITHDRAWN)
            else:
                assert after == before or after in application.NEXT[before].values()
    assert set(WIRE) == set(CaseState)


def test_a_request_never_opens_the_secure_environment():
    """EHDS 69(1): who asks for statistics never sees the data."""
    assert not [step for row in REQUEST.values() for step in row.values() if step.by is Role.ENVIRONMENT]
    assert [step.needs for row in REQUEST.values() for step in row.values() if step.to is CaseState.ANSWERED] == [
        {Shown.ANONYMOUS}
    ]


def test_the_permit_has_one_table():
    assert plain(permit.STEPS) == permit.NEXT
    assert set(permit.NEXT) == set(PermitState)


# -- what a grant rests on --------------------------------------------------------------------------

YES = Verdict(Answer.YES, "A. Assessor", "as the protocol shows")
PASSED = dict.fromkeys(Question, YES)


def dossier(**changes) -> Dossier:
    asked = make_application(submitted_at=datetime(2029, 4, 3, tzinfo=UTC))
    return Dossier(
        **{"application": asked, "legal_regime": "ehds", "verdicts": PASSED, "fee_notice_on": TODAY, **changes}
    )


def grant(file: Dossier, on: date = TODAY):
    return permitted(
        APPLICATION, "the application", CaseState.FEE_NOTICE_SENT, CaseAction.GRANT, Role.OFFICER, file.shows(on)
    )


def test_a_whole_file_is_granted():
    assert isinstance(grant(dossier()), Granted)


@pytest.mark.parametrize("question", Question)
@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(Answer.NO, "A", "w"),
        Verdict(Answer.NOT_APPLICABLE, "A", "w"),
        Verdict(Answer.YES, "", "w"),
        Verdict(Answer.YES, "A", ""),
        None,
    ],
    ids=["no", "not applicable", "unsigned", "unjustified", "absent"],
)
def test_each_verdict_alone_stops_a_grant(question, verdict):
    verdicts = {q: v for q, v in {**PASSED, question: verdict}.items() if v is not None}
    stops = not (verdict and verdict.answer is Answer.NOT_APPLICABLE and question in MAY_NOT_APPLY)
    assert isinstance(grant(dossier(verdicts=verdicts)), Refused) is stops


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"fee_notice_on": None}, "62(5)"),
        ({"fee_notice_on": TODAY + timedelta(days=1)}, "62(5)"),
        ({"excluded_until": TODAY}, "63(3)"),
        ({"application": make_application(applicant_country="KR")}, "91"),
        ({"application": make_application(purpose="statistics")}, "53"),
    ],
)
def test_fee_notice_and_eligibility_alone_stop_a_grant(change, word):
    verdict = grant(dossier(**change))
    assert isinstance(verdict, Refused)
    assert len(verdict.reasons) == 1
    assert word in verdict.reasons[0]


def test_who_changes_the_application_is_assessed_and_told_the_fees_anew():
    file = dossier()
    changed = file.revised(dataclasses.replace(file.application, title="another"))
    assert isinstance(grant(changed), Refused)
    assert changed.verdicts == {}
    assert changed.fee_notice_on is None


VERDICTS = st.builds(Verdict, st.sampled_from(Answer), st.sampled_from(["A", ""]), st.sampled_from(["why", ""]))
FILES = st.builds(
    dossier,
    verdicts=st.one_of(st.just(PASSED), st.dictionaries(st.sampled_from(Question), VERDICTS)),
    fee_notice_on=st.one_of(st.none(), st.just(TODAY)),
    excluded_until=st.one_of(st.none(), st.just(TODAY + timedelta(days=1))),
    reasons=st.sampled_from([(), ("because",)]),
)
STRAIGHT = {
    CaseState.DRAFT: CaseAction.SUBMIT,
    CaseState.SUBMITTED: CaseAction.SCREEN,
    CaseState.PRE_SCREENING: CaseAction.COMPLETE,
    CaseState.AWAITING_INFORMATION: CaseAction.ANSWER,
    CaseState.ASSESSMENT: CaseAction.SEND_FEE_NOTICE,
    CaseState.FEE_NOTICE_SENT: CaseAction.GRANT,
}
MOVE = st.tuples(st.integers(0, 3), st.sampled_from(CaseAction), st.sampled_from(Role), FILES)


def walk(name, moves):
    """Try moves in their order, three of four on the straight way by whose they are; yield each step taken."""
    steps, _, _ = LIVES[name]
    state = next(iter(steps))
    for turn, action, role, file in moves:
        if turn and state in STRAIGHT:
            action = STRAIGHT[state]
            role = steps[state][action].by
        shown = file.shows(TODAY) | {Shown.IN_SCOPE, Shown.IN_TIME, Shown.FIRST_EXTENSION, Shown.ANONYMOUS}
        if isinstance(permitted(steps, name, state, action, role, shown), Granted):
            state = steps[state][action].to
            yield state, role, file


@settings(max_examples=200)
@given(name=st.sampled_from(CASES), moves=st.lists(MOVE, min_size=5, max_size=15))
def test_no_reachable_state_grants_without_verdicts_fee_notice_and_eligibility(name, moves):
    """Whoever tries whatever, in any order, with any file: a grant was preceded by all that it needs."""
    seen = []
    for state, role, file in walk(name, moves):
        seen.append(state)
        if state is CaseState.GRANTED:
            assert role is Role.OFFICER
            assert set(file.verdicts) == set(Question)
            assert all(v.passes(q) for q, v in file.verdicts.items())
            assert file.fee_notice_on == TODAY
            assert file.excluded_until is None
            assert {CaseState.ASSESSMENT, CaseState.FEE_NOTICE_SENT} <= set(seen)


def test_the_walks_do_reach_grants():
    """So that the property above says something."""
    reached = []

    @settings(max_examples=200, database=None)
    @given(name=st.sampled_from(CASES), moves=st.lists(MOVE, min_size=5, max_size=15))
    def count(name, moves):
        reached.extend(state for state, _, _ in walk(name, moves) if state is CaseState.GRANTED)

    count()
    assert reached


@pytest.mark.parametrize("name", CASES)
def test_every_set_of_what_is_shown_is_tried_at_every_step_into_a_grant(name):
    steps, _, target = LIVES[name]
    for state, row in steps.items():
        for action, step in row.items():
            for size in range(len(step.needs) + 1) if step.to == target else ():
                for shown in map(frozenset, itertools.combinations(sorted(step.needs), size)):
                    verdict = permitted(steps, name, state, action, step.by, shown)
                    assert isinstance(verdict, Granted) == (shown == step.needs)


@pytest.mark.parametrize("name", CASES)
def test_the_straight_way_leads_to_a_grant(name):
    """The property above is about something: with everything shown, the grant is reached."""
    steps, _, target = LIVES[name]
    state, shown = next(iter(steps)), frozenset(Shown)
    for action in (
        CaseAction.SUBMIT,
        CaseAction.SCREEN,
        CaseAction.COMPLETE,
        CaseAction.SEND_FEE_NOTICE,
        CaseAction.GRANT,
    ):
        step = steps[state][action]
        assert isinstance(permitted(steps, name, state, action, step.by, shown), Granted)
        state = step.to
    assert state == target


# -- amendments -------------------------------------------------------------------------------------


def amendment(**changes) -> frozenset[Shown]:
    values = {
        "changes": frozenset({Change.DURATION}),
        "same_purpose": True,
        "same_datasets": True,
        "last_request_day": TODAY,
        "extensions_before": 0,
    }
    return Amendment(**{**values, **changes}).shows(TODAY)


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"last_request_day": TODAY - timedelta(days=1)}, Shown.IN_TIME),
        ({"extensions_before": 1}, Shown.FIRST_EXTENSION),
        ({"same_purpose": False}, Shown.IN_SCOPE),
        ({"same_datasets": False}, Shown.IN_SCOPE),
        ({"changes": frozenset()}, Shown.IN_SCOPE),
    ],
)
def test_an_amendment_stays_in_scope_is_in_time_and_extends_once(change, missing):
    needed = {Shown.IN_SCOPE, Shown.IN_TIME, Shown.FIRST_EXTENSION}
    assert amendment() == needed
    assert amendment(**change) == needed - {missing}
    shown = amendment(**change) | GRANT_NEEDS
    assert isinstance(
        permitted(AMENDMENT, "the amendment", CaseState.FEE_NOTICE_SENT, CaseAction.GRANT, Role.OFFICER, shown), Refused
    )


def test_persons_may_be_changed_to_the_end_and_more_than_once():
    late = {"last_request_day": TODAY - timedelta(days=1), "extensions_before": 1}
    assert amendment(changes=frozenset({Change.PERSONS}), **late) >= {Shown.IN_TIME, Shown.FIRST_EXTENSION}


# -- duties -----------------------------------------------------------------------------------------


@given(st.frozensets(st.sampled_from(Role)))
def test_separate_duties_are_not_in_one_hand(roles):
    both, four_eyes = len(roles & SEPARATE) > 1, roles >= FOUR_EYES
    assert bool(conflict(roles)) == (both or four_eyes)
    assert ("55(3)" in conflict(roles)) == both
