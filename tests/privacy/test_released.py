"""What a result of the newer methods may not tell: each case would, without its rule."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.features import select
from ihds.data.table import draft_codebook
from ihds.errors import BadInput, BadLevel, ConstantColumn, Refused
from ihds.privacy.disclosure import Thresholds, suppress
from tests.conftest import federate, split

STRICT = Thresholds()


def people(n: int = 90, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.normal(60, 9, n).round(),
            "arm": rng.choice(["a", "b"], n),
            "treated": rng.integers(0, 2, n).astype(float),
            "y": rng.normal(size=n),
            "time": rng.integers(1, 20, n).astype(float),
            "event": rng.integers(0, 2, n).astype(float),
        }
    )


def test_hidden_cells_together_never_sum_to_few_persons():
    assert suppress(np.array([40.0, 1.0, 2.0, 9.0]), 5) == [40, None, None, None]
    assert suppress(np.array([40.0, 3.0, 9.0]), 5) == [40, None, None]
    assert suppress(np.array([40.0, 0.0, 9.0]), 5) == [40, 0, 9]


def test_the_size_of_a_hidden_group_does_not_follow_from_the_number_of_rows():
    frame = people(123)
    frame["arm"] = ["a"] * 50 + ["b"] * 40 + ["d"] * 30 + ["c"] * 3
    result = federate(split(frame, 3), "table_one", thresholds=STRICT, formula="~ age", by="arm")
    assert result.details["groups"] == ["a", "b"]
    assert result.n == sum(result.details["persons"]) == 90


def test_what_a_table_hides_of_a_group_is_nothing_or_enough():
    frame = people(120)
    frame["arm"] = ["a"] * 60 + ["b"] * 60
    # of arm b one person has l1 and none l2: hiding these two alone would tell that it is one person
    frame["stage"] = ["l1"] * 10 + ["l2"] * 6 + ["l3"] * 44 + ["l1"] + ["l3"] * 30 + ["l4"] * 29
    result = federate(split(frame, 3), "table_one", thresholds=STRICT, formula="~ stage", by="arm")
    row = result.details["rows"][0]
    for g, persons in enumerate(result.details["persons"]):
        shown = sum(c[g] for c in row["counts"] if c is not None)
        assert persons - shown == 0 or persons - shown >= STRICT.min_cell


@pytest.mark.parametrize("method", ["quantiles", "histogram"])
def test_a_group_that_one_site_alone_holds_is_hidden(method):
    parts = [people(40, s) for s in (1, 2, 3)]
    parts[2]["arm"] = ["z"] * 30 + ["a"] * 10
    result = federate(parts, method, thresholds=STRICT, formula="~ age", by="arm")
    told = result.details["quantiles" if method == "quantiles" else "histograms"]
    alone = next(row for row in told if row["group"] == "z")
    assert set(alone["values" if method == "quantiles" else "counts"]) == {None}


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("differential_expression", {"formula": "~ treated"}),
        ("association_scan", {"formula": "y ~ age"}),
        ("cox_scan", {"formula": "Surv(time, event) ~ age"}),
    ],
)
def test_features_of_few_carriers_are_left_out_and_few_gaps_are_not_told(method, call):
    frame = people()
    frame["f_rare"] = [1.0] * 3 + [0.0] * 87
    frame["f_common"] = np.random.default_rng(2).integers(0, 3, 90).astype(float)
    frame.loc[5, "f_common"] = np.nan
    result = federate(split(frame, 3), method, thresholds=STRICT, features="f_*", **call)
    assert list(result.details["features"]["feature"]) == ["f_common"]
    assert result.details["hidden_features"] == 1
    assert result.details["features"]["n"] == [90]


def test_a_variant_whose_other_allele_few_persons_carry_is_left_out_too():
    frame = people().assign(f_other=[1.0] * 3 + [2.0] * 87)
    result = federate(split(frame, 3), "association_scan", thresholds=STRICT, formula="y ~ age", features="f_*")
    assert result.details["hidden_features"] == 1


def test_equilibrium_tests_do_not_give_rare_genotypes_back():
    frame = pd.DataFrame({"rs1": [1.0] * 3 + [0.0] * 797, "rs2": np.random.default_rng(3).binomial(2, 0.3, 800) * 1.0})
    told = federate(split(frame, 3), "genotype_qc", thresholds=STRICT, features="rs*").details["features"]
    assert [p is None for p in told["hardy_weinberg_p"]] == [True, False]
    assert told["out_of_equilibrium"] == [False, False]


def test_an_arm_of_few_persons_and_components_for_few_persons_are_refused():
    frame = people()
    frame["treated"] = [1.0] * 4 + [0.0] * 86
    frame["flat"] = 1.0 + (np.arange(90) % 7)
    with pytest.raises(BadLevel, match="fewer than 5"):
        federate(split(frame, 2), "causal_effect", thresholds=STRICT, formula="treated ~ flat", outcome="y")
    wide = pd.DataFrame(np.random.default_rng(4).normal(size=(30, 40)), columns=[f"g{j}" for j in range(40)])
    with pytest.raises(Refused, match="describe"):
        federate(split(wide, 3), "principal_components", thresholds=STRICT, features="g*", components=20)


def test_many_quantiles_do_not_give_the_values_back():
    frame = people(300)
    frame["age"] = np.random.default_rng(3).normal(size=300)
    probs = tuple(i / 299 for i in range(5, 295))
    with pytest.raises(BadInput, match="290"):
        federate(split(frame, 3), "quantiles", thresholds=STRICT, formula="~ age", probs=probs)
    close_by = tuple(0.3 + i / 299 for i in range(25))  # 25 persons in a row
    result = federate(split(frame, 3), "quantiles", thresholds=STRICT, formula="~ age", probs=close_by, resolution=1e-6)
    assert sum(v is not None for v in result.details["quantiles"][0]["values"]) == 5


def test_quantiles_of_repeated_rows_count_persons():
    frame = people(90).assign(pid=[f"p{i}" for i in range(90)])
    often = pd.DataFrame({**frame.iloc[0].to_dict()}, index=range(40)).assign(age=300.0 + np.arange(40))
    parts = split(frame, 3)
    parts[0] = pd.concat([parts[0], often], ignore_index=True)
    call = {"formula": "~ age", "probs": (0.5, 0.8, 0.9), "person": "pid"}
    values = federate(parts, "quantiles", thresholds=STRICT, **call).details["quantiles"][0]["values"]
    assert values[0] is not None
    assert values[1:] == [None, None]
    counts = federate(parts, "histogram", thresholds=STRICT, formula="~ age", breaks=(0.0, 200.0, 400.0), person="pid")
    assert counts.details["histograms"][0]["counts"] == [None, None]


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("quantiles", {"formula": "~ age"}),
        ("histogram", {"formula": "~ age"}),
        ("table_one", {"formula": "~ age", "by": "arm"}),
        ("describe", {"variables": ("age",)}),
        ("differential_expression", {"formula": "~ arm", "features": "age,y"}),
        ("principal_components", {"features": "age,y,time", "components": 2}),
        ("association_scan", {"formula": "y ~ arm", "features": "age,time"}),
        ("causal_effect", {"formula": "treated ~ time", "outcome": "age", "family": "gaussian"}),
        ("glm_imputed", {"formula": "y ~ age + time", "imputations": 2}),
    ],
)
def test_a_number_that_one_site_alone_measured_is_hidden_or_refused(method, call):
    parts = [people(60, s) for s in (1, 2, 3)]
    for other in parts[1:]:
        other["age"] = np.nan
    if method in ("causal_effect", "glm_imputed"):
        with pytest.raises((Refused, BadInput), match="age"):
            federate(parts, method, thresholds=STRICT, **call)
        return
    details = federate(parts, method, thresholds=STRICT, **call).to_dict()
    told = json.dumps(details)
    if "features" in details["details"]:
        assert "age" not in details["details"]["features"]["feature"]
        assert details["details"]["hidden_features"] == 1
    else:
        row = (details["details"].get("quantiles") or details["details"].get("histograms") or [{}])[0]
        row = row or (details["details"].get("rows") or details["table"])[0]
        for name in {"n", "mean", "sd"} & set(row):
            assert row[name] is None
        assert not any(v is not None for v in [*row.get("values", []), *row.get("counts", [])])
    for number in (parts[0]["age"].mean(), parts[0]["age"].std()):
        assert f"{number:.6f}"[:7] not in told


def test_a_group_measured_at_one_site_alone_is_hidden_in_a_table():
    parts = [people(60, s) for s in (1, 2, 3)]
    for other in parts[1:]:
        other.loc[other.arm == "b", "age"] = np.nan
    row = federate(parts, "table_one", thresholds=STRICT, formula="~ age", by="arm").details["rows"][0]
    assert row["mean"] is None


def genes(n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    frame = people(n)
    for j in range(6):
        frame[f"gene_{j}"] = rng.normal(size=n)
    return frame


@pytest.mark.parametrize("floor", [0.0, -9.97])
@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("principal_components", {"components": 2}),
        ("differential_expression", {"formula": "~ arm"}),
        ("association_scan", {"formula": "y ~ arm"}),
        ("cox_scan", {"formula": "Surv(time, event) ~ arm"}),
    ],
)
def test_a_feature_that_few_persons_express_is_left_out_whatever_its_floor(method, call, floor):
    frame = genes()
    frame["gene_0"] = floor
    frame.loc[[3, 50], "gene_0"] = [4.25, 5.75]
    result = federate(split(frame, 3), method, thresholds=STRICT, features="gene_*", **call)
    assert "gene_0" not in result.details["features"]["feature"]
    assert result.details["hidden_features"] == 1


def test_a_feature_that_is_left_out_has_no_part_in_the_components():
    frame = genes()
    without = federate(split(frame, 3), "principal_components", features="gene_*", components=2)
    frame["gene_x"] = 0.0
    frame.loc[3, "gene_x"] = 500.0
    result = federate(split(frame, 3), "principal_components", thresholds=STRICT, features="gene_*", components=2)
    assert result.details["sd"] == pytest.approx(without.details["sd"], rel=1e-7)


def test_a_gene_with_few_values_in_some_group_is_left_out():
    frame = genes()
    frame.loc[(frame.arm == "b") & (frame.index != frame.index[frame.arm == "b"][0]), "gene_1"] = np.nan
    frame.loc[frame.arm == "a", "gene_2"] = np.nan  # no value at all: limma has NA
    result = federate(split(frame, 3), "differential_expression", thresholds=STRICT, formula="~ arm", features="gene_*")
    assert not {"gene_1", "gene_2"} & set(result.details["features"]["feature"])
    assert result.details["hidden_features"] == 2


@pytest.mark.parametrize(
    ("method", "formula"),
    [("kaplan_meier", "Surv(time, event) ~ 1"), ("cumulative_incidence", "Surv(time, cause) ~ 1")],
)
def test_a_curve_does_not_end_with_its_last_person(method, formula):
    frame = people(150)
    frame["cause"] = np.where(frame.event > 0, "death", "censored")
    frame.loc[3, "time"] = 400.0
    result = federate(split(frame, 3), method, thresholds=STRICT, formula=formula, time_bin=1.0)
    for curve in result.curves:
        assert curve.tau == curve.time[-1] < 20
        assert all(d == 0 or d >= STRICT.min_cell for d in curve.events)


def test_a_small_group_does_not_show_its_empty_bins():
    assert suppress(np.array([0.0, 3.0, 0.0]), 5) == [None, None, None]


def test_names_with_brackets_are_names_and_unknown_ones_are_told():
    book = draft_codebook("genes", genes().rename(columns={"gene_0": "rs[1]"}))
    assert select("rs[1],gene_1", book, frozenset()) == ("gene_1", "rs[1]")
    with pytest.raises(BadInput, match="gene_9"):
        select("gene_1,gene_9", book, frozenset())


def test_the_rest_of_two_results_is_no_small_group():
    frame = people(91)
    frame["arm"] = ["a"] * 50 + ["b"] * 40 + ["c"]
    everybody = federate(split(frame, 3), "describe", thresholds=STRICT).n
    for method in ("histogram", "quantiles"):
        result = federate(split(frame, 3), method, thresholds=STRICT, formula="~ age", by="arm")
        assert everybody - result.n >= STRICT.min_cell
    with pytest.raises(ConstantColumn, match="hides another"):
        federate(split(frame, 3), "table_one", thresholds=STRICT, formula="~ age", by="arm")


def crossed(n: int = 150) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    frame = people(n)
    frame["a"], frame["b"] = rng.choice(["a1", "a2"], n), rng.choice(["b1", "b2"], n)
    frame.loc[(frame.a == "a1") & (frame.b == "b1"), "b"] = "b2"
    frame.loc[np.flatnonzero(frame.a == "a1")[0], "b"] = "b1"  # the reference cell holds one person
    return frame


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("glm", {"formula": "y ~ a * b"}),
        ("elastic_net", {"formula": "y ~ a * b", "folds": 0}),
        ("correlation", {"formula": "~ a:b + y"}),
        ("cox", {"formula": "Surv(time, event) ~ a * b"}),
        ("differential_expression", {"formula": "~ a * b", "features": "y,age"}),
    ],
)
def test_a_combination_of_categories_that_one_person_has_is_no_term(method, call):
    with pytest.raises(BadLevel, match="combination of a and b"):
        federate(split(crossed(), 3), method, thresholds=STRICT, **call)


def test_a_binary_model_that_is_a_table_hides_small_cells_as_a_table_does():
    frame = people(120)
    frame["event"] = ((frame.arm == "a") & (frame.index % 3 == 0)).astype(float)
    frame.loc[np.flatnonzero(frame.arm == "b")[:2], "event"] = 1.0
    with pytest.raises(BadLevel, match="combination"):
        federate(split(frame, 3), "glm", thresholds=STRICT, formula="event ~ arm", family="binomial")
    federate(split(frame, 3), "glm", thresholds=STRICT, formula="event ~ arm + age", family="binomial")


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("glm", {"formula": "y ~ dose"}),
        ("glm", {"formula": "y ~ I(age == 97)"}),
        ("glm", {"formula": "dose ~ age"}),
        ("anova", {"formula": "dose ~ arm"}),
        ("cox", {"formula": "Surv(time, event) ~ dose"}),
        ("lmm", {"formula": "y ~ dose + (1 | pid)", "person": "pid"}),
    ],
)
def test_a_number_that_one_person_alone_has_is_no_column_and_no_outcome(method, call):
    frame = people(120).assign(dose=0.0, pid=[f"p{i // 2}" for i in range(120)])
    frame.loc[40, ["dose", "age"]] = [317.25, 97.0]
    with pytest.raises(BadLevel, match="rests on fewer"):
        federate(split(frame, 3), method, thresholds=STRICT, **call)


def test_means_that_would_be_one_persons_value_are_hidden_in_tables():
    frame = people(120).assign(dose=0.0, flag=0.0)
    frame.loc[17, "dose"] = 317.25
    frame.loc[[3, 8], "flag"] = 1.0
    for row in federate(split(frame, 3), "describe", thresholds=STRICT, variables=("dose", "flag")).table:
        assert row["mean"] is None
    frame.loc[frame.arm == "b", "dose"] = np.random.default_rng(8).normal(200, 60, int((frame.arm == "b").sum()))
    row = federate(split(frame, 3), "table_one", thresholds=STRICT, formula="~ dose", by="arm").details["rows"][0]
    assert row["mean"] is None


def test_components_that_one_person_makes_are_not_shown():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(60, 200))
    x[11] += rng.choice([-1, 1], 200) * 3.0
    frame = pd.DataFrame(x, columns=[f"g{j}" for j in range(200)])
    with pytest.raises(Refused, match="first component"):
        federate(split(frame, 3), "principal_components", thresholds=STRICT, features="g*", components=2)


def test_medians_and_means_are_of_the_steps_that_are_shown():
    rng = np.random.default_rng(7)
    frame = pd.DataFrame({"time": rng.integers(10, 400, 200) * 1.0, "event": rng.integers(0, 2, 200) * 1.0})
    frame["x"] = rng.normal(size=200)
    call = {"thresholds": STRICT, "formula": "Surv(time, event) ~ 1", "time_bin": 1.0}
    first = federate(split(frame, 3), "kaplan_meier", **call).curves[0].time[0]
    for tau in (first / 2, first - 1):
        assert federate(split(frame, 3), "kaplan_meier", tau=tau, **call).curves[0].rmst == pytest.approx(tau)
    call["formula"] = "Surv(time, event) ~ x"
    predict = "; ".join(f"x={v:.3f}" for v in np.linspace(-30, 30, 60))
    curves = federate(split(frame, 3), "cox_check", predict=predict, **call).curves
    assert {c.median for c in curves} - {None} <= set(curves[0].time)


def test_causes_share_their_steps():
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"time": rng.integers(1, 60, 200) * 1.0})
    frame["cause"] = rng.choice(["censored", "death", "other"], 200)
    result = federate(
        split(frame, 3), "cumulative_incidence", thresholds=STRICT, formula="Surv(time, cause) ~ 1", time_bin=1.0
    )
    one, two = result.curves
    assert one.time == two.time
    assert one.at_risk == two.at_risk


def test_the_end_of_a_curve_and_its_events_do_not_tell_of_a_rare_event():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"time": rng.integers(1, 60, 900) * 1.0, "event": 0.0})
    frame.loc[17, ["time", "event"]] = [37.0, 1.0]
    call = {"thresholds": STRICT, "formula": "Surv(time, event) ~ 1", "time_bin": 1.0}
    with pytest.raises(BadLevel, match="fewer than 5"):
        federate(split(frame, 3), "kaplan_meier", **call)
    late = rng.choice(np.flatnonzero(frame.time > 40), 4, replace=False)  # four of ten events come late, alone
    frame.loc[late, "event"] = 1.0
    frame.loc[np.flatnonzero(frame.time < 5)[:6], "event"] = 1.0
    result = federate(split(frame, 3), "kaplan_meier", **call)
    curve = result.curves[0]
    assert result.events == sum(curve.events)
    assert all(d == 0 or d >= STRICT.min_cell for d in curve.events)


def test_call_rates_of_few_persons_or_one_site_are_hidden():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"rs1": rng.binomial(2, 0.3, 150) * 1.0, "rs2": np.nan, "rs3": np.nan})
    frame.loc[[1, 2, 3], "rs2"] = [0.0, 1.0, 2.0]
    parts = split(frame, 3)
    parts[0]["rs3"] = 1.0
    told = federate(parts, "genotype_qc", thresholds=STRICT, features="rs*").details["features"]["call_rate"]
    assert told == [1.0, None, None]


def test_what_one_site_alone_holds_is_hidden_in_a_histogram():
    rng = np.random.default_rng(3)
    parts = [pd.DataFrame({"x": rng.normal(0, 1, 60)}) for _ in range(3)]
    parts[0]["x"] += 100
    edges = (-10.0, 50.0, 99.0, 100.0, 101.0, 110.0)
    counts = federate(parts, "histogram", thresholds=STRICT, formula="~ x", breaks=edges).details["histograms"][0]
    assert counts["counts"][1:] == [None] * 4


def test_a_feature_with_few_zeros_is_shown():
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(rng.normal(9, 1, size=(120, 4)), columns=[f"g{j}" for j in range(4)])
    frame["arm"] = rng.choice(["a", "b"], 120)
    frame.loc[[3, 9], "g0"] = 0.0
    frame["g1"] = np.log2(1 + rng.negative_binomial(2, 2 / 22, 120))
    result = federate(split(frame, 3), "differential_expression", thresholds=STRICT, formula="~ arm", features="g*")
    assert "g1" in result.details["features"]["feature"]


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("glm", {"formula": "y ~ dose"}),
        ("describe", {"variables": ("dose",)}),
        ("anova", {"formula": "dose ~ arm"}),
        ("kaplan_meier", {"formula": "Surv(time, own) ~ 1"}),
        ("differential_expression", {"formula": "~ arm", "features": "dose,y"}),
    ],
)
def test_many_rows_of_one_person_are_one_person(method, call):
    frame = people(120).assign(pid=[f"p{i}" for i in range(120)], dose=0.0, own=0.0)
    more = pd.concat([frame.iloc[[7]]] * 15, ignore_index=True).assign(own=1.0)
    more["dose"] = 300.0 + np.arange(15)
    frame = pd.concat([frame, more], ignore_index=True)
    parts = [frame[frame.pid.str[-1].isin(list(digits))].reset_index(drop=True) for digits in ("012", "3456", "789")]
    if method in ("describe", "differential_expression"):
        result = federate(parts, method, thresholds=STRICT, person="pid", **call)
        if method == "describe":
            assert result.table[0]["mean"] is None
        else:
            assert "dose" not in result.details["features"]["feature"]
        return
    with pytest.raises(BadLevel, match="fewer than 5"):
        federate(parts, method, thresholds=STRICT, person="pid", **call)


def test_tenths_of_a_score_hide_few_cases_and_what_one_site_alone_has():
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({f"rs{j}": rng.binomial(2, 0.3, 400) * 1.0 for j in (1, 2, 3)})
    frame["y"] = (rng.random(400) < 0.08).astype(float)
    call = {"variants": ("rs1", "rs2", "rs3"), "weights": (0.5, 0.3, 0.21)}
    result = federate(split(frame, 3), "polygenic_score", thresholds=STRICT, formula="y ~ 1", family="binomial", **call)
    tenths = result.details["tenths"]
    hidden = [m for m in tenths["mean_trait"] if m is None]
    assert len(hidden) != 1
    parts = split(frame.assign(y=rng.normal(size=400)), 3)
    for name in ("rs1", "rs2", "rs3"):
        parts[0].loc[:11, name] = 2.0
        parts[1].loc[parts[1][name] == 2, name] = 1.0
        parts[2].loc[parts[2][name] == 2, name] = 1.0
    tenths = federate(parts, "polygenic_score", thresholds=STRICT, formula="y ~ 1", **call).details["tenths"]
    assert tenths["mean_trait"][-1] is None


def test_the_cases_of_each_site_do_not_follow_from_how_a_panel_does():
    rng, sizes, cases = np.random.default_rng(3), (90, 120, 140), (21, 47, 76)
    parts = [pd.DataFrame(rng.normal(size=(n, 7)), columns=[f"g{j}" for j in range(7)]) for n in sizes]
    for part, had in zip(parts, cases, strict=True):
        part["y"] = (np.arange(len(part)) < had).astype(float)
    call = {"formula": "y ~ " + " + ".join(f"g{j}" for j in range(7)), "family": "binomial", "steps": 5}
    exact = federate(parts, "validate_panel", **call)
    told = federate(parts, "validate_panel", thresholds=STRICT, **call)

    def fitting(result) -> int:
        """Return how many cases at the first and second site fit, of sites whose persons are known."""
        share = result.tests[0].details[0]["concordance"]
        found, n, pairs = 0, np.array(sizes), result.details["pairs"]
        for first, second in np.ndindex(sizes[0] + 1, sizes[1] + 1):
            had = np.array([first, second, sum(cases) - first - second])
            if np.any(had < 1) or np.any(had >= n):
                continue
            others = (sum(cases) - had) / (sum(sizes) - n)
            null = -2 * float((had * np.log(others) + (n - had) * np.log(1 - others)).sum()) / sum(sizes)
            whole = had @ (n - had)
            near = abs(null - result.details["loss_null"]) < (6e-3 if result is told else 1e-9)
            same = abs(whole - pairs) <= (50 if result is told else 0)
            halves = 2 * share * whole  # the concordance is of whole pairs, and of halves for ties
            kept = result is told or abs(halves - np.rint(halves)) < 1e-6
            found += bool(near and same and kept)
        return found

    assert fitting(exact) == 1
    assert fitting(told) > 20
    for value in (told.details["loss_null"], told.details["loss_out_of_site"], *told.details["loss_mean"]):
        assert float(f"{value:.3g}") == value
    assert float(f"{told.details['pairs']:.2g}") == told.details["pairs"]
    row = told.tests[0].details[0]
    assert float(f"{row['concordance']:.3g}") == row["concordance"]
    assert float(f"{row['se']:.3g}") == row["se"]


def test_each_step_of_a_weighted_curve_is_worth_enough_persons():
    rng, n = np.random.default_rng(3), 600
    frame = pd.DataFrame({"time": np.ceil(rng.exponential(300, n)), "event": (rng.random(n) < 0.8).astype(float)})
    frame["w"] = 1e-3
    frame.loc[:15, ["w", "event"]] = 1.0  # sixteen persons whose times the curve would tell one by one
    call = {"formula": "Surv(time, event) ~ 1 + weights(w)", "time_bin": 5.0}
    curve = federate(split(frame, 3), "kaplan_meier", thresholds=STRICT, **call).curves[0]
    assert len(federate(split(frame, 3), "kaplan_meier", **call).curves[0].time) > 100
    assert 0 < len(curve.time) < 100
    edges = [0.0, *curve.time]
    for kept in (frame, frame[frame["event"] == 1]):
        within = [kept["w"][(kept["time"] > a) & (kept["time"] <= b)] for a, b in zip(edges, edges[1:], strict=False)]
        rest = [frame["w"][frame["time"] > curve.time[-1]]]
        for w in (w for w in within + rest if len(w)):
            assert w.sum() ** 2 / (w**2).sum() >= STRICT.min_cell - 0.5


def test_how_clusters_differ_follows_from_the_means_that_are_told_in_steps():
    rng, n = np.random.default_rng(5), 240
    far = 3 * rng.integers(0, 2, n)
    frame = pd.DataFrame({f"g{j}": rng.normal(size=n) + far * (j < 4) for j in range(8)})
    frame["z"] = rng.normal(size=n)
    call = {"features": "g*", "max_k": 2, "resamples": 10, "formula": "~ z"}
    row = federate(split(frame, 4), "consensus_clustering", thresholds=STRICT, **call).details["compared"]["rows"][0]
    between = (row["mean"][0] - row["mean"][1]) / np.sqrt((row["sd"][0] ** 2 + row["sd"][1] ** 2) / 2)
    assert np.isclose(row["smd"], between, rtol=1e-12)  # exact, it would tell the exact means
    moved = frame.copy()
    moved.loc[0, "z"] += 0.01
    again = federate(split(moved, 4), "consensus_clustering", thresholds=STRICT, **call).details["compared"]["rows"][0]
    assert again == row


def test_a_hidden_gene_is_not_what_the_others_lack_to_a_million():
    rng, n = np.random.default_rng(5), 120
    frame = pd.DataFrame({f"c{j}": rng.poisson(20, n).astype(float) for j in range(30)})
    frame["arm"] = np.where(np.arange(n) % 2, "a", "b")
    frame["c2"] = 0.0
    frame.loc[0, "c2"] = 17.0
    counts = frame.drop(columns="arm")
    own = float((counts["c2"] / counts.sum(axis=1)).mean() * 1e6)
    call = {"formula": "~ arm", "features": "c*", "dispersion": 0.1}
    details = federate(split(frame, 3), "count_expression", thresholds=STRICT, **call).details
    assert details["hidden_features"] == 1
    lacking = 1e6 - float(np.sum(2.0 ** np.array(details["features"]["mean"])))
    assert abs(lacking - own) > 3 * own
