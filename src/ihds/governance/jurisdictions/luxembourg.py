"""Luxembourg: law of 1 August 2018 (research safeguards, Art. 64-65), beside EU law."""

from __future__ import annotations

from ihds.governance.jurisdiction import Rule
from ihds.privacy.disclosure import Thresholds

COUNTRIES = frozenset({"LU"})
THRESHOLDS = Thresholds.floor()

RULES = (
    Rule(
        "LU-65",
        "Law of 1 August 2018, Art. 65",
        frozenset({"AGGREGATE", "MODEL", "MODEL_UPDATE"}),
        frozenset({"permit", "audit_log"}),
        "research use needs recorded safeguards: pseudonymisation, encryption, logs",
    ),
    Rule("LU-77", "EHDS 77", frozenset({"METADATA"}), frozenset(), "dataset descriptions are public"),
)
