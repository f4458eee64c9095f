"""A study's mathematics from first round to result: the agreement, then the method.

``Plan`` has the four functions of a method, but works on a table and a codebook; it is all that
the coordinator and the gate know of statistics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ihds.analysis import agree, design
from ihds.analysis.agree import Agreement, AgreeState
from ihds.analysis.features import placed
from ihds.analysis.method import Contribution, Layout, flatten, leaves, make_params, method, unflatten
from ihds.analysis.noisy import Noise, PublicAgreement, Wanted, explained, noise_of, twin
from ihds.analysis.release import released
from ihds.analysis.result import Result
from ihds.analysis.rows import Rows, build, divided
from ihds.canonical import pack, unpack
from ihds.data.codebook import Codebook
from ihds.data.wide import Table
from ihds.errors import BadInput, BadMessage, DidNotConverge
from ihds.privacy.disclosure import Thresholds

#: No study may ask a site more often than this, whatever its method says.
MAX_ROUNDS = 400


@dataclass(frozen=True, slots=True)
class PlanState:
    """The public state of a study between two rounds; ``inner`` is the packed method state."""

    agreement: AgreeState
    inner: np.ndarray[Any, np.dtype[np.uint8]]
    rounds: int


def _as_array(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(data, dtype=np.uint8)


@dataclass(frozen=True)
class Plan:
    """One method with its parameters, on one codebook, under thresholds, at ``sites`` sites.

    With the parameter ``privacy`` its sums are released with noise, and ``chosen`` is the method's private twin.
    """

    name: str
    values: dict[str, Any]
    codebook: Codebook
    thresholds: Thresholds
    sites: int
    chosen: Any = field(init=False)
    params: Any = field(init=False)
    agreement: Agreement = field(init=False)
    wanted: Wanted | None = field(init=False)

    def __post_init__(self) -> None:
        values = dict(self.values)
        asked = values.pop("privacy", None)
        wanted = None if asked is None else Wanted.of(asked, self.sites)
        chosen = method(self.name) if wanted is None else twin(self.name)
        if "strata" in values and "formula" in values:  # strata="site" is short for + strata(site)
            values["formula"] = f"{values['formula']} + strata({values.pop('strata')})"
        complete_for = _named(values.pop("complete_for", ()), self.codebook)
        params = make_params(chosen, values)
        ask = replace(chosen.ask(params, self.codebook), complete_for=complete_for)
        object.__setattr__(self, "chosen", chosen)
        object.__setattr__(self, "params", params)
        object.__setattr__(self, "wanted", wanted)
        parts = (ask, self.codebook, self.thresholds)
        object.__setattr__(self, "agreement", PublicAgreement(*parts, wanted) if wanted else Agreement(*parts))

    def __reduce__(self) -> tuple[Any, ...]:  # a method is a module, which is not pickled
        return Plan, (self.name, self.values, self.codebook, self.thresholds, self.sites)

    @property
    def variables(self) -> frozenset[str]:
        """The variables the study uses."""
        return self.agreement.ask.variables

    @property
    def together(self) -> str | None:
        """The column, "" for none, whose values stay together where a site's sums are those over parts of its rows.

        None where they are not: a model of the site's own, computed clusters, or such as cut through persons.
        """
        ask, person = self.agreement.ask, self.codebook.person
        clusters = ask.formula.label(ask.formula.cluster)
        if not ask.divisible or (clusters and clusters not in self.codebook.variables):
            return None
        return (clusters or person) if person in ("", clusters) or not clusters else None

    def begin(self) -> PlanState:
        """Return the first state; sees no data."""
        agreed = self.agreement.begin()
        inner = pack(self.chosen.begin(self.params, agreed.frame)) if agreed.phase == "done" else b""
        return PlanState(agreed, _as_array(inner), 0)

    def noise(self, state: PlanState) -> Noise | None:
        """Return the noise of the round that a state asks for, or None where sums are exact."""
        if self.wanted is None:
            return None
        moved = self.chosen.moved(self.params, self.agreement.ask, state.agreement.frame)
        (kind,) = self.chosen.CONTRIBUTIONS
        rho = self.wanted.promise.rho * self.chosen.rounds(self.params)[state.rounds]
        return noise_of(kind, moved, self.wanted, self.sites, rho)

    def least(self) -> float:
        """Return how many persons a noisy study needs before its answer is more than noise; 0 of an exact one."""
        noise = self.noise(begun := self.begin())
        last = None if noise is None else self.noise(replace(begun, rounds=len(self.chosen.rounds(self.params)) - 1))
        return 0.0 if last is None else float(self.chosen.least(self.params, begun.agreement.frame, last.sd))

    def work(self, table: pd.DataFrame | Table) -> SiteWork:
        """Return the computation of one site."""
        return SiteWork(self, Table.of(table, self.agreement.ask.features))

    def capacity(self, state: PlanState) -> int:
        """Return the public number of rows that sets the fixed-point scale."""
        return state.agreement.frame.rows

    def flatten(self, state: PlanState, value: Contribution) -> tuple[Layout, Any]:
        """Return layout and words of a contribution."""
        return flatten(value, self.capacity(state), self.sites)

    def total(self, state: PlanState, kind: str, layout: Layout, words: Any) -> Contribution:
        """Return the total a sum of words stands for."""
        known = {c.__name__: c for c in (*agree.CONTRIBUTIONS, *self.chosen.CONTRIBUTIONS)}
        if kind not in known:
            raise BadMessage(f"a site answered with {kind!r}, which {self.name} does not know")
        return unflatten(known[kind], layout, words, self.capacity(state), self.sites)

    def inner(self, state: PlanState) -> Any:
        """Return the method's own state."""
        return unpack(self.chosen.STATE, state.inner.tobytes())

    def aggregate(self, state: PlanState, total: Contribution) -> PlanState:
        """Take a total and return the next state.

        Raises:
            DidNotConverge: the rounds are used up.

        """
        if state.rounds >= MAX_ROUNDS:
            raise DidNotConverge(f"{self.name} used {MAX_ROUNDS} rounds", remedy="simplify the model")
        if state.agreement.phase != "done":
            agreed = self.agreement.aggregate(state.agreement, total)
            inner = b""
            if agreed.phase == "done":
                inner = pack(self.chosen.begin(self.params, agreed.frame))
            return PlanState(agreed, _as_array(inner), state.rounds + 1)
        after = self.chosen.aggregate(self.params, self.inner(state), total)
        return PlanState(state.agreement, _as_array(pack(after)), state.rounds + 1)

    def finish(self, state: PlanState) -> Result | None:
        """Return the result, or None to ask for another round.

        Raises:
            Refused: it breaks a rule against disclosure.

        """
        if state.agreement.phase != "done":
            return None
        frame, inner = state.agreement.frame, self.inner(state)
        if self.wanted is None:
            result = self.chosen.finish(self.params, frame, inner)
            if result is None:
                return None
            own = getattr(self.chosen, "RELEASES", None)
            return released(placed(result, self.codebook), self.thresholds, self.codebook, self.values, own)
        if state.rounds < len(self.chosen.rounds(self.params)):
            return None
        noise = self.noise(replace(state, rounds=state.rounds - 1))
        assert noise is not None
        found: Result = self.chosen.finish(self.params, frame, inner, noise.sd)
        return explained(placed(found, self.codebook), self.wanted, noise, self.sites, self.codebook)


def _named(given: Any, codebook: Codebook) -> tuple[str, ...]:
    """Return the variables a row must have besides those of its method: so studies cover the same persons.

    Raises:
        UnknownVariable, BadInput: one is not in the codebook, or they are no names.

    """
    names = given.split(",") if isinstance(given, str) else given
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise BadInput(f"complete_for is {given!r}", remedy="give names of variables, with commas")
    return tuple(sorted({codebook.variable(name.strip()).name for name in names if name.strip()}))


@dataclass
class SiteWork:
    """One site's side of a plan; keeps rows and design between rounds while what was agreed stays."""

    plan: Plan
    table: Table
    _rows: tuple[object, Rows] | None = None
    _design: tuple[bytes, list[design.Design]] | None = None
    _frame: design.Frame | None = None
    _twin: SiteWork | None = None
    _persons: int = 0

    def with_twin(self) -> SiteWork:
        """Return the work with a twin that holds no row: what leaves must have the twin's shape."""
        self._twin = SiteWork(self.plan, self.table.empty())
        return self

    def local(self, state: PlanState) -> Contribution:
        """Return this site's contribution to the round that ``state`` asks for."""
        if state.agreement.phase == "done":
            pieces, inner = self._placed(state.agreement), self.plan.inner(state)
            contribution = joined([self.plan.chosen.local(self.plan.params, inner, piece) for piece in pieces])
        else:
            contribution = self.plan.agreement.local(state.agreement, self._read(state.agreement))
        if self._twin is not None:
            must_have_shape(contribution, self._twin.local(state))
        return contribution

    def persons(self) -> int:
        """Return how many persons the present rows hold."""
        return self._persons

    def _read(self, agreed: AgreeState) -> Rows:
        if self._rows is None or self._rows[0] != agreed.levels:
            self._rows = (agreed.levels, self.plan.agreement.rows(agreed, self.table))
            self._persons = self._rows[1].persons
        return self._rows[1]

    def _placed(self, agreed: AgreeState) -> list[design.Design]:
        if self._design is not None and self._frame is agreed.frame:
            return self._design[1]
        key = pack(agreed.frame)
        if self._design is None or self._design[0] != key:
            if agreed.frame.columns != design.column_names(self.plan.agreement.ask, agreed.frame.levels):
                raise BadMessage("the agreed columns are not those of the formula")
            whole = build(self.plan.agreement.ask, agreed.frame, self._read(agreed))
            apart = self.plan.together is not None and not self.plan.agreement.ask.features
            self._design = (key, divided(whole) if apart else [whole])
            self._rows = None  # their matrix went into the design
        self._frame = agreed.frame
        return self._design[1]


def must_have_shape(contribution: Contribution, twin: Contribution) -> None:
    """Compare a contribution with that of no rows.

    Raises:
        BadMessage: its shape tells something of the rows.

    """
    if _shape(contribution) != _shape(twin):
        raise BadMessage("this round's answer would have a length that depends on the rows")


def joined(parts: list[Contribution]) -> Contribution:
    """Return a site's contribution from those of parts of its rows; what counts the site itself counts once."""
    if len(parts) == 1:
        return parts[0]
    kind = type(parts[0])
    values: dict[str, Any] = {}
    for name, declared in leaves(kind).items():
        held = [np.asarray(getattr(part, name)) for part in parts]
        whole = np.sum(held, axis=0) if declared.per == "row" else np.max(held, axis=0)
        values[name] = float(whole) if whole.shape == () else whole
    return kind(**values)


def _shape(value: Contribution) -> tuple[str, Layout]:
    shapes = ((f.name, np.shape(getattr(value, f.name))) for f in dataclasses.fields(value))
    return type(value).__name__, tuple(shapes)


def run(plan: Plan, tables: Sequence[pd.DataFrame | Table]) -> Result:
    """Run a plan over tables in this process, plainly: the slow, obvious twin of every federation.

    Contributions pass through the same fixed-point words, unmasked.
    """
    state = plan.begin()
    works = [plan.work(table) for table in tables]
    while (result := plan.finish(state)) is None:
        parts = [work.local(state) for work in works]
        flat = [plan.flatten(state, part) for part in parts]
        words = np.sum([w for _, w in flat], axis=0, dtype=np.uint64)
        total = plan.total(state, type(parts[0]).__name__, flat[0][0], words)
        state = plan.aggregate(state, total)
    return result.with_provenance(state.rounds, {})
