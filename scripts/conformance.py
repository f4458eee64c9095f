"""Run every method over sites of real patients, compare it with R's numbers, and write the page that says how close.

With --check nothing is written: the differences must be within what the page promises and every
method must have its row. Needs the real data beside the checkout.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tests.analysis.methods import test_consensus_clustering as clustered
from tests.analysis.methods import test_factor_analysis as factors
from tests.analysis.methods import test_penalised_cox as penalised
from tests.analysis.methods import test_target_trial as emulation
from tests.analysis.methods import test_validate_panel as validation
from tests.analysis.methods.test_differential_expression import bladder
from tests.analysis.methods.test_polygenic_score import weighted
from tests.analysis.methods.test_voom import counted
from tests.conftest import by_name, competing, genotypes, mutations, parkinsons, pbc, reference, split

from ihds.analysis.method import methods
from ihds.analysis.plan import Plan
from ihds.analysis.result import Result
from ihds.data.codebook import agree
from ihds.data.table import conform, draft_codebook, read_table
from ihds.privacy.disclosure import Thresholds

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/conformance/methods.md"
PICTURES = ROOT / "docs/methods/pictures"
SHARED = Path(os.environ.get("IHDS_SHARED", ROOT.parent / "shared"))
Pairs = Iterable[tuple[Any, Any]]
EXACT, OPTIMISED = 1e-8, 1e-5
OUT_OF_SITE = ("concordance", "slope")


def federated(method: str, parts: list[pd.DataFrame], person: str, params: dict[str, Any]) -> tuple[Result, int, int]:
    """Return the result, the rounds and the bytes each site sends, as they would travel."""
    tables = [read_table(p) for p in parts]
    codebook = agree({"all": draft_codebook("conformance", pd.concat(tables, ignore_index=True), person)})
    plan = Plan(method, params, codebook, Thresholds.none(), len(tables))
    works = [plan.work(conform(t, codebook, "a site")) for t in tables]
    state, sent = plan.begin(), 0
    while (result := plan.finish(state)) is None:
        answers = [work.local(state) for work in works]
        flat = [plan.flatten(state, a) for a in answers]
        sent += flat[0][1].nbytes
        words = np.sum([w for _, w in flat], axis=0, dtype=np.uint64)
        state = plan.aggregate(state, plan.total(state, type(answers[0]).__name__, flat[0][0], words))
    return result, state.rounds, sent


def coefficients(result: Result, r: dict[str, Any]) -> Pairs:
    """Compare estimates and standard errors, robust ones where there are."""
    yield [c.estimate for c in result.coefficients], r["coef"]
    yield [c.se if c.robust_se is None else c.robust_se for c in result.coefficients], r["se"]


def features(result: Result, names: list[str], prefix: str = "") -> pd.DataFrame:
    """Return the rows of some features of a scan."""
    return pd.DataFrame(result.details["features"]).set_index("feature").loc[[prefix + n for n in names]]


@dataclass(frozen=True)
class Case:
    """One comparison: R's function, sites and parameters, pairs of ours and R's, the promised relative difference."""

    judge: str
    parts: Callable[[], list[pd.DataFrame]]
    params: dict[str, Any]
    pairs: Callable[[Result], Pairs]
    promised: float = EXACT
    person: str = ""


def table(name: str) -> pd.DataFrame:
    """Return one of the tables of the survival package."""
    return read_table(SHARED / f"data/survival-reference/{name}.csv")


def lung() -> list[pd.DataFrame]:
    """Return the lung cancer patients at four sites."""
    return split(table("lung"), 4)


def trial() -> list[pd.DataFrame]:
    """Return the PBC trial at four sites, causes of the end included."""
    return split(competing(SHARED), 4)


def voices() -> list[pd.DataFrame]:
    """Return the recordings of Parkinson's patients at five sites."""
    frame = parkinsons(SHARED)
    frame["years"] = frame["test_time"] / 365.25
    return split(frame, 5, by="subject")


def visits() -> list[pd.DataFrame]:
    """Return the first four visits of the PBC patients at five sites."""
    frame = table("pbcseq").sort_values(["id", "day"])
    order = frame.groupby("id").cumcount() + 1
    frame["visit"], frame["years"] = "v" + order.astype(str), frame["day"] / 365.25
    frame["high"] = (frame["bili"] > 2).astype(float)
    return split(frame.reset_index(drop=True), 5, by="id")


def planned() -> list[pd.DataFrame]:
    """Return the first four visits only."""
    return [p[p["visit"].isin(["v1", "v2", "v3", "v4"])].reset_index(drop=True) for p in visits()]


def treated() -> list[pd.DataFrame]:
    """Return the randomised patients of the PBC trial with a number as outcome."""
    frame = pbc(SHARED).dropna(subset=["trt"]).reset_index(drop=True)
    frame["treated"] = (frame["trt"] == 1).astype(float)
    frame["number"] = np.log(frame["bili"]) + frame["protime"]
    return split(frame, 4)


def associations(result: Result) -> Pairs:
    """Compare a scan with R's linear models."""
    r = reference("genetics")
    found = features(result, [str(i) for i in r["id"]], "snp_")
    for mine, theirs in (("estimate", "beta"), ("se", "se"), ("p", "p")):
        yield found[mine], r["linear"][theirs]


def hardy(result: Result) -> Pairs:
    """Compare the exact test and frequencies."""
    r = reference("genetics")
    found = features(result, [str(i) for i in r["id"]], "snp_")
    yield found["hardy_weinberg_p"], r["freq_hwe"]["p"]
    yield found["frequency"], r["freq_hwe"]["a1_freq"]


def variants() -> list[pd.DataFrame]:
    """Return 500 persons and 1000 variants at three sites."""
    return split(genotypes(SHARED), 3)


def genes() -> list[pd.DataFrame]:
    """Return three bladder expression cohorts."""
    return bladder(SHARED)


def made(data: dict[str, Any], sites: int = 3) -> list[pd.DataFrame]:
    """Return stored rows at some sites."""
    return split(pd.DataFrame(data), sites)


def per_group(name: str) -> Callable[[Result], Pairs]:
    """Compare curves with R's cuminc at fixed times."""
    r = reference("competing")["cuminc"]["gridded"]

    def pairs(result: Result) -> Pairs:
        for curve in result.curves:
            sex, cause = curve.group.split(": ")
            expected = r[name][sex[-1]]["1" if cause == "transplant" else "2"]
            at = np.searchsorted(curve.time, np.array(r["times"]), side="right") - 1
            yield np.append(0.0, curve.estimate)[at + 1], expected["est"]
            yield np.append(0.0, curve.se)[at + 1] ** 2, expected["var"]
        yield [by_name(result)[f"Gray: {cause}"].statistic for cause in ("transplant", "death")], r["gray"]["stat"]

    return pairs


def two_arms(name: str) -> Callable[[Result], Pairs]:
    """Compare a hazard ratio, both curves at R's times, and restricted means."""
    r = reference("weighted")[name]

    def pairs(result: Result) -> Pairs:
        (row,) = result.coefficients
        yield (row.estimate, row.robust_se), (r["cox"]["coef"], r["cox"]["robust_se"])
        for k, curve in enumerate(result.curves):
            at = np.searchsorted(curve.time, np.array(r["time"][k]) - 1e-9)
            yield np.array(curve.estimate)[at], r["surv"][k]
            yield np.array(curve.se)[at], r["se"][k]
            yield (curve.rmst, curve.rmst_se), (r["rmst"][k], r["rmst_se"][k])

    return pairs


def cases() -> dict[str, Case]:
    """Return the comparison of every method."""
    reg, comp, mixed, omics = (reference(n) for n in ("regression", "competing", "mixed", "omics"))
    tests, ranks, survival, glm = (reference(n) for n in ("tests", "ranks", "survival", "glm"))
    described, causal, scans = reference("describe"), reference("causal"), reference("scans")
    cox = "Surv(time, status == 2) ~ age + albumin + log(bili)"
    pbc_efron, lmm, mmrm = survival["pbc_efron_30"], mixed["slope"]["reml"], mixed["mmrm"]["reml"]
    together, subtyped = reference("co_occurrence"), reference("consensus_clustering")["cohorts"]
    net = reference("penalised_cox")["monthly"][0]
    held = reference("validate_panel")
    lasso, weibull, gee = reg["elastic_net"]["binomial"], reg["parametric"]["weibull"], reg["gee"]["exchangeable"]
    columns = ["age", "albumin", "bili", "chol", "copper", "`alk.phos`", "ast", "trig", "platelet", "protime"]

    def complete() -> list[pd.DataFrame]:
        frame = pbc(SHARED).dropna(subset=[c.strip("`") for c in columns]).reset_index(drop=True)
        cuts = [0, len(frame) // 15 * 5, len(frame) // 15 * 10, len(frame)]
        return [frame.iloc[a:b].reset_index(drop=True) for a, b in pairwise(cuts)]

    def limma(result: Result) -> Pairs:
        found = features(result, omics["bladder"]["genes"], "g_")
        for mine, theirs in (("estimate", "logfc"), ("t", "t"), ("log_odds", "b")):
            yield found[mine], omics["bladder"]["limma"][theirs]

    def weighed(result: Result) -> Pairs:
        found = features(result, omics["rnaseq"]["genes"], "n_")
        for mine, theirs in (("estimate", "logfc"), ("t", "t")):
            yield found[mine], omics["rnaseq"]["voom"][theirs]

    def ratios(result: Result) -> Pairs:
        found, r = features(result, omics["rnaseq"]["genes"], "n_"), omics["rnaseq"]["nb"]["glm"]
        yield found["estimate"], np.array(r["coef"])[:, 3] / np.log(2)
        yield found["likelihood_ratio"], r["lr"]

    def components(result: Result) -> Pairs:
        yield result.details["sd"], omics["bladder"]["pca"]["sdev"]

    def subtypes(result: Result) -> Pairs:
        for mine, theirs in zip(result.details["clusterings"], subtyped["found"], strict=True):
            for one, other in (("persons", "size"), ("within", "withinss"), ("cdf", "cdf"), ("consensus", "consensus")):
                yield mine[one], theirs[other]
            yield [mine["area"], mine["pac"], mine["agreement"]], [theirs[n] for n in ("area", "pac", "agreement")]

    def between(result: Result) -> Pairs:
        found, r = features(result, omics["bladder"]["genes"], "g_"), omics["bladder"]["harmonised"]
        yield found["between_before"], r["before"]
        yield found["between_after"], r["combat"]["share"]

    def hidden(result: Result) -> Pairs:
        r = reference("factors")["pbc"]
        mine = factors.loadings(result, r["names"])
        yield mine @ mine.T, r["implied"]
        yield factors.uniqueness(result, r["names"]), r["uniqueness"]
        yield result.log_likelihood and result.log_likelihood["fitted"], r["loglik"]

    def scanned(result: Result) -> Pairs:
        yield features(result, scans["genes"], "gene_")["chi_square"], scans["efron"]["chi"]

    def expected(result: Result) -> Pairs:
        r = survival["lr_lung_30"]
        yield result.tests[0].statistic, r["chisq"][0]
        yield [d["expected"] for d in result.tests[0].details], r["exp"]

    def curve(result: Result) -> Pairs:
        r = survival["km_lung_30"]
        yield [c.rmst for c in result.curves], r["rmst"]
        yield [c.rmst_se for c in result.curves], r["rmst_se"]

    def zph(result: Result) -> Pairs:
        yield [t.statistic for t in result.tests], comp["zph"]["gridded"]["efron"]["km"]["chisq"]

    def quantiles(result: Result) -> Pairs:
        for row in result.details["quantiles"]:
            yield row["values"], ranks["quantiles"][row["variable"]]

    def two_by_two(result: Result) -> Pairs:
        yield by_name(result)["chi-squared"].statistic, tests["two"]["plain"]["statistic"]

    def correlated(result: Result) -> Pairs:
        yield result.details["correlation"], tests["correlation"]["r"]

    def first_table(result: Result) -> Pairs:
        rows = {row["variable"]: row for row in result.details["rows"]}
        yield rows["age"]["mean"], ranks["table_one"]["age"]["mean"]
        yield rows["age"]["sd"], ranks["table_one"]["age"]["sd"]
        yield rows["stage"]["p"], ranks["table_one"]["stage"]["p"]

    def moments(result: Result) -> Pairs:
        for row in result.table:
            if row["kind"] == "number":
                yield (row["mean"], row["sd"]), [described["numbers"][row["variable"]][k] for k in ("mean", "sd")]

    def effects(result: Result) -> Pairs:
        yield [c.estimate for c in result.coefficients], [causal["number"]["iptw"], causal["number"]["aipw"]]
        yield [c.se for c in result.coefficients], [causal["number"]["iptw_se"], causal["number"]["aipw_se"]]

    def joined(result: Result) -> Pairs:
        for c, name in zip(result.coefficients, ("fixed", "dl", "knha"), strict=True):
            yield (c.estimate, c.se), causal["meta_gaussian"][name]

    def stages(result: Result) -> Pairs:
        r = reg["multinomial"]
        yield [c.estimate for c in result.coefficients], [v for level in "234" for v in r["coef"][level]]

    def cumulative(result: Result) -> Pairs:
        r = reg["ordinal"]["logit"]
        yield [c.estimate for c in result.coefficients], [*r["thresholds"], *r["coef"]]
        yield [c.se for c in result.coefficients], [*r["threshold_se"], *r["se"]]

    def failure(result: Result) -> Pairs:
        yield [c.estimate for c in result.coefficients], [*weibull["coef"], weibull["log_scale"]]
        yield [c.se for c in result.coefficients], [*weibull["se"], weibull["se_log_scale"]]

    def slopes(result: Result) -> Pairs:
        yield from coefficients(result, lmm)
        yield [e["sd"] for e in result.details["random"]], list(lmm["sd"].values())
        yield result.details["degrees_of_freedom"], lmm["df"]

    numbers = {"features": "gene_*", "formula": "Surv(time, status == 2) ~ age"}
    renamed = {g: f"gene_{g}" for g in scans["genes"]}
    return {
        "anova": Case(
            "stats::oneway.test",
            trial,
            {"formula": "albumin ~ stage"},
            lambda r: [(by_name(r)["one-way analysis of variance"].statistic, tests["stage"]["equal"]["f"])],
        ),
        "association_scan": Case(
            "stats::lm, plink2", variants, {"formula": "Y1 ~ V1 + V2 + V3", "features": "snp_*"}, associations
        ),
        "causal_effect": Case(
            "stats::glm, written out",
            treated,
            {"formula": "treated ~ age + albumin + log(bili)", "outcome": "number"},
            effects,
        ),
        "co_occurrence": Case(
            "stats::fisher.test",
            lambda: mutations(SHARED, together["genes"]),
            {"features": "mut_*"},
            lambda r: [([row["p"] for row in r.details["pairs"]], sorted(pair["p"] for pair in together["pairs"]))],
        ),
        "consensus_clustering": Case(
            "stats::kmeans, consensus written out",
            lambda: clustered.sites_of(SHARED, "cohorts"),
            {**clustered.SAME, **clustered.ASKED["cohorts"]},
            subtypes,
        ),
        "contingency": Case("stats::chisq.test", trial, {"formula": "~ sex + spiders"}, two_by_two),
        "correlation": Case("stats::cor", lung, {"formula": "~ age + `meal.cal` + `wt.loss` + `ph.karno`"}, correlated),
        "count_expression": Case(
            "edgeR::glmLRT, stats::glm",
            lambda: counted(SHARED),
            {"formula": "~ site + group", "features": "n_*", "term": "group", "dispersion": 0.1},
            ratios,
            OPTIMISED,
        ),
        "cox": Case(
            "survival::coxph",
            lambda: split(table("pbc"), 4),
            {
                "formula": "Surv(time, status == 2) ~ age + edema + log(bili) + log(albumin) + log(protime)",
                "time_bin": 30.0,
            },
            lambda r: coefficients(r, pbc_efron),
        ),
        "cox_check": Case("survival::cox.zph", trial, {"formula": cox, "time_bin": 30.0}, zph, 1e-7),
        "cox_scan": Case(
            "survival::coxph, score test", lambda: split(pbc(SHARED).rename(columns=renamed), 4), numbers, scanned
        ),
        "cumulative_incidence": Case(
            "cmprsk::cuminc", trial, {"formula": "Surv(time, cause) ~ sex", "time_bin": 30.0}, per_group("by_sex")
        ),
        "describe": Case("base::mean, stats::sd", trial, {"variables": tuple(described["numbers"])}, moments),
        "differential_expression": Case(
            "limma::eBayes", genes, {"formula": "~ cohort + invasive", "features": "g_*"}, limma
        ),
        "elastic_net": Case(
            "glmnet::cv.glmnet",
            complete,
            {
                "formula": "I(status == 2) ~ " + " + ".join(columns),
                "family": "binomial",
                "lambdas": tuple(map(float, lasso["fits"][0]["lambda"])),
            },
            lambda r: [
                (r.details["path"], lasso["fits"][0]["coef"]),
                (r.details["loss_mean"], lasso["fits"][0]["cvm"]),
            ],
            OPTIMISED,
        ),
        "factor_analysis": Case(
            "an EM written out", lambda: factors.liver(SHARED), dict(factors.LIVER), hidden, OPTIMISED
        ),
        "fine_gray": Case(
            "cmprsk::crr",
            trial,
            {"formula": "Surv(time, cause) ~ age + albumin + log(bili)", "cause": "death", "time_bin": 30.0},
            lambda r: coefficients(r, comp["fine_gray"]["gridded"]["crr"]),
            1e-7,
        ),
        "firth": Case(
            "modified score, written out",
            trial,
            {"formula": "I(status == 2) ~ age + albumin + sex"},
            lambda r: coefficients(r, reg["firth"]["pbc"]),
            OPTIMISED,
        ),
        "gee": Case(
            "geepack::geeglm",
            voices,
            {"formula": "motor_UPDRS ~ test_time + age + sex + cluster(subject)"},
            lambda r: coefficients(r, gee),
            OPTIMISED,
            "subject",
        ),
        "genotype_qc": Case("plink2 --hardy", variants, {"features": "snp_*"}, hardy),
        "glm": Case(
            "stats::glm",
            trial,
            {"formula": "I(status == 2) ~ age + sex + log(bili)", "family": "binomial"},
            lambda r: coefficients(r, glm["binomial"]),
        ),
        "glm_imputed": Case(
            "stats::lm, rows without gaps",
            trial,
            {"formula": "albumin ~ age + log(bili)", "imputations": 2},
            lambda r: coefficients(r, reg["robust"]["lm"]),
        ),
        "glmm": Case(
            "lme4::glmer",
            visits,
            {"formula": "high ~ years + sex + (1 | id)"},
            lambda r: coefficients(r, mixed["glmm"]["binomial"]),
            OPTIMISED,
            "id",
        ),
        "harmonise": Case("sva::ComBat", genes, {"features": "g_*", "keep": "~ invasive"}, between, 1e-7),
        "histogram": Case(
            "graphics::hist",
            trial,
            {"formula": "~ age", "breaks": (20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0)},
            lambda r: [(r.details["histograms"][0]["counts"], ranks["histogram"])],
        ),
        "kaplan_meier": Case(
            "survival::survfit",
            lambda: split(table("lung"), 3),
            {"formula": "Surv(time, status) ~ sex", "time_bin": 30.0},
            curve,
        ),
        "lmm": Case(
            "lme4::lmer, lmerTest",
            voices,
            {"formula": "motor_UPDRS ~ years + age + sex + (years | subject)"},
            slopes,
            OPTIMISED,
            "subject",
        ),
        "logrank": Case(
            "survival::survdiff", lung, {"formula": "Surv(time, status) ~ sex", "time_bin": 30.0}, expected
        ),
        "meta_analysis": Case(
            "metafor::rma", lambda: split(pbc(SHARED), 8), {"formula": "protime ~ log(bili) + age"}, joined, 1e-7
        ),
        "mmrm": Case(
            "nlme::gls",
            planned,
            {"formula": "log(bili) ~ visit * sex + age + cluster(id)", "visit": "visit"},
            lambda r: [(r.details["visit_covariance"], mmrm["sigma"])],
            OPTIMISED,
            "id",
        ),
        "multinomial": Case("nnet::multinom", trial, {"formula": "stage ~ age + log(bili)"}, stages, 1e-7),
        "negative_binomial": Case(
            "MASS::glm.nb",
            lambda: made(reg["negative_binomial"]["data"]),
            {"formula": "y ~ rx + size + number"},
            lambda r: coefficients(r, reg["negative_binomial"]),
            OPTIMISED,
        ),
        "ordinal": Case("ordinal::clm", trial, {"formula": "stage ~ age + albumin + log(bili)"}, cumulative, 1e-7),
        "parametric_survival": Case(
            "survival::survreg", lung, {"formula": "Surv(time, status == 2) ~ age + sex + `ph.ecog`"}, failure, 1e-7
        ),
        "penalised_cox": Case(
            "glmnet::cv.glmnet",
            lambda: penalised.complete(SHARED),
            {"formula": penalised.FORMULA, "time_bin": 30.0, "lambdas": tuple(net["lambda"])},
            lambda r: [(r.details["path"], net["coef"]), (r.details["loss_mean"], net["cvm"])],
            OPTIMISED,
        ),
        "piecewise": Case(
            "stats::glm, person-period",
            lung,
            {"formula": "Surv(time, status == 2) ~ age + sex", "cuts": (90.0, 180.0, 365.0, 730.0)},
            lambda r: coefficients(r, reg["piecewise"]),
            1e-7,
        ),
        "polygenic_score": Case(
            "plink2 --score, stats::lm",
            variants,
            {"formula": "Y1 ~ V1 + V2 + V3", **weighted()},
            lambda r: coefficients(r, reference("polygenic")["linear"]),
        ),
        "principal_components": Case("stats::prcomp", genes, {"features": "g_*"}, components),
        "quantiles": Case("stats::quantile", trial, {"formula": "~ bili + platelet", "resolution": 0.1}, quantiles),
        "rank_test": Case(
            "stats::wilcox.test",
            trial,
            {"formula": "bili ~ sex", "step": 0.1},
            lambda r: [(r.tests[0].p, ranks["wilcoxon"]["p"])],
        ),
        "survival_effect": Case(
            "stats::glm, survival::coxph, survfit",
            treated,
            {
                "formula": "treated ~ age + albumin + log(bili)",
                "outcome": "Surv(time, status == 2)",
                "time_bin": 30.0,
                "ties": "breslow",
                "tau": 3000.0,
            },
            two_arms("effect_grid"),
        ),
        "table_one": Case(
            "stats::oneway.test, chisq.test", trial, {"formula": "~ age + stage", "by": "sex"}, first_table
        ),
        "target_trial": Case(
            "stats::glm, survival::coxph, survfit",
            lambda: split(emulation.simulated(), 4),
            {**emulation.CASES["clones_grid"], "formula": "Surv(time, event) ~ x + sex", "treated_at": "treated_at"},
            two_arms("clones_grid"),
        ),
        "validate_panel": Case(
            "survival::coxph, concordance",
            lambda: validation.complete(SHARED),
            {
                "formula": f"{validation.LEFT['cox']} ~ {validation.RIGHT}",
                "alpha": 0.0,
                "lambdas": tuple(held["lambda"]),
            },
            lambda r: [
                (r.details["loss_mean"], held["cox"]["step"]["loss_mean"]),
                ([next(iter(t.details[0].values())) for t in r.tests], [held["cox"]["step"][n] for n in OUT_OF_SITE]),
            ],
            1e-7,
        ),
        "voom": Case(
            "limma::voom, edgeR",
            lambda: counted(SHARED),
            {"formula": "~ site + group", "features": "n_*", "term": "group"},
            weighed,
        ),
    }


def difference(pairs: Pairs) -> float:
    """Return the largest difference relative to R's number, or to the largest where a number is near zero."""
    worst = 0.0
    for mine, theirs in pairs:
        ours, judge = np.asarray(mine, dtype=float), np.asarray(theirs, dtype=float)
        scale = np.maximum(np.abs(judge), 1e-6 * np.abs(judge).max())
        worst = max(worst, float(np.max(np.abs(ours - judge) / np.where(scale > 0, scale, 1.0))))
    return worst


def measured(*, pictures: bool) -> list[tuple[str, Case, int, int, float, int, int, float]]:
    """Return, per method: sites, persons' rows, difference, rounds, bytes per site, seconds; draw the results."""
    found = []
    for name, case in sorted(cases().items()):
        parts = case.parts()
        begin = time.perf_counter()
        result, rounds, sent = federated(name, parts, case.person, case.params)
        seconds = time.perf_counter() - begin
        if pictures:
            result.plot().savefig(PICTURES / f"{name}.png", dpi=72, metadata={"Software": None})
        found.append((name, case, len(parts), result.n, difference(case.pairs(result)), rounds, sent, seconds))
    return found


def main() -> int:
    """Write or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    found = measured(pictures=not check)
    absent = sorted(set(methods()) - {row[0] for row in found})
    apart = [
        f"{name}: {worst:.1e} > {case.promised:.0e}"
        for name, case, _, _, worst, *_ in found
        if not worst <= case.promised
    ]
    if absent or apart:
        sys.stderr.write("\n".join([*(f"{name} is compared with nothing" for name in absent), *apart]) + "\n")
        return 1
    if check:
        shown = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        lost = [row[0] for row in found if f"| [{row[0]}](" not in shown]
        if lost:
            sys.stderr.write(f"no row for {', '.join(lost)}: run `make conformance`\n")
        return 1 if lost else 0
    lines = [
        "<!-- made by scripts/conformance.py; run `make conformance` -->",
        "",
        "# Every method against R",
        "",
        "Each method was run over sites of real patients, sums in fixed point as they travel, and compared with R on",
        "the pooled rows. The difference is the largest over all numbers compared, relative to R's; `make conformance`",
        "fails if one exceeds what is promised. Bytes are what one site sends in all rounds; seconds are of one",
        "machine, all sites in one process, reading the tables included.",
        "",
        "| method | judge | sites | rows | largest difference | promised | rounds | bytes per site | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, case, sites, n, worst, rounds, sent, seconds in found:
        lines.append(
            f"| [{name}](../methods/{name}.md) | {case.judge} | {sites} | {n} | {worst:.0e} | {case.promised:.0e} "
            f"| {rounds} | {sent} | {seconds:.2f} |"
        )
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
