"""Quality of genotypes: call rate, allele frequency and Hardy–Weinberg equilibrium per variant.

Model      counts of 0, 1 and 2 copies of the counted allele; the exact test of Hardy–Weinberg proportions.
Down       nothing.
Up         GenotypeCounts, as sums over sites.
Rounds     1.
Reveals    frequencies of many variants identify members of small cohorts (Homer et al. 2008): with
           fewer than 500 persons neither frequency nor p value is shown, only whether a variant is far out
           of equilibrium; the same where fewer than min_cell persons carry the rarer allele.
Errors     BadInput, BadTable (values that are no allele counts).
Source     Wigginton, Cutler & Abecasis 2005. Checked against plink2 --hardy (tests/vectors/genetics.sh).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from scipy.special import gammaln

from ihds.analysis import features
from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadTable

_FEW_PERSONS = 500
#: Hardy–Weinberg p values below this are taken for errors of the laboratory.
_ODD = 1e-6


@dataclass(frozen=True, slots=True)
class Params:
    """``features`` is a pattern of names of allele counts, for example ``rs*``; dosages are rounded."""

    features: str


@dataclass(frozen=True, slots=True)
class GenotypeCounts(Contribution):
    """Persons with 0, 1 and 2 copies, without a genotype, and with a value that is none."""

    kind: ClassVar[str] = "count table"

    copies: Annotated[Matrix, Leaves("(features, 3)", "persons", bound=1, counts_persons=True)]
    missing: Annotated[Vector, Leaves("(features,)", "persons", bound=1)]
    other: Annotated[Vector, Leaves("(features,)", "persons", bound=1)]
    sites: Annotated[Vector, Leaves("(features,)", "sites with genotypes", bound=1, per="site")]


CONTRIBUTIONS = (GenotypeCounts,)


@dataclass(frozen=True, slots=True)
class State:
    """The opened counts, once there."""

    total: GenotypeCounts | None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the variants."""
    names = features.select(params.features, codebook, frozenset())
    formula = formulas.parse("~ 1", codebook.variables)
    return Ask(formula=formula, outcome="none", covariates="table", features=names)


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    return State(None)


def local(params: Params, state: State, design: Design) -> GenotypeCounts:
    """Count the genotypes: somebody with several rows counts by the first."""
    first = np.unique(design.person, return_index=True)[1]
    held = design.features.of(first)
    count = held.shape[1]
    if held.packed:
        copies, missing = held.counted[:, :3], held.counted[:, 3]
        return GenotypeCounts(copies, missing, np.zeros(count), (missing < len(first)).astype(np.float64))
    copies, missing, other = np.zeros((count, 3)), np.zeros(count), np.zeros(count)
    for part in held.parts():
        value = np.rint(held[:, part])
        missing[part] = np.isnan(value).sum(axis=0)
        for k in range(3):
            copies[part, k] = (value == k).sum(axis=0)
        other[part] = len(value) - missing[part] - copies[part].sum(axis=1)
    return GenotypeCounts(copies, missing, other, (missing < len(first)).astype(np.float64))


def aggregate(params: Params, state: State, total: GenotypeCounts) -> State:
    """Keep the totals.

    Raises:
        BadTable: values are no allele counts.

    """
    if total.other.any():
        raise BadTable(
            f"{int(np.count_nonzero(total.other))} features hold values other than 0, 1 and 2",
            remedy="name variants only, coded as copies of one allele",
        )
    return State(GenotypeCounts(np.rint(total.copies), np.rint(total.missing), total.other, np.rint(total.sites)))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return one row per variant, in the order of their names."""
    if state.total is None:
        return None
    copies = state.total.copies
    seen = copies.sum(axis=1)
    alleles = copies[:, 1] + 2 * copies[:, 2]
    carriers = np.minimum(copies[:, 1] + copies[:, 2], copies[:, 0] + copies[:, 1])  # of the rarer allele
    persons = int((seen + state.total.missing).max())
    shown = (carriers >= frame.min_cell) & (frame.min_cell <= 1 or persons >= _FEW_PERSONS)
    several = state.total.sites >= frame.min_sites
    shown &= several
    rare = np.any((copies > 0) & (copies < frame.min_cell), axis=1)  # with the frequency, p would give these back
    called = features.shown_counts(seen, persons, frame.min_cell)
    exact = [hardy_weinberg(*map(int, row)) for row in copies]  # with n known, p would give the counts back
    frequency = alleles / np.maximum(2 * seen, 1)
    return Result(
        method="genotype_qc",
        n=frame.rows,
        details={
            "features": {
                "feature": list(frame.features),
                "call_rate": [
                    float(v) if enough else None
                    for v, enough in zip(called / max(persons, 1), several & (seen >= frame.min_cell), strict=True)
                ],
                "frequency": [float(f) if s else None for f, s in zip(frequency, shown, strict=True)],
                "hardy_weinberg_p": [p if s else None for p, s in zip(exact, shown & ~rare, strict=True)],
                "out_of_equilibrium": [bool(p < _ODD) if s else None for p, s in zip(exact, several, strict=True)],
            },
        },
    )


def hardy_weinberg(none: int, one: int, two: int) -> float:
    """Return the exact p value of Hardy–Weinberg proportions given the alleles."""
    n, rare = none + one + two, one + 2 * min(none, two)
    if n == 0 or rare == 0:
        return 1.0
    heterozygous = np.arange(rare % 2, rare + 1, 2)
    few = (rare - heterozygous) // 2
    many = n - heterozygous - few
    log_p = heterozygous * np.log(2) - gammaln(heterozygous + 1) - gammaln(few + 1) - gammaln(many + 1)
    p = np.exp(log_p - log_p.max())
    here = p[heterozygous == one][0]
    found: Any = p[p <= here * (1 + 1e-9)].sum() / p.sum()
    return float(min(found, 1.0))
