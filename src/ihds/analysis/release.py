"""The last look at a result before it is told: every field has a class of output, and no rule is broken.

Methods hide and refuse by themselves; this is the second line, one for all of them, and it fails
closed: a field that no class is named for, a number of few persons, a text that is not the study's
own, a hidden cell that follows from shown ones, or a model too large for its rows end the study.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import Refused
from ihds.privacy.disclosure import Thresholds, model_reasons
from ihds.privacy.rules import COUNTS, CURVES, MOMENTS, PUBLIC, SCORES, VECTORS, WEIGHTS, class_reasons
from ihds.privacy.tables import derivable

#: The fields of results by class of output, as paths. ``*`` stands for any name.
_FIELDS = {
    COUNTS: """
        n events table.n table.missing table.counts details.persons details.counts details.left_out_missing
        details.groups.n details.rows.n details.rows.counts details.clusterings.persons
        details.compared.persons details.compared.rows.n details.compared.rows.counts details.carriers.carriers
        details.pairs details.pairs.both details.histograms.counts details.quantiles.n details.tenths.persons
        details.propensity_tenths details.weights.persons details.events_per_interval
        details.rows_with_imputed_values details.concordance.pairs tests.details.observed tests.details.n
        """,
    MOMENTS: """
        table.mean table.sd details.groups.mean details.groups.sd details.groups.mean_rank details.rows.mean
        details.rows.sd details.rows.p details.rows.smd details.compared.rows.mean details.compared.rows.sd
        details.compared.rows.p details.compared.rows.smd details.correlation details.means details.effective_persons
        details.weights.effective_persons details.weights.mean details.weights.cut details.balance.before
        details.balance.after details.clusterings.within details.clusterings.share_between
        details.clusterings.consensus details.clusterings.agreement details.clusterings.area
        details.clusterings.delta_area details.clusterings.cdf details.clusterings.pac details.carriers.share
        details.pairs.expected details.quantiles.values details.score_mean details.score_sd details.tenths.mean_trait
        details.mean_before details.mean_after details.sd details.share
        """,
    SCORES: """
        coefficients.estimate coefficients.se coefficients.robust_se coefficients.z coefficients.p coefficients.lower
        coefficients.upper covariance log_likelihood tests.statistic tests.df tests.p tests.details.r
        tests.details.lower tests.details.upper tests.details.se tests.details.difference tests.details.odds_ratio
        tests.details.common_odds_ratio tests.details.df2 tests.details.expected tests.details.objective
        tests.details.concordance tests.details.calibration_slope tests.details.probability_first_larger
        details.deviance details.null_deviance details.dispersion details.scale details.theta details.bic
        details.tau2 details.i2 details.propensity details.missing_information details.degrees_of_freedom
        details.residual_df details.residual_sd details.random.sd details.random.correlation
        details.intraclass_correlation details.visit_covariance details.concordance.estimate
        details.concordance.at_least details.concordance.at_most details.pairs.p details.pairs.adjusted_p
        details.pairs.odds_ratio details.loss_mean details.loss_se details.loss_out_of_site details.loss_null
        details.score_moved details.r_squared_with details.r_squared_without details.groups details.clusters
        details.clusters_within_sites
        """,
    CURVES: """
        curves.time curves.at_risk curves.events curves.estimate curves.se curves.lower curves.upper curves.median
        curves.rmst curves.rmst_se curves.tau
        """,
    VECTORS: """
        details.features.n details.features.mean details.features.sd details.features.estimate details.features.se
        details.features.statistic details.features.t details.features.p details.features.adjusted_p
        details.features.*_p details.features.*_se details.features.*_estimate details.features.log_odds
        details.features.chi_square details.features.likelihood_ratio details.features.call_rate
        details.features.frequency details.features.out_of_equilibrium details.features.between_before
        details.features.between_after details.clusterings.features.mean details.clusterings.features.sd
        details.clusterings.features.cluster_* details.inflation details.prior_df details.prior_variance
        details.trend details.sets.t details.sets.p details.sets.adjusted_p details.by_chance
        """,
    WEIGHTS: """
        details.lambda details.lambda_best details.lambda_simplest_within_one_se details.path details.terms_left
        details.features.component_* details.features.factor_* details.features.uniqueness details.components
        details.explained.share details.explained.total
        """,
    PUBLIC: """
        rounds method details.alpha details.time_bin details.min_exits_per_point details.step details.probs
        details.resolution details.quantiles.coarse details.histograms.edges details.histograms.coarse
        details.imputations details.nodes details.intervals details.factors details.parameters details.variants
        details.sites details.sites_without_estimate details.chosen details.clusterings.k
        details.clusterings.resamples details.clusterings.passed_over details.features_taken details.hidden_features
        details.hidden_pairs details.left_as_they_are details.confirmed details.not_confirmed
        details.below_5_per_cent details.explained.features details.sets.genes details.features.position
        coefficients.term curves.group table.variable table.kind tests.name tests.details.group details.baseline
        details.at_bound details.balance.covariate details.by details.carriers.feature details.cause details.causes
        details.clusterings.features.feature details.clusterings.hidden details.columns details.compared.groups
        details.compared.rows.kind details.compared.rows.levels details.compared.rows.variable details.criterion
        details.curve details.distribution details.explained.layer details.family details.features.feature
        details.features.layer details.features.chromosome details.groups.group details.harmonise
        details.histograms.group details.histograms.variable details.levels details.link details.loss
        details.outcome details.pairs.first details.pairs.second details.penalty details.quantiles.group
        details.quantiles.variable details.random.term details.reference details.risk_sets details.robust
        details.rotation details.rows details.rows.kind details.rows.levels details.rows.variable details.sets.set
        details.sets.direction details.strata details.strategies details.term details.ties details.transform
        details.variables details.visits details.warning details.weights.group details.working_correlation
        details.endless_up details.endless_down details.not_fitted details.no_counts details.treated_at
        """,
}
FIELDS: dict[str, str] = {path: kind for kind, text in _FIELDS.items() for path in text.split()}

#: Fields whose inner names are levels, arms, terms or features: these have its class.
_NAMED = frozenset(
    [
        "table.counts",
        "log_likelihood",
        "details.persons",
        "details.means",
        "details.effective_persons",
        "details.propensity",
        "details.propensity_tenths",
        "details.missing_information",
        "details.trend",
        "details.components",
    ]
)
#: Counts that are of other classes.
_COUNTED = frozenset({"curves.at_risk", "curves.events", "details.features.n"})
#: Numbers of events that may be weighted: then they are no counts.
_WEIGHED = frozenset({"tests.details.observed"})
#: Sentences of the platform and terms it makes of a formula, whose numbers are of features, columns or constants.
_SENTENCES = frozenset(
    [
        "details.warning",
        "details.risk_sets",
        "tests.name",
        "details.compared.groups",
        "details.clusterings.hidden",
        "coefficients.term",
        "details.term",
        "details.balance.covariate",
        "details.random.term",
    ]
)
_LONGEST = 400
#: Fields with text or settings only: what the study asked for is told again.
_SETTINGS = frozenset({"provenance"})


def class_of(path: str, own: dict[str, str] | None = None) -> str:
    """Return the class of output of a field, by its path; empty if none is named."""
    known = {**FIELDS, **(own or {})}
    if path in known:
        return known[path]
    for name in _NAMED:
        if path.startswith(f"{name}."):
            return known[name]
    return next((kind for at, kind in known.items() if "*" in at and fnmatchcase(path, at)), "")


def leaves_of(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Return every value of a result with its path; lists have none of their own."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves_of(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from leaves_of(inner, path)
    elif value is not None:
        yield path, value


def released(
    result: Result, limits: Thresholds, codebook: Codebook, asked: dict[str, Any], own: dict[str, str] | None = None
) -> Result:
    """Return a result that may be told.

    ``own`` are classes of fields that a method of another package names, by path.

    Raises:
        Refused: it breaks a rule; the reasons name rule and field, never a number.

    """
    reasons = broken(result, limits, codebook, asked, own)
    if reasons:
        raise Refused(
            "the result may not be released",
            reasons=reasons,
            remedy="merge categories, name fewer terms; rules: docs/reference/disclosure.md",
        )
    return result


def broken(
    result: Result, limits: Thresholds, codebook: Codebook, asked: dict[str, Any], own: dict[str, str] | None = None
) -> tuple[str, ...]:
    """Return which rules a result would break."""
    body = {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name not in _SETTINGS}
    for name in ("coefficients", "curves", "tests"):
        body[name] = [dataclasses.asdict(one) for one in body[name]]
    found: dict[str, None] = {}
    classes: dict[str, str] = {}
    numerals = _numerals(codebook, asked)
    for path, value in leaves_of(body):
        if path not in classes:
            classes[path] = class_of(path, own)
            if not classes[path]:
                found[f"numbers_only: {path} is of no class of output"] = None
            elif classes[path] != PUBLIC:
                found |= dict.fromkeys(class_reasons(classes[path]))
        if isinstance(value, str):
            if len(value) > _LONGEST or (path not in _SENTENCES and not set(re.findall(r"\d+", value)) <= numerals):
                found[f"numbers_only: the text of {path} is not the study's own"] = None
        elif _counts(path, classes[path], value) and 0 < value < limits.min_cell:
            found[f"cell: {path} tells of fewer than {limits.min_cell}"] = None
    for name, values, sums in _tables(result):
        if limits.min_cell > 1 and derivable(values, sums, limits.min_cell):
            found[f"secondary: a hidden cell of {name} follows from the others"] = None
    if result.covariance and result.n:
        found |= {f"release: {r}": None for r in model_reasons(limits, result.n, len(result.covariance))}
    return tuple(found)


def _counts(path: str, kind: str, value: float) -> bool:
    """Return whether a field is a number of persons, rows or events."""
    return (kind == COUNTS or path in _COUNTED) and (path not in _WEIGHED or value == int(value))


def _numerals(codebook: Codebook, asked: dict[str, Any]) -> set[str]:
    """Return the runs of digits in what the study names: a text with others would tell a number of the rows."""
    own = []
    for value in asked.values():
        own.append(str(value))
        for part in value if isinstance(value, (tuple, list)) else (value,):
            own += [f"{part:g}"] if isinstance(part, (int, float)) else []
    for variable in codebook.variables.values():
        own += [variable.name, *variable.levels, f"{variable.time_bin or 0:g}", variable.unit]
    return set(re.findall(r"\d+", " ".join(own))) | {"0", "1", "2", "95"}


def _tables(result: Result) -> Iterator[tuple[str, list[int | None], list[tuple[list[int], int]]]]:
    """Return the tables of a result that hide cells, each with the sums that the same result tells."""
    for row in result.table:
        held = row.get("counts")
        if isinstance(held, dict) and None in held.values():
            values = list(held.values())
            yield str(row.get("variable", "table")), values, [(list(range(len(values))), int(row["n"] or 0))]
    details = result.details
    layers = details.get("counts")
    if isinstance(layers, list):
        cells = [cell for layer in layers for row in layer for cell in row]
        if None in cells:
            yield "the table", cells, [(list(range(len(cells))), result.n)]
    for told in (details, details.get("compared") or {}):
        persons, rows = told.get("persons"), told.get("rows")
        if not isinstance(persons, list) or not isinstance(rows, list):
            continue
        for row in rows:
            if isinstance(row, dict) and row.get("counts") and None in row["counts"]:
                yield row["variable"], *_by_group(row["counts"], persons)
    arms, tenths = details.get("persons"), details.get("propensity_tenths")
    if isinstance(arms, dict) and isinstance(tenths, dict):
        for arm, cells in tenths.items():
            if None in cells and arm in arms:
                yield f"propensity, {arm}", list(cells), [(list(range(len(cells))), int(arms[arm]))]


def _by_group(
    counts: list[list[int | None] | None], persons: list[int]
) -> tuple[list[int | None], list[tuple[list[int], int]]]:
    """Return the cells of a table by group, and the sums over each group; somebody may stand in several levels."""
    width = len(persons)
    values = [cell for row in counts for cell in (row if row is not None else [None] * width)]
    sums = []
    for g, total in enumerate(persons):
        cells = list(range(g, len(values), width))
        if sum(values[c] or 0 for c in cells) <= total:
            sums.append((cells, int(total)))
    return values, sums
