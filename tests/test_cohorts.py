"""The cohorts: codebooks in four languages, simulated persons near the published figures, studies that run."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.plan import Plan, run
from ihds.analysis.result import Coefficient, Result, Test
from ihds.cli import main
from ihds.cohorts.cohort import cohort, names
from ihds.data.table import conform
from ihds.demo import Say
from ihds.errors import BadInput
from ihds.privacy.disclosure import Thresholds
from ihds.reports.checklist import CHECKLISTS, FACTS, PARTLY, REMARK
from ihds.reports.words import sentences, tables
from ihds.showcase import run_study

STUDIES = [(name, study) for name in names() for study in cohort(name).studies]


@pytest.fixture(scope="module")
def sites():
    return {name: [cohort(name).site(number) for number in range(3)] for name in names()}


def test_there_are_both_cohorts():
    assert names() == ["bladder_cancer", "parkinsons"]
    with pytest.raises(BadInput, match="no cohort"):
        cohort("diabetes")
    with pytest.raises(BadInput, match="no study"):
        cohort("parkinsons").study("diet")


@pytest.mark.parametrize("name", names())
def test_variables_have_units_levels_and_labels_in_four_languages(name):
    for book in cohort(name).codebooks.values():
        for variable in book.variables.values():
            assert variable.label
            assert variable.kind != "category" or len(variable.levels) >= 2
            assert sorted(variable.labels) == ["de", "fr", "ko"]
            assert variable.label_in("ko") != variable.label or variable.name == "moca"
            if variable.name.startswith("gene_") and "CTRL" not in variable.name:
                assert variable.concept.startswith("HGNC:")


@pytest.mark.parametrize("name", names())
def test_simulated_persons_fit_the_codebook_and_are_the_same_each_time(name, sites):
    again = cohort(name).site(1)
    for table, book in cohort(name).codebooks.items():
        frame = sites[name][1][table]
        assert set(frame.columns) == set(book.variables)
        conform(frame, book, "a site")
        assert frame.equals(again[table])
        assert not frame.equals(cohort(name).site(2)[table])


def test_figures_are_near_the_published_ones(sites):
    bladder = [s["patients"] for s in sites["bladder_cancer"]]
    assert np.mean([b["invasive"].mean() for b in bladder]) == pytest.approx(0.28, abs=0.05)
    assert np.mean([(b["sex"] == "male").mean() for b in bladder]) == pytest.approx(0.76, abs=0.04)
    invasive = [b[b["invasive"] == 1] for b in bladder]
    assert np.mean([(b["mut_tp53"] == "mutated").mean() for b in invasive]) == pytest.approx(0.48, abs=0.08)
    persons = [s["persons"] for s in sites["parkinsons"]]
    patients = [p[p["group"] == "patient"] for p in persons]
    assert np.mean([(p["gba"] == "carrier").mean() for p in patients]) == pytest.approx(0.12, abs=0.03)


@pytest.mark.parametrize(("name", "study"), STUDIES)
def test_every_study_has_an_answer_under_the_default_thresholds(name, study, sites):
    chosen = cohort(name)
    found = chosen.study(study)
    book = chosen.codebooks[found.table]
    parts = [conform(s[found.table], book, "a site") for s in sites[name]]
    for step in found.steps:
        result = run(Plan(step.method, step.params, book, Thresholds(), 3), parts)
        assert result.n > 100
        assert step.reading


def test_the_simulated_truth_is_found_again(sites):
    chosen = cohort("parkinsons")
    step = chosen.study("motor_progression").steps[0]
    book = chosen.codebooks["visits"]
    result = run(Plan(step.method, step.params, book, Thresholds(), 3), [s["visits"] for s in sites["parkinsons"]])
    by_term = {c.term: c for c in result.coefficients}
    assert abs(by_term["years"].estimate - 2.5) < 4 * by_term["years"].se


def test_a_study_over_real_nodes_writes_a_report(tmp_path):
    report = tmp_path / "smell.html"
    chosen = cohort("parkinsons")
    results = run_study(chosen, chosen.study("smell"), report, Say())
    text = report.read_text()
    assert [r.method for r in results] == ["table_one", "quantiles", "rank_test", "glm"]
    for step in chosen.study("smell").steps:
        assert step.heading in text
    assert text.count("<svg") == 4
    assert "Sniffin&#39; Sticks identification: odds ratio" in text
    assert all(r.provenance["left_each_site"] for r in results)


def test_the_biomarker_study_is_reported_in_remark_order_over_real_nodes(tmp_path):
    report = tmp_path / "panel.html"
    chosen = cohort("bladder_cancer")
    study = chosen.study("biomarker_panel")
    results = run_study(chosen, study, report, Say())
    text = report.read_text()
    places = [text.index(f"REMARK {item.number} ") for item in REMARK.items]
    assert places == sorted(places)
    parts = dict(zip((i.number for i in REMARK.items), (text[a:b] for a, b in pairwise([*places, None])), strict=True))
    for unknown in ("3", "4", "9", "20"):
        assert "To be written by the authors." in parts[unknown]
    for step in study.steps:
        assert step.heading in parts[step.item]
        assert step.reading in html.unescape(parts[step.item])
    for number in ("13", "14", "15", "16", "17", "18"):  # words, a table and a picture each
        assert parts[number].count("<svg") == sum(step.item == number for step in study.steps)
        assert 'class="numbers"' in parts[number]
    assert "time to death or end of follow-up" in parts["7"]
    assert f"{results[0].n} rows analysed" in parts["12"]
    assert "Kept in the panel: age at diagnosis, muscle-invasive" in parts["16"]
    assert "control probe CTRL01" in parts["16"].split("Left out: ")[1].split("</li>")[0]
    validated = results[-1]
    concordance = validated.tests[0].details[0]["concordance"]
    assert concordance > 0.7
    assert f"At the site left out, concordance {concordance:.2f}" in parts["18"]
    assert {part["contribution"] for part in validated.provenance["left_each_site"]} >= {"Held", "Ranks", "Likelihood"}


def test_every_step_has_its_place_and_every_fact_is_asked_for():
    for checklist in CHECKLISTS.values():
        numbers = [item.number for item in checklist.items]
        assert len(set(numbers)) == len(numbers)
        assert {checklist.main, checklist.first} <= set(numbers)
    assert {item.facts for c in CHECKLISTS.values() for item in c.items} - {""} == set(FACTS)
    assert set(PARTLY) <= set(FACTS)
    for name, study in STUDIES:
        found = cohort(name).study(study)
        for step in found.steps:
            assert CHECKLISTS[found.checklist].item_of(step)
    with pytest.raises(BadInput, match="no item"):
        REMARK.item_of(replace(found.steps[0], item="99"))


def test_words_name_variables_levels_and_what_they_are_against():
    book = cohort("bladder_cancer").codebooks["patients"]
    terms = ("(Intercept)", "gene_MKI67", "smoking[T.former]", "smoking[T.current]", "stage[T.T2]", "age:invasive")
    rows = tuple(Coefficient(term, 0.5, 0.1, None, 5.0, 1e-6, 0.3, 0.7) for term in terms)
    result = Result("cox", 100, 40, rows, tests=(Test("log-rank", 3.0, 1.0, 0.0833),))
    said = sentences(result, book)
    assert said[0] == "100 rows analysed, 40 events."
    assert "MKI67 expression: hazard ratio 1.65 (95 % 1.35 to 2.01)." in said
    assert "smoking: former against never: hazard ratio 1.65 (95 % 1.35 to 2.01)." in said
    assert "T category: T2: hazard ratio 1.65 (95 % 1.35 to 2.01)." in said  # against which cannot be told
    assert "age at diagnosis × muscle-invasive: hazard ratio 1.65 (95 % 1.35 to 2.01)." in said
    assert "log-rank: statistic 3.00 on 1 degrees of freedom, p = 0.083." in said
    assert tables(result, book)[0].rows[1] == ("MKI67 expression", "1.649", "1.350 to 2.014", "< 0.001")


def test_subtypes_differ_as_published():
    patients = pd.concat([cohort("bladder_cancer").site(number)["patients"] for number in range(12)])
    died = patients[patients["cause_of_death"] == "bladder_cancer"]
    shares = died["subtype"].value_counts() / patients["subtype"].value_counts()
    assert shares["luminal_papillary"] < shares["basal_squamous"] < shares["neuronal"]


def test_commands_list_show_and_simulate(capsys, tmp_path):
    assert main(["cohort", "list", "--json"]) == 0
    assert {r["study"] for r in json.loads(capsys.readouterr().out)} == {study for _, study in STUDIES}
    assert main(["cohort", "show", "parkinsons", "--language", "ko", "--json"]) == 0
    assert any(r["label"] == "성별" for r in json.loads(capsys.readouterr().out))
    assert main(["cohort", "simulate", "bladder_cancer", "--out", str(tmp_path), "--sites", "2", "--json"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["patients-1.csv", "patients-2.csv", "patients.toml"]
    assert main(["cohort", "simulate", "bladder_cancer", "--out", str(tmp_path), "--sites", "0"]) == 10
