"""United States: HIPAA, the Common Rule, NIH policy and the bulk-data rule of 28 CFR 202.

An EHDS permit has no force here: what leaves rests on agreements, so every rule that opens is of the
regime "contract".
"""

from __future__ import annotations

from datetime import date

from ihds.governance.countries import COUNTRIES_OF_CONCERN
from ihds.governance.rule import (
    ARTEFACTS,
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

COUNTRIES = frozenset({"US"})

PRIVACY_RULE = date(2003, 4, 14)
COMMON_RULE = date(2019, 1, 21)
BULK_DATA_RULE = date(2025, 4, 8)
NIH_SECURITY = date(2025, 1, 25)

EVIDENCE = {
    "safe_harbor": Term("the eighteen identifiers were removed (164.514(b)(2))"),
    "expert_determination": Term(
        "an expert found the risk very small, and the finding has not expired (164.514(b)(1))"
    ),
    "data_use_agreement": Term(
        "a limited data set is used under a signed agreement that lists the recipients (164.514(e))", of_recipient=True
    ),
    "recipient_screened": Term(
        "neither the recipient nor its staff is a covered person (28 CFR 202.211)", of_recipient=True
    ),
    "no_onward_clause": Term(
        "a contract forbids passing on to a country of concern and asks to report breaches", of_recipient=True
    ),
    "federal_grant": Term("a federal grant or contract directs the transaction (28 CFR 202.504)", of_recipient=True),
    "no_nih_controlled_data": Term("no controlled-access data of the NIH are among the data"),
    "nih_data_access": Term(
        "an NIH data access request in force names project and users; the node meets SP 800-171", of_recipient=True
    ),
}

LIMITS = (
    Limit(
        "US-CELL",
        "45 CFR 164.514(a), (b)(1)",
        Thresholds.floor(),
        "the risk of identifying a person is very small; the rule names no number, CMS asks for 11 of its own data",
        "CMS cell size suppression policy: no cell of 1 to 10",
        PRIVACY_RULE,
        Certainty.MEMORY,
    ),
)

_CONTRACT = frozenset({"contract"})
_ABROAD = outside("US", COUNTRIES)

RULES = (
    Rule(
        "X0",
        "45 CFR 164.502, 164.514; project invariant",
        RECORDS,
        NEVER,
        "records of persons never leave their holder",
        PRIVACY_RULE,
        Certainty.DESIGN,
    ),
    Rule(
        "X13",
        "45 CFR 164.514(a), (b)",
        RESULTS,
        any_of({"disclosure_check", "safe_harbor"}, {"disclosure_check", "expert_determination"}),
        "results leave as de-identified information, after a disclosure check",
        PRIVACY_RULE,
        Certainty.MEMORY,
        regimes=_CONTRACT,
    ),
    Rule(
        "X13-UPDATE",
        "45 CFR 164.514(b), (e)",
        UPDATES,
        any_of(
            *(
                {"permit", "secure_aggregation", "disclosure_check", status}
                for status in ("safe_harbor", "expert_determination", "data_use_agreement")
            )
        ),
        "contributions leave only masked, from de-identified data or a limited data set",
        PRIVACY_RULE,
        Certainty.MEMORY,
        regimes=_CONTRACT,
    ),
    Rule(
        "US-46",
        "45 CFR 46.109, 46.104(d)(4)",
        UPDATES | RESULTS,
        any_of({"irb_approval"}, {"irb_exemption"}),
        "research with persons needs its ethics board, or an exemption",
        COMMON_RULE,
        Certainty.MEMORY,
        opens=False,
    ),
    Rule(
        "US-NIH",
        "NIH Genomic Data Sharing Policy; NOT-OD-24-157",
        UPDATES | RESULTS,
        any_of({"no_nih_controlled_data"}, {"nih_data_access"}),
        "controlled-access data keep their access request, users and security",
        NIH_SECURITY,
        Certainty.READ,
        opens=False,
    ),
    Rule(
        "US-DSP",
        "28 CFR 202.302, 202.211, 202.504",
        UPDATES | RESULTS,
        any_of({"recipient_screened", "no_onward_clause"}, {"recipient_screened", "federal_grant"}),
        "foreign recipients are screened and bound not to pass on, whatever the numbers of persons",
        BULK_DATA_RULE,
        Certainty.MEMORY,
        destinations=_ABROAD,
        opens=False,
    ),
    Rule(
        "X14",
        "28 CFR 202.301, 202.303, 202.601",
        frozenset(ARTEFACTS),
        NEVER,
        "nothing goes to a country of concern, whatever the numbers of persons",
        BULK_DATA_RULE,
        Certainty.DESIGN,
        destinations=to("a country of concern", COUNTRIES_OF_CONCERN),
        opens=False,
    ),
    Rule(
        "X9",
        "45 CFR 164.514",
        DESCRIPTIONS,
        all_of("catalogue_check"),
        "descriptions hold no person, once looked through",
        PRIVACY_RULE,
        Certainty.DESIGN,
    ),
)
