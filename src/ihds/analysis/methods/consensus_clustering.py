"""Consensus clustering: subtypes that sites find together, and how firm they are when persons are drawn anew.

Model      k-means (Lloyd) of persons on features, of unit variance or as they are, from random starts, for each
           number of clusters; the same for resamplings of persons, drawn by a mark of their own values.
Down       each feature's centre, scale and deviation, then the clusters' centroids.
Up         Magnitudes, Means, Spread, Sketch, then Step in turns, Found, at last GroupSums and GroupSpreads.
Rounds     6 and about 10 to 40: all numbers of clusters and all resamplings step side by side.
Reveals    centroids, sizes and sums of squares over all sites; labels never leave, nor does a consensus of
           two persons: pairs within sites are counted in hundredths. Clusters of fewer than min_cell
           persons, or of one site, are not shown, nor features whose spread within a cluster rests on few;
           centroids are told in steps too wide to find one person by subtraction. The sums of every step
           are opened at the user's code: between two steps one person may have changed cluster.
Errors     BadInput, BadFormula, ConstantColumn, DidNotConverge, Refused.
Source     Lloyd 1982; Monti et al. 2003; Senbabaoglu, Michailidis & Li 2014 (PAC); Hubert & Arabie 1985.
           Checked against R kmeans and the consensus written out (tests/vectors/consensus_clustering.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ihds.analysis import clustering, features, grouped
from ihds.analysis.clustering import People, Runs
from ihds.analysis.design import Ask, Design, Frame, Ints
from ihds.analysis.features import Magnitudes, Means, Scale
from ihds.analysis.grouped import GroupSpreads, GroupSums
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.outcomes import table_formula
from ihds.analysis.result import Result
from ihds.analysis.rows import distinct
from ihds.data.codebook import Codebook
from ihds.errors import BadInput, ConstantColumn, DidNotConverge, Refused

#: More numbers in one round are not asked for.
_MOST = 1 << 23
_LOST = "every start lost a cluster, or persons still moved at the end"
_FEW = "every start ended with a cluster of few persons, or of one site"


@dataclass(frozen=True, slots=True)
class Params:
    """``features`` is a pattern of names; of them the ``most_variable`` are taken, 0 for all.

    ``resamples`` draw each person with probability ``share``, each from several ``starts``, all persons from
    four times as many. ``within_sites`` takes each site's own mean out (a batch). ``formula`` lists what is
    compared between ``clusters`` clusters, as ``table_one`` does: 0 for the number with the smallest PAC.
    """

    features: str
    min_k: int = 2
    max_k: int = 6
    resamples: int = 50
    share: float = 0.8
    starts: int = 3
    most_variable: int = 0
    scaling: Literal["unit", "none"] = "unit"
    within_sites: bool = False
    formula: str = "~ 1"
    clusters: int = 0
    seed: int = 1
    max_rounds: int = 100


@dataclass(frozen=True, slots=True)
class Spread(Contribution):
    """Persons, and the sum of squares of each centred feature."""

    persons: Annotated[float, Leaves("()", "persons", bound=1, counts_persons=True)]
    square: Annotated[Vector, Leaves("(features,)", "scaled units squared", bound=2**14)]
    weights: features.Weights


@dataclass(frozen=True, slots=True)
class Sketch(Contribution):
    """Sums of persons under random weights, which starts are mixed of."""

    kind: ClassVar[str] = "gene vector"

    total: Annotated[Matrix, Leaves("(sketches, features)", "scaled units")]


@dataclass(frozen=True, slots=True)
class Step(Contribution):
    """Sums, persons, sites and squared distances of the clusters of all runs that still move."""

    kind: ClassVar[str] = "gene vector"

    total: Annotated[Matrix, Leaves("(clusters, features)", "scaled units")]
    count: Annotated[Vector, Leaves("(clusters,)", "persons", bound=1, counts_persons=True)]
    sites: Annotated[Vector, Leaves("(clusters,)", "sites with persons", bound=1, per="site")]
    within: Annotated[Vector, Leaves("(clusters,)", "mean squared distances from the centre", bound=2**14)]


@dataclass(frozen=True, slots=True)
class Found(Contribution):
    """How firm the clusters are, per number of clusters, and what their spread rests on.

    ``consensus`` is how consensus is spread over the pairs within a site, as shares times the persons who
    have pairs; ``tables`` count who is in which cluster of each resampling and in which that is shown.
    """

    within: Annotated[Matrix, Leaves("(numbers, clusters)", "mean squared distances from the centre", bound=2**14)]
    spread: Annotated[
        Any, Leaves("(numbers, clusters, features, 2)", "scaled units squared, and to the fourth", bound=features.MOST)
    ]
    consensus: Annotated[Matrix, Leaves("(numbers, 101)", "shares of pairs, times persons", bound=1)]
    paired: Annotated[Vector, Leaves("(numbers,)", "persons with pairs", bound=1, counts_persons=True)]
    tables: Annotated[Any, Leaves("(numbers, resamples, clusters, clusters)", "persons", bound=1, counts_persons=True)]


CONTRIBUTIONS = (Magnitudes, Means, Spread, Sketch, Step, Found, GroupSums, GroupSpreads)


@dataclass(frozen=True, slots=True)
class State:
    """What is agreed of the features, the runs, and what was found.

    ``kept`` are the features taken, with weights in distances and deviations (features,), in scales;
    ``hidden`` counts those that may not be; ``unit`` is the mean squared distance from the centre.
    ``chosen`` is the number of clusters that are compared, by ``total`` and ``spread``.
    """

    scale: Scale
    kept: Ints
    weight: Vector
    deviation: Vector
    hidden: int
    unit: float
    persons: float
    runs: Runs | None
    found: Found | None
    chosen: int
    total: GroupSums | None
    spread: Any


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the features, and for what is compared."""
    told = (
        (2 <= params.min_k <= params.max_k <= 20, "min_k to max_k", "2 to 20"),
        (2 <= params.resamples <= 500, "resamples", "2 to 500"),
        (0.1 <= params.share < 1, "share", "0.1 to 1"),
        (1 <= params.starts <= 50, "starts", "1 to 50"),
        (params.most_variable >= 0, "most_variable", "0 for all features, or how many"),
        (params.clusters == 0 or params.min_k <= params.clusters <= params.max_k, "clusters", "min_k to max_k, or 0"),
        (0 <= params.seed < 2**32, "seed", "a whole number from 0 on"),
        (1 <= params.max_rounds <= 300, "max_rounds", "1 to 300"),
    )
    for fits, name, remedy in told:
        if not fits:
            raise BadInput(f"consensus_clustering: {name} does not fit", remedy=f"give {remedy}")
    formula = table_formula(params.formula, "", codebook)
    names = features.select(params.features, codebook, formula.variables)
    return Ask(formula=formula, outcome="none", covariates="table", features=names, undivided=True)


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known of the features."""
    none, kept = np.zeros(0), np.zeros(0, dtype=np.int64)
    return State(features.begin(frame), kept, none, none, 0, 0.0, 0.0, None, None, 0, None, np.zeros((0, 0, 2)))


def local(params: Params, state: State, design: Design) -> Contribution:
    """Scale the features, then send the sums of the present round."""
    if not state.scale.placed:
        return features.scaling(state.scale, design)
    if not len(state.weight):
        blocks = [block for _, block in clustering.deviations(state.scale, design, within_sites=params.within_sites)]
        square = np.concatenate([np.einsum("ij,ij->j", b, b) for b in blocks])
        weights = np.concatenate([features.weights(b, np.arange(len(b))) for b in blocks])
        return Spread(float(distinct(design.person)), square, weights)
    drawn = (params.seed, params.resamples, params.share)
    people = clustering.people(state.scale, design, state.kept, drawn, within_sites=params.within_sites)
    if state.runs is None:
        return Sketch(clustering.sketch(people, state.persons))
    if len(state.runs.active):
        total, count, within = clustering.step(people, state.weight, state.runs)
        return Step(total, count, (count > 0).astype(np.float64), within / state.unit)
    if state.found is None:
        return _found(params, state, state.runs, people)
    run = _final(params, state, state.runs)[state.chosen - params.min_k]
    label = clustering.nearest(people.z, state.weight, state.runs, np.array([run]))[0][:, 0][people.of_row]
    if state.total is None:
        return grouped.sums(design, label, state.chosen, "")
    return grouped.spreads(design, label, state.total)


def _final(params: Params, state: State, runs: Runs) -> list[int]:
    """Return each number's best run that may be shown, else -1."""
    least, sites = state.scale.least, state.scale.least_sites
    return [clustering.best(runs, k, -1, least, sites) for k in _numbers(params)]


def _found(params: Params, state: State, runs: Runs, people: People) -> Found:
    """Return how firm the clusters of each number are, against its best run if that may be shown."""
    final = _final(params, state, runs)
    parts = [
        clustering.firm(people, state.weight, runs, k, run, params.max_k)
        for k, run in zip(_numbers(params), final, strict=True)
    ]
    within, spread, shares, tables = (np.array([part[j] for part in parts]) for j in range(4))
    return Found(within / state.unit, spread, shares, shares.sum(axis=1), tables)


def _numbers(params: Params) -> range:
    return range(params.min_k, params.max_k + 1)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a round's total and move on.

    Raises:
        ConstantColumn: no feature that may be shown varies.
        DidNotConverge: clusters of no number of them stand still.
        Refused: no number of clusters may be shown, or not the one asked for.

    """
    match total:
        case Spread():
            return _chosen_features(params, state, total)
        case Sketch():
            size, many = state.weight / np.sqrt(state.unit), (params.resamples, params.starts, params.seed)
            return replace(state, runs=clustering.begun(total.total, size, _numbers(params), *many))
        case Step():
            assert state.runs is not None
            counts = (np.rint(total.count), np.rint(total.sites))
            runs = clustering.stepped(state.runs, total.total, *counts, total.within)
            if runs.steps >= params.max_rounds and len(runs.active):
                runs = replace(runs, moving=-runs.moving)
            return replace(state, runs=runs)
        case Found():
            return _chosen(params, replace(state, found=total))
        case GroupSums():
            return replace(state, total=total)
        case GroupSpreads():
            return replace(state, spread=total.spread)
    return replace(state, scale=features.scaled(state.scale, total))


def _chosen_features(params: Params, state: State, total: Spread) -> State:
    """Take the features that may be shown and vary, of them the most variable.

    Raises:
        BadInput: a round would be too large.
        Refused: so many clusters would describe so few persons, or no feature may be shown.
        ConstantColumn: no feature that may be shown varies.

    """
    persons, least = float(np.rint(total.persons)), state.scale.least
    if params.max_k * (3 if least > 1 else 1) > persons:
        raise Refused(
            f"{params.max_k} clusters would describe {persons:.0f} persons",
            reasons=("parameters_per_row: at most a third as many clusters as persons",),
            remedy="give a smaller max_k",
        )
    shown = ~state.scale.few(total.weights)
    if not shown.any():
        raise Refused(f"every feature tells of fewer than {least} persons, or of one site", remedy="name others")
    variance = total.square / max(persons - 1, 1.0)
    scale = state.scale.scale
    kept = clustering.most_variable(variance, scale, shown, params.most_variable)
    if not len(kept):
        raise ConstantColumn("no feature varies over all sites", remedy="name others")
    numbers = sum(_numbers(params)) * params.starts * (clustering.MORE + params.resamples) * len(kept)
    if numbers > _MOST:
        raise BadInput(
            f"a round of {numbers} numbers would be too large",
            remedy=f"set most_variable to {max(len(kept) * _MOST // numbers, 1)}, or ask for fewer resamples or starts",
        )
    deviation = np.sqrt(variance[kept])
    weight = 1 / deviation if params.scaling == "unit" else scale[kept] / scale[kept].max()
    unit = float(weight**2 @ total.square[kept]) / persons
    hidden = int((~shown).sum())
    return replace(state, kept=kept, weight=weight, deviation=deviation, hidden=hidden, unit=unit, persons=persons)


def _chosen(params: Params, state: State) -> State:
    """Choose the number of clusters that are compared.

    Raises:
        DidNotConverge: clusters of no number stand still with persons in each.
        Refused: no number of clusters may be shown, or not the one asked for.

    """
    told = _clusterings(params, state)
    if all(row["hidden"] == _LOST for row in told):
        raise DidNotConverge(f"consensus_clustering: {_LOST}", remedy="ask for fewer clusters, more starts or rounds")
    shown = [row for row in told if not row["hidden"] and params.clusters in (0, row["k"])]
    if not shown:
        raise Refused(
            "no such clusters may be shown",
            reasons=tuple(f"{row['k']} clusters: {row['hidden']}" for row in told if row["hidden"]),
            remedy="ask for fewer clusters, or other features",
        )
    return replace(state, chosen=min(shown, key=lambda row: (np.nan_to_num(row["pac"], nan=2.0), row["k"]))["k"])


def _clusterings(params: Params, state: State) -> list[dict[str, Any]]:
    """Return what is told of every number of clusters."""
    runs, found = state.runs, state.found
    assert runs is not None
    assert found is not None
    told: list[dict[str, Any]] = []
    for i, (k, run) in enumerate(zip(_numbers(params), _final(params, state, runs), strict=True)):
        whole = clustering.best(runs, k, -1, 0, 0)
        row: dict[str, Any] = {"k": k, "hidden": None if run >= 0 else _FEW if whole >= 0 else _LOST}
        row["passed_over"] = run not in (whole, -1)
        row["resamples"] = sum(clustering.best(runs, k, r, 0, 0) >= 0 for r in range(params.resamples))
        row |= clustering.measures(found.consensus[i] / (found.paired[i] or np.nan))
        before = told[-1]["area"] if told else None
        row["delta_area"] = row["area"] if before is None else (row["area"] - before) / before if before else None
        told.append(row | _shown(params, state, runs, found, i, run))
    return told


def _shown(params: Params, state: State, runs: Runs, found: Found, i: int, run: int) -> dict[str, Any]:
    """Return persons, firmness and sums of squares of a number's clusters, the largest first."""
    if run < 0:
        return dict.fromkeys(("persons", "consensus", "agreement", "within", "share_between"))
    order, k = clustering.order(runs, run), int(runs.k[run])
    count, centroid = runs.count[runs.at(run)], runs.centroid[runs.at(run)]
    agreement, kept_together = clustering.firmness(np.rint(found.tables[i])[:, :k, :k])
    within = clustering.veiled(found.within[i, :k], 1.0, state.scale.least)
    about = (centroid - count @ centroid / count.sum()) * state.weight
    between = float(clustering.veiled(count @ (about**2).sum(axis=1) / state.unit, 1.0, state.scale.least))
    own = 1.0 if params.scaling == "unit" else float(state.scale.scale[state.kept].max() ** 2)
    return {
        "persons": [int(n) for n in count[order]],
        "consensus": [float(v) for v in kept_together[order]],
        "agreement": agreement,
        "within": [float(v) for v in (within * state.unit * own)[order]],
        "share_between": between / (between + float(within.sum())),
    }


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return every number's clusters and how firm they are, and the comparison of those chosen."""
    runs, wanted = state.runs, bool(frame.levels or frame.columns)
    if runs is None or state.found is None or (wanted and state.total is None):
        return None
    if len(frame.columns) and not state.spread.size:
        return None
    told = _clusterings(params, state)
    final = _final(params, state, runs)
    for i, (row, run) in enumerate(zip(told, final, strict=True)):
        row["features"] = _centroids(params, frame, state, runs, state.found.spread[i], run) if run >= 0 else None
    total, chosen = state.total, final[state.chosen - params.min_k]
    table = {} if total is None else _compared(frame, state, total, clustering.order(runs, chosen))
    return Result(
        method="consensus_clustering",
        n=frame.rows,
        details={
            "persons": int(state.persons),
            "chosen": state.chosen,
            "clusterings": told,
            "features_taken": len(state.kept),
            "hidden_features": state.hidden,
            "compared": table,
        },
    )


def _compared(frame: Frame, state: State, total: GroupSums, order: Ints) -> dict[str, Any]:
    """Return the table by cluster; its means and deviations are told in steps, like centroids, and what follows."""
    rows = grouped.table(frame, total, state.spread, order, "")
    for row in (r for r in rows if r["kind"] == "number" and r["mean"] is not None):
        one = frame.scale[frame.columns.index(row["variable"])] / np.array(row["n"])
        mean, sd = (clustering.veiled(np.array(row[n]), one, state.scale.least) for n in ("mean", "sd"))
        row |= {"mean": mean.tolist(), "sd": sd.tolist(), **grouped.differences(np.array(row["n"]), mean, sd**2)}
    groups = [f"cluster {c + 1}" for c in range(len(order))]
    return {"groups": groups, "persons": [int(v) for v in np.rint(total.persons)[order]], "rows": rows}


def _centroids(params: Params, frame: Frame, state: State, runs: Runs, spread: Any, run: int) -> dict[str, list[Any]]:
    """Return the features that tell the clusters of a number apart, the best first, with the clusters' means.

    With ``within_sites`` these are deviations from the sites' own means. A feature whose spread within
    some cluster rests on few persons is hidden in all: one alone would follow from the rest.
    """
    order, at = clustering.order(runs, run), runs.at(run)
    few = np.any([features.resting(part, state.scale.least) for part in spread[: len(order)]], axis=0)
    centroid, count = runs.centroid[at][order], runs.count[at][order]
    told = clustering.veiled(centroid, state.deviation / count[:, None], state.scale.least)
    centre, scale = state.scale.centre[state.kept], state.scale.scale[state.kept]
    columns: dict[str, Any] = {"feature": np.array(frame.features)[state.kept]}
    if not params.within_sites:
        columns["mean"] = centre
    columns["sd"] = state.deviation * scale
    for cluster in range(len(order)):
        columns[f"cluster_{cluster + 1}"] = told[cluster] * scale + (0.0 if params.within_sites else centre)
    apart = np.round((told.max(axis=0) - told.min(axis=0)) / state.deviation, 9)
    return features.table(columns, [int(j) for j in np.argsort(-apart, kind="stable") if not few[j]])
