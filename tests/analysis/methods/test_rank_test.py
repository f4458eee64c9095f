from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.errors import BadFormula, BadInput, ConstantColumn
from tests.conftest import close, federate, pbc, reference, split


def test_wilcoxon_and_kruskal_equal_r(shared):
    r = reference("ranks")
    for continuity, name in ((True, "wilcoxon"), (False, "plain")):
        result = federate(split(pbc(shared), 4), "rank_test", formula="bili ~ sex", step=0.1, continuity=continuity)
        assert close(result.tests[0].statistic, r[name]["statistic"])
        assert close(result.tests[0].p, r[name]["p"])
    result = federate(split(pbc(shared), 4), "rank_test", formula="albumin ~ stage", step=0.01)
    assert close(result.tests[0].statistic, r["kruskal"]["statistic"])
    assert result.tests[0].df == r["kruskal"]["df"]
    assert close(result.tests[0].p, r["kruskal"]["p"])


def test_one_value_one_group_and_a_fine_step_are_named(shared):
    parts = split(pbc(shared), 3)
    with pytest.raises(BadInput, match="step"):
        federate(parts, "rank_test", formula="bili ~ sex", step=1e-9)
    with pytest.raises(ConstantColumn):
        federate(split(pd.DataFrame({"y": np.arange(20.0), "g": "a"}), 2), "rank_test", formula="y ~ g")
    with pytest.raises(ConstantColumn, match="step"):
        federate(parts, "rank_test", formula="bili ~ sex", step=1e4)
    with pytest.raises(BadFormula):
        federate(parts, "rank_test", formula="bili ~ age")
