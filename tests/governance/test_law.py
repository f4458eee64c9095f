"""The law as data: rules are whole, the strictest wins, silence is no, every rule is felt, one file adds a law."""

from __future__ import annotations

import dataclasses
import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihds.cli import main
from ihds.errors import SetupFailed
from ihds.governance import jurisdiction, jurisdictions
from ihds.governance.jurisdiction import (
    Export,
    evidence_terms,
    explained,
    judge,
    may_be_shown,
    may_leave,
    shown_of,
    thresholds,
    unknown_evidence,
)
from ihds.governance.jurisdictions import eu_ehds
from ihds.governance.policy import Granted, Refused
from ihds.governance.rule import ARTEFACTS, NEVER, REGIMES, Certainty, Rule
from ihds.governance.truth import DESTINATIONS, ORIGINS, as_csv, truth_table
from ihds.privacy.disclosure import Thresholds
from ihds.roles.config import DatasetConfig
from tests.conftest import ROOT, generated_docs

TODAY = date(2026, 12, 1)
PERMITS, OMICS = date(2029, 4, 1), date(2031, 4, 1)
ALL = frozenset(evidence_terms())
LAWS = jurisdiction.jurisdictions()


def granted(artefact, origin, destination, regime="contract", on=TODAY, without=(), evidence=ALL):
    return isinstance(may_leave(Export(artefact, origin, destination, regime, evidence - set(without)), on), Granted)


def refusal(artefact, origin, destination, regime="contract", on=TODAY, evidence=ALL):
    decision = may_leave(Export(artefact, origin, destination, regime, frozenset(evidence)), on)
    assert isinstance(decision, Refused)
    return " ".join(decision.reasons)


def test_every_rule_has_id_article_days_and_certainty_and_asks_only_for_known_evidence():
    assert set(LAWS) >= {"eu_ehds", "luxembourg", "korea", "usa"}
    for law in LAWS.values():
        assert len({r.id for r in law.RULES}) == len(law.RULES)
        for rule in law.RULES:
            assert rule.id
            assert rule.article
            assert rule.text
            assert isinstance(rule.certainty, Certainty)
            assert rule.until is None or rule.since < rule.until
            assert rule.artefacts <= set(ARTEFACTS)
            assert rule.regimes <= set(REGIMES)
            assert frozenset().union(*rule.needs) <= ALL


# -- each rule: what it lets through and what it stops ----------------------------------------------


@pytest.mark.parametrize("rule", ["eu_ehds X0", "korea X0", "usa X0"])
def test_records_never_leave_whatever_is_shown(rule):
    origin = {"eu_ehds": "DE", "korea": "KR", "usa": "US"}[rule.split()[0]]
    for artefact in ("ROW", "PSEUDONYMISED_ROW"):
        for regime in REGIMES:
            export = Export(artefact, origin, "DE", regime, ALL)
            assert judge(export, OMICS).would_help == NEVER
            assert "never leave their holder" in refusal(artefact, origin, "DE", regime, OMICS)


@pytest.mark.parametrize(
    ("rule", "artefact", "origin", "destination", "regime", "on", "evidence"),
    [
        ("eu_ehds X1", "AGGREGATE", "DE", "KR", "ehds", PERMITS, "eligible_applicant"),
        ("eu_ehds X2", "AGGREGATE", "DE", "KR", "ehds", PERMITS, "third_country_clause"),
        ("eu_ehds X3-US", "MODEL_UPDATE", "DE", "US", "ehds", PERMITS, "legal_sign_off"),
        ("eu_ehds X4", "MODEL_UPDATE", "DE", "KR", "contract", TODAY, "adequacy_scope"),
        ("eu_ehds X5-OTHER", "MODEL_UPDATE", "DE", "BR", "contract", TODAY, "transfer_assessment"),
        ("eu_ehds X5-US-2020", "MODEL_UPDATE", "DE", "US", "contract", date(2022, 1, 1), "standard_clauses"),
        ("eu_ehds X5-KR-2021", "MODEL_UPDATE", "DE", "KR", "contract", date(2021, 1, 1), "standard_clauses"),
        ("eu_ehds X6", "MODEL", "DE", "LU", "ehds", PERMITS, "access_body_review"),
        ("eu_ehds X6-CONTRACT", "MODEL", "DE", "LU", "contract", TODAY, "disclosure_check"),
        ("eu_ehds X8", "MODEL_UPDATE", "DE", "LU", "ehds", PERMITS, "secure_aggregation"),
        ("eu_ehds X8-CONTRACT", "MODEL_UPDATE", "DE", "LU", "contract", TODAY, "secure_aggregation"),
        ("eu_ehds X51", "AGGREGATE", "DE", "LU", "ehds", PERMITS, "category_applies"),
        ("luxembourg LU-65", "MODEL_UPDATE", "LU", "LU", "contract", TODAY, "research_safeguards"),
        ("luxembourg LU-CNER", "MODEL", "LU", "LU", "contract", TODAY, "ethics_opinion"),
        ("korea KR-28-2", "MODEL_UPDATE", "KR", "LU", "contract", TODAY, "research_purpose"),
        ("korea KR-BSA", "MODEL", "KR", "LU", "contract", TODAY, "drb_approval"),
        ("korea KR-24-2", "AGGREGATE", "KR", "US", "contract", TODAY, "no_resident_number"),
        ("korea X10", "MODEL_UPDATE", "KR", "LU", "contract", TODAY, "no_credit_information"),
        ("korea X12", "AGGREGATE", "KR", "US", "contract", TODAY, "export_review"),
        ("usa US-DSP", "AGGREGATE", "US", "LU", "contract", TODAY, "recipient_screened"),
    ],
)
def test_a_rule_stops_what_lacks_its_evidence(rule, artefact, origin, destination, regime, on, evidence):
    export = Export(artefact, origin, destination, regime, ALL)
    assert isinstance(may_leave(export, on), Granted)
    judged = judge(dataclasses.replace(export, evidence=ALL - {evidence}), on)
    assert isinstance(judged.decision, Refused)
    assert any(f"{f.law} {f.rule.id}" == rule for f in judged.findings if not f.holds)
    assert (frozenset({evidence})) in judged.would_help


@pytest.mark.parametrize(
    ("rule", "artefact", "origin", "destination", "regime", "on", "sets"),
    [
        (
            "eu_ehds X5",
            "MODEL_UPDATE",
            "DE",
            "US",
            "contract",
            TODAY,
            [{"dpf_certified"}, {"standard_clauses", "transfer_assessment"}],
        ),
        (
            "eu_ehds X7",
            "AGGREGATE",
            "DE",
            "KR",
            "ehds",
            PERMITS,
            [{"not_highly_sensitive"}, {"access_body_sign_off", "no_reidentification_clause"}],
        ),
        ("korea KR-28-3", "MODEL", "KR", "LU", "contract", TODAY, [{"no_linkage"}, {"expert_agency_release"}]),
        (
            "korea X11",
            "MODEL_UPDATE",
            "KR",
            "US",
            "contract",
            TODAY,
            [{"separate_consent"}, {"treaty_basis"}, {"outsourcing_disclosed"}, {"recognised_certification"}],
        ),
        (
            "korea X11-EU-2023",
            "MODEL_UPDATE",
            "KR",
            "LU",
            "contract",
            date(2025, 9, 15),
            [{"separate_consent"}, {"treaty_basis"}, {"outsourcing_disclosed"}, {"recognised_certification"}],
        ),
        ("usa X13", "AGGREGATE", "US", "US", "contract", TODAY, [{"safe_harbor"}, {"expert_determination"}]),
        (
            "usa X13-UPDATE",
            "MODEL_UPDATE",
            "US",
            "US",
            "contract",
            TODAY,
            [{"safe_harbor"}, {"expert_determination"}, {"data_use_agreement"}],
        ),
        ("usa US-46", "MODEL", "US", "US", "contract", TODAY, [{"irb_approval"}, {"irb_exemption"}]),
        ("usa US-NIH", "MODEL", "US", "US", "contract", TODAY, [{"no_nih_controlled_data"}, {"nih_data_access"}]),
        ("usa US-DSP", "MODEL", "US", "KR", "contract", TODAY, [{"no_onward_clause"}, {"federal_grant"}]),
    ],
)
def test_any_one_of_several_grounds_is_enough(rule, artefact, origin, destination, regime, on, sets):
    bare = ALL - frozenset().union(*sets)
    judged = judge(Export(artefact, origin, destination, regime, bare), on)
    assert [f"{f.law} {f.rule.id}" for f in judged.findings if not f.holds] == [rule]
    assert set(judged.would_help) == {frozenset(s) for s in sets}
    for enough in sets:
        assert granted(artefact, origin, destination, regime, on, evidence=bare | frozenset(enough))


@pytest.mark.parametrize(("rule", "destination"), [("eu_ehds X3", "BR"), ("eu_ehds X3", "CN")])
def test_under_a_permit_nothing_is_processed_in_a_country_without_adequacy(rule, destination):
    assert "adequate country" in refusal("MODEL_UPDATE", "DE", destination, "ehds", PERMITS)
    assert granted("MODEL_UPDATE", "DE", "KR", "ehds", PERMITS)


@pytest.mark.parametrize("rule", ["usa X14"])
@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_nothing_goes_from_the_united_states_to_a_country_of_concern(artefact, rule):
    for destination in ("CN", "HK", "MO", "CU", "IR", "KP", "RU", "VE"):
        assert rule.split()[1] in refusal(artefact, "US", destination)
    assert granted("METADATA", "US", "CN", on=date(2025, 4, 7))
    assert not granted("METADATA", "US", "CN", on=date(2025, 4, 8))


@pytest.mark.parametrize("rule", ["eu_ehds X9", "luxembourg LU-77", "korea X9", "usa X9"])
def test_descriptions_are_public_once_looked_through(rule):
    origin = {"eu_ehds": "DE", "luxembourg": "LU", "korea": "KR", "usa": "US"}[rule.split()[0]]
    assert granted("METADATA", origin, "KR", evidence=frozenset({"catalogue_check"}))
    assert rule in refusal("METADATA", origin, "KR", evidence=())


# -- days, regimes, silence -------------------------------------------------------------------------


def test_a_permit_opens_nothing_before_its_chapter_applies():
    said = refusal("MODEL_UPDATE", "DE", "LU", "ehds", date(2029, 3, 25))
    assert "no rule in force on 2029-03-25" in said
    assert "X8 opens it from 2029-03-26" in said
    assert granted("MODEL_UPDATE", "DE", "LU", "ehds", date(2029, 3, 26))
    # third-country rules apply two years earlier, but conditions alone open nothing
    assert not granted("AGGREGATE", "DE", "KR", "ehds", date(2028, 1, 1))


def test_genetic_and_cohort_data_wait_for_2031():
    assert not granted("MODEL", "DE", "LU", "ehds", date(2031, 3, 25), without={"category_applies"})
    assert granted("MODEL", "DE", "LU", "ehds", date(2031, 3, 26), without={"category_applies"})


def test_a_permit_of_the_union_has_no_force_in_korea_and_the_united_states():
    for origin in ("KR", "US"):
        assert "no rule in force" in refusal("MODEL_UPDATE", origin, "LU", "ehds", OMICS)
        assert granted("MODEL_UPDATE", origin, "LU", "contract", OMICS)


def test_no_rule_means_no():
    assert "no jurisdiction" in refusal("AGGREGATE", "BR", "LU")
    assert "no country" in refusal("METADATA", "LU", "")
    assert "no country" in refusal("METADATA", "US", "cn")
    assert "no country" in refusal("METADATA", "US", "ZZ")
    assert "no rule in force" in refusal("AGGREGATE", "LU", "LU", "handshake")
    assert "no rule in force" in refusal("EMBEDDING", "LU", "LU")


def test_an_applicant_of_a_third_country_becomes_eligible_on_the_day_of_an_act(monkeypatch):
    assert not eu_ehds.eligible("KR", OMICS)
    monkeypatch.setitem(eu_ehds.ADMITTED, "KR", date(2035, 3, 26))
    assert not eu_ehds.eligible("KR", date(2035, 3, 25))
    assert eu_ehds.eligible("KR", date(2035, 3, 26))


def test_what_is_made_of_several_origins_asks_them_all():
    """X15: shown on to a partner, a result is judged anew under every origin's law."""
    export = Export("AGGREGATE", "LU", "CN", "contract", ALL)
    assert isinstance(may_be_shown(export, frozenset({"LU", "KR"}), TODAY), Granted)
    shown = may_be_shown(export, frozenset({"LU", "KR", "US"}), TODAY)
    assert isinstance(shown, Refused)
    assert all(reason.startswith("US: ") for reason in shown.reasons)
    assert isinstance(may_be_shown(export, frozenset(), TODAY), Refused)


EXPORTS = st.builds(
    Export,
    st.sampled_from(ARTEFACTS),
    st.sampled_from(ORIGINS),
    st.sampled_from(DESTINATIONS),
    st.sampled_from(REGIMES),
    st.frozensets(st.sampled_from(sorted(ALL))),
)
ON = st.dates(date(2017, 1, 1), date(2040, 1, 1))


@given(export=EXPORTS, on=ON, more=st.frozensets(st.sampled_from(sorted(ALL))))
def test_more_evidence_never_turns_yes_into_no(export, on, more):
    if isinstance(may_leave(export, on), Granted):
        assert isinstance(may_leave(dataclasses.replace(export, evidence=export.evidence | more), on), Granted)


@given(export=EXPORTS, on=ON)
def test_what_is_said_to_help_helps_and_nothing_less_does(export, on):
    judged = judge(export, on)
    for extra in judged.would_help:
        assert isinstance(may_leave(dataclasses.replace(export, evidence=export.evidence | extra), on), Granted)
        for name in extra:
            less = dataclasses.replace(export, evidence=export.evidence | (extra - {name}))
            assert isinstance(may_leave(less, on), Refused)
    if isinstance(judged.decision, Refused) and not judged.would_help:
        assert isinstance(may_leave(dataclasses.replace(export, evidence=ALL), on), Refused)


@given(
    export=EXPORTS,
    on=ON,
    name=st.sampled_from(sorted(LAWS)),
    needs=st.lists(st.frozensets(st.sampled_from(sorted(ALL)), max_size=3), max_size=2).map(tuple),
)
def test_a_further_condition_of_any_law_opens_nothing(export, on, name, needs):
    """The most restrictive rule wins: what was refused stays refused, and a condition unmet refuses."""
    law, before = LAWS[name], judge(export, on)
    more = Rule(
        "T", "a test", frozenset(ARTEFACTS), needs, "a condition", date(2000, 1, 1), Certainty.DESIGN, opens=False
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(law, "RULES", (*law.RULES, more))
        after = judge(export, on)
    if isinstance(before.decision, Refused):
        assert isinstance(after.decision, Refused)
    elif export.origin in law.COUNTRIES:
        assert isinstance(after.decision, Granted) == any(s <= export.evidence for s in needs)


@given(export=EXPORTS, on=ON)
def test_records_leave_on_no_day_under_no_regime(export, on):
    for artefact in ("ROW", "PSEUDONYMISED_ROW"):
        assert isinstance(may_leave(dataclasses.replace(export, artefact=artefact), on), Refused)


# -- the table --------------------------------------------------------------------------------------


def test_the_truth_table_is_the_golden_one():
    """A change of law shows here line by line; `make fix` writes the file anew for a lawyer to read."""
    assert as_csv() == (ROOT / "tests/governance/truth_table.csv").read_text()


PAST = {"X5-US-2020": date(2022, 1, 1), "X5-KR-2021": date(2021, 1, 1), "X11-EU-2023": date(2024, 1, 1)}


@pytest.mark.parametrize("key", [f"{name} {rule.id}" for name, law in sorted(LAWS.items()) for rule in law.RULES])
def test_without_a_rule_the_answer_somewhere_changes(key, monkeypatch):
    name, _, identifier = key.partition(" ")
    days = (PAST.get(identifier, TODAY),)
    monkeypatch.setattr("ihds.governance.truth.DAYS", (*days, PERMITS, OMICS))
    before = truth_table()
    law = LAWS[name]
    monkeypatch.setattr(law, "RULES", tuple(r for r in law.RULES if r.id != identifier))
    assert truth_table() != before


def test_every_rule_has_a_test_of_its_own_on_its_page():
    tested = generated_docs().exercised()
    assert [f"{n} {r.id}" for n, law in LAWS.items() for r in law.RULES if f"{n} {r.id}" not in tested] == []


# -- thresholds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("country", ["LU", "DE", "KR", "US"])
def test_no_permit_goes_below_the_floor(country):
    strict = thresholds(country, "contract", dataclasses.replace(Thresholds(), min_cell=1, min_site_persons=1))
    assert strict.min_cell >= 3
    assert strict.min_site_persons >= 3


# -- a fourth jurisdiction --------------------------------------------------------------------------


def test_one_file_adds_a_jurisdiction(tmp_path, monkeypatch):
    """The file is the one of the how-to page."""
    page = (ROOT / "docs/how-to/add-a-jurisdiction.md").read_text()
    assert not granted("AGGREGATE", "JP", "LU")
    (tmp_path / "japan.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    monkeypatch.setattr(jurisdictions, "__path__", [*jurisdictions.__path__, str(tmp_path)])
    jurisdiction.jurisdictions.cache_clear()
    try:
        needed = {"disclosure_check", "ministry_notice", "recipient_pledge"}
        assert evidence_terms()["ministry_notice"].meaning == "the ministry was told of the study"
        assert granted("AGGREGATE", "JP", "LU", evidence=frozenset(needed))
        assert "evidence missing: ministry_notice" in refusal(
            "AGGREGATE", "JP", "LU", evidence=needed - {"ministry_notice"}
        )
        assert granted("METADATA", "JP", "LU", evidence=frozenset())
        assert not granted("MODEL_UPDATE", "JP", "LU", evidence=ALL | needed)
        assert not granted("ROW", "JP", "JP", evidence=ALL | needed)
        assert shown_of("did:web:a", ["recipient_pledge did:web:a"]) == {"recipient_pledge"}
        assert thresholds("JP", "contract", Thresholds.floor()).min_cell == 10
    finally:
        jurisdiction.jurisdictions.cache_clear()


# -- explained --------------------------------------------------------------------------------------


def test_an_explanation_cites_rule_and_article_and_what_would_change_it(capsys):
    call = ["policy", "explain", "--artefact", "MODEL_UPDATE", "--from", "DE", "--to", "US", "--on", "2026-12-01"]
    shown = [word for name in ("permit", "secure_aggregation", "disclosure_check") for word in ("--evidence", name)]
    assert main([*call, *shown]) == 12
    said = capsys.readouterr().out
    assert "REFUSED by the law of DE" in said
    assert "- eu_ehds X5 (GDPR 45, 46" in said
    assert "+ eu_ehds X8-CONTRACT" in said
    assert "what would change it:\n  dpf_certified\n  standard_clauses and transfer_assessment" in said
    assert "from memory, to be checked" in said
    assert main([*call, *shown, "--evidence", "dpf_certified", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["granted"] is True
    assert answer["would_change"] == []
    assert main(["policy", "explain", "--artefact", "ROW", "--from", "KR", "--to", "KR"]) == 12
    assert "no evidence would change it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--artefact", "ROW", "--from", "KR"], "both countries"),
        (["--artefact", "ROW", "--from", "KR", "--to", "LU", "--evidence", "goodwill"], "'goodwill' is no evidence"),
        (["--artefact", "ROW", "dataset"], "--offer or --artefact"),
    ],
)
def test_a_question_the_law_cannot_answer_is_told(more, word, capsys):
    assert main(["policy", "explain", *more]) == 10
    assert word in capsys.readouterr().err


def test_the_explanation_as_json_names_the_meaning_of_what_is_missing():
    answer = explained(Export("MODEL", "KR", "LU", "contract", frozenset()), TODAY)
    assert answer["meanings"].keys() == set().union(*answer["would_change"])
    assert all(answer["meanings"].values())


@pytest.mark.parametrize(
    ("stated", "word"),
    [
        ("goodwill", "'goodwill' is unknown"),
        ("recipient_screened", "write its DID"),
        ("irb_approval did:web:user", "is of no recipient"),
    ],
)
def test_a_holder_vouches_only_for_what_a_law_knows_and_of_a_recipient_by_name(stated, word):
    with pytest.raises(SetupFailed, match=word):
        DatasetConfig("d", "D", evidence=(stated,))


def test_what_is_shown_of_one_recipient_is_not_shown_of_another():
    stated = ("irb_approval", "recipient_screened did:web:a", "no_onward_clause did:web:b")
    assert unknown_evidence(stated) == ""
    assert shown_of("did:web:a", stated) == {"irb_approval", "recipient_screened"}
    assert shown_of("did:web:c", stated) == {"irb_approval"}
    assert shown_of("", ("recipient_screened", "goodwill")) == set()
