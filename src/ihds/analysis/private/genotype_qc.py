"""Quality of genotypes with noise: call rate and allele frequency per variant, whatever the number of persons.

Model      counts of 0, 1 and 2 copies of the counted allele, and of none known.
Down       nothing.
Up         GenotypeCounts.
Rounds     1.
Reveals    these counts with noise, which grows with the root of the number of variants: a person is in a cell
           of each. The exact test of Hardy-Weinberg proportions is not made: noise would decide it.
Errors     BadInput.
Source     the error of a frequency is that of its noise. Checked by simulation (tests/analysis/test_private.py).
Status     experimental
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, ClassVar

import numpy as np

from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Matrix
from ihds.analysis.methods import genotype_qc
from ihds.analysis.noisy import Moved, bounded
from ihds.analysis.result import Result
from ihds.privacy.rules import NOISY

Params = genotype_qc.Params
ask = genotype_qc.ask
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class GenotypeCounts(Contribution):
    """Rows with 0, 1 and 2 copies, and with anything else."""

    kind: ClassVar[str] = NOISY

    copies: Annotated[Matrix, bounded("(features, 4)", "rows")]


CONTRIBUTIONS = (GenotypeCounts,)


@dataclass(frozen=True, slots=True)
class State:
    """The opened, noisy counts, once there."""

    total: GenotypeCounts | None


STATE = State


def rounds(params: Params) -> tuple[Fraction, ...]:
    """All of rho goes into the only round."""
    return (Fraction(1),)


def moved(params: Params, ask: Ask, frame: Frame) -> dict[str, Moved]:
    """Say that a row is in one of four cells of each variant."""
    return {"copies": Moved(4 * len(frame.features), Fraction(len(frame.features)))}


def least(params: Params, frame: Frame, noise: Mapping[str, float]) -> float:
    """Noise alone must leave a frequency within a twentieth."""
    return _Z * _of_frequency(noise["copies"]) / 0.05


def _of_frequency(sd: float) -> float:
    """Return the noise in half the number of alleles, one of heterozygotes and two of homozygotes: sqrt(5) / 2."""
    return float(sd * np.sqrt(5) / 2)


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    return State(None)


def local(params: Params, state: State, design: Design) -> GenotypeCounts:
    """Count the genotypes."""
    held = design.features
    if held.packed:
        return GenotypeCounts(np.asarray(held.counted, dtype=np.float64))
    copies = np.zeros((held.shape[1], 4))
    for part in held.parts():
        value = np.rint(held[:, part])
        for k in range(3):
            copies[part, k] = (value == k).sum(axis=0)
        copies[part, 3] = len(value) - copies[part, :3].sum(axis=1)
    return GenotypeCounts(copies)


def aggregate(params: Params, state: State, total: GenotypeCounts) -> State:
    """Keep the totals."""
    return State(total)


def finish(params: Params, frame: Frame, state: State, noise: Mapping[str, float]) -> Result | None:
    """Return one row per variant, with the error that the noise makes."""
    if state.total is None:
        return None
    copies = state.total.copies
    persons = float(copies.sum(axis=1).mean())  # the same for every variant, but for the noise
    seen = np.maximum(copies[:, :3].sum(axis=1), 1.0)
    frequency = (copies[:, 1] / 2 + copies[:, 2]) / seen
    table = {
        "feature": list(frame.features),
        "call_rate": [float(v) for v in np.clip(seen / max(persons, 1.0), 0.0, 1.0)],
        "frequency": [float(v) for v in frequency],
        "noise_se": [float(v) for v in _of_frequency(noise["copies"]) / seen],
    }
    return Result(method="genotype_qc", n=max(round(persons), 0), details={"features": table})
