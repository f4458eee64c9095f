"""A noisy study between real nodes: demanded, charged at each holder, and refused when the budget is spent."""

from __future__ import annotations

import pytest

from ihds.errors import Refused, TooNoisy
from tests.space import running


def test_a_noisy_study_over_three_nodes_until_the_budget_is_spent(tmp_path):
    asked = {"variables": ["tumour_count"], "privacy": {"epsilon": 10, "bounds": {"tumour_count": [0, 10]}}}
    with running(tmp_path) as nodes:
        researcher, permit = nodes.space("researcher"), nodes.permit(privacy_epsilon=64)
        with pytest.raises(Refused) as caught:
            researcher.run("describe", permit=permit, variables=["tumour_count"])
        assert any("no sum without noise" in reason for reason in caught.value.reasons)
        with pytest.raises(TooNoisy):
            researcher.run("describe", permit=permit, **{**asked, "privacy": {**asked["privacy"], "epsilon": 0.05}})
        result = researcher.run("describe", permit=permit, **asked)
        assert result.details["privacy"]["epsilon"] == "10"
        with pytest.raises(Refused) as caught:  # all that studies may learn of the persons of these datasets
            researcher.run("describe", permit=permit, **asked)
        assert any("of epsilon 10" in reason for reason in caught.value.reasons)
        left = {row["budget"].split(":")[0]: row for row in nodes.space("lih").call("study.budget")}
        assert left["dataset"]["left_rho"] == "0"
        assert left["permit"]["spent_rho"] == result.details["privacy"]["rho"]
