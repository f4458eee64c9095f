from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.concordance import has_pair, pairs_of
from ihds.analysis.method import methods
from ihds.analysis.plan import Plan
from ihds.canonical import pack
from ihds.data.codebook import agree
from ihds.data.table import conform, draft_codebook
from ihds.errors import BadFormula, BadInput, BadMessage, ConstantColumn, Refused
from ihds.privacy.disclosure import Thresholds
from tests.conftest import federate, pbc, reference, split

NAMES = ["age", "albumin", "copper", "protime", "ast", "platelet"]
RIGHT = " + ".join([*NAMES, "log(bili)"])
LEFT = {"cox": "Surv(time, status == 2)", "binomial": "I(status == 2)"}


def complete(shared) -> list[pd.DataFrame]:
    return split(pbc(shared).dropna(subset=NAMES).reset_index(drop=True), 3)


def made(seed: int = 0, n: int = 150, sites: int = 3) -> list[pd.DataFrame]:
    """Return sites of invented persons: a time, an event, a number and seven columns."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(0, 1, (n, 7)), columns=[f"g{j}" for j in range(7)])
    score = frame["g0"] - 0.7 * frame["g1"]
    frame["y"] = score + rng.normal(0, 1, n)
    frame["time"] = np.ceil(20 * rng.exponential(1 / np.exp(score)))
    frame["event"] = (rng.random(n) < 0.7).astype(float)
    return split(frame, sites)


GENES = " + ".join(f"g{j}" for j in range(7))
COX = f"Surv(time, event) ~ {GENES}"


def told(result) -> dict[str, dict]:
    return {next(iter(t.details[0])): t.details[0] for t in result.tests}


def assert_like(result, r, *, loss: float, line: float):
    assert np.allclose(result.details["loss_mean"], r["loss_mean"], rtol=loss)
    assert np.isclose(result.details["loss_out_of_site"], r["loss_out_of_site"], rtol=loss)
    found = told(result)
    assert np.isclose(found["concordance"]["concordance"], r["concordance"], rtol=line)
    assert np.isclose(found["concordance"]["se"], r["concordance_se"], rtol=10 * line)
    assert np.isclose(found["calibration_slope"]["calibration_slope"], r["slope"], rtol=line)
    assert np.isclose(found["calibration_slope"]["se"], r["slope_se"], rtol=10 * line)


@pytest.mark.parametrize("family", ["cox", "binomial"])
def test_a_step_from_the_fit_of_all_is_what_r_makes_of_the_others_sums(shared, family):
    r = reference("validate_panel")
    result = federate(
        complete(shared),
        "validate_panel",
        formula=f"{LEFT[family]} ~ {RIGHT}",
        family=family,
        alpha=0.0,
        lambdas=tuple(r["lambda"]),
    )
    assert result.n == r["n"]
    assert_like(result, r[family]["step"], loss=1e-9, line=1e-7)


def test_for_numbers_it_is_exactly_the_fit_of_the_others(shared):
    r = reference("validate_panel")
    formula = f"log(bili) ~ {' + '.join(NAMES)}"
    result = federate(
        complete(shared), "validate_panel", formula=formula, family="gaussian", lambdas=tuple(r["lambda"])
    )
    assert_like(result, r["gaussian"]["lasso"], loss=1e-8, line=1e-8)


@pytest.mark.parametrize("family", ["cox", "binomial"])
@pytest.mark.parametrize(("alpha", "kind"), [(0.0, "ridge"), (1.0, "lasso")])
def test_one_step_is_near_the_others_own_fit(shared, family, alpha, kind):
    r = reference("validate_panel")
    result = federate(
        complete(shared),
        "validate_panel",
        formula=f"{LEFT[family]} ~ {RIGHT}",
        family=family,
        alpha=alpha,
        lambdas=tuple(r["lambda"]),
    )
    assert np.allclose(result.details["loss_mean"], r[family][kind]["loss_mean"], rtol=5e-3)
    assert abs(told(result)["concordance"]["concordance"] - r[family][kind]["concordance"]) < 3e-3


@pytest.mark.parametrize(("alpha", "family"), [(1.0, "gaussian"), (0.0, "cox"), (1.0, "binomial")])
def test_the_panel_is_the_fit_of_all_sites(alpha, family):
    parts = made()
    whole = federate(
        parts,
        "validate_panel",
        formula={"cox": COX, "gaussian": f"y ~ {GENES}", "binomial": f"event ~ {GENES}"}[family],
        family=family,
        alpha=alpha,
    )
    if family == "cox":
        assert whole.details["terms_left"][-1] == 7
        return
    outcome = "y" if family == "gaussian" else "event"
    plain = federate(
        parts,
        "elastic_net",
        formula=f"{outcome} ~ {GENES}",
        family=family,
        alpha=alpha,
        lambdas=tuple(whole.details["lambda"]),
        folds=0,
    )
    assert np.allclose(whole.details["path"], plain.details["path"], rtol=1e-6, atol=1e-9)


def test_pairs_are_counted_as_harrell_does():
    stop, event = np.array([1.0, 2.0, 2.0, 3.0]), np.array([True, True, False, True])
    score = np.array([2.0, 0.5, 0.5, 3.0])
    assert has_pair(stop, event)
    assert not has_pair(stop, np.zeros(4, dtype=bool))
    assert not has_pair(stop, stop == 3)
    won, all_ = pairs_of(stop, event, score).sum(axis=0) / 2
    assert (won, all_) == (2.5, 5)  # 1 before 2, 2, 3; 2 before the one censored then (scores alike) and 3


# -- what must not leave, and who may ask --------------------------------------------------------------


def open_study(parts: list[pd.DataFrame], until: str, **params):
    """Return the plan, the works and the state before the first round of a phase."""
    codebook = agree({"all": draft_codebook("test", pd.concat(parts, ignore_index=True))})
    plan = Plan("validate_panel", params, codebook, Thresholds.none(), len(parts))
    works = [plan.work(conform(p, codebook, "a site")) for p in parts]
    state = plan.begin()
    while not (state.agreement.phase == "done" and plan.inner(state).phase == until):
        state = step(plan, works, state)
    return plan, works, state


def step(plan, works, state):
    answers = [work.local(state) for work in works]
    flat = [plan.flatten(state, a) for a in answers]
    words = np.sum([w for _, w in flat], axis=0, dtype=np.uint64)
    return plan.aggregate(state, plan.total(state, type(answers[0]).__name__, flat[0][0], words))


def altered(plan, state, **change):
    """Return the state as a modified coordinator may tell it."""
    inner = replace(plan.inner(state), **change)
    return replace(state, inner=np.frombuffer(pack(inner), dtype=np.uint8))


def test_a_sites_own_outcomes_have_no_say_in_the_fit_it_is_judged_by():
    parts = made()
    other = [parts[0].assign(y=parts[0]["y"] * -3 + 5), *parts[1:]]
    call = {"formula": f"y ~ {GENES}", "family": "gaussian", "lambdas": (0.1, 0.3), "alpha": 1.0}
    kept = []
    for tables in (parts, other):
        plan, works, state = open_study(tables, "held", **call)
        works[0].local(state)
        beta = works[0]._design[1][0].cache["others"][1][0]
        frame = state.agreement.frame
        found = beta @ frame.transform.T * plan.inner(state).unit
        found[:, 0] += frame.outcome_centre
        kept.append(found)
    assert np.allclose(kept[0], kept[1], rtol=1e-7, atol=1e-9)


def test_every_sum_that_is_opened_is_over_all_sites():
    """Of no phase does a site's contribution leave another site out: its state is one and the same for all."""
    plan, works, state = open_study(made(), "moments", formula=COX)
    while plan.finish(state) is None:
        fits = plan.inner(state).path
        if fits is not None and plan.inner(state).phase in ("first", "fits", "whole"):
            assert len(fits.beta) in (1, 12)  # one fit per penalty, none per site
        state = step(plan, works, state)


def test_two_sites_are_refused_by_the_coordinator_and_by_the_sites():
    with pytest.raises(Refused, match="too few to leave one out"):
        federate(made(sites=2), "validate_panel", formula=COX)
    plan, works, state = open_study(made(), "held", formula=COX)
    frame = replace(state.agreement.frame, sites=2)
    lied = replace(state, agreement=replace(state.agreement, frame=frame))
    with pytest.raises(Refused, match="too few to leave one out"):
        works[0].local(lied)


def test_so_few_columns_that_sites_could_be_solved_for_are_refused():
    with pytest.raises(Refused, match="unknown numbers"):
        federate(made(), "validate_panel", formula="Surv(time, event) ~ g0 + g1")
    with pytest.raises(Refused, match="unknown numbers"):
        federate(made(), "validate_panel", formula=COX, steps=100)


def test_an_outcome_at_two_sites_only_is_refused_before_anything_of_it_is_opened():
    parts = [part.assign(event=part["event"] * (i > 0)) for i, part in enumerate(made())]
    with pytest.raises(Refused, match="told apart"):
        federate(parts, "validate_panel", formula=COX)


def test_other_totals_later_are_refused():
    plan, works, state = open_study(made(), "held", formula=COX)
    works[0].local(state)
    inner = plan.inner(state)
    lied = replace(inner.whole, score=inner.whole.score + 1.0)
    with pytest.raises(BadMessage, match="others than before"):
        works[0].local(altered(plan, state, whole=lied))


def test_totals_without_this_sites_sums_are_refused():
    plan, works, state = open_study(made(), "held", formula=COX)
    inner = plan.inner(state)
    with pytest.raises(BadMessage, match="this site's sums"):
        works[0].local(altered(plan, state, whole=replace(inner.whole, information=inner.whole.information * 1e-3)))
    with pytest.raises(BadMessage, match="this site's rows"):
        works[1].local(altered(plan, state, columns=replace(inner.columns, rows=50.0)))


def test_more_penalties_than_the_study_has_are_refused():
    plan, works, state = open_study(made(), "held", formula=COX, steps=3)
    inner = plan.inner(state)
    path = replace(inner.path, lambdas=np.append(inner.path.lambdas, 1e-3))
    with pytest.raises(BadMessage, match="as many as"):
        works[0].local(altered(plan, state, path=path))


def test_the_penalty_is_chosen_once():
    plan, works, state = open_study(made(), "ranks", formula=COX)
    first = works[0].local(state)
    inner = plan.inner(state)
    loss = np.full(len(inner.held.loss), 1e9)
    loss[0] = 0.0  # the penalty under which no term is left
    assert works[0].local(altered(plan, state, held=replace(inner.held, loss=loss))) == first


def test_the_line_is_not_asked_for_again_and_again():
    plan, works, state = open_study(made(), "slope", formula=COX)
    slope = plan.inner(state).slope
    lines = [altered(plan, state, slope=replace(slope, at=slope.at + 0.1 * k)) for k in range(7)]
    for line in (*lines[:6], lines[0]):  # the same again is no new one
        works[0].local(line)
    with pytest.raises(BadMessage, match="more than 6 times"):
        works[0].local(lines[6])


# -- hard rows ----------------------------------------------------------------------------------------


def test_sites_of_one_row_of_none_and_without_events_take_part():
    a, b, c = made()
    parts = [a, b, c, made(seed=1)[0].assign(event=0.0), a.iloc[:1], a.iloc[:0]]
    result = federate(parts, "validate_panel", formula=COX)
    assert result.details["sites"] == 6
    assert told(result)["concordance"]["concordance"] > 0.6


def test_a_column_that_the_others_hold_constant_says_nothing_there():
    a, b, c = made()
    parts = [a, b.assign(g6=0.0), c.assign(g6=0.0)]
    result = federate(parts, "validate_panel", formula=COX)
    assert np.isfinite(told(result)["calibration_slope"]["calibration_slope"])


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize(("family", "formula"), [("cox", COX), ("gaussian", f"y ~ {GENES}")])
def test_units_do_not_matter(scale, family, formula):
    plain = federate(made(), "validate_panel", formula=formula, family=family)
    scaled = federate([p.assign(g0=p["g0"] * scale) for p in made()], "validate_panel", formula=formula, family=family)
    assert np.allclose(plain.details["loss_mean"], scaled.details["loss_mean"], rtol=1e-6)
    assert np.isclose(told(plain)["concordance"]["concordance"], told(scaled)["concordance"]["concordance"], rtol=1e-6)


def test_a_perfect_panel_has_a_concordance_and_no_slope():
    parts = [p.assign(out=(p["g0"] > 0).astype(float), g0=np.sign(p["g0"]) + 0.01 * p["g0"]) for p in made(n=240)]
    result = federate(parts, "validate_panel", formula=f"out ~ {GENES}", family="binomial")
    assert told(result)["concordance"]["concordance"] > 0.999
    assert "calibration_slope" not in told(result)


def test_nothing_that_predicts_gives_one_half():
    rng = np.random.default_rng(3)
    parts = [p.assign(out=(rng.random(len(p)) < 0.5).astype(float)) for p in made(n=240)]
    result = federate(parts, "validate_panel", formula=f"out ~ {GENES}", family="binomial", lambdas=(5.0, 6.0))
    assert told(result) == {"concordance": told(result)["concordance"]}
    assert told(result)["concordance"]["concordance"] == 0.5


def test_what_cannot_be_asked_is_told():
    parts = [p.assign(start=0.0, z=1.0) for p in made()]
    with pytest.raises(BadFormula, match="late entries"):
        federate(parts, "validate_panel", formula=f"Surv(start, time, event) ~ {GENES}")
    with pytest.raises(BadFormula, match="no covariate"):
        federate(parts, "validate_panel", formula="y ~ 1", family="gaussian")
    with pytest.raises(ConstantColumn):
        federate(parts, "validate_panel", formula=COX + " + z")
    for wrong in ({"alpha": 2.0}, {"lambdas": (0.0,)}, {"steps": 0}):
        with pytest.raises(BadInput):
            federate(parts, "validate_panel", formula=COX, **wrong)
    assert "validate_panel" in methods()
