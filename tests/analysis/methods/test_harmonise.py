from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.plan import Plan
from ihds.data.codebook import agree
from ihds.data.table import conform, draft_codebook, read_table
from ihds.errors import Refused
from ihds.privacy.disclosure import Thresholds
from tests.analysis.methods.test_differential_expression import bladder
from tests.analysis.test_harmonise import KINDS, made
from tests.conftest import federate, reference


@pytest.mark.parametrize("kind", KINDS)
def test_shares_between_sites_equal_those_of_the_pooled_rows(shared, kind):
    whole = reference("omics")["bladder"]
    r = whole["harmonised"]
    keep = {} if kind == "quantile" else {"keep": "~ invasive"}
    result = federate(bladder(shared), "harmonise", features="g_*", harmonise=kind, **keep)
    found = pd.DataFrame(result.details["features"]).set_index("feature").loc[[f"g_{g}" for g in whole["genes"]]]
    assert np.allclose(found["between_before"], r["before"], rtol=1e-8)
    assert np.allclose(found["between_after"], r[kind]["share"], rtol=1e-8, atol=1e-11)
    assert np.isclose(result.details["mean_before"], r["mean_before"], rtol=1e-8)
    assert np.isclose(result.details["mean_after"], r[kind]["mean_share"], rtol=1e-8)
    assert result.details["by_chance"] == pytest.approx(2 / 84)
    assert "between sites: 89.6 % of the variance before" in result.summary()
    assert result.plot().axes[0].get_xlabel() == "share of variance between sites"


def test_batch_effects_without_covariates_leave_nothing_between_sites():
    result = federate(made(), "harmonise", features="g_*", harmonise="batch")
    assert result.details["mean_before"] > 0.3
    assert max(result.details["features"]["between_after"]) < 1e-18
    assert result.details["left_as_they_are"] == 0


def rounds(parts, thresholds, call):
    """Return the method's totals, round by round, up to the result or a refusal."""
    tables = [read_table(p) for p in parts]
    codebook = agree({"all": draft_codebook("test", pd.concat(tables, ignore_index=True), "")})
    plan = Plan("harmonise", call, codebook, thresholds, len(parts))
    works, state, seen = [plan.work(conform(t, codebook, "a site")) for t in tables], plan.begin(), []
    try:
        while (result := plan.finish(state)) is None:
            answers = [work.local(state) for work in works]
            flat = [plan.flatten(state, a) for a in answers]
            words = np.sum([w for _, w in flat], axis=0, dtype=np.uint64)
            seen.append(plan.total(state, type(answers[0]).__name__, flat[0][0], words))
            state = plan.aggregate(state, seen[-1])
    except Refused as refused:
        return seen, refused
    return seen, result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sites", [2, 3])
def test_few_sites_are_refused_before_more_than_counts_is_known(kind, sites):
    call = {"features": "g_*", "harmonise": kind}
    seen, refused = rounds([*made(sites=sites), made()[0].iloc[:0]], Thresholds(), call)
    assert isinstance(refused, Refused)
    assert "would tell the mean of one" in refused.message
    assert {type(total).__name__ for total in seen} <= {"Dictionary", "Moments", "Weights", "Magnitudes"}
    _, result = rounds(made(), Thresholds(), call)
    assert len(result.details["features"]["feature"]) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_a_feature_of_few_sites_is_hidden_and_its_squares_are_not_sent(kind):
    parts = made(sites=5)
    parts[3]["g_04"] = parts[4]["g_04"] = np.nan
    seen, result = rounds(parts, Thresholds(), {"features": "g_*", "harmonise": kind})
    assert "g_04" not in result.details["features"]["feature"]
    assert result.details["hidden_features"] == 1
    for total in seen:
        if type(total).__name__ in ("SpreadWeights", "Shares"):
            assert not total.before[4].any()
            assert not total.after[4].any()


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_few_persons_are_hidden_and_their_shares_not_sent(kind):
    parts = made()
    for part in parts:
        part["g_05"] = 0.02 * (part["g_05"] - part["g_05"].mean())
    parts[0].loc[:1, "g_05"] = [3.0, 4.0]  # two persons make nearly all of the variance
    seen, result = rounds(parts, Thresholds(), {"features": "g_*", "harmonise": kind})
    assert "g_05" not in result.details["features"]["feature"]
    assert not seen[-1].before[5].any()
    assert not seen[-1].after[5].any()


def test_features_that_do_not_vary_have_no_share_and_are_counted():
    flat = [p.assign(g_07=2.5) for p in made()]
    result = federate(flat, "harmonise", features="g_*", harmonise="combat")
    at = result.details["features"]["feature"].index("g_07")
    assert result.details["features"]["between_before"][at] == 0.0
    assert result.details["left_as_they_are"] == 1
