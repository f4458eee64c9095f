"""weights() in a formula: the numbers of R's case weights, and no weight that singles a person out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.method import methods
from ihds.data.table import read_table
from ihds.errors import BadFormula, BadTable, IhdsError, OutOfRange, Refused
from ihds.privacy.disclosure import Thresholds
from tests.conftest import close, federate, pbc, reference, split

FORMULA = "Surv(time, status == 2) ~ age + log(bili) + albumin"
PROTECTED = Thresholds(min_site_persons=0, min_holders=1, min_level_sites=1, min_time_bin=0.0)


def weighed(shared):
    frame = pbc(shared)
    frame["w"] = np.round(np.exp(1.2 * np.sin(frame["id"])), 3)
    frame["far"], frame["near"] = frame["w"] * 1e12, frame["w"] * 1e-12
    return frame


def recurrences(shared):
    frame = read_table(shared / "data/bladder-recurrence/bladder2.csv")
    frame["w"] = 0.5 + frame["size"] / 4 + (frame["id"] % 7) / 3
    frame["order"] = "e" + frame["enum"].astype(int).astype(str)
    return frame


def assert_equals_r(result, r):
    rows = result.coefficients
    assert np.allclose([c.estimate for c in rows], r["coef"], rtol=1e-8)
    assert np.allclose([c.se for c in rows], r["se"], rtol=1e-8)
    assert np.allclose([c.robust_se for c in rows], r["robust_se"], rtol=1e-8)
    assert close(result.log_likelihood["null"], r["loglik"][0], 1e-9)
    assert close(result.log_likelihood["fitted"], r["loglik"][1], 1e-9)
    assert (result.n, result.events) == (r["n"], r["events"])
    assert [t.name for t in result.tests] == ["Wald"]
    assert close(result.tests[0].statistic, r["wald"], 1e-7)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("width", [0.0, 30.0])
@pytest.mark.parametrize("name", ["w", "far", "near"])
def test_case_weights_of_any_size_equal_r(shared, ties, width, name):
    formula = f"{FORMULA} + weights({name})"
    result = federate(split(weighed(shared), 3), "cox", formula=formula, ties=ties, time_bin=width)
    assert_equals_r(result, reference("weighted")[f"{name}_{ties}_{width:g}"])
    w = weighed(shared)["w"]
    assert close(result.details["effective_persons"], w.sum() ** 2 / (w**2).sum(), 1e-9)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_weights_clusters_late_entries_and_strata_equal_r(shared, ties):
    formula = "Surv(start, stop, event) ~ rx + size + number + weights(w) + cluster(id)"
    parts = split(recurrences(shared), 3, by="id")
    result = federate(parts, "cox", formula=formula, time_bin=1.0, ties=ties, person="id")
    assert_equals_r(result, reference("weighted")[f"ag_{ties}"])
    if ties == "efron":
        result = federate(parts, "cox", formula=formula + " + strata(order)", time_bin=1.0, person="id")
        assert_equals_r(result, reference("weighted")["strata"])


def test_weights_within_sites_equal_r(shared):
    result = federate(split(weighed(shared), 3), "cox", formula=FORMULA + " + weights(w) + strata(site)")
    assert_equals_r(result, reference("weighted")["by_site"])


def made(n=400, seed=1):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"time": rng.integers(1, 40, n).astype(float), "x": rng.normal(size=n).round(3)})
    frame["event"] = (rng.random(n) < 0.6).astype(float)
    frame["flag"] = (np.arange(n) < 12).astype(float)
    frame["one"], frame["w"] = 1.0, rng.gamma(4.0, 0.5, n).round(3) + 0.01
    return frame


def fit(frame, thresholds=None, terms="x", column="w", sites=3, **more):
    formula = f"Surv(time, event) ~ {terms} + weights({column})"
    return federate(split(frame, sites), "cox", thresholds=thresholds, formula=formula, time_bin=0.0, **more)


def test_equal_weights_change_nothing_but_the_kind_of_error():
    plain = federate(split(made(), 3), "cox", formula="Surv(time, event) ~ x", time_bin=0.0, robust=True)
    same = fit(made(), PROTECTED, column="one")
    assert close(same.coefficients[0].estimate, plain.coefficients[0].estimate)
    assert close(same.coefficients[0].robust_se, plain.coefficients[0].robust_se)
    assert close(same.log_likelihood["fitted"], plain.log_likelihood["fitted"])


def test_weights_that_single_persons_out_are_refused():
    frame = made()
    assert fit(frame, PROTECTED).details["effective_persons"] > 100
    frame.loc[7, "w"] = 3e4
    with pytest.raises(Refused, match="rest on few persons"):
        fit(frame, PROTECTED)
    fit(frame)  # without thresholds it may be computed
    frame = made()
    events = np.flatnonzero(frame["event"] == 1)
    frame.loc[events, "w"] = 1e-6  # many persons weigh, but of those with an event only one
    frame.loc[events[0], "w"] = 1.0
    with pytest.raises(Refused, match="of events"):
        fit(frame, PROTECTED)


def test_a_person_s_rows_weigh_together():
    frame = made()
    frame["who"] = [f"p{i}" for i in range(len(frame))]
    frame.loc[:59, "who"] = "p0"  # one person's sixty rows are one voice
    frame.loc[60:, "w"] = 1e-3
    with pytest.raises(Refused, match="rest on few persons"):
        federate([frame], "cox", thresholds=PROTECTED, person="who", formula="Surv(time, event) ~ x + weights(w)")


def test_a_model_too_large_for_what_weighs_is_refused():
    frame = made()
    frame["w"] = np.where(np.arange(len(frame)) < 8, 1.0, 1e-3)
    frame.loc[:7, "event"] = 1.0
    with pytest.raises(Refused, match="too large for these weights"):
        fit(frame, PROTECTED)


def test_a_column_that_rests_on_few_once_weighed_is_refused():
    frame = made()
    assert fit(frame, PROTECTED, terms="x + flag").n == 400
    frame.loc[1:11, "w"] = 1e-4  # of the twelve with the flag one weighs
    with pytest.raises(IhdsError, match="flag rests on fewer"):
        fit(frame, PROTECTED, terms="x + flag")


@pytest.mark.parametrize("wrong", [0.0, -1.0])
def test_weights_that_are_not_positive_are_refused(wrong):
    frame = made()
    frame.loc[3, "w"] = wrong
    with pytest.raises(BadTable, match="undefined"):
        fit(frame)


def test_missing_weights_leave_rows_out():
    frame = made()
    frame.loc[::9, "w"] = np.nan
    gaps, whole = fit(frame), fit(frame.dropna())
    assert gaps.n == whole.n
    assert close(gaps.coefficients[0].estimate, whole.coefficients[0].estimate)


def test_weights_beyond_any_scale_are_out_of_range_not_wrong():
    frame = made()
    frame.loc[5, "w"] = 1e15
    with pytest.raises(OutOfRange):
        fit(frame, PROTECTED)


def test_an_empty_site_and_a_site_of_one_row_change_nothing():
    frame = made()
    formula = "Surv(time, event) ~ x + weights(w)"
    parts = [frame.iloc[:1], frame.iloc[1:].reset_index(drop=True), frame.iloc[:0]]
    one = federate([frame], "cox", formula=formula, time_bin=0.0)
    three = federate(parts, "cox", formula=formula, time_bin=0.0)
    assert close(one.coefficients[0].estimate, three.coefficients[0].estimate)
    assert close(one.coefficients[0].robust_se, three.coefficients[0].robust_se)


def test_weights_are_one_column_of_numbers():
    frame = made()
    frame["kind"] = np.where(frame["x"] > 0, "a", "b")
    for bad in ("weights(kind)", "weights(w * 2)", "weights(w) + weights(one)", "weights(5)"):
        with pytest.raises(BadFormula, match="weights"):
            federate(split(frame, 3), "cox", formula=f"Surv(time, event) ~ x + {bad}", time_bin=0.0)


def test_methods_without_weights_refuse_them():
    frame = made()
    frame["flag"] = np.where(frame["flag"] > 0, "yes", "no")
    for method, formula in [
        ("glm", "x ~ time + weights(w)"),
        ("logrank", "Surv(time, event) ~ flag + weights(w)"),
        ("cox_check", "Surv(time, event) ~ x + weights(w)"),
        ("penalised_cox", "Surv(time, event) ~ x + weights(w)"),
    ]:
        assert method in methods()
        with pytest.raises(BadFormula, match="takes no weights"):
            federate(split(frame, 3), method, formula=formula)


def test_a_column_called_weights_is_a_column():
    frame = made().rename(columns={"w": "weights"})
    named = federate([frame], "cox", formula="Surv(time, event) ~ weights", time_bin=0.0)
    assert named.coefficients[0].term == "weights"
    assert fit(frame, column="weights", sites=1).details["effective_persons"] > 0


def assert_curves_equal_r(curves, r):
    for curve, expected in zip(curves, r.values(), strict=True):
        place = np.searchsorted(curve.time, np.array(expected["time"]) - 1e-9)
        assert np.allclose(np.array(curve.time)[place], expected["time"])
        for name, theirs in (("estimate", "surv"), ("se", "se"), ("lower", "lower"), ("upper", "upper")):
            wanted = [np.nan if v in (None, "NA") else float(v) for v in expected[theirs]]
            alive = np.array(expected["surv"]) > 0
            assert np.allclose(np.array(getattr(curve, name))[place][alive], np.array(wanted)[alive], rtol=1e-8), name
        assert close(curve.rmst, expected["rmst"])
        assert close(curve.rmst_se, expected["rmst_se"])


@pytest.mark.parametrize(("name", "column", "width"), [("curves_exact", "w", 0.0), ("curves_grid", "near", 30.0)])
def test_weighted_curves_equal_r(shared, name, column, width):
    formula = f"Surv(time, status == 2) ~ sex + weights({column})"
    result = federate(split(weighed(shared), 3), "kaplan_meier", formula=formula, time_bin=width, tau=3000.0)
    assert [c.group for c in result.curves] == ["sex=f", "sex=m"]
    assert_curves_equal_r(result.curves, reference("weighted")[name])


def test_weighted_curves_of_late_entries_equal_r_and_count_persons(shared):
    parts = split(recurrences(shared), 3, by="id")
    formula = "Surv(start, stop, event) ~ 1 + weights(w)"
    result = federate(parts, "kaplan_meier", formula=formula, time_bin=1.0, tau=24.0, person="id")
    assert_curves_equal_r(result.curves, reference("weighted")["curves_late"])


def test_weights_of_few_persons_in_a_group_have_no_curve():
    frame = made()
    frame["arm"] = np.where(np.arange(400) < 100, "a", "b")
    formula = "Surv(time, event) ~ arm + weights(w)"
    shown = federate(split(frame, 3), "kaplan_meier", thresholds=PROTECTED, formula=formula, time_bin=1.0)
    free = federate(split(frame, 3), "kaplan_meier", formula=formula, time_bin=1.0)
    assert all(set(few.time) < set(all_.time) for few, all_ in zip(shown.curves, free.curves, strict=True))
    frame.loc[frame.index[:99], "w"] = 1e-4  # of the hundred in the arm one weighs
    with pytest.raises(Refused, match="few persons"):
        federate(split(frame, 3), "kaplan_meier", thresholds=PROTECTED, formula=formula, time_bin=1.0)
