"""The cohorts: codebooks in four languages, simulated persons near the published figures, studies that run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ihds.analysis.plan import Plan, run
from ihds.cli import main
from ihds.cohorts.cohort import cohort, names
from ihds.data.table import conform
from ihds.demo import Say
from ihds.errors import BadInput
from ihds.privacy.disclosure import Thresholds
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
    labelled = 0
    for book in cohort(name).codebooks.values():
        for variable in book.variables.values():
            assert variable.label
            assert variable.kind != "category" or len(variable.levels) >= 2
            if variable.labels:
                labelled += 1
                assert sorted(variable.labels) == ["de", "fr", "ko"]
                assert variable.label_in("ko") != variable.label or variable.name == "moca"
    assert labelled >= 20


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
    assert [r.method for r in results] == ["quantiles", "rank_test", "glm"]
    for step in chosen.study("smell").steps:
        assert step.heading in text
    assert text.count("<svg") == 3
    assert "smell: odds ratio" in text
    assert all(r.provenance["left_each_site"] for r in results)


def test_commands_list_show_and_simulate(capsys, tmp_path):
    assert main(["cohort", "list", "--json"]) == 0
    assert {r["study"] for r in json.loads(capsys.readouterr().out)} == {study for _, study in STUDIES}
    assert main(["cohort", "show", "parkinsons", "--language", "ko", "--json"]) == 0
    assert any(r["label"] == "성별" for r in json.loads(capsys.readouterr().out))
    assert main(["cohort", "simulate", "bladder_cancer", "--out", str(tmp_path), "--sites", "2", "--json"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["patients-1.csv", "patients-2.csv", "patients.toml"]
    assert main(["cohort", "simulate", "bladder_cancer", "--out", str(tmp_path), "--sites", "0"]) == 10
