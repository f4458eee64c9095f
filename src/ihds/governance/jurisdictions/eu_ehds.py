"""European Union: EHDS Regulation (EU) 2025/327 and the GDPR, for data held in the EU and EEA."""

from __future__ import annotations

from ihds.governance.jurisdiction import Rule
from ihds.privacy.disclosure import Thresholds

COUNTRIES = frozenset(
    "AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE IS LI NO".split()  # noqa: SIM905
)

#: Art. 73(2) lets only non-personal data out but names no number; TEHDAS2 finds 3 to 100 in use.
THRESHOLDS = Thresholds.floor()

RULES = (
    Rule(
        "X0",
        "EHDS 73(2); project invariant",
        frozenset({"ROW", "PSEUDO_ROW"}),
        None,
        "records of persons never leave their holder",
    ),
    Rule(
        "X6",
        "EHDS 73(2)",
        frozenset({"AGGREGATE", "MODEL"}),
        frozenset({"permit", "disclosure_check"}),
        "results leave only under a permit and after a disclosure check",
    ),
    Rule(
        "X8",
        "EHDS 73(2), 68(10)(f); TEHDAS2 FCR-3, FCR-6",
        frozenset({"MODEL_UPDATE"}),
        frozenset({"permit", "secure_aggregation", "disclosure_check"}),
        "contributions leave only masked, by a method the permit names",
    ),
    Rule("X9", "EHDS 77", frozenset({"METADATA"}), frozenset(), "dataset descriptions are public"),
)
