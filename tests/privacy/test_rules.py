"""Rules by class of output: none without rules leaves, every field of a result has one class, and the last look."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, ClassVar

import numpy as np
import pytest

from ihds.analysis import agree, release
from ihds.analysis.method import Contribution, Leaves, leaves, methods, sendable
from ihds.analysis.plan import Plan, run
from ihds.analysis.result import Curve, Result, Test
from ihds.errors import BadInput, IhdsError, Refused
from ihds.governance.jurisdiction import jurisdictions
from ihds.privacy import rules
from ihds.privacy.disclosure import Thresholds
from tests.analysis.test_laws import BOOK, CASES, make_rows
from tests.federation.test_gate import World

STRICT = Thresholds(min_difference=0)


def test_every_contribution_of_every_method_is_of_a_class_with_rules_and_holds_declared_numbers():
    sent = {c for m in methods().values() for c in m.CONTRIBUTIONS} | set(agree.CONTRIBUTIONS)
    assert {c.kind for c in sent} <= set(rules.CLASSES)
    assert all(rules.rules_of(c.kind) and leaves(c) for c in sent)


def test_every_class_has_rules_and_every_threshold_is_in_one():
    assert all(rules.rules_of(name) for name in rules.CLASSES)
    assert rules.unused() == frozenset()
    assert rules.class_reasons("row") != ()
    assert set(release.FIELDS.values()) <= {*rules.CLASSES, rules.PUBLIC}


@pytest.mark.parametrize("name", sorted(methods()))
def test_every_field_of_every_method_has_a_class(name):
    rows = make_rows(3, 80)
    for call in (c for n, c in CASES if n == name):
        try:
            result = run(Plan(name, call, BOOK, Thresholds.none(), 5), [rows.iloc[i::5] for i in range(5)])
        except IhdsError as error:
            assert "no class of output" not in str(error)  # noqa: PT017 - others are the method's own
            continue
        body = {k: v for k, v in result.to_dict().items() if k != "provenance"}
        assert {path for path, _ in release.leaves_of(body) if not release.class_of(path)} == set()


@dataclass(frozen=True, slots=True)
class Residuals(Contribution):
    """Something that no class is named for."""

    kind: ClassVar[str] = "row"

    values: Annotated[np.ndarray, Leaves("(n,)", "residuals")]


@dataclass(frozen=True, slots=True)
class Names(Contribution):
    """A text."""

    kind: ClassVar[str] = "count table"

    text: Annotated[str, Leaves("()", "text")]


def test_what_is_of_no_class_or_no_number_does_not_leave_the_gate(monkeypatch):
    assert "no rules" in sendable(Residuals(np.zeros(3)))[0]
    assert "something else" in sendable(Names("Jo Doe"))[0]
    world = World()
    study = world.study()
    world.begin(study)
    monkeypatch.setattr(agree.Dictionary, "kind", "row")
    with pytest.raises(Refused, match="no rules against disclosure"):
        world.sum(study, study.plan().begin())


def told(**changes) -> Result:
    return replace(Result(method="describe", n=60), **changes)


def curve(**changes) -> Curve:
    one = (30, 20), (6, 0), (0.8, 0.8), (0.1, 0.1), (0.7, 0.7), (0.9, 0.9)
    return replace(Curve("all", (1.0, 2.0), *one, 1.0, 1.0, 0.1, 2.0), **changes)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"n": 4}, "cell: n"),
        ({"events": 3}, "cell: events"),
        ({"details": {"residuals": [0.1, -0.2]}}, "details.residuals is of no class"),
        ({"table": ({"variable": "age", "maximum": 99.0},)}, "table.maximum is of no class"),
        ({"details": {"rows": [{"variable": "a", "largest": 99.5}]}}, "details.rows.largest is of no class"),
        ({"details": {"reference": "patient 4711"}}, "the text of details.reference"),
        ({"details": {"warning": "x" * 500}}, "the text of details.warning"),
        ({"table": ({"variable": "arm", "n": 60, "counts": {"a": 40, "b": None, "c": 17}},)}, "secondary"),
        ({"details": {"counts": [[[30, None], [16, 12]]]}}, "secondary"),
        ({"details": {"counts": [[[30, None], [None, 12]]]}}, ""),
        ({"curves": (curve(events=(6, 1)),)}, "cell: curves.events"),
        ({"covariance": tuple((0.0,) * 21 for _ in range(21))}, "parameters_per_row"),
        ({"details": {"persons": [40, 20], "rows": [{"variable": "arm", "counts": [[20, 8], None, None]}]}}, ""),
        (
            {"details": {"persons": [40, 20], "rows": [{"variable": "arm", "counts": [[38, 12], None, None]}]}},
            "secondary",
        ),
    ],
)
def test_the_last_look_finds_what_a_method_left(changes, rule):
    reasons = "; ".join(release.broken(told(**changes), STRICT, BOOK, {}))
    assert rule in reasons
    assert bool(rule) == bool(reasons)
    if rule:
        with pytest.raises(Refused):
            release.released(told(**changes), STRICT, BOOK, {})


def test_a_method_that_forgets_to_hide_does_not_get_its_result_out(monkeypatch):
    rows = make_rows(1, 120)
    rows["arm"] = ["a"] * 100 + ["b"] * 17 + ["c"] * 3
    rows = rows.sample(frac=1, random_state=1)
    parts = [rows.iloc[i::3] for i in range(3)]
    plan = Plan("describe", {"variables": ("arm",)}, BOOK, STRICT, 3)
    assert run(plan, parts).table[0]["counts"] == {"a": 100, "b": None, "c": None}
    monkeypatch.setattr(methods()["describe"], "suppress", lambda _counts, _least: [100, 17, 3])
    with pytest.raises(Refused, match="cell: table.counts"):
        run(plan, parts)


def test_terms_weighted_events_and_numbers_of_clusters_are_no_counts():
    fine = told(
        details={"term": "ns(age, df=4)[3]", "clusters": 4, "groups": 4},
        tests=(Test("log-rank", 3.0, 1.0, 0.1, ({"group": "arm=a", "observed": 3.5, "expected": 2.5},)),),
    )
    assert release.broken(fine, STRICT, BOOK, {}) == ()
    few = replace(fine, tests=(Test("log-rank", 3.0, 1.0, 0.1, ({"group": "arm=a", "observed": 3.0},)),))
    assert release.broken(few, STRICT, BOOK, {}) == ("cell: tests.details.observed tells of fewer than 5",)


def test_a_method_of_another_package_names_its_own_fields():
    result = told(details={"slope_of_ours": 1.5})
    assert release.broken(result, STRICT, BOOK, {}) != ()
    assert release.broken(result, STRICT, BOOK, {}, {"details.slope_of_ours": rules.MOMENTS}) == ()


def test_the_holders_own_thresholds_hold_beside_those_of_permit_and_law():
    world = World()
    own = Thresholds.of({"min_cell": 12, "dominance_share": 0.5})
    world.gates["lu"].own = {"table": own}
    with pytest.raises(Refused) as caught:
        world.open(world.study())
    assert "min_cell=12" in "".join(caught.value.reasons)
    world.begin(world.study(thresholds=Thresholds().strictest(own)))


def test_a_state_that_names_other_thresholds_than_the_study_is_refused():
    world = World()
    study = world.study()
    world.begin(study)
    state = study.plan().begin()
    loose = replace(state.agreement.frame, limits=Thresholds.floor())
    with pytest.raises(Refused, match="names others"):
        world.sum(study, replace(state, agreement=replace(state.agreement, frame=loose)))


def test_thresholds_are_read_as_people_write_them_and_the_strictest_wins():
    one = Thresholds.of({"min_cell": 8, "p_percent": 20, "hide_full": True})
    assert (one.min_cell, one.p_percent, one.hide_full, one.min_holders) == (8, 20.0, True, 2)
    both = one.strictest(Thresholds(dominance_k=3, dominance_share=0.7))
    assert (both.min_cell, both.dominance_k, both.dominance_share, both.hide_full) == (8, 3, 0.7, True)
    for wrong in ({"min_cel": 3}, {"min_cell": "many"}, {"min_cell": True}, {"hide_full": 1}, {"min_cell": 2.5}):
        with pytest.raises(BadInput):
            Thresholds.of(wrong)
    for wrong in ({"dominance_share": 1.5}, {"dominance_k": -1}, {"p_percent": -1.0}):
        with pytest.raises(BadInput):
            Thresholds(**wrong)


def test_limits_of_law_are_rules_with_article_and_source():
    for law in jurisdictions().values():
        assert all(limit.article and limit.source and limit.text and limit.since for limit in law.LIMITS)
        strict = Thresholds.floor()
        assert all(getattr(law.LIMITS[0].thresholds, f.name) == getattr(strict, f.name) for f in fields(Thresholds))
