"""Factor analysis over layers: the hidden factors that run through expression, proteins, methylation, measures.

Model      x = mu + W z + e per row, over all layers' features standardised; z ~ N(0, I), noise of its own per
           feature; a row may lack values or whole layers (missing at random). Maximum likelihood, uniquenesses
           at least 0.005; varimax or principal axes.
Down       each feature's centre and scale, then loadings, means and noise of the features.
Up         Magnitudes, Means, Variation; then Products once, or Expected each round; Scores, with a formula Columns.
Rounds     6, or 7 with a formula, for at most 200 features without gaps in three times as many rows; else about
           35 to 150: EM with expanded parameters, then quasi-Newton steps in its metric.
Reveals    loadings and noise of features over all sites; the factors' values are personal and never leave.
           Features of few persons or one site, or that do not vary, take no part and are counted; a layer of
           which none is left, and a factor that few persons make, are refused. With Products, and with many
           rounds of Expected, the coordinator knows the correlations of the features.
Errors     BadInput, Refused, DidNotConverge, Collinear (of the formula).
Source     Lawley & Maxwell 1971; Rubin & Thayer 1982; Liu, Rubin & Wu 1998; Jamshidian & Jennrich 1997; Nocedal
           1980; Kaiser 1958. Checked against R factanal and an EM written out (tests/vectors/factors.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ihds.analysis import design as designs
from ihds.analysis import factors, features
from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame, Ints
from ihds.analysis.factors import Blocks, Climb, Expected
from ihds.analysis.features import Magnitudes, Means, Scale
from ihds.analysis.genesets import matches, parse
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import invert
from ihds.analysis.result import Coefficient, Result, wald_row
from ihds.analysis.rows import distinct, persons_with
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput, Refused

#: So many features have 20 100 cross-products: more are not asked for at once.
_MOST_PRODUCTS = 200
#: Rows per feature from which cross-products do not describe rows; as many per parameter of a feature.
_ROWS_EACH = 3
#: A feature whose variance, in its scale, is below this does not vary.
_FLAT = 1e-12


@dataclass(frozen=True, slots=True)
class Params:
    """``layers`` names features by layer, ``rna: gene_*; protein: prot_*``; ``factors`` is their number.

    ``formula``, ``~ stage + age``, asks what goes with the factors.
    """

    layers: str
    factors: int = 2
    rotation: Literal["varimax", "none"] = "varimax"
    formula: str = ""
    max_rounds: int = 300


@dataclass(frozen=True, slots=True)
class Variation(Contribution):
    """The squares of each centred feature, what they rest on, and how many persons have which layers."""

    square: Annotated[Vector, Leaves("(features,)", "scaled units squared", bound=2**14)]
    weights: features.Weights
    overlap: Annotated[Matrix, Leaves("(layers, layers)", "persons with both", bound=1)]
    empty: Annotated[float, Leaves("()", "persons without any value", bound=1)]


@dataclass(frozen=True, slots=True)
class Products(Contribution):
    """Cross-products of the standardised features, where no value is missing."""

    kind: ClassVar[str] = "moment"

    products: Annotated[Matrix, Leaves("(features, features)", "deviations squared", bound=2**16)]


@dataclass(frozen=True, slots=True)
class Scores(Contribution):
    """What each factor rests on, and the sums that regress the expected factors on the formula's columns."""

    spread: Annotated[Matrix, Leaves("(k, 2)", "deviations squared, and to the fourth", bound=features.MOST)]
    rows: Annotated[float, Leaves("()", "rows with any value", bound=1)]
    held: Annotated[Vector, Leaves("(levels,)", "persons with any value", bound=1)]
    held_sites: Annotated[Vector, Leaves("(levels,)", "sites with such persons", bound=1, per="site")]
    xx: Annotated[Matrix, Leaves("(p, p)", "covariate unit squared")]
    xz: Annotated[Matrix, Leaves("(p, k)", "covariate unit x deviation")]
    zz: Annotated[Vector, Leaves("(k,)", "deviations squared", bound=2**16)]


@dataclass(frozen=True, slots=True)
class Columns(Contribution):
    """What the spread of the formula's columns rests on, among rows with any value."""

    spread: Annotated[Matrix, Leaves("(p, 2)", "covariate unit squared, and to the fourth", bound=features.MOST)]


CONTRIBUTIONS = (Magnitudes, Means, Variation, Products, Expected, Scores, Columns)


@dataclass(frozen=True, slots=True)
class State:
    """The features' scale; those that take part, with their deviations in it; the search; how it turns; the end.

    ``layer`` (features,) is each feature's layer. ``products`` is empty where rows answer each round.
    ``everybody`` says that rows without any value count too, for few persons have none.
    """

    scale: Scale
    layer: Ints
    rows: int
    shown: Ints
    deviation: Vector
    together: bool
    everybody: bool
    products: Matrix
    climb: Climb
    turn: Matrix
    total: Scores | None
    columns: Matrix


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the features of all layers, and the formula's columns.

    Raises:
        BadInput: a feature stands in two layers, or the layers cannot be read.
        BadFormula: the formula is no sum of terms.

    """
    if not 1 <= params.factors <= 20:
        raise BadInput(f"factors is {params.factors}", remedy="give 1 to 20")
    layers = parse(params.layers, "layer")
    if not layers:
        raise BadInput("no layer is named", remedy='write for example layers = "rna: gene_*; protein: prot_*"')
    others = formulas.parse(params.formula, codebook.variables).variables if params.formula else frozenset()
    names: list[str] = []
    for layer, patterns in layers.items():
        found = features.select(",".join(patterns), codebook, others)
        twice = sorted(set(names) & set(found))
        if twice:
            raise BadInput(f"{twice[0]!r} is in the layer {layer!r} and in another", remedy="name it once")
        names += found
    if params.formula:
        asked = features.model_of(params.formula, ",".join(names), codebook, "factor_analysis")
        if designs.crossings(asked, designs.table_levels(asked, codebook)):
            raise BadFormula("factor_analysis takes no products of categories", remedy="write them with +")
        return replace(asked, features=tuple(names))
    formula = formulas.parse("~ 1", codebook.variables)
    return Ask(formula=formula, outcome="none", covariates="table", features=tuple(names))


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known of the features.

    Raises:
        Refused: so many factors would describe so few persons.

    """
    if frame.min_cell > 1 and _ROWS_EACH * params.factors > frame.rows:
        raise Refused(
            f"{params.factors} factors would describe {frame.rows} persons",
            reasons=("parameters_per_row: at most a third as many factors as persons",),
            remedy="ask for fewer factors",
        )
    layers = list(parse(params.layers, "layer").values())
    layer = [next(i for i, patterns in enumerate(layers) if matches(name, patterns)) for name in frame.features]
    none, empty, shown = np.zeros((0, 0)), np.zeros(0), np.zeros(0, dtype=np.int64)
    scale, climb, codes = features.begin(frame), factors.begin(0, params.factors), np.array(layer, dtype=np.int64)
    return State(scale, codes, frame.rows, shown, empty, False, False, none, climb, none, None, none)


def _blocks(state: State, design: Design) -> Blocks:
    """Return how to go through the features that take part, standardised."""
    taking = np.zeros(len(state.layer), dtype=bool)
    taking[state.shown] = True
    place = np.cumsum(taking) - taking

    def walk() -> Any:
        for part, block in features.centred(state.scale, design):
            own = taking[part]
            if own.any():
                at = slice(int(place[part][0]), int(place[part][0]) + int(own.sum()))
                yield at, block[:, own] / state.deviation[at]

    return walk


def local(params: Params, state: State, design: Design) -> Contribution:
    """Scale and centre the features, then return what the present round sums."""
    if not state.scale.placed:
        return features.scaling(state.scale, design)
    if not len(state.shown):
        return _variation(state, design)
    blocks, rows = _blocks(state, design), len(design.person)
    if len(state.turn):
        return _scores(state, design, blocks)
    if state.together:
        whole = np.concatenate([block for _, block in blocks()], axis=1)
        return Products(whole.T @ whole)
    return factors.expected(state.climb.at, blocks, rows)


def _variation(state: State, design: Design) -> Variation:
    layers, count = int(state.layer.max()) + 1, len(state.layer)
    square, spread = np.zeros(count), np.zeros((count, 2))
    known = np.zeros((len(design.person), layers), dtype=bool)
    hidden = state.scale.few(np.zeros((count, 2)))
    for part, block in features.centred(state.scale, design):
        held = np.isfinite(block)
        filled = np.where(held, block, 0.0)
        square[part] = np.einsum("ij,ij->j", filled, filled)
        spread[part] = features.weights(block, design.person)
        for layer in range(layers):
            known[:, layer] |= held[:, (state.layer[part] == layer) & ~hidden[part]].any(axis=1)
    overlap = [persons_with(known & known[:, [layer]], design.person) for layer in range(layers)]
    some = np.asarray(known.any(axis=1))
    empty = distinct(design.person) - float(persons_with(some[:, None], design.person)[0])
    return Variation(square, spread, np.array(overlap), empty)


def _scores(state: State, design: Design, blocks: Blocks) -> Scores | Columns:
    mean, _, known, _ = factors.scores(state.climb.at, blocks, len(design.person))
    kept = known | state.everybody  # the score of a row without any value is 0, which is expected of it
    x, z, person = design.x[kept], (mean @ state.turn)[kept], design.person[kept]
    if state.total is not None:
        return Columns(features.weights(x - state.total.xx[0] / max(state.total.rows, 1.0), person))
    codes = [(design.codes[name][kept], len(levels)) for name, levels in design.frame.levels.items()]
    held = np.array([float(distinct(person[c == level])) for c, size in codes for level in range(size)])
    return Scores(
        spread=features.weights(z, person),
        rows=float(len(z)),
        held=held,
        held_sites=(held > 0).astype(np.float64),
        xx=x.T @ x,
        xz=x.T @ z,
        zz=np.einsum("ij,ij->j", z, z),
    )


def aggregate(params: Params, state: State, total: Any) -> State:
    """Choose the features that take part, then climb until the loadings stand still.

    Raises:
        BadInput: there are too many factors for so few features.
        Refused: a layer has no features left, or few persons have it together with another.
        DidNotConverge: the rounds are used up.

    """
    match total:
        case Variation():
            return _chosen(params, state, total)
        case Products():
            products = (total.products + total.products.T) / 2
            climb = factors.from_products(products, float(state.rows), params.factors)
            return _turned(params, replace(state, products=products, climb=climb))
        case Expected():
            return _turned(params, replace(state, climb=factors.advance(state.climb, total, params.max_rounds)))
        case Scores():
            return replace(state, total=total)
        case Columns():
            return replace(state, columns=total.spread)
    return replace(state, scale=features.scaled(state.scale, total))


def _turned(params: Params, state: State) -> State:
    if not state.climb.settled:
        return state
    return replace(state, turn=factors.rotation(state.climb.at, varimax=params.rotation == "varimax"))


def _chosen(params: Params, state: State, total: Variation) -> State:
    scale, k = state.scale, params.factors
    variance = total.square / np.maximum(scale.count, 1.0)
    needed = max(scale.least, _ROWS_EACH * (k + 1)) if scale.least > 1 else k + 2
    hidden = scale.few(total.weights) | (scale.persons[:, 0] < needed) | (variance <= _FLAT)
    shown = np.flatnonzero(~hidden)
    names, joined = list(parse(params.layers, "layer")), np.asarray(np.rint(total.overlap) >= needed)
    for layer, name in enumerate(names):
        if not np.any(state.layer[shown] == layer):
            raise Refused(
                f"no feature of the layer {name!r} can take part",
                reasons=(f"a feature needs to vary over {needed} persons at {scale.least_sites} sites",),
                remedy="leave the layer out, or ask for fewer factors",
            )
    if (len(shown) - k) ** 2 < len(shown) + k:
        raise BadInput(f"{k} factors are too many for {len(shown)} features", remedy="ask for fewer")
    apart = factors.apart(joined)
    if apart:
        raise Refused(
            f"too few persons have {names[0]!r} and {names[apart[0]]!r}: their factors cannot be joined",
            reasons=(f"at least {needed} persons need values of both, or of a third layer with each",),
            remedy="analyse them by themselves",
        )
    small = len(shown) <= min(_MOST_PRODUCTS, state.rows // _ROWS_EACH)
    return replace(
        state,
        shown=shown,
        deviation=np.sqrt(variance[shown]),
        everybody=bool(0 < np.rint(total.empty) < scale.least),
        together=small and bool(np.all(scale.count[shown] == state.rows)),
        climb=factors.begin(len(shown), k),
    )


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return loadings, what the factors explain, and what goes with them.

    Raises:
        Refused: few persons make a factor.

    """
    if state.total is None or len(state.columns) < len(state.total.xx):
        return None
    few = np.flatnonzero(features.resting(state.total.spread, state.scale.least))
    if len(few):
        raise Refused(
            f"factor {few[0] + 1} rests on fewer than {state.scale.least} persons: its loadings would be theirs",
            remedy="ask for fewer factors, use logarithms, or leave out features with outliers",
        )
    climb, shown, k, counts = state.climb, state.shown, params.factors, state.scale.count[state.shown]
    loadings, noise = climb.at[:, :k] @ state.turn, np.exp(climb.at[:, -1])
    log_likelihood = climb.log_likelihood - float(counts @ np.log(state.deviation * state.scale.scale[shown]))
    parameters = len(shown) * (k + 2) - k * (k - 1) // 2
    few_lack = state.everybody or frame.rows - climb.rows < frame.min_cell
    rows = frame.rows if few_lack else int(climb.rows)
    told = features.shown_counts(counts, frame.rows, frame.min_cell).astype(np.int64)
    names, layers = np.array(frame.features)[shown], list(parse(params.layers, "layer"))
    bound = names[noise <= factors.LEAST_UNIQUENESS * (1 + 1e-9)]
    columns = {f"factor_{j + 1}": loadings[:, j] for j in range(k)}
    found = {"feature": names, "layer": np.array(layers)[state.layer[shown]], **columns, "uniqueness": noise, "n": told}
    order = np.argsort(-np.abs(loadings).max(axis=1), kind="stable")
    details: dict[str, Any] = {
        "factors": k,
        "rotation": params.rotation,
        "explained": factors.explained(state.layer[shown], layers, loadings, noise),
        "features": features.table(found, order),
        "bic": -2 * log_likelihood + parameters * float(np.log(rows)),
        "parameters": parameters,
        "at_bound": [str(name) for name in bound],
        "hidden_features": len(frame.features) - len(shown),
        "left_out_missing": frame.left_out,
    }
    if len(bound):
        details["warning"] = (
            f"Heywood case: uniqueness at its bound, {factors.LEAST_UNIQUENESS}, for {', '.join(bound[:5])}"
            f"{', ...' if len(bound) > 5 else ''}; fewer factors may do"
        )
    return Result(
        method="factor_analysis",
        n=rows,
        coefficients=_associated(frame, state.total, state.columns),
        log_likelihood={"fitted": log_likelihood},
        tests=factors.enough(climb.at, state.products, float(state.rows)),
        details=details,
    )


def _associated(frame: Frame, total: Scores, columns: Matrix) -> tuple[Coefficient, ...]:
    """Return the regressions of the expected factors on the formula's columns.

    Raises:
        Collinear: among those with any value, some columns determine one another.
        Refused: those with any value are too few for the formula, in some level, or where a column differs.

    """
    p, rows = len(total.xx), float(np.rint(total.rows))
    if not p:
        return ()
    thin = features.resting(columns, frame.min_cell)[1:].any() or np.any(np.rint(total.held) < frame.min_cell)
    alone = np.any(np.rint(total.held_sites) < frame.min_sites)
    if thin or alone or rows - p < 1 or (frame.min_cell > 1 and _ROWS_EACH * p > rows):
        raise Refused(
            "too few of those who have features differ in the terms of the formula",
            reasons=(
                f"min_cell: {frame.min_cell} persons with features per level, at {frame.min_sites} sites",
                "parameters_per_row: at most a third as many columns as rows",
            ),
            remedy="use fewer terms, or merge levels",
        )
    inverse, df = invert(total.xx, frame.columns), rows - p
    found = []
    for j, xz in enumerate(total.xz.T):
        beta = inverse @ xz
        estimate, covariance = frame.original(beta, inverse * (max(float(total.zz[j] - beta @ xz), 0.0) / df))
        se = np.sqrt(np.diag(covariance))
        found += [
            wald_row(f"factor_{j + 1}: {term}", float(estimate[i]), float(se[i]), df)
            for i, term in enumerate(frame.columns)
        ]
    return tuple(found)
