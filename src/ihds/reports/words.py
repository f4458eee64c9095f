"""A result in words and tables that a clinician reads: labels for variables, ratios for logarithms."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from ihds.analysis.design import INTERCEPT
from ihds.analysis.result import Coefficient, Curve, Result, Test
from ihds.analysis.summary import cell_rows, is_effect, number, quantile_rows, ratio_name, table_one_rows
from ihds.data.codebook import Codebook, Variable

#: Features of a scan that a report shows.
_SHOWN = 10
#: Penalised models whose coefficients are logarithms, and what of.
_PENALISED = {"cox": "hazard ratio", "binomial": "odds ratio"}


@dataclass(frozen=True, slots=True)
class Table:
    """A heading row and rows of text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def p_value(p: float | None) -> str:
    """Return a p value as journals print it, with its sign."""
    if p is None or not math.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def named(term: str, book: Codebook) -> str:
    """Return a column of a model, or a feature, by the codebook's label; others as they are."""
    if term == INTERCEPT:
        return "intercept"
    crossed = re.split(r":(?![^\[]*\])", term)
    if len(crossed) > 1:
        return " × ".join(named(part, book) for part in crossed)
    name, level = _parts(term)
    if name not in book.variables:
        return term
    variable = book.variables[name]
    label = re.split(r" \(|, |: ", variable.label or name)[0]
    return f"{label}: {level.replace('_', ' ')}" if level else label


def _parts(term: str) -> tuple[str, str]:
    found = re.fullmatch(r"`?([^\[`]+)`?\[(?:T\.)?([^\[\]]*)\]", term)
    return (found[1], found[2]) if found else (term.strip("`"), "")


def _labels(result: Result, book: Codebook) -> dict[str, str]:
    """Return the terms' labels; a level says against which, where exactly one level has no term of its own."""
    parts = {c.term: _parts(c.term) for c in result.coefficients}
    found = {}
    for term, (name, level) in parts.items():
        held = {own for other, own in parts.values() if other == name}
        without = [lv for lv in book.variables[name].levels if lv not in held] if name in book.variables else []
        against = f" against {without[0].replace('_', ' ')}" if level and len(without) == 1 else ""
        found[term] = named(term, book) + against
    return found


def sentences(result: Result, book: Codebook) -> list[str]:
    """Return what a result says, one sentence each, from its numbers alone."""
    events = f", {result.events} events" if result.events is not None else ""
    left_out = result.details.get("left_out_missing")
    missing = f"; {left_out} rows lack a value and are left out" if left_out else ""
    said = _tests(result, book)
    return [
        f"{result.n} rows analysed{events}{missing}.",
        *_groups(result, book),
        *_validated(result),
        *_kept(result, book),
        *_features(result, book),
        *(said if result.method == "cox_check" else ()),  # which is asked for its tests
        *_effects(result, book),
        *_curves(result, book),
        *(said if result.method != "cox_check" else ()),
    ]


def _outcome(result: Result, book: Codebook) -> Variable | None:
    """Return the first variable on the left of the formula: the outcome, or its time."""
    left = str(result.provenance.get("formula", "")).partition("~")[0]
    return next((book.variables[n] for n in re.findall(r"[^\W\d]\w*", left) if n in book.variables), None)


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _interval(low: float, high: float) -> str:
    return f"95 % {low:.2f} to {high:.2f}"


def _effects(result: Result, book: Codebook) -> list[str]:
    """Say ratios where ratios are reported, else differences."""
    name, labels = ratio_name(result), _labels(result, book)
    outcome = _outcome(result, book)
    what = f"difference in {named(outcome.name, book)}" if outcome else "difference"
    found = []
    for c in filter(is_effect, result.coefficients):
        clear = "" if (c.lower > 0) == (c.upper > 0) else "; the data are compatible with no difference"
        if name:
            low, middle, high = (math.exp(min(v, 50)) for v in (c.lower, c.estimate, c.upper))
            found.append(f"{labels[c.term]}: {name} {middle:.2f} ({_interval(low, high)}){clear}.")
        else:
            told = f"{what} {c.estimate:.2f} ({_interval(c.lower, c.upper)})"
            found.append(f"{labels[c.term]}: {told}{clear}.")
    return found


def _is_penalised(result: Result) -> bool:
    return bool(result.coefficients) and "terms_left" in result.details


def _kept(result: Result, book: Codebook) -> list[str]:
    """Say which terms a penalised model keeps."""
    if not _is_penalised(result):
        return []
    terms = [c for c in result.coefficients if c.term != INTERCEPT]
    kept, gone = ([named(c.term, book) for c in terms if bool(c.estimate) is keep] for keep in (True, False))
    said = [f"Kept in the panel: {', '.join(kept) or 'nothing'}."]
    return said + ([f"Left out: {', '.join(gone)}."] if gone else [])


def _validated(result: Result) -> list[str]:
    """Say what a panel is worth at sites left out."""
    if result.method != "validate_panel":
        return []
    told, found = result.details, {k: t.details[0] for t in result.tests for k in t.details[0]}
    said = []
    for name, meaning in (
        ("concordance", "the share of pairs within a site that the score orders rightly, 0.5 being chance"),
        ("calibration_slope", "1 is right, below 1 the predictions are too extreme"),
    ):
        if name in found:
            value = found[name]
            said.append(
                f"At the site left out, {name.replace('_', ' ')} {value[name]:.2f} "
                f"({_interval(value['lower'], value['upper'])}): {meaning}."
            )
    gain = 1 - told["loss_out_of_site"] / told["loss_null"]
    return [*said, f"The panel lowers the {told['loss']} at the sites left out by {_share(gain)}."]


def _curves(result: Result, book: Codebook) -> list[str]:
    kind, time = result.details.get("curve", "survival"), _outcome(result, book)
    unit = f" {time.unit}" if time else ""
    found = []
    for c in (c for c in result.curves if c.time):
        end = f"{_share(c.estimate[-1])} ({_share(c.lower[-1])} to {_share(c.upper[-1])})"
        what = "without the event" if kind == "survival" else "have had it" if "incidence" in kind else kind
        median = f"; half by {c.median:g}{unit}" if c.median is not None and math.isfinite(c.median) else ""
        found.append(f"{_group(c, book)}: {end} {what} at {c.time[-1]:g}{unit}{median}.")
    return found


def _group(curve: Curve, book: Codebook) -> str:
    """Return a group's name, ``variable=level`` by the variable's label."""
    named_levels = re.sub(r"([^\W\d]\w*)=", lambda found: f"{named(found[1], book)} = ", curve.group)
    return named_levels.replace("_", " ") or "all"


def _groups(result: Result, book: Codebook) -> list[str]:
    """Say how large groups are, where their middle lies, or how much persons differ."""
    told = result.details
    share = told.get("intraclass_correlation")
    if share is not None:
        return [f"{_share(share)} of the variance lies between persons (intraclass correlation {share:.2f})."]
    if result.method == "table_one":
        counts = zip(told["groups"], told["persons"], strict=True)
        return ["Persons: " + ", ".join(f"{number(n)} {group.replace('_', ' ')}" for group, n in counts) + "."]
    found = []
    for row in told.get("quantiles", ()):
        values = {f"{100 * p:g}": v for p, v in zip(told["probs"], row["values"], strict=True)}
        if values.get("50") is not None:
            quartiles = [values.get("25"), values.get("75")]
            half = "" if None in quartiles else f" (quartiles {quartiles[0]:g}, {quartiles[1]:g})"
            who = f"{named(row['variable'], book)} {row['group'].replace('_', ' ')}".strip()
            found.append(f"{who}: median {values['50']:g}{half}.")
    return found


def _tests(result: Result, book: Codebook) -> list[str]:
    if result.method == "validate_panel":
        return []
    found = []
    for t in (t for t in result.tests if math.isfinite(t.p)):
        kind, _, term = t.name.rpartition(": ")
        name = f"{kind}: {named(term, book)}" if kind else " with ".join(named(n, book) for n in t.name.split(" with "))
        degrees = f" on {t.df:.0f} degrees of freedom" if math.isfinite(t.df) and t.df >= 1 else ""
        statistic = f"statistic {t.statistic:.2f}{degrees}, " if math.isfinite(t.statistic) else ""
        found.append(f"{name}: {_estimate(t)}{statistic}p {p_value(t.p)}.")
    return found


def _estimate(test: Test) -> str:
    """Say what a test is of, if it tells."""
    told = test.details[0] if len(test.details) == 1 else {}
    if "probability_first_larger" in told:
        share = told["probability_first_larger"]
        return f"in {_share(share)} of pairs the first group has the larger value (area under the ROC curve), "
    if "lower" not in told:
        return ""
    name, value = next(iter(told.items()))
    return f"{name.replace('_', ' ')} {value:.2f} ({_interval(told['lower'], told['upper'])}), "


def _features(result: Result, book: Codebook) -> list[str]:
    told = result.details.get("features")
    if not told or "adjusted_p" not in told:
        return []
    first = [named(str(f), book) for f, p in zip(told["feature"], told["adjusted_p"], strict=True) if p < 0.05]
    strongest = f"; strongest: {', '.join(first[:5])}" if first else ""
    said = [f"{len(first)} of {len(told['feature'])} features stand at a false discovery rate of 5 %{strongest}."]
    said += [f"Gene set {s['set']}: {s['direction']}, p {p_value(s['p'])}." for s in result.details.get("sets", ())]
    return said


def tables(result: Result, book: Codebook) -> list[Table]:
    """Return the tables of a result, as far as it has them."""
    made = [rows for rows in (table_one_rows(result), quantile_rows(result), *cell_rows(result)) if rows]
    counted = [Table(tuple(rows[0]), tuple(tuple(map(_short, row)) for row in rows[1:])) for rows in made]
    return [*counted, *_coefficients(result, book), *_curve_table(result, book), *_feature_table(result, book)]


def _short(cell: str) -> str:
    """Return a cell whose numbers of many decimals have two at most."""
    return re.sub(r"\d+\.\d{4,}(?!e)", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), cell)


def _coefficients(result: Result, book: Codebook) -> list[Table]:
    ratio, labels = ratio_name(result), _labels(result, book)
    if _is_penalised(result):
        family = _PENALISED.get(result.details.get("family", "cox"), "")
        told = [(labels[c.term], *_plain(c, family)) for c in result.coefficients]
        return [Table(("term", "coefficient", *([f"shrunk {family}"] if family else [])), tuple(told))]
    shown = [c for c in result.coefficients if math.isfinite(c.se)]
    rows = []
    for c in shown:
        scale: Any = (lambda v: math.exp(min(v, 50))) if ratio and is_effect(c) else float
        values = [number(scale(v), 3) for v in (c.estimate, c.lower, c.upper)]
        rows.append((labels[c.term], values[0], f"{values[1]} to {values[2]}", p_value(c.p).removeprefix("= ")))
    return [Table(("term", ratio or "estimate", "95 % interval", "p"), tuple(rows))] if rows else []


def _plain(c: Coefficient, family: str) -> list[str]:
    ratio = [number(math.exp(min(c.estimate, 50)), 3) if c.term != INTERCEPT else ""] if family else []
    return [number(c.estimate, 3), *ratio]


def _curve_table(result: Result, book: Codebook) -> list[Table]:
    shown = [c for c in result.curves if c.time]
    rows = [
        (
            _group(c, book),
            str(c.at_risk[0]),
            str(sum(c.events)),
            "–" if c.median is None or not math.isfinite(c.median) else f"{c.median:g}",
            f"{c.rmst:.1f} up to {c.tau:g}",
        )
        for c in shown
    ]
    mean = (
        "mean time without the event" if result.details.get("curve", "survival") == "survival" else "mean time with it"
    )
    head = ("group", "at risk at first", "events shown", "median", mean)
    return [Table(head, tuple(rows))] if rows else []


def _feature_table(result: Result, book: Codebook) -> list[Table]:
    told = result.details.get("features")
    if not told:
        return []
    names = [n for n in told if n not in ("feature", "log_odds", "mean")]
    rows = [
        (named(str(told["feature"][i]), book), *(number(told[n][i], 3) for n in names))
        for i in range(min(len(told["feature"]), _SHOWN))
    ]
    return [Table(("feature", *(n.replace("_", " ") for n in names)), tuple(rows))]
