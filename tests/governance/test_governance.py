from __future__ import annotations

from datetime import date, timedelta

import pytest

from ihds.audit.log import now
from ihds.connector.dsp import negotiation, transfer
from ihds.errors import BadInput, IllegalTransition
from ihds.governance import application, permit
from ihds.governance.application import Application, screen
from ihds.governance.lifecycle import advance, mermaid
from ihds.governance.policy import Granted, Refused, constraint, evaluate
from ihds.ids import ApplicationId, Did

TABLES = {
    "application": (application.NEXT, application.ApplicationState, application.ApplicationEvent),
    "permit": (permit.NEXT, permit.PermitState, permit.PermitEvent),
    "negotiation": (negotiation.NEXT, negotiation.State, negotiation.Event),
    "transfer": (transfer.NEXT, transfer.State, transfer.Event),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_life_is_a_total_table_in_which_every_state_can_be_reached(name):
    table, states, events = TABLES[name]
    assert set(table) == set(states)
    assert {e for row in table.values() for e in row} <= set(events)
    start = next(iter(states))
    reached, todo = {start}, [start]
    while todo:
        for target in table[todo.pop()].values():
            if target not in reached:
                reached.add(target)
                todo.append(target)
    assert reached == set(states)


@pytest.mark.parametrize("name", TABLES)
def test_every_step_is_allowed_or_says_what_would_be(name):
    table, states, events = TABLES[name]
    for state in states:
        for event in events:
            if event in table[state]:
                assert advance(table, name, state, event) == table[state][event]
            else:
                with pytest.raises(IllegalTransition) as caught:
                    advance(table, name, state, event)
                assert "possible now" in caught.value.remedy


def test_the_diagram_shows_every_step():
    drawn = mermaid(permit.NEXT, permit.PermitState.GRANTED)
    assert "GRANTED --> REVOKED: revoke" in drawn
    assert "REVOKED --> [*]" in drawn


# -- policies --------------------------------------------------------------------------------------


def allow(*constraints):
    return {"permission": [{"action": "use", "constraint": list(constraints)}]}


FACTS = {"purpose": "scientific_research", "method": ("cox", "glm"), "minimumCell": "5", "permitStatus": "GRANTED"}

HOLDS = [
    ("purpose", "eq", "scientific_research", True),
    ("purpose", "eq", "education", False),
    ("purpose", "neq", "education", True),
    ("purpose", "isAnyOf", ["education", "scientific_research"], True),
    ("purpose", "isNoneOf", ["education"], True),
    ("purpose", "isNoneOf", ["scientific_research"], False),
    ("purpose", "isA", "scientific_research", True),
    ("method", "isPartOf", ["cox", "glm", "describe"], True),
    ("method", "isPartOf", ["cox"], False),
    ("method", "hasPart", ["cox"], True),
    ("method", "isAllOf", ["glm", "cox"], True),
    ("method", "isAllOf", ["cox"], False),
    ("minimumCell", "gteq", "5", True),
    ("minimumCell", "gteq", "10", False),
    ("minimumCell", "gt", "5", False),
    ("minimumCell", "lt", "10", True),
    ("minimumCell", "term-lteq", "5", True),
    ("minimumCell", "lteq", "4", False),
]


@pytest.mark.parametrize(("left", "operator", "right", "holds"), HOLDS)
def test_every_operator(left, operator, right, holds):
    decision = evaluate(allow(constraint(left, operator, right)), FACTS)
    assert isinstance(decision, Granted) == holds
    if isinstance(decision, Refused):
        assert left in decision.reasons[0]


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        (allow({"leftOperand": "https://example.org/unknown", "operator": "eq", "rightOperand": "x"}), "unknown"),
        (allow(constraint("purpose", "resembles", "x")), "'resembles' is unknown"),
        ({"permission": [{"action": "distribute"}]}, "'distribute' is unknown"),
        ({"permission": [{"action": "use", "duty": []}]}, "'duty' is unknown"),
        ({"permission": [{"action": "use"}], "extra": 1}, "'extra' is unknown"),
        ({"permission": [{"action": "use"}], "prohibition": [{"action": "use"}]}, "prohibition"),
        ({"permission": [{"action": "use"}], "prohibition": [{"action": "spy"}]}, "'spy' is unknown"),
        ({"permission": [{"action": "use"}], "obligation": [{"action": "pay"}]}, "'pay' is a duty"),
        ({}, "no permission"),
        (allow({"and": [], "or": [constraint("purpose", "eq", "x")]}), "one connective"),
        (allow({"and": []}), "one connective"),
        (allow({**constraint("purpose", "eq", "scientific_research"), "unit": "x"}), "'unit' is unknown"),
        (
            {
                "permission": [{"action": "use"}],
                "prohibition": [{"action": "use", "constraint": [constraint("legalRegime", "eq", "ehds")]}],
            },
            "prohibition",
        ),
        (allow(constraint("legalRegime", "eq", "ehds")), "nothing is known"),
        (allow({"and": [{"leftOperand": "nope", "operator": "eq", "rightOperand": "1"}]}), "'nope' is unknown"),
    ],
)
def test_what_is_unknown_denies_and_says_so(policy, word):
    decision = evaluate(policy, FACTS)
    assert isinstance(decision, Refused)
    assert any(word in r for r in decision.reasons), decision.reasons


@pytest.mark.parametrize(("logic", "holds"), [("and", False), ("or", True), ("xone", True), ("andSequence", False)])
def test_connectives(logic, holds):
    both = [constraint("purpose", "eq", "scientific_research"), constraint("minimumCell", "gteq", "10")]
    assert isinstance(evaluate(allow({logic: both}), FACTS), Granted) == holds


# -- applications ----------------------------------------------------------------------------------


def make_application(**changes) -> Application:
    values = {
        "id": ApplicationId.new(),
        "applicant": Did("did:web:user"),
        "applicant_country": "LU",
        "public_body": False,
        "title": "t",
        "purpose": "scientific_research",
        "intended_use": "u",
        "benefit": "b",
        "datasets": ((Did("did:web:h"), "d"),),
        "variables": ("age",),
        "methods": ("cox",),
        "persons": ("P",),
        "legal_basis": "GDPR 6(1)(e)",
        "ethics": "CNER",
        "safeguards": "s",
        "period_months": 12,
        "submitted_at": now(),
    }
    return Application(**{**values, **changes})


#: Chapter IV of the EHDS applies.
PERMITS = date(2029, 3, 26)


def test_no_permit_of_the_ehds_is_issued_before_its_chapter_applies():
    decision = screen(make_application(), "ehds", PERMITS - timedelta(days=1))
    assert isinstance(decision, Refused)
    assert "EHDS 105" in decision.reasons[0]
    assert isinstance(screen(make_application(), "contract", PERMITS - timedelta(days=1)), Granted)


def test_a_complete_application_passes_the_screen():
    assert isinstance(screen(make_application(), "ehds", PERMITS), Granted)


@pytest.mark.parametrize(
    ("change", "regime", "code"),
    [
        ({"purpose": "marketing"}, "contract", "R-53-PURPOSE"),
        ({"purpose": "statistics"}, "contract", "R-53-2-RESERVED"),
        ({"applicant_country": "KR"}, "ehds", "R-91-THIRD-COUNTRY"),
        ({"period_months": 121}, "contract", "EHDS 68(12)"),
        ({"ethics": ""}, "contract", "R-67-INCOMPLETE EHDS 67(2)(j)"),
        ({"persons": ()}, "contract", "R-67-INCOMPLETE"),
    ],
)
def test_the_screen_cites_the_rule(change, regime, code):
    decision = screen(make_application(**change), regime, PERMITS)
    assert isinstance(decision, Refused)
    assert any(code in r for r in decision.reasons)


def test_an_application_survives_its_json_form_and_unknown_fields_are_named():
    made = make_application()
    assert Application.from_dict(made.to_dict()) == made
    with pytest.raises(BadInput, match="extra"):
        Application.from_dict({**made.to_dict(), "extra": 1})
