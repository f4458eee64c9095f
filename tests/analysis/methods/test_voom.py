from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.errors import BadFormula, BadTable
from ihds.privacy.disclosure import Thresholds
from tests.conftest import close, federate, reference


def counted(shared) -> list[pd.DataFrame]:
    """Return the simulated counts by site, as samples x genes with the samples' columns."""
    at = shared / "data/synthetic-rnaseq"
    samples = pd.read_csv(at / "samples.csv")
    counts = pd.read_csv(at / "counts.csv.gz", index_col=0).T
    counts = counts.loc[samples["sample"]].add_prefix("n_").reset_index(drop=True).astype(float)
    whole = pd.concat([samples[["site", "group"]], counts], axis=1)
    if whole["group"].dtype == object:
        whole["group"] = (whole["group"] == sorted(whole["group"].unique())[-1]).astype(float)
    whole["group"] = whole["group"].astype(float)
    return [part.reset_index(drop=True) for _, part in whole.groupby("site")]


@pytest.fixture(scope="module")
def sites(shared):
    return counted(shared)


def test_weights_and_moderated_tests_equal_limma(sites):
    whole = reference("omics")["rnaseq"]
    r = whole["voom"]
    result = federate(sites, "voom", formula="~ site + group", features="n_*", term="group")
    found = pd.DataFrame(result.details["features"]).set_index("feature")
    assert len(found) == whole["n_genes"]
    mine = found.loc[[f"n_{g}" for g in whole["genes"]]]
    assert np.allclose(mine["estimate"], r["logfc"], rtol=1e-8)
    assert np.allclose(mine["t"], r["t"], rtol=1e-8)
    assert np.allclose(mine["p"], r["p"], rtol=1e-7)
    assert np.allclose(mine["adjusted_p"], r["q"], rtol=1e-7)
    assert np.allclose(mine["mean"], r["average"], rtol=1e-9)
    assert close(result.details["prior_df"], r["d0"], 1e-6)
    assert close(result.details["prior_variance"], r["s0"], 1e-8)
    assert result.details["below_5_per_cent"] == r["fdr05"]
    assert close(found["t"].sum(), r["sum_t"], 1e-8)


def test_the_split_does_not_matter(sites):
    whole = pd.concat([s.iloc[:, :60] for s in sites], ignore_index=True)
    parts = [whole.iloc[i::4].reset_index(drop=True) for i in range(4)]
    one, four = (
        pd.DataFrame(federate(p, "voom", formula="~ group", features="n_*").details["features"])
        for p in ([whole], parts)
    )
    assert np.allclose(one["t"], four["t"], rtol=1e-9)


def test_genes_of_few_persons_are_left_out_and_what_is_no_count_is_told(sites):
    parts = [s.iloc[:, :22].copy() for s in sites]
    parts[0]["n_few"] = 0.0
    parts[0].loc[[0, 1], "n_few"] = [9.0, 14.0]
    for part in parts[1:]:
        part["n_few"] = 0.0
    result = federate(parts, "voom", thresholds=Thresholds(), formula="~ group", features="n_*")
    assert "n_few" not in result.details["features"]["feature"]
    assert result.details["hidden_features"] == 1
    without = federate([p.drop(columns="n_few") for p in parts], "voom", formula="~ group", features="n_*")
    mean, trend = without.details["features"]["mean"], result.details["trend"]["log2_count"]
    assert trend[-1] - trend[0] == pytest.approx(max(mean) - min(mean), abs=0.05)  # no end is the hidden gene's mean
    parts[1].loc[0, "n_few"] = 0.5
    with pytest.raises(BadTable, match="no counts"):
        federate(parts, "voom", formula="~ group", features="n_*")
    with pytest.raises(BadFormula, match="no model"):
        federate(parts, "voom", formula="~ 1", features="n_*")
