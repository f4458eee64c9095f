"""What a result of the newer methods may not tell: each case would, without its rule."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.errors import Refused
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
