"""ODRL policies: every operator and connective, unknown terms deny, faults are found when written, words explain."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihds.cli import main
from ihds.errors import IhdsError
from ihds.governance.policy import (
    VOCABULARY,
    Granted,
    Refused,
    constraint,
    evaluate,
    explain,
    validate,
    vocabulary,
)
from ihds.roles.config import DatasetConfig
from ihds.roles.offers import offer

FACTS = {
    "purpose": "scientific_research",
    "method": ("cox", "glm"),
    "minimumCell": "10",
    "recipientCountry": "LU",
    "membership": "member",
}


def rule(*constraints, action="use"):
    return {"permission": [{"action": action, "constraint": list(constraints)}]}


@pytest.mark.parametrize(
    ("left", "operator", "right", "holds"),
    [
        ("purpose", "eq", "scientific_research", True),
        ("purpose", "eq", "education", False),
        ("purpose", "neq", "education", True),
        ("minimumCell", "gt", "9", True),
        ("minimumCell", "gt", "10", False),
        ("minimumCell", "gteq", "10", True),
        ("minimumCell", "lt", "9", False),
        ("minimumCell", "lteq", "10", True),
        ("minimumCell", "term-lteq", "10", True),
        ("method", "hasPart", "cox", True),
        ("method", "hasPart", "describe", False),
        ("method", "isPartOf", ["cox", "glm", "describe"], True),
        ("method", "isPartOf", ["cox"], False),
        ("purpose", "isA", "scientific_research", True),
        ("purpose", "isA", "education", False),
        ("method", "isAllOf", ["glm", "cox"], True),
        ("method", "isAllOf", ["cox"], False),
        ("method", "isAnyOf", ["cox", "describe"], True),
        ("recipientCountry", "isAnyOf", ["KR", "US"], False),
        ("recipientCountry", "isNoneOf", ["CN", "RU"], True),
        ("recipientCountry", "isNoneOf", ["LU"], False),
    ],
)
def test_all_thirteen_operators(left, operator, right, holds):
    verdict = evaluate(rule(constraint(left, operator, right)), FACTS)
    assert isinstance(verdict, Granted) is holds
    assert validate(rule(constraint(left, operator, right))) == []


YES, NO = constraint("purpose", "eq", "scientific_research"), constraint("purpose", "eq", "education")


@pytest.mark.parametrize(
    ("connective", "parts", "holds"),
    [
        ("and", [YES, YES], True),
        ("and", [YES, NO], False),
        ("andSequence", [YES, YES], True),
        ("andSequence", [NO, YES], False),
        ("or", [NO, YES], True),
        ("or", [NO, NO], False),
        ("xone", [NO, YES], True),
        ("xone", [YES, YES], False),
        ("or", [NO, {"and": [YES, {"xone": [YES, NO]}]}], True),
    ],
)
def test_connectives_nest(connective, parts, holds):
    assert isinstance(evaluate(rule({connective: parts}), FACTS), Granted) is holds


def test_a_prohibition_wins_and_an_unknown_fact_keeps_it_in_force():
    policy = {**rule(YES), "prohibition": [{"action": "use", "constraint": [constraint("epsilon", "gt", "1")]}]}
    assert isinstance(evaluate(policy, FACTS), Refused)
    assert isinstance(evaluate(policy, {**FACTS, "epsilon": "0.5"}), Granted)
    assert isinstance(evaluate(policy, {**FACTS, "epsilon": "2"}), Refused)
    nested = {
        **rule(YES),
        "prohibition": [{"action": "use", "constraint": [{"and": [constraint("epsilon", "gt", "1")]}]}],
    }
    assert isinstance(evaluate(nested, FACTS), Refused)


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        ({}, "no permission"),
        ({"permission": []}, "no permission"),
        ({"permission": "all"}, "must be a list"),
        ({"permission": ["all"]}, "must be an object"),
        ({**rule(), "licence": "x"}, "'licence' is unknown"),
        (rule(action="distribute"), "'distribute' is unknown"),
        (rule({**YES, "unit": "days"}), "'unit' is unknown"),
        (rule(constraint("spatial", "eq", "EU")), "'https://w3id.org/ihds/policy#spatial' is unknown"),
        (rule({**YES, "operator": "like"}), "operator 'like' is unknown"),
        (rule({**YES, "rightOperand": 5}), "must be text"),
        (rule(constraint("minimumCell", "gteq", "five")), "'five' is not a number"),
        (rule({"and": []}), "not one connective"),
        (rule({"and": [YES], "or": [NO]}), "not one connective"),
        ({**rule(), "obligation": [{"action": "delete"}]}, "cannot discharge"),
    ],
)
def test_faults_are_found_when_a_policy_is_written_and_would_deny(policy, word, tmp_path):
    assert any(word in problem for problem in validate(policy)), validate(policy)
    (tmp_path / "p.json").write_text(json.dumps(policy))
    with pytest.raises(IhdsError, match="cannot be offered"):
        offer(DatasetConfig("d", "D", policy="p.json"), tmp_path)
    assert main(["policy", "check", str(tmp_path / "p.json")]) == 10


def test_a_holder_offers_the_rules_it_wrote(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(rule(YES)))
    made = offer(DatasetConfig("d", "D", policy="p.json"), tmp_path)
    assert made == {"@id": "d:offer", "@type": "Offer", **rule(YES)}
    with pytest.raises(IhdsError, match="p.json"):
        offer(DatasetConfig("d", "D", policy="missing-p.json"), tmp_path)


def test_an_explanation_says_what_holds_what_is_known_and_what_is_missing(tmp_path, capsys):
    policy = rule(YES, constraint("epsilon", "lteq", "1"), {"or": [NO, YES]})
    verdict, lines = explain(policy, FACTS)
    assert isinstance(verdict, Refused)
    told = {line.text.split("   ")[0]: (line.holds, line.known) for line in lines}
    assert told["purpose eq scientific_research"] == (True, "it is scientific_research")
    assert told["epsilon lteq 1"] == (False, "nothing is known of it")
    assert told["any of"] == (True, "")
    (tmp_path / "p.json").write_text(json.dumps(policy))
    call = ["policy", "explain", "--offer", str(tmp_path / "p.json"), "--fact", "purpose=scientific_research"]
    assert main(call) == 12
    said = capsys.readouterr().out
    assert "REFUSED" in said
    assert "- epsilon lteq 1" in said
    assert main([*call, "--fact", "epsilon=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["granted"] is True
    assert main([*call, "--fact", "colour=red"]) == 10


def test_the_vocabulary_is_published_whole():
    told = {entry["skos:notation"]: entry["skos:definition"]["@value"] for entry in vocabulary()["terms"]}
    assert told == VOCABULARY


TEXT = st.sampled_from([*VOCABULARY, "spatial", "", "LU", "5"])
ATOM = st.builds(
    lambda left, op, right: {"leftOperand": left, "operator": op, "rightOperand": right},
    TEXT,
    st.sampled_from(["eq", "neq", "lt", "gteq", "isAnyOf", "hasPart", "like"]),
    st.one_of(TEXT, st.lists(TEXT), st.integers(), st.none()),
)
NESTED = st.recursive(
    ATOM, lambda inner: st.builds(lambda n, p: {n: p}, st.sampled_from(["and", "or", "xone"]), st.lists(inner))
)
RULE = st.fixed_dictionaries({"action": st.sampled_from(["use", "delete"]), "constraint": st.lists(NESTED, max_size=3)})


@given(
    policy=st.fixed_dictionaries({}, optional={"permission": st.lists(RULE), "prohibition": st.lists(RULE)}),
    facts=st.dictionaries(st.sampled_from(list(VOCABULARY)), st.one_of(TEXT, st.lists(TEXT).map(tuple))),
)
def test_any_policy_is_judged_never_by_accident_and_explained_alike(policy, facts):
    verdict, _ = explain(policy, facts)
    assert type(verdict) is type(evaluate(policy, facts))
    if isinstance(verdict, Granted):
        unknown = [p for p in validate(policy) if "unknown" in p and p.startswith("prohibition")]
        assert unknown == []
