"""Is a person in the cohort? What is told of many variants says so to whoever knows the person's genome."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ihds.analysis.methods.genotype_qc import GenotypeCounts
from ihds.attacks.attack import Attack, Outcome
from ihds.attacks.reading import unpacked
from ihds.attacks.world import Space, area, shared_out
from ihds.errors import NotAuthenticated


@dataclass(frozen=True)
class _Cohort:
    """Invented members, as many others, and what is publicly known of their population."""

    members: int
    variants: int

    def genomes(self) -> tuple[Any, Any, Any]:
        """Return the population's allele frequencies (variants,), and allele counts of members and of others."""
        rng = np.random.default_rng(41)
        frequency = rng.uniform(0.1, 0.9, self.variants)
        members, others = rng.binomial(2, frequency, (2, self.members, self.variants)).astype(float)
        return frequency, members, others

    @property
    def names(self) -> list[str]:
        return [f"rs{i:04d}" for i in range(self.variants)]

    def space(self, *, environment: bool = False) -> Space:
        """Return three sites that hold the members, each with a trait and an age."""
        rng = np.random.default_rng(42)
        held = pd.DataFrame(self.genomes()[1], columns=self.names)
        own = {"trait": rng.normal(0, 1, self.members), "age": rng.normal(60, 9, self.members).round(1)}
        return Space(shared_out(held.assign(**own), 3), environment=environment)

    def by_frequency(self, told: dict[str, float | None]) -> Outcome:
        """Tell members from others by Homer's distance, given the cohort's frequencies of some variants."""
        frequency, members, others = self.genomes()
        known = {self.names.index(name): value for name, value in told.items() if value is not None}
        which, seen = list(known), np.array(list(known.values()))

        def nearness(genomes: Any) -> Any:
            half = genomes[:, which] / 2
            return (np.abs(half - frequency[which]) - np.abs(half - seen)).sum(axis=1)

        figure = area(nearness(members), nearness(others)) if which else 0.5
        return Outcome(figure, f"{len(which)} of {self.variants} shown")

    def by_variance(self, told: dict[str, float]) -> Outcome:
        """Tell members from others by variances of variants: members add to those in which they are unusual."""
        frequency, members, others = self.genomes()
        which = [self.names.index(name) for name in told]
        at, variance = frequency[which], np.array(list(told.values()))
        expected = 2 * at * (1 - at)
        excess = variance * expected.sum() / variance.sum() - expected

        def nearness(genomes: Any) -> Any:
            own = (genomes[:, which] - 2 * at) ** 2 - expected
            return (own * excess / expected**2).sum(axis=1)

        return Outcome(area(nearness(members), nearness(others)), f"{len(which)} of {self.variants} shown")


def _published(cohort: _Cohort) -> Outcome:
    means = cohort.genomes()[1].mean(axis=0) / 2
    return cohort.by_frequency(dict(zip(cohort.names, map(float, means), strict=True)))


def _quality_report(cohort: _Cohort) -> Outcome:
    shown = cohort.space().run("genotype_qc", features="rs*").details["features"]
    return cohort.by_frequency(dict(zip(shown["feature"], shown["frequency"], strict=True)))


def _means(cohort: _Cohort) -> Outcome:
    space, half = cohort.space(), cohort.variants // 2
    parts = (cohort.names[:half], cohort.names[half:])  # all in one formula would be too long
    rows = [row for part in parts for row in space.run("describe", variables=part).table]
    return cohort.by_frequency({row["variable"]: row["mean"] and row["mean"] / 2 for row in rows})


def _standard_errors(cohort: _Cohort) -> Outcome:
    shown = cohort.space().run("association_scan", formula="trait ~ age", features="rs*").details["features"]
    statistic, error = np.array(shown["statistic"]), np.array(shown["se"])
    variance = 1 / ((1 + statistic**2 / (cohort.members - 3)) * error**2)  # up to the trait's own, the same for all
    return cohort.by_variance(dict(zip(shown["feature"], map(float, variance), strict=True)))


def _totals(cohort: _Cohort, *, environment: bool) -> Outcome:
    """Read frequencies in the total, oneself or in whatever the environment sends."""
    space = cohort.space(environment=environment)
    opened, received = list[Any](), list[Any]()
    with contextlib.suppress(NotAuthenticated):
        opened = [total for _, _, total in space.rounds(space.study("genotype_qc", features="rs*"))]
    if environment:
        received = space.received("genotype_qc", features="rs*")
        opened += unpacked(received, GenotypeCounts)
    for total in opened:
        if isinstance(total, GenotypeCounts):
            means = total.copies @ [0, 0.5, 1.0] / total.copies.sum(axis=1)
            return cohort.by_frequency(dict(zip(cohort.names, map(float, means), strict=True)))
    shown = received[-1]["result"]["details"]["features"]
    return cohort.by_frequency(dict(zip(shown["feature"], shown["frequency"], strict=True)))


def _noisy(cohort: _Cohort) -> Outcome:
    """Ask for the same frequencies with noise, of which so small a cohort tells nothing: no user would be let."""
    shown = cohort.space().run("genotype_qc", features="rs*", privacy=_PRIVACY).details["features"]
    return cohort.by_frequency(dict(zip(shown["feature"], shown["frequency"], strict=True)))


_PRIVACY = {"epsilon": 1, "delta": 1e-6}
_SMALL, _LARGE = _Cohort(60, 300), _Cohort(501, 800)
_READER, _USER = "a reader of the result", "the user, with software of their own"


def _attack(name: str, title: str, sees: str, protection: str, arm: Any, **more: Any) -> Attack:
    cohort = more.pop("cohort", _SMALL)
    values: dict[str, Any] = {
        "attacker": _READER,
        "limitation": "Known ways to learn a little",
        "without": "the cohort's allele frequencies, published",
        "unprotected": partial(_published, cohort),
        **more,
    }
    return Attack(
        name=name,
        title=title,
        sees=sees,
        measures=f"AUC of membership, {cohort.members} members, {cohort.variants} variants",
        succeeds_from=0.7,
        protection=protection,
        source="Homer et al. 2008",
        protected=partial(arm, cohort),
        **values,
    )


ATTACKS = (
    _attack(
        "membership",
        "Membership by allele frequencies",
        "what genotype_qc tells of each variant",
        "no frequency of fewer than 500 persons",
        _quality_report,
        limitation="",
    ),
    _attack(
        "membership_above_500",
        "Membership by allele frequencies of more than 500 persons",
        "what genotype_qc tells of each variant",
        "none: more variants than persons are shown",
        _quality_report,
        cohort=_LARGE,
    ),
    _attack(
        "membership_by_errors",
        "Membership by standard errors of a scan",
        "effects and standard errors that association_scan tells",
        "below 500 persons at most 1000 variants",
        _standard_errors,
    ),
    _attack(
        "membership_by_means",
        "Membership by means of variants",
        "the means that describe tells",
        "none: a variant is a number like any",
        _means,
    ),
    _attack(
        "membership_with_noise",
        "Membership by allele frequencies with noise, epsilon 1",
        "noisy counts of genotypes",
        "differential privacy: noise in shares",
        _noisy,
        limitation="",
    ),
    _attack(
        "membership_by_totals",
        "Membership by opened totals",
        "genotype counts of all sites together",
        "the environment opens totals, and tells no frequency of fewer than 500 persons",
        partial(_totals, environment=True),
        attacker=_USER,
        limitation="",
        without="the total of all sites, opened by the user's own node, where a permit names no environment",
        unprotected=partial(_totals, _SMALL, environment=False),
    ),
)
