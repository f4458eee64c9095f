"""Studies on their way: each in a thread of its own, followed while it runs, its state written down."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ihds.analysis.result import Result
from ihds.audit.log import Event, Log
from ihds.errors import (
    Conflict,
    IhdsError,
    IllegalTransition,
    NotAuthenticated,
    NotFound,
    PeerFailed,
    Refused,
    SiteMissing,
)
from ihds.governance.lifecycle import Table, advance
from ihds.store.store import Put, Record

_log = logging.getLogger("ihds.studies")


class RunState(StrEnum):
    """Where a study stands with whoever runs it or has it run."""

    RUNNING = "running"
    PAUSED = "paused"
    WAITING = "waiting"
    FAILED = "failed"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    DELIVERED = "delivered"


class RunEvent(StrEnum):
    """What can happen to a study that was asked for."""

    RESUME = "resume"
    PAUSE = "pause"
    WAIT = "wait"
    FAIL = "fail"
    FINISH = "finish"
    CANCEL = "cancel"
    DELIVER = "deliver"


_S, _E = RunState, RunEvent
_STOPPED = {_E.RESUME: _S.RUNNING, _E.CANCEL: _S.CANCELLED, _E.FAIL: _S.FAILED}

NEXT: Table[RunState, RunEvent] = {
    _S.RUNNING: {
        _E.RESUME: _S.RUNNING,
        _E.PAUSE: _S.PAUSED,
        _E.WAIT: _S.WAITING,
        _E.FAIL: _S.FAILED,
        _E.FINISH: _S.FINISHED,
        _E.CANCEL: _S.CANCELLED,
    },
    _S.PAUSED: _STOPPED,
    _S.WAITING: _STOPPED,
    _S.FAILED: {_E.RESUME: _S.RUNNING, _E.CANCEL: _S.CANCELLED},
    _S.FINISHED: {_E.RESUME: _S.RUNNING, _E.DELIVER: _S.DELIVERED, _E.CANCEL: _S.CANCELLED},
    _S.CANCELLED: {},
    _S.DELIVERED: {},
}

#: Nothing more is asked of holders: the ways to them are forgotten.
ENDED = frozenset({_S.FAILED, _S.FINISHED, _S.CANCELLED, _S.DELIVERED})


@dataclass
class Run:
    """A study on its way: what was reported so far; ``going`` raises Refused once it was cancelled."""

    going: Callable[[], None]
    steps: list[dict[str, Any]] = field(default_factory=list)
    thread: threading.Thread | None = None
    settled: bool = False

    def report(self, what: str, details: dict[str, Any]) -> None:
        """Add a step."""
        self.going()
        self.steps.append({"step": what, **details})


#: Runs a study to its result, or returns None if it was paused.
Work = Callable[[str, Run, int | None], Result | None]


class Runs:
    """The studies that one node runs, or has run; each is a record of kind ``study.request``."""

    def __init__(self, log: Log, me: str, work: Work) -> None:
        """Write to a log as ``me``."""
        self.log, self.me, self.work = log, me, work
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()

    def record(self, identifier: str) -> Record:
        """Return the record of a study.

        Raises:
            NotFound: there is none.

        """
        record = self.log.get("study.request", identifier)
        if record is None:
            raise NotFound(f"no study {identifier}", remedy="ihds study show lists them")
        return record

    def launch(self, identifier: str, max_rounds: int | None = None) -> None:
        """Run a study in the background, unless it runs."""
        with self._lock:
            if self.busy(identifier):
                return
            run = self._runs[identifier] = Run(lambda: self._going(identifier))
            run.thread = threading.Thread(
                target=self._run, args=(identifier, run, max_rounds), name=f"study-{identifier[-6:]}", daemon=True
            )
            run.thread.start()

    def busy(self, identifier: str) -> bool:
        """Return whether a study is being run."""
        run = self._runs.get(identifier)
        return run is not None and not run.settled and run.thread is not None and run.thread.is_alive()

    def _going(self, identifier: str) -> None:
        if self.record(identifier).body["status"] == RunState.CANCELLED:
            raise Refused("the study was cancelled", remedy="start a new study")

    def _run(self, identifier: str, run: Run, max_rounds: int | None) -> None:
        try:
            result = self.work(identifier, run, max_rounds)
            self._settle(identifier, run, RunEvent.PAUSE if result is None else RunEvent.FINISH, None)
        except (SiteMissing, PeerFailed, NotAuthenticated) as error:
            self._settle(identifier, run, RunEvent.WAIT, error)
        except IhdsError as error:
            self._settle(identifier, run, RunEvent.FAIL, error)
        except Exception:  # noqa: BLE001 - a bug must not leave a study "running" for ever
            _log.exception("study %s failed", identifier)
            failure = IhdsError("this node failed", remedy="tell its operator the time")
            self._settle(identifier, run, RunEvent.FAIL, failure)

    def _settle(self, identifier: str, run: Run, event: RunEvent, error: IhdsError | None) -> None:
        status = None
        while status is None:
            try:
                status = self.move(identifier, event, error)
            except Conflict:  # somebody else wrote meanwhile: look again
                continue
            except IllegalTransition:  # it was cancelled meanwhile
                status, error = RunState.CANCELLED, None
        step = {"step": str(status), "study": identifier}
        run.steps.append({**step, "error": error.to_dict()} if error is not None else step)
        run.settled = True

    def move(self, identifier: str, event: RunEvent, error: IhdsError | None = None, *puts: Put) -> RunState:
        """Move a study and write it down, with what else changes then.

        Raises:
            IllegalTransition: its state does not allow it.

        """
        record = self.record(identifier)
        before = RunState(record.body["status"])
        after = advance(NEXT, "the study", before, event)
        if after is before and not puts:
            return after
        kept = {k: v for k, v in record.body.items() if k != "ways" or after not in ENDED}
        body = {**kept, "status": str(after), "error": error.to_dict() if error else None}
        details = {"permit": body["permit"], "study": identifier, "status": str(after)}
        if error is not None:
            details["reasons"] = [error.message, *error.reasons]
        put = Put("study.request", identifier, record.version, body)
        self.log.commit(Event("study.settled", self.me, details), put, *puts)
        return after

    def steps(self, identifier: str, after: int) -> dict[str, Any]:
        """Return what a running study reported after a step, and whether it runs."""
        run = self._runs.get(identifier)
        return {"steps": run.steps[after:] if run else [], "running": self.busy(identifier)}

    def go_on(self) -> None:
        """Go on with studies that a crash interrupted."""
        for record in self.log.store.list("study.request"):
            if record.body["status"] == RunState.RUNNING:
                self.launch(record.id)
