"""Dominance judged from power sums: never lets through what the rules themselves refuse, and refuses little else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ihds.errors import BadLevel
from ihds.privacy.disclosure import Thresholds
from ihds.privacy.dominance import dominated
from tests.conftest import federate, split

FAR = 64.0


def breaks(values: np.ndarray, limits: Thresholds) -> bool:
    """Judge by the words of the rules, from every contribution."""
    size = np.sort(np.abs(values))[::-1]
    whole = size.sum()
    nk = limits.dominance_k > 0 and size[: limits.dominance_k].sum() > limits.dominance_share * whole
    return bool(nk or whole - size[0] - size[1] < limits.p_percent / 100 * size[0])


def judged(values: np.ndarray, limits: Thresholds) -> bool:
    centre = values.mean()
    unit = 2.0 ** np.round(np.log2(values.std())) if values.std() > 0 else 1.0
    z = np.minimum(np.abs(values - centre) / unit, FAR)
    sums = (np.array([float(v)]) for v in (len(values), centre / unit, (z**2).sum(), (z**4).sum()))
    return bool(dominated(*sums, FAR, limits)[0])


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(3, 60),
    sigma=st.sampled_from([0.1, 1.0, 2.5]),
    big=st.sampled_from([0.0, 10.0, 1e3, 1e6]),
    signed=st.booleans(),
    k=st.integers(1, 4),
    share=st.sampled_from([0.3, 0.6, 0.9]),
    p=st.sampled_from([5.0, 20.0, 100.0]),
)
def test_nothing_passes_that_the_rules_refuse(seed, n, sigma, big, signed, k, share, p):
    rng = np.random.default_rng(seed)
    values = rng.lognormal(0, sigma, n) * (rng.choice([-1, 1], n) if signed else 1)
    values[: rng.integers(0, 3)] += big
    limits = Thresholds(dominance_k=k, dominance_share=share, p_percent=p)
    if breaks(values, limits):
        assert judged(values, limits)


@pytest.mark.parametrize("n", [10, 30, 300])
def test_ordinary_numbers_pass(n):
    rng = np.random.default_rng(n)
    for values in (rng.normal(60, 9, n), rng.normal(0, 1, n), rng.gamma(2, 1, n), (np.arange(n) < 5) * 1.0):
        assert not judged(values, Thresholds())


def test_a_number_that_few_persons_dominate_is_hidden_in_tables_and_refused_in_models():
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"cost": rng.lognormal(0, 0.4, 150), "arm": ["a", "b"] * 75, "y": rng.normal(size=150)})
    frame.loc[:11, "cost"] = 60.0  # six in each arm: enough for its variance to rest on, but most of the total
    parts = split(frame.sample(frac=1, random_state=1), 3)
    loose, strict = Thresholds(), Thresholds(dominance_k=6, dominance_share=0.6)
    for limits, told in ((loose, True), (strict, False)):
        row = federate(parts, "table_one", thresholds=limits, formula="~ cost", by="arm").details["rows"][0]
        assert (row["mean"] is not None) == told
    federate(parts, "glm", thresholds=loose, formula="y ~ cost")
    wider = Thresholds(dominance_k=12, dominance_share=0.6)
    with pytest.raises(BadLevel, match="few large ones"):
        federate(parts, "glm", thresholds=wider, formula="y ~ cost")
    assert federate(parts, "describe", thresholds=wider, variables=("cost",)).table[0]["mean"] is None
