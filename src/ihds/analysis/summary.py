"""A result as the text a statistician expects."""

from __future__ import annotations

import math
from typing import Any

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
    """Return a number with some significant digits; nothing for None."""
    if value is None or value != value:
        return "-"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if isinstance(value, int):
        return str(value)
    return f"{value:.{digits}g}" if abs(value) < 1e-3 or abs(value) >= 1e5 else f"{value:.{digits}f}"


def _coefficients(result: Result) -> list[str]:
    if not result.coefficients:
        return []
    ratio = result.method == "cox" or result.details.get("family") in ("binomial", "poisson")
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
    fit = result.log_likelihood or {}
    return [
        *columns(rows),
        f"log-likelihood: null {fit.get('null', math.nan):.4f}, fitted {fit.get('fitted', math.nan):.4f}",
    ]


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
    lines: list[str] = []
    told = result.details
    for stratum, counts in zip(told.get("strata", ()), told.get("counts", ()), strict=False):
        head = [stratum, *told["columns"]]
        body = ([name, *(number(int(c)) for c in row)] for name, row in zip(told["rows"], counts, strict=True))
        lines += [*columns([head, *body]), ""]
    return lines[:-1]


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
        else:
            value = ", ".join(f"{k}: {'hidden' if v is None else v}" for k, v in row["counts"].items())
        rows.append([row["variable"], number(row["n"]), number(row["missing"]), value])
    return columns(rows)


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
