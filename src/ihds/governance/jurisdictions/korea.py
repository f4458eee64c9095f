"""Republic of Korea: Personal Information Protection Act and Bioethics and Safety Act."""

from __future__ import annotations

from ihds.governance.jurisdiction import Rule
from ihds.privacy.disclosure import Thresholds

COUNTRIES = frozenset({"KR"})
THRESHOLDS = Thresholds.floor()

RULES = (
    Rule(
        "X0",
        "PIPA 28-2; project invariant",
        frozenset({"ROW", "PSEUDO_ROW"}),
        None,
        "records of persons never leave their holder",
    ),
    Rule(
        "X12",
        "PIPA 58-2",
        frozenset({"AGGREGATE", "MODEL"}),
        frozenset({"disclosure_check"}),
        "anonymous information may leave after review",
    ),
    Rule(
        "KR-28-3",
        "PIPA 28-2, 28-3; Bioethics and Safety Act",
        frozenset({"MODEL_UPDATE"}),
        frozenset({"permit", "secure_aggregation", "disclosure_check"}),
        "contributions leave only masked and without combining records",
    ),
    Rule("X9", "PIPA 58-2", frozenset({"METADATA"}), frozenset(), "descriptions hold no person"),
)
