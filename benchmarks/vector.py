"""A benchmark-only method: a vector of declared length, so that the wire and the masks are what is timed.

Model      none; every site sends ``size`` numbers, ``repeats`` times.
Down       the round's number.
Up         Numbers.
Rounds     repeats.
Reveals    nothing: the numbers are made up.
Errors     none.
Source     none.
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Vector
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.privacy.rules import PUBLIC


@dataclass(frozen=True, slots=True)
class Params:
    size: int
    repeats: int = 10


@dataclass(frozen=True, slots=True)
class Numbers(Contribution):
    values: Annotated[Vector, Leaves("(size,)", "1", bound=2.0**16)]


CONTRIBUTIONS = (Numbers,)
RELEASES = {"details.total": PUBLIC}


@dataclass(frozen=True, slots=True)
class State:
    done: int
    first: float


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    return Ask(formulas.parse("~ y", codebook.variables), outcome="none", covariates="table")


def begin(params: Params, frame: Frame) -> State:
    return State(0, 0.0)


def local(params: Params, state: State, design: Design) -> Numbers:
    return Numbers(np.full(params.size, 2.0))


def aggregate(params: Params, state: State, total: Any) -> State:
    assert np.all(total.values == total.values[0])
    return State(state.done + 1, float(total.values[0]))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    if state.done < params.repeats:
        return None
    return Result("vector", frame.rows, details={"total": state.first})
