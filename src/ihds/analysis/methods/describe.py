"""Description of variables: n, mean, standard deviation, counts per category, missing values.

Model      none; each variable by itself, over everybody who has a value.
Down       the agreed centres and scales.
Up         Moments about the agreed centre, as sums over sites; categories are counted in the
           agreement that precedes every study.
Rounds     1 after the agreement.
Reveals    moments of at least min_cell persons; cells below min_cell are hidden, and a second
           cell where one alone could be found by subtraction; extremes are never sent.
Errors     UnknownVariable.
Source     moments about a provisional mean: Chan, Golub & LeVeque 1983. Checked against R mean,
           sd, table (tests/vectors/describe.R).
Status     reviewed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Vector
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadInput
from ihds.privacy.disclosure import suppress


@dataclass(frozen=True, slots=True)
class Params:
    """``variables`` None describes every number and category of the codebook."""

    variables: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sums(Contribution):
    """Moments of each number about the agreed centre, in the agreed scale."""

    kind: ClassVar[str] = "moment"

    rows: Annotated[float, Leaves("()", "persons", bound=1, counts_persons=True)]
    count: Annotated[Vector, Leaves("(p,)", "persons", bound=1, counts_persons=True)]
    total: Annotated[Vector, Leaves("(p,)", "scaled units")]
    square: Annotated[Vector, Leaves("(p,)", "scaled units squared", bound=2**16)]
    levels: Annotated[Vector, Leaves("(levels,)", "rows per category", bound=1)]


CONTRIBUTIONS = (Sums,)


@dataclass(frozen=True, slots=True)
class State:
    """The opened totals, once there."""

    counted: bool
    rows: float
    count: Vector
    total: Vector
    square: Vector
    levels: Vector


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for each variable by itself."""
    usable = [n for n, v in codebook.variables.items() if v.kind in ("number", "category")]
    names = list(params.variables) if params.variables else usable
    if not names:
        raise BadInput("there is no variable to describe", remedy="name some with variables=")
    for name in names:
        codebook.variable(name)
    text = "~ " + " + ".join(n if n.isidentifier() else f"`{n}`" for n in names)
    categories = [n for n in usable if codebook.variables[n].kind == "category"]
    formula = formulas.parse(text, codebook.variables, categories)
    return Ask(formula=formula, outcome="none", covariates="table")


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    return State(False, 0.0, np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0))


def local(params: Params, state: State, design: Design) -> Sums:
    """Return the moments of this site's values."""
    present = np.isfinite(design.x)
    z = np.where(present, design.x, 0.0)
    levels = [
        np.bincount(design.codes[name][design.codes[name] >= 0], minlength=len(published))
        for name, published in design.frame.levels.items()
    ]
    return Sums(
        rows=float(len(z)),
        count=present.sum(axis=0).astype(float),
        total=z.sum(axis=0),
        square=(z * z).sum(axis=0),
        levels=np.concatenate([np.zeros(0), *levels]),
    )


def aggregate(params: Params, state: State, total: Sums) -> State:
    """Keep the totals."""
    return State(True, total.rows, total.count, total.total, total.square, total.levels)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return one row per variable."""
    if not state.counted:
        return None
    rows: list[dict[str, Any]] = []
    everybody = round(state.rows)
    for j, name in enumerate(frame.columns):
        rows.append(_number(name, frame, state, j, everybody))
    at = 0
    for name, levels in frame.levels.items():
        counts = np.rint(state.levels[at : at + len(levels)])
        at += len(levels)
        rows.append(_category(name, levels, counts, frame, everybody))
    return Result(method="describe", n=everybody, table=tuple(sorted(rows, key=lambda r: r["variable"])))


def _category(name: str, levels: tuple[str, ...], counts: Vector, frame: Frame, everybody: int) -> dict[str, Any]:
    """Return a category's row; a level is hidden if few persons or one site alone hold it."""
    persons = np.array(frame.counts[name])  # 0.5 marks a level of one site
    few = (persons > 0) & (persons < max(frame.min_cell, 1))
    shown = suppress(np.where(few, 0.5, counts), max(frame.min_cell, 1))
    missing = _banded(everybody - int(counts.sum()), frame.min_cell)
    return {
        "variable": name,
        "kind": "category",
        "n": everybody - missing,
        "missing": missing,
        "counts": dict(zip(levels, shown, strict=True)),
    }


def _banded(missing: int, min_cell: int) -> int:
    """Return a count of missing values, with 1 .. min_cell-1 shown as 0."""
    return missing if missing >= min_cell else 0


def _number(name: str, frame: Frame, state: State, j: int, everybody: int) -> dict[str, Any]:
    n = round(float(state.count[j]))
    row: dict[str, Any] = {"variable": name, "kind": "number"}
    if frame.counts[name][0] < max(frame.min_cell, 1):
        return {**row, "n": None, "missing": None, "mean": None, "sd": None}
    mean = state.total[j] / n
    variance = (state.square[j] - n * mean**2) / (n - 1) if n > 1 else np.nan
    missing = _banded(everybody - n, frame.min_cell)
    return {
        **row,
        "n": everybody - missing,
        "missing": missing,
        "mean": float(frame.centre[j] + frame.scale[j] * mean),
        "sd": float(frame.scale[j] * np.sqrt(max(variance, 0.0))) if n > 1 else None,
    }
