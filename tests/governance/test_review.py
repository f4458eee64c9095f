"""The annual review and the retention of logs, from entries."""

from __future__ import annotations

from datetime import date

import pytest

from ihds.audit.log import EVENTS
from ihds.governance.retention import RETENTIONS, rule_for, standing
from ihds.governance.review import review


def entry(kind, at, **details):
    return {"kind": kind, "at": f"{at}T09:00:00.000+00:00", "actor": "x", "details": details}


BODY = [
    entry("node.created", "2025-12-01", role="access_body", country="LU"),
    entry("application.submitted", "2025-12-20", application="a0", title="Late"),
    entry("application.advanced", "2025-12-20", application="a0", stage="ASSESSMENT"),
    entry("application.submitted", "2026-01-30", application="a1", title="In time"),
    entry("application.advanced", "2026-01-31", application="a1", stage="ASSESSMENT"),
    entry("permit.granted", "2026-04-30", application="a1", permit="p1"),
    entry("permit.refused", "2026-05-04", application="a0", reasons=["R-66-MIN: too much", "R-53: not this purpose"]),
    entry("application.submitted", "2026-12-01", application="a2", title="Open"),
    entry("permit.refused", "2027-01-04", application="a2", reasons=["R-66-MIN: too much"]),
]
HOLDER = [
    entry("node.created", "2026-01-01", role="holder", country="LU"),
    entry("round.answered", "2026-01-05", permit="p1", study="s1"),
    entry("round.answered", "2026-01-06", permit="p1", study="s1"),
    entry("study.refused", "2026-01-07", study="s2", reasons=["no", "EHDS 68(10): the permit is REVOKED"]),
    entry("witness.alarm", "2026-01-21", log="did:web:x"),
    entry("round.answered", "2027-01-01", permit="p1", study="s9"),
]
USER = [
    entry("node.created", "2026-01-01", role="user"),
    entry("application.submitted", "2026-01-30", application="a1"),
    entry("study.started", "2026-01-05", study="s1", method="cox"),
    entry("study.finished", "2026-01-06", study="s1"),
    entry("study.started", "2026-01-07", study="s2", method="cox"),
    entry("study.failed", "2026-01-07", study="s2"),
]
AUTHORITY = [
    entry("node.created", "2026-01-01", role="authority"),
    entry(
        "motion.decided",
        "2026-03-01",
        body="steering",
        matter="suspend",
        outcome="CARRIED",
        member="m",
        state="SUSPENDED",
    ),
]
LOGS = {"body": BODY, "lih": HOLDER, "user": USER, "authority": AUTHORITY}


def test_a_year_is_told_from_the_logs():
    facts = review(LOGS, 2026)
    assert facts["studies"] == {"started": 2, "finished": 1, "failed": 1, "by_method": {"cox": 2}}
    decided = {d["title"]: d for d in facts["decisions"]}
    assert set(decided) == {"Late", "In time", "Open"}
    assert (decided["In time"]["decision"], decided["In time"]["days"]) == ("granted", 89)
    assert (decided["In time"]["last_day"], decided["In time"]["in_time"]) == ("2026-04-30", True)
    assert (decided["Late"]["last_day"], decided["Late"]["in_time"]) == ("2026-03-20", False)
    assert facts["refusals"][0]["times"] == 1
    assert {r["reason"] for r in facts["refusals"]} == {"R-66-MIN", "R-53", "EHDS 68(10)"}
    assert facts["budget"] == [{"permit": "p1", "holder": "lih", "rounds": 2}]
    assert [b["outcome"] for b in facts["bodies"]] == ["CARRIED"]
    assert [i["what"] for i in facts["incidents"]] == ["a log was rolled back or rewritten", "a member was suspended"]


def test_another_year_tells_another_story():
    facts = review(LOGS, 2027)
    assert [d["decision"] for d in facts["decisions"]] == ["refused"]
    assert facts["studies"]["started"] == 0
    assert facts["budget"] == [{"permit": "p1", "holder": "lih", "rounds": 1}]


@pytest.mark.parametrize(
    ("kind", "country", "rule"),
    [
        ("round.answered", "LU", "RET-STUDY"),
        ("permit.granted", "LU", "RET-PERMIT"),
        ("permit.granted", "US", "RET-PERMIT"),
        ("key.rotated", "KR", "RET-CHAIN"),
    ],
)
def test_the_longest_duty_to_keep_wins(kind, country, rule):
    found = rule_for(kind, country)
    assert found.id == rule
    assert {"RET-LOG", "RET-KR", "RET-US", rule} >= {r.id for r in RETENTIONS if r.covers(kind, country)} - {rule}


def test_what_may_go_is_what_is_past_its_last_day():
    rows = {r["kind"]: r for r in standing(HOLDER, "LU", date(2036, 1, 6))}
    assert (rows["round.answered"]["kept_until"], rows["round.answered"]["may_go"]) == ("2036-01-05", 1)
    assert rows["node.created"]["may_go"] == 0
    assert standing([entry("unheard.of", "2000-01-01")], "LU", date(2100, 1, 1))[0]["kept_until"] == "for good"


def test_no_rule_is_about_events_that_do_not_exist():
    heads = {kind.split(".")[0] for kind in EVENTS}
    assert {k for r in RETENTIONS for k in r.kinds} <= heads
