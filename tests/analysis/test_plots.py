from __future__ import annotations

import json

import numpy as np
import pytest

from ihds.analysis.plan import run
from ihds.analysis.result import Result
from ihds.errors import BadInput
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
