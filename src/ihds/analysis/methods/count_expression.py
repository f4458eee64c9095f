"""Differential expression of sequencing counts: a negative binomial model of each gene (edgeR, DESeq2).

Model      log E y_g = log library + x · beta_g, Var y_g = mu + phi_g mu², the dispersions phi given, or one
           that all genes have in common; the term of interest is tested by the likelihood ratio.
Down       which genes occur at all, the mean log quartile, then coefficients and dispersions of the fits.
Up         Magnitudes, Libraries, Steps in turns, Profile where the dispersion is sought, Spread, as sums over sites.
Rounds     about 10, and 15 for the dispersion; 15 more where a gene is absent from a level: its maximum lies
           at infinity.
Reveals    score and information of each gene, over all sites; p = n would determine rows: disclosure
           refuses p > n / 3 and n - p < 10. A gene whose counts are few persons' own, or one site's, is
           not fitted; one whose residuals are, is left out. Both are counted. Means are told to a tenth, for
           exact ones sum to a million less those of the genes left out.
Errors     Collinear, BadFormula, BadInput, BadTable (values that are no counts, a sample without most genes),
           DidNotConverge (no common dispersion), Refused.
Source     McCarthy, Chen & Smyth 2012; Cox & Reid 1987; Bullard et al. 2010 (upper quartile). Checked against
           R edgeR's glmFit, glmLRT and estimateGLMCommonDisp and R glm (tests/vectors/counts.R, omics.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.special import chdtrc, ndtr

from ihds.analysis import dispersions, features, genewise, libraries
from ihds.analysis.design import INTERCEPT, Ask, Design, Frame, Ints
from ihds.analysis.dispersions import Profile, Search
from ihds.analysis.features import Magnitudes, Scale
from ihds.analysis.genewise import ENDLESS, FAILED, Fits, Steps
from ihds.analysis.libraries import Libraries, Scaling
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import RANK_TOLERANCE
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput, Refused

#: Beyond this a dispersion says that nothing is known.
_MOST_DISPERSION = 100.0
#: A direction without end is the term's own if the term has more than this part of it.
_OWN = 1e-3


@dataclass(frozen=True, slots=True)
class Params:
    """``features`` is a pattern of names of counts; ``term`` the column that is tested, by default the last.

    ``dispersion`` holds for every gene that ``dispersions``, ``GENE=0.1, OTHER=0.2``, does not name; 0 is Poisson.
    Where neither is given, the one that all genes have in common is estimated.
    """

    formula: str
    features: str
    term: str = ""
    dispersion: float | None = None
    dispersions: str = ""
    scaling: Scaling = "upper_quartile"
    max_rounds: int = 40


@dataclass(frozen=True, slots=True)
class Spread(Contribution):
    """What is shown of each fitted gene besides its test."""

    kind: ClassVar[str] = "gene vector"

    expected: Annotated[Matrix, Leaves("(genes, p (p + 1) / 2)", "covariate unit squared x weight", bound=2**28)]
    rate: Annotated[Vector, Leaves("(genes,)", "counts per million of the plain library", bound=2**20)]
    weights: features.Weights


CONTRIBUTIONS = (Magnitudes, Libraries, Steps, Profile, Spread)


@dataclass(frozen=True, slots=True)
class State:
    """What is known of genes and libraries; the first half of the fits lack the term, the second half have it."""

    stage: Literal["genes", "libraries", "search", "profile", "fits", "spread", "done"]
    scale: Scale
    columns: tuple[str, ...]
    features: tuple[str, ...]
    rows: int
    quartile: float
    search: Search
    fits: Fits
    total: Spread | None

    @property
    def shown(self) -> Any:
        """The genes, as places in either half, whose two fits have both settled."""
        null, whole = np.split(self.fits.status, 2)
        return np.flatnonzero((null != FAILED) & (whole != FAILED))


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a model matrix and the counts."""
    asked = features.model_of(params.formula, params.features, codebook, "count_expression")
    if not _estimated(params):
        _dispersions(params, asked.features)
    return asked


def _estimated(params: Params) -> bool:
    return params.dispersion is None and not params.dispersions


def _dispersions(params: Params, names: tuple[str, ...]) -> Vector:
    """Return the given dispersion of every gene (g,).

    Raises:
        BadInput: one is missing or is no dispersion, or a gene is not among the features.

    """
    found: dict[str, float] = {}
    for part in filter(str.strip, params.dispersions.split(",")):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            found[name] = np.nan if name in found else float(value)
        except ValueError as error:
            raise BadInput(f"the dispersion {part.strip()[:60]!r} cannot be read", remedy="write GENE=0.1") from error
    foreign = sorted(set(found) - set(names))
    if foreign:
        raise BadInput(f"{foreign[0]!r} has a dispersion but is none of the features", remedy="look at its name")
    lacking = [name for name in names if name not in found]
    if lacking and params.dispersion is None:
        raise BadInput(f"no dispersion is given for {lacking[0]!r}", remedy="give dispersion = 0.1 for all others")
    values = np.array([found.get(name, params.dispersion) for name in names], dtype=np.float64)
    if not bool(np.all((values >= 0) & (values <= _MOST_DISPERSION))):  # NaN is no such number
        raise BadInput(
            "a dispersion is given twice, or is below 0 or above 100",
            remedy="give the square of a coefficient of variation",
        )
    return values


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known of the genes.

    Raises:
        BadFormula: the term of interest is no column, or the intercept.

    """
    if frame.columns[features.term_of(params.term, frame)] == INTERCEPT:
        raise BadFormula("the intercept is no term that can be tested", remedy="name another column")
    none = genewise.begin(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0), np.zeros((0, 1), dtype=np.int64))
    return State("genes", features.begin(frame), frame.columns, frame.features, frame.rows, 0.0, Search(), none, None)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    if state.stage == "genes":
        return features.scaling(state.scale, design)
    if state.stage == "libraries":
        return libraries.measured(state.scale, design)
    library = libraries.sizes(state.scale, design, params.scaling, state.quartile)
    match state.stage:
        case "profile":
            return dispersions.profile(state.fits, design, library)
        case "spread":
            return _spread(state, design, library)
    return genewise.steps(state.fits, design, library)


def _spread(state: State, design: Design, library: Vector) -> Spread:
    """Return expected information, rates and how many persons the residuals of the whole models rest on."""
    fits, chosen = state.fits, state.shown + len(state.fits.gene) // 2
    products, g = genewise.pairs(design.x), len(chosen)
    million = 1e6 / np.maximum(libraries.sizes(state.scale, design, "none", 0.0), 1.0)
    expected, rate, spread = np.zeros((g, products.shape[1])), np.zeros(g), np.zeros((g, 2))
    size = np.sqrt(np.maximum(fits.deviance[chosen] / state.rows, 1e-12))
    for part, which, y, mean in genewise.means(fits, chosen, design, library):
        phi = fits.dispersion[which]
        variance = mean * (1 + phi * mean)
        expected[part] = (mean / (1 + phi * mean) / fits.unit[which]).T @ products
        rate[part] = million @ y
        spread[part] = features.weights((y - mean) / np.sqrt(variance) / size[part], design.person)
    return Spread(expected, rate, spread)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on.

    Raises:
        Refused: no gene is left.

    """
    match total:
        case Libraries():
            state = replace(state, quartile=libraries.mean_quartile(total, state.rows, params.scaling))
            if not _estimated(params):
                return _tests(params, state, _dispersions(params, state.features))
            gene, size = _present(state)
            return replace(state, stage="search", fits=dispersions.begin(state.search, gene, size, len(state.columns)))
        case Steps():
            fits = genewise.moved(state.fits, total, state.columns, params.max_rounds)
            after: Any = {"search": "profile", "fits": "spread"}
            return replace(state, stage=state.stage if len(fits.moving) else after[state.stage], fits=fits)
        case Profile():
            return _closer(params, state, total)
        case Spread():
            return replace(state, stage="done", total=total)
    return replace(state, stage="libraries", scale=features.scaled(state.scale, total))


def _present(state: State) -> tuple[Ints, Vector]:
    """Return the genes that enough persons have, and how large their counts usually are."""
    scale = state.scale
    few = scale.few(np.zeros((len(scale.count), 2)))
    gene = np.flatnonzero(libraries.occurring(scale) & ~few).astype(np.int64)
    if not len(gene):
        raise Refused("no gene has counts of enough persons", remedy="name other genes")
    return gene, scale.scale[gene]


def _closer(params: Params, state: State, total: Profile) -> State:
    """Close in on the common dispersion, or, once it is found, start the tests."""
    search = dispersions.closer(state.search, state.fits, total)
    state = replace(state, search=search)
    if not search.spacing:
        return _tests(params, state, np.full(len(state.features), np.exp(search.centre)))
    good, at = dispersions.settled(state.fits)
    gene = state.fits.gene[good]
    fits = dispersions.begin(search, gene, state.scale.scale[gene], len(state.columns), at)
    return replace(state, stage="search", fits=fits)


def _tests(params: Params, state: State, phi: Vector) -> State:
    """Start the fits of every gene, first without the term, then with it."""
    gene, size = _present(state)
    free = np.ones((2, len(gene), len(state.columns)), dtype=np.int64)
    free[0, :, _tested(params, state.columns)] = 0
    fits = genewise.begin(np.tile(gene, 2), np.tile(phi[gene], 2), np.tile(size, 2), free.reshape(2 * len(gene), -1))
    return replace(state, stage="fits", fits=fits)


def _tested(params: Params, columns: tuple[str, ...]) -> int:
    return columns.index(params.term) if params.term else len(columns) - 1


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the tests of the term, genes in the order of their p values.

    Raises:
        Refused: no gene is left.

    """
    total = state.total
    if total is None:
        return None
    few, half = features.resting(total.weights, frame.min_cell), len(state.fits.gene) // 2
    places = np.flatnonzero(~few)
    kept = state.shown[places]
    if not len(kept):
        raise Refused("no gene has counts of enough persons, or could be fitted", remedy="name other genes")
    fits, whole, j = state.fits, kept + half, _tested(params, state.columns)
    names = np.array(frame.features)
    ratio = np.maximum(fits.deviance[kept] - fits.deviance[whole], 0.0)
    p = chdtrc(1, ratio)
    beyond = (fits.status[whole] == ENDLESS) & (
        np.abs(fits.endless[whole, j]) > _OWN * np.abs(fits.endless[whole]).max(axis=1)
    )
    estimate = np.where(beyond, np.nan, fits.at[whole, j] / frame.scale[j])
    spread = _errors(total.expected[places] * fits.unit[whole, None], j) / frame.scale[j]
    se = np.where(beyond | (spread == 0), np.nan, spread)
    adjusted = features.false_discovery(p)
    found: dict[str, Any] = {
        "feature": names[fits.gene[whole]],
        "estimate": estimate / np.log(2),
        "se": se / np.log(2),
        "likelihood_ratio": ratio,
        "p": p,
        "adjusted_p": adjusted,
        "wald_p": 2 * ndtr(-np.abs(estimate / se)),
        "mean": _coarse(np.log2(total.rate[places] / state.rows), frame.min_cell),
    }
    up = beyond & (fits.endless[whole, j] > 0)
    failed = np.setdiff1d(np.arange(half), state.shown)
    return Result(
        method="count_expression",
        n=frame.rows,
        details={
            "term": frame.columns[j],
            "dispersion": float(np.exp(state.search.centre)) if _estimated(params) else params.dispersion,
            "features": features.table(found, np.argsort(p, kind="stable")),
            "endless_up": names[fits.gene[whole[up]]].tolist(),
            "endless_down": names[fits.gene[whole[beyond & ~up]]].tolist(),
            "not_fitted": names[fits.gene[failed]].tolist(),
            "no_counts": names[~libraries.occurring(state.scale)].tolist(),
            "hidden_features": int(state.scale.few(np.zeros((len(names), 2))).sum() + few.sum()),
            "below_5_per_cent": int(np.sum(adjusted < 0.05)),
            "left_out_missing": frame.left_out,
            **_told(int(beyond.sum()), len(failed)),
        },
    )


def _coarse(mean: Vector, least: int) -> Vector:
    """Return log rates to a tenth where thresholds are in force: all rates sum to a million, less the hidden genes'."""
    return np.round(mean, 1) if least > 1 else mean


def _told(endless: int, failed: int) -> dict[str, str]:
    """Return what must be said of genes without an estimate."""
    said = [f"{endless} genes are absent from a group: their fold change is infinite"] if endless else []
    said += [f"{failed} genes could not be fitted"] if failed else []
    return {"warning": "; ".join(said)} if said else {}


def _errors(packed: Matrix, j: int) -> Vector:
    """Return the standard error of one coefficient of each gene (g,); directions without end are left out."""
    p = int((np.sqrt(8 * packed.shape[1] + 1) - 1) / 2)
    values, vectors, size = genewise.spectrum(genewise.square(packed, p), np.ones((len(packed), p)))
    inverse = np.where(values > RANK_TOLERANCE, 1 / np.maximum(values, RANK_TOLERANCE), 0.0)
    return np.asarray(np.sqrt(np.einsum("fi,fi->f", vectors[:, j] ** 2, inverse)) / size[:, j])
