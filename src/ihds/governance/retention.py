"""How long what is written must be kept, and from when it may or must go: rules as data; pure.

The longest duty to keep wins over a duty to erase (GDPR Art. 17(3)(b)). What no rule names is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from ihds.governance.calendar import Period, ends
from ihds.governance.rule import Certainty


@dataclass(frozen=True, slots=True)
class Retention:
    """One rule: which events of the log it is about, for how long they are kept, and where it holds.

    ``kinds`` are beginnings of kinds of events; ``countries`` empty means everywhere.
    """

    id: str
    article: str
    kinds: tuple[str, ...]
    text: str
    keep: Period
    certainty: Certainty
    countries: frozenset[str] = frozenset()

    def covers(self, kind: str, country: str) -> bool:
        """Return whether a node of a country keeps events of this kind by this rule."""
        here = not self.countries or country in self.countries
        return here and any(kind == k or kind.startswith(f"{k}.") for k in self.kinds)


_ACCESS = ("round", "study", "data", "transfer", "dataflow", "negotiation", "message")
_DECISIONS = ("permit", "application", "request", "member", "motion", "charter", "agreement", "duty", "officer")
_CHAIN = ("node", "key", "witness")
_EU = frozenset({"LU", "DE", "FR", "BE", "EU"})

RETENTIONS: tuple[Retention, ...] = (
    Retention(
        "RET-LOG",
        "EHDS 73(1)(e)",
        _ACCESS,
        "logs of access and activity are kept for at least one year",
        Period(1, "years"),
        Certainty.READ,
        _EU,
    ),
    Retention(
        "RET-PERMIT",
        "EHDS 68(12)",
        _DECISIONS,
        "a permit may last ten years and be extended by ten: what was decided can be shown as long",
        Period(20, "years"),
        Certainty.DESIGN,
    ),
    Retention(
        "RET-STUDY",
        "GDPR 5(2); EHDS 61(4), 68(12)",
        _ACCESS,
        "what a study did can be shown while its permit may run and its results are published",
        Period(10, "years"),
        Certainty.DESIGN,
    ),
    Retention(
        "RET-KR",
        "PIPA safety measures (PIPC notice), Art. 8",
        _ACCESS,
        "records of access to systems with sensitive data or over 50 000 persons are kept for two years",
        Period(2, "years"),
        Certainty.MEMORY,
        frozenset({"KR"}),
    ),
    Retention(
        "RET-US",
        "45 CFR 164.316(b)(2)(i), 164.530(j)",
        (*_ACCESS, *_DECISIONS),
        "documentation under HIPAA is kept for six years",
        Period(6, "years"),
        Certainty.MEMORY,
        frozenset({"US"}),
    ),
    Retention(
        "RET-CHAIN",
        "GDPR 5(1)(f), 5(2)",
        _CHAIN,
        "keys, checkpoints and alarms are kept as long as anything they prove",
        Period(20, "years"),
        Certainty.DESIGN,
    ),
)


def rule_for(kind: str, country: str) -> Retention | None:
    """Return the rule that keeps events of a kind longest at a node of a country; None keeps for good."""
    covering = [r for r in RETENTIONS if r.covers(kind, country)]
    return max(covering, key=lambda r: ends(date(2000, 1, 1), r.keep)) if covering else None


def standing(entries: Iterable[Mapping[str, Any]], country: str, on: date) -> list[dict[str, Any]]:
    """Return by kind of event how many are kept, until when the oldest must be, and how many may go on a day."""
    days: dict[str, list[date]] = {}
    for entry in entries:
        days.setdefault(str(entry["kind"]), []).append(datetime.fromisoformat(str(entry["at"])).date())
    rows = []
    for kind, when in sorted(days.items()):
        rule = rule_for(kind, country)
        until = [ends(day, rule.keep) for day in when] if rule else []
        rows.append(
            {
                "kind": kind,
                "entries": len(when),
                "oldest": min(when).isoformat(),
                "kept_until": min(until).isoformat() if until else "for good",
                "may_go": sum(day < on for day in until),
                "rule": f"{rule.id}: {rule.article}" if rule else "none",
                "certainty": str(rule.certainty) if rule else "",
            }
        )
    return rows
