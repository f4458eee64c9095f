from __future__ import annotations

import math

import pytest

from ihds.cohorts import bladder_cancer
from ihds.data.table import read_table
from ihds.privacy.disclosure import Thresholds
from tests.conftest import close, federate, reference, split


def assert_equals_r(result, r, *, whole=True):
    at = {(s, t): i for i, (s, t) in enumerate(zip(r["strata"], r["time"], strict=True))}
    compared = 0
    for g, curve in enumerate(result.curves):
        if whole:  # R's restricted mean goes to the last person
            assert close(curve.rmst, r["rmst"][g])
            assert close(curve.rmst_se, r["rmst_se"][g])
        expected = r["median"][g]
        if not whole:  # the end of the step that holds it, if the curve goes so far
            assert curve.median is None or (curve.median in curve.time and curve.median >= expected)
        else:
            assert curve.median is None if expected == "NA" or expected is None else close(curve.median, expected)
        for i, time in enumerate(curve.time):
            row = at.get((curve.group, time))
            if row is None:  # R lists event times only
                continue
            compared += 1
            assert close(curve.estimate[i], r["surv"][row])
            for name, mine in (("se", curve.se), ("lower", curve.lower), ("upper", curve.upper)):
                expected = r[name][row]
                if isinstance(expected, float) and math.isfinite(expected) and expected != 0:
                    assert close(mine[i], expected), (name, time)
    assert compared > 5


@pytest.mark.parametrize("width", [0.0, 30.0])
@pytest.mark.parametrize(("name", "right"), [("km_lung", "sex"), ("km_all", "1")])
def test_curves_equal_r_on_the_same_grid(shared, width, name, right):
    frame = read_table(shared / "data/survival-reference/lung.csv")
    formula = f"Surv(time, status) ~ {right}"
    result = federate(split(frame, 3), "kaplan_meier", formula=formula, time_bin=width)
    assert_equals_r(result, reference("survival")[f"{name}_{width:g}"])


def test_released_points_equal_r_and_cover_enough_persons():
    trial = bladder_cancer.byar_trial()
    parts = split(trial, 3, "person_id")
    result = federate(
        parts,
        "kaplan_meier",
        codebook=bladder_cancer.codebook(),
        thresholds=Thresholds(),
        formula="Surv(first_months, first_recurrence) ~ treatment",
    )
    assert_equals_r(result, reference("survival")["km_byar"], whole=False)
    for curve in result.curves:
        assert curve.tau == curve.time[-1]
    assert any(curve.median is not None for curve in result.curves)
    for curve in result.curves:
        left = [a - b for a, b in zip(curve.at_risk, [*curve.at_risk[1:], 0], strict=True)]
        assert min(left) >= 5
