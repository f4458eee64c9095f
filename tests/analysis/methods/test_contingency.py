from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.errors import BadFormula, BadLevel, ConstantColumn
from ihds.privacy.disclosure import Thresholds
from tests.conftest import by_name, close, federate, pbc, reference, split


def test_a_two_by_two_table_equals_r(shared):
    r = reference("tests")["two"]
    result = federate(split(pbc(shared), 4), "contingency", formula="~ sex + spiders")
    found = by_name(result)
    assert result.details["counts"] == [r["counts"]]
    for name, key in (("chi-squared", "plain"), ("chi-squared, Yates' correction", "yates")):
        assert close(found[name].statistic, r[key]["statistic"])
        assert close(found[name].p, r[key]["p"])
    fisher = found["Fisher's exact test"]
    assert close(fisher.p, r["fisher"]["p"])
    for mine, theirs in (("odds_ratio", "odds"), ("lower", "lower"), ("upper", "upper")):
        assert close(fisher.details[0][mine], r["fisher"][theirs]), mine


def test_a_larger_table_and_a_table_in_strata_equal_r(shared):
    r = reference("tests")
    found = by_name(federate(split(pbc(shared), 3), "contingency", formula="~ stage + edema"))
    assert close(found["chi-squared"].statistic, r["three"]["statistic"])
    assert (found["chi-squared"].df, list(found)) == (r["three"]["df"], ["chi-squared"])
    test = by_name(federate(split(pbc(shared), 3), "contingency", formula="~ sex + spiders + strata(stage)"))
    cmh = test["Cochran-Mantel-Haenszel"]
    assert close(cmh.statistic, r["cmh"]["statistic"])
    assert close(cmh.p, r["cmh"]["p"])
    told = cmh.details[0]
    assert close(told["common_odds_ratio"], r["cmh"]["odds"])
    assert close(told["lower"], r["cmh"]["lower"])
    assert close(told["upper"], r["cmh"]["upper"])


def test_strata_of_larger_tables_and_small_differences_equal_r(shared):
    r = reference("tests")
    wide = by_name(federate(split(pbc(shared), 3), "contingency", formula="~ edema + sex + strata(spiders)"))
    assert close(wide["Cochran-Mantel-Haenszel"].statistic, r["wide"]["statistic"])
    assert wide["Cochran-Mantel-Haenszel"].df == r["wide"]["df"]
    near = by_name(federate(split(strata([5, 6, 6, 7], [4, 3, 3, 3]), 3), "contingency", formula="~ b + a + strata(s)"))
    assert close(near["Cochran-Mantel-Haenszel"].statistic, r["close"]["statistic"])


def strata(*tables: list[int]) -> pd.DataFrame:
    cells = [("x", "p"), ("x", "q"), ("y", "p"), ("y", "q")]
    rows = [(a, b, f"s{k}") for k, t in enumerate(tables) for (a, b), n in zip(cells, t, strict=True) for _ in range(n)]
    return pd.DataFrame(rows, columns=["a", "b", "s"])


def test_strata_that_tell_nothing_are_named():
    with pytest.raises(ConstantColumn, match="within strata"):
        federate(split(strata([5, 6, 0, 0], [0, 0, 4, 8]), 3), "contingency", formula="~ a + b + strata(s)")
    with pytest.raises(BadFormula, match="single sites"):
        federate(split(strata([5, 6, 6, 7]), 2), "contingency", formula="~ a + b + strata(site)")


def test_a_table_with_a_small_cell_is_not_shown():
    frame = pd.DataFrame({"a": ["x"] * 30 + ["y"] * 33, "b": ["p", "q"] * 15 + ["p"] * 30 + ["q"] * 3})
    with pytest.raises(BadLevel, match="fewer than 5 persons"):  # of two by two, each cell tells all others
        federate(split(frame, 3), "contingency", thresholds=Thresholds(), formula="~ a + b")


def test_a_small_cell_of_a_stratum_is_not_shown_either():
    frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["p", "p", "q", "q"] * 25, "s": ["u"] * 88 + ["v"] * 12})
    frame = frame.sample(frac=1, random_state=1)
    with pytest.raises(BadLevel, match="fewer than 5 persons"):
        federate(split(frame, 2), "contingency", thresholds=Thresholds(), formula="~ a + b + strata(s)")


def test_a_small_cell_is_hidden_with_others_that_would_tell_it_and_there_is_no_test():
    counts = np.array([[3, 40, 31, 22], [38, 20, 29, 27], [19, 25, 30, 28]])
    rows = [(f"a{i}", f"b{j}") for i, j in np.ndindex(counts.shape) for _ in range(counts[i, j])]
    frame = pd.DataFrame(rows, columns=["a", "b"]).sample(frac=1, random_state=2)
    result = federate(split(frame, 3), "contingency", thresholds=Thresholds(), formula="~ a + b")
    told = np.array(result.details["counts"][0], dtype=float)
    hidden = np.isnan(told)
    assert hidden[0, 0]
    assert np.array_equal(told[~hidden], counts[~hidden])
    assert (hidden.sum(axis=0)[hidden.any(axis=0)] >= 2).all()
    assert (hidden.sum(axis=1)[hidden.any(axis=1)] >= 2).all()
    assert result.tests == ()
    assert "hidden" in result.summary()
    assert result.plot()


def test_a_person_with_many_rows_in_a_cell_is_one_person():
    often = pd.DataFrame({"a": "x", "b": "q", "pid": "often"}, index=range(9))
    others = pd.DataFrame({"a": ["x", "y", "y"] * 40, "b": ["p", "p", "q"] * 40})
    others = others.assign(pid=[f"p{i}" for i in range(120)]).sample(frac=1, random_state=3)
    parts = split(others, 3)
    parts[0] = pd.concat([parts[0], often], ignore_index=True)
    with pytest.raises(BadLevel, match="fewer than 5 persons"):  # nine rows, one person
        federate(parts, "contingency", thresholds=Thresholds(), formula="~ a + b", person="pid")


def test_no_table_and_no_variation_are_named():
    frame = pd.DataFrame({"a": ["x", "y"] * 20, "b": ["p"] * 40})
    with pytest.raises(ConstantColumn):
        federate(split(frame, 2), "contingency", formula="~ a + b")
    with pytest.raises(BadFormula, match="row"):
        federate(split(frame, 2), "contingency", formula="~ a")


def test_levels_may_hold_commas():
    frame = pd.DataFrame({"a": ["x, or y", "z"] * 20, "b": ["p", "q", "q", "p=1, 2"] * 10})
    told = federate(split(frame, 3), "contingency", formula="~ a + b").details
    assert (told["rows"], len(told["counts"][0])) == (["a=x, or y", "a=z"], 2)


def test_a_table_with_an_empty_cell_has_an_infinite_odds_ratio():
    frame = pd.DataFrame({"a": ["x"] * 12 + ["y"] * 20, "b": ["p"] * 12 + ["p"] * 8 + ["q"] * 12})
    fisher = by_name(federate(split(frame, 2), "contingency", formula="~ a + b"))["Fisher's exact test"]
    assert fisher.details[0]["odds_ratio"] == float("inf")
    assert fisher.details[0]["upper"] == float("inf")
    assert 0 < fisher.details[0]["lower"] < 100
