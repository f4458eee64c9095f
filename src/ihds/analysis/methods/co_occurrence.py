"""Carriers of mutations, and which occur together or exclude one another.

Model      per pair of features the table of who carries the one, the other, both, neither; Fisher's
           exact test. A person carries what is not 0; who lacks either value is left out of a pair.
Down       nothing.
Up         Pairs, as sums over sites.
Rounds     1.
Reveals    counts of carriers; a feature or pair is hidden if some cell of its table holds fewer than
           min_cell persons, or both occur together at one site alone.
Errors     BadInput.
Source     Fisher 1934; Benjamini & Hochberg 1995. Checked against R fisher.test on the mutations of
           TCGA-BLCA over its hospitals (tests/vectors/co_occurrence.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from ihds.analysis import features
from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix
from ihds.analysis.numerics import fisher_p
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadInput

#: So many features have 19 900 pairs.
_MOST = 200


@dataclass(frozen=True, slots=True)
class Params:
    """``features`` is a pattern of names of carried things, 0 for none, for example ``mut_*``."""

    features: str


@dataclass(frozen=True, slots=True)
class Pairs(Contribution):
    """Persons per pair of features: with both values, carriers of the first, carriers of both; and sites with both."""

    kind: ClassVar[str] = "count table"

    known: Annotated[Matrix, Leaves("(features, features)", "persons", bound=1, counts_persons=True)]
    first: Annotated[Matrix, Leaves("(features, features)", "persons", bound=1, counts_persons=True)]
    both: Annotated[Matrix, Leaves("(features, features)", "persons", bound=1, counts_persons=True)]
    sites: Annotated[Matrix, Leaves("(features, features)", "sites with carriers of both", bound=1, per="site")]


CONTRIBUTIONS = (Pairs,)


@dataclass(frozen=True, slots=True)
class State:
    """The opened counts, once there."""

    total: Pairs | None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the features."""
    names = features.select(params.features, codebook, frozenset())
    if not 2 <= len(names) <= _MOST:
        raise BadInput(f"{len(names)} features match", remedy=f"name 2 to {_MOST}")
    return Ask(formula=formulas.parse("~ 1", codebook.variables), outcome="none", covariates="table", features=names)


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    return State(None)


def local(params: Params, state: State, design: Design) -> Pairs:
    """Count carriers; somebody with several rows counts by the first."""
    values = design.features[np.unique(design.person, return_index=True)[1]]
    known = np.isfinite(values).astype(np.float64)
    carried = (known > 0) & (values != 0)
    both = carried.T.astype(np.float64) @ carried
    return Pairs(known.T @ known, carried.T.astype(np.float64) @ known, both, (both > 0).astype(np.float64))


def aggregate(params: Params, state: State, total: Pairs) -> State:
    """Keep the totals."""
    return State(Pairs(*(np.rint(getattr(total, name)) for name in Pairs.__slots__)))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return carriers per feature, and the pairs in the order of their p values."""
    total = state.total
    if total is None:
        return None
    names, least = frame.features, frame.min_cell
    carriers, known = np.diag(total.both), np.diag(total.known)
    few = (np.diag(total.sites) < frame.min_sites) & (carriers > 0)
    for cell in (carriers, known - carriers):
        few |= (cell > 0) & (cell < least)
    rows = []
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            a, n = total.both[i, j], total.known[i, j]
            b, c = total.first[i, j] - a, total.first[j, i] - a
            d = n - a - b - c
            small = any(0 < cell < least for cell in (a, b, c, d)) or 0 < total.sites[i, j] < frame.min_sites
            if small or few[i] or few[j]:
                continue
            rows.append(_pair(names[i], names[j], a, b, c, d))
    adjusted = features.false_discovery(np.array([row["p"] for row in rows]))
    rows = [{**row, "adjusted_p": float(q)} for row, q in zip(rows, adjusted, strict=True)]
    shown = [None if f else int(count) for f, count in zip(few, carriers, strict=True)]
    return Result(
        method="co_occurrence",
        n=frame.rows,
        details={
            "carriers": [
                {"feature": name, "carriers": count, "share": None if count is None or not m else float(count / m)}
                for name, count, m in zip(names, shown, known, strict=True)
            ],
            "pairs": sorted(rows, key=lambda row: row["p"]),
            "hidden_pairs": len(names) * (len(names) - 1) // 2 - len(rows),
        },
    )


def _pair(first: str, second: str, a: float, b: float, c: float, d: float) -> dict[str, Any]:
    """Return a pair's row: ``a`` carry both, ``b`` the first alone, ``c`` the second alone, ``d`` neither."""
    ratio = a * d / (b * c) if b * c > 0 else None
    return {
        "first": first,
        "second": second,
        "both": int(a),
        "expected": float((a + b) * (a + c) / (a + b + c + d)) if a + b + c + d > 0 else None,
        "odds_ratio": None if ratio is None else float(ratio),
        "p": fisher_p(a, b, c, d),
    }
