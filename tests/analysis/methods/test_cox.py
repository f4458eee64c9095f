from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.cohorts import bladder_cancer
from ihds.data.table import read_table
from tests.conftest import close, federate, reference, split

LUNG = "Surv(time, status) ~ age + sex + ph.ecog"
LUNG_STRATA = "Surv(time, status) ~ age + ph.ecog + strata(sex)"
PBC = "Surv(time, status == 2) ~ age + edema + log(bili) + log(albumin) + log(protime)"
AG = "Surv(start, stop, event) ~ rx + size + number + cluster(id)"


def assert_equals_r(result, expected, relative=1e-8):
    r = expected
    assert result.n == r["n"][0]
    assert result.events == r["events"][0]
    for j, row in enumerate(result.coefficients):
        assert close(row.estimate, r["coef"][j], relative), (row.term, row.estimate, r["coef"][j])
        assert close(row.se, r["se"][j], relative), (row.term, row.se, r["se"][j])
        if r["robust"]:
            assert close(row.robust_se, r["robust"][j], relative), (row.term, row.robust_se, r["robust"][j])
    assert close(result.log_likelihood["null"], r["loglik"][0])
    assert close(result.log_likelihood["fitted"], r["loglik"][1])
    tests = {t.name: t.statistic for t in result.tests}
    assert close(tests["likelihood ratio"], r["lr"][0], 1e-7)
    assert close(tests["score"], r["score"][0], 1e-7)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("width", [0.0, 30.0])
@pytest.mark.parametrize(
    ("name", "table", "formula"),
    [
        ("lung", "lung", LUNG),
        ("lung_strata", "lung", LUNG_STRATA),
        ("pbc", "pbc", PBC),
    ],
)
def test_pooled_risk_sets_equal_r_on_the_same_grid(shared, ties, width, name, table, formula):
    frame = read_table(shared / "data/survival-reference" / f"{table}.csv")
    result = federate(split(frame, 3), "cox", formula=formula, ties=ties, time_bin=width)
    assert_equals_r(result, reference("survival")[f"{name}_{ties}_{width:g}"])


def test_stratified_by_site_equals_r_and_needs_no_grid(shared):
    frame = read_table(shared / "data/survival-reference/lung.csv")
    result = federate(split(frame, 3), "cox", formula=LUNG + " + strata(site)")
    assert_equals_r(result, reference("survival")["lung_by_site"])
    assert result.details["risk_sets"] == "each site's own times"


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("model", ["ag", "pwp", "first"])
def test_bladder_recurrences_equal_r_with_robust_errors(shared, ties, model):
    frame = read_table(shared / "data/bladder-recurrence/bladder2.csv")
    formula = AG
    if model == "pwp":
        formula += " + strata(enum)"
    if model == "first":
        frame = frame[frame["enum"] == 1]
        formula = "Surv(stop, event) ~ rx + size + number"
    parts = split(frame, 3, "id")
    result = federate(parts, "cox", person="id", formula=formula, ties=ties, time_bin=1.0)
    assert_equals_r(result, reference("survival")[f"{model}_{ties}"])


def test_recurrences_stratified_by_site_equal_r_with_robust_errors(shared):
    frame = read_table(shared / "data/bladder-recurrence/bladder2.csv")
    result = federate(split(frame, 3, "id"), "cox", person="id", formula=AG + " + strata(site)")
    assert_equals_r(result, reference("survival")["ag_by_site"])


@pytest.mark.parametrize("width", [0.0, 30.0])
def test_tcga_over_its_real_hospitals_equals_r(shared, width):
    frame = read_table(shared / "data/tcga-blca/clinical.csv")
    used = frame.dropna(subset=["os_days", "os_event", "age", "sex", "path_stage"])
    used = used[(used["os_days"] > 0) & (used["path_stage"] != "stage i")]
    sites = used["tissue_source_site"]
    large = sites.map(sites.value_counts()) >= 10
    parts = [g.reset_index(drop=True) for _, g in used[large].groupby(sites[large])]
    parts.append(used[~large].reset_index(drop=True))
    columns = ["os_days", "os_event", "age", "sex", "path_stage"]
    parts = [p[columns] for p in parts]
    assert len(parts) >= 14
    formula = "Surv(os_days, os_event) ~ age + sex + path_stage"
    result = federate(parts, "cox", formula=formula, time_bin=width)
    assert_equals_r(result, reference("survival")[f"tcga_{width:g}"])


def test_the_demo_model_equals_r():
    trial = bladder_cancer.byar_trial()
    formula = (
        "Surv(start_months, stop_months, recurrence) ~ treatment + tumour_count"
        " + largest_tumour_cm + cluster(person_id)"
    )
    result = federate(split(trial, 3, "person_id"), "cox", codebook=bladder_cancer.codebook(), formula=formula)
    assert_equals_r(result, reference("survival")["byar_ag"])
    assert result.details["clusters_within_sites"] == trial["person_id"].nunique()


def test_an_event_inside_one_bin_is_counted_where_it_happens():
    frame = pd.DataFrame(
        {"a": [0.0, 2.0, 0.0, 0.0] * 4, "b": [2.0, 2.5, 4.0, 5.0] * 4, "e": [0, 1, 1, 0] * 4, "x": range(16)}
    )
    result = federate([frame], "cox", formula="Surv(a, b, e) ~ x", time_bin=3.0)
    assert result.events == 8


RECURRENT = {
    "ag": ("bladder2", "Surv(start, stop, event) ~ rx + size + number + cluster(id)"),
    "pwp_total": ("bladder2", "Surv(start, stop, event) ~ rx + size + number + strata(order) + cluster(id)"),
    "pwp_gap": ("bladder2", "Surv(stop - start, event) ~ rx + size + number + strata(order) + cluster(id)"),
    "wlw": ("bladder", "Surv(stop, event) ~ rx + size + number + strata(order) + cluster(id)"),
}


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_events_in_every_form_equal_r(shared, name, ties):
    table, formula = RECURRENT[name]
    frame = read_table(shared / f"data/bladder-recurrence/{table}.csv")
    frame["order"] = "e" + frame["enum"].astype(int).astype(str)
    r = reference("competing")["recurrent"][ties][name]
    result = federate(split(frame, 3, by="id"), "cox", formula=formula, time_bin=1.0, ties=ties, person="id")
    assert np.allclose([c.estimate for c in result.coefficients], r["coef"], rtol=1e-8)
    assert np.allclose([c.se for c in result.coefficients], r["se"], rtol=1e-8)
    assert np.allclose([c.robust_se for c in result.coefficients], r["robust_se"], rtol=1e-8)
    assert close(result.log_likelihood["fitted"], r["loglik"], 1e-9)
