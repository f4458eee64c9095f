"""A penalised panel judged at each site by the model of the other sites (leave one site out).

Model      cox (risk sets of each site), binomial or gaussian, log-likelihood / n less the elastic net
           penalty. Site s is judged under the fit of the others: one penalised Newton step from the fit
           of all, by score and information of all less its own; exact for gaussian, else up to 1 / n.
Down       coefficients of every penalty; score and information of all at them; the losses; the slope.
Up         Columns, Fits in turns, then Held, Ranks, Spread, and Likelihood in turns, as sums over sites.
Rounds     about 15 to 40.
Reveals    sums over all sites, in every round. No fit without one site leaves: each site takes itself out
           of the totals it is told, and what its persons then say is summed (why: decision leave-sites-out).
           Losses and concordance have three digits, pairs two: exact ones tell each site's cases.
Errors     Refused, BadInput, BadFormula, DidNotConverge.
Source     Simon et al. 2011; Beirami et al. 2017 (one step without a group); Harrell et al. 1996 (concordance);
           Cox 1958 (calibration slope). Checked against R glmnet and survival (tests/vectors/validate_panel.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.special import chdtrc, ndtri

from ihds.analysis import likelihood, panel, partial
from ihds.analysis.concordance import has_pair, pairs_of
from ihds.analysis.design import Ask, Design, Frame, strata_names
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.outcomes import plain_formula
from ihds.analysis.panel import Columns, Model, Path
from ihds.analysis.partial import CoxParams
from ihds.analysis.penalised import bare
from ihds.analysis.result import Result, Test
from ihds.analysis.rows import per_person
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput, BadMessage, Collinear, DidNotConverge, Refused, Separation

_FEWEST = 3  # sites: with two the others of each would be one
_SLOPES = 6  # how often the calibration is asked for; from a slope of 1 Newton's method needs four or five
#: Scores that spread less than this are all alike.
_FLAT = 1e-9


@dataclass(frozen=True, slots=True)
class Params:
    """``lambdas`` empty takes ``steps`` penalties from the smallest that leaves no term, downwards."""

    formula: str
    family: Literal["cox", "binomial", "gaussian"] = "cox"
    alpha: float = 1.0
    lambdas: tuple[float, ...] = ()
    steps: int = 12
    max_rounds: int = 60


@dataclass(frozen=True, slots=True)
class Fits(Contribution):
    """Score, information and log-likelihood of every fit; a Cox model's are of the site's own risk sets."""

    kind: ClassVar[str] = "score and information"

    score: Annotated[Matrix, Leaves("(fits, p)", "1 / covariate unit")]
    information: Annotated[Any, Leaves("(fits, p, p)", "1 / covariate unit squared")]
    log_likelihood: Annotated[Vector, Leaves("(fits,)", "1")]
    events: Annotated[float, Leaves("()", "events", bound=1)]


@dataclass(frozen=True, slots=True)
class Held(Contribution):
    """Loss of each site's persons under the fits of the others, and without covariates."""

    kind: ClassVar[str] = "score and information"

    loss: Annotated[Vector, Leaves("(penalties,)", "1")]
    null: Annotated[float, Leaves("()", "1")]


@dataclass(frozen=True, slots=True)
class Ranks(Contribution):
    """Pairs of a site's persons in the order of the others' fit, and the spread of its scores."""

    kind: ClassVar[str] = "count table"

    concordant: Annotated[float, Leaves("()", "pairs / rows", bound=1)]
    pairs: Annotated[float, Leaves("()", "pairs / rows", bound=1)]
    loss: Annotated[float, Leaves("()", "1")]
    spread: Annotated[float, Leaves("()", "squared score about the site's mean")]
    moved: Annotated[float, Leaves("()", "squared change of the score about the site's mean")]


@dataclass(frozen=True, slots=True)
class Spread(Contribution):
    """Squared influence of persons on the concordance."""

    kind: ClassVar[str] = "score and information"

    square: Annotated[float, Leaves("()", "(pairs / rows) squared")]


CONTRIBUTIONS = (Columns, Fits, Held, Ranks, Spread, Likelihood)


@dataclass(frozen=True, slots=True)
class State:
    """The fits of all sites, one per penalty, and what validation has opened; all of it public."""

    phase: Literal["moments", "first", "fits", "whole", "held", "ranks", "spread", "slope", "done"]
    unit: float
    fewest: int
    rounds: int = 0
    columns: Columns | None = None
    path: Path | None = None
    whole: Fits | None = None
    held: Held | None = None
    ranks: Ranks | None = None
    share: float = 0.0
    spread: float = 0.0
    variance: float = 0.0
    slope: Fit | None = None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a survival outcome on each site's own clock, or for a number or a binary outcome."""
    if not 0 <= params.alpha <= 1:
        raise BadInput(f"alpha is {params.alpha:g}", remedy="give 0 (ridge) to 1 (lasso)")
    if not 1 <= params.steps <= 100 or any(not 0 < value < 1e15 for value in params.lambdas):
        raise BadInput("a penalty is not positive, or there are too many", remedy="give 1 to 100 positive penalties")
    if params.family == "cox":
        text = params.formula if "strata(site)" in params.formula else params.formula + " + strata(site)"
        asked = partial.ask(CoxParams(text), codebook)
        if len(asked.formula.response) != 2 or strata_names(asked):
            raise BadFormula(
                "late entries and strata are not known here", remedy="write Surv(time, event) ~ covariates"
            )
        return replace(asked, undivided=True)
    formula = plain_formula(params.formula, codebook, "validate_panel")
    if not formula.terms:
        raise BadFormula(f"{params.formula!r} names no covariate", remedy="write y ~ a + b + c")
    outcome: Any = "number" if params.family == "gaussian" else "binary"
    return Ask(formula=formula, outcome=outcome, covariates="matrix", undivided=True)


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known."""
    _judge(params, frame)
    return State("moments", frame.outcome_scale if params.family == "gaussian" else 1.0, max(frame.min_sites, _FEWEST))


def _judge(params: Params, frame: Frame) -> None:
    """Judge whether sites can be left out, at the coordinator and again at each site.

    Raises:
        Refused: there are too few sites with rows, or so few columns that their sums could be solved for.

    """
    if frame.sites < _FEWEST:
        raise Refused(
            f"{frame.sites} sites are too few to leave one out",
            reasons=(f"sites: with fewer than {_FEWEST} the others of a site are one site",),
            remedy="use the folds of penalised_cox or elastic_net, which lie within sites",
        )
    line, p = 3 if params.family == "cox" else 6, len(frame.columns)
    opened = _penalties(params) + 9 + _SLOPES * line  # losses, ranks, three of influence, and the lines
    unknown = (frame.sites - 1) * p * (p + 3) // 2  # score and information of each site but the last
    if opened > unknown:
        raise Refused(
            f"{opened} sums would be opened, and the sites' own are {unknown} unknown numbers",
            reasons=("sites: what is opened may not suffice to solve for the sums of each site",),
            remedy="use fewer penalties or more covariates, or the folds of penalised_cox or elastic_net",
        )


def _penalties(params: Params) -> int:
    return len(params.lambdas) or params.steps


def _model(params: Params, state: State) -> Model:
    return Model(params.family, params.alpha, state.unit)


def _others(params: Params, state: State, design: Design) -> tuple[Matrix, Vector, float]:
    """Return the others' coefficients per penalty, this site's loss under each and without covariates.

    They are made once: a coordinator that tells other totals afterwards is refused.

    Raises:
        BadMessage: the totals are others than before, or do not hold this site's sums.

    """
    assert state.path is not None
    assert state.whole is not None
    assert state.columns is not None
    told = (state.path.lambdas, state.path.beta, state.whole.score, state.whole.information)
    key = b"".join(np.asarray(v).tobytes() for v in told)
    if "others" not in design.cache:
        _judge(params, design.frame)
        if len(state.path.lambdas) != _penalties(params):
            raise BadMessage("the penalties are not as many as the study's")
        design.cache["others"] = key, panel.others(_model(params, state), state.columns, *told, design)
    found: tuple[bytes, tuple[Matrix, Vector, float]] = design.cache["others"]
    if found[0] != key:
        raise BadMessage("the totals are others than before")
    return found[1]


def _judged(params: Params, state: State, design: Design) -> tuple[Vector, Vector, float]:
    """Return this site's scores under the others' fit, under that of all, and its loss.

    The penalty is the one under which the others' losses, of all less this site's, are least; chosen once.
    """
    assert state.path is not None
    assert state.held is not None
    beta, loss, _ = _others(params, state, design)
    k = design.cache.setdefault("penalty", int(np.argmin(state.held.loss - loss)))
    return design.x @ beta[k] + design.offset, design.x @ state.path.beta[k] + design.offset, float(loss[k])


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    rows = max(design.frame.rows, 1)
    match state.phase:
        case "moments":
            return Columns.of(design, able=has_pair(*panel.timed(params.family, design)))
        case "first" | "fits" | "whole":
            assert state.path is not None
            at = state.path.beta[np.flatnonzero(state.path.moving)]
            found = [panel.sums(_model(params, state), design, beta) for beta in at]
            value, score, information = (np.array(part) for part in zip(*found, strict=True))
            return Fits(score, information, value, float(design.event.sum()) if params.family == "cox" else 0.0)
        case "held":
            _, losses, empty = _others(params, state, design)
            return Held(losses, empty)
    score, whole, loss = _judged(params, state, design)
    if state.phase == "slope":
        return _calibrated(params, state, design, score)
    ranked = pairs_of(*panel.timed(params.family, design), np.round(score, 9))
    if state.phase == "ranks":
        spread, moved = (float(np.sum((v - v.mean()) ** 2)) if len(v) else 0.0 for v in (score, score - whole))
        concordant, pairs = ranked.sum(axis=0) / 2 / rows  # each pair stands at both its members
        return Ranks(float(concordant), float(pairs), loss, spread, moved)
    influence = ranked[:, 0] - state.share * ranked[:, 1]
    by_person = per_person(influence[:, None] / rows, design.cluster)
    return Spread(float((by_person**2).sum()))


def _calibrated(params: Params, state: State, design: Design, score: Vector) -> Likelihood:
    """Return the likelihood of the outcome given a straight line in the score.

    Raises:
        BadMessage: it was asked at more lines than a search for the best one needs.

    """
    assert state.slope is not None
    asked = design.cache.setdefault("lines", set())
    asked.add((state.spread, state.slope.at.tobytes()))
    if len(asked) > _SLOPES:
        raise BadMessage(f"the calibration is asked for more than {_SLOPES} times")
    z = (score / state.spread)[:, None]
    if params.family != "cox":
        z = np.column_stack([np.ones(len(z)), z])
    line = replace(design, x=z, offset=np.zeros(len(z)), cache={})
    value, pull, information = panel.sums(_model(params, state), line, state.slope.at)
    return likelihood.within(Likelihood(pull, information, value), design.frame.rows)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on.

    Raises:
        Refused: too few sites have an outcome to rank.
        DidNotConverge: the rounds are used up.

    """
    state = replace(state, rounds=state.rounds + 1)
    match total:
        case Columns():
            return _measured(params, state, total)
        case Fits():
            return _stepped(params, state, total)
        case Held():
            return replace(state, phase="ranks", held=total)
        case Ranks():
            spread = float(np.sqrt(total.spread / state.columns.rows)) if state.columns else 0.0
            return replace(state, phase="spread", ranks=total, share=total.concordant / total.pairs, spread=spread)
        case Spread() if state.spread <= _FLAT:  # scores that are all alike have no slope
            return replace(state, phase="done", variance=total.square)
        case Spread():
            line = {"intercept": 0.0, "slope": state.spread}  # it is sought from a slope of 1
            names = tuple(line)[int(params.family == "cox") :]
            slope = likelihood.begin(names, np.array([line[name] for name in names]))
            return replace(state, phase="slope", variance=total.square, slope=slope)
    assert state.slope is not None
    try:
        slope = likelihood.newton(state.slope, total, "calibration", _SLOPES)
    except (Collinear, DidNotConverge, Separation):  # then there is no slope, and the rest stands
        return replace(state, phase="done", slope=None)
    return replace(state, slope=slope, phase="done" if slope.phase == "done" else "slope")


def _measured(params: Params, state: State, total: Columns) -> State:
    """Start at the model without covariates.

    Raises:
        Refused: persons can be ranked at few sites only, so what follows would be those sites' own.

    """
    if round(total.sites) < state.fewest:
        raise Refused(
            f"fewer than {state.fewest} sites have two persons whose outcomes can be told apart",
            reasons=(f"sites: validation sums over {state.fewest} sites at least",),
            remedy="choose a commoner outcome, or a longer follow-up",
        )
    empty = panel.null(_model(params, state), total)
    lambdas = np.sort(np.array(params.lambdas))[::-1] if params.lambdas else np.ones(1)
    return replace(state, phase="fits" if params.lambdas else "first", columns=total, path=Path.of(lambdas, empty))


def _stepped(params: Params, state: State, total: Fits) -> State:
    """Choose the penalties, or take the fits a step further; at their ends, keep score and information.

    Raises:
        DidNotConverge: the rounds are used up.

    """
    assert state.path is not None
    assert state.columns is not None
    model, part = _model(params, state), state.columns
    if state.phase == "first":
        lambdas = panel.penalties(model, part, total.score[0], params.steps)
        return replace(state, phase="fits", path=Path.of(lambdas, state.path.beta[0]))
    if state.phase == "whole":
        return replace(state, phase="held", whole=total)
    path = panel.advance(model, part, state.path, total)
    if not path.moving.any():
        return replace(state, phase="whole", path=replace(path, moving=np.ones(len(path.moving))))
    if state.rounds >= params.max_rounds:
        raise DidNotConverge(
            f"validate_panel: {int(path.moving.sum())} fits still move after {state.rounds} rounds",
            remedy="use larger penalties, or raise max_rounds",
        )
    return replace(state, path=path)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return how well the panel does at sites that did not make it, and the panel of all sites."""
    if state.phase != "done" or state.path is None or state.whole is None or state.held is None or state.ranks is None:
        return None
    best, events = int(np.argmin(state.held.loss)), round(state.whole.events)
    path = state.path.beta @ frame.transform.T * state.unit
    skipped = int(params.family != "cox")
    path[:, :skipped] += frame.outcome_centre
    each, least = (events if params.family == "cox" else frame.rows) / state.unit**2, frame.min_cell
    return Result(
        method="validate_panel",
        n=frame.rows,
        events=events if params.family == "cox" else None,
        coefficients=bare(frame.columns, path[best]),
        tests=_told(params, state, state.ranks.pairs, frame),
        details={
            "family": params.family,
            "alpha": params.alpha,
            "sites": frame.sites,
            "lambda": [float(v) for v in state.path.lambdas],
            "path": [[float(v) for v in row] for row in path],
            "terms_left": [int(np.count_nonzero(row[skipped:])) for row in path],
            "lambda_best": float(state.path.lambdas[best]),
            "loss": panel.LOSSES[params.family],
            "loss_mean": [panel.veiled(float(v / each), least) for v in state.held.loss],
            "loss_out_of_site": panel.veiled(float(state.ranks.loss / each), least),
            "loss_null": panel.veiled(float(state.held.null / each), least),
            "pairs": panel.veiled(float(np.rint(state.ranks.pairs * max(frame.rows, 1))), least, digits=2),
            "score_moved": float(np.sqrt(state.ranks.moved / state.ranks.spread)) if state.spread > _FLAT else None,
            "left_out_missing": frame.left_out,
        },
    )


def _told(params: Params, state: State, pairs: float, frame: Frame) -> tuple[Test, ...]:
    """Return the concordance against one half, and the calibration slope against one."""
    share, error = (panel.veiled(v, frame.min_cell) for v in (state.share, float(np.sqrt(state.variance)) / pairs))
    found = [_test("concordance", share, error, 0.5)]
    if state.slope is not None:
        variance = state.slope.covariance[-1, -1]
        if params.family == "gaussian":  # whose likelihood took a variance of one
            variance = variance * -2 * state.slope.log_likelihood / (frame.rows - 2)
        slope, se = state.slope.at[-1] / state.spread, np.sqrt(variance) / state.spread
        found.append(_test("calibration slope", float(slope), float(se), 1.0))
    return tuple(found)


def _test(name: str, value: float, se: float, expected: float) -> Test:
    chi = ((value - expected) / se) ** 2 if se > 0 else float("nan")
    half = float(ndtri(0.975)) * se
    told = {name.replace(" ", "_"): value, "se": se, "lower": value - half, "upper": value + half}
    return Test(f"{name} out of site = {expected:g}", chi, 1.0, float(chdtrc(1, chi)), (told,))
