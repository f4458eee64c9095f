"""Rules against disclosure: which hold for which class of output, under which threshold, and where they are from.

Everything that leaves a site, and every field of a result, is of one class of output; a class without
rules does not leave. The page docs/reference/disclosure.md is made from this table.

Sources: DataSHIELD, dsBase 6.3.3, R/zzz.R (``nfilter.*``); SACRO, acro/default.yaml of 2026-08;
Hundepool et al. 2012, Statistical Disclosure Control; Brandt et al. 2010, guidelines for the checking
of output; EHDS, Regulation (EU) 2025/327, Art. 73(2): only non-personal data leave.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from ihds.privacy.disclosure import Thresholds

COUNTS = "count table"
MOMENTS = "moment"
SCORES = "score and information"
CURVES = "curve"
VECTORS = "gene vector"
WEIGHTS = "model weights"
TIMES = "exact times"
NOISY = "noisy sum"

#: The classes of output, with what they are.
CLASSES: dict[str, str] = {
    COUNTS: "numbers of persons, rows or events, in all or by category, bin or group",
    MOMENTS: "sums of values, of their squares and products; means, deviations, correlations",
    SCORES: "first and second derivatives of a likelihood; coefficients, their errors and tests",
    CURVES: "events and persons at risk per step of time; survival, incidence, restricted means",
    VECTORS: "sums, coefficients or tests of many features, one by one",
    WEIGHTS: "the weights of a model that predicts: penalised paths, panels, loadings",
    TIMES: "the set of distinct times, where a permit allows it",
    NOISY: "sums to which every holder has added its share of noise (differential privacy)",
}

#: Beside these, a result holds what is not of persons: settings of the study, numbers of features and of sites.
PUBLIC = "public"

#: Where a rule is judged: before rows are touched and before a reply (gate), when sites agree, before a result is told.
Where = Literal["gate", "agreement", "method", "release"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its classes of output, the thresholds it needs, where it is judged, and its source."""

    id: str
    text: str
    classes: frozenset[str]
    thresholds: tuple[str, ...]
    where: tuple[Where, ...]
    source: str


_ALL = frozenset(CLASSES)
_EXACT = _ALL - {NOISY}
_MODELS = frozenset({SCORES, VECTORS, WEIGHTS})

RULES = (
    Rule(
        "site_persons",
        "a site takes part with so many persons or more, missing values left out",
        _ALL,
        ("min_site_persons",),
        ("gate",),
        "DataSHIELD nfilter.subset (3); IHDS 10",
    ),
    Rule(
        "holders",
        "only sums over so many holders are opened, so that none can subtract itself",
        _ALL,
        ("min_holders",),
        ("gate",),
        "IHDS (X8); Brandt et al. 2010: 3 respondents",
    ),
    Rule(
        "differencing",
        "two studies of a user cover the same persons, or at a site so many others",
        _EXACT,
        ("min_difference",),
        ("gate",),
        "IHDS; DataSHIELD and SACRO leave it to people",
    ),
    Rule(
        "noise",
        "the noise fits what one person moves the sum by; its rho is left in the budgets of permit and dataset",
        frozenset({NOISY}),
        (),
        ("gate",),
        "Dwork et al. 2006; Kairouz, Liu & Steinke 2021",
    ),
    Rule(
        "numbers_only",
        "what leaves a site are numbers of declared meaning and length; no text, rows, residuals or extrema",
        _ALL,
        (),
        ("gate", "release"),
        "DataSHIELD nfilter.string, nfilter.stringShort; SACRO; EHDS 73(2)",
    ),
    Rule(
        "cell",
        "a cell, group, level, feature or event count holds nobody or so many persons; else it is hidden or refused",
        _EXACT - {TIMES},
        ("min_cell",),
        ("agreement", "method", "release"),
        "DataSHIELD nfilter.tab (3); SACRO safe_threshold (10)",
    ),
    Rule(
        "level_sites",
        "a category, or the values of a number, are those of so many sites",
        _EXACT - {TIMES},
        ("min_level_sites",),
        ("agreement", "method"),
        "IHDS",
    ),
    Rule(
        "secondary",
        "no hidden cell follows from shown cells and margins: it may lie within at least min_cell persons",
        frozenset({COUNTS}),
        ("min_cell",),
        ("method", "release"),
        "Hundepool et al. 2012, ch. 4; Fischetti & Salazar 2000",
    ),
    Rule(
        "empty_cells",
        "an empty cell of a table by groups is hidden like a small one, if so asked",
        frozenset({COUNTS}),
        ("hide_empty",),
        ("method",),
        "SACRO zeros_are_disclosive (true, for a person to look at)",
    ),
    Rule(
        "full_cells",
        "a line of which one cell holds everybody is hidden, if so asked: it tells something of each person",
        frozenset({COUNTS}),
        ("hide_full",),
        ("method",),
        "Brandt et al. 2010, group disclosure; SACRO zeros_are_disclosive",
    ),
    Rule(
        "dominance",
        "the largest contributors to a magnitude make up no more of it than so much",
        frozenset({MOMENTS, SCORES}),
        ("dominance_k", "dominance_share"),
        ("agreement", "method"),
        "SACRO safe_nk_n (2), safe_nk_k (0.9); Hundepool et al. 2012, 4.2",
    ),
    Rule(
        "p_percent",
        "nobody, not even the second largest contributor, can tell the largest within so many percent",
        frozenset({MOMENTS, SCORES}),
        ("p_percent",),
        ("agreement", "method"),
        "SACRO safe_pratio_p (0.1); Hundepool et al. 2012, 4.2",
    ),
    Rule(
        "spread",
        "a variance, of a number, a feature or a weight, rests on as many persons as a cell holds",
        frozenset({MOMENTS, SCORES, VECTORS, CURVES}),
        ("min_cell",),
        ("agreement", "method"),
        "IHDS: (sum of squares)^2 / sum of fourth powers",
    ),
    Rule(
        "parameters",
        "a model has at most so many parameters per row",
        _MODELS,
        ("parameters_per_row",),
        ("gate", "agreement", "release"),
        "DataSHIELD nfilter.glm (0.33)",
    ),
    Rule(
        "residual_dof",
        "a model leaves so many degrees of freedom",
        _MODELS,
        ("min_residual_dof",),
        ("gate", "agreement", "release"),
        "SACRO safe_dof_threshold (10)",
    ),
    Rule(
        "time_bins",
        "times are pooled in whole multiples of so wide a bin; 0 allows exact times",
        frozenset({CURVES, SCORES, TIMES}),
        ("min_time_bin",),
        ("gate", "agreement"),
        "IHDS: first differences of risk sets",
    ),
    Rule(
        "curve_steps",
        "each step of a curve has so many exits, and none or so many events; it ends while as many are followed",
        frozenset({CURVES}),
        ("min_cell",),
        ("method", "release"),
        "SACRO survival_safe_threshold (10)",
    ),
)


def rules_of(output_class: str) -> tuple[Rule, ...]:
    """Return the rules of a class of output; none for one that is not known."""
    return tuple(rule for rule in RULES if output_class in rule.classes)


def class_reasons(output_class: str) -> tuple[str, ...]:
    """Return why something of a class may not leave: there are no rules for it."""
    if rules_of(output_class):
        return ()
    return (f"output class: {output_class!r} has no rules against disclosure, so it does not leave",)


def in_words(output_class: str, limits: Thresholds) -> tuple[tuple[str, str, str], ...]:
    """Return the rules of a class as they stand under thresholds: id, text, and the thresholds with their values."""
    return tuple(
        (rule.id, rule.text, ", ".join(f"{name} {getattr(limits, name):g}" for name in rule.thresholds))
        for rule in rules_of(output_class)
    )


def unused() -> frozenset[str]:
    """Return the thresholds that no rule names: there should be none."""
    return frozenset(f.name for f in fields(Thresholds)) - {name for rule in RULES for name in rule.thresholds}
