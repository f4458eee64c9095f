"""Harmonised values at the sites, against sva and limma on the pooled rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.analysis import harmonise
from ihds.analysis.plan import Plan
from ihds.data.codebook import agree
from ihds.data.table import conform, draft_codebook, read_table
from ihds.errors import BadFormula, BadInput, BadTable, Collinear, OutOfRange, Refused
from ihds.privacy.disclosure import Thresholds
from tests.analysis.methods.test_differential_expression import bladder
from tests.conftest import federate, reference, split


@pytest.fixture(scope="module")
def cohorts(shared):
    return bladder(shared)


def adjusted(parts, kind, keep="~ invasive", features="g_*", thresholds=None):
    """Return what sites hold once they have harmonised, one below the other, and what they agreed on."""
    tables = [read_table(p) for p in parts]
    codebook = agree({"all": draft_codebook("test", pd.concat(tables, ignore_index=True), "")})
    call = {"formula": keep} if keep != "~ 1" and kind == "quantile" else {"keep": keep, "components": 1}
    method = "differential_expression" if "formula" in call else "principal_components"
    plan = Plan(method, {"features": features, "harmonise": kind, **call}, codebook, thresholds or Thresholds.none(), len(parts))
    works, state = [plan.work(conform(t, codebook, "a site")) for t in tables], plan.begin()
    while state.agreement.phase != "done" or plan.inner(state).harmony.stage != "ready":
        answers = [work.local(state) for work in works]
        flat = [plan.flatten(state, a) for a in answers]
        words = np.sum([w for _, w in flat], axis=0, dtype=np.uint64)
        state = plan.aggregate(state, plan.total(state, type(answers[0]).__name__, flat[0][0], words))
    harmony = plan.inner(state).harmony
    names = plan.agreement.ask.features
    found = [harmonise.adjusted(harmony, work._placed(state.agreement)).features for work in works]
    return pd.DataFrame(np.concatenate(found), columns=list(names)), harmony


def genes_of(r, genes):
    return [f"g_{g}" for g in genes]


@pytest.mark.parametrize("kind", ["combat", "combat_means", "batch", "quantile"])
def test_values_equal_those_of_the_pooled_rows(cohorts, kind):
    r = reference("omics")["bladder"]
    values, _ = adjusted(cohorts, kind)
    few = genes_of(r, r["combat"]["ended"]["genes"])
    if kind == "combat":
        assert np.allclose(values[few].T, r["combat"]["ended"]["values"], rtol=1e-8)
        assert np.isclose(values.to_numpy().sum(), r["combat"]["ended"]["sum"], rtol=1e-10)
        every = genes_of(r, r["genes"])  # as sva stops its iteration
        assert np.allclose(values[every].T, r["combat"]["values"], atol=2 * r["combat"]["ended"]["apart"])
    elif kind == "combat_means":
        assert np.allclose(values[few].T, r["harmonised"]["means"], rtol=1e-8)
    else:
        theirs = np.array(r["remove" if kind == "batch" else "quantile"]["values"])
        mine = values[genes_of(r, r["genes"])].to_numpy().T
        if kind == "batch":  # limma's level is that of a mean site, this one that of a mean person
            mine, theirs = mine - mine.mean(axis=1)[:, None], theirs - theirs.mean(axis=1)[:, None]
        assert np.allclose(mine, theirs, rtol=1e-8, atol=1e-9)
