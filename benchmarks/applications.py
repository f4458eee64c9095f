"""How fast an access body lists, filters and pages 10 000 applications: ``python benchmarks/applications.py``."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ihds.audit.log import Event, Log
from ihds.governance.application import Application
from ihds.governance.holidays import CALENDARS
from ihds.ids import ApplicationId, Did
from ihds.roles.cases import Asked, Cases
from ihds.roles.simulated import APPLICATION
from ihds.store.store import Put, Store

MANY = 10_000
STAGES = ("ASSESSMENT", "AWAITING_INFORMATION", "GRANTED", "REFUSED")
BODY = Did("did:web:body.example")


class Unsigned:
    """Signs nothing: what is measured is reading."""

    def sign(self, data: bytes) -> str:
        """Return no signature."""
        return ""


def filled(folder: Path) -> Store:
    """Return a store that holds the applications, a quarter in each stage."""
    store = Store(f"sqlite:///{folder / 'store.sqlite'}")
    log = Log(store, BODY, Unsigned())
    cases = Cases(log, BODY, "ehds", CALENDARS["LU"])
    asked = Application.from_dict(
        {
            **APPLICATION,
            "id": ApplicationId.new(),
            "applicant": "did:web:user.example",
            "applicant_country": "LU",
            "public_body": False,
            "datasets": [["did:web:lih.example", "bladder-lih"]],
            "submitted_at": datetime.now(UTC).isoformat(),
        }
    )
    body = cases.submit(Asked(replace(asked, id=ApplicationId.new()))).body
    puts = []
    for number in range(MANY):
        identifier = uuid.UUID(int=number).urn
        one = {**body, "stage": STAGES[number % 4], "application": {**body["application"], "id": identifier}}
        puts.append(Put("application", identifier, 0, one))
    log.commit(Event("application.submitted", BODY, {"many": MANY}), *puts)
    return store


def timed(store: Store, where: dict[str, str], after: str) -> float:
    """Return the median of five reads of a page of 100, in milliseconds."""
    took = []
    for _ in range(5):
        since = time.perf_counter()
        found = store.page("application", where, after=after, limit=100)
        took.append((time.perf_counter() - since) * 1000)
        assert len(found) == 100
    return statistics.median(took)


def main() -> int:
    """Print the times; fail if one is 200 ms or more."""
    with tempfile.TemporaryDirectory() as name:
        store = filled(Path(name))
        middle, late = uuid.UUID(int=MANY // 2).urn, uuid.UUID(int=MANY - 500).urn
        worst = 0.0
        for label, where, after in (
            ("first page", {}, ""),
            ("page in the middle", {}, middle),
            ("first page of a stage", {"stage": "GRANTED"}, ""),
            ("last page of a stage", {"stage": "GRANTED"}, late),
            ("two fields", {"stage": "REFUSED", "kind": "application"}, middle),
        ):
            took = timed(store, where, after)
            worst = max(worst, took)
            print(f"{label:24} {took:7.1f} ms")
        since = time.perf_counter()
        assert store.page("application", {"stage": "nothing"}) == []
        none = (time.perf_counter() - since) * 1000
        print(f"{'no match among all':24} {none:7.1f} ms")
        store.close()
    return 0 if max(worst, none) < 200 else 1


if __name__ == "__main__":
    sys.exit(main())
