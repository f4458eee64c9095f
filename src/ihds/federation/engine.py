"""Where a site computes: in its own process, or, when it outgrows one machine, over a Dask cluster of its own.

``local`` is additive over rows, so the site's contribution is the sum of those of its parts. Persons
and clusters stay whole; what is not additive (a model per site) is computed here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ihds.analysis.design import column_names
from ihds.analysis.method import Contribution
from ihds.analysis.plan import Plan, PlanState, SiteWork, joined, must_have_shape
from ihds.analysis.rows import PIECE, numbered, pieces
from ihds.canonical import pack, unpack
from ihds.data.wide import Table
from ihds.errors import SetupFailed, SiteMissing

#: Numbers of a row besides its columns: outcome, time, person, codes.
_BESIDE = 4


class Work(Protocol):
    """One site's side of a study."""

    def local(self, state: PlanState) -> Contribution:
        """Return the site's contribution to a round."""
        ...

    def persons(self) -> int:
        """Return how many persons the present rows hold."""
        ...


class Engine(Protocol):
    """Computes a site's contributions."""

    def work(self, plan: Plan, table: Table) -> Work:
        """Return the computation of a plan on a site's rows."""
        ...

    def close(self) -> None:
        """Leave what was used."""
        ...


@dataclass(frozen=True)
class Here:
    """The site's own process. Rows of more bytes than ``keep`` are read anew in each round, a piece at a time."""

    keep: int = 1 << 29

    def work(self, plan: Plan, table: Table) -> Work:
        """Return the computation; its twin without rows guards the shape of what leaves."""
        ask = plan.agreement.ask
        columns = len(column_names(ask, plan.agreement.begin().levels)) + _BESIDE
        if plan.together is not None and not ask.features and 8 * len(table) * columns > self.keep:
            rows = pieces(numbered(table, plan.together), PIECE)
            if len(rows) > 1:
                return _Streamed(plan, table, rows, SiteWork(plan, table.empty()))
        return plan.work(table).with_twin()

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class _Streamed:
    """A study's rows in pieces that are read when they are needed, and not kept."""

    plan: Plan
    table: Table
    rows: list[slice]
    twin: SiteWork
    held: int = 0

    def local(self, state: PlanState) -> Contribution:
        """Return the sum over the pieces."""
        whole: Contribution | None = None
        held = 0
        for rows in self.rows:
            work = SiteWork(self.plan, self.table.range(rows))
            part = work.local(state)
            held += work.persons()
            whole = part if whole is None else joined([whole, part])
        assert whole is not None
        self.held = held
        must_have_shape(whole, self.twin.local(state))
        return whole

    def persons(self) -> int:
        """Return how many persons the present rows hold."""
        return self.held


@contextlib.contextmanager
def _cluster_faults() -> Iterator[None]:
    """Say of a fault of the cluster that the study waits."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise SiteMissing(
            "this site's cluster lost a part of the study", remedy="look at its workers, then resume the study"
        ) from error


class _Part:
    """A part of the rows, on a worker of the cluster; kept there between the rounds of a study."""

    def __init__(self, plan: Plan, table: Table) -> None:
        self.work = plan.work(table)

    def answer(self, state: bytes) -> tuple[Contribution, int] | Exception:
        """Return the contribution and its persons, or what went wrong with the rows: no fault of the cluster."""
        try:
            return self.work.local(unpack(PlanState, state)), self.work.persons()
        except Exception as error:  # noqa: BLE001 - raised again at the gate, which says nothing of it
            return error


@dataclass
class _Divided:
    """A study's rows in parts, one actor each."""

    plan: Plan
    parts: list[Any]
    twin: SiteWork
    held: int = 0

    def local(self, state: PlanState) -> Contribution:
        """Return the sum over the parts.

        Raises:
            SiteMissing: the cluster lost a part; the round may be asked again later.

        """
        packed = pack(state)
        with _cluster_faults():
            futures = [part.answer(packed) for part in self.parts]
            answers = [future.result() for future in futures]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        self.held = sum(persons for _, persons in answers)
        whole = joined([contribution for contribution, _ in answers])
        must_have_shape(whole, self.twin.local(state))
        return whole

    def persons(self) -> int:
        """Return how many persons the present rows hold."""
        return self.held


@dataclass
class Dask:
    """A Dask cluster: the one at ``address``, or workers on this machine, one per processor."""

    address: str = ""
    workers: int | None = None
    _client: Any = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def work(self, plan: Plan, table: Table) -> Work:
        """Return the computation, spread over the cluster if its sums are those of parts."""
        if not plan.agreement.ask.divisible or len(table) < 2:
            return Here().work(plan, table)
        with self._lock:
            client = self._connected()
        with _cluster_faults():
            count = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
            divided = divide(plan, table, count)
            parts = [client.submit(_Part, plan, part, actor=True, pure=False).result() for part in divided]
        return _Divided(plan, parts, SiteWork(plan, table.empty()))

    def _connected(self) -> Any:
        if self._client is not None and self._client.status != "running":
            self.close()
        if self._client is None:
            try:
                import distributed
            except ImportError as error:
                raise SetupFailed("Dask is not installed", remedy="pip install 'ihds[dask]'") from error
            try:
                made: Any = distributed  # its constructors have no types
                cluster = self.address or made.LocalCluster(
                    n_workers=self.workers, threads_per_worker=1, dashboard_address=":0", silence_logs=40
                )
                self._client = made.Client(cluster)
            except (OSError, ValueError, RuntimeError) as error:
                where = f"at {self.address}" if self.address else "on this machine"
                raise SetupFailed(
                    f"no Dask cluster answers {where}", remedy="start it, or correct engine in node.toml"
                ) from error
        return self._client

    def close(self) -> None:
        """Leave the cluster; one on this machine ends."""
        if self._client is not None:
            cluster = None if self.address else self._client.cluster
            self._client.close()
            if cluster is not None:
                cluster.close()
            self._client = None


def divide(plan: Plan, table: Table, count: int) -> list[Table]:
    """Return at most ``count`` parts of a table in which every person, and every cluster, is whole.

    Where clusters are others than persons, or computed, they are one part: thresholds count persons.
    """
    if plan.together is None:
        return [table]
    code = numbered(table, plan.together)
    of_part = np.where(code >= 0, code % count, 0)
    parts = [table.part(np.flatnonzero(of_part == at)) for at in range(count)]
    return [part for part in parts if len(part)]


def engine_of(text: str) -> Engine:
    """Return the engine that a configuration names: nothing, ``dask``, or ``dask:ADDRESS`` of a scheduler.

    Raises:
        SetupFailed: it is another word.

    """
    kind, _, address = text.partition(":")
    if kind == "dask":
        return Dask(address)
    if text:
        raise SetupFailed(f"engine {text!r} is unknown", remedy="leave it out, or use dask or dask:tcp://host:8786")
    return Here()
