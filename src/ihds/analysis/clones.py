"""Clones: persons followed under two strategies at once, until they deviate from either. Nothing here leaves a site."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ihds.analysis import arms
from ihds.analysis.design import Design, Ints, bins
from ihds.analysis.method import Matrix, Vector

Flags = NDArray[np.bool_]
#: Kinds of persons that two curves with steps in common must not tell apart in small numbers.
_KINDS = 8


@dataclass(frozen=True, slots=True)
class Weight:
    """What the clones of an arm weigh (n,) while they are followed after ``since``, and which weights were cut."""

    arm: int
    since: float
    weight: Vector
    cut: Flags


@dataclass(frozen=True, slots=True)
class Clones:
    """One site's persons under both strategies, times on the agreed grid (n,).

    ``until`` and ``had`` (2, n) are when each clone's follow-up ends, and whether with the event; ``started`` are
    those treated within the grace period, ``past`` those followed beyond it.
    """

    time: Vector
    treated_at: Vector
    started: Flags
    past: Flags
    until: Matrix
    had: Flags


def follow(design: Design, grace: float) -> Clones:
    """Follow each person under both strategies; on a grid, times are the ends of their bins.

    The first strategy is no start of treatment within the grace period, the second a start within it.
    """
    width, time, begun = design.frame.time_bin, design.stop, design.features[:, 0]
    never = np.isnan(begun)
    begun = np.where(never, np.inf, on_grid(np.where(never, 0.0, begun), width))
    time, grace = on_grid(time, width), float(on_grid(np.array([grace]), width)[0])
    begun = np.where(begun < time, begun, np.inf)  # a start at the end of follow-up is none
    started = begun <= grace
    past = time > grace
    passed = past & ~started
    until = np.array([np.where(started, begun, time), np.where(passed, grace, time)])
    had = np.array([design.event & ~started, design.event & ~passed])
    return Clones(time, begun, started, past, until.reshape(2, len(time)), had.reshape(2, len(time)))


def on_grid(times: Vector, width: float) -> Vector:
    """Return times as the ends of their bins; with exact times as they are."""
    return np.asarray(bins(times, width) * width, dtype=np.float64) if width > 0 else times


def _bin(design: Design, times: Vector) -> Ints:
    """Return the bins of times that lie on the agreed grid."""
    width = design.frame.time_bin
    if width > 0:
        return np.minimum(bins(times, width), len(design.times) - 1)
    return np.asarray(np.searchsorted(design.times, times, side="right") - 1, dtype=np.int64)


def expanded(clones: Clones, weights: list[Weight], design: Design) -> Design:
    """Return the clones as rows whose weight is the same throughout each."""
    one = np.ones(len(clones.time))
    pieces = []
    for arm in range(2):
        mine = [(-np.inf, one), *((w.since, w.weight) for w in weights if w.arm == arm)]
        stops = [*(since for since, _ in mine[1:]), np.inf]
        for (start, weight), stop in zip(mine, stops, strict=True):
            rows = np.flatnonzero(clones.until[arm] > start)
            until = clones.until[arm][rows]
            entry = np.full(len(rows), -1) if start < 0 else np.repeat(_bin(design, np.array([start])), len(rows))
            had = clones.had[arm][rows] & (until <= stop)
            pieces.append(
                (rows, np.full(len(rows), arm), entry, _bin(design, np.minimum(until, stop)), had, weight[rows])
            )
    rows, arm_of, entry, exit_, had, weight = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    whole = replace(
        design,
        y=np.zeros(0),
        offset=np.zeros(len(rows)),
        entry=entry.astype(np.int64),
        exit=exit_.astype(np.int64),
        event=had.astype(bool),
        stratum=np.zeros(len(rows), dtype=np.int64),
        person=design.person[rows],
        codes={},
        cache={},
    )
    return arms.placed(whole, arm_of.astype(np.int64), weight)


def kinds(clones: Clones, design: Design) -> Matrix:
    """Return, per kind of person and bin, how many leave: with the event, by deviating, and whose clones both do."""
    both = (clones.until[0] == clones.time) & (clones.until[1] == clones.time)
    alone = [clones.started, ~both & ~clones.started]  # in one arm only at the end: treated, untreated
    ends = _bin(design, clones.time)
    found = [(m & design.event, ends) for m in (both, *alone)]
    found += [(m, ends) for m in (both, *alone)]
    found += [(m, _bin(design, clones.until[arm])) for arm, m in enumerate(alone)]  # where the other clone is left
    counted = [np.bincount(where[m & (where >= 0)], minlength=len(design.times)) for m, where in found]
    return np.array(counted, dtype=np.float64).reshape(_KINDS, len(design.times))


def alone(kinds: Matrix) -> Matrix:
    """Return, from ``kinds``, the persons at risk in one arm only, treated and untreated, per bin (2, bins)."""
    changes = kinds[[6, 7]] - kinds[[4, 5]]
    return np.asarray(np.cumsum(changes, axis=1) - changes)
