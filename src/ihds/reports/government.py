"""The annual review as a document."""

from __future__ import annotations

from typing import Any

from ihds.reports.document import Document


def annual(facts: dict[str, Any]) -> Document:
    """Return the review of a year in words and tables."""
    made = Document(f"Annual review of the data space, {facts['year']}")
    known = ", ".join(f"{name} ({n} events)" for name, n in facts["logs"].items())
    made.say(f"From the logs of {known}. What is in no log is not in this review.")
    made.heading("Studies")
    studies = facts["studies"]
    made.say(
        f"{studies['started']} were started, {studies['finished']} ended with a result, {studies['failed']} without."
    )
    made.table([{"method": m, "studies": n} for m, n in studies["by_method"].items()], ("method", "studies"))
    made.heading(
        "Decisions on applications, against the clock (EHDS 68(4): three months from the complete application)"
    )
    columns = ("title", "submitted", "decision", "decided", "days", "last_day", "in_time")
    made.table(facts["decisions"], columns)
    made.heading("Refusals by reason")
    made.table(facts["refusals"], ("of", "reason", "times"))
    made.heading("Privacy budget: rounds used")
    made.table(facts["budget"], ("permit", "holder", "rounds"))
    made.heading("Decisions of the bodies")
    made.table(facts["bodies"], ("at", "body", "matter", "subject", "outcome", "votes", "reason"))
    made.heading("Members")
    made.table(facts["members"], ("at", "member", "state", "reason"))
    made.heading("Incidents")
    made.table(facts["incidents"], ("at", "in", "what", "about"))
    return made
