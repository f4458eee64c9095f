"""The command line as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ihds.cli import build_parser, main
from ihds.cohorts import bladder_cancer
from tests.conftest import generated_docs

COX = "Surv(first_months, first_recurrence) ~ treatment + tumour_count"


@pytest.fixture
def sites(tmp_path):
    paths = []
    for i, name in enumerate(("lu", "kr", "us")):
        path = tmp_path / f"{name}.csv"
        bladder_cancer.site_part(i).to_csv(path, index=False)
        paths += ["--site", f"{name}={path}"]
    return paths


def test_simulate_prints_json_with_the_promised_fields(sites, capsys):
    assert main(["simulate", "cox", *sites, "--formula", COX, "--json", "--time-bin", "1"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["method"] == "cox"
    assert set(body["coefficients"][0]) == {"term", "estimate", "se", "robust_se", "z", "p", "lower", "upper"}
    assert set(body["log_likelihood"]) == {"null", "fitted"}
    for field in ("n", "events", "rounds", "provenance", "tests"):
        assert body[field]
    assert {h["name"] for h in body["provenance"]["holders"]} == {"lu", "kr", "us"}


def test_simulate_prints_a_table_and_writes_a_picture(sites, tmp_path, capsys):
    picture = tmp_path / "curves.png"
    call = ["simulate", "kaplan_meier", *sites, "--formula", "Surv(first_months, first_recurrence) ~ treatment"]
    assert main([*call, "--time-bin", "1", "--plot", str(picture)]) == 0
    assert "treatment=thiotepa" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_parquet_and_csv_give_the_same(sites, tmp_path, capsys):
    frame = bladder_cancer.site_part(1)
    frame.to_parquet(tmp_path / "kr.parquet")
    mixed = [s if not s.startswith("kr=") else f"kr={tmp_path / 'kr.parquet'}" for s in sites]
    results = []
    for given in (sites, mixed):
        assert main(["simulate", "cox", *given, "--formula", COX, "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out)["coefficients"])
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        (["--formula", "Surv(first_months) ~ treatment"], 10, "Surv() takes"),
        (["--formula", "Surv(first_months, first_recurrence) ~ nope"], 10, "'nope'"),
        (["--formula", COX, "--time-bin", "0"], 12, "min_time_bin"),
        (["--formula", COX, "--param", "colour=blue"], 10, "no parameter 'colour'"),
        (["--formula", COX, "--permit", "min_cell=x"], 10, "NAME=NUMBER"),
        (["--formula", COX, "--permit", "colour=1"], 10, "no threshold 'colour'"),
        (["--formula", COX, "--site", "x"], 10, "NAME=TABLE"),
        (["--formula", COX, "--site", "x=/nowhere.csv"], 10, "no file"),
    ],
)
def test_bad_input_gets_its_exit_status_and_a_remedy(sites, capsys, change, status, word):
    assert main(["simulate", "cox", *sites, *change]) == status
    said = capsys.readouterr().err
    assert word in said
    assert "What to do" in said


def test_errors_are_json_too(sites, capsys):
    assert main(["simulate", "cox", *sites, "--formula", "x", "--json"]) == 10
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "IHDS-FORMULA"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a,b\n1,2\n3,4,5\n", "cannot be read"),
        ("a,b\n1\n", "cannot be read"),
        ('a,b\n"1,2\n3,4\n', "cannot be read"),
        ("a,a\n1,2\n", "twice"),
        ("", "read"),
    ],
)
def test_a_malformed_table_is_named(tmp_path, capsys, text, word):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert main(["simulate", "describe", "--site", f"x={path}"]) == 10
    said = capsys.readouterr().err
    assert word in said
    assert "x" in said


def test_a_holder_becomes_a_node_and_proves_its_log(tmp_path, capsys):
    path = tmp_path / "bladder.csv"
    bladder_cancer.site_part(0).to_csv(path, index=False)
    folder = tmp_path / "lih"
    call = [
        "node",
        "init",
        str(folder),
        "--role",
        "holder",
        "--country",
        "LU",
        "--data",
        str(path),
        "--person",
        "person_id",
    ]
    assert main([*call, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == len(bladder_cancer.site_part(0))
    assert (folder / "codebook.toml").read_text().count("[[variables]]") == 10
    assert (folder / "key-1.pem").stat().st_mode & 0o077 == 0
    assert b"ENCRYPTED PRIVATE KEY" in (folder / "key-1.pem").read_bytes()
    assert main(["audit", "verify", str(folder)]) == 0
    assert main(call) == 18
    assert "holds a node already" in capsys.readouterr().err


def test_bad_data_leave_no_node_behind(tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_text("person_id,treatment\n1,placebo\n2,poison\n")
    book = tmp_path / "book.toml"
    book.write_text('name = "x"\n[[variables]]\nname = "treatment"\nkind = "category"\nlevels = ["placebo"]\n')
    folder = tmp_path / "node"
    call = [
        "node",
        "init",
        str(folder),
        "--role",
        "holder",
        "--country",
        "LU",
        "--data",
        str(path),
        "--codebook",
        str(book),
    ]
    assert main(call) == 10
    said = capsys.readouterr().err
    assert "'poison' in row 2" in said
    assert not folder.exists()


def test_a_node_that_does_not_run_is_told_with_the_command_that_starts_it(tmp_path, capsys):
    main(["node", "init", str(tmp_path / "r"), "--role", "user", "--country", "LU"])
    assert main(["catalogue", "search", "--node", str(tmp_path / "r")]) == 18
    assert "ihds node run" in capsys.readouterr().err


def test_progress_is_plain_lines_in_a_pipe(sites):
    done = subprocess.run(
        [sys.executable, "-m", "ihds.cli", "simulate", "cox", *sites, "--formula", COX, "--time-bin", "1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "round: number 0, contribution Dictionary" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


def test_every_command_has_help_with_an_example():
    found = dict(generated_docs().commands(build_parser()))
    wanted = {
        "ihds node init",
        "ihds node run",
        "ihds catalogue search",
        "ihds catalogue show",
        "ihds apply",
        "ihds permit list",
        "ihds permit show",
        "ihds permit decide",
        "ihds permit revoke",
        "ihds study run",
        "ihds study show",
        "ihds audit verify",
        "ihds simulate",
    }
    assert wanted <= set(found)
    for name, text in found.items():
        assert "example:" in text, name
        assert "--json" in text, name
