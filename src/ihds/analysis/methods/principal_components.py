"""Principal components of many features: loadings and variances; persons' scores stay at the site.

Model      singular vectors of the centred features, scaled to unit variance if asked, or as genotypes by
           sqrt(2 f (1 - f)); a missing value counts as the feature's mean. Features may be harmonised
           between sites first (see ``harmonise``).
Down       each feature's centre and scale, then an orthonormal basis (features, k + 8); what sites
           harmonise with.
Up         Magnitudes, Means and Spread, then Image, at last Scores, as sums over sites; SiteFits and
           SiteResiduals, or Profile, where features are harmonised.
Rounds     5 and about 10 to 60: locally optimal block steps until the components stand still; 5 more where
           features are harmonised.
Reveals    the leading directions of the covariance over all sites; scores are personal and never leave.
           Features of fewer than min_cell persons, or of one site, take no part and are counted; from the
           first component on that few persons make, none is shown.
Errors     BadInput, DidNotConverge, Refused.
Source     Knyazev 2001. Checked against R prcomp (tests/vectors/omics.R,
           genetics.sh).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ihds.analysis import features, harmonise
from ihds.analysis.design import Ask, Design, Frame, Ints
from ihds.analysis.features import Magnitudes, Means, Scale
from ihds.analysis.harmonise import Harmony, Kind
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadInput, DidNotConverge, Refused

#: Further directions that are followed so that those asked for settle fast.
_SPARE = 8
#: The part of a component, against its variance, that may still point elsewhere.
_STILL = 1e-7


@dataclass(frozen=True, slots=True)
class Params:
    """``features`` is a pattern of names; ``scaling`` what each is divided by.

    ``harmonise`` makes features alike between sites before; ``keep`` is a formula of effects it keeps.
    """

    features: str
    components: int = 5
    scaling: Literal["none", "unit", "genotype"] = "none"
    max_rounds: int = 200
    harmonise: Kind = "none"
    keep: str = "~ 1"


@dataclass(frozen=True, slots=True)
class Spread(Contribution):
    """The sum of squares of each centred feature."""

    square: Annotated[Vector, Leaves("(features,)", "scaled units squared", bound=2**14)]
    weights: features.Weights


@dataclass(frozen=True, slots=True)
class Image(Contribution):
    """The covariance applied to the basis."""

    kind: ClassVar[str] = "gene vector"

    image: Annotated[Matrix, Leaves("(features, k)", "scaled units squared", bound=2**14)]


@dataclass(frozen=True, slots=True)
class Scores(Contribution):
    """Sums of squares and of fourth powers of the persons' scores, in units of each component's deviation."""

    spread: Annotated[Matrix, Leaves("(k, 2)", "deviations squared, and to the fourth", bound=features.MOST)]


CONTRIBUTIONS = (Magnitudes, Means, *harmonise.CONTRIBUTIONS, Spread, Image, Scores)


@dataclass(frozen=True, slots=True)
class State:
    """The features' scale and divisor; ``basis`` is what the sites apply the covariance to.

    ``found`` holds the components so far and the last direction, ``covered`` the covariance of both.
    """

    harmony: Harmony
    scale: Scale
    divisor: Vector
    total: float
    basis: Matrix
    found: Matrix
    covered: Matrix
    values: Vector
    shown: Ints
    rows: int
    least: int
    held: Matrix
    settled: bool
    rounds: int


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the features."""
    if not 1 <= params.components <= 50:
        raise BadInput(f"components is {params.components}", remedy="give 1 to 50")
    return harmonise.keeping(params.keep, params.features, codebook, params.harmonise)


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known of the features.

    Raises:
        BadInput: there cannot be so many components.
        Refused: so many components would describe so few persons.

    """
    most = min(frame.rows - 1, len(frame.features))
    if params.components > most:
        raise BadInput(f"{params.components} components are more than there can be", remedy=f"ask for at most {most}")
    if frame.min_cell > 1 and 3 * params.components > frame.rows:
        raise Refused(
            f"{params.components} components would describe {frame.rows} persons",
            reasons=("parameters_per_row: at most a third as many components as persons",),
            remedy="ask for fewer components",
        )
    none = np.zeros((0, 0))
    shown = np.zeros(0, dtype=np.int64)
    harmony, scale = harmonise.begin(params.harmonise, frame), features.begin(frame)
    flat, rows, least = np.zeros(0), frame.rows, frame.min_cell
    return State(harmony, scale, flat, 0.0, none, none, none, flat, shown, rows, least, none, False, 0)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Harmonise if asked, scale and centre the features, then apply the covariance to the basis."""
    if state.harmony.stage != "ready":
        return harmonise.local(state.harmony, design)
    design = harmonise.adjusted(state.harmony, design)
    if not state.scale.placed:
        return features.scaling(state.scale, design)
    if not len(state.divisor):
        return Spread(*features.squares(state.scale, design))
    basis = state.found[:, : params.components] if state.settled else state.basis
    scores = np.zeros((len(design.features), basis.shape[1]))
    for part, block in features.centred(state.scale, design):
        scores += np.nan_to_num(block) @ (basis[part] / state.divisor[part, None])
    if state.settled:
        deviation = np.sqrt(np.maximum(state.values[: basis.shape[1]] / max(state.rows - 1, 1), 1e-300))
        return Scores(features.weights(scores / deviation, design.person))
    return Image(features.products(state.scale, design, scores) / state.divisor[:, None])


def aggregate(params: Params, state: State, total: Any) -> State:
    """Choose a first basis, then turn it towards the leading directions.

    Raises:
        DidNotConverge: the rounds are used up.

    """
    if state.harmony.stage != "ready":
        return replace(state, harmony=harmonise.aggregate(state.harmony, total))
    match total:
        case Spread():
            few = state.scale.few(total.weights) | state.harmony.hidden
            return _begun(params, replace(state, shown=np.flatnonzero(~few)), total.square)
        case Scores():
            return replace(state, held=total.spread)
        case Image():
            return _turned(params, replace(state, rounds=state.rounds + 1), total.image)
    return replace(state, scale=features.scaled(state.scale, total))


def _begun(params: Params, state: State, square: Vector) -> State:
    scale = state.scale.scale
    variance = square / max(state.rows - 1, 1)
    flat = np.isin(np.arange(len(scale)), state.shown, invert=True) | (
        variance <= 1e-20 * np.maximum(variance.max(initial=0.0), 1e-300)
    )
    if params.scaling == "unit":
        divisor = np.sqrt(np.where(flat, 1.0, variance))
    elif params.scaling == "genotype":
        frequency = np.clip(state.scale.centre / 2, 0.0, 1.0)
        divisor = np.sqrt(np.maximum(2 * frequency * (1 - frequency), 1e-12)) / scale
    else:
        divisor = 1 / scale  # back to the features' own units
    divisor = np.where(flat, np.inf, divisor)
    size = min(params.components + _SPARE, len(scale))
    start = np.random.default_rng(20261125).normal(size=(len(scale), size))
    start[flat] = 0.0
    basis = np.linalg.qr(start)[0]
    held = np.where(flat, 1.0, divisor)
    whole = float(np.sum(np.where(flat, 0.0, variance / held**2)))
    none = np.zeros((len(scale), 0))
    return replace(state, divisor=divisor, total=whole, basis=basis, found=none, covered=none)


def _turned(params: Params, state: State, image: Matrix) -> State:
    """Take the locally optimal step within basis, residual and last direction (Knyazev 2001)."""
    size = min(params.components + _SPARE, len(state.divisor))
    found, covered = state.found, state.covered
    s = np.concatenate([found, state.basis], axis=1)
    covered_s = np.concatenate([covered, image], axis=1)
    gram, small = s.T @ s, s.T @ covered_s
    inner, turn = np.linalg.eigh((gram + gram.T) / 2)
    kept = inner > 1e-10 * inner[-1]
    white = turn[:, kept] / np.sqrt(inner[kept])
    middle = white.T @ ((small + small.T) / 2) @ white
    values, vectors = np.linalg.eigh(middle)
    order = np.argsort(values)[::-1][:size]
    values, mix = np.maximum(values[order], 0.0), white @ vectors[:, order]
    x, ax = s @ mix, covered_s @ mix
    step = mix.copy()
    step[:size] = 0.0  # the part that does not come from the basis itself: the next direction
    direction, moved = s @ step, covered_s @ step
    rest = ax - x * values
    k = min(params.components, len(values))
    reach = np.linalg.norm(rest[:, :k], axis=0)
    settled = bool(np.all(reach <= _STILL * np.maximum(values[:k], 1e-14 * max(values[0], 1e-300))))
    if not settled and state.rounds >= params.max_rounds:
        raise DidNotConverge(
            f"principal_components: component {int(np.argmax(reach)) + 1} still turns after {state.rounds} rounds",
            remedy="ask for fewer components: two of them explain nearly the same",
        )
    length = np.maximum(np.linalg.norm(direction, axis=0), 1e-300)
    first = not found.shape[1]
    return replace(
        state,
        found=x if first else np.concatenate([x, direction / length], axis=1),
        covered=ax if first else np.concatenate([ax, moved / length], axis=1),
        basis=np.linalg.qr(rest - x @ (x.T @ rest))[0],
        values=values,
        settled=settled,
    )


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return standard deviations, shares and loadings, up to the first component that few persons make.

    Raises:
        Refused: that is the first.

    """
    if not state.settled or not len(state.held):
        return None
    few = np.flatnonzero(features.resting(state.held, state.least))
    k = int(few[0]) if len(few) else min(params.components, len(state.values))
    if not k:
        raise Refused(
            f"the first component rests on fewer than {state.least} persons: its loadings would be theirs",
            remedy="use scaling = unit, logarithms, or other features",
        )
    variance = state.values[:k] / max(state.rows - 1, 1)
    loadings = state.found[:, :k]
    loadings = loadings * np.sign(loadings[np.argmax(np.abs(loadings), axis=0), np.arange(k)])
    return Result(
        method="principal_components",
        n=frame.rows,
        details={
            "sd": [float(v) for v in np.sqrt(variance)],
            "share": [float(v) for v in variance / state.total] if state.total > 0 else [],
            "features": features.table(
                {"feature": frame.features, **{f"component_{j + 1}": loadings[:, j] for j in range(k)}},
                state.shown,
            ),
            "hidden_features": len(frame.features) - len(state.shown),
            "left_out_missing": frame.left_out,
        },
    )
