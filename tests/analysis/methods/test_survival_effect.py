from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ihds.errors import BadFormula, BadInput, BadTable, Collinear, IhdsError, NoEvents, Refused, Separation
from ihds.privacy.disclosure import Thresholds
from tests.conftest import close, federate, pbc, reference, split

FORMULA, OUTCOME = "treated ~ age + albumin + log(bili)", "Surv(time, status == 2)"
PROTECTED = Thresholds(min_site_persons=0, min_holders=1, min_level_sites=1, min_time_bin=0.0)
CASES = {
    "effect_plain": {"time_bin": 0.0, "stabilised": False, "tau": 3000.0},
    "effect_grid": {"time_bin": 30.0, "ties": "breslow", "tau": 3000.0},
    "effect_cut": {"time_bin": 30.0, "bounds": (0.9, 1.2), "tau": 2000.0},
}


def trial(shared):
    frame = pbc(shared).dropna(subset=["trt"]).reset_index(drop=True)
    frame["treated"] = (frame["trt"] == 1).astype(float)
    return frame


def assert_arms_equal_r(result, r, ratio=1e-8, curve=1e-8):
    """Compare hazard ratio, curves and restricted means with R's, by time."""
    (row,), difference = result.coefficients, result.tests[0].details[0]
    assert close(row.estimate, r["cox"]["coef"], ratio)
    assert close(row.se, r["cox"]["se"], ratio)
    assert close(row.robust_se, r["cox"]["robust_se"], ratio)
    for k, found in enumerate(result.curves):
        place = np.searchsorted(found.time, np.array(r["time"][k]) - 1e-9)
        assert np.allclose(np.array(found.time)[place], r["time"][k])
        for name, theirs in (("estimate", "surv"), ("se", "se"), ("lower", "lower"), ("upper", "upper")):
            assert np.allclose(np.array(getattr(found, name))[place], r[theirs][k], rtol=curve), name
        assert close(found.rmst, r["rmst"][k], curve)
        assert close(found.rmst_se, r["rmst_se"][k], curve)
    assert close(difference["difference"], r["difference"], curve, 1e-6)
    assert close(difference["se"], r["difference_se"], curve)


@pytest.mark.parametrize("name", CASES)
def test_hazard_ratio_curves_weights_and_balance_equal_r(shared, name):
    r = reference("weighted")[name]
    result = federate(split(trial(shared), 4), "survival_effect", formula=FORMULA, outcome=OUTCOME, **CASES[name])
    assert_arms_equal_r(result, r)
    told = result.details
    assert np.allclose([b["before"] for b in told["balance"]], r["smd_before"], rtol=1e-8)
    assert np.allclose([b["after"] for b in told["balance"]], r["smd_after"], rtol=1e-6, atol=1e-9)
    assert np.allclose(list(told["propensity"].values()), r["propensity"], rtol=1e-7)
    for ours, theirs in (("mean", "mean_weight"), ("effective_persons", "effective"), ("cut", "cut")):
        assert np.allclose([w[ours] for w in told["weights"]], r[theirs], rtol=1e-8), ours


def made(n=600, seed=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n).round(3)
    treated = (rng.random(n) < 1 / (1 + np.exp(-x))).astype(float)
    time = np.ceil(rng.exponential(20 * np.exp(0.5 * treated - 0.4 * x))) + 1
    limit = rng.integers(5, 60, n)
    return pd.DataFrame(
        {"x": x, "treated": treated, "time": np.minimum(time, limit), "event": (time <= limit).astype(float)}
    )


def effect(frame, thresholds=None, sites=3, **more):
    call = {"formula": "treated ~ x", "outcome": "Surv(time, event)", "time_bin": 1.0, **more}
    return federate(split(frame, sites), "survival_effect", thresholds=thresholds, **call)


def test_curves_are_shown_at_steps_of_enough_persons_and_end_in_time():
    free, shown = effect(made()), effect(made(), PROTECTED)
    assert shown.coefficients[0] == free.coefficients[0]
    for all_, few in zip(free.curves, shown.curves, strict=True):
        assert set(few.time) < set(all_.time)
        assert all(e == 0 or e >= 5 for e in few.events)
        assert all(a - b >= 5 for a, b in zip(few.at_risk, few.at_risk[1:], strict=False))
    assert shown.events == sum(sum(c.events) for c in shown.curves) <= free.events


def test_weights_that_rest_on_few_are_refused_until_they_are_cut():
    frame = made()
    frame["treated"] = (np.random.default_rng(1).random(len(frame)) < 1 / (1 + np.exp(-4 * frame["x"]))).astype(float)
    frame.loc[0, ["x", "treated", "event"]] = [-3.0, 1.0, 1.0]  # hardly anybody like this is treated
    with pytest.raises(Refused, match="rest on few"):
        effect(frame, PROTECTED, stabilised=False)
    cut = effect(frame, PROTECTED, bounds=(0.0, 5.0))
    assert all(w["effective_persons"] > 5 for w in cut.details["weights"])


def test_few_persons_cut_are_not_told():
    frame = made()
    free = effect(frame, bounds=(0.0, 2.0)).details["weights"]
    assert min(w["cut"] for w in free) > 0
    high = next(
        b for b in np.arange(2.0, 9.0, 0.1) if 0 < effect(frame, bounds=(0.0, b)).details["weights"][0]["cut"] < 5
    )
    assert effect(frame, PROTECTED, bounds=(0.0, float(high))).details["weights"][0]["cut"] is None


def test_arms_of_few_persons_or_few_events_are_refused():
    frame = made()
    frame["treated"] = (np.arange(len(frame)) < 4).astype(float)
    with pytest.raises(IhdsError, match="fewer than 5|too few"):
        effect(frame, PROTECTED)
    frame = made()
    frame.loc[np.flatnonzero((frame["treated"] == 1) & (frame["event"] == 1))[3:], "event"] = 0.0
    with pytest.raises(Refused, match="too few persons"):
        effect(frame, PROTECTED)
    frame.loc[frame["treated"] == 1, "event"] = 0.0
    with pytest.raises(NoEvents, match="treated=1"):
        effect(frame)


def test_an_arm_that_one_site_alone_holds_is_refused():
    frame = made()
    parts = [frame[frame["treated"] == k].reset_index(drop=True) for k in (0, 1)]
    call = {"formula": "treated ~ x", "outcome": "Surv(time, event)", "time_bin": 1.0}
    with pytest.raises(Refused, match="one site"):
        federate(parts, "survival_effect", thresholds=replace(PROTECTED, min_level_sites=2), **call)


def test_hard_treatments_are_named():
    frame = made()
    with pytest.raises(BadTable, match="0 and 1"):
        effect(frame.assign(treated=frame["treated"] + 1))
    with pytest.raises(BadTable, match="0 and 1"):
        effect(frame.assign(treated=frame["treated"] * 0.5))
    with pytest.raises(Separation):
        effect(frame.assign(rule=frame["treated"] * 3 + 1), formula="treated ~ rule")
    for wrong in ("treated ~ 1", "treated ~ treated + x", "treated ~ x * treated", "x > 0 ~ event"):
        with pytest.raises(BadFormula):
            effect(frame, formula=wrong)
    with pytest.raises(BadFormula, match="no Surv"):
        effect(frame.assign(start=0.0), outcome="Surv(start, time, event)")
    for wrong in ({"bounds": (2.0, 1.0)}, {"bounds": (1.0,)}, {"bounds": (-1.0, 2.0)}, {"tau": 0.0}):
        with pytest.raises(BadInput):
            effect(frame, **wrong)


def test_a_person_with_two_rows_is_refused():
    frame = made().assign(who=[f"p{max(i, 1)}" for i in range(600)])
    with pytest.raises(BadTable, match="several rows"):
        federate([frame], "survival_effect", person="who", formula="treated ~ x", outcome="Surv(time, event)")


def test_sites_without_one_arm_or_without_rows_change_nothing():
    frame = made()
    whole = effect(frame, sites=1)
    parts = [frame[frame["treated"] == k].reset_index(drop=True) for k in (0, 1)]
    parts += [frame.iloc[:0], frame.iloc[:0]]
    apart = federate(parts, "survival_effect", formula="treated ~ x", outcome="Surv(time, event)", time_bin=1.0)
    assert close(whole.coefficients[0].estimate, apart.coefficients[0].estimate)
    assert close(whole.coefficients[0].robust_se, apart.coefficients[0].robust_se)
    assert close(whole.tests[0].statistic, apart.tests[0].statistic)
    assert np.allclose(whole.curves[0].se, apart.curves[0].se)


def test_names_of_any_form_and_values_of_any_scale_change_nothing():
    frame, plain = made(), effect(made())
    named = frame.rename(columns={"treated": "trt 1.a"})
    for text in ("`trt 1.a` ~ x", "(`trt 1.a`) ~ x"):
        other = effect(named, formula=text)
        assert other.coefficients[0].estimate == plain.coefficients[0].estimate
        assert [c.group for c in other.curves] == ["trt 1.a=0", "trt 1.a=1"]
    for unit in (1e-12, 1e12):
        far = effect(frame.assign(x=frame["x"] * unit, time=frame["time"] * unit), time_bin=0.0)
        near = effect(frame, time_bin=0.0)
        assert close(far.coefficients[0].estimate, near.coefficients[0].estimate)
        assert close(far.tests[0].statistic, near.tests[0].statistic, 1e-7)
        assert close(far.curves[0].rmst / unit, near.curves[0].rmst)


def test_many_sites_of_one_row_and_collinear_covariates():
    frame = made()
    parts = [frame.iloc[i : i + 1].reset_index(drop=True) for i in range(25)] + [frame.iloc[25:].reset_index(drop=True)]
    call = {"formula": "treated ~ x", "outcome": "Surv(time, event)", "time_bin": 1.0}
    many = federate(parts, "survival_effect", **call)
    assert close(many.coefficients[0].robust_se, effect(frame).coefficients[0].robust_se)
    with pytest.raises(Collinear):
        effect(frame.assign(twice=2 * frame["x"]), formula="treated ~ x + twice")


def test_the_summary_tells_what_the_weights_are_worth():
    text = effect(made()).summary()
    assert "worth equal persons" in text
    assert "difference of restricted means" in text


def test_an_arm_without_a_step_has_no_restricted_mean():
    result = effect(made().sample(30, random_state=1).reset_index(drop=True), PROTECTED)
    assert sorted(len(c.time) for c in result.curves) == [0, 1]
    assert all(np.isnan(c.rmst) for c in result.curves)
    assert result.tests == ()
    assert "NaN" not in result.summary()
