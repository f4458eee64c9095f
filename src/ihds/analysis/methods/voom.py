"""Differential expression of sequencing counts: voom's weights, then moderated linear models (limma).

Model      y_g = log2((count + 0.5) / (library + 1) * 1e6) = X beta_g + e, weighted by the inverse of the
           variance that the trend of all genes gives at the fitted count; libraries scaled by their upper
           quartile.
Down       which genes occur at all, the mean log quartile, then coefficients and the trend.
Up         Magnitudes, Libraries, PlainFits, WeightedFits, as sums over sites.
Rounds     4.
Reveals    moments of each gene with the covariates, over all sites; p = n would determine rows:
           disclosure refuses p > n / 3 and n - p < 10. A gene whose counts are few persons' own, or one
           site's, is left out and counted.
Errors     Collinear, BadFormula, BadInput, BadTable (values that are no counts, a sample without most genes).
Source     Law et al. 2014; Bullard et al. 2010 (upper quartile). Checked against R edgeR and limma
           (tests/vectors/omics.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ihds.analysis import features, genesets, libraries
from ihds.analysis.design import Ask, Design, Frame, Ints
from ihds.analysis.features import Magnitudes, Scale
from ihds.analysis.libraries import Libraries, Scaling
from ihds.analysis.lowess import lowess
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.moderated import Fits, moderated
from ihds.analysis.numerics import invert
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.data.wide import Wide
from ihds.errors import Refused

#: The part of the genes whose square root of spread is smoothed at once (limma's default).
_SPAN = 0.5


@dataclass(frozen=True, slots=True)
class Params:
    """``features`` is a pattern of names of counts; ``term`` the column of interest, by default the last.

    ``sets`` are gene sets to be tested, ``name: gene gene*; other: gene``.
    """

    formula: str
    features: str
    term: str = ""
    scaling: Scaling = "upper_quartile"
    sets: str = ""


@dataclass(frozen=True, slots=True)
class PlainFits(Contribution):
    """Cross-products of covariates and log counts, unweighted."""

    kind: ClassVar[str] = "gene vector"

    xx: Annotated[Matrix, Leaves("(p, p)", "covariate unit squared")]
    xy: Annotated[Matrix, Leaves("(genes, p)", "covariate unit x log2", bound=2**16)]
    yy: Annotated[Vector, Leaves("(genes,)", "log2 squared", bound=2**14)]
    y: Annotated[Vector, Leaves("(genes,)", "log2", bound=2**10)]
    library: Annotated[float, Leaves("()", "log2 of the library", bound=2**10)]


@dataclass(frozen=True, slots=True)
class WeightedFits(Contribution):
    """Weighted cross-products of covariates and residuals, gene by gene."""

    kind: ClassVar[str] = "gene vector"

    xx: Annotated[Any, Leaves("(genes, p, p)", "covariate unit squared x weight", bound=2**24)]
    xe: Annotated[Matrix, Leaves("(genes, p)", "covariate unit x log2 x weight", bound=2**24)]
    ee: Annotated[Vector, Leaves("(genes,)", "log2 squared x weight", bound=2**24)]
    weights: features.Weights


CONTRIBUTIONS = (Magnitudes, Libraries, PlainFits, WeightedFits)


@dataclass(frozen=True, slots=True)
class State:
    """What is known of genes and libraries; ``beta`` (g, p) of the plain fits; the trend's points, rising."""

    stage: Literal["genes", "libraries", "plain", "weighted", "done"]
    scale: Scale
    rows: int
    quartile: float
    beta: Matrix
    mean: Vector
    trend_x: Vector
    trend_y: Vector
    total: WeightedFits | None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a model matrix and the counts."""
    genesets.parse(params.sets)
    return features.model_of(params.formula, params.features, codebook, "voom")


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known of the genes.

    Raises:
        BadFormula: the term of interest is no column.

    """
    features.term_of(params.term, frame)
    none, flat = np.zeros((0, 0)), np.zeros(0)
    return State("genes", features.begin(frame), frame.rows, 0.0, none, flat, flat, flat, None)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    if state.stage == "genes":
        return features.scaling(state.scale, design)
    if state.stage == "libraries":
        return libraries.measured(state.scale, design)
    library = libraries.sizes(state.scale, design, params.scaling, state.quartile)
    counts, x, genes = design.features, design.x, design.features.shape[1]
    p = x.shape[1]
    if state.stage == "plain":
        xy, yy, y = np.zeros((genes, p)), np.zeros(genes), np.zeros(genes)
        for part, block in _log_counts(counts, library):
            xy[part], yy[part], y[part] = block.T @ x, np.einsum("ij,ij->j", block, block), block.sum(axis=0)
        return PlainFits(x.T @ x, xy, yy, y, float(np.log2(library + 1).sum()))
    xx, xe, ee, spread = np.zeros((genes, p * p)), np.zeros((genes, p)), np.zeros(genes), np.zeros((genes, 2))
    pairs = np.einsum("ni,nj->nij", x, x).reshape(len(x), p * p)
    log_library = np.log2(library + 1)[:, None] - np.log2(1e6)
    for part, block in _log_counts(counts, library):
        fitted = x @ state.beta[part].T
        weight = np.interp(fitted + log_library, state.trend_x, state.trend_y) ** -4.0
        e = block - fitted
        xx[part], xe[part] = weight.T @ pairs, (weight * e).T @ x
        ee[part], spread[part] = np.einsum("ij,ij->j", weight * e, e), features.weights(e, design.person)
    return WeightedFits(xx.reshape(genes, p, p), xe, ee, spread)


def _log_counts(counts: Wide, library: Vector) -> Any:
    """Return blocks of genes as log2 of counts per million."""
    unit = np.log2(library + 1)[:, None] - np.log2(1e6)
    for part in counts.parts():
        yield part, np.log2(counts[:, part] + 0.5) - unit


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on."""
    match total:
        case Libraries():
            quartile = libraries.mean_quartile(total, state.rows, params.scaling)
            return replace(state, stage="plain", quartile=quartile)
        case PlainFits():
            return _smoothed(state, total)
        case WeightedFits():
            return replace(state, stage="done", total=total)
    return replace(state, stage="libraries", scale=features.scaled(state.scale, total))


def _smoothed(state: State, total: PlainFits) -> State:
    """Smooth the square root of the genes' spreads over their mean log counts."""
    p = len(total.xx)
    inverse = invert(total.xx, tuple(f"column {j}" for j in range(p)))
    beta = total.xy @ inverse
    residual = np.maximum(total.yy - np.einsum("gi,gi->g", beta, total.xy), 0.0)
    mean = total.y / state.rows
    occurs = libraries.occurring(state.scale)
    spread = np.sqrt(np.sqrt(residual / max(state.rows - p, 1)))
    x, y = lowess((mean + total.library / state.rows - np.log2(1e6))[occurs], spread[occurs], _SPAN)
    x, first = np.unique(x, return_index=True)
    y = np.add.reduceat(y, first) / np.diff(first, append=len(y)) if len(y) else y
    return replace(state, stage="weighted", beta=beta, mean=mean, trend_x=x, trend_y=np.maximum(y, 1e-6))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the moderated tests of the term of interest, genes in the order of their p values.

    Raises:
        Refused: no gene is left.

    """
    total = state.total
    if total is None:
        return None
    kept = np.flatnonzero(~state.scale.few(total.weights))
    if not len(kept):
        raise Refused("no gene has counts of enough persons", remedy="name other genes")
    unscaled = np.array([invert(total.xx[g], frame.columns) for g in kept])
    step = np.einsum("gij,gj->gi", unscaled, total.xe[kept])
    df = np.full(len(kept), float(frame.rows - len(frame.columns)))
    residual = np.maximum(total.ee[kept] - np.einsum("gi,gi->g", step, total.xe[kept]), 0.0)
    j = features.term_of(params.term, frame)
    fits = Fits(state.beta[kept] + step, unscaled, residual / df, df)
    columns, prior_df, prior = moderated(fits, frame.transform[j])
    found = {"feature": np.array(frame.features)[kept], **columns, "mean": state.mean[kept]}
    genes = [str(name) for name in found["feature"]]
    return Result(
        method="voom",
        n=frame.rows,
        details={
            "term": frame.columns[j],
            "features": features.table(found, np.argsort(columns["p"], kind="stable")),
            "prior_df": prior_df,
            "prior_variance": prior,
            "hidden_features": len(frame.features) - len(kept),
            "below_5_per_cent": int(np.sum(columns["adjusted_p"] < 0.05)),
            "trend": _trend(state, kept),
            "sets": genesets.tested(params.sets, genes, columns["t"]),
            "left_out_missing": frame.left_out,
        },
    )


def _trend(state: State, kept: Ints) -> dict[str, list[float]]:
    """Return a hundred points of the trend: log2 counts, and the square root of the spread there.

    It runs from the least to the greatest of the genes shown: an end is the mean of one gene.
    """
    shift = state.trend_x[0] - state.mean[libraries.occurring(state.scale)].min()
    at = np.linspace(state.mean[kept].min() + shift, state.mean[kept].max() + shift, 100)
    return {
        "log2_count": [float(v) for v in at],
        "root_sd": [float(v) for v in np.interp(at, state.trend_x, state.trend_y)],
    }
