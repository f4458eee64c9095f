"""Private twins: one person moves no sum by more than is declared, and intervals hold what they say."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ihds.analysis.method import leaves
from ihds.analysis.noisy import twins
from ihds.analysis.plan import Plan, PlanState
from ihds.canonical import pack, unpack
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput, Collinear, Refused
from ihds.privacy.disclosure import Thresholds

SITES = 3
BOOK = Codebook.from_dict(
    {
        "name": "invented",
        "person": "id",
        "variables": [
            {"name": "id", "kind": "identifier"},
            {"name": "age", "kind": "number", "minimum": 0, "maximum": 100},
            {"name": "pressure", "kind": "number", "minimum": 60, "maximum": 220},
            {"name": "relapse", "kind": "number", "minimum": 0, "maximum": 1},
            {"name": "sex", "kind": "category", "levels": ["m", "w"]},
            {"name": "stage", "kind": "category", "levels": ["I", "II", "III"]},
            *({"name": f"rs{i}", "kind": "number", "minimum": 0, "maximum": 2} for i in range(3)),
            {"name": "unbounded", "kind": "number"},
        ],
    }
)
QUESTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("describe", {"variables": ("age", "pressure", "sex", "stage")}),
    ("histogram", {"formula": "~ age + pressure", "by": "sex"}),
    ("histogram", {"formula": "~ age", "breaks": (0.0, 50.0, 70.0, 100.0)}),
    ("contingency", {"formula": "~ sex + stage"}),
    ("genotype_qc", {"features": "rs*"}),
    ("glm", {"formula": "pressure ~ age + sex"}),
    ("glm", {"formula": "relapse ~ age + sex", "family": "binomial"}),
)


def plan(method: str, params: dict[str, Any], **privacy: Any) -> Plan:
    return Plan(method, {**params, "privacy": {"epsilon": 1, **privacy}}, BOOK, Thresholds(), SITES)


def people(count: int, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": np.arange(count),
            "age": rng.normal(60, 10, count),
            "sex": rng.choice(["m", "w"], count),
            "stage": rng.choice(["I", "II", "III"], count),
            "unbounded": rng.normal(0, 1, count),
            **{f"rs{i}": rng.binomial(2, 0.3, count).astype(float) for i in range(3)},
        }
    )
    frame["pressure"] = 100 + 0.5 * frame["age"] + 5 * (frame["sex"] == "w") + rng.normal(0, 12, count)
    odds = 0.04 * (frame["age"] - 60) + 0.5 * (frame["sex"] == "w") - 0.5
    frame["relapse"] = (rng.random(count) < 1 / (1 + np.exp(-odds))).astype(float)
    return frame


_WILD = st.one_of(st.floats(-1e9, 1e9), st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1.0, 2.0, 100.0]))
_ROW = st.tuples(
    st.integers(0, 3),
    _WILD,
    _WILD,
    _WILD,
    st.sampled_from(["m", "w", None]),
    st.sampled_from(["I", "III", None]),
    _WILD,
)


def _frame(rows: list[Any]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["id", "age", "pressure", "relapse", "sex", "stage", "rs0"])
    for name in ("sex", "stage"):
        frame[name] = frame[name].astype(object)
    return frame.assign(rs1=1.0, rs2=frame["age"], unbounded=0.0)


def _words(of: Plan, state: PlanState, frame: pd.DataFrame) -> list[int]:
    with np.errstate(all="ignore"):
        words = of.flatten(state, of.work(frame).local(state))[1]
    return [int(w) for w in words.view(np.int64)]


@pytest.mark.parametrize(("method", "params"), QUESTIONS)
@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(_ROW, min_size=1, max_size=12), most=st.integers(1, 3), beta=st.lists(_WILD, min_size=3, max_size=3)
)
def test_no_person_moves_a_sum_by_more_than_declared(
    method: str, params: dict[str, Any], rows: list[Any], most: int, beta: list[float]
) -> None:
    """Brute force: every neighbour that lacks one person, in exact whole numbers, from any state a user may send."""
    of = plan(method, params, rows_per_person=most)
    state, frame = of.begin(), _frame(rows)
    if method == "glm":
        inner = of.inner(state)
        inner = type(inner)(np.array(beta), inner.step, inner.information, None)
        state = PlanState(state.agreement, np.frombuffer(pack(inner), dtype=np.uint8), 0)
        assert unpack(of.chosen.STATE, state.inner.tobytes()) is not None
    moved = of.chosen.moved(of.params, of.agreement.ask, state.agreement.frame)
    noise = of.noise(state)
    assert noise is not None
    whole = _words(of, state, frame)
    assert whole[-1] == 0, "no site may say that it is out of range"
    for person in set(frame["id"]):
        without = _words(of, state, frame[frame["id"] != person].reset_index(drop=True))
        at = 0
        for (name, move), (size, scale) in zip(moved.items(), noise.shares.parts, strict=False):
            apart = sum((a - b) ** 2 for a, b in zip(whole[at : at + size], without[at : at + size], strict=True))
            allowed = 2 * noise.shares.rho * _part(moved, name) * (SITES - of.wanted.colluding) * Fraction(scale) ** 2
            assert apart <= allowed, name
            assert apart == 0 or move.squared
            at += size
        assert at == len(whole) - 1


def _part(moved: dict[str, Any], name: str) -> Fraction:
    """Return the part of a round's rho that a field takes."""
    return moved[name].weight / sum(m.weight for m in moved.values() if m.squared)


@pytest.mark.parametrize(("method", "params"), QUESTIONS)
def test_sums_are_exact_in_any_order(method: str, params: dict[str, Any]) -> None:
    """Else rounding would move a sum by more than a person does (Casacuberta et al. 2022)."""
    of, frame = plan(method, params), people(3000)
    state = of.begin()
    shuffled = frame.sample(frac=1.0, random_state=1).reset_index(drop=True)
    assert _words(of, state, frame) == _words(of, state, shuffled)
    assert set(leaves(of.chosen.CONTRIBUTIONS[0])) == set(
        of.chosen.moved(of.params, of.agreement.ask, state.agreement.frame)
    )


def released(of: Plan, frame: pd.DataFrame, seed: int) -> Any:
    """Run a study in the clear, with noise of the right size drawn from a seed."""
    rng, state, work = np.random.default_rng(seed), of.begin(), of.work(frame)
    while (result := of.finish(state)) is None:
        noise = of.noise(state)
        assert noise is not None
        total = work.local(state)
        blurred = {
            name: np.asarray(getattr(total, name)) + rng.normal(0, noise.sd[name], np.shape(getattr(total, name)))
            for name in leaves(type(total))
        }
        state = of.aggregate(state, type(total)(**blurred))
    return result


def test_intervals_count_noise_and_sampling() -> None:
    """Each 95 % interval holds the truth in about 38 of 40 new samples with new noise; fewer than 34 would be wrong."""
    inside = np.zeros(3)
    for seed in range(40):
        frame = people(12_000, seed + 10)
        row = released(plan("describe", {"variables": ("age",)}), frame, seed).table[0]
        linear = released(plan("glm", dict(QUESTIONS[5][1])), frame, seed).coefficients[1]
        logistic = released(plan("glm", dict(QUESTIONS[6][1])), frame, seed).coefficients[1]
        for i, (found, truth) in enumerate(((row, 60.0), (linear, 0.5), (logistic, 0.04))):
            low, high = (found["lower"], found["upper"]) if isinstance(found, dict) else (found.lower, found.upper)
            inside[i] += low <= truth <= high
    assert (inside >= 34).all(), inside


def test_a_noisy_table_tests_independence_at_its_level() -> None:
    """Independent categories are found dependent at 5 % about 5 times in 100, dependent ones nearly always."""
    of = plan("contingency", {"formula": "~ sex + stage"})
    p = [released(of, people(1500, seed), seed).tests[0].p for seed in range(60)]
    assert np.mean(np.array(p) < 0.05) <= 0.2
    frame = people(1500)
    frame["stage"] = np.where(frame["sex"] == "m", "I", frame["stage"])
    assert released(of, frame, 1).tests[0].p < 0.001


def test_counts_and_frequencies_are_near_the_truth() -> None:
    frame = people(20_000)
    found = released(plan("genotype_qc", {"features": "rs*"}), frame, 1).details["features"]
    assert np.allclose(found["frequency"], frame[["rs0", "rs1", "rs2"]].mean() / 2, atol=6 * max(found["noise_se"]))
    bins = released(plan("histogram", {"formula": "~ age"}), frame, 1).details["histograms"][0]
    truth = np.histogram(frame["age"].clip(0, 100), bins["edges"])[0]
    assert np.abs(np.array(bins["counts"]) - truth).max() < 6 * bins["noise_se"]


def test_every_twin_is_of_a_method_and_says_from_when_it_is_useful() -> None:
    asked = {method for method, _ in QUESTIONS}
    assert asked == set(twins())
    for method, params in QUESTIONS:
        few, many = plan(method, params, epsilon=4), plan(method, params, epsilon="0.25")
        assert 0 < few.least() < many.least()


def test_what_nobody_has_bounded_is_refused_by_name() -> None:
    with pytest.raises(Refused) as refused:
        plan("cox", {"formula": "Surv(age, relapse) ~ sex"})
    assert "risk sets" in refused.value.reasons[0]
    with pytest.raises(BadInput, match="no bounds"):
        plan("describe", {"variables": ("unbounded",)}).begin()
    plan("describe", {"variables": ("unbounded",)}, bounds={"unbounded": [-3, 3]}).begin()
    with pytest.raises(BadFormula, match="more than variables"):
        plan("glm", {"formula": "pressure ~ log(age)"}).begin()
    with pytest.raises(BadFormula, match="linear or logistic"):
        plan("glm", {"formula": "relapse ~ age", "family": "poisson"})
    with pytest.raises(Collinear, match="noise hides"):
        released(plan("glm", dict(QUESTIONS[5][1])), people(30), 1)


@pytest.mark.parametrize(
    "privacy",
    [
        "epsilon",
        "epsilon=1,speed=3",
        {"epsilon": 1, "colluding": 3},
        {"epsilon": 1, "colluding": 0.5},
        {"epsilon": 1, "rows_per_person": 0},
        {"epsilon": 1, "bounds": {"age": [3, 1]}},
        {"epsilon": 1, "bounds": {"age": 3}},
        {"epsilon": 1, "bounds": 3},
        3,
    ],
)
def test_what_is_no_wish_for_privacy_is_refused(privacy: Any) -> None:
    with pytest.raises(BadInput):
        Plan("describe", {"privacy": privacy}, BOOK, Thresholds(), SITES)


def test_a_result_says_what_it_cost_and_what_that_means() -> None:
    result = released(plan("describe", {"variables": ("age", "sex")}), people(2000), 1)
    told, text = result.details["privacy"], result.summary()
    assert told["epsilon"] == "1"
    assert "2.72 times as likely" in told["meaning"]
    assert told["meaning"] in text
    assert "standard deviation of the noise" in text
    assert "95 % " in text
