"""The outbox: what a conversation has still to do or say, in order, with backoff, again after a crash.

A row is written in the transaction of the state that causes it. It waits until the answer that
triggered it has been sent, then for its delay, then for the rows of its process before it. A slow or
hostile peer holds a few threads at most, and every call is bounded in time.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ihds.audit.log import Event, Log
from ihds.errors import Conflict, IhdsError, PeerFailed
from ihds.store.store import Put, Record
from ihds.wire.strict import clean

_log = logging.getLogger("ihds.outbox")

#: An answer that is not on its way after this long will not come any more.
_ANSWER_SECONDS = 5.0
#: Threads in all, and for one counterparty.
_WORKERS, _EACH = 24, 4


@dataclass
class Outbox:
    """Rows of one node and the threads that work them off.

    ``queue`` is the kind of its records; ``perform`` does what a row says and deletes it in its own
    transaction; ``give_up`` settles a row that was tried for ``give_up_seconds``.
    """

    log: Log
    me: str
    perform: Callable[[Record], None]
    give_up: Callable[[Record, IhdsError], None]
    queue: str = "outbox"
    delay_seconds: float = 0.0
    give_up_seconds: float = 3600.0
    _wake: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _busy: dict[str, str] = field(default_factory=dict)
    _held: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _answering: threading.local = field(default_factory=threading.local)

    def row(self, kind: str, pid: str, counterparty: str, delay: float = 0.0, **content: Any) -> Put:
        """Return the write of a row that is due after ``delay`` seconds."""
        at = time.time()
        body = {
            "kind": kind,
            "pid": pid,
            "counterparty": counterparty,
            "made": at,
            "due": at + self.delay_seconds + delay,
            "attempts": 0,
            **content,
        }
        identifier = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        rows = getattr(self._answering, "rows", None)
        if rows is not None:
            rows.append(identifier)
            with self._lock:
                self._held[identifier] = at
        return Put(self.queue, identifier, 0, body)

    @contextlib.contextmanager
    def answering(self) -> Iterator[Callable[[], None]]:
        """Hold back rows made inside until the function it yields is called: the answer is sent."""
        rows: list[str] = []
        self._answering.rows = rows

        def release() -> None:
            with self._lock:
                for identifier in rows:
                    self._held.pop(identifier, None)
            self._wake.set()

        try:
            yield release
        except BaseException:
            release()
            raise
        finally:
            self._answering.rows = None

    def wake(self) -> None:
        """Look for rows that are due now."""
        self._wake.set()

    def work(self) -> None:
        """Deliver the outbox until ``stop``; meant for a thread of its own."""
        with ThreadPoolExecutor(_WORKERS, "outbox") as pool:
            while not self._stop.is_set():
                wait = 1.0
                try:
                    due = self._due()
                except Exception:  # noqa: BLE001 - the database may be away for a moment
                    _log.exception("the outbox cannot be read")
                    due = []
                for row in due:
                    if isinstance(row, float):
                        wait = min(wait, row)
                    else:
                        with self._lock:
                            peers = list(self._busy.values())
                            if row.body["pid"] in self._busy or peers.count(row.body["counterparty"]) >= _EACH:
                                continue
                            self._busy[row.body["pid"]] = row.body["counterparty"]
                        pool.submit(self._attempt, row)
                self._wake.wait(max(wait, 0.005))
                self._wake.clear()

    def _due(self) -> list[Record | float]:
        """Return rows that are due, at most one per process, and how long to wait for others."""
        at, seen = time.time(), set()
        with self._lock:
            busy = set(self._busy)
            peers = Counter(self._busy.values())
            held = {k for k, since in self._held.items() if at - since < _ANSWER_SECONDS}
        rows: list[Record | float] = []
        for row in self.log.store.list(self.queue):
            if row.body["pid"] in busy or row.body["pid"] in seen or peers[row.body["counterparty"]] >= _EACH:
                continue
            seen.add(row.body["pid"])
            if row.id in held:
                continue
            left = row.body["due"] - at
            rows.append(row if left <= 0 else left)
        return rows

    def stop(self) -> None:
        """End the worker."""
        self._stop.set()
        self._wake.set()

    def _attempt(self, row: Record) -> None:
        try:
            current = self.log.get(self.queue, row.id)
            if current is not None:
                self.perform(current)
        except Conflict:
            time.sleep(0.02)  # the process moved meanwhile; the row is looked at again
        except IhdsError as error:
            self._later(row, error)
        except Exception:  # noqa: BLE001 - a bug must not stop the outbox
            _log.exception("the outbox row %s failed", row.id)
            self._later(row, PeerFailed("this node failed"))
        finally:
            with self._lock:
                self._busy.pop(row.body["pid"], None)
            self._wake.set()

    def _later(self, row: Record, error: IhdsError) -> None:
        try:
            self._postpone(row, error)
        except Exception:  # noqa: BLE001 - the row stays, and is looked at again
            _log.exception("the outbox row %s cannot be postponed", row.id)
            time.sleep(1.0)

    def _postpone(self, row: Record, error: IhdsError) -> None:
        """Try again later; after a long time give up."""
        current = self.log.get(self.queue, row.id)
        if current is None:
            return
        attempts = current.body["attempts"] + 1
        pause = min(5.0, 0.1 * 2 ** min(attempts, 10))
        at = time.time()
        _log.info("outbox %s: %s; again in %.1f s", row.body["pid"], error.message, pause)
        if at - current.body["made"] > self.give_up_seconds:
            self.give_up(current, error)
            return
        body = {**current.body, "attempts": attempts, "due": at + pause}
        event = Event("message.delayed", self.me, {"pid": row.body["pid"], "reasons": [clean(error.message)]})
        self.log.commit(event, Put(self.queue, row.id, current.version, body))
