"""How far sites differ in many features, before and after they are harmonised.

Model      share of each feature's variance that lies between sites: sum of squares of the sites' means about
           the mean of all / sum of squares of all; as the features are, and after ComBat, after batch effects
           are taken out, or after quantile normalisation. What is kept of covariates stays between sites.
Down       each feature's centre and scale, before and after; what sites harmonise with.
Up         Magnitudes and Means, SiteFits and SiteResiduals, or Profile, then Shares, as sums over sites.
Rounds     10: 5 to harmonise, 3 to scale what comes of it, 2 for the shares.
Reveals    how far sites lie apart in each feature, never which site lies where. Between two sites that is each
           one's mean, among three so for one who knows his own: fewer than four sites with the feature are
           refused, or the feature is hidden, unless the permit lets a site stand alone. Features of few
           persons take no part and are counted. Harmonised values never leave.
Errors     BadFormula, BadInput, BadTable, Collinear, Refused.
Source     Johnson et al. 2007; Ritchie et al. 2015; Bolstad et al. 2003. Checked against R sva and limma
           (tests/vectors/omics.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ihds.analysis import features, harmonise
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.features import Magnitudes, Means, Scale
from ihds.analysis.harmonise import Harmony
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import Refused

#: Sites among which the part of variance between them gives nobody's mean away, even to one of them.
_SITES = 4
#: What the sums of squares about one mean are, of which the rest is rounding.
_ROUNDING = 1e-14


@dataclass(frozen=True, slots=True)
class Params:
    """``features`` is a pattern of names; ``keep`` a formula of effects that ``harmonise`` keeps."""

    features: str
    harmonise: Literal["combat", "combat_means", "batch", "quantile"] = "combat"
    keep: str = "~ 1"


@dataclass(frozen=True, slots=True)
class Shares(Contribution):
    """Squares about the mean of all, of values and of their sites' means, before and after; of what may be shown."""

    kind: ClassVar[str] = "gene vector"

    before: Annotated[Matrix, Leaves("(features, 2)", "scaled units squared", bound=2**14)]
    after: Annotated[Matrix, Leaves("(features, 2)", "scaled units squared", bound=2**14)]


@dataclass(frozen=True, slots=True)
class SpreadWeights(Contribution):
    """How many persons the spread of each feature rests on, before and after; 0 where sites are too few."""

    before: features.Weights
    after: features.Weights


CONTRIBUTIONS = (Magnitudes, Means, *harmonise.CONTRIBUTIONS, SpreadWeights, Shares)


@dataclass(frozen=True, slots=True)
class State:
    """What sites harmonise with, the features' scale after it, which are shown (g,), and the opened squares."""

    harmony: Harmony
    scale: Scale
    shown: NDArray[np.uint8]
    total: Shares | None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the features and what is kept; a site's rows belong together, for its means are its own."""
    return replace(harmonise.keeping(params.keep, params.features, codebook, params.harmonise), undivided=True)


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known of the features."""
    harmony, scale = harmonise.begin(params.harmonise, frame), features.begin(frame)
    return State(harmony, scale, np.zeros(0, dtype=np.uint8), None)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Harmonise, scale what comes of it, then return squares of the features that may be shown."""
    if state.harmony.stage != "ready":
        return harmonise.local(state.harmony, design)
    after = harmonise.adjusted(state.harmony, design)
    if not state.scale.placed:
        return features.scaling(state.scale, after)
    raw = state.harmony.scale
    if not len(state.shown):
        spread = raw.sites >= _least(raw)  # else squares about the mean of all would tell what shares do
        return SpreadWeights(_weights(raw, design, spread), _weights(state.scale, after, spread))
    shown = state.shown > 0
    return Shares(_squares(raw, design, shown), _squares(state.scale, after, shown))


def _least(scale: Scale) -> int:
    """Return how many sites must have a feature."""
    return _SITES if scale.least_sites > 1 else 2


def _weights(scale: Scale, design: Design, shown: NDArray[np.bool_]) -> Matrix:
    found = [features.weights(b, design.person) for _, b in features.centred(scale, design)]
    return np.where(shown[:, None], np.concatenate(found), 0.0)


def _squares(scale: Scale, design: Design, shown: NDArray[np.bool_]) -> Matrix:
    """Return sums of squares (g, 2) about the mean of all, of rows and of their site's mean; 0 where not shown."""
    found = np.zeros((design.features.shape[1], 2))
    for part, block in features.centred(scale, design):
        held = np.isfinite(block)
        _, mean = harmonise.about_own(block, held)
        about = np.where(held, block, 0.0)
        squares = np.stack([np.einsum("ij,ij->j", about, about), held.sum(axis=0) * mean**2], axis=1)
        found[part] = np.where(shown[part, None], squares, 0.0)
    return found


def aggregate(params: Params, state: State, total: Any) -> State:
    """Keep what a total adds; decide which features may be shown before their squares are asked for.

    Raises:
        Refused: there are so few sites that a share would tell one's mean, or no feature may be shown.

    """
    if state.harmony.stage != "ready":
        harmony = harmonise.aggregate(state.harmony, total)
        _refuse_few_sites(harmony.scale)
        return replace(state, harmony=harmony)
    match total:
        case Shares():
            return replace(state, total=total)
        case SpreadWeights():
            return _chosen(state, total)
    return replace(state, scale=features.scaled(state.scale, total))


def _refuse_few_sites(scale: Scale) -> None:
    """Refuse before anything but counts is known."""
    sites, least = int(scale.sites.max(initial=0.0)), _least(scale)
    if sites < least:
        raise Refused(
            f"among {sites} sites with rows the variance between them would tell the mean of one",
            reasons=(f"min_level_sites: at least {least} sites with rows",),
            remedy="ask more holders to take part; harmonise inside another method, which shows no shares",
        )


def _chosen(state: State, total: SpreadWeights) -> State:
    raw = state.harmony.scale
    hidden = raw.few(total.before) | state.scale.few(total.after) | state.harmony.hidden | (raw.sites < _least(raw))
    if hidden.all():
        raise Refused("no feature has values of enough persons and sites", remedy="name other features")
    return replace(state, shown=(~hidden).astype(np.uint8))


def _share(squares: Matrix) -> Vector:
    """Return the part of the variance (g,) between sites; none where nothing varies."""
    whole, between = squares.T
    varies = whole > _ROUNDING
    return np.where(varies, between / np.where(varies, whole, 1.0), 0.0)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the shares of the features, the largest before first, and their means."""
    if state.total is None:
        return None
    shown = np.flatnonzero(state.shown)
    before, after = _share(state.total.before)[shown], _share(state.total.after)[shown]
    found = {"feature": np.array(frame.features)[shown], "between_before": before, "between_after": after}
    unmoved = shown[~state.harmony.moved[shown]]
    return Result(
        method="harmonise",
        n=frame.rows,
        details={
            "harmonise": params.harmonise,
            "mean_before": float(before.mean()),
            "mean_after": float(after.mean()),
            "by_chance": (float(state.harmony.scale.sites.max()) - 1) / max(frame.rows - 1, 1),
            "features": features.table(found, np.argsort(-before, kind="stable")),
            "left_as_they_are": len(unmoved),
            "hidden_features": len(frame.features) - len(shown),
            "left_out_missing": frame.left_out,
        },
    )
