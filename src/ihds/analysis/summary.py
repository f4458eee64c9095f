"""A result as the text a statistician expects."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from ihds.analysis.result import Coefficient, Result, Test


def render(result: Result) -> str:
    """Return heading, tables and provenance as plain text."""
    events = f", events = {result.events}" if result.events is not None else ""
    lines = [f"{result.method}: n = {result.n}{events}, rounds = {result.rounds}"]
    left_out = result.details.get("left_out_missing")
    if left_out:
        lines.append(f"({left_out} rows left out for missing values)")
    for part in (
        _coefficients(result),
        _groups(result),
        _cells(result),
        _tests(result),
        _curves(result),
        _described(result),
        _random(result),
        _quantiles(result),
        _histograms(result),
        _clusterings(result),
        _table_one(result),
        _between_sites(result),
        _factors(result),
        _features(result),
        _sets(result),
        _weights(result),
        _balance(result),
        _warning(result),
        _privacy(result),
    ):
        if part:
            lines += ["", *part]
    lines += ["", *_provenance(result)]
    return "\n".join(lines)


def columns(rows: list[list[str]]) -> list[str]:
    """Return rows as aligned text; the first row is the heading."""
    widths = [max(len(row[j]) for row in rows) for j in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if j == 0 else cell.rjust(w) for j, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def number(value: Any, digits: int = 4) -> str:
    """Return a number with some significant digits; nothing for None; text as it is."""
    if value is None or value != value:
        return "-"
    if isinstance(value, str):
        return value
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if isinstance(value, (int, np.integer)):
        return str(value)
    return f"{value:.{digits}g}" if abs(value) < 1e-3 or abs(value) >= 1e5 else f"{value:.{digits}f}"


#: Features of a scan that a summary shows; all of them are in the result.
_SHOWN = 20
_LISTED = (("persons", 0), ("consensus", 2))
_HAZARD, _ODDS, _RATE = "hazard ratio", "odds ratio", "rate ratio"
_RATIOS = {
    "cox": _HAZARD,
    "cox_check": _HAZARD,
    "cox_scan": _HAZARD,
    "fine_gray": "subdistribution hazard ratio",
    "piecewise": _HAZARD,
    "survival_effect": _HAZARD,
    "target_trial": _HAZARD,
    "negative_binomial": _RATE,
    "multinomial": _ODDS,
    "firth": _ODDS,
}


def ratio_name(result: Result) -> str:
    """Return what exp(estimate) is called, or nothing where it is not reported."""
    told = result.details
    if told.get("link") not in (None, "logit", "log") or result.method == "elastic_net":
        return ""
    if result.method == "ordinal" or told.get("baseline") == "logit":
        return _ODDS
    return _RATIOS.get(result.method) or {"binomial": _ODDS, "poisson": _RATE, "gamma": "ratio of means"}.get(
        str(told.get("family")), ""
    )


def is_effect(c: Coefficient) -> bool:
    """Return whether a row is a covariate's, not an intercept, threshold, interval or scale, and has an error."""
    level = c.term.endswith(("(Intercept)", "]")) and (c.term[0] == "(" or c.term.endswith("(Intercept)"))
    return not level and "|" not in c.term and c.term not in ("log(scale)", "log(theta)") and math.isfinite(c.se)


def _random(result: Result) -> list[str]:
    found = result.details.get("random", ())
    if not found:
        return []
    rows = [["random effect", "sd", "correlation"]]
    rows += [[r["term"], number(r["sd"]), " ".join(number(c, 3) for c in r["correlation"])] for r in found]
    if "residual_sd" in result.details:
        rows.append(["residual", number(result.details["residual_sd"]), ""])
    share = result.details.get("intraclass_correlation")
    return columns(rows) + ([f"intraclass correlation {number(share)}"] if share is not None else [])


def _of_chosen(result: Result) -> Any:
    """Return the centroids of the clusters chosen, the features that tell most first."""
    rows = result.details.get("clusterings", ())
    return next((row["features"] for row in rows if row["k"] == result.details["chosen"]), None)


def _clusterings(result: Result) -> list[str]:
    """Return sizes of clusters and how firm they are, for each number of them."""
    found = result.details.get("clusterings", ())
    rows = [["clusters", "persons", "between", "agreement", "consensus", "area", "delta", "PAC"]]
    for row in found:
        lists = [" ".join(number(v, digits) for v in row[n] or ()) or "hidden" for n, digits in _LISTED]
        told = [number(row[n], 3) for n in ("share_between", "agreement")]
        firm = [number(row[n], 3) for n in ("area", "delta_area", "pac")]
        rows.append([str(row["k"]), lists[0], *told, lists[1], *firm])
    notes = [f"{row['k']} clusters are hidden: {row['hidden']}" for row in found if row["hidden"]]
    notes += [f"{row['k']} clusters: a better start had a small one" for row in found if row["passed_over"]]
    return [*columns(rows), *notes] if found else []


def _between_sites(result: Result) -> list[str]:
    """Return the mean share of variance between sites before and after features were harmonised."""
    if result.method != "harmonise":
        return []
    told = result.details
    shares = (told["mean_before"], told["mean_after"], told["by_chance"])
    before, after, chance = (f"{100 * share:.1f} %" for share in shares)
    kept = f", {told['left_as_they_are']} features left as they are" if told["left_as_they_are"] else ""
    return [f"between sites: {before} of the variance before, {after} after, {chance} by chance{kept}"]


def _factors(result: Result) -> list[str]:
    """Return what each factor explains of each layer, in per cent, and how well the model fits."""
    found = result.details.get("explained")
    if not found:
        return []
    names = [f"factor {j + 1}" for j in range(result.details["factors"])]
    rows = [["per cent explained", "features", *names, "all"]]
    rows += [[r["layer"], str(r["features"]), *(f"{100 * v:.1f}" for v in (*r["share"], r["total"]))] for r in found]
    fitted = "" if result.coefficients or not result.log_likelihood else f"{result.log_likelihood['fitted']:.4f}, "
    return [*columns(rows), f"{fitted and 'log-likelihood: fitted '}{fitted}BIC {result.details['bic']:.4f}"]


def _features(result: Result) -> list[str]:
    """Return the first features of a scan, the smallest p values first where there are some."""
    found = result.details.get("features") or _of_chosen(result)
    if not found:
        return []
    names = list(found)
    many = len(found["feature"])
    rows = [[n.replace("_", " ") for n in names]]
    p = found.get("p", [None] * many)
    order = sorted(range(many), key=lambda i: math.inf if p[i] is None else p[i])[:_SHOWN]
    rows += [[str(found["feature"][i]), *(number(found[n][i]) for n in names[1:])] for i in order]
    more = [f"... and {many - _SHOWN} more"] if many > _SHOWN else []
    return [*columns(rows), *more]


def _sets(result: Result) -> list[str]:
    """Return gene sets, in the order of their p values."""
    found = result.details.get("sets", ())
    rows = [["gene set", "genes", "direction", "t", "p", "adjusted p"]]
    for row in found:
        told = [number(row[name]) for name in ("t", "p", "adjusted_p")]
        rows.append([row["set"], str(row["genes"]), row["direction"], *told])
    return columns(rows) if found else []


def _balance(result: Result) -> list[str]:
    found = result.details.get("balance", ())
    rows = [["covariate", "difference before", "after weighting"]]
    rows += [[b["covariate"], number(b["before"], 3), number(b["after"], 3)] for b in found]
    return columns(rows) if found else []


def _weights(result: Result) -> list[str]:
    """Return what the weights of each group's persons are worth."""
    found = result.details.get("weights", ())
    rows = [["group", "persons", "mean weight", "worth equal persons", "cut"]]
    for row in found:
        told = [number(row["persons"]), number(row["mean"]), number(row["effective_persons"], 1)]
        rows.append([row["group"], *told, "hidden" if row["cut"] is None else str(row["cut"])])
    return columns(rows) if found else []


def _warning(result: Result) -> list[str]:
    said = result.details.get("warning")
    return [f"Warning: {said}"] if said else []


def _quantiles(result: Result) -> list[str]:
    rows = quantile_rows(result)
    return columns(rows) if rows else []


def quantile_rows(result: Result) -> list[list[str]]:
    """Return quantiles per variable and group, the heading first; nothing where there are none."""
    found = result.details.get("quantiles", ())
    if not found:
        return []
    head = ["variable", "group", "n", *(f"{100 * p:g} %" for p in result.details["probs"])]
    return [head, *([q["variable"], q["group"], number(q["n"]), *map(number, q["values"])] for q in found)]


def _histograms(result: Result) -> list[str]:
    lines: list[str] = []
    for found in result.details.get("histograms", ()):
        most = max((c for c in found["counts"] if c), default=1)
        rows = [[f"{found['variable']} {found['group']}".strip(), "n", ""]]
        for low, high, count in zip(found["edges"], found["edges"][1:], found["counts"], strict=False):
            bar = "" if count is None else "#" * round(40 * count / most)
            rows.append([f"[{low:g}, {high:g})", "hidden" if count is None else str(count), bar.ljust(40)])
        lines += [*(line.rstrip() for line in columns(rows)), ""]
    return lines[:-1]


def _table_one(result: Result) -> list[str]:
    rows = table_one_rows(result)
    return columns(rows) if rows else []


def table_one_rows(result: Result) -> list[list[str]]:
    """Return the table as papers print it: mean (sd) or n (per cent), one column per group."""
    told = result.details if result.method == "table_one" else result.details.get("compared")
    if not told:
        return []
    persons = told["persons"]
    rows = [["", *(f"{g} (n = {n})" for g, n in zip(told["groups"], persons, strict=True)), "p", "smd"]]
    for row in told["rows"]:
        if row["kind"] == "number":
            cells = ["hidden"] * len(persons)
            if row["mean"] is not None:
                cells = [f"{number(m)} ({number(s)})" for m, s in zip(row["mean"], row["sd"], strict=True)]
            rows.append([f"{row['variable']}, mean (sd)", *cells, number(row["p"], 3), number(row["smd"], 3)])
            continue
        rows.append([f"{row['variable']}, n (%)", *[""] * len(persons), number(row["p"], 3), ""])
        for level, counts in zip(row["levels"], row["counts"], strict=True):
            cells = ["hidden"] * len(persons)
            if counts is not None:
                cells = [f"{c} ({100 * c / n:.1f})" for c, n in zip(counts, persons, strict=True)]
            rows.append([f"  {level}", *cells, "", ""])
    return rows


def _coefficients(result: Result) -> list[str]:
    if not result.coefficients:
        return []
    ratio = bool(ratio_name(result))
    robust = any(c.robust_se is not None for c in result.coefficients)
    head = [
        "term",
        "estimate",
        *(["exp"] if ratio else []),
        "se",
        *(["robust se"] if robust else []),
        "z",
        "p",
        "lower 95",
        "upper 95",
    ]
    rows = [head, *(_coefficient(c, ratio=ratio, robust=robust) for c in result.coefficients)]
    fit = result.log_likelihood
    if not fit:
        return columns(rows)
    null = f"null {fit['null']:.4f}, " if fit.get("null") is not None else ""
    return [*columns(rows), f"log-likelihood: {null}fitted {fit['fitted']:.4f}"]


def _coefficient(c: Coefficient, *, ratio: bool, robust: bool) -> list[str]:
    return [
        c.term,
        number(c.estimate),
        *([number(math.exp(min(c.estimate, 700)))] if ratio else []),
        number(c.se),
        *([number(c.robust_se)] if robust else []),
        number(c.z, 3),
        number(c.p, 3),
        number(c.lower),
        number(c.upper),
    ]


def _tests(result: Result) -> list[str]:
    if not result.tests:
        return []
    rows = [["test", "statistic", "df", "p", "estimate", "lower 95", "upper 95"]]
    rows += [[t.name, number(t.statistic), number(t.df, 0), number(t.p, 3), *_estimate(t)] for t in result.tests]
    return columns(rows if any("lower" in d for t in result.tests for d in t.details) else [r[:4] for r in rows])


def _estimate(test: Test) -> list[str]:
    """Return what the test is of, with its interval; the first detail is the estimate."""
    if len(test.details) != 1 or "lower" not in test.details[0]:
        return ["-", "-", "-"]
    told = test.details[0]
    name, value = next(iter(told.items()))
    return [f"{name.replace('_', ' ')} {number(value)}", number(told["lower"]), number(told["upper"])]


def _groups(result: Result) -> list[str]:
    found = result.details.get("groups", ()) if result.method == "anova" else ()
    rows = [["group", "n", "mean", "sd"]]
    rows += [[g["group"], number(g["n"]), number(g["mean"]), number(g["sd"])] for g in found]
    return columns(rows) if found else []


def _cells(result: Result) -> list[str]:
    return [line for rows in cell_rows(result) for line in (*columns(rows), "")][:-1]


def cell_rows(result: Result) -> list[list[list[str]]]:
    """Return a table of counts per stratum, the headings first."""
    told, found = result.details, []
    for stratum, counts in zip(told.get("strata", ()), told.get("counts", ()), strict=False):
        head = [stratum, *told["columns"]]
        body = (
            [name, *("hidden" if c is None else number(int(c)) for c in row)]
            for name, row in zip(told["rows"], counts, strict=True)
        )
        found.append([head, *body])
    return found


def _curves(result: Result) -> list[str]:
    if not result.curves:
        return []
    rows = [["group", "points", "median", "restricted mean", "se", "to"]]
    rows += [
        [c.group, str(len(c.time)), number(c.median), number(c.rmst), number(c.rmst_se), number(c.tau)]
        for c in result.curves
    ]
    return columns(rows)


def _described(result: Result) -> list[str]:
    if not result.table:
        return []
    rows = [["variable", "n", "missing", "mean (sd) or counts"]]
    for row in result.table:
        if row["kind"] == "number":
            value = f"{number(row['mean'])} ({number(row['sd'])})"
            if "lower" in row:  # of a noisy study
                value += f", 95 % {number(row['lower'])} to {number(row['upper'])}"
        else:
            value = ", ".join(f"{k}: {'hidden' if v is None else v}" for k, v in row["counts"].items())
        rows.append([row["variable"], number(row["n"]), number(row["missing"]), value])
    return columns(rows)


def _privacy(result: Result) -> list[str]:
    told = result.details.get("privacy")
    if not told:
        return []
    noise = ", ".join(f"{name} {number(sd)}" for name, sd in told["noise_sd"].items() if sd)
    return [
        f"released with noise: epsilon {told['epsilon']}, delta {told['delta']}, "
        f"at a cost of rho {float(Fraction(told['rho'])):.4g}",
        f"standard deviation of the noise in the sums: {noise}; intervals and p values count it",
        told["meaning"],
    ]


def _provenance(result: Result) -> list[str]:
    found = result.provenance
    if not found:
        return []
    holders = ", ".join(h.get("name") or h["did"] for h in found.get("holders", []))
    sent = sum(part["bytes"] for part in found.get("left_each_site", []))
    return [
        f"study {found.get('study')} under permit {found.get('permit')}",
        f"holders: {holders}; each sent {sent} masked bytes, only sums were opened",
    ]
