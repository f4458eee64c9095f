"""Every method on every kind of hard rows: an answer that equals the pooled one, or a refusal by name."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from ihds.analysis.plan import run
from ihds.analysis.result import Result
from ihds.errors import IhdsError
from tests.analysis.test_laws import BY_SITE, CASES, assert_alike, grain, make_plan, make_rows

SITES = 5


def no_events_at_a_site(rows):
    rows.loc[rows.index % (4 * SITES) < 4, ["event", "cause"]] = [0.0, "censored"]


def a_category_absent(rows):
    rows.loc[rows["arm"] == "c", "arm"] = "a"


def a_constant_column(rows):
    rows["age"] = 60.0


def collinear_columns(rows):
    rows["size"] = 3 * rows["age"] + 1


def separation(rows):
    rows["age"] = 50 + 20 * rows["event"]


def duplicated_persons(rows):
    rows.iloc[120:] = rows.iloc[:120].to_numpy()


def a_column_all_missing(rows):
    rows["age"] = np.nan


def tiny_units(rows):
    rows[["age", "size"]] *= 1e-12


def huge_units(rows):
    rows[["age", "size"]] *= 1e12


def far_from_zero(rows):
    rows[["age", "size"]] += 1e9


def all_events(rows):
    rows["event"] = 1.0
    rows["cause"] = rows["cause"].replace("censored", "death")


def no_events_at_all(rows):
    rows[["event", "cause"]] = [0.0, "censored"]


def ties_everywhere(rows):
    rows["start"], rows["time"] = 0.0, 7.0


def few_rows(rows):
    rows.drop(rows.index[8:], inplace=True)


HARD = [f for name, f in sorted(globals().items()) if callable(f) and getattr(f, "__module__", "") == __name__]


def answer(plan, parts):
    """Return the result, or the class of the refusal; anything else is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return run(plan, parts)
        except IhdsError as error:
            return type(error)


def assert_no_number_is_lost(result: Result) -> None:
    """A coefficient that is shown is a number, and its error is one unless the method has none."""
    for c in result.coefficients:
        assert math.isfinite(c.estimate), c
        assert math.isfinite(c.se) or result.method in ("elastic_net", "penalised_cox", "validate_panel"), c
    for value in (result.log_likelihood or {}).values():
        assert math.isfinite(value)


@pytest.mark.parametrize("hard", HARD, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("name", "call"), CASES, ids=str)
def test_hard_rows_have_the_pooled_answer_or_a_named_refusal(name, call, hard):
    rows = make_rows(11, 240)
    hard(rows)
    rows = rows.reset_index(drop=True)
    site = rows.index // grain(name) % SITES
    parts = [rows[site == i].reset_index(drop=True) for i in range(SITES)]
    federated = answer(make_plan(name, call, SITES), parts)
    if not isinstance(federated, type):
        assert_no_number_is_lost(federated)
    if name in BY_SITE:
        return
    pooled = answer(make_plan(name, call, 1), [rows])
    if isinstance(federated, type) or isinstance(pooled, type):
        assert federated == pooled
    else:
        shape = (federated.n, len(federated.coefficients), len(federated.tests))
        assert shape == (pooled.n, len(pooled.coefficients), len(pooled.tests))
        for mine, theirs in zip(federated.coefficients, pooled.coefficients, strict=True):
            slack = 1e-6 * theirs.se if math.isfinite(theirs.se) else 0.0
            assert mine.estimate == pytest.approx(theirs.estimate, rel=1e-5, abs=slack + 1e-300)


@pytest.mark.parametrize(("name", "call"), CASES, ids=str)
def test_thirty_sites_of_a_few_patients(name, call):
    rows = make_rows(12, 360)
    site = rows.index // 4 % 30
    parts = [rows[site == i].reset_index(drop=True) for i in range(30)]
    federated = answer(make_plan(name, call, 30), parts)
    if name not in BY_SITE:
        pooled = answer(make_plan(name, call, 1), [rows])
        if isinstance(pooled, type):
            assert federated == pooled
        else:
            assert_alike(federated.to_dict()["coefficients"], pooled.to_dict()["coefficients"], "coefficients")


NULL_MODELS = [
    ("ordinal", {"formula": "arm ~ 1"}),
    ("multinomial", {"formula": "arm ~ 1"}),
    ("negative_binomial", {"formula": "count ~ 1"}),
    ("firth", {"formula": "event ~ 1"}),
    ("parametric_survival", {"formula": "Surv(time, event) ~ 1"}),
    ("parametric_survival", {"formula": "Surv(time, event) ~ 1", "distribution": "exponential"}),
    ("piecewise", {"formula": "Surv(time, event) ~ 1", "cuts": (5.0, 10.0)}),
    ("glm", {"formula": "size ~ 1", "family": "gamma", "robust": "HC3"}),
    ("glmm", {"formula": "event ~ 1 + (1 | patient)"}),
]


@pytest.mark.parametrize(("name", "call"), NULL_MODELS, ids=str)
def test_a_model_without_covariates_is_its_own_null_model(name, call):
    result = run(make_plan(name, call, 1), [make_rows(13, 240)])
    assert_no_number_is_lost(result)
    assert result.log_likelihood["fitted"] == pytest.approx(result.log_likelihood["null"], rel=1e-9)


RANDOM = [
    ("(0 + time | patient)", ["time"]),
    ("(time - 1 | patient)", ["time"]),
    ("(1 + time | patient)", ["(Intercept)", "time"]),
    ("(time || patient)", ["(Intercept)", "time"]),
]


@pytest.mark.parametrize(("written", "terms"), RANDOM, ids=str)
def test_random_terms_are_read_however_they_are_written(written, terms):
    rng = np.random.default_rng(14)
    rows = make_rows(14, 400)
    level, slope = rng.normal(0, 2, (2, 100))
    who = np.arange(400) // 4
    rows["size"] = level[who] + slope[who] * rows["time"] + rng.normal(size=400)
    result = run(make_plan("lmm", {"formula": f"size ~ time + {written}"}, 1), [rows])
    assert [r["term"] for r in result.details["random"]] == terms
    assert result.details["random"][-1]["sd"] == pytest.approx(2, abs=0.5)
