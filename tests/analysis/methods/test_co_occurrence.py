from __future__ import annotations

import pytest

from ihds.errors import BadInput
from ihds.privacy.disclosure import Thresholds
from tests.conftest import close, federate, mutations, reference


@pytest.fixture(scope="module")
def hospitals(shared):
    return mutations(shared, reference("co_occurrence")["genes"])


def test_pairs_of_mutated_genes_equal_fishers_test(hospitals):
    r = reference("co_occurrence")
    result = federate(hospitals, "co_occurrence", features="mut_*")
    assert result.n == r["n"]
    assert len(hospitals) > 10
    found = {frozenset((row["first"], row["second"])): row for row in result.details["pairs"]}
    assert len(found) == len(r["pairs"]) == 45
    for pair in r["pairs"]:
        mine = found[frozenset((f"mut_{pair['first']}", f"mut_{pair['second']}"))]
        assert mine["both"] == pair["both"]
        assert close(mine["odds_ratio"], pair["odds"], 1e-12)
        assert close(mine["p"], pair["p"], 1e-9)
    carriers = {row["feature"]: row["carriers"] for row in result.details["carriers"]}
    assert [carriers[f"mut_{gene}"] for gene in r["genes"]] == r["carriers"]
    assert [row["p"] for row in result.details["pairs"]] == sorted(row["p"] for row in result.details["pairs"])


def test_small_cells_and_what_one_site_alone_has_are_hidden(hospitals):
    strict = Thresholds(min_cell=20)
    told = federate(hospitals, "co_occurrence", thresholds=strict, features="mut_*").details
    assert told["hidden_pairs"] > 0
    assert all(row["both"] >= 20 for row in told["pairs"])
    parts = [part.assign(mut_own=0.0) for part in hospitals]
    big = max(range(len(parts)), key=lambda i: len(parts[i]))
    parts[big].loc[:11, "mut_own"] = 1.0
    told = federate(parts, "co_occurrence", thresholds=Thresholds(), features="mut_*").details
    assert next(row for row in told["carriers"] if row["feature"] == "mut_own")["carriers"] is None
    assert not any("mut_own" in (row["first"], row["second"]) for row in told["pairs"])
    with pytest.raises(BadInput, match="1 features"):
        federate(hospitals, "co_occurrence", features="mut_TP53")
