"""What sites agree on before a method begins: levels, coding, centres, scales and the time grid.

It has the shape of a method and travels like one, so no site ever shows its own levels, means or
longest follow-up: only sums over sites are opened. Rounds: one for counts and magnitudes; when the
model has numbers one to three for moments and one for what their spreads rest on; and, where the
permit allows exact times, one or more for the set of distinct event times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ihds.analysis import design as designs
from ihds.analysis.design import Ask, Frame, Weighting
from ihds.analysis.features import MOST, outweighed, resting, weights
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import blocks
from ihds.analysis.rows import Rows, distinct, per_person, persons_with, read_rows
from ihds.analysis.timeset import TimeSet, bloom, peel
from ihds.data.codebook import Codebook
from ihds.data.wide import Table
from ihds.errors import BadFormula, BadInput, BadLevel, BadTable, ConstantColumn, NoEvents, OutOfRange, Refused
from ihds.privacy.disclosure import Thresholds, grid_reasons, model_reasons

_DOUBLINGS = 24  # bins 1, 2, 4 ... 2^23 of the time grid
_OWN_BINS_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Dictionary(Contribution):
    """Counts and magnitudes: who there is, before anything is modelled."""

    kind: ClassVar[str] = "count table"

    rows: Annotated[float, Leaves("()", "rows", bound=1, counts_persons=True)]
    left_out: Annotated[float, Leaves("()", "rows", bound=1)]
    undefined: Annotated[float, Leaves("()", "rows with an undefined term", bound=1)]
    late: Annotated[float, Leaves("()", "rows beyond the horizon", bound=1)]
    sites: Annotated[float, Leaves("()", "sites", bound=1, per="site")]
    level_persons: Annotated[Vector, Leaves("(levels,)", "persons", bound=1, counts_persons=True)]
    level_sites: Annotated[Vector, Leaves("(levels,)", "sites", bound=1, per="site")]
    cell_persons: Annotated[Vector, Leaves("(groups+strata,)", "persons", bound=1)]
    cell_sites: Annotated[Vector, Leaves("(groups+strata,)", "sites", bound=1, per="site")]
    cross_persons: Annotated[Vector, Leaves("(combinations,)", "persons", bound=1, counts_persons=True)]
    cross_sites: Annotated[Vector, Leaves("(combinations,)", "sites", bound=1, per="site")]
    codes: Annotated[Vector, Leaves("(4,)", "rows coded 0, 1, 2, other", bound=1)]
    code_persons: Annotated[Vector, Leaves("(3,)", "persons coded 0, 1, 2", bound=1, counts_persons=True)]
    nonzero: Annotated[Vector, Leaves("(p+1,)", "rows", bound=1)]
    magnitude: Annotated[Vector, Leaves("(p+1,)", "sum of log2 of the absolute value", bound=2**11)]
    beyond: Annotated[Vector, Leaves("(24,)", "rows beyond 2^j time bins", bound=1)]
    weight: Annotated[Vector, Leaves("(1,), none without weights()", "sum of log2 of the weights", bound=2**11)]


@dataclass(frozen=True, slots=True)
class Moments(Contribution):
    """First and second moments about the present centre, in the present scale."""

    count: Annotated[Vector, Leaves("(p+1,)", "rows", bound=1, counts_persons=True)]
    persons: Annotated[Vector, Leaves("(p+1,)", "persons with a value", bound=1, counts_persons=True)]
    sites: Annotated[Vector, Leaves("(p+1,)", "sites with values", bound=1, per="site")]
    total: Annotated[Vector, Leaves("(p+1,)", "scaled units", bound=2**15)]
    square: Annotated[Vector, Leaves("(p+1,)", "scaled units squared", bound=2**30)]
    offset: Annotated[float, Leaves("()", "sum of offsets", bound=2**10)]
    weight: Annotated[
        Matrix, Leaves("(2, 2), none without weights()", "persons' weights, their squares; of events", bound=2**24)
    ]


@dataclass(frozen=True, slots=True)
class Weights(Contribution):
    """How many persons the spread of each column, and of the outcome, rests on: see ``features.Weights``."""

    spread: Annotated[Matrix, Leaves("(p+1, 2)", "scaled units squared, and to the fourth", bound=MOST)]


CONTRIBUTIONS = (Dictionary, Moments, Weights, TimeSet)


@dataclass(frozen=True, slots=True)
class AgreeState:
    """Where the agreement stands. ``frame`` is complete when ``phase`` is "done"."""

    phase: Literal["dictionary", "moments", "weights", "times", "done"]
    levels: dict[str, tuple[str, ...]]
    frame: Frame
    cells: int
    passes: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """The parameters of the agreement: the method's ask under a codebook and thresholds."""

    ask: Ask
    codebook: Codebook
    thresholds: Thresholds

    def begin(self) -> AgreeState:
        """Return the first state, from metadata alone.

        Raises:
            Refused: the permit does not allow the time grid.

        """
        levels = designs.table_levels(self.ask, self.codebook)
        finer = grid_reasons(self.thresholds, self.ask.time_bin) if self.ask.clock == "grid" else ()
        if finer:
            raise Refused(
                f"this permit does not allow time bins of {self.ask.time_bin:g}",
                reasons=finer,
                remedy="use another time_bin, stratify by site, or ask for an amended permit",
            )
        columns = designs.column_names(self.ask, levels)
        frame = Frame(
            columns=columns,
            centre=np.zeros(len(columns)),
            scale=np.ones(len(columns)),
            rows=2**32,
            left_out=0,
            sites=0,
            levels=levels,
            counts={},
            groups=(),
            strata=(),
            two_coded=False,
            outcome_centre=0.0,
            outcome_scale=1.0,
            offset_centre=0.0,
            times=np.zeros(0),
            time_bin=self.ask.time_bin if self.ask.clock == "grid" else 0.0,
            min_cell=self.thresholds.min_cell,
            min_sites=self.thresholds.min_level_sites,
            features=self.ask.features,
            limits=self.thresholds,
        )
        return AgreeState("dictionary", levels, frame, 1024, 0)

    # -- at the site ------------------------------------------------------------------------

    def rows(self, state: AgreeState, table: Table) -> Rows:
        """Read a site's rows under the levels agreed so far."""
        return read_rows(self.ask, self.codebook, state.levels, table)

    def local(self, state: AgreeState, rows: Rows) -> Contribution:
        """Return this site's contribution to the present phase."""
        match state.phase:
            case "dictionary":
                return self._dictionary(state, rows)
            case "moments":
                return self._moments(state, rows)
            case "weights":
                return self._weights(state, rows)
            case "times":
                wanted = designs.event_flags(rows.event, state.frame.two_coded)
                if self.ask.covariates == "groups" or self.ask.outcome == "competing":  # censoring counts too
                    wanted = np.ones_like(wanted)
                return bloom(rows.stop[wanted], state.cells)
        raise BadInput("the agreement is complete")

    def _late(self, rows: Rows) -> float:
        if self.ask.clock != "grid" or self.ask.horizon is None:
            return 0.0
        return float(np.sum(rows.stop > self.ask.horizon))

    def _values(self, rows: Rows) -> list[NDArray[np.float64]]:
        """Return the columns of the model, then the outcome (n,) each."""
        return [*rows.matrix.T, rows.outcome if len(rows.outcome) else np.zeros(len(rows))]

    def _dictionary(self, state: AgreeState, rows: Rows) -> Dictionary:
        persons = [
            float(distinct(rows.person[rows.codes[name] == i]))
            for name, levels in state.levels.items()
            for i in range(len(levels))
        ]
        cells = [
            float(distinct(rows.person[code == i])) if names else 0.0
            for code, names, size in zip(
                (rows.group, rows.stratum),
                (designs.group_names(self.ask), designs.strata_names(self.ask)),
                self._sizes(state),
                strict=True,
            )
            for i in range(size)
        ]
        cross_persons = self._crossed(state, rows)
        outcome = rows.event if self.ask.timed else rows.outcome
        codes = [float(np.sum(outcome == v)) for v in (0.0, 1.0, 2.0)]
        sizes = np.array([_magnitude(column) for column in self._values(rows)])
        beyond = np.zeros(_DOUBLINGS)
        if self.ask.clock == "grid" and self.ask.time_bin > 0 and len(rows):
            placed = designs.bins(rows.stop, self.ask.time_bin)
            beyond = np.array([float(np.sum(placed > 2**j)) for j in range(_DOUBLINGS)])
        level_persons = np.array(persons)
        cell_persons = np.array(cells)
        return Dictionary(
            rows=float(len(rows)),
            left_out=float(rows.left_out),
            undefined=float(rows.undefined),
            late=self._late(rows),
            sites=1.0,
            level_persons=level_persons,
            level_sites=(level_persons > 0).astype(float),
            cell_persons=cell_persons,
            cell_sites=(cell_persons > 0).astype(float),
            cross_persons=cross_persons,
            cross_sites=(cross_persons > 0).astype(float),
            codes=np.array([*codes, len(outcome) - sum(codes)]),
            code_persons=np.array([_persons_coded(outcome, value, rows) for value in range(3)]),
            nonzero=sizes[:, 0],
            magnitude=sizes[:, 1],
            beyond=beyond,
            weight=np.array([np.log2(rows.weight).sum()] * bool(self.ask.formula.weights)),
        )

    def _crossings(self, state: AgreeState) -> list[tuple[str, ...]]:
        """Return the categories that stand together in a term of a model."""
        if self.ask.covariates != "matrix":
            return []
        return designs.crossings(self.ask, state.levels)

    def _crossed(self, state: AgreeState, rows: Rows) -> Vector:
        """Return the persons of every combination of categories that a term, or a table of the outcome, shows."""
        found = [np.zeros(0)]
        for names in self._crossings(state):
            code, size = np.zeros(len(rows), dtype=np.int64), 1
            for name in names:
                levels = 2 if name == designs.OUTCOME else len(state.levels[name])
                own = (rows.outcome > 0).astype(np.int64) if name == designs.OUTCOME else rows.codes[name]
                code, size = code * levels + own, size * levels
            found.append(np.array([float(distinct(rows.person[code == i])) for i in range(size)]))
        return np.concatenate(found)

    def _weights(self, state: AgreeState, rows: Rows) -> Weights:
        centre = np.append(state.frame.centre, state.frame.outcome_centre)
        scale = np.append(state.frame.scale, state.frame.outcome_scale)
        values = zip(self._values(rows), centre, scale, strict=True)
        part = np.sqrt(rows.weight / state.frame.weighting.scale) if self.ask.formula.weights else 1.0
        return Weights(np.concatenate([weights((part * (v - c) / w)[:, None], rows.person) for v, c, w in values]))

    def _moments(self, state: AgreeState, rows: Rows) -> Moments:
        centre = np.append(state.frame.centre, state.frame.outcome_centre)
        scale = np.append(state.frame.scale, state.frame.outcome_scale)
        values = self._values(rows)
        moments = np.array([_moments_of(*each) for each in zip(values, centre, scale, strict=True)])
        everybody = float(distinct(rows.person))
        persons = np.array(
            [
                everybody if count == len(rows) else persons_with(np.isfinite(v)[:, None], rows.person)[0]
                for v, count in zip(values, moments[:, 0], strict=True)
            ]
        )
        sites = (persons > 0).astype(np.float64)
        weight = np.zeros((0, 2))
        if self.ask.formula.weights:
            held = rows.weight / state.frame.weighting.scale
            events = held * designs.event_flags(rows.event, state.frame.two_coded)
            each = per_person(np.column_stack([held, events]), rows.person)
            weight = np.column_stack([each.sum(axis=0), (each**2).sum(axis=0)])
        offset = float(rows.offset.sum())
        return Moments(moments[:, 0], persons, sites, moments[:, 1], moments[:, 2], offset, weight)

    # -- at the centre ----------------------------------------------------------------------

    def aggregate(self, state: AgreeState, total: Any) -> AgreeState:
        """Take a phase's total and move on.

        Raises:
            BadLevel, NoEvents, ConstantColumn, BadFormula: the data cannot carry the model.
            Refused: there would be too many parameters for so few persons.

        """
        match total:
            case Dictionary():
                return self._counted(state, total)
            case Moments():
                return self._measured(state, total)
            case Weights():
                return self._weighed(state, total)
            case TimeSet():
                return self._timed(state, total)
        raise BadInput(f"unexpected total {type(total).__name__}")

    def _sizes(self, state: AgreeState) -> tuple[int, int]:
        groups = designs.combinations(designs.group_names(self.ask), state.levels)
        strata = designs.combinations(designs.strata_names(self.ask), state.levels)
        return len(groups), len(strata)

    def _counted(self, state: AgreeState, total: Dictionary) -> AgreeState:
        rows = int(total.rows)
        if total.undefined:
            raise BadTable(
                f"for some persons {self.ask.formula.text!r} is infinite or undefined, or a time is negative, "
                "or an interval (start, stop] is empty",
                remedy="look for log() of zero, division by zero, codes outside the levels, empty intervals, "
                "and weights that are not positive",
            )
        if total.late:
            raise OutOfRange("some follow-up times lie beyond the horizon", remedy="give a larger horizon")
        if rows == 0:
            raise BadInput(
                "no person has a value for every variable of the formula",
                remedy="check the variables' missing values with the method 'describe'",
            )
        levels, counts = self._agreed_levels(state, total)
        sizes = self._sizes(state)
        self._check_cells(state, total, sizes)
        self._check_crossed(state, total)
        two_coded = self._coding(total)
        if self.ask.outcome == "count" and total.nonzero[-1] == 0:
            raise NoEvents(f"{self.ask.formula.response[0]!r} is 0 for everybody", remedy="check the outcome")
        columns = designs.column_names(self.ask, levels)
        mean_log = total.magnitude / np.maximum(total.nonzero, 1)
        width = {n: 2.0 ** np.round(m) for n, m in zip(state.frame.columns, mean_log, strict=False)}
        scale = np.array([width.get(n, 1.0) for n in columns])
        outcome_scale = (
            2.0 ** float(np.round(mean_log[-1])) if self.ask.outcome in ("number", "positive", "count") else 1.0
        )
        reasons = model_reasons(self.thresholds, rows, len(columns) * self.ask.sets + self.ask.extra)
        if reasons and self.ask.covariates == "matrix":
            raise Refused("this model is too large for these data", reasons=reasons, remedy="use fewer terms")
        frame = replace(
            state.frame,
            columns=columns,
            centre=np.zeros(len(columns)),
            scale=scale,
            rows=rows,
            left_out=int(total.left_out) if total.left_out >= self.thresholds.min_cell else 0,  # few are not told
            sites=int(total.sites),
            min_sites=min(self.thresholds.min_level_sites, int(total.sites)),
            levels=levels,
            counts=counts,
            groups=designs.combinations(designs.group_names(self.ask), levels),
            strata=designs.combinations(designs.strata_names(self.ask), levels),
            two_coded=two_coded,
            outcome_scale=outcome_scale,
            times=self._grid(total),
            weighting=Weighting(scale=2.0 ** float(np.round(np.sum(total.weight) / rows))),
        )
        numeric = bool(columns) or self.ask.outcome == "number" or bool(self.ask.formula.weights)
        if numeric:
            return replace(state, phase="moments", levels=levels, frame=frame)
        return self._after_moments(replace(state, levels=levels, frame=frame))

    def _agreed_levels(
        self, state: AgreeState, total: Dictionary
    ) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[float, ...]]]:
        levels, counts, at = {}, {}, 0
        for name, published in state.levels.items():
            held = total.level_persons[at : at + len(published)]
            sites = total.level_sites[at : at + len(published)]
            at += len(published)
            if self.ask.covariates == "table":
                levels[name] = published
                alone = sites < min(self.thresholds.min_level_sites, total.sites)
                counts[name] = _marked(held, alone)
                continue
            for level, persons, where in zip(published, held, sites, strict=True):
                self._check_level(f"level {level!r} of {name!r}", persons, where, total.sites)
            levels[name] = tuple(lv for lv, p in zip(published, held, strict=True) if p > 0)
            counts[name] = tuple(p for p in held if p > 0)
            competing = self.ask.outcome == "competing" and name == self.ask.kept_whole
            plain = name not in designs.strata_names(self.ask) and not competing
            used_as_term = self.ask.covariates == "matrix" and plain
            if used_as_term and len(levels[name]) < 2:
                raise ConstantColumn(
                    f"variable {name!r} has only the level {levels[name][0]!r} over all sites",
                    remedy="leave it out of the formula",
                )
        return levels, counts

    def _check_level(self, what: str, persons: float, where: float, sites: float) -> None:
        if persons == 0:
            return
        if where < min(self.thresholds.min_level_sites, sites):
            raise BadLevel(
                f"{what} is seen at one site only, so its sums would be that site's own",
                remedy="merge it with another level, or leave those persons out",
            )
        if persons < self.thresholds.min_cell:
            raise BadLevel(
                f"{what} holds fewer than {self.thresholds.min_cell} persons over all sites",
                remedy="merge it with another level, or leave those persons out",
            )

    def _check_cells(self, state: AgreeState, total: Dictionary, sizes: tuple[int, int]) -> None:
        labels = [
            *designs.combinations(designs.group_names(self.ask), state.levels),
            *designs.combinations(designs.strata_names(self.ask), state.levels),
        ]
        if self.ask.clock == "own":
            labels = labels[: sizes[0]]  # a stratum's sums stay inside the site
        for at, (label, persons, where) in enumerate(zip(labels, total.cell_persons, total.cell_sites, strict=False)):
            if label and not (self.ask.small_groups and at < sizes[0]):
                self._check_level(f"the group {label!r}", persons, where, total.sites)

    def _check_crossed(self, state: AgreeState, total: Dictionary) -> None:
        at = 0
        for names in self._crossings(state):
            shape = [2 if n == designs.OUTCOME else len(state.levels[n]) for n in names]
            part = slice(at, at := at + int(np.prod(shape)))
            persons, sites = np.rint(total.cross_persons[part]), np.rint(total.cross_sites[part])
            if names[-1] == designs.OUTCOME:  # with as many coefficients as cells, the model is the table itself
                cells = int(np.sum(persons.reshape(-1, 2).sum(axis=1) > 0))
                if len(designs.column_names(self.ask, self._held(state, total))) < cells:
                    continue
            for held, where in zip(persons, sites, strict=True):
                self._check_level(f"a combination of {' and '.join(names)}", held, where, total.sites)

    def _held(self, state: AgreeState, total: Dictionary) -> dict[str, tuple[str, ...]]:
        """Return the levels that anybody holds."""
        found, at = {}, 0
        for name, published in state.levels.items():
            held = total.level_persons[at : at + len(published)]
            found[name] = tuple(level for level, persons in zip(published, held, strict=True) if persons > 0)
            at += len(published)
        return found

    def _coding(self, total: Dictionary) -> bool:
        zeros, ones, twos, other = total.codes
        if not self.ask.timed and self.ask.outcome != "binary":
            return False
        what = self.ask.formula.response[-1]
        if other or (zeros and twos):
            raise BadFormula(
                f"{what!r} is not coded 0/1 (or 1/2) over all sites",
                remedy=f"compare it with its event code, for example {what} == 2",
            )
        if self.ask.outcome == "binary" and twos:
            raise BadFormula(f"{what!r} is coded 1/2", remedy=f"write I({what} == 2) or recode to 0/1")
        events = twos or ones
        if events == 0:
            raise NoEvents(
                f"{what!r} marks no event at any site",
                remedy="check the event code and the follow-up",
            )
        least = self.thresholds.min_cell
        lacking, ones_of, twos_of = np.rint(total.code_persons)
        if (twos_of if twos else ones_of) < least or (self.ask.outcome == "binary" and 0 < lacking < least):
            raise BadLevel(
                f"{what!r} tells of fewer than {least} persons over all sites: so few have, or lack, the event",
                remedy="wait for more events, or choose another outcome",
            )
        if self.ask.outcome == "binary" and zeros == 0:
            raise NoEvents(f"{what!r} is 1 for everybody", remedy="check the outcome")
        return bool(twos)

    def _grid(self, total: Dictionary) -> Vector:
        if self.ask.clock != "grid" or self.ask.time_bin == 0:
            return np.zeros(0)
        if self.ask.horizon is not None:
            last = int(designs.bins(np.array([self.ask.horizon]), self.ask.time_bin)[0])
        else:
            clear = np.flatnonzero(total.beyond == 0)
            if not len(clear):
                raise OutOfRange("the time grid would be too fine", remedy="use a wider time_bin")
            last = int(2 ** clear[0])
        if last > _OWN_BINS_LIMIT:
            raise OutOfRange(f"{last} time bins are too many", remedy="use a wider time_bin")
        return np.arange(last + 1, dtype=np.float64) * self.ask.time_bin

    def _measured(self, state: AgreeState, total: Moments) -> AgreeState:
        frame = replace(state.frame, weighting=self._weighting(state.frame, total))
        count = np.maximum(total.count, 1)
        mean = total.total / count
        variance = np.maximum(total.square / count - mean**2, 0.0)
        old_centre = np.append(frame.centre, frame.outcome_centre)
        old_scale = np.append(frame.scale, frame.outcome_scale)
        noise = 2.0**-24 * np.maximum(1.0, mean**2)
        vague = variance < noise
        spread = np.sqrt(np.where(vague, noise * 2.0**-8, variance))
        centre = old_centre + mean * old_scale
        scale = old_scale * 2.0 ** np.round(np.log2(spread))
        fixed = np.array([n == INTERCEPT for n in frame.columns] + [self.ask.outcome != "number"])
        ready = ~vague | fixed
        if bool(np.any(~ready)) and state.passes < 2:
            again = replace(
                frame,
                centre=np.where(fixed, old_centre, centre)[:-1],
                scale=np.where(fixed, old_scale, scale)[:-1],
                outcome_centre=float(np.where(fixed, old_centre, centre)[-1]),
                outcome_scale=float(np.where(fixed, old_scale, scale)[-1]),
            )
            return replace(state, frame=again, passes=state.passes + 1)
        if bool(np.any(~ready[:-1])) and self.ask.covariates == "matrix":
            name = frame.columns[int(np.flatnonzero(~ready[:-1])[0])]
            raise ConstantColumn(
                f"the column {name!r} is the same for everybody over all sites",
                remedy="leave it out of the formula",
            )
        if not ready[-1] and self.ask.covariates != "table":
            raise ConstantColumn("the outcome is the same for everybody over all sites", remedy="choose another")
        centred = self.ask.timed or self.ask.covariates == "table"
        if self.ask.covariates == "matrix" and frame.intercept:
            centred = True
        keep = fixed | (~ready)
        new_centre = np.where(fixed, old_centre, centre)
        if not centred:
            new_centre[:-1] = 0.0
            scale = old_scale * 2.0 ** np.round(np.log2(np.sqrt(np.maximum(total.square / count, 2.0**-60))))
        movable = self.ask.covariates == "groups" or (frame.intercept and not self.ask.formula.offset)
        frame = replace(
            frame,
            centre=new_centre[:-1],
            scale=np.where(keep, old_scale, scale)[:-1],
            counts={**frame.counts, **self._persons(frame, total)},
            outcome_centre=float(new_centre[-1]) if self.ask.outcome == "number" and movable else 0.0,
            outcome_scale=float(np.where(keep, old_scale, scale)[-1]),
            offset_centre=total.offset / frame.rows if self.ask.timed else 0.0,
        )
        if self.thresholds.min_cell > 1:
            return replace(state, phase="weights", frame=frame)
        return self._after_moments(replace(state, frame=frame))

    def _weighting(self, frame: Frame, total: Moments) -> Weighting:
        """Return what the rows weigh, once it rests on enough persons (dominance).

        Raises:
            Refused: it does not, or the model is too large for as few.

        """
        if not len(total.weight):
            return frame.weighting
        (all_, squares), (events, _) = total.weight
        effective = float(all_**2 / squares)
        for rests, whose in zip(resting(total.weight, self.thresholds.min_cell), ("", " of events"), strict=True):
            if rests:
                raise Refused(
                    f"the weights{whose} {self.ask.formula.label(self.ask.formula.weights)!r} rest on few persons",
                    reasons=(f"min_cell: they must tell of {self.thresholds.min_cell} persons who weigh the same",),
                    remedy="truncate the weights",
                )
        parameters = len(frame.columns) * self.ask.sets + self.ask.extra
        reasons = model_reasons(self.thresholds, int(effective + 0.5), parameters)
        if reasons:
            raise Refused("this model is too large for these weights", reasons=reasons, remedy="truncate the weights")
        return replace(frame.weighting, total=float(all_), events=float(events), effective=effective)

    def _weighed(self, state: AgreeState, total: Weights) -> AgreeState:
        """Look which columns, and whether the outcome, rest on too few persons (dominance).

        Raises:
            BadLevel: a column of a model does, or its outcome.

        """
        frame, least = state.frame, self.thresholds.min_cell
        few = resting(total.spread, least) | self._outweighed(frame, total)
        if self.ask.covariates == "table":
            marked = {n: (0.5,) for n, f in zip(frame.columns, few, strict=False) if f}
            return self._after_moments(replace(state, frame=replace(frame, counts={**frame.counts, **marked})))
        names = [*frame.columns, "the outcome"]
        guilty = [n for n, f in zip(names, few, strict=True) if f]
        if guilty:
            raise BadLevel(
                f"{guilty[0]} rests on fewer than {least} persons, or on few large ones: all others are nearly alike",
                remedy="leave it out, take its logarithm, or merge it with another",
            )
        return self._after_moments(state)

    def _outweighed(self, frame: Frame, total: Weights) -> NDArray[np.bool_]:
        """Return which columns, and whether the outcome, few persons may dominate; an intercept is nobody's."""
        persons = [max(frame.counts.get(n, (0.0,))[0], 1.0) for n in frame.columns]
        centre = np.append(frame.centre / frame.scale, frame.outcome_centre / frame.outcome_scale)
        found = outweighed(np.array([*persons, float(frame.rows)]), centre, total.spread, self.thresholds)
        found[:-1] &= np.array([n != INTERCEPT for n in frame.columns], dtype=bool)
        return found

    def _persons(self, frame: Frame, total: Moments) -> dict[str, tuple[float, ...]]:
        """Return the persons with a value of each column.

        Raises:
            BadInput: a row may lack values, and some number is one site's own or few persons'.

        """
        marked = _marked(total.persons, total.sites < frame.min_sites)
        few = [n for n, persons in zip(frame.columns, marked, strict=False) if persons < max(frame.min_cell, 1)]
        if few and self.ask.gaps:
            raise BadInput(
                f"the number {few[0]!r} has values of fewer than {frame.min_cell} persons, or at one site only",
                remedy="leave it out of the formula",
            )
        return {name: (persons,) for name, persons in zip(frame.columns, marked, strict=False)}

    def _after_moments(self, state: AgreeState) -> AgreeState:
        exact = self.ask.clock == "grid" and self.ask.time_bin == 0
        return replace(state, phase="times" if exact else "done")

    def _timed(self, state: AgreeState, total: TimeSet) -> AgreeState:
        times = peel(total)
        if times is None:
            if state.cells > _OWN_BINS_LIMIT:
                raise OutOfRange("there are too many distinct event times", remedy="use a time_bin")
            return replace(state, cells=state.cells * 4)
        return replace(state, phase="done", frame=replace(state.frame, times=times))


INTERCEPT = designs.INTERCEPT


def _persons_coded(outcome: Vector, value: float, rows: Rows) -> float:
    """Return how many persons have a row with this outcome; 0 where there is none."""
    return float(distinct(rows.person[outcome == value])) if len(outcome) else 0.0


def _marked(persons: Vector, alone: NDArray[np.bool_]) -> tuple[float, ...]:
    """Return counts of persons, 0.5 where too few sites hold them: no rule then takes them for enough."""
    return tuple(np.where(alone & (persons > 0), 0.5, persons).tolist())


def _magnitude(column: NDArray[np.float64]) -> tuple[float, float]:
    """Return how many values are neither missing nor 0, and the sum of log2 of their sizes."""
    found = np.zeros(2)
    for rows in blocks(len(column)):
        size = np.abs(column[rows])
        size = size[np.isfinite(size) & (size > 0)]
        found += np.array([len(size), np.log2(size).sum()])
    return float(found[0]), float(found[1])


def _moments_of(column: NDArray[np.float64], centre: float, scale: float) -> tuple[float, float, float]:
    """Return count, sum and sum of squares of the present values about a centre, in units of a scale."""
    found = np.zeros(3)
    for rows in blocks(len(column)):
        z = (column[rows] - centre) / scale
        present = np.isfinite(z)
        z = z if present.all() else z[present]
        found += np.array([len(z), z.sum(), z @ z])
    return float(found[0]), float(found[1]), float(found[2])
