from __future__ import annotations

import pytest

from ihds.errors import BadInput
from tests.analysis.test_laws import BOOK, make_rows
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


def test_a_method_without_a_picture_says_so():
    with pytest.raises(BadInput, match="has no plot"):
        federate(split(make_rows(3, 60), 3), "describe", codebook=BOOK).plot()
