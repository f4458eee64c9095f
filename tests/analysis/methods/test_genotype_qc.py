from __future__ import annotations

from fractions import Fraction
from math import factorial

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.methods.genotype_qc import hardy_weinberg
from ihds.errors import BadTable
from ihds.privacy.disclosure import Thresholds
from tests.conftest import federate, split


def genotypes(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(rng.binomial(2, [0.3, 0.02, 0.5], (n, 3)).astype(float), columns=["rs1", "rs2", "rs3"])
    frame.loc[::10, "rs3"] = np.nan
    return frame


def test_counts_frequencies_and_exact_test():
    frame = genotypes(800)
    found = pd.DataFrame(federate(split(frame, 3), "genotype_qc", features="rs*").details["features"])
    assert np.allclose(found["frequency"], frame.mean() / 2, rtol=1e-12)
    assert np.allclose(found["call_rate"], frame.notna().mean(), rtol=1e-12)
    for counts in ((83, 13, 4), (81, 17, 2), (2, 17, 81), (50, 0, 0), (10, 21, 9)):
        assert hardy_weinberg(*counts) == pytest.approx(float(counted(*counts)), rel=1e-12)


def counted(none: int, one: int, two: int) -> Fraction:
    """Return the exact test by counting arrangements in whole numbers."""
    n, rare = none + one + two, one + 2 * min(none, two)
    ways = {
        h: Fraction(factorial(n) * 2**h, factorial(h) * factorial((rare - h) // 2) * factorial(n - (rare + h) // 2))
        for h in range(rare % 2, rare + 1, 2)
        if n - (rare + h) // 2 >= 0
    }
    return sum(w for w in ways.values() if w <= ways[one]) / sum(ways.values())


def test_frequencies_of_small_cohorts_and_rare_carriers_are_not_shown():
    small = federate(split(genotypes(300), 3), "genotype_qc", thresholds=Thresholds(), features="rs*")
    assert small.details["features"]["frequency"] == [None, None, None]
    rare = genotypes(800).assign(rs2=[1.0] * 3 + [0.0] * 797)
    large = federate(split(rare, 3), "genotype_qc", thresholds=Thresholds(), features="rs*")
    assert [f is None for f in large.details["features"]["frequency"]] == [False, True, False]


def test_values_that_are_no_allele_counts_are_named():
    with pytest.raises(BadTable, match="0, 1 and 2"):
        federate(split(genotypes(90).assign(rs1=7.0), 3), "genotype_qc", features="rs*")
