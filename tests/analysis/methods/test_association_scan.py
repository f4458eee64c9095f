from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.errors import BadFormula, Refused
from ihds.privacy.disclosure import Thresholds
from tests.conftest import close, federate, genotypes, reference, split


@pytest.fixture(scope="module")
def cohort(shared):
    return genotypes(shared)


def found(result, r):
    frame = pd.DataFrame(result.details["features"]).set_index("feature")
    return frame.loc[[f"snp_{i}" for i in r["id"]]]


def test_linear_scans_equal_r_and_plink(cohort):
    r = reference("genetics")["linear"]
    result = federate(split(cohort, 3), "association_scan", formula="Y1 ~ V1 + V2 + V3", features="snp_*")
    mine = found(result, reference("genetics"))
    for name, theirs in (("estimate", "beta"), ("se", "se"), ("p", "p")):
        assert np.allclose(mine[name], r[theirs], rtol=1e-8)
    assert np.allclose(mine["estimate"], r["plink2"]["beta"], rtol=1e-4)
    assert 0.8 < result.details["inflation"] < 1.2


def test_binary_traits_equal_raos_test(cohort):
    r = reference("genetics")["logistic"]
    result = federate(
        split(cohort, 3), "association_scan", formula="B1 ~ V1 + V2 + V3", features="snp_*", family="binomial"
    )
    mine = found(result, reference("genetics"))
    assert np.allclose(mine["statistic"], r["rao"], rtol=1e-8)
    assert np.allclose(mine["p"], r["rao_p"], rtol=1e-7)


def masked(cohort):
    """Return the cohort with a genotype missing where 29 divides 7 i + 13 j, persons and variants from 0."""
    frame = cohort.copy()
    names = [c for c in frame.columns if c.startswith("snp_")]
    gone = (7 * np.arange(len(frame))[:, None] + 13 * np.arange(len(names))[None, :]) % 29 == 0
    frame[names] = frame[names].mask(gone)
    return frame


def test_a_missing_genotype_counts_as_the_mean_as_in_r_with_the_mean_filled_in(cohort):
    r, parts = reference("genetics"), split(masked(cohort), 3)
    linear = found(federate(parts, "association_scan", formula="Y1 ~ V1 + V2 + V3", features="snp_*"), r)
    for name, theirs in (("estimate", "beta"), ("se", "se"), ("p", "p")):
        assert np.allclose(linear[name], r["masked"]["filled"]["linear"][theirs], rtol=1e-8)
    binary = found(
        federate(parts, "association_scan", formula="B1 ~ V1 + V2 + V3", features="snp_*", family="binomial"), r
    )
    assert np.allclose(binary["statistic"], r["masked"]["filled"]["logistic"]["rao"], rtol=1e-8)
    quality = found(federate(parts, "genotype_qc", features="snp_*"), r)
    assert np.allclose(quality["hardy_weinberg_p"], r["masked"]["freq_hwe"]["p"], rtol=1e-9)


def test_exact_equilibrium_tests_equal_plink(cohort):
    r = reference("genetics")
    mine = found(federate(split(cohort, 3), "genotype_qc", features="snp_*"), r)
    assert np.allclose(mine["hardy_weinberg_p"], r["freq_hwe"]["p"], rtol=1e-9)
    assert np.allclose(mine["hardy_weinberg_p"], r["freq_hwe"]["plink2_p"], rtol=1e-4)
    assert np.allclose(mine["frequency"], r["freq_hwe"]["a1_freq"], rtol=1e-12)


def test_ancestry_components_equal_the_relationship_matrix(cohort):
    r = reference("genetics")["pca"]
    result = federate(split(cohort, 3), "principal_components", features="snp_*", scaling="genotype", components=4)
    variances = np.square(result.details["sd"]) * (len(cohort) - 1) / r["snps"]
    assert np.allclose(variances, r["values"][:4], rtol=1e-8)


def test_many_variants_of_few_persons_are_refused(cohort):
    few = cohort.iloc[:300]
    more = few.assign(**{"snp_more": few["snp_1"]})
    with pytest.raises(Refused, match="among them"):
        federate(split(more, 3), "association_scan", thresholds=Thresholds(), formula="Y1 ~ V1", features="snp_*")
    with pytest.raises(BadFormula):
        federate(split(few, 3), "association_scan", formula="~ V1", features="snp_*")
    assert close(federate(split(few, 3), "association_scan", formula="Y1 ~ V1", features="snp_1").n, 300)


def test_one_carrier_among_very_many_persons_is_left_out_and_spoils_nothing():
    rng = np.random.default_rng(8)
    n = 100_000
    frame = pd.DataFrame(
        {"age": rng.normal(60, 9, n), "rs1": rng.binomial(2, 0.3, n).astype(float), "rs2": np.zeros(n)}
    )
    frame["y"] = 0.1 * frame["rs1"] + rng.normal(size=n)
    frame.loc[4, "rs2"] = 1.0
    parts = [frame.iloc[i::3].reset_index(drop=True) for i in range(3)]
    result = federate(parts, "association_scan", thresholds=Thresholds(), formula="y ~ age", features="rs*")
    assert result.details["features"]["feature"] == ["rs1"]
    assert result.details["hidden_features"] == 1
