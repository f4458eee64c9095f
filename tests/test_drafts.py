"""Drafts for the data protection officer: they say what the system knows and mark what it does not."""

from __future__ import annotations

from ihds.attacks import attacks
from ihds.attacks.attack import carried_out
from ihds.reports.document import Document
from ihds.reports.gdpr import ACTIVITIES, dpia, records

FACTS = {
    "name": "lih",
    "did": "did:web:lih.example",
    "role": "holder",
    "country": "LU",
    "on": "2026-11-25",
    "inner_zone": True,
    "keys": {"signer": "pkcs11", "number": 2},
    "witnesses": ["did:web:a", "did:web:b"],
    "datasets": [
        {
            "id": "bladder",
            "title": "Bladder <b>",
            "persons": 110,
            "variables": ["age"],
            "purposes": ["scientific_research"],
        }
    ],
    "permits": [{"permit": "urn:uuid:1", "user": "did:web:u", "recipient_country": "KR", "purpose": "statistics"}],
    "retention": [{"kind": "round.answered", "entries": 3, "kept_until": "2036-01-01", "rule": "RET-STUDY"}],
}


def test_the_records_follow_article_30_and_name_what_the_node_knows():
    text = records(FACTS).markdown()
    for part in ("(a) Controller", "(b), (c)", "(d) Recipients", "(e) Transfers", "(f) Time limits", "(g) Security"):
        assert part in text
    assert "DRAFT" in text
    assert "TO BE COMPLETED" in text
    assert "other than LU: KR" in text
    for known in ("bladder", "urn:uuid:1", "RET-STUDY", "pkcs11", "inner zone", "witnessed by 2"):
        assert known in text


def test_the_assessment_lists_attacks_that_still_succeed_with_their_limitation():
    chosen = [carried_out(attacks()[name]) for name in ("risk_sets",)]
    text = dpia(FACTS, chosen).markdown()
    for part in ("(a) Description", "(b) Necessity", "(c) Risks", "(d) Measures", "Judgement"):
        assert part in text
    assert all(v.attack.title in text for v in chosen)


def test_every_role_has_its_activities():
    assert set(ACTIVITIES) == {"holder", "access_body", "authority", "user", "environment"}


def test_text_of_others_makes_no_markup(tmp_path):
    made = Document("Draft")
    made.say("[a](http://evil)\n# no heading")
    made.listed(["x | y"])
    made.table([{"a": "<script>", "b": ["1", "2"], "c": True, "d": {"yes": 2}}], ("a", "b", "c", "d"))
    text = made.markdown()
    assert r"\[a\](http://evil) # no heading" in text
    assert r"x \| y" in text
    assert r"| \<script\> | 1, 2 | yes | yes 2 |" in text
    made.write(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
