"""Features made alike between sites before a method looks at them: ComBat, batch effects taken out, quantiles.

Whatever belongs to one site is computed there and stays there: its means, variances and their shrinkage. What
leaves are sums over sites of cross-products about each site's own means, residual squares, and levels weighted
by persons; or the sum over persons of their sorted values. A method runs the rounds of a ``Harmony`` first::

    begin:      harmonise.begin(kind, frame)              in the method's first state
    local:      if harmony.stage != "ready": return harmonise.local(harmony, design)
                design = harmonise.adjusted(harmony, design)
    aggregate:  if harmony.stage != "ready": replace(state, harmony=harmonise.aggregate(harmony, total))

and lists ``harmonise.CONTRIBUTIONS`` (``features.Magnitudes`` and ``Means`` besides) among its own;
``undivided(kind)`` goes into its ask. The columns of the frame are kept: their effects are not taken for
effects of sites. Features that must not be looked at come back as missing everywhere. ComBat and batches need
sums of each feature alone; quantiles need whole rows at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ihds.analysis import combat, features
from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.features import Scale
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import invert
from ihds.analysis.outcomes import categories
from ihds.canonical import pack
from ihds.data.codebook import Codebook
from ihds.data.wide import Wide
from ihds.errors import AnalysisFailed, BadFormula, BadInput, BadTable, Collinear, Refused

Kind = Literal["none", "combat", "combat_means", "batch", "quantile"]
#: Kinds that take every site for a batch.
BY_SITE = ("combat", "combat_means", "batch")
#: Of a feature the kept columns explain all but this part: nothing is left to harmonise.
_DETERMINED = 1e-10


@dataclass(frozen=True, slots=True)
class SiteFits(Contribution):
    """Cross-products about each site's own means; ``present`` of the rows that have a feature with gaps."""

    kind: ClassVar[str] = "gene vector"

    xx: Annotated[Matrix, Leaves("(p, p)", "covariate unit squared")]
    present: Annotated[Any, Leaves("(features with gaps, p, p)", "covariate unit squared")]
    xy: Annotated[Matrix, Leaves("(features, p)", "covariate unit x scaled unit")]
    yy: Annotated[Vector, Leaves("(features,)", "scaled units squared", bound=2**14)]
    flat: Annotated[Vector, Leaves("(features,)", "sites at which all values are the same", bound=1, per="site")]
    enough: Annotated[Vector, Leaves("(features,)", "sites with values enough", bound=1, per="site")]
    sites: Annotated[float, Leaves("()", "sites with rows", bound=1, per="site")]
    single: Annotated[float, Leaves("()", "sites with one row", bound=1, per="site")]
    weights: features.Weights


@dataclass(frozen=True, slots=True)
class SiteResiduals(Contribution):
    """Squares of what covariates and sites leave, and the sites' levels, each times its rows."""

    kind: ClassVar[str] = "gene vector"

    square: Annotated[Vector, Leaves("(features,)", "units of the spread within sites, squared", bound=2**14)]
    level: Annotated[Vector, Leaves("(features,)", "scaled units x rows", bound=2**15)]


@dataclass(frozen=True, slots=True)
class Profile(Contribution):
    """The persons' sorted values, added place by place: the smallest of each, the next, up to the largest."""

    kind: ClassVar[str] = "gene vector"

    sorted: Annotated[Vector, Leaves("(features,)", "scaled units", bound=2**15)]
    short: Annotated[float, Leaves("()", "rows with fewer than two values", bound=1)]


CONTRIBUTIONS = (SiteFits, SiteResiduals, Profile)


@dataclass(frozen=True, slots=True)
class Harmony:
    """What all sites agreed on before they harmonise; public.

    ``slope`` (g, p), ``level`` and ``deviation`` (g,) are in units of ``scale``; ``unit`` is the spread within
    sites; ``target`` (g,) the mean sorted values. ``marks`` (2, g) tell which features are moved and which are
    hidden: these come back as missing. The others stay as they are. ``sites`` are those with rows.
    """

    kind: Kind
    stage: Literal["scale", "fits", "residuals", "places", "profile", "ready"]
    scale: Scale
    places: Scale
    rows: int
    first: int
    columns: tuple[str, ...]
    sites: int
    slope: Matrix
    unit: Vector
    level: Vector
    deviation: Vector
    target: Vector
    marks: NDArray[np.uint8]

    @property
    def moved(self) -> NDArray[np.bool_]:
        """Which features (g,) are harmonised."""
        return np.asarray(self.marks[0] > 0)

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """Which features (g,) come back as missing."""
        return np.asarray(self.marks[1] > 0)

    @property
    def middles(self) -> Vector:
        """The features' sorted centres: sorted values are added about them, which an offset of all would drown."""
        own = np.sort(self.scale.centre[self.scale.count > 0])
        return _stretched(own, len(self.scale.centre)) if len(own) > 1 else np.zeros(len(self.scale.centre))

    def marked(self, moved: NDArray[np.bool_], hidden: NDArray[np.bool_]) -> Harmony:
        """Return what was agreed with other marks."""
        return replace(self, marks=np.stack([moved, hidden]).astype(np.uint8))


def undivided(kind: str) -> bool:
    """Return whether a site's rows belong together: they are one batch."""
    return kind in BY_SITE


def keeping(text: str, pattern: str, codebook: Codebook, kind: str) -> Ask:
    """Return what features need whose harmonising keeps the effects of covariates; ``~ 1`` keeps none.

    Raises:
        BadFormula: the formula is another, or nothing would use it.
        BadInput: the pattern names no feature.

    """
    formula = formulas.parse(text, codebook.variables, categories(codebook))
    if formula.response or not formula.intercept or formula.strata or formula.cluster or formula.offset:
        raise BadFormula(f"{text!r} is not what is to be kept", remedy="write ~ group + age, or ~ 1")
    if formula.terms and kind not in BY_SITE:
        raise BadFormula(f"harmonise = {kind} keeps nothing", remedy=f"use one of: {', '.join(BY_SITE)}")
    names = features.select(pattern, codebook, formula.variables)
    covariates: Literal["matrix", "table"] = "matrix" if formula.terms else "table"
    return Ask(formula=formula, outcome="none", covariates=covariates, features=names, undivided=undivided(kind))


def begin(kind: Kind, frame: Frame) -> Harmony:
    """Start before anything is known of the features.

    Raises:
        BadInput: one feature has no quantiles.

    """
    if kind == "quantile" and len(frame.features) < 2:
        raise BadInput("one feature has no quantiles to be made alike", remedy="name more features")
    scale, none, marks = features.begin(frame), np.zeros(0), np.zeros((2, len(frame.features)), dtype=np.uint8)
    stage: Literal["scale", "ready"] = "ready" if kind == "none" else "scale"
    first = int(frame.intercept)  # the sites' own levels stand for the intercept
    held = (none, none, none, none, marks)
    return Harmony(kind, stage, scale, scale, frame.rows, first, frame.columns[first:], 0, np.zeros((0, 0)), *held)


# -- at the site ----------------------------------------------------------------------------


def local(harmony: Harmony, design: Design) -> Contribution:
    """Return this site's part of the present round."""
    match harmony.stage:
        case "fits":
            return _fits(harmony, design)
        case "residuals":
            return _residuals(harmony, design)
        case "places":
            about = _sorted(design) - harmony.middles
            return features.scaling(harmony.places, replace(design, features=Wide.held(design.frame.features, about)))
        case "profile":
            short = float((np.isfinite(design.features[:, :]).sum(axis=1) < 2).sum())
            return Profile(((_sorted(design) - harmony.middles) / harmony.places.scale).sum(axis=0), short)
    return features.scaling(harmony.scale, design)


def _covariates(harmony: Harmony, design: Design) -> Matrix:
    return design.x[:, harmony.first :]


def about_own(values: Matrix, held: NDArray[np.bool_]) -> tuple[Matrix, Vector]:
    """Return values (n, g) about the site's own means, 0 where missing, and those means (g,)."""
    mean = np.where(held, values, 0.0).sum(axis=0) / np.maximum(held.sum(axis=0), 1)
    return np.where(held, values - mean, 0.0), mean


def _fits(harmony: Harmony, design: Design) -> SiteFits:
    x = _covariates(harmony, design)
    p, (n, g) = x.shape[1], design.features.shape
    x = x - x.mean(axis=0) if n else x
    xy, yy, spread = np.zeros((g, p)), np.zeros(g), np.zeros((g, 2))
    flat, enough = np.zeros(g), np.zeros(g)
    gaps = np.flatnonzero(harmony.scale.count < harmony.rows)
    present = np.zeros((len(gaps), p, p))
    for part, block in features.centred(harmony.scale, design):
        held = np.isfinite(block)
        own, _ = about_own(block, held)
        xy[part], yy[part] = own.T @ x, np.einsum("ij,ij->j", own, own)
        spread[part] = features.weights(own, design.person)
        enough[part] = held.sum(axis=0) >= (2 if harmony.kind == "combat" else 1)
        if n > 1:
            flat[part] = (block == block[:1]).all(axis=0)
        for at in np.flatnonzero((gaps >= part.start) & (gaps < part.start + block.shape[1])):
            with_value = x[held[:, gaps[at] - part.start]]
            own_x = with_value - with_value.mean(axis=0) if len(with_value) else with_value
            present[at] = own_x.T @ own_x
    return SiteFits(x.T @ x, present, xy, yy, flat, enough, float(n > 0), float(n == 1), spread)


def _unexplained(harmony: Harmony, design: Design, part: slice, block: Matrix) -> Matrix:
    """Return a block less what the kept columns explain of it."""
    return block - _covariates(harmony, design) @ harmony.slope[part].T


def _residuals(harmony: Harmony, design: Design) -> SiteResiduals:
    n, g = design.features.shape
    square, level = np.zeros(g), np.zeros(g)
    for part, block in features.centred(harmony.scale, design):
        rest = _unexplained(harmony, design, part, block)
        own, mean = about_own(rest, np.isfinite(rest))
        own /= harmony.unit[part]
        used = harmony.moved[part]
        square[part], level[part] = np.where(used, np.einsum("ij,ij->j", own, own), 0.0), np.where(used, n * mean, 0.0)
    return SiteResiduals(square, level)


def _stretched(own: Vector, places: int) -> Vector:
    """Return sorted values spread over so many places."""
    return np.interp(np.arange(places, dtype=np.float64), np.linspace(0.0, places - 1, len(own)), own)


def _sorted(design: Design) -> Matrix:
    """Return each row's values in rising order; those of a row with gaps spread over all places (limma's rule)."""
    if "sorted" not in design.cache:
        found = np.sort(design.features[:, :], axis=1)  # missing ones come last
        for row in np.flatnonzero(np.isnan(found).any(axis=1)):
            own = found[row][~np.isnan(found[row])]
            found[row] = _stretched(own, found.shape[1]) if len(own) > 1 else 0.0
        design.cache["sorted"] = found
    return np.asarray(design.cache["sorted"])


def adjusted(harmony: Harmony, design: Design) -> Design:
    """Return the site's rows with harmonised features; they never leave."""
    if harmony.kind == "none":
        return design
    key = pack(harmony)
    if design.cache.get("harmony") != key:
        values = _ranked(harmony, design) if harmony.kind == "quantile" else _moved(harmony, design)
        values[:, harmony.hidden] = np.nan
        held = Wide.held(design.frame.features, values)
        design.cache.update({"harmony": key, "harmonised": replace(design, features=held, cache={})})
        design.cache.pop("sorted", None)
    return cast("Design", design.cache["harmonised"])


def _ranked(harmony: Harmony, design: Design) -> Matrix:
    """Put the mean sorted value into the place of each; ties share the mean of their ranks."""
    found = np.array(design.features[:, :])
    places = np.arange(found.shape[1], dtype=np.float64)
    for row in range(len(found)):
        held = ~np.isnan(found[row])
        rank = rankdata(found[row, held]) - 1
        if len(rank) > 1:
            found[row, held] = np.interp(rank * (places[-1] / (len(rank) - 1)), places, harmony.target)
    return found


def _moved(harmony: Harmony, design: Design) -> Matrix:
    """Take the site's own shift out of the moved features, and with combat its own spread."""
    n, g = design.features.shape
    mean, variance, count = np.zeros(g), np.zeros(g), np.zeros(g)
    for part, block in features.centred(harmony.scale, design):
        rest = _unexplained(harmony, design, part, block)
        held = np.isfinite(rest)
        own, mean[part] = about_own(rest, held)
        count[part] = held.sum(axis=0)
        variance[part] = np.einsum("ij,ij->j", own, own) / np.maximum(count[part] - 1, 1)
    used = harmony.moved
    shift, stretch = np.zeros(g), np.ones(g)
    if n and used.any():
        deviation = harmony.deviation[used]
        found = (mean - harmony.level)[used] / deviation, variance[used] / deviation**2
        shift[used], stretch[used] = combat.own_part(harmony.kind, *found, count[used])
    shift, stretch = shift * harmony.deviation, np.sqrt(stretch)
    values = np.empty((n, g))
    for part, block in features.centred(harmony.scale, design):
        kept = block - _unexplained(harmony, design, part, block) + harmony.level[part]
        new = (block - kept - shift[part]) / stretch[part] + kept
        back = new * harmony.scale.scale[part] + harmony.scale.centre[part]
        values[:, part] = np.where(used[part], back, design.features[:, part])
    return values


# -- at the centre --------------------------------------------------------------------------


def aggregate(harmony: Harmony, total: Any) -> Harmony:
    """Take a round's total and move on.

    Raises:
        BadInput: there is nothing to harmonise between, or by this kind.
        BadTable: a row has too few values.
        Collinear: what is to be kept does not vary within sites.
        Refused: there are so few sites that one could be told from the others.

    """
    match total:
        case SiteFits():
            return _fitted(harmony, total)
        case SiteResiduals():
            return _levelled(harmony, total)
        case Profile():
            if round(total.short):
                raise BadTable("some rows have fewer than two values", remedy="leave them out, or name more features")
            target = total.sorted / harmony.rows * harmony.places.scale + harmony.middles
            return replace(harmony, stage="ready", target=target)
    if harmony.stage == "places":
        return replace(harmony, stage="profile", places=features.scaled(harmony.places, total))
    scale = features.scaled(harmony.scale, total)
    if not scale.placed:
        return replace(harmony, scale=scale)
    if harmony.kind == "quantile":
        hidden = scale.few(np.zeros((len(scale.count), 2)))
        return replace(harmony, stage="places", scale=scale).marked(~hidden, hidden)
    return replace(harmony, stage="fits", scale=scale)


def _check_sites(harmony: Harmony, total: SiteFits) -> int:
    sites = round(total.sites)
    if sites < 2:
        raise BadInput("only one site has rows: there are no sites to harmonise", remedy="use harmonise = none")
    if harmony.kind == "combat" and round(total.single):
        raise BadInput("some site has one row: its spread cannot be told", remedy="use harmonise = combat_means")
    if harmony.kind != "batch" and sites < 3 and harmony.scale.least_sites > 1:
        raise Refused(
            "ComBat leaves a part of each site's level: between two sites it would tell the one from the other",
            reasons=("min_level_sites: three sites with rows",),
            remedy="use harmonise = batch, or within_sites where the method has it",
        )
    return sites


def _fitted(harmony: Harmony, total: SiteFits) -> Harmony:
    """Fit the kept columns to each feature, and decide which features are moved."""
    sites, count = _check_sites(harmony, total), harmony.scale.count
    p = len(harmony.columns)
    measured = (np.rint(total.enough) == sites) & (count - sites - p >= 1)
    measured &= (total.yy > 0) | (harmony.kind == "batch")  # ComBat divides by the spread within sites
    unscaled = np.broadcast_to(_inverse(total.xx, harmony.columns), (len(count), p, p)).copy()
    for at, feature in enumerate(np.flatnonzero(count < harmony.rows)):
        try:
            unscaled[feature] = invert(total.present[at], harmony.columns) if p else unscaled[feature]
        except AnalysisFailed:  # among those who have it some column does not vary by itself
            measured[feature] = False
    slope = np.where(measured[:, None], np.einsum("gij,gj->gi", unscaled, total.xy), 0.0)
    flat = (np.rint(total.flat) > 0) & (harmony.kind != "batch")  # sva leaves such features as they are
    hidden = harmony.scale.few(total.weights) | ~(measured | flat)
    unit = np.sqrt(np.where(total.yy > 0, total.yy / np.maximum(count, 1.0), 1.0))
    fitted = replace(harmony, stage="residuals", sites=sites, slope=slope, unit=unit)
    return fitted.marked(measured & ~flat, np.asarray(hidden))


def _inverse(xx: Matrix, columns: tuple[str, ...]) -> Matrix:
    if not columns:
        return xx
    try:
        return invert(xx, columns)
    except Collinear as error:
        raise Collinear(
            f"within sites {error.message}", remedy="do not keep what differs only between sites: it is their effect"
        ) from error


def _levelled(harmony: Harmony, total: SiteResiduals) -> Harmony:
    """Take the grand level and the pooled deviation of each feature from the sums."""
    count, moved, hidden = harmony.scale.count, harmony.moved, harmony.hidden
    deviation = np.ones(len(count))
    if harmony.kind != "batch":
        varies = total.square > _DETERMINED * count
        moved, hidden = moved & varies, hidden | (moved & ~varies)
        if moved.sum() < 2:
            raise BadInput("ComBat compares features: fewer than two can be harmonised", remedy="name more features")
        gaps = bool((count[moved] < harmony.rows).any())
        divisor = np.maximum(count - 1, 1.0) if gaps else np.full(len(count), float(harmony.rows))  # as sva has it
        deviation = np.where(moved, harmony.unit * np.sqrt(total.square / divisor), 1.0)
    level = np.where(moved, total.level / harmony.rows, 0.0)
    return replace(harmony, stage="ready", level=level, deviation=deviation).marked(moved, hidden)
