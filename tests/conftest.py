"""What the tests share: the real data beside the checkout, reference numbers, small federations."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from ihds.analysis.plan import Plan, run
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook, agree
from ihds.data.table import conform, draft_codebook, read_table
from ihds.privacy.disclosure import Thresholds

os.environ["IHDS_SECRETS"] = tempfile.mkdtemp(prefix="ihds-test-secrets-")  # passphrases of nodes made by tests

# The same draws in every run, so that a test says the same of the same code; `make fuzz` draws anew.
settings.register_profile("same", derandomize=True)
settings.load_profile("default" if os.environ.get("IHDS_FUZZ") else "same")

ROOT = Path(__file__).parent.parent
VECTORS = Path(__file__).parent / "vectors"


def unavailable(what: str) -> None:
    """Skip, saying so; where everything must be there (IHDS_REQUIRE_ALL), fail."""
    (pytest.fail if os.environ.get("IHDS_REQUIRE_ALL") else pytest.skip)(what)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; tests that need it say so when it is absent."""
    path = Path(os.environ.get("IHDS_SHARED", ROOT.parent / "shared"))
    if not (path / "data").is_dir():
        unavailable("the real data (../shared) are not beside this checkout")
    return path


def reference(name: str) -> dict[str, Any]:
    """Return the numbers R gave, with the script beside them."""
    return json.loads((VECTORS / f"{name}.json").read_text())


def split(frame: pd.DataFrame, sites: int, by: str | None = None) -> list[pd.DataFrame]:
    """Split rows over sites, by row number or by a column's number."""
    key = frame[by].astype(int) if by else pd.Series(np.arange(len(frame)), index=frame.index)
    return [frame[key % sites == i].reset_index(drop=True) for i in range(sites)]


def pbc(shared: Path) -> pd.DataFrame:
    """Return the PBC trial with its coded columns as categories."""
    frame = read_table(shared / "data/survival-reference/pbc.csv")
    for name in ("stage", "sex", "spiders", "edema"):
        frame[name] = frame[name].map(lambda v: v if isinstance(v, str) else None if pd.isna(v) else f"l{v:g}")
    return frame


def competing(shared: Path) -> pd.DataFrame:
    """Return the PBC trial with its status as a cause: censored, transplant, death."""
    frame = pbc(shared)
    frame["cause"] = frame["status"].map({0: "censored", 1: "transplant", 2: "death"})
    return frame


def by_name(result: Result) -> dict[str, Any]:
    """Return the tests of a result by name."""
    return {test.name: test for test in result.tests}


def federate(
    parts: list[pd.DataFrame],
    method: str,
    *,
    thresholds: Thresholds | None = None,
    codebook: Codebook | None = None,
    person: str = "",
    **params: Any,
) -> Result:
    """Run a method over parts, without thresholds unless given."""
    if codebook is None:
        parts = [read_table(p) for p in parts]
        whole = pd.concat(parts, ignore_index=True)
        drafted = draft_codebook("test", whole, person)
        codebook = agree({"all": drafted})
    tables = [conform(p, codebook, f"site {i}") for i, p in enumerate(parts)]
    plan = Plan(method, params, codebook, thresholds or Thresholds.none(), len(parts))
    return run(plan, tables)


def close(actual: float, expected: float, relative: float = 1e-8, absolute: float = 1e-10) -> bool:
    """Compare as the issue asks: 1e-8 relative for exact methods."""
    return abs(actual - expected) <= max(relative * abs(expected), absolute)


def assert_equal(result: Result, r: dict[str, Any], *, relative: float = 1e-8) -> None:
    """Compare coefficients, standard errors, log-likelihoods and n with R's."""
    got, errors = [c.estimate for c in result.coefficients], [c.se for c in result.coefficients]
    assert len(got) == len(r["coef"])
    assert np.allclose(got, r["coef"], rtol=relative, atol=1e-10), (got, r["coef"])
    assert np.allclose(errors, r["se"], rtol=relative), (errors, r["se"])
    assert close(result.log_likelihood["fitted"], r["loglik"], 1e-9)
    assert close(result.log_likelihood["null"], r["loglik_null"], 1e-9)
    assert result.n == r["n"]


def parkinsons(shared: Path) -> pd.DataFrame:
    """Return the voice recordings of Parkinson's patients."""
    frame = read_table(shared / "data/parkinsons-telemonitoring/parkinsons_updrs.csv")
    return frame.rename(columns={"subject#": "subject"})


def generated_docs():
    """Return the script that makes the reference pages, as a module."""
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts/generate_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mutations(shared: Path, genes: list[str]) -> list[pd.DataFrame]:
    """Return who carries a mutation of each gene in TCGA-BLCA, by hospital, those of few patients together."""
    at = shared / "data/tcga-blca"
    found = pd.read_csv(at / "mutations.csv.gz", usecols=["patient", "gene"])
    clinical = pd.read_csv(at / "clinical.csv", usecols=["patient", "tissue_source_site"])
    frame = clinical[clinical["patient"].isin(set(found["patient"]))].reset_index(drop=True)
    for gene in genes:
        frame[f"mut_{gene}"] = frame["patient"].isin(set(found.loc[found["gene"] == gene, "patient"])).astype(float)
    size = frame["tissue_source_site"].map(frame["tissue_source_site"].value_counts())
    site = frame["tissue_source_site"].where(size >= 10, "others")
    return [
        part.drop(columns=["patient", "tissue_source_site"]).reset_index(drop=True) for _, part in frame.groupby(site)
    ]


def genotypes(shared: Path) -> pd.DataFrame:
    """Return 500 persons with traits, covariates and copies of the first allele (A1) of 1000 variants."""
    at = shared / "data/gwas-toy/regenie"
    people = pd.read_csv(at / "example.fam", sep=r"\s+", header=None)
    variants = pd.read_csv(at / "example.bim", sep=r"\s+", header=None)[1]
    packed = np.fromfile(at / "example.bed", dtype=np.uint8)[3:].reshape(len(variants), -1)
    pairs = (packed[:, :, None] >> np.array([0, 2, 4, 6])) & 3
    copies = np.array([2.0, np.nan, 1.0, 0.0])[pairs.reshape(len(variants), -1)[:, : len(people)]]
    frame = pd.DataFrame(copies.T, columns=[f"snp_{v}" for v in variants])
    for name in ("phenotype.txt", "covariates.txt"):
        own = pd.read_csv(at / name, sep=r"\s+").set_index("IID").loc[people[1]]
        for column in own.columns.drop("FID"):
            frame[column] = own[column].to_numpy(dtype=float)
    binary = pd.read_csv(at / "phenotype_bin.txt", sep=r"\s+").set_index("IID").loc[people[1]]
    frame["B1"] = binary["Y1"].to_numpy(dtype=float)
    return frame
