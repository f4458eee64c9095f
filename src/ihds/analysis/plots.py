"""Pictures of results: curves, forest plots, means, tables, correlations, through matplotlib."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import special

from ihds.analysis.result import Result
from ihds.errors import BadInput

# Colours of Okabe and Ito, told apart by people who see few colours.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw(result: Result) -> Figure:
    """Return the figure that fits a result.

    Raises:
        BadInput: the method has no picture.

    """
    if result.curves:
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        _curves(result, figure.add_subplot())
        return figure
    if result.coefficients:
        height = 1.4 + 0.42 * len(result.coefficients)
        figure = Figure(figsize=(7, height), layout="constrained")
        _forest(result, figure.add_subplot())
        return figure
    by_method = {"anova": _means, "contingency": _shares, "correlation": _correlations}
    if result.method in by_method:
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        by_method[result.method](result, figure.add_subplot())
        return figure
    raise BadInput(f"{result.method} has no plot", remedy="print(result.summary())")


def _curves(result: Result, axes: Axes) -> None:
    for index, curve in enumerate(result.curves):
        colour = _COLOURS[index % len(_COLOURS)]
        time = [0.0, *curve.time]
        axes.step(time, [1.0, *curve.estimate], where="post", color=colour, label=curve.group)
        axes.fill_between(
            time, [1.0, *curve.lower], [1.0, *curve.upper], step="post", color=colour, alpha=0.15, linewidth=0
        )
    axes.set(ylim=(0, 1.02), xlim=(0, None), xlabel="time", ylabel="survival")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _forest(result: Result, axes: Axes) -> None:
    ratio = result.method == "cox" or result.details.get("family") in ("binomial", "poisson")
    scale = math.exp if ratio else float
    shown = [c for c in result.coefficients if c.term != "(Intercept)"] or list(result.coefficients)
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
    name = {"cox": "hazard ratio", "binomial": "odds ratio", "poisson": "rate ratio"}
    axes.set_xlabel(name.get("cox" if result.method == "cox" else str(result.details.get("family")), "estimate"))
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
    counts = np.sum(told["counts"], axis=0)
    whole = counts.sum(axis=1)
    share = counts / np.maximum(whole, 1)[:, None]
    left = np.zeros(len(counts))
    for j, column in enumerate(told["columns"]):
        axes.barh(told["rows"], share[:, j], left=left, color=_COLOURS[j % len(_COLOURS)], label=column)
        left = left + share[:, j]
    axes.set_yticks(range(len(counts)), [f"{r}\nn = {n:.0f}" for r, n in zip(told["rows"], whole, strict=True)])
    axes.set(xlim=(0, 1), xlabel="share")
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
