"""European Union: EHDS Regulation (EU) 2025/327 and the GDPR, for data held in the EU and EEA.

The EHDS applies in steps (Art. 105): third countries (Chapter V) from 2027, permits and secure
processing (Chapter IV) from 2029, genetic, omic, trial and cohort data from 2031. Until then, and for
recipients it does not admit, agreements beside it (Art. 1(8)) rest on the GDPR.
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

COUNTRIES = EU_EEA

GDPR = date(2018, 5, 25)
CHAPTER_V = date(2027, 3, 26)
CHAPTER_IV = date(2029, 3, 26)
#: Determinants, genetic and omic data, trials, research cohorts (51(1)(b)(f)(g)(m)(p)).
LATE_CATEGORIES = date(2031, 3, 26)
KOREA_ADEQUATE = date(2021, 12, 17)
US_FRAMEWORK = date(2023, 7, 10)

#: Third countries whose applicants an act admits (Art. 75(5), 91(2)), with its day; none is known.
ADMITTED: dict[str, date] = {}


def eligible(country: str, on: date) -> bool:
    """Return whether an applicant established there may hold a permit on a day."""
    return country in EU_EEA or (country in ADMITTED and ADMITTED[country] <= on)


EVIDENCE = {
    "access_body_review": Term("the access body, or a check it authorised, reviewed what leaves"),
    "category_applies": Term("the data are of no category that Chapter IV reaches only in 2031"),
    "eligible_applicant": Term("the permit's holder is established in the EU or EEA, or in a country an act names"),
    "third_country_clause": Term("the permit names the third country and its conditions", of_recipient=True),
    "not_highly_sensitive": Term("not few persons, no rare disease, no small area, no genomic counts (Art. 88)"),
    "access_body_sign_off": Term("the access body signed off what goes to a third country", of_recipient=True),
    "no_reidentification_clause": Term("a contract forbids re-identification and passing on", of_recipient=True),
    "legal_sign_off": Term("counsel confirmed that the adequacy decision reaches this sector", of_recipient=True),
    "adequacy_scope": Term(
        "the recipient is no religious mission, political party or credit-information body", of_recipient=True
    ),
}

LIMITS = (
    Limit(
        "X9-CELL",
        "EHDS 73(2); GDPR recital 26",
        Thresholds.floor(),
        "only non-personal data leave; the article names no number, so the least in use at access bodies holds",
        "TEHDAS2: 3 to 100 persons in use",
        GDPR,
        Certainty.SECONDARY,
    ),
)

_EHDS, _CONTRACT = frozenset({"ehds"}), frozenset({"contract"})
_THIRD = outside("the EU and EEA", EU_EEA)

RULES = (
    Rule(
        "X0",
        "EHDS 73(2), GDPR 5(1)(c); project invariant",
        RECORDS,
        NEVER,
        "records of persons never leave their holder",
        GDPR,
        Certainty.DESIGN,
    ),
    Rule(
        "X1",
        "EHDS 91, 75(5)",
        UPDATES | RESULTS,
        all_of("eligible_applicant"),
        "under a permit, an applicant of a third country must be named by an act; today none is",
        CHAPTER_V,
        Certainty.READ,
        regimes=_EHDS,
        destinations=_THIRD,
        opens=False,
    ),
    Rule(
        "X2",
        "GDPR 44; EDPB Guidelines 05/2021",
        UPDATES | RESULTS,
        all_of("third_country_clause"),
        "persons of a permit who work in a third country need its clause for them",
        CHAPTER_V,
        Certainty.MEMORY,
        regimes=_EHDS,
        destinations=_THIRD,
        opens=False,
    ),
    Rule(
        "X3",
        "EHDS 87",
        UPDATES,
        NEVER,
        "under a permit, data are processed in the EU, the EEA or an adequate country",
        CHAPTER_V,
        Certainty.READ,
        regimes=_EHDS,
        destinations=outside("the EU, EEA, KR and US", EU_EEA | {"KR", "US"}),
        opens=False,
    ),
    Rule(
        "X3-US",
        "EHDS 87(2); Decision (EU) 2023/1795",
        UPDATES,
        all_of("dpf_certified", "legal_sign_off"),
        "processing in the United States is adequate only with a certified operator",
        CHAPTER_V,
        Certainty.MEMORY,
        regimes=_EHDS,
        destinations=to("US", frozenset({"US"})),
        opens=False,
    ),
    Rule(
        "X4",
        "GDPR 45; Decision (EU) 2022/254",
        UPDATES,
        all_of("adequacy_scope"),
        "Korea is adequate, but not for missions, parties and credit information",
        KOREA_ADEQUATE,
        Certainty.SECONDARY,
        destinations=to("KR", frozenset({"KR"})),
        opens=False,
    ),
    Rule(
        "X5",
        "GDPR 45, 46; Decision (EU) 2023/1795; Decision (EU) 2021/914",
        UPDATES,
        any_of({"dpf_certified"}, {"standard_clauses", "transfer_assessment"}),
        "the United States need a certified recipient or clauses with an assessment",
        US_FRAMEWORK,
        Certainty.MEMORY,
        destinations=to("US", frozenset({"US"})),
        opens=False,
    ),
    Rule(
        "X5-US-2020",
        "GDPR 46; CJEU C-311/18",
        UPDATES,
        all_of("standard_clauses", "transfer_assessment"),
        "before the present framework, the United States needed clauses with an assessment",
        GDPR,
        Certainty.MEMORY,
        until=US_FRAMEWORK,
        destinations=to("US", frozenset({"US"})),
        opens=False,
    ),
    Rule(
        "X5-KR-2021",
        "GDPR 46",
        UPDATES,
        all_of("standard_clauses", "transfer_assessment"),
        "before its adequacy decision, Korea needed clauses with an assessment",
        GDPR,
        Certainty.MEMORY,
        until=KOREA_ADEQUATE,
        destinations=to("KR", frozenset({"KR"})),
        opens=False,
    ),
    Rule(
        "X5-OTHER",
        "GDPR 46",
        UPDATES,
        all_of("standard_clauses", "transfer_assessment"),
        "another third country needs clauses with an assessment",
        GDPR,
        Certainty.MEMORY,
        destinations=outside("the EU, EEA, KR and US", EU_EEA | {"KR", "US"}),
        opens=False,
    ),
    Rule(
        "X6",
        "EHDS 73(2)",
        RESULTS,
        all_of("permit", "disclosure_check", "access_body_review"),
        "results leave only as non-personal data, reviewed by the access body",
        CHAPTER_IV,
        Certainty.SECONDARY,
        regimes=_EHDS,
    ),
    Rule(
        "X6-CONTRACT",
        "EHDS 1(8); GDPR 89(1)",
        RESULTS,
        all_of("permit", "disclosure_check"),
        "results leave only under an agreed permission and after a disclosure check",
        GDPR,
        Certainty.DESIGN,
        regimes=_CONTRACT,
    ),
    Rule(
        "X7",
        "EHDS 88, 89",
        RESULTS,
        any_of({"not_highly_sensitive"}, {"access_body_sign_off", "no_reidentification_clause"}),
        "anonymised data that could be traced back go to third countries only under protection",
        CHAPTER_V,
        Certainty.READ,
        regimes=_EHDS,
        destinations=_THIRD,
        opens=False,
    ),
    Rule(
        "X8",
        "EHDS 73(2), 68(10)(f); TEHDAS2 FCR-3, FCR-6",
        UPDATES,
        all_of("permit", "secure_aggregation", "disclosure_check"),
        "contributions leave only masked, by a method the permit names",
        CHAPTER_IV,
        Certainty.SECONDARY,
        regimes=_EHDS,
    ),
    Rule(
        "X8-CONTRACT",
        "EHDS 1(8); GDPR 25, 89(1)",
        UPDATES,
        all_of("permit", "secure_aggregation", "disclosure_check"),
        "contributions leave only masked, by a method the permission names",
        GDPR,
        Certainty.DESIGN,
        regimes=_CONTRACT,
    ),
    Rule(
        "X51",
        "EHDS 51(1), 105",
        UPDATES | RESULTS,
        all_of("category_applies"),
        "genetic, omic, trial, cohort and determinant data come under permits only in 2031",
        CHAPTER_IV,
        Certainty.SECONDARY,
        until=LATE_CATEGORIES,
        regimes=_EHDS,
        opens=False,
    ),
    Rule(
        "X9",
        "EHDS 77, 79",
        DESCRIPTIONS,
        all_of("catalogue_check"),
        "dataset descriptions are public, once looked through",
        GDPR,
        Certainty.DESIGN,
    ),
)
