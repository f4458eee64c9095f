"""Republic of Korea: Personal Information Protection Act (PIPA) and Bioethics and Safety Act.

An EHDS permit has no force here: what leaves Korea rests on agreements, so every rule that opens is of
the regime "contract".
"""

from __future__ import annotations

from datetime import date

from ihds.governance.countries import EU_EEA
from ihds.governance.rule import (
    DESCRIPTIONS,
    NEVER,
    RECORDS,
    RESULTS,
    UPDATES,
    Certainty,
    Limit,
    Rule,
    Term,
    all_of,
    any_of,
    outside,
    to,
)
from ihds.privacy.disclosure import Thresholds

COUNTRIES = frozenset({"KR"})

#: Pseudonymised information (28-2 and on) came with the revision of 2020, transfers abroad (28-8) with that of 2023.
PSEUDONYMISED = date(2020, 8, 5)
ABROAD = date(2023, 9, 15)
#: The PIPC recognised the EU and EEA as equivalent.
EU_EQUIVALENT = date(2025, 9, 16)

EVIDENCE = {
    "drb_approval": Term("the hospital's data review board approved use and adequacy of pseudonymisation"),
    "export_review": Term("the closed environment or the data provider reviewed what leaves it"),
    "expert_agency_release": Term("a designated expert agency combined the records and allowed their release"),
    "no_resident_number": Term("no resident registration number is among the data"),
    "no_credit_information": Term("no personal credit information is among the data"),
    "separate_consent": Term("the persons consented separately to the transfer abroad", of_recipient=True),
    "treaty_basis": Term("a law or treaty provides for the transfer abroad", of_recipient=True),
    "outsourcing_disclosed": Term(
        "the transfer is outsourcing or storage a contract needs, and was disclosed", of_recipient=True
    ),
    "recognised_certification": Term("the recipient holds a certification the PIPC recognises", of_recipient=True),
}

LIMITS = (
    Limit(
        "KR-CELL",
        "PIPA 2(1), 28-2, 58-2",
        Thresholds.floor(),
        "the act does not reach what no longer tells of a person; it names no number: as in the European Union",
        "none; our own choice",
        PSEUDONYMISED,
        Certainty.DESIGN,
    ),
)

_CONTRACT = frozenset({"contract"})
_GROUNDS = any_of({"separate_consent"}, {"treaty_basis"}, {"outsourcing_disclosed"}, {"recognised_certification"})

RULES = (
    Rule(
        "X0",
        "PIPA 28-2; project invariant",
        RECORDS,
        NEVER,
        "records of persons never leave their holder",
        PSEUDONYMISED,
        Certainty.DESIGN,
    ),
    Rule(
        "KR-28-2",
        "PIPA 28-2",
        UPDATES,
        all_of("permit", "research_purpose", "secure_aggregation", "disclosure_check"),
        "pseudonymised information serves research and statistics without consent; only masked sums leave",
        PSEUDONYMISED,
        Certainty.READ,
        regimes=_CONTRACT,
    ),
    Rule(
        "KR-28-3",
        "PIPA 28-3; Decree 29-3",
        UPDATES | RESULTS,
        any_of({"no_linkage"}, {"expert_agency_release"}),
        "records of several controllers are combined only by a designated agency",
        PSEUDONYMISED,
        Certainty.READ,
        opens=False,
    ),
    Rule(
        "KR-BSA",
        "Bioethics and Safety Act; health data utilisation guideline",
        UPDATES | RESULTS,
        any_of({"irb_approval", "drb_approval"}, {"irb_exemption", "drb_approval"}),
        "every dataset needs its ethics board, or an exemption, and its data review board",
        date(2013, 2, 2),
        Certainty.MEMORY,
        opens=False,
    ),
    Rule(
        "KR-24-2",
        "PIPA 24-2",
        UPDATES | RESULTS,
        all_of("no_resident_number"),
        "resident registration numbers are processed only where a statute says so",
        date(2014, 8, 7),
        Certainty.MEMORY,
        opens=False,
    ),
    Rule(
        "X10",
        "PIPA 28-8(1)5; PIPC recognition of the EU",
        UPDATES,
        all_of("no_credit_information"),
        "the EU and EEA are equivalent, but not for credit information",
        EU_EQUIVALENT,
        Certainty.SECONDARY,
        destinations=to("the EU and EEA", EU_EEA),
        opens=False,
    ),
    Rule(
        "X11",
        "PIPA 28-8(1)",
        UPDATES,
        _GROUNDS,
        "a country without recognised equivalence needs consent, law, outsourcing or certification",
        ABROAD,
        Certainty.SECONDARY,
        destinations=outside("the EU, EEA and KR", EU_EEA | {"KR"}),
        opens=False,
    ),
    Rule(
        "X11-EU-2023",
        "PIPA 28-8(1)",
        UPDATES,
        _GROUNDS,
        "before equivalence, the EU too needed consent, law, outsourcing or certification",
        ABROAD,
        Certainty.SECONDARY,
        until=EU_EQUIVALENT,
        destinations=to("the EU and EEA", EU_EEA),
        opens=False,
    ),
    Rule(
        "X12",
        "PIPA 58-2",
        RESULTS,
        all_of("disclosure_check", "export_review"),
        "anonymous information may leave once the closed environment has reviewed it",
        PSEUDONYMISED,
        Certainty.MEMORY,
        regimes=_CONTRACT,
    ),
    Rule(
        "X9",
        "PIPA 58-2",
        DESCRIPTIONS,
        all_of("catalogue_check"),
        "descriptions hold no person, once looked through",
        PSEUDONYMISED,
        Certainty.DESIGN,
    ),
)
