"""Description of variables with noise: n, mean, standard deviation, counts per category.

Model      none; each variable by itself, over everybody who has a value.
Down       nothing: the bounds are published.
Up         Sums: of each number how many have it, the sum and the sum of squares about the middle of its bounds;
           of each category its levels.
Rounds     1.
Reveals    these sums with noise; nothing is hidden, for the noise protects small cells too.
Errors     BadInput (no bounds).
Source     the variances of noise and of sampling add. Checked by simulation (tests/analysis/test_private.py).
Status     experimental
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Any, ClassVar

import numpy as np

from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Vector
from ihds.analysis.methods import describe
from ihds.analysis.noisy import Moved, bounded, units
from ihds.analysis.result import Result
from ihds.privacy.rules import NOISY

Params = describe.Params
ask = describe.ask
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Sums(Contribution):
    """Moments of each number about the middle of its bounds, in halves of their distance."""

    kind: ClassVar[str] = NOISY

    rows: Annotated[float, bounded("()", "rows")]
    count: Annotated[Vector, bounded("(p,)", "rows")]
    total: Annotated[Vector, bounded("(p,)", "half the bounds' distance")]
    square: Annotated[Vector, bounded("(p,)", "the same, squared")]
    levels: Annotated[Vector, bounded("(levels,)", "rows per category")]


CONTRIBUTIONS = (Sums,)


@dataclass(frozen=True, slots=True)
class State:
    """The opened, noisy totals, once there."""

    total: Sums | None


STATE = State


def rounds(params: Params) -> tuple[Fraction, ...]:
    """All of rho goes into the only round."""
    return (Fraction(1),)


def moved(params: Params, ask: Ask, frame: Frame) -> dict[str, Moved]:
    """Say that a row is counted once per variable, and adds at most 1 to each sum."""
    p, levels = len(frame.columns), sum(map(len, frame.levels.values()))
    return {
        "rows": Moved(1, Fraction(1), Fraction(1, 2)),
        "count": Moved(p, Fraction(p)),
        "total": Moved(p, Fraction(p), Fraction(2)),
        "square": Moved(p, Fraction(p)),
        "levels": Moved(levels, Fraction(len(frame.levels)), Fraction(2)),
    }


def least(params: Params, frame: Frame, noise: Mapping[str, float]) -> float:
    """Noise alone must leave a mean within a twentieth of its bounds' distance, and a category within a twentieth."""
    means = _Z * noise["total"] / 0.1 if len(frame.columns) else 0.0
    return max(means, _Z * noise["levels"] / 0.05 if frame.levels else 0.0)


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    return State(None)


def local(params: Params, state: State, design: Design) -> Sums:
    """Return the sums of this site's values, cut to their bounds."""
    exact = describe.local(params, describe.begin(params, design.frame), replace(design, x=units(design.x)))
    return Sums(exact.rows, exact.count, exact.total, exact.square, exact.levels)


def aggregate(params: Params, state: State, total: Sums) -> State:
    """Keep the totals."""
    return State(total)


def finish(params: Params, frame: Frame, state: State, noise: Mapping[str, float]) -> Result | None:
    """Return one row per variable, with the error that the noise makes."""
    if state.total is None:
        return None
    rows = [_number(name, j, frame, state.total, noise) for j, name in enumerate(frame.columns)]
    at = 0
    for name, levels in frame.levels.items():
        counts = state.total.levels[at : at + len(levels)]
        at += len(levels)
        row: dict[str, Any] = {"variable": name, "kind": "category", "n": round(float(counts.sum())), "missing": None}
        shown = {level: round(float(c)) for level, c in zip(levels, counts, strict=True)}
        rows.append({**row, "counts": shown, "noise_se": noise["levels"]})
    ordered = tuple(sorted(rows, key=lambda r: str(r["variable"])))
    return Result(method="describe", n=max(round(state.total.rows), 0), table=ordered)


def _number(name: str, j: int, frame: Frame, total: Sums, noise: Mapping[str, float]) -> dict[str, Any]:
    n = max(float(total.count[j]), 1.0)
    mean = float(total.total[j]) / n
    variance = (float(total.square[j]) - n * mean**2) / max(n - 1, 1.0)
    sampled = max(variance, noise["square"] / n)  # where noise hides the spread, as much of it as noise could hide
    half = float(frame.scale[j])
    by_noise = half * np.hypot(noise["total"], mean * noise["count"]) / n
    both = np.hypot(by_noise, half * np.sqrt(sampled / n))
    value = float(frame.centre[j]) + half * mean
    return {
        "variable": name,
        "kind": "number",
        "n": round(float(total.count[j])),
        "missing": None,
        "mean": value,
        "sd": half * float(np.sqrt(variance)) if variance > 0 else None,
        "noise_se": float(by_noise),
        "lower": value - _Z * float(both),
        "upper": value + _Z * float(both),
    }
