"""Fees as data: what a body charges for which service, estimated before anybody is bound (EHDS Art. 62).

The regulation says what may be charged, that fees are proportionate, transparent and alike for all, and
that public bodies, universities and small firms of the Union may pay less. It names no amount: those here
are a body's own tariff, to be replaced by the one it publishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from ihds.governance.application import Application
from ihds.governance.countries import EU_EEA
from ihds.governance.jurisdictions.eu_ehds import CHAPTER_IV
from ihds.governance.rule import Certainty

Unit = Literal["application", "dataset", "month"]


@dataclass(frozen=True, slots=True)
class Fee:
    """One line of the tariff: euros for each unit; ``reduced`` is what a public body of the Union pays of it."""

    id: str
    article: str
    what: str
    euros: int
    unit: Unit
    reduced: int
    since: date = CHAPTER_IV
    certainty: Certainty = Certainty.DESIGN

    def units(self, asked: Application) -> int:
        """Return how many units an application asks for."""
        return {"application": 1, "dataset": len(asked.datasets), "month": asked.period_months}[self.unit]


TARIFF: tuple[Fee, ...] = (
    Fee("F1-ASSESS", "EHDS 62(1)", "assess the application", 400, "application", 200),
    Fee("F1-PREPARE", "EHDS 62(1)", "prepare the data", 300, "dataset", 150),
    Fee("F1-ENVIRONMENT", "EHDS 62(1)", "run the secure environment", 50, "month", 25),
    Fee("F2-HOLDER", "EHDS 62(2)", "the holder's costs, paid to the holder", 250, "dataset", 250),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an estimate."""

    fee: str
    article: str
    what: str
    units: int
    euros: int


def estimate(asked: Application, tariff: tuple[Fee, ...] = TARIFF) -> tuple[Line, ...]:
    """Return what an application is likely to cost, line by line."""
    less = asked.public_body and asked.applicant_country in EU_EEA
    return tuple(
        Line(fee.id, fee.article, fee.what, units, units * (fee.reduced if less else fee.euros))
        for fee in tariff
        if (units := fee.units(asked))
    )


def notice(lines: tuple[Line, ...], on: date) -> dict[str, Any]:
    """Return the notice an applicant gets before anything is granted (EHDS Art. 62(5))."""
    return {
        "on": on.isoformat(),
        "lines": [{"fee": x.fee, "article": x.article, "what": x.what, "euros": x.euros} for x in lines],
        "total_euros": sum(x.euros for x in lines),
        "withdraw": "EHDS 62(5): you may withdraw now; then only costs incurred so far are charged",
    }
