from __future__ import annotations

import pytest

from ihds.cohorts import bladder_cancer
from ihds.data.table import read_table
from tests.conftest import close, federate, reference, split


def assert_equals_r(result, r):
    assert close(result.tests[0].statistic, r["chisq"][0])
    for mine, observed, expected in zip(result.tests[0].details, r["obs"], r["exp"], strict=True):
        assert close(mine["observed"], observed)
        assert close(mine["expected"], expected)


@pytest.mark.parametrize("width", [0.0, 30.0])
@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_logrank_and_peto_equal_r(shared, width, rho):
    frame = read_table(shared / "data/survival-reference/lung.csv")
    formula = "Surv(time, status) ~ sex"
    result = federate(split(frame, 3), "logrank", formula=formula, time_bin=width, rho=rho)
    assert_equals_r(result, reference("survival")[f"{'peto' if rho else 'lr'}_lung_{width:g}"])


@pytest.mark.parametrize("width", [0.0, 30.0])
def test_stratified_logrank_equals_r(shared, width):
    frame = read_table(shared / "data/survival-reference/lung.csv")
    frame = frame[frame["ph.ecog"] < 3]
    formula = "Surv(time, status) ~ ph.ecog + strata(sex)"
    result = federate(split(frame, 3), "logrank", formula=formula, time_bin=width)
    assert_equals_r(result, reference("survival")[f"lr_strata_{width:g}"])


def test_byar_trial_equals_r():
    parts = split(bladder_cancer.byar_trial(), 3, "person_id")
    formula = "Surv(first_months, first_recurrence) ~ treatment"
    result = federate(parts, "logrank", codebook=bladder_cancer.codebook(), formula=formula)
    assert_equals_r(result, reference("survival")["lr_byar"])
