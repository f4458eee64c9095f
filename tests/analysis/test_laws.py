"""Laws every method must obey, found by walking the folder: a new method is tested by being there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ihds.analysis import agree
from ihds.analysis.method import leaves, methods
from ihds.analysis.plan import Plan, run
from ihds.data.codebook import Codebook, Variable
from ihds.errors import IhdsError
from ihds.privacy.disclosure import Thresholds

BOOK = Codebook(
    "law",
    {
        "time": Variable("time", "number", time_bin=1.0),
        "event": Variable("event", "number"),
        "start": Variable("start", "number", time_bin=1.0),
        "age": Variable("age", "number"),
        "size": Variable("size", "number"),
        "arm": Variable("arm", "category", levels=("a", "b", "c")),
        "count": Variable("count", "number"),
        "sex": Variable("sex", "category", levels=("f", "m")),
        "grade": Variable("grade", "category", levels=("low", "high")),
        "cause": Variable("cause", "category", levels=("censored", "relapse", "death")),
        "arm_b": Variable("arm_b", "number"),
        "patient": Variable("patient", "identifier"),
        "visit": Variable("visit", "category", levels=("v1", "v2", "v3", "v4")),
    },
)

#: How the laws call each method; a method that is not here fails `test_every_method_has_its_laws`.
CALLS = {
    "anova": [{"formula": "size ~ arm"}],
    "contingency": [{"formula": "~ sex + arm"}, {"formula": "~ sex + grade + strata(arm)"}],
    "correlation": [{"formula": "~ age + size + time"}],
    "describe": [{}],
    "kaplan_meier": [
        {"formula": "Surv(time, event) ~ arm"},
        {"formula": "Surv(start, time, event) ~ 1"},
        {"formula": "Surv(start, time, event) ~ sex + weights(size)"},
    ],
    "logrank": [{"formula": "Surv(time, event) ~ arm"}],
    "cox": [
        {"formula": "Surv(time, event) ~ age + arm"},
        {"formula": "Surv(start, time, event) ~ age + size", "ties": "breslow", "robust": True},
        {"formula": "Surv(time, event) ~ age + strata(arm)", "time_bin": 0.0},
        {"formula": "Surv(start, time, event) ~ age + weights(size)"},
    ],
    "glm": [
        {"formula": "size ~ age * arm"},
        {"formula": "event ~ age + size", "family": "binomial"},
        {"formula": "count ~ age + offset(log(time))", "family": "poisson"},
        {"formula": "size ~ age + arm", "family": "gamma"},
        {"formula": "event ~ age", "family": "binomial", "link": "cloglog", "robust": "HC3"},
    ],
    "ordinal": [{"formula": "arm ~ age + size"}, {"formula": "arm ~ age", "link": "cloglog"}],
    "multinomial": [{"formula": "arm ~ age + sex"}],
    "negative_binomial": [{"formula": "count ~ size + sex"}],
    "parametric_survival": [
        {"formula": "Surv(time, event) ~ age + arm"},
        {"formula": "Surv(time, event) ~ age", "distribution": "lognormal"},
    ],
    "piecewise": [
        {"formula": "Surv(start, time, event) ~ age + arm", "cuts": (5.0, 10.0)},
        {"formula": "Surv(time, event) ~ age", "cuts": (5.0, 12.0), "baseline": "logit"},
    ],
    "cox_check": [
        {"formula": "Surv(time, event) ~ age + sex", "concordance": True, "predict": "age=60, sex=m"},
        {"formula": "Surv(start, time, event) ~ age + strata(arm)", "transform": "log"},
    ],
    "cumulative_incidence": [{"formula": "Surv(time, cause) ~ sex + strata(grade)"}],
    "fine_gray": [{"formula": "Surv(time, cause) ~ age + sex", "cause": "death"}],
    "elastic_net": [
        {"formula": "size ~ age + count + sex", "steps": 4, "folds": 0},
        {"formula": "event ~ age + count + sex", "family": "binomial", "alpha": 0.5, "steps": 4, "folds": 0},
    ],
    "harmonise": [
        {"features": "age,size,count", "keep": "~ sex"},
        {"features": "age,size,count", "harmonise": "combat_means"},
        {"features": "age,size,count", "harmonise": "batch", "keep": "~ sex"},
        {"features": "age,size,count", "harmonise": "quantile"},
    ],
    "histogram": [{"formula": "~ age + size", "by": "arm"}],
    "quantiles": [{"formula": "~ age + size", "by": "sex", "probs": (0.25, 0.5)}],
    "rank_test": [{"formula": "size ~ arm"}, {"formula": "age ~ sex", "step": 0.1}],
    "table_one": [{"formula": "~ age + size + grade", "by": "arm"}],
    "polygenic_score": [
        {"formula": "size ~ age + sex", "variants": ("count", "start"), "weights": (0.5, -0.25)},
        {"formula": "event ~ age", "variants": ("count", "start"), "weights": (0.5, 1.0), "family": "binomial"},
    ],
    "co_occurrence": [{"features": "event,arm_b,count"}],
    "consensus_clustering": [
        {"features": "age,size,count", "max_k": 3, "resamples": 5, "starts": 2, "formula": "~ time + arm"}
    ],
    "voom": [{"formula": "~ sex", "features": "count,time,start", "scaling": "none"}],
    "count_expression": [{"formula": "~ sex", "features": "count,time,start", "scaling": "none", "dispersion": 0.3}],
    "penalised_cox": [{"formula": "Surv(time, event) ~ age + size + sex", "steps": 3, "folds": 0}],
    "differential_expression": [
        {"formula": "~ sex", "features": "age,size,count"},
        {"formula": "~ sex", "features": "age,size,count", "harmonise": "quantile"},
    ],
    "cox_scan": [{"formula": "Surv(time, event) ~ sex", "features": "age,size"}],
    "association_scan": [
        {"formula": "size ~ sex", "features": "age,count"},
        {"formula": "event ~ sex", "features": "age,count", "family": "binomial"},
        {"formula": "event ~ sex", "features": "age,count", "family": "binomial", "confirm": "firth"}
        | {"confirm_below": 1.0},
        {"formula": "event ~ sex", "features": "age,count", "family": "binomial", "confirm": "saddlepoint"}
        | {"confirm_below": 1.0},
    ],
    "factor_analysis": [
        {"layers": "all: size count start time", "factors": 1},
        {"layers": "one: age time; two: start size", "factors": 1, "formula": "~ sex"},
    ],
    "genotype_qc": [{"features": "event"}],
    "principal_components": [{"features": "age,size,count", "components": 2, "scaling": "unit"}],
    "causal_effect": [
        {"formula": "event ~ age + sex", "outcome": "size"},
        {"formula": "arm_b ~ age", "outcome": "event", "family": "binomial"},
    ],
    "survival_effect": [
        {"formula": "arm_b ~ age + sex", "outcome": "Surv(time, event)"},
        {"formula": "arm_b ~ age", "outcome": "Surv(time, event)", "bounds": (0.5, 2.0), "tau": 8.0},
    ],
    "target_trial": [
        {"formula": "Surv(time, event) ~ age + sex", "treated_at": "start", "grace": 2.0, "tau": 9.0},
        {
            "formula": "Surv(time, event) ~ age",
            "treated_at": "start",
            "grace": 3.0,
            "cuts": (1.0,),
            "bounds": (0.2, 5.0),
        },
    ],
    "meta_analysis": [{"formula": "size ~ age"}],
    "glm_imputed": [{"formula": "size ~ age + sex + time", "imputations": 3}],
    "firth": [{"formula": "event ~ age + sex"}],
    "gee": [{"formula": "size ~ age + sex + cluster(patient)"}],
    "lmm": [
        {"formula": "size ~ time + (1 | patient)"},
        {"formula": "size ~ age + (age || patient)", "criterion": "ML"},
    ],
    "glmm": [{"formula": "event ~ sex + (1 | patient)"}],
    "mmrm": [{"formula": "size ~ visit + age + cluster(patient)", "visit": "visit"}],
    "validate_panel": [
        {"formula": "Surv(time, event) ~ age + size + arm + sex", "steps": 3},
        {"formula": "event ~ age + size + arm + sex + count", "family": "binomial", "steps": 3},
        {"formula": "size ~ age + arm + sex + count", "family": "gaussian", "steps": 3},
    ],
}
#: Methods whose patients must lie within one site: rows are split between patients of four visits.
NESTED = {"gee", "lmm", "glmm", "mmrm"}
#: Methods in which each site has a model of its own, or pairs within sites: another split of rows is another answer.
BY_SITE = {"consensus_clustering", "cox_scan", "glm_imputed", "harmonise", "meta_analysis", "validate_panel"}
CASES = [(name, call) for name, calls in CALLS.items() for call in calls]
SPLITTABLE = [(name, call) for name, call in CASES if name not in BY_SITE]
LAWS = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def test_every_method_has_its_laws():
    assert set(CALLS) == set(methods())


@pytest.mark.parametrize("name", sorted(CALLS))
def test_no_contribution_has_the_name_of_another(name):
    found = [c.__name__ for c in (*agree.CONTRIBUTIONS, *methods()[name].CONTRIBUTIONS)]
    assert len(found) == len(set(found)), "the kind on the wire tells contributions apart"


def make_rows(seed: int, n: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "start": rng.integers(0, 5, n).astype(float),
            "age": rng.normal(60, 10, n).round(1),
            "size": rng.gamma(2.0, 1.0, n),
            "arm": rng.choice(["a", "b", "c"], n).astype(object),
            "event": rng.integers(0, 2, n).astype(float),
            "count": rng.poisson(rng.gamma(2.0, 1.5, n)).astype(float),
        }
    )
    frame["time"] = frame["start"] + rng.integers(1, 15, n)
    frame.loc[rng.random(n) < 0.05, "age"] = np.nan
    frame["arm_b"] = (frame["arm"] == "b").astype(float)
    frame["patient"] = [f"p{i // 4}" for i in range(n)]
    frame["visit"] = [f"v{i % 4 + 1}" for i in range(n)]
    frame["size"] += np.repeat(rng.normal(0, 1, n // 4 + 1), 4)[:n] + 4
    frame["cause"] = np.where(frame["event"] > 0, rng.choice(["relapse", "death"], n), "censored").astype(object)
    frame["sex"] = rng.choice(["f", "m"], n).astype(object)
    frame["grade"] = rng.choice(["low", "high"], n).astype(object)
    return frame


def grain(name: str) -> int:
    """Return how many rows stay together."""
    return 4 if name in NESTED else 1


def make_plan(name: str, call: dict, sites: int) -> Plan:
    return Plan(name, call, BOOK, Thresholds.none(), sites)


def outcome(plan: Plan, tables: list[pd.DataFrame]):
    try:
        return run(plan, tables)
    except IhdsError as error:
        return type(error)


def assert_same(one, two):
    if isinstance(one, type) or isinstance(two, type):
        assert one == two
        return
    assert_alike(one.to_dict(), two.to_dict(), "result")


def assert_alike(one, two, where):
    if isinstance(one, dict):
        for key in one:
            if key not in ("rounds", "z", "p"):
                assert_alike(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), where
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_alike(a, b, f"{where}[{i}]")
    elif isinstance(one, float):
        assert np.isclose(one, two, rtol=1e-7, atol=1e-8), (where, one, two)
    else:
        assert one == two, where


@pytest.mark.parametrize(("name", "call"), SPLITTABLE, ids=str)
@LAWS
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 60), min_size=2, max_size=5))
def test_federated_equals_pooled_over_any_split_with_empty_and_one_row_sites(name, call, seed, cuts):
    rows = make_rows(seed, 60)
    g = grain(name)
    edges = [0, *sorted(cut // g * g for cut in cuts), 60, 60]  # the last site is always empty
    parts = [rows.iloc[a:b].reset_index(drop=True) for a, b in zip(edges, edges[1:], strict=False)]
    parts.append(parts[0].iloc[:g])
    parts[0] = parts[0].iloc[g:].reset_index(drop=True)
    assert_same(outcome(make_plan(name, call, len(parts)), parts), outcome(make_plan(name, call, 1), [rows]))


@pytest.mark.parametrize(("name", "call"), CASES, ids=str)
@LAWS
@given(seed=st.integers(0, 10**6), order=st.permutations(range(4)))
def test_the_order_of_sites_does_not_matter(name, call, seed, order):
    rows = make_rows(seed, 48)
    site = np.arange(48) // grain(name) % 4
    parts = [rows[site == i].reset_index(drop=True) for i in range(4)]
    plan = make_plan(name, call, 4)
    one, two = outcome(plan, parts), outcome(plan, [parts[i] for i in order])
    if isinstance(one, type):
        assert one == two
    else:
        assert one.to_dict() == two.to_dict()  # sums modulo 2^64 are exact, so equal to the last bit


@pytest.mark.parametrize(("name", "call"), SPLITTABLE, ids=str)
@LAWS
@given(seed=st.integers(0, 10**6), cut=st.integers(0, 40))
def test_local_is_additive_over_any_split_of_rows(name, call, seed, cut):
    rows, cut = make_rows(seed, 40), cut // grain(name) * grain(name)
    plan = make_plan(name, call, 1)
    whole, left, right = (plan.work(part.reset_index(drop=True)) for part in (rows, rows.iloc[:cut], rows.iloc[cut:]))
    state = plan.begin()
    for _ in range(6):
        try:
            if plan.finish(state) is not None:
                return
            total, a, b = whole.local(state), left.local(state), right.local(state)
        except IhdsError:
            return
        if any(getattr(part, "out", 0.0) for part in (total, a, b)):
            return  # a site then answers with a mark, and the step is halved
        for field, declared in leaves(type(total)).items():
            if declared.per == "site":
                continue
            joined = np.asarray(getattr(a, field)) + np.asarray(getattr(b, field))
            expected = np.asarray(getattr(total, field))
            assert np.allclose(joined, expected, rtol=1e-9, atol=1e-9), field
        try:
            state = plan.aggregate(state, total)
        except IhdsError:
            return


@pytest.mark.parametrize("name", sorted(methods()))
def test_everything_that_leaves_is_declared(name):
    chosen = methods()[name]
    for contribution in chosen.CONTRIBUTIONS:
        declared = leaves(contribution)
        assert set(declared) == {f.name for f in dataclasses.fields(contribution)}
        assert all(d.unit and d.shape for d in declared.values())


@pytest.mark.parametrize(("name", "call"), CASES, ids=str)
def test_begin_needs_no_data(name, call):
    assert make_plan(name, call, 3).begin().rounds == 0
