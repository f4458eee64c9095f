"""Penalised fits: coordinate descent on a quadratic, and folds that persons fall into."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np

from ihds.analysis.design import Design, Ints
from ihds.analysis.method import Matrix, Vector
from ihds.analysis.result import Coefficient
from ihds.analysis.rows import distinct
from ihds.errors import DidNotConverge

_SWEEPS = 100_000


def folds_of(folds: int, design: Design) -> Ints:
    """Return each row's fold: persons take turns; at a site of few they begin anywhere, else later folds stay empty."""
    if not folds:
        return np.zeros(len(design.x), dtype=np.int64)
    few = distinct(design.cluster) < folds
    own = design.stop if len(design.stop) else design.y
    first = crc32(np.round(own, 3).tobytes()) if few else 0
    return (design.cluster + first) % folds


def without_fold(folds: int, design: Design, left_out: int) -> Design:
    """Return the rows that are not in a fold (counted from 1; 0 leaves none out), made once."""
    if not left_out:
        return design
    key = f"without fold {left_out}"
    if key not in design.cache:
        rows: Ints = np.flatnonzero(folds_of(folds, design) != left_out - 1)
        by_row = ["x", "offset", "entry", "exit", "event", "stratum", "cluster", "person", "start", "stop"]
        kept: dict[str, Any] = {n: v[rows] for n in by_row if len(v := getattr(design, n)) == len(design.x)}
        design.cache[key] = replace(design, **kept, cache={})
    found: Design = design.cache[key]
    return found


def descend(h: Matrix, g: Vector, start: Vector, cost: Vector, ridge: Vector) -> Vector:
    """Return argmin of b'Hb / 2 - g'b + sum cost |b| + ridge b² / 2 by coordinate descent.

    Raises:
        DidNotConverge: the columns determine one another too closely.

    """
    b, pull = start.copy(), g - h @ start
    size = np.diag(h) + ridge
    for _ in range(_SWEEPS):
        largest = 0.0
        for j in range(len(b)):
            if size[j] <= 0:
                continue
            free = pull[j] + h[j, j] * b[j]
            new = np.sign(free) * max(abs(free) - cost[j], 0.0) / size[j]
            if new != b[j]:
                pull -= h[:, j] * (new - b[j])
                largest = max(largest, abs(new - b[j]))
                b[j] = new
        if largest < 1e-13:
            return b
    raise DidNotConverge("coordinate descent does not settle", remedy="use a larger lambda")


def bare(terms: tuple[str, ...], values: Vector) -> tuple[Coefficient, ...]:
    """Return coefficient rows without errors and tests: selection makes them wrong."""
    no = float("nan")
    return tuple(Coefficient(t, float(v), no, None, no, no, no, no) for t, v in zip(terms, values, strict=True))
