"""The annual review of the data space, from the logs of its institutions; pure.

What a log does not say is not in the review: not when nodes ran. Times of decisions are measured against
the clock D4 (EHDS Art. 68(4)), counted from the complete application, without extensions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from ihds.governance.deadlines import deadlines, last_of
from ihds.governance.holidays import CALENDARS

Entry = Mapping[str, Any]
Logs = Mapping[str, Sequence[Entry]]

#: Events that a review counts as incidents, with what they mean.
INCIDENTS = {
    "witness.alarm": "a log was rolled back or rewritten",
    "witness.accepted": "a broken log was accepted with an explanation",
    "key.retired": "a key was retired",
    "message.abandoned": "a message was given up",
}
_OUT = ("SUSPENDED", "EXPELLED")


def review(logs: Logs, year: int) -> dict[str, Any]:
    """Return the facts of a year; ``logs`` are entries by the name of the institution, in their order."""
    return {
        "year": year,
        "logs": {name: sum(_year(e) == year for e in entries) for name, entries in sorted(logs.items())},
        "studies": _studies(logs, year),
        "decisions": _decisions(logs, year),
        "refusals": _refusals(logs, year),
        "budget": _budget(logs, year),
        "bodies": _bodies(logs, year),
        "members": _members(logs, year),
        "incidents": _incidents(logs, year),
    }


def _at(entry: Entry) -> datetime:
    return datetime.fromisoformat(str(entry["at"]))


def _year(entry: Entry) -> int:
    return _at(entry).year


def _of(logs: Logs, year: int, *kinds: str) -> Iterator[tuple[str, Entry]]:
    """Yield the events of these kinds in a year, with the institution in whose log they stand."""
    for name, entries in sorted(logs.items()):
        yield from ((name, e) for e in entries if e["kind"] in kinds and _year(e) == year)


def _studies(logs: Logs, year: int) -> dict[str, Any]:
    begun = _of(logs, year, "study.requested", "study.started")
    method = {e["details"]["study"]: e["details"].get("method", "") for _, e in begun}
    finished = {e["details"]["study"] for _, e in _of(logs, year, "study.finished", "study.received")}
    failed = {e["details"]["study"] for _, e in _of(logs, year, "study.failed")}
    return {
        "started": len(method),
        "finished": len(finished),
        "failed": len(failed),
        "by_method": dict(sorted(Counter(method.values()).items())),
    }


def _decisions(logs: Logs, year: int) -> list[dict[str, Any]]:
    """Return every application of a year and every decision in it, with its days and its last day."""
    rows = []
    for name, entries in sorted(logs.items()):
        if not entries or entries[0]["details"].get("role") != "access_body":
            continue
        where = str(entries[0]["details"].get("country", ""))
        calendar = CALENDARS.get(where, CALENDARS["EU"])
        cases: dict[str, dict[str, Any]] = {}
        for entry in entries:
            details = entry["details"]
            case = cases.setdefault(str(details.get("application", "")), {})
            if entry["kind"] == "application.submitted":
                case |= {"submitted": _at(entry).date(), "title": details.get("title", "")}
            elif details.get("stage") == "ASSESSMENT" or details.get("state") == "PROCESSING":
                case.setdefault("complete", _at(entry).date())
            if entry["kind"] in _DECIDED:
                case |= {"decided": _at(entry).date(), "decision": _DECIDED[entry["kind"]]}
        for identifier, case in cases.items():
            days = [case.get(k) for k in ("submitted", "decided")]
            if "submitted" not in case or not any(d and d.year == year for d in days):
                continue
            begun, decided = case.get("complete"), case.get("decided")
            last = last_of(deadlines()["D4"], begun, calendar) if begun else None
            rows.append(
                {
                    "access_body": name,
                    "application": identifier,
                    "title": case["title"],
                    "submitted": _day(case["submitted"]),
                    "decision": case.get("decision", "open"),
                    "decided": _day(decided),
                    "days": (decided - begun).days if decided and begun else None,
                    "last_day": _day(last),
                    "in_time": decided <= last if decided and last else None,
                }
            )
    return rows


_DECIDED = {"permit.granted": "granted", "permit.refused": "refused", "request.granted": "answer in statistics granted"}


def _day(day: date | None) -> str:
    return day.isoformat() if day else ""


def _refusals(logs: Logs, year: int) -> list[dict[str, Any]]:
    """Return how often each rule was a reason: of access bodies for applications, of gates for studies."""
    found: Counter[tuple[str, str]] = Counter()
    for _, entry in _of(logs, year, "permit.refused", "study.refused"):
        reasons = [str(r) for r in entry["details"].get("reasons", [])]
        cited = reasons[1:] if entry["kind"] == "study.refused" and len(reasons) > 1 else reasons
        found.update((entry["kind"], reason.split(": ", 1)[0][:80]) for reason in cited)
    return [{"of": kind, "reason": reason, "times": n} for (kind, reason), n in found.most_common()]


def _budget(logs: Logs, year: int) -> list[dict[str, Any]]:
    """Return the rounds each permit used at each holder in a year: what its budget counts."""
    used = Counter((str(e["details"].get("permit", "")), name) for name, e in _of(logs, year, "round.answered"))
    return [{"permit": permit, "holder": name, "rounds": n} for (permit, name), n in sorted(used.items())]


def _bodies(logs: Logs, year: int) -> list[dict[str, Any]]:
    names = ("body", "matter", "subject", "outcome", "votes", "reason")
    return [{"at": e["at"], **{n: e["details"].get(n) for n in names}} for _, e in _of(logs, year, "motion.decided")]


def _members(logs: Logs, year: int) -> list[dict[str, Any]]:
    moved = [e for _, e in _of(logs, year, "member.advanced", "motion.decided") if "member" in e["details"]]
    names = ("member", "state", "reason")
    return [{"at": e["at"], **{n: e["details"].get(n) for n in names}} for e in moved]


def _incidents(logs: Logs, year: int) -> list[dict[str, Any]]:
    rows = [
        {"at": e["at"], "in": name, "what": INCIDENTS[e["kind"]], "about": str(e["details"].get("log", ""))}
        for name, e in _of(logs, year, *INCIDENTS)
    ]
    rows += [
        {"at": m["at"], "in": "authority", "what": f"a member was {str(m['state']).lower()}", "about": m["member"]}
        for m in _members(logs, year)
        if m["state"] in _OUT
    ]
    return sorted(rows, key=lambda row: str(row["at"]))
