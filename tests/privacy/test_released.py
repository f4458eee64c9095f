"""What a result of the newer methods may not tell: each case would, without its rule."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.features import select
from ihds.data.table import draft_codebook
from ihds.errors import BadInput, Refused
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
    frame = people(93)
    frame["arm"] = ["a"] * 50 + ["b"] * 40 + ["c"] * 3
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
    with pytest.raises(Refused):
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
