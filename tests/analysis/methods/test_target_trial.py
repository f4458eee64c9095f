from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ihds.errors import BadFormula, BadInput, BadTable, NoEvents, Refused, Separation
from ihds.privacy.disclosure import Thresholds
from tests.analysis.methods.test_survival_effect import assert_arms_equal_r
from tests.conftest import close, federate, reference, split

FORMULA = "Surv(time, event) ~ x + sex"
PROTECTED = Thresholds(min_site_persons=0, min_holders=1, min_level_sites=1, min_time_bin=0.0)
CASES = {
    "clones_exact": {"time_bin": 0.0, "grace": 30.0, "tau": 120.0},
    "clones_grid": {
        "time_bin": 5.0,
        "grace": 30.0,
        "cuts": (10.0, 20.0),
        "stabilised": False,
        "ties": "breslow",
        "tau": 120.0,
    },
    "clones_cut": {"time_bin": 5.0, "grace": 40.0, "cuts": (20.0,), "bounds": (0.8, 1.3), "tau": 100.0},
}


def simulated() -> pd.DataFrame:
    frame = pd.DataFrame(reference("weighted")["simulated"])
    frame["treated_at"] = pd.to_numeric(frame["treated_at"], errors="coerce")
    return frame.astype({"time": float, "event": float}).drop(columns="id")


def emulate(frame, thresholds=None, sites=4, **more):
    call = {"formula": FORMULA, "treated_at": "treated_at", "grace": 30.0, "time_bin": 5.0, **more}
    return federate(split(frame, sites), "target_trial", thresholds=thresholds, **call)


@pytest.mark.parametrize("name", CASES)
def test_hazard_ratio_curves_and_balance_of_weighted_clones_equal_r(name):
    r = reference("weighted")[name]
    result = emulate(simulated(), **CASES[name])
    assert_arms_equal_r(result, r)
    told = result.details
    assert np.allclose([b["before"] for b in told["balance"]], r["smd_before"], rtol=1e-8)
    assert np.allclose([b["after"] for b in told["balance"]], r["smd_after"], rtol=1e-6, atol=1e-9)
    assert [w["persons"] for w in told["weights"]] == r["persons"]
    assert np.allclose([w["mean"] for w in told["weights"]], r["mean_weight"], rtol=1e-8)


def test_a_grid_of_tenths_counts_the_end_of_the_grace_period_in():
    """Three tenths are 0.30000000000000004 as three bins of a tenth."""
    frame = simulated()
    fine = frame.assign(time=frame["time"] * 0.02, treated_at=frame["treated_at"] * 0.02)
    days, tenths = emulate(frame, cuts=(15.0,)), emulate(fine, grace=0.6, cuts=(0.3,), time_bin=0.1)
    assert close(days.coefficients[0].estimate, tenths.coefficients[0].estimate)
    assert [w["persons"] for w in days.details["weights"]] == [w["persons"] for w in tenths.details["weights"]]


def kinds(frame, grace, width):
    """Return each person's exits from both arms, with the kind of exit, written out once more."""
    found = []
    for row in frame.itertuples():
        time = int(np.ceil(row.time / width))
        begun = np.inf if np.isnan(row.treated_at) else np.ceil(row.treated_at / width)
        begun = begun if begun < time else np.inf
        started, past = begun <= grace / width, time > grace / width
        where = "treated" if started else "untreated" if past else "both"
        found.append((time, f"leaves {where}"))
        if row.event:
            found.append((time, f"event {where}"))
        if started:
            found.append((int(begun), "starts"))
        elif past:
            found.append((int(grace / width), "passes"))
    return pd.DataFrame(found, columns=["bin", "kind"])


def test_curves_share_their_steps_and_no_step_tells_few_persons_of_any_kind_apart():
    free, shown = emulate(simulated()), emulate(simulated(), PROTECTED)
    one, two = shown.curves
    assert one.time == two.time
    assert 2 <= len(one.time) < len(free.curves[0].time)
    assert shown.coefficients[0] == free.coefficients[0]
    left = kinds(simulated(), 30.0, 5.0)
    step = np.searchsorted(np.array(one.time) / 5.0, left["bin"] - 1e-9)
    counts = left.groupby([step, "kind"]).size()
    told = counts[counts.index.get_level_values(0) < len(one.time)]
    assert told.min() >= 5
    events = sum(n for (_, kind), n in told.items() if kind.startswith("event"))
    assert shown.events == events <= free.events == int(simulated()["event"].sum())


def test_clones_are_one_person_in_errors():
    """Before anybody deviates both clones are the same, so the curves' difference there has no error at all."""
    result = emulate(simulated(), grace=30.0, tau=5.0)
    one, two = result.curves
    assert result.tests[0].details[0]["se"] < 0.2 * np.hypot(one.rmst_se, two.rmst_se)


def test_weights_that_rest_on_few_are_refused_until_they_are_cut():
    frame = simulated()
    started = (frame["treated_at"] <= 30) & (frame["time"] > 30)
    frame["x"] = np.where(started, 3.0, -3.0) + np.random.default_rng(2).normal(0, 2.4, len(frame)).round(2)
    odd = frame.index[started][0]
    frame.loc[odd, ["x", "event"]] = [-6.0, 1.0]  # hardly anybody like this starts
    with pytest.raises(Refused, match="rest on few"):
        emulate(frame, PROTECTED, stabilised=False)
    cut = emulate(frame, PROTECTED, stabilised=False, bounds=(0.0, 5.0))
    assert all(w["effective_persons"] > 5 for w in cut.details["weights"])


def test_intervals_and_arms_of_few_persons_are_refused():
    frame = simulated()
    with pytest.raises(Refused, match="interval"):
        emulate(frame.assign(treated_at=np.where(frame["treated_at"] <= 5, 6.0, frame["treated_at"])), cuts=(5.0,))
    few = frame.assign(treated_at=np.where(np.arange(600) < 10, frame["treated_at"], np.nan))
    with pytest.raises(Refused, match="too few"):
        emulate(few, PROTECTED)
    early = np.flatnonzero(frame["treated_at"] <= 5)
    few = frame.drop(index=early[4:]).reset_index(drop=True)  # four start within the first interval
    with pytest.raises(Refused, match="interval"):
        emulate(few, PROTECTED, cuts=(5.0,))
    with pytest.raises(Refused, match="too few"):
        emulate(frame.assign(treated_at=np.where(np.arange(600) == 0, 500.0, np.nan)))  # nobody starts in time
    with pytest.raises(NoEvents, match="not within 30"):
        emulate(frame.assign(event=np.where(frame["treated_at"] <= 30, frame["event"], 0.0)), time_bin=0.0)


def test_weights_are_counted_at_the_end_of_a_step_only():
    """Else those still followed at the end of the grace period would be another point of the curve."""
    frame = simulated()
    gone = np.flatnonzero((frame["time"] > 5) & (frame["time"] <= 30))
    few = frame.drop(index=gone[3:]).reset_index(drop=True)  # three persons end before the grace period does
    hidden = emulate(few, PROTECTED)
    assert 30.0 not in hidden.curves[0].time
    for name in ("persons", "effective_persons", "cut"):
        assert all(w[name] is not None for w in emulate(few).details["weights"])
        assert all(w[name] is None for w in hidden.details["weights"])
    assert "hidden" in hidden.summary()
    shown = emulate(frame, PROTECTED)
    assert 30.0 in shown.curves[0].time
    assert all(w["persons"] for w in shown.details["weights"])


def test_no_step_ends_while_few_treated_are_followed():
    """Within the grace period those are the difference of the curves' persons at risk."""
    frame = simulated()
    frame.loc[frame["treated_at"] <= 30, "treated_at"] = 30.0
    early = np.flatnonzero(frame["treated_at"] == 30)[:12]
    frame.loc[early, "treated_at"] = 2.0  # twelve start at once, nine of them are gone at 10
    frame.loc[early[:9], "time"] = 10.0
    frame.loc[early[:9], "event"] = 0.0
    one, two = emulate(frame, PROTECTED).curves
    treated = np.array(two.at_risk)[np.array(one.time) <= 30] - np.array(one.at_risk)[np.array(one.time) <= 30]
    assert len(treated)
    assert all(n == 0 or n >= 5 for n in treated)


def test_an_arm_that_one_site_alone_holds_is_refused():
    frame = simulated()
    starts = frame["treated_at"] <= 30
    parts = [frame[starts].reset_index(drop=True), frame[~starts].reset_index(drop=True)]
    call = {"formula": FORMULA, "treated_at": "treated_at", "grace": 30.0, "time_bin": 5.0}
    with pytest.raises(Refused, match="one site"):
        federate(parts, "target_trial", thresholds=replace(PROTECTED, min_level_sites=2), **call)
    apart = federate([*parts, frame.iloc[:0]], "target_trial", **call)
    assert close(apart.coefficients[0].estimate, emulate(frame, sites=1).coefficients[0].estimate)
    assert close(apart.tests[0].statistic, emulate(frame, sites=1).tests[0].statistic)


def test_a_start_at_or_after_the_end_of_follow_up_is_none():
    frame = simulated()
    never = frame["treated_at"].isna()
    later = frame.assign(treated_at=np.where(never, frame["time"] + 7, frame["treated_at"]))
    assert emulate(later).coefficients[0] == emulate(frame).coefficients[0]


def test_hard_rows_and_parameters_are_named():
    frame = simulated()
    with pytest.raises(BadTable, match="before time 0"):
        emulate(frame.assign(treated_at=frame["treated_at"] - 20))
    with pytest.raises(Separation):
        emulate(frame.assign(rule=(frame["treated_at"] <= 30) * 1.0), formula="Surv(time, event) ~ rule")
    named = frame.assign(who=[f"p{max(i, 1)}" for i in range(600)])
    with pytest.raises(BadTable, match="several rows"):
        federate([named], "target_trial", person="who", formula=FORMULA, treated_at="treated_at", grace=30.0)
    for wrong in (
        {"grace": 0.0},
        {"grace": 31.0},
        {"cuts": (20.0, 10.0)},
        {"cuts": (30.0,)},
        {"cuts": (7.0,)},
        {"bounds": (2.0, 3.0)},
        {"tau": -1.0},
    ):
        with pytest.raises(BadInput):
            emulate(frame, **wrong)
    for wrong in (
        "Surv(time, event) ~ 1",
        "time ~ x",
        "Surv(time, event) ~ x + treated_at",
        "Surv(time, event) ~ x + strata(sex)",
    ):
        with pytest.raises(BadFormula):
            emulate(frame, formula=wrong)
    with pytest.raises(BadFormula, match="number of its own"):
        emulate(frame, treated_at="sex")


def test_curves_end_while_enough_are_followed_in_both_arms():
    frame = simulated()
    starts = frame["treated_at"] <= 30
    short = starts & (np.cumsum(starts & (frame["time"] > 70)) > 3)
    frame.loc[short, ["time", "event"]] = np.column_stack([np.minimum(frame["time"], 70), frame["event"]])[short]
    result = emulate(frame, PROTECTED)
    last = result.curves[0].time[-1]
    assert last <= 70
    followed = int(((frame["time"] > last) & starts).sum())
    assert followed == 0 or followed >= 5


def test_scales_and_many_sites_change_nothing():
    frame, plain = simulated(), emulate(simulated(), time_bin=0.0)
    for unit in (1e-12, 1e12):
        other = frame.assign(**{n: frame[n] * unit for n in ("time", "treated_at", "x")})
        far = emulate(other, time_bin=0.0, grace=30.0 * unit)
        assert close(far.coefficients[0].estimate, plain.coefficients[0].estimate)
        assert close(far.tests[0].statistic, plain.tests[0].statistic, 1e-7)
    many = emulate(frame, sites=40, time_bin=0.0)
    assert close(many.coefficients[0].robust_se, plain.coefficients[0].robust_se)


def test_a_treatment_without_effect_has_none():
    """Those who start have lived until then, and are other persons: both are undone."""
    rng = np.random.default_rng(7)
    n = 6000
    x = rng.normal(size=n).round(3)
    start, death = (np.ceil(rng.exponential(np.exp(rate - 0.7 * x))) for rate in (4.0, 4.6))
    end = np.minimum(death, rng.integers(60, 300, n))
    frame = pd.DataFrame({"x": x, "time": end, "event": (death <= end) * 1.0})
    frame["treated_at"] = np.where(start < end, start, np.nan)
    call = {"formula": "Surv(time, event) ~ x", "time_bin": 1.0, "tau": 200.0}
    fine = emulate(frame, cuts=(5.0, 10.0, 15.0, 20.0, 25.0), **call)
    assert abs(fine.coefficients[0].z) < 1.96
    assert "warning" not in fine.details
    naive = federate(
        split(frame.assign(treated=(frame["treated_at"] <= 30) * 1.0), 4),
        "cox",
        formula="Surv(time, event) ~ treated + x",
        time_bin=1.0,
    )
    assert naive.coefficients[0].z < -5
    assert "give cuts" in emulate(frame, **call).summary()
