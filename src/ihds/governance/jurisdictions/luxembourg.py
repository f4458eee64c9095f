"""Luxembourg: law of 1 August 2018 (research safeguards, Art. 64-65), beside EU law."""

from __future__ import annotations

from datetime import date

from ihds.governance.rule import DESCRIPTIONS, RESULTS, UPDATES, Certainty, Limit, Rule, Term, all_of
from ihds.privacy.disclosure import Thresholds

COUNTRIES = frozenset({"LU"})
IN_FORCE = date(2018, 8, 20)

LIMITS = (
    Limit(
        "LU-CELL",
        "Law of 1 August 2018, Art. 65",
        Thresholds.floor(),
        "results of research are not to tell of persons; the law names no number: as in the European Union",
        "none; our own choice",
        IN_FORCE,
        Certainty.DESIGN,
    ),
)

EVIDENCE = {
    "research_safeguards": Term("each safeguard of Art. 65 is applied, or its absence is justified in writing"),
    "ethics_opinion": Term("the national research ethics committee (CNER) gave its opinion"),
}

RULES = (
    Rule(
        "LU-65",
        "Law of 1 August 2018, Art. 64-65",
        UPDATES | RESULTS,
        all_of("permit", "audit_log", "research_safeguards"),
        "research needs its safeguards recorded: pseudonymisation, encryption, logs, separation",
        IN_FORCE,
        Certainty.MEMORY,
    ),
    Rule(
        "LU-CNER",
        "Ethics opinion on research with persons",
        UPDATES | RESULTS,
        all_of("ethics_opinion"),
        "research with persons needs the opinion of the national ethics committee",
        IN_FORCE,
        Certainty.MEMORY,
        opens=False,
    ),
    Rule(
        "LU-77",
        "EHDS 77",
        DESCRIPTIONS,
        all_of("catalogue_check"),
        "dataset descriptions are public, once looked through",
        IN_FORCE,
        Certainty.DESIGN,
    ),
)
