from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.analysis import genesets
from ihds.errors import BadInput
from tests.conftest import federate, reference, split


def test_sets_equal_camera():
    r = reference("genesets")
    genes = [f"g{i:03d}" for i in range(1, 201)]
    text = "; ".join(f"{name}: {' '.join(held)}" for name, held in r["sets"].items())
    found = {row["set"]: row for row in genesets.tested(text, genes, np.array(r["t"]))}
    for at, name in enumerate(r["sets"]):
        row = found[name]
        assert (row["genes"], row["direction"]) == (r["genes"][at], r["direction"][at])
        assert row["p"] == pytest.approx(r["p"][at], rel=1e-9)
        assert row["adjusted_p"] == pytest.approx(r["fdr"][at], rel=1e-9)


def test_sets_of_a_study_use_what_is_shown_and_wrong_ones_are_told():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(60, 30)), columns=[f"g{j:02d}" for j in range(30)])
    frame["arm"] = np.repeat([0.0, 1.0], 30)
    frame.loc[frame.arm == 1, [f"g{j:02d}" for j in range(8)]] += 1.0
    call = {"formula": "~ arm", "features": "g*"}
    result = federate(split(frame, 3), "differential_expression", sets="up: g00 g01 g02 g03; rest: g2*", **call)
    assert [row["set"] for row in result.details["sets"]] == ["up", "rest"]
    assert result.details["sets"][0]["direction"] == "up"
    for wrong in ("up", "up: ", "a: g00; a: g01", ": g00"):
        with pytest.raises(BadInput, match="cannot be read"):
            federate(split(frame, 3), "differential_expression", sets=wrong, **call)
    with pytest.raises(BadInput, match="holds 0 of 30"):
        federate(split(frame, 3), "differential_expression", sets="none: tp53", **call)
