"""Differential expression: one linear model per gene, their variances moderated together (limma).

Model      y_g = X beta_g + e per feature g; sigma²_g shrunk towards a prior fitted to all features
           (empirical Bayes). Features may be harmonised between sites first (see ``harmonise``).
Down       each feature's centre and scale; what sites harmonise with.
Up         Magnitudes, Means, then GeneSums, as sums over sites; SiteFits and SiteResiduals, or Profile,
           where features are harmonised.
Rounds     4; 5 more where features are harmonised.
Reveals    moments of each feature with the covariates, over all sites; p = n would determine rows:
           disclosure refuses p > n / 3 and n - p < 10. A feature whose values are few persons' own, in
           some level or as a whole, or one site's, is left out and counted.
Errors     Collinear, BadFormula, BadInput, Refused (no feature has enough values).
Source     Smyth 2004. Checked against R limma (tests/vectors/omics.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ihds.analysis import features, genesets, harmonise
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.features import Magnitudes, Means, Scale
from ihds.analysis.harmonise import Harmony, Kind
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.moderated import Fits, moderated
from ihds.analysis.numerics import invert
from ihds.analysis.result import Result
from ihds.analysis.rows import persons_with
from ihds.data.codebook import Codebook
from ihds.errors import AnalysisFailed, Refused

#: A mean square, in units of what varies, of a feature that is the same for everybody: it is of rounding alone.
_FLAT = 1e-10


@dataclass(frozen=True, slots=True)
class Params:
    """``features`` is a pattern of names; ``term`` the column of interest, by default the last.

    ``sets`` are gene sets to be tested, ``name: gene gene*; other: gene``.

    ``within_sites`` gives every site a level of its own for each feature (a batch), taken out there.
    ``harmonise`` makes features alike between sites before, the effects of the formula being kept.
    """

    formula: str
    features: str
    term: str = ""
    within_sites: bool = False
    sets: str = ""
    harmonise: Kind = "none"


@dataclass(frozen=True, slots=True)
class GeneSums(Contribution):
    """Cross-products of covariates and features; ``present`` of the rows that have a feature with gaps."""

    kind: ClassVar[str] = "gene vector"

    xx: Annotated[Matrix, Leaves("(p, p)", "covariate unit squared")]
    present: Annotated[Any, Leaves("(features with gaps, p, p)", "covariate unit squared")]
    xy: Annotated[Matrix, Leaves("(features, p)", "covariate unit x scaled unit")]
    yy: Annotated[Vector, Leaves("(features,)", "scaled units squared", bound=2**14)]
    held: Annotated[Matrix, Leaves("(features with gaps, levels)", "persons with a value", bound=1)]
    weights: features.Weights


CONTRIBUTIONS = (Magnitudes, Means, *harmonise.CONTRIBUTIONS, GeneSums)


@dataclass(frozen=True, slots=True)
class State:
    """What sites harmonise with, the features' scale after it, and the opened sums."""

    harmony: Harmony
    scale: Scale
    rows: int
    total: GeneSums | None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a model matrix and the features."""
    genesets.parse(params.sets)
    asked = features.model_of(params.formula, params.features, codebook, "differential_expression")
    return replace(asked, undivided=params.within_sites or harmonise.undivided(params.harmonise))


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known of the features.

    Raises:
        BadFormula: the term of interest is no column.

    """
    features.term_of(params.term, frame)
    return State(harmonise.begin(params.harmonise, frame), features.begin(frame), frame.rows, None)


def _gaps(state: State) -> NDArray[np.intp]:
    return np.flatnonzero(state.scale.count < state.rows)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Harmonise if asked, scale and centre the features, then return their cross-products."""
    if state.harmony.stage != "ready":
        return harmonise.local(state.harmony, design)
    design = harmonise.adjusted(state.harmony, design)
    if not state.scale.placed:
        return features.scaling(state.scale, design)
    x, gaps = design.x, _gaps(state)
    p, g = x.shape[1], design.features.shape[1]
    xy: Matrix = np.zeros((g, p))
    yy: Vector = np.zeros(g)
    spread: Matrix = np.zeros((g, 2))
    for part, block in features.centred(state.scale, design):
        held = np.isfinite(block)
        filled = block if held.all() else np.where(held, block, 0.0)
        if params.within_sites:
            mean = filled.sum(axis=0) / np.maximum(held.sum(axis=0), 1)
            filled = np.where(held, block - mean, 0.0)
        xy[part] = filled.T @ x
        yy[part] = np.einsum("ij,ij->j", filled, filled)
        spread[part] = features.weights(filled, design.person)
    present = np.zeros((len(gaps), p, p))
    for at, feature in enumerate(gaps):
        present[at] = _gram(x[np.isfinite(design.features[:, feature])], params)
    return GeneSums(_gram(x, params), present, xy, yy, _held(design, gaps), spread)


def _held(design: Design, gaps: NDArray[np.intp]) -> Matrix:
    """Return how many persons of each level have a value of each feature with gaps."""
    found = [np.zeros((len(gaps), 0))]
    has = np.isfinite(design.features[:, gaps])
    for name, levels in design.frame.levels.items():
        rows = [np.flatnonzero(design.codes[name] == i) for i in range(len(levels))]
        found.append(np.column_stack([persons_with(has[r], design.person[r]) for r in rows]))
    return np.concatenate(found, axis=1)


def _gram(x: Matrix, params: Params) -> Matrix:
    """Return the cross-products of rows, about the site's own means if sites have levels of their own."""
    if params.within_sites and len(x):
        x = x - x.mean(axis=0)
    return np.asarray(x.T @ x)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Keep what a total adds."""
    if state.harmony.stage != "ready":
        return replace(state, harmony=harmonise.aggregate(state.harmony, total))
    if isinstance(total, GeneSums):
        return replace(state, total=total)
    return replace(state, scale=features.scaled(state.scale, total))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the moderated tests of the term of interest, features in the order of their p values.

    Raises:
        Refused: no feature has enough values.

    """
    if state.total is None:
        return None
    total, gaps = state.total, _gaps(state)
    few = state.scale.few(total.weights) | state.harmony.hidden
    few[gaps] |= (np.rint(total.held) < frame.min_cell).any(axis=1)
    kept, fits = _fits(params, frame, state, total, np.flatnonzero(~few))
    if not len(kept):
        raise Refused("no feature has enough values for this model", remedy="use fewer terms, or other features")
    j = features.term_of(params.term, frame)
    columns, prior_df, prior = moderated(fits, frame.transform[j])
    found: dict[str, Any] = {
        "feature": np.array(frame.features)[kept],
        **columns,
        "n": features.shown_counts(state.scale.count, frame.rows, frame.min_cell).astype(np.int64)[kept],
        "mean": state.scale.centre[kept],
    }
    genes = [str(name) for name in found["feature"]]
    return Result(
        method="differential_expression",
        n=frame.rows,
        details={
            "term": frame.columns[j],
            "features": features.table(found, np.argsort(columns["p"], kind="stable")),
            "prior_df": prior_df,
            "prior_variance": prior,
            "hidden_features": len(few) - len(kept),
            "below_5_per_cent": int(np.sum(columns["adjusted_p"] < 0.05)),
            "sets": genesets.tested(params.sets, genes, columns["t"]),
            "left_out_missing": frame.left_out,
        },
    )


def _fits(
    params: Params, frame: Frame, state: State, total: GeneSums, kept: NDArray[np.intp]
) -> tuple[NDArray[np.intp], Fits]:
    """Fit each feature that may be shown and can be fitted; return which, and what limma's lmFit has."""
    p, count = len(frame.columns), len(state.scale.count)
    first = 1 if params.within_sites else 0  # the sites' own levels stand for the intercept
    part, terms = slice(first, p), frame.columns[first:]
    unscaled = np.zeros((count, p, p))
    unscaled[:, part, part] = invert(total.xx[part, part], terms)
    df = state.scale.count - (p - 1 + state.scale.sites if params.within_sites else p)
    whole = df >= 1
    for at, feature in enumerate(_gaps(state)):
        try:
            unscaled[feature, part, part] = invert(total.present[at][part, part], terms)
        except AnalysisFailed:  # among those who have it some column does not vary by itself
            whole[feature] = False
    kept = kept[whole[kept]]
    df, unscaled, scale = df[kept], unscaled[kept], state.scale.scale[kept]
    beta = np.einsum("gij,gj->gi", unscaled, total.xy[kept])
    residual = np.maximum(total.yy[kept] - np.einsum("gi,gi->g", beta, total.xy[kept]), 0.0)
    flat = total.yy[kept] <= _FLAT * state.scale.count[kept]
    beta[flat], residual[flat] = 0.0, 0.0
    return kept, Fits(beta * scale[:, None], unscaled, residual / df * scale**2, df)
