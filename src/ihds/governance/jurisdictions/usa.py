"""United States: HIPAA de-identification and the bulk-data rule of 28 CFR 202."""

from __future__ import annotations

from ihds.governance.jurisdiction import Rule
from ihds.privacy.disclosure import Thresholds

COUNTRIES = frozenset({"US"})
THRESHOLDS = Thresholds.floor()

RULES = (
    Rule(
        "X0",
        "45 CFR 164.514; project invariant",
        frozenset({"ROW", "PSEUDO_ROW"}),
        None,
        "records of persons never leave their holder",
    ),
    Rule(
        "X13",
        "45 CFR 164.514(a)",
        frozenset({"AGGREGATE", "MODEL"}),
        frozenset({"disclosure_check", "no_country_of_concern"}),
        "aggregates may leave after review, not to a country of concern",
    ),
    Rule(
        "X14",
        "28 CFR 202.302, 202.303",
        frozenset({"MODEL_UPDATE"}),
        frozenset({"permit", "secure_aggregation", "disclosure_check", "no_country_of_concern"}),
        "contributions leave only masked, never to a country of concern",
    ),
    Rule("X9", "45 CFR 164.514", frozenset({"METADATA"}), frozenset(), "descriptions hold no person"),
)

#: 28 CFR 202.601: China with Hong Kong and Macau, Cuba, Iran, North Korea, Russia, Venezuela.
COUNTRIES_OF_CONCERN = frozenset(["CN", "HK", "MO", "CU", "IR", "KP", "RU", "VE"])
