"""The whole law at a glance: who may receive what, from where, under which regime, on which day."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import date

from ihds.governance.jurisdiction import Export, judge
from ihds.governance.policy import Granted
from ihds.governance.rule import ARTEFACTS, NEVER, REGIMES, in_words

#: Today's law; permits (Chapter IV); permits for genetic, omic, trial and cohort data.
DAYS = (date(2026, 12, 1), date(2029, 4, 1), date(2031, 4, 1))
#: One with a law of its own beside EU law, one without, two partners, one unknown.
ORIGINS = ("LU", "DE", "KR", "US", "BR")
#: The same, with a country of concern.
DESTINATIONS = ("LU", "KR", "US", "CN", "BR")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: ``answer`` is yes, no or with; ``needs`` is what each rule asks, rule by rule."""

    on: str
    origin: str
    destination: str
    artefact: str
    legal_regime: str
    answer: str
    rules: tuple[str, ...]
    needs: str


def truth_table() -> list[Line]:
    """Return every line, judged without any evidence."""
    lines = []
    for on, origin, destination, artefact, regime in itertools.product(DAYS, ORIGINS, DESTINATIONS, ARTEFACTS, REGIMES):
        judged = judge(Export(artefact, origin, destination, regime, frozenset()), on)
        granted = isinstance(judged.decision, Granted)
        answer = "yes" if granted else "no" if judged.would_help == NEVER else "with"
        needs = [f"{f.law} {f.rule.id}: {in_words(f.rule.needs)}" for f in judged.findings]
        names = tuple(f.rule.id for f in judged.findings)
        lines.append(Line(on.isoformat(), origin, destination, artefact, regime, answer, names, "; ".join(needs)))
    return lines


def as_csv() -> str:
    """Return the table as text, one line each, for a lawyer to read and a test to compare."""
    rows = ["on,origin,destination,artefact,legal_regime,answer,needs"]
    for line in truth_table():
        words = line.needs.replace(",", "")
        row = (line.on, line.origin, line.destination, line.artefact, line.legal_regime, line.answer, words)
        rows.append(",".join(row))
    return "\n".join(rows) + "\n"
