from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.errors import BadFormula, BadLevel, ConstantColumn
from ihds.privacy.disclosure import Thresholds
from tests.conftest import by_name, close, federate, pbc, reference, split


def test_both_t_tests_equal_r(shared):
    r = reference("tests")["sex"]
    found = by_name(federate(split(pbc(shared), 4), "anova", formula="bili ~ sex"))
    for name, expected in (
        ("t test, equal variances", r["student"]),
        ("t test, unequal variances (Welch)", r["welch"]),
    ):
        test = found[name]
        assert close(test.statistic, expected["t"])
        assert close(test.df, expected["df"])
        assert close(test.p, expected["p"])
        assert close(test.details[0]["lower"], expected["lower"])
        assert close(test.details[0]["upper"], expected["upper"])


def test_analysis_of_variance_equals_r_with_equal_and_unequal_variances(shared):
    r = reference("tests")["stage"]
    found = by_name(federate(split(pbc(shared), 5), "anova", formula="albumin ~ stage"))
    pairs = (("one-way analysis of variance", "equal"), ("Welch's analysis of variance", "unequal"))
    for name, key in pairs:
        test = found[name]
        assert close(test.statistic, r[key]["f"])
        assert [test.df, test.details[0]["df2"]] == pytest.approx(r[key]["df"], rel=1e-8)
        assert close(test.p, r[key]["p"])


def test_a_group_that_is_too_small_refuses_and_an_empty_one_is_left_out():
    frame = pd.DataFrame({"y": np.arange(43.0), "g": ["a"] * 20 + ["b"] * 20 + ["c"] * 3})
    with pytest.raises(BadLevel, match="'c' of 'g' holds fewer than 5"):
        federate(split(frame, 3), "anova", thresholds=Thresholds(), formula="y ~ g")
    assert federate(split(frame[frame.g != "c"], 3), "anova", formula="y ~ g").n == 40


def test_values_far_from_zero_lose_no_digits():
    rng = np.random.default_rng(1)
    y, g = rng.normal(size=60), ["a", "b"] * 30
    near, far = (federate(split(pd.DataFrame({"y": v, "g": g}), 3), "anova", formula="y ~ g") for v in (y, y + 2.0**20))
    for one, other in zip(near.tests, far.tests, strict=True):
        assert close(one.statistic, other.statistic)


def test_groups_of_very_different_spread_keep_their_digits():
    r = reference("tests")["uneven"]
    result = federate(split(pd.DataFrame({"y": r["y"], "g": r["g"]}), 3), "anova", formula="y ~ g")
    found = by_name(result)
    assert [g["sd"] for g in result.details["groups"]] == pytest.approx(r["sd"], rel=1e-8)
    assert close(found["one-way analysis of variance"].statistic, r["equal"]["f"])
    assert close(found["Welch's analysis of variance"].statistic, r["unequal"]["f"])


def test_a_group_that_does_not_vary_has_no_spread_and_no_welch_test():
    y = np.r_[np.arange(20.0), np.full(20, 50.1), np.arange(20.0) / 3]
    result = federate(
        split(pd.DataFrame({"y": y, "g": ["a"] * 20 + ["b"] * 20 + ["c"] * 20}), 3), "anova", formula="y ~ g"
    )
    assert [test.name for test in result.tests] == ["one-way analysis of variance"]
    assert result.details["groups"][1]["sd"] == 0


def test_an_outcome_that_does_not_vary_and_a_formula_that_is_another_are_named():
    flat = pd.DataFrame({"y": [1.0] * 40, "g": ["a", "b"] * 20})
    with pytest.raises(ConstantColumn):
        federate(split(flat, 2), "anova", formula="y ~ g")
    with pytest.raises(BadFormula, match="number ~ group"):
        federate(split(flat, 2), "anova", formula="~ g")
