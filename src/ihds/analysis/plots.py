"""Pictures of results: curves, forest plots, means, tables, correlations, through matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import special

from ihds.analysis.design import INTERCEPT, Floats
from ihds.analysis.result import Result
from ihds.analysis.summary import is_effect, ratio_name
from ihds.errors import BadInput

# Colours of Okabe and Ito, told apart by people who see few colours.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


_SHADES = ("#0072B2", "#56B4E9")  # chromosomes in turns
#: Below this p value a variant is taken to be associated, there being about a million independent ones.
_GENOME_WIDE = 5e-8


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
        colour = _COLOURS[index % len(_COLOURS)]
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


def _path(result: Result, axes: Axes) -> None:
    """Draw each coefficient against the penalty, in units of its largest size; the chosen penalty dashed."""
    told = result.details
    skipped = int(result.coefficients[0].term == INTERCEPT)
    path = np.asarray(told["path"])[:, skipped:]
    for j, term in enumerate(c.term for c in result.coefficients[skipped:]):
        largest = np.abs(path[:, j]).max() or 1.0
        style = ("-", "--", ":", "-.")[j // len(_COLOURS) % 4]
        axes.plot(told["lambda"], path[:, j] / largest, style, color=_COLOURS[j % len(_COLOURS)], label=term)
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
            counts, found["edges"], color=_COLOURS[index % len(_COLOURS)], label=label, fill=index == 0, alpha=0.7
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


def _bars(axes: Axes, names: list[str], values: list[float], label: str) -> None:
    axes.barh(range(len(names)), values, color="#0072B2")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=label)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def _ranks(result: Result, axes: Axes) -> None:
    groups = result.details["groups"]
    _bars(axes, [f"{g['group']}\nn = {g['n']}" for g in groups], [g["mean_rank"] for g in groups], "mean rank")


def _present(result: Result, axes: Axes) -> None:
    rows = [r for r in result.table if r["n"] is not None]
    shares = [100 * r["n"] / max(r["n"] + r["missing"], 1) for r in rows]
    _bars(axes, [r["variable"] for r in rows], shares, "per cent of rows with a value")


def _expected(result: Result, axes: Axes) -> None:
    rows = [r for r in result.tests[0].details if r["observed"] is not None]  # small groups are hidden
    ratios = [r["observed"] / r["expected"] if r["expected"] else 0.0 for r in rows]
    _bars(axes, [r["group"] for r in rows], ratios, "events, observed / expected")
    axes.axvline(1.0, color="#888888", linestyle="--")


def _balance(result: Result, axes: Axes) -> None:
    """Draw how far two groups lie apart in each number; p values where there are more groups."""
    rows = [r for r in result.details["rows"] if r["kind"] == "number" and r["smd"] is not None]
    if rows:
        _bars(axes, [r["variable"] for r in rows], [abs(r["smd"]) for r in rows], "absolute standardised difference")
        axes.axvline(0.1, color="#888888", linestyle="--")
        return
    tested = [r for r in result.details["rows"] if r["p"] is not None]
    _bars(axes, [r["variable"] for r in tested], [-math.log10(max(r["p"], 1e-300)) for r in tested], "-log10 p")


def _strength(p: Sequence[float | None]) -> Floats:
    """Return -log10 of p values, NaN where there is none."""
    values = np.array([np.nan if v is None else v for v in p], dtype=np.float64)
    return np.asarray(-np.log10(np.maximum(values, 1e-300)))


def _volcano(result: Result, axes: Axes) -> None:
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


def _mean_difference(result: Result, axes: Axes) -> None:
    """Draw each gene's effect against its mean; those below 5 % false discovery coloured."""
    found = result.details["features"]
    effect = np.array([np.nan if v is None else v for v in found["estimate"]], dtype=np.float64)
    mean, kept = np.array(found["mean"]), np.array(found["adjusted_p"]) < 0.05
    axes.scatter(mean[~kept], effect[~kept], s=6, color="#999999", linewidths=0)
    axes.scatter(mean[kept], effect[kept], s=8, color="#D55E00", linewidths=0)
    axes.axhline(0.0, color="#888888", linewidth=1, linestyle="--")
    axes.set(xlabel="log2 of the mean counts per million", ylabel="log2 fold change")
    axes.spines[["top", "right"]].set_visible(False)


def _trend(result: Result, axes: Axes) -> None:
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


def _manhattan(result: Result, axes: Axes) -> None:
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


def _expected_p(result: Result, axes: Axes) -> None:
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


def _scree(result: Result, axes: Axes) -> None:
    shares = [100 * v for v in result.details["share"]]
    _bars(axes, [f"component {j + 1}" for j in range(len(shares))], shares, "per cent of variance")


def _shaded(axes: Axes, values: Floats, rows: list[str], columns: list[str], digits: int) -> None:
    """Draw a table as coloured squares, blue for what is below 0, each with its number."""
    most = float(np.abs(values).max(initial=0.0)) or 1.0
    axes.imshow(values, vmin=-most, vmax=most, cmap="RdBu_r", aspect="auto")
    for i, j in np.ndindex(values.shape):
        colour = "white" if abs(values[i, j]) > 0.6 * most else "black"
        axes.text(j, i, f"{values[i, j]:.{digits}f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)


def _layers(result: Result, axes: Axes) -> None:
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
    _shaded(axes, shares, [row["layer"] for row in told["explained"]], heads, 1)
    axes.set_title("per cent of variance explained", fontsize=9)
    below = figure.add_subplot(grid[1])
    labels = [f"{found['feature'][i]} ({found['layer'][i]})" for i in leading]
    _shaded(below, loadings[list(leading)], labels, heads, 2)
    below.set_title("leading loadings", fontsize=9)


def _call_rates(result: Result, axes: Axes) -> None:
    rates = [r for r in result.details["features"]["call_rate"] if r is not None]
    axes.hist(rates, bins=20, color="#0072B2")
    axes.set(xlabel="call rate", ylabel="variants")
    axes.spines[["top", "right"]].set_visible(False)


def _between_sites(result: Result, axes: Axes) -> None:
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


def _carriers(result: Result, axes: Axes) -> None:
    """Draw the shares of carriers, the commonest first."""
    rows = [row for row in result.details["carriers"] if row["share"] is not None]
    rows = sorted(rows, key=lambda row: -row["share"])[:25]
    _bars(axes, [row["feature"] for row in rows], [100 * row["share"] for row in rows], "per cent who carry it")


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
            color=_COLOURS[index % len(_COLOURS)],
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
    "association_scan": _manhattan,
    "causal_effect": _love,
    "co_occurrence": _carriers,
    "consensus_clustering": _consensus,
    "contingency": _shares,
    "correlation": _correlations,
    "count_expression": _volcano,
    "cox_scan": _volcano,
    "describe": _present,
    "differential_expression": _volcano,
    "elastic_net": _path,
    "factor_analysis": _layers,
    "genotype_qc": _call_rates,
    "harmonise": _between_sites,
    "histogram": _histograms,
    "logrank": _expected,
    "penalised_cox": _path,
    "polygenic_score": _tenths,
    "principal_components": _scree,
    "quantiles": _boxes,
    "rank_test": _ranks,
    "table_one": _balance,
    "validate_panel": _validated,
    "voom": _volcano,
}
#: What is drawn beside the picture of a method.
_BESIDE: dict[str, Callable[[Result, Axes], None]] = {
    "association_scan": _expected_p,
    "count_expression": _mean_difference,
    "voom": _trend,
}
