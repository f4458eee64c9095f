from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.plan import run
from ihds.analysis.result import Result
from ihds.data.genotypes import Variant
from ihds.data.table import draft_codebook
from ihds.errors import BadInput
from ihds.privacy.disclosure import Thresholds
from tests.analysis.test_laws import BOOK, CASES, make_plan, make_rows
from tests.conftest import federate, split

PICTURES = [
    ("anova", "size ~ arm", ["arm=a", "arm=b", "arm=c"]),
    ("contingency", "~ sex + arm", ["sex=f", "sex=m"]),
    ("correlation", "~ age + size + time", ["age", "size", "time"]),
]


@pytest.mark.parametrize(("method", "formula", "labels"), PICTURES)
def test_a_picture_names_what_was_compared(method, formula, labels):
    figure = federate(split(make_rows(3, 120), 3), method, codebook=BOOK, formula=formula).plot()
    axes = figure.axes[0]
    ticks = [t.get_text().split("\n")[0] for t in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    assert [label for label in ticks if label in labels][: len(labels)] == labels


@pytest.mark.parametrize(("method", "call"), CASES, ids=str)
def test_every_method_has_a_picture_and_a_summary(method, call):
    plan = make_plan(method, call, 6)
    rows = make_rows(5, 240)
    site = np.arange(240) // 4 % 6
    result = run(plan, [rows[site == i].reset_index(drop=True) for i in range(6)])
    again = Result.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.to_dict() == result.to_dict()
    for shown in (result, again):  # a result that came over the wire is drawn like any other
        assert shown.plot().axes[0].has_data()
        assert shown.summary().startswith(f"{method}: n = {result.n}")


def test_a_result_without_a_picture_says_so():
    with pytest.raises(BadInput, match="has no plot"):
        Result("other", 3).plot()


def scanned(places: list[tuple[str, int]]) -> Result:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({f"rs{j}": rng.binomial(2, 0.3, 400) * 1.0 for j in range(len(places) + 1)})
    frame["rs0"] = (np.arange(400) < 3) * 1.0  # of few persons: hidden
    frame["y"] = (rng.random(400) < 0.2 + 0.2 * frame["rs1"]) * 1.0
    book = draft_codebook("placed", frame)
    for j, (chromosome, position) in enumerate(places, start=1):
        unit = Variant(f"rs{j}", chromosome, position, "G", "A").unit("GRCh38")
        book.variables[f"rs{j}"] = replace(book.variables[f"rs{j}"], unit=unit)
    call = {"formula": "y ~ 1", "features": "rs*", "family": "binomial", "confirm": "firth"}
    return federate(split(frame, 3), "association_scan", codebook=book, thresholds=Thresholds(), **call)


def test_variants_lie_along_the_genome():
    places = [("2", 500), ("X", 7), ("10", 30), ("2", 100), ("1", 9000), ("X", 400), ("MT", 3), ("Y", 5)]
    result = scanned(places)
    found = result.details["features"]
    assert list(zip(found["chromosome"], found["position"], strict=True)) == places
    genome, quantiles = result.plot().axes
    assert [t.get_text() for t in genome.get_xticklabels()] == ["1", "2", "10", "X", "Y"]  # MT would lie upon Y
    *chromosomes, again = (points.get_offsets() for points in genome.collections)
    drawn = np.concatenate([points[:, 1] for points in chromosomes])
    confirmed = [p if p is not None else q for p, q in zip(found["firth_p"], found["p"], strict=True)]
    assert np.allclose(sorted(drawn), sorted(-np.log10(confirmed)))  # the variant that is hidden is not drawn
    assert len(again) == result.details["confirmed"] > 0
    assert [len(points) for points in chromosomes] == [1, 2, 1, 2, 1, 1]
    assert np.all(np.diff(chromosomes[1][np.argsort(chromosomes[1][:, 0]), 0]) == 400)
    assert len(quantiles.collections[0].get_offsets()) == len(places)
    assert "inflation" in quantiles.get_title()
    assert "chromosome" in result.summary()


def test_variants_without_places_lie_in_the_order_of_the_table():
    result = federate(
        split(make_rows(5, 240), 3), "association_scan", codebook=BOOK, formula="size ~ sex", features="age,count"
    )
    genome = result.plot().axes[0]
    assert genome.collections[0].get_offsets()[:, 0].tolist() == [0, 1]
    assert "position" not in result.details["features"]
