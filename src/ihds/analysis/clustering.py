"""k-means that sites do together: draws of persons, starts made of sums, Lloyd's steps, and how firm clusters are.

A *run* is one k-means from one start, of all persons or of those a resampling drew. All runs take their
steps side by side, so that a round serves every number of clusters and every resampling at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ihds.analysis.design import Design, Ints
from ihds.analysis.features import Scale, centred, weights
from ihds.analysis.method import Matrix, Vector
from ihds.analysis.rows import distinct, per_person
from ihds.data.wide import Wide

Words = NDArray[np.uint64]

#: Consensus is counted in hundredths: 0, up to 0.01, ... up to 1.
LEVELS = 101
#: Random sums of persons that starts are mixed of (Halko, Martinsson & Tropp 2011).
_SKETCHES = 24
#: All persons are clustered from so many times the starts of a resampling: these clusters are shown.
MORE = 4
#: Starts lie half as far out as persons do: further out more of them would find no person near.
_OUT = 0.5
#: A sum that changes by less, in scales of its feature, is the same: nobody has moved.
_STILL = 1e-6
#: How far from the largest cluster's centroid an empty one is put, of the way to where it was.
_BESIDE = 1e-3
#: Persons whose sum of squares is below this part of one person's are all alike.
_ALIKE = 1e-9
#: How many persons' deviations a step of what is told is wide: one person's values are lost in it.
_VEIL = 4.0
#: A variance in units of the feature's scale that rounding alone makes.
_FLAT = 1e-24
#: Persons worked on at once, and distances to clusters.
_ROWS, _CELLS = 512, 1 << 22
_SPLIT = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class People:
    """A site's persons: deviations from the centre (n, g), a mark each (n,), which resamplings drew them (n, B)."""

    z: Matrix
    mark: Words
    drawn: NDArray[np.bool_]
    of_row: Ints


@dataclass(frozen=True, slots=True)
class Runs:
    """Every run: its number of clusters and its resampling, -1 for all persons (runs,); public.

    ``moving`` is 1 while persons change clusters, 0 when none did, -1 for a run that was given up.
    Clusters of all runs lie one below another: centroids (clusters, g), persons, sites, sums of squares.
    """

    k: Ints
    resample: Ints
    moving: Ints
    centroid: Matrix
    count: Vector
    sites: Vector
    within: Vector
    steps: int

    def at(self, run: int) -> slice:
        """Return where the clusters of a run lie."""
        end = int(self.k[: run + 1].sum())
        return slice(end - int(self.k[run]), end)

    @property
    def active(self) -> Ints:
        """The runs that still move."""
        return np.flatnonzero(self.moving > 0)


# -- who is drawn, and where runs start ------------------------------------------------------------


def deviations(scale: Scale, design: Design, *, within_sites: bool) -> Iterator[tuple[slice, Matrix]]:
    """Return, block by block, each person's mean deviation from the centre, or the site's own; 0 where missing."""
    rows = per_person(np.ones((len(design.person), 1)), design.person)
    for part, block in centred(scale, design):
        held = np.isfinite(block)
        filled = np.where(held, block, 0.0)
        if within_sites:
            mean = filled.sum(axis=0) / np.maximum(held.sum(axis=0), 1)
            filled = np.where(held, block - mean, 0.0)
        yield part, per_person(filled, design.person) / rows


def people(scale: Scale, design: Design, kept: Ints, drawn: tuple[int, int, float], *, within_sites: bool) -> People:
    """Return a site's persons by the features that are kept; ``drawn`` is seed, resamples and share.

    They are kept for the next round, for they stay the same.
    """
    if "people" not in design.cache:
        seed, resamples, share = drawn
        z = np.zeros((distinct(design.person), len(kept)))
        for part, block in deviations(scale, design, within_sites=within_sites):
            taken = (kept >= part.start) & (kept < part.start + block.shape[1])
            z[:, taken] = block[:, kept[taken] - part.start]
        mark = marks(design.features, design.person, seed)
        of_row = np.unique(design.person, return_inverse=True)[1]
        design.cache["people"] = People(z, mark, draws(mark, resamples, share), of_row.astype(np.int64))
    found: People = design.cache["people"]
    return found


def most_variable(variance: Vector, scale: Vector, shown: NDArray[np.bool_], most: int) -> Ints:
    """Return which features of those shown vary, of them the most variable in their own units, in their order."""
    varying = np.flatnonzero(shown & (variance > _FLAT))
    # digits in which one way of adding up differs from another must not choose
    size = np.round(np.log2(variance[varying]) + 2 * np.log2(scale[varying]), 9)
    return np.sort(varying[np.argsort(-size, kind="stable")[: most or None]])


def _mixed(words: Words) -> Words:
    """Return well mixed words (SplitMix64: Steele, Lea & Flood 2014)."""
    words = words + _SPLIT[0]
    words = (words ^ (words >> np.uint64(30))) * _SPLIT[1]
    words = (words ^ (words >> np.uint64(27))) * _SPLIT[2]
    return np.asarray(words ^ (words >> np.uint64(31)))


def marks(values: Wide, person: Ints, seed: int) -> Words:
    """Return a mark per person (persons,), made of the seed and of all the person's values as they are.

    It is the same at whatever site and place the person stands; persons alike in all values have one mark.
    """
    key = _mixed(np.array([seed], dtype=np.uint64))
    row = np.zeros(len(values), dtype=np.uint64)
    for part in values.parts():
        block = values[:, part] + 0.0  # -0 is 0
        block[np.isnan(block)] = np.nan
        place = np.arange(part.start, part.start + block.shape[1], dtype=np.uint64)
        words = _mixed(np.ascontiguousarray(block).view(np.uint64)) ^ _mixed(place ^ key)
        row += _mixed(words).sum(axis=1, dtype=np.uint64)
    mark: Any = _mixed(row)[:, None]
    return _mixed(per_person(mark, person)[:, 0].astype(np.uint64))


def _uniform(mark: Words, stream: int) -> Vector:
    """Return a number in [0, 1) per person, another for every stream."""
    words = _mixed(mark ^ _mixed(np.array([stream], dtype=np.uint64)))
    return np.asarray((words >> np.uint64(11)) * 2.0**-53)


def draws(mark: Words, resamples: int, share: float) -> NDArray[np.bool_]:
    """Return who takes part in each resampling (persons, resamples)."""
    found = [_uniform(mark, stream) < share for stream in range(resamples)]
    return np.column_stack(found) if len(mark) else np.zeros((0, resamples), dtype=bool)


def sketch(persons: People, everybody: float) -> Matrix:
    """Return sums of persons under normal weights (sketches, g): draws from their covariance, about the centre.

    There are at most a third as many as persons over all sites.
    """
    normal = np.zeros((int(np.clip(everybody // 3, 1, _SKETCHES)), len(persons.mark)))
    for j in range(len(normal)):
        u, v = (_uniform(persons.mark, 2**32 + 2 * j + i) for i in range(2))
        normal[j] = np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)  # Box & Muller 1958
    return np.asarray(normal @ persons.z)


def begun(total: Matrix, size: Vector, numbers: range, resamples: int, starts: int, seed: int) -> Runs:
    """Return all runs at their starts: for each number of clusters of all persons, then of each resampling.

    ``size`` (g,) is the weight of each feature over the root of the mean squared distance from the centre.
    """
    owner = np.append(np.full(MORE * starts, -1), np.repeat(np.arange(resamples), starts))
    k = np.repeat(np.array(numbers, dtype=np.int64), len(owner))
    mix = np.random.default_rng(seed).normal(size=(int(k.sum()), len(total)))
    none = np.zeros(len(mix))
    length = float(np.sqrt(((total * size) ** 2).sum()))  # of all sketches together: persons who are alike count double
    return Runs(
        k,
        np.tile(owner, len(numbers)),
        np.ones_like(k),
        _OUT / max(length, 1e-300) * (mix @ total),
        none,
        none,
        none,
        0,
    )


# -- Lloyd's steps ---------------------------------------------------------------------------------


def nearest(z: Matrix, weight: Vector, runs: Runs, which: Ints) -> tuple[Ints, Matrix]:
    """Return each person's nearest cluster in some runs (n, runs), and the squared distance to it.

    Of clusters equally near the first is taken. Distances are in units of ``weight`` (g,) per scale.
    """
    ends = np.cumsum(runs.k)
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(ends[r] - runs.k[r], ends[r]) for r in which)])
    centroid = runs.centroid[rows] * weight
    scaled = z * weight
    apart = np.einsum("ij,ij->i", centroid, centroid) - 2 * scaled @ centroid.T
    label = np.zeros((len(z), len(which)), dtype=np.int64)
    distance = np.zeros((len(z), len(which)))
    k, at = runs.k[which], 0
    for number in np.unique(k):  # runs of one number of clusters lie side by side
        same = np.flatnonzero(k == number)
        part = apart[:, at : at + number * len(same)].reshape(len(z), len(same), number)
        label[:, same], distance[:, same] = part.argmin(axis=2), part.min(axis=2)
        at += number * len(same)
    distance += np.einsum("ij,ij->i", scaled, scaled)[:, None]
    return label, np.maximum(distance, 0.0)


def step(persons: People, weight: Vector, runs: Runs) -> tuple[Matrix, Vector, Vector]:
    """Return the sums, persons and squared distances of every cluster of the runs that move."""
    which = runs.active
    first = np.cumsum(runs.k[which]) - runs.k[which]
    size = int(runs.k[which].sum())
    total, count, within = np.zeros((size, persons.z.shape[1])), np.zeros(size), np.zeros(size)
    taking = runs.resample[which]
    rows = int(np.clip(_CELLS // max(size, 1), 1, _ROWS))
    for at in range(0, len(persons.z), rows):
        z, drawn = persons.z[at : at + rows], persons.drawn[at : at + rows]
        label, distance = nearest(z, weight, runs, which)
        held = np.where(taking < 0, True, drawn[:, taking])
        member = np.zeros((len(z), size))
        member[np.arange(len(z))[:, None], first + label] = held
        total += member.T @ z
        count += member.sum(axis=0)
        within += np.bincount((first + label).ravel(), (distance * held).ravel(), minlength=size)
    return total, count, within


def stepped(runs: Runs, total: Matrix, count: Vector, sites: Vector, within: Vector) -> Runs:
    """Return the runs after a step, from the sums over all sites of the clusters of those that move.

    A cluster that nobody is nearest to is put beside the centroid with the largest sum of squares, a
    little towards where it was, and so takes a part of those persons; unless they are all alike.
    """
    clusters = np.flatnonzero(np.repeat(runs.moving > 0, runs.k))
    before, old = runs.centroid[clusters], runs.count[clusters]
    new = np.where(count[:, None] > 0, total / np.maximum(count, 1.0)[:, None], before)
    moved = (count != old) | (np.abs(total - old[:, None] * before) > _STILL).any(axis=1)
    of_run = np.repeat(np.arange(len(runs.k)), runs.k)[clusters]
    for run in np.unique(of_run[count == 0]):
        own = np.flatnonzero(of_run == run)
        largest = own[np.argmax(within[own])]
        if within[largest] > _ALIKE:
            empty = own[count[own] == 0]
            new[empty] = new[largest] + _BESIDE * (before[empty] - new[largest])
            moved[empty] = True
    moving = np.zeros_like(runs.moving)
    moving[of_run[moved]] = 1
    changed = {}
    for name, value in (("centroid", new), ("count", count), ("sites", sites), ("within", within)):
        changed[name] = getattr(runs, name).copy()
        changed[name][clusters] = value
    return replace(runs, moving=moving, steps=runs.steps + 1, **changed)


def best(runs: Runs, k: int, resample: int, least: float, least_sites: float) -> int:
    """Return the run of the least sum of squares whose clusters all hold so many persons and sites; -1 for none.

    Runs that end alike to the ninth digit are the same: the first is taken.
    """
    found: list[tuple[int, float]] = []
    for run in np.flatnonzero((runs.k == k) & (runs.resample == resample) & (runs.moving == 0)):
        at = runs.at(int(run))
        if runs.count[at].min() >= max(least, 1) and runs.sites[at].min() >= least_sites:
            found.append((int(run), float(runs.within[at].sum())))
    lowest = min((within for _, within in found), default=0.0)
    return next((run for run, within in found if within <= lowest * (1 + 1e-9)), -1)


def order(runs: Runs, run: int) -> Ints:
    """Return a run's clusters, the largest first; of equal ones by their centroids."""
    count, centroid = runs.count[runs.at(run)], np.round(runs.centroid[runs.at(run)], 6)
    return np.array(sorted(range(len(count)), key=lambda c: (-count[c], *centroid[c])), dtype=np.int64)


def veiled(values: Any, deviation: Any, least: int) -> Any:
    """Return sums or means in steps of some persons' deviations, where thresholds are in force.

    Two clusterings often differ by one person, whose values exact sums would give by subtraction.
    """
    if least <= 1:
        return values
    width = 2.0 ** np.ceil(np.log2(_VEIL * deviation))
    return np.round(values / width) * width


# -- how firm clusters are -------------------------------------------------------------------------


def consensus(label: Ints, drawn: NDArray[np.bool_], k: int) -> Vector:
    """Return how the consensus of a site's pairs is spread (LEVELS,), as shares of its pairs times its persons.

    The consensus of two persons is how often they are in one cluster, of the times both were drawn
    (Monti 2003). ``label`` (n, B); pairs never drawn together are not counted.
    """
    n, counts = len(label), np.zeros(LEVELS)
    member = np.zeros((n, label.shape[1], k), dtype=np.float32)
    for cluster in range(k):
        member[:, :, cluster] = (label == cluster) & drawn
    flat, took = member.reshape(n, label.shape[1] * k), drawn.astype(np.float32)
    for at in range(0, n, _ROWS):
        rows = slice(at, at + _ROWS)
        later = np.arange(n) > np.arange(at, min(at + _ROWS, n))[:, None]
        both = np.rint(took[rows] @ took.T).astype(np.int64)[later]
        same = np.rint(flat[rows] @ flat.T).astype(np.int64)[later]
        known = both > 0
        counts += np.bincount(-(-(LEVELS - 1) * same[known] // both[known]), minlength=LEVELS)
    return counts / counts.sum() * n if counts.any() else counts


def firm(persons: People, weight: Vector, runs: Runs, k: int, run: int, most: int) -> tuple[Vector, Any, Vector, Any]:
    """Return a site's part in how firm the clusters of a run are, none for a negative one.

    These are squared distances (most,), what the spread of features rests on (most, g, 2), the consensus of
    pairs (LEVELS,), and tables of the clusters of each resampling and those of the run (B, most, most).
    """
    resamples = persons.drawn.shape[1]
    within, spread = np.zeros(most), np.zeros((most, persons.z.shape[1], 2))
    tables = np.zeros((resamples, most, most))
    again = np.array([best(runs, k, r, 0, 0) for r in range(resamples)])
    held = persons.drawn & (again >= 0)
    label = np.zeros(held.shape, dtype=np.int64)
    for r in range(resamples):
        if again[r] >= 0:
            label[:, r] = nearest(persons.z, weight, runs, again[r : r + 1])[0][:, 0]
    if run >= 0:
        own = nearest(persons.z, weight, runs, np.array([run]))[0][:, 0]
        for cluster, centroid in enumerate(runs.centroid[runs.at(run)]):
            about = persons.z[own == cluster] - centroid
            within[cluster] = ((about * weight) ** 2).sum()
            spread[cluster] = weights(about, np.arange(len(about)))
        for r in range(resamples):
            pairs = label[held[:, r], r] * most + own[held[:, r]]
            tables[r] = np.bincount(pairs, minlength=most * most).reshape(most, most)
    return within, spread, consensus(label, held, k), tables


def measures(shares: Vector) -> dict[str, Any]:
    """Return the CDF of consensus (LEVELS,), the area under it, and the share of ambiguous pairs (PAC)."""
    cdf = np.cumsum(shares)
    return {
        "cdf": [float(v) for v in cdf],
        "area": float(cdf[1:].sum() / (LEVELS - 1)),
        "pac": float(cdf[90] - cdf[10]),
    }


def adjusted_rand(table: Matrix) -> float:
    """Return Hubert and Arabie's (1985) index of two clusterings of the same persons, from their table."""

    def pairs(counts: Any) -> float:
        return float((counts * (counts - 1)).sum() / 2)

    n = table.sum()
    both, rows, columns = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    expected, most = rows * columns / max(n * (n - 1) / 2, 1.0), (rows + columns) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def firmness(tables: Any) -> tuple[float, Vector]:
    """Return how clusters found again agree with those shown, over all pairs, from tables (B, k, k).

    First the mean adjusted Rand index, then per shown cluster the share of its pairs that resamplings
    keep together, of the times both were drawn.
    """
    held = [t for t in tables if t.any()]
    if not held:
        return float("nan"), np.full(tables.shape[2], np.nan)
    together = sum((t * (t - 1)).sum(axis=0) for t in held)
    possible = sum(t.sum(axis=0) * (t.sum(axis=0) - 1) for t in held)
    return float(np.mean([adjusted_rand(t) for t in held])), np.asarray(together / np.maximum(possible, 1.0))
