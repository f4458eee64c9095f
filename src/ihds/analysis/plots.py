"""Pictures of results: curves, forest plots, means, tables, correlations, through matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import special

from ihds.analysis import feature_plots
from ihds.analysis.design import INTERCEPT
from ihds.analysis.feature_plots import COLOURS, bars
from ihds.analysis.result import Result
from ihds.analysis.summary import is_effect, ratio_name
from ihds.errors import BadInput


def draw(result: Result) -> Figure:
    """Return the figure that fits a result.

    Raises:
        BadInput: the method has no picture.

    """
    shared = _curves if result.curves else _forest if result.coefficients else None
    chosen = _OF_METHOD.get(result.method, shared)
    if chosen is None:
        raise BadInput(f"{result.method} has no plot", remedy="print(result.summary())")
    height = 1.4 + 0.42 * len(result.coefficients) if chosen is _forest else 4.5
    beside = _BESIDE.get(result.method)
    figure = Figure(figsize=(11 if beside else 7, height), layout="constrained")
    if beside is None:
        chosen(result, figure.add_subplot())
        return figure
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    chosen(result, left)
    beside(result, right)
    return figure


def _curves(result: Result, axes: Axes) -> None:
    kind = result.details.get("curve", "survival")
    first = 1.0 if kind == "survival" else 0.0
    for index, curve in enumerate(result.curves):
        colour = COLOURS[index % len(COLOURS)]
        time = [0.0, *curve.time]
        axes.step(time, [first, *curve.estimate], where="post", color=colour, label=curve.group)
        axes.fill_between(
            time, [first, *curve.lower], [first, *curve.upper], step="post", color=colour, alpha=0.15, linewidth=0
        )
    top = 1.02 if kind != "cumulative hazard" else None
    axes.set(ylim=(0, top), xlim=(0, None), xlabel="time", ylabel="share without the event" if first else kind)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _forest(result: Result, axes: Axes) -> None:
    ratio = ratio_name(result)
    scale = math.exp if ratio else float
    terms = [c for c in result.coefficients if is_effect(c)]
    shown = terms or list(result.coefficients)
    places = range(len(shown), 0, -1)
    for place, c in zip(places, shown, strict=True):
        axes.plot([scale(c.lower), scale(c.upper)], [place, place], color="#0072B2", linewidth=2)
        axes.plot(scale(c.estimate), place, "s", color="#0072B2", markersize=7)
        label = f"{scale(c.estimate):.2f} ({scale(c.lower):.2f} to {scale(c.upper):.2f})"
        axes.annotate(label, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.axvline(1.0 if ratio else 0.0, color="#888888", linewidth=1, linestyle="--")
    axes.set_yticks(list(places), [c.term for c in shown])
    axes.set_ylim(0.4, len(shown) + 0.6)
    if ratio:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        shown_ticks = [t for t in (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 10, 20) if low <= t <= high]
        axes.set_xticks(shown_ticks, [f"{t:g}" for t in shown_ticks])
        axes.set_xticks([], minor=True)
    axes.set_xlabel(ratio or "estimate")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _means(result: Result, axes: Axes) -> None:
    """Draw each group's mean with its own 95 % t interval."""
    groups = result.details["groups"]
    half = [special.stdtrit(g["n"] - 1, 0.975) * g["sd"] / math.sqrt(g["n"]) for g in groups]
    places = np.arange(len(groups))
    axes.errorbar(places, [g["mean"] for g in groups], yerr=half, fmt="s", color="#0072B2", capsize=5)
    axes.set_xticks(places, [f"{g['group']}\nn = {g['n']}" for g in groups])
    axes.set(xlim=(-0.6, len(groups) - 0.4), ylabel="mean, 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)


def _shares(result: Result, axes: Axes) -> None:
    """Draw the share of each column level within each row level, over all strata."""
    told = result.details
    counts = np.sum([[[c or 0 for c in row] for row in layer] for layer in told["counts"]], axis=0)  # none hidden
    whole = counts.sum(axis=1)
    share = counts / np.maximum(whole, 1)[:, None]
    left = np.zeros(len(counts))
    for j, column in enumerate(told["columns"]):
        axes.barh(
            told["rows"],
            share[:, j],
            left=left,
            color=COLOURS[j % len(COLOURS)],
            label=column,
        )
        left = left + share[:, j]
    axes.set_yticks(range(len(counts)), [f"{r}\nn = {n:.0f}" for r, n in zip(told["rows"], whole, strict=True)])
    hidden = any(c is None for layer in told["counts"] for row in layer for c in row)
    axes.set(xlim=(0, 1), xlabel="share of what is shown" if hidden else "share")
    axes.invert_yaxis()
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.spines[["top", "right"]].set_visible(False)


def _correlations(result: Result, axes: Axes) -> None:
    names, r = result.details["variables"], np.asarray(result.details["correlation"])
    image = axes.imshow(r, vmin=-1, vmax=1, cmap="RdBu_r")
    for i, j in np.ndindex(r.shape):
        axes.text(j, i, f"{r[i, j]:.2f}", ha="center", va="center", color="white" if abs(r[i, j]) > 0.6 else "black")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(image, ax=axes, label="Pearson's r")


def _path(result: Result, axes: Axes) -> None:
    """Draw each coefficient against the penalty, in units of its largest size; the chosen penalty dashed."""
    told = result.details
    skipped = int(result.coefficients[0].term == INTERCEPT)
    path = np.asarray(told["path"])[:, skipped:]
    for j, term in enumerate(c.term for c in result.coefficients[skipped:]):
        largest = np.abs(path[:, j]).max() or 1.0
        style = ("-", "--", ":", "-.")[j // len(COLOURS) % 4]
        axes.plot(
            told["lambda"],
            path[:, j] / largest,
            style,
            color=COLOURS[j % len(COLOURS)],
            label=term,
        )
    if "lambda_best" in told:
        axes.axvline(told["lambda_best"], color="#888888", linestyle="--")
    axes.set(xscale="log", xlabel="penalty", ylabel="coefficient / its largest")
    axes.invert_xaxis()
    axes.legend(frameon=False, fontsize=8, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


def _histograms(result: Result, axes: Axes) -> None:
    for index, found in enumerate(result.details["histograms"]):
        counts = [np.nan if c is None else c for c in found["counts"]]
        label = f"{found['variable']} {found['group']}".strip()
        axes.stairs(
            counts,
            found["edges"],
            color=COLOURS[index % len(COLOURS)],
            label=label,
            fill=index == 0,
            alpha=0.7,
        )
    axes.set(ylabel="persons")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _boxes(result: Result, axes: Axes) -> None:
    """Draw the shown quantiles of each variable and group, from the lowest to the highest."""
    found = result.details["quantiles"]
    for place, row in enumerate(found):
        shown = [v for v in row["values"] if v is not None]
        if shown:
            axes.plot([min(shown), max(shown)], [place, place], color="#0072B2", linewidth=1.5)
            axes.plot(shown, [place] * len(shown), "|", color="#0072B2", markersize=16)
    axes.set_yticks(range(len(found)), [f"{r['variable']} {r['group']}".strip() for r in found])
    axes.set(xlabel=", ".join(f"{100 * p:g} %" for p in result.details["probs"]), ylim=(len(found) - 0.5, -0.5))
    axes.spines[["top", "right", "left"]].set_visible(False)


def _ranks(result: Result, axes: Axes) -> None:
    groups = result.details["groups"]
    bars(axes, [f"{g['group']}\nn = {g['n']}" for g in groups], [g["mean_rank"] for g in groups], "mean rank")


def _present(result: Result, axes: Axes) -> None:
    rows = [r for r in result.table if r["n"] is not None]
    shares = [100 * r["n"] / max(r["n"] + r["missing"], 1) for r in rows]
    bars(axes, [r["variable"] for r in rows], shares, "per cent of rows with a value")


def _expected(result: Result, axes: Axes) -> None:
    rows = [r for r in result.tests[0].details if r["observed"] is not None]  # small groups are hidden
    ratios = [r["observed"] / r["expected"] if r["expected"] else 0.0 for r in rows]
    bars(axes, [r["group"] for r in rows], ratios, "events, observed / expected")
    axes.axvline(1.0, color="#888888", linestyle="--")


def _balance(result: Result, axes: Axes) -> None:
    """Draw how far two groups lie apart in each number; p values where there are more groups."""
    rows = [r for r in result.details["rows"] if r["kind"] == "number" and r["smd"] is not None]
    if rows:
        bars(axes, [r["variable"] for r in rows], [abs(r["smd"]) for r in rows], "absolute standardised difference")
        axes.axvline(0.1, color="#888888", linestyle="--")
        return
    tested = [r for r in result.details["rows"] if r["p"] is not None]
    bars(axes, [r["variable"] for r in tested], [-math.log10(max(r["p"], 1e-300)) for r in tested], "-log10 p")


def _love(result: Result, axes: Axes) -> None:
    """Draw each covariate's standardised difference before and after weighting (Love's plot)."""
    rows = result.details["balance"]
    places = range(len(rows))
    axes.scatter([abs(r["before"]) for r in rows], places, color="#D55E00", label="before weighting")
    axes.scatter([abs(r["after"]) for r in rows], places, color="#0072B2", label="after weighting")
    axes.axvline(0.1, color="#888888", linestyle="--")
    axes.set_yticks(places, [r["covariate"] for r in rows])
    axes.set(xlabel="absolute standardised difference")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _tenths(result: Result, axes: Axes) -> None:
    """Draw the mean trait over the tenths of a score."""
    means = result.details["tenths"]["mean_trait"]
    shown = [(tenth, mean) for tenth, mean in enumerate(means, start=1) if mean is not None]
    axes.plot([t for t, _ in shown], [m for _, m in shown], "o-", color="#0072B2")
    axes.set(xlabel="tenth of the score", ylabel="mean trait", xticks=range(1, 11))
    axes.spines[["top", "right"]].set_visible(False)


def _consensus(result: Result, axes: Axes) -> None:
    """Draw how consensus is spread over pairs, per number of clusters; flat in the middle is firm."""
    chosen = result.details["chosen"]
    for index, row in enumerate(result.details["clusterings"]):
        cdf = [np.nan if v is None else v for v in row["cdf"]]
        persons = "hidden" if row["persons"] is None else " + ".join(map(str, row["persons"]))
        axes.step(
            np.linspace(0, 1, len(cdf)),
            cdf,
            where="post",
            color=COLOURS[index % len(COLOURS)],
            linewidth=2.5 if row["k"] == chosen else 1.2,
            label=f"{row['k']} clusters: {persons}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="consensus of two persons", ylabel="share of pairs up to it")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _validated(result: Result, axes: Axes) -> None:
    """Draw the loss at sites left out against the penalty, in per cent of that without covariates."""
    told = result.details
    shares = [100 * loss / told["loss_null"] for loss in told["loss_mean"]]
    axes.plot(told["lambda"], shares, "o-", color="#0072B2")
    for penalty, share, terms in zip(told["lambda"], shares, told["terms_left"], strict=True):
        axes.annotate(str(terms), (penalty, share), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes.axvline(told["lambda_best"], color="#888888", linestyle="--")
    axes.axhline(100, color="#888888", linewidth=1)
    axes.set(xscale="log", xlabel="penalty (numbers: terms left)", ylabel="loss out of site, % of no covariates")
    axes.invert_xaxis()
    said = []
    for name, value in (next(iter(test.details[0].items())) for test in result.tests):
        said.append(f"{name.replace('_', ' ')} {value:.2f}")
    axes.set_title(", ".join(said), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


#: Methods whose picture is neither curves nor a forest of coefficients.
_OF_METHOD: dict[str, Callable[[Result, Axes], None]] = {
    "anova": _means,
    "association_scan": feature_plots.manhattan,
    "causal_effect": _love,
    "co_occurrence": feature_plots.carriers,
    "consensus_clustering": _consensus,
    "contingency": _shares,
    "correlation": _correlations,
    "count_expression": feature_plots.volcano,
    "cox_scan": feature_plots.volcano,
    "describe": _present,
    "differential_expression": feature_plots.volcano,
    "elastic_net": _path,
    "factor_analysis": feature_plots.layers,
    "genotype_qc": feature_plots.call_rates,
    "harmonise": feature_plots.between_sites,
    "histogram": _histograms,
    "logrank": _expected,
    "penalised_cox": _path,
    "polygenic_score": _tenths,
    "principal_components": feature_plots.scree,
    "quantiles": _boxes,
    "rank_test": _ranks,
    "table_one": _balance,
    "validate_panel": _validated,
    "voom": feature_plots.volcano,
}
#: What is drawn beside the picture of a method.
_BESIDE: dict[str, Callable[[Result, Axes], None]] = {
    "association_scan": feature_plots.expected_p,
    "count_expression": feature_plots.mean_difference,
    "voom": feature_plots.trend,
}
