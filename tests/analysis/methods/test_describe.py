from __future__ import annotations

import pandas as pd

from ihds.data.table import read_table
from ihds.privacy.disclosure import Thresholds
from tests.conftest import close, federate, reference, split


def test_description_equals_r(shared):
    frame = read_table(shared / "data/survival-reference/pbc.csv")
    r = reference("describe")
    names = (*r["numbers"], "sex")
    rows = {x["variable"]: x for x in federate(split(frame, 5), "describe", variables=names).table}
    for name, expected in r["numbers"].items():
        assert (rows[name]["n"], rows[name]["missing"]) == (expected["n"], expected["missing"])
        assert close(rows[name]["mean"], expected["mean"])
        assert close(rows[name]["sd"], expected["sd"])
    assert rows["sex"]["counts"] == r["sex"]


def test_small_cells_and_their_complement_are_hidden():
    arm = ["a"] * 40 + ["b"] * 3 + ["c"] * 20
    frame = pd.DataFrame({"arm": arm})
    row = federate(split(frame, 3), "describe", thresholds=Thresholds()).table[0]
    assert row["counts"] == {"a": 40, "b": None, "c": None}


def test_a_level_of_one_site_is_hidden():
    parts = [pd.DataFrame({"arm": ["a"] * 20 + [extra] * 10}) for extra in ("a", "a", "z")]
    row = federate(parts, "describe", thresholds=Thresholds()).table[0]
    assert row["counts"]["z"] is None
