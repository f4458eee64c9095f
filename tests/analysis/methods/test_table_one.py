from __future__ import annotations

import numpy as np
import pytest

from ihds.errors import BadFormula, ConstantColumn
from ihds.privacy.disclosure import Thresholds
from tests.conftest import close, federate, pbc, reference, split


def rows(result):
    return {row["variable"]: row for row in result.details["rows"]}


def test_means_counts_and_tests_equal_r(shared):
    r = reference("ranks")["table_one"]
    result = federate(split(pbc(shared), 4), "table_one", formula="~ age + stage", by="sex")
    assert result.details["groups"] == ["f", "m"]
    age, stage = rows(result)["age"], rows(result)["stage"]
    assert np.allclose(age["mean"], r["age"]["mean"], rtol=1e-10)
    assert np.allclose(age["sd"], r["age"]["sd"], rtol=1e-8)
    assert close(age["p"], r["age"]["p"])
    assert close(age["smd"], r["age"]["smd"])
    assert np.transpose(stage["counts"]).tolist() == r["stage"]["counts"]
    assert close(stage["p"], r["stage"]["p"])


def test_a_small_level_is_hidden_in_all_groups_and_never_alone(shared):
    result = federate(split(pbc(shared), 4), "table_one", thresholds=Thresholds(), formula="~ stage", by="sex")
    stage = rows(result)["stage"]
    assert [c is None for c in stage["counts"]] == [True, True, False, False]  # 3 men at l1; l2 is next smallest
    assert stage["p"] is None


def test_one_group_and_no_group_are_named(shared):
    frame = pbc(shared)
    with pytest.raises(ConstantColumn):
        federate(split(frame.assign(sex="f"), 3), "table_one", formula="~ age", by="sex")
    with pytest.raises(BadFormula):
        federate(split(frame, 3), "table_one", formula="~ age", by="")
    with pytest.raises(BadFormula, match="both"):
        federate(split(frame, 3), "table_one", formula="~ age + sex", by="sex")
