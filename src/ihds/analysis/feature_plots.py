"""Pictures of many features: evidence along the genome, effects, trends, layers, what lies between sites."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ihds.analysis.design import Floats
from ihds.analysis.result import Result

#: Colours of Okabe and Ito, told apart by people who see few colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_SHADES = ("#0072B2", "#56B4E9")  # chromosomes in turns
#: Below this p value a variant is taken to be associated, there being about a million independent ones.
_GENOME_WIDE = 5e-8


def bars(axes: Axes, names: list[str], values: list[float], label: str) -> None:
    """Draw one bar per name."""
    axes.barh(range(len(names)), values, color="#0072B2")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=label)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def _strength(p: Sequence[float | None]) -> Floats:
    """Return -log10 of p values, NaN where there is none."""
    values = np.array([np.nan if v is None else v for v in p], dtype=np.float64)
    return np.asarray(-np.log10(np.maximum(values, 1e-300)))


def volcano(result: Result, axes: Axes) -> None:
    """Draw each feature's effect against the strength of its evidence; those below 5 % false discovery coloured."""
    found = result.details["features"]
    told = found["estimate" if "estimate" in found else "one_step_estimate"]
    effect = np.array([np.nan if v is None else v for v in told], dtype=np.float64)
    strength, kept = _strength(found["p"]), np.array(found["adjusted_p"]) < 0.05
    axes.scatter(effect[~kept], strength[~kept], s=6, color="#999999", linewidths=0)
    axes.scatter(effect[kept], strength[kept], s=8, color="#D55E00", linewidths=0)
    for i in np.flatnonzero(np.isfinite(effect))[:8]:
        axes.annotate(found["feature"][i], (effect[i], strength[i]), fontsize=7)
    axes.set(xlabel="effect", ylabel="-log10 p")
    axes.spines[["top", "right"]].set_visible(False)


def mean_difference(result: Result, axes: Axes) -> None:
    """Draw each gene's effect against its mean; those below 5 % false discovery coloured."""
    found = result.details["features"]
    effect = np.array([np.nan if v is None else v for v in found["estimate"]], dtype=np.float64)
    mean, kept = np.array(found["mean"]), np.array(found["adjusted_p"]) < 0.05
    axes.scatter(mean[~kept], effect[~kept], s=6, color="#999999", linewidths=0)
    axes.scatter(mean[kept], effect[kept], s=8, color="#D55E00", linewidths=0)
    axes.axhline(0.0, color="#888888", linewidth=1, linestyle="--")
    axes.set(xlabel="log2 of the mean counts per million", ylabel="log2 fold change")
    axes.spines[["top", "right"]].set_visible(False)


def trend(result: Result, axes: Axes) -> None:
    """Draw voom's trend: how the spread of log counts falls with their mean."""
    told = result.details["trend"]
    axes.plot(told["log2_count"], told["root_sd"], color="#0072B2", linewidth=2)
    axes.set(xlabel="log2 of the count", ylabel="square root of the standard deviation", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)


def _many(values: Floats) -> bool:
    """Return whether points are so many that a picture is better of dots than of shapes."""
    return len(values) > 5000


def _evidence(found: dict[str, list[Any]]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return -log10 of each variant's p value, that of its confirmation where there is one, and where that is."""
    none = [None] * len(found["p"])
    confirmed = _strength(found.get("firth_p", found.get("saddlepoint_p", none)))
    known = np.isfinite(confirmed)
    return np.where(known, confirmed, _strength(found["p"])), known


def _chromosome(name: str | None) -> tuple[float, str]:
    """Return what chromosomes are ordered by: their numbers, then X, Y and MT, then other names, then none."""
    known = {"X": 23.0, "Y": 24.0, "XY": 25.0, "M": 26.0, "MT": 26.0}
    if name is None:
        return math.inf, ""
    return (float(name) if name.isdecimal() else known.get(name, 1e6)), name


def manhattan(result: Result, axes: Axes) -> None:
    """Draw the evidence of each variant along the genome, without places in the order of the table."""
    found = result.details["features"]
    strength, confirmed = _evidence(found)
    names = found.get("chromosome", [None] * len(strength))
    order = sorted(set(names), key=_chromosome)
    place = np.array([np.nan if p is None else p for p in found.get("position", names)], dtype=np.float64)
    place = np.where(np.isfinite(place), place, np.arange(len(place)))
    along, middles, start = np.zeros(len(place)), [], 0.0
    for index, name in enumerate(order):
        here = np.array([n == name for n in names])
        along[here] = start + place[here] - place[here].min()
        length = float(np.ptp(place[here]))
        middles.append(start + length / 2)
        start += length * 1.02 + 1
        axes.scatter(along[here], strength[here], s=6, color=_SHADES[index % 2], linewidths=0, rasterized=_many(place))
    axes.scatter(along[confirmed], strength[confirmed], s=14, color="#D55E00", linewidths=0, label="fitted again")
    axes.axhline(-math.log10(_GENOME_WIDE), color="#888888", linestyle="--", linewidth=1)
    if confirmed.any():
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, 1.08))
    if order == [None]:
        axes.set(xlabel="variant")
    else:
        readable = [0]  # names that lie too close to the one before are left out
        for index in range(1, len(middles)):
            if middles[index] - middles[readable[-1]] > 0.028 * start:
                readable.append(index)
        axes.set_xticks([middles[i] for i in readable], [order[i] or "other" for i in readable], fontsize=8)
        axes.set(xlabel="chromosome")
    axes.set(ylim=(0, None), ylabel="-log10 p")
    axes.spines[["top", "right"]].set_visible(False)


def expected_p(result: Result, axes: Axes) -> None:
    """Draw observed against expected p values, with the line of no association and the inflation."""
    strength, _ = _evidence(result.details["features"])
    strength = np.sort(strength[np.isfinite(strength)])
    expected = -np.log10((np.arange(len(strength), 0, -1) - 0.5) / max(len(strength), 1))
    axes.scatter(expected, strength, s=8, color="#0072B2", linewidths=0, rasterized=_many(strength))
    top = float(expected.max(initial=1.0))
    axes.plot([0, top], [0, top], color="#888888", linestyle="--")
    inflation = result.details["inflation"]
    axes.set(xlabel="expected -log10 p", ylabel="observed -log10 p")
    axes.set_title("" if inflation is None else f"genomic inflation {inflation:.3f}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def scree(result: Result, axes: Axes) -> None:
    """Draw the share of variance of each component."""
    shares = [100 * v for v in result.details["share"]]
    bars(axes, [f"component {j + 1}" for j in range(len(shares))], shares, "per cent of variance")


def shaded(axes: Axes, values: Floats, rows: list[str], columns: list[str], digits: int) -> None:
    """Draw a table as coloured squares, blue for what is below 0, each with its number."""
    most = float(np.abs(values).max(initial=0.0)) or 1.0
    axes.imshow(values, vmin=-most, vmax=most, cmap="RdBu_r", aspect="auto")
    for i, j in np.ndindex(values.shape):
        colour = "white" if abs(values[i, j]) > 0.6 * most else "black"
        axes.text(j, i, f"{values[i, j]:.{digits}f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)


def layers(result: Result, axes: Axes) -> None:
    """Draw what each factor explains of each layer, and the loadings of the features it loads on most."""
    told, found = result.details, result.details["features"]
    names = [f"factor_{j + 1}" for j in range(told["factors"])]
    loadings = np.column_stack([found[name] for name in names])
    heads = [name.replace("_", " ") for name in names]
    each = max(2, 16 // len(names))
    leading = dict.fromkeys(int(i) for column in np.abs(loadings).T for i in np.argsort(-column, kind="stable")[:each])
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    grid = figure.add_gridspec(2, 1, height_ratios=[len(told["explained"]), max(len(leading), 1)])
    axes.set_subplotspec(grid[0])
    figure.set_size_inches(7, 1.6 + 0.3 * (len(told["explained"]) + len(leading)))
    shares = 100 * np.array([row["share"] for row in told["explained"]])
    shaded(axes, shares, [row["layer"] for row in told["explained"]], heads, 1)
    axes.set_title("per cent of variance explained", fontsize=9)
    below = figure.add_subplot(grid[1])
    labels = [f"{found['feature'][i]} ({found['layer'][i]})" for i in leading]
    shaded(below, loadings[list(leading)], labels, heads, 2)
    below.set_title("leading loadings", fontsize=9)


def call_rates(result: Result, axes: Axes) -> None:
    """Draw how many variants have which share of genotypes called."""
    rates = [r for r in result.details["features"]["call_rate"] if r is not None]
    axes.hist(rates, bins=20, color="#0072B2")
    axes.set(xlabel="call rate", ylabel="variants")
    axes.spines[["top", "right"]].set_visible(False)


def between_sites(result: Result, axes: Axes) -> None:
    """Draw how many features have which share of their variance between sites, before and after."""
    told, edges = result.details, [i / 40 for i in range(41)]
    for name, colour in (("before", "#D55E00"), ("after", "#0072B2")):
        mean = told[f"mean_{name}"]
        label = f"{name}: {100 * mean:.1f} % on average"
        axes.hist(told["features"][f"between_{name}"], edges, color=colour, alpha=0.6, label=label)
        axes.axvline(mean, color=colour)
    label = f"by chance: {100 * told['by_chance']:.1f} %"
    axes.axvline(told["by_chance"], color="#888888", linestyle="--", label=label)
    axes.set(xlabel="share of variance between sites", ylabel="features", xlim=(0, 1))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def carriers(result: Result, axes: Axes) -> None:
    """Draw the shares of carriers, the commonest first."""
    rows = [row for row in result.details["carriers"] if row["share"] is not None]
    rows = sorted(rows, key=lambda row: -row["share"])[:25]
    bars(axes, [row["feature"] for row in rows], [100 * row["share"] for row in rows], "per cent who carry it")
