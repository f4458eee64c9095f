"""Features read in blocks: a PLINK file, a DuckDB table and a matrix in memory say the same, digit for digit."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.plan import Plan, run
from ihds.cli import main
from ihds.data.codebook import Codebook, Variable
from ihds.data.genotypes import in_place
from ihds.data.plink import Bed
from ihds.data.source import Scope
from ihds.data.sources import tabular
from ihds.data.sources.tabular import Beside, Stored, TabularSource, load
from ihds.data.table import conform, read_table
from ihds.data.wide import Table, Wide
from ihds.demo import build
from ihds.errors import BadTable, Refused, SetupFailed
from ihds.privacy.disclosure import Thresholds
from ihds.roles.config import data_file
from ihds.roles.node import load_dataset
from ihds.roles.offered import HOLDERS, Offered
from tests.space import Space

RNG = np.random.default_rng(7)
PERSONS, VARIANTS = 131, 70  # no multiple of 4, 32 or 64
COPIES = RNG.choice([0.0, 1.0, 2.0, np.nan], size=(PERSONS, VARIANTS), p=[0.5, 0.3, 0.15, 0.05])
COPIES[:, 3] = np.where(np.isnan(COPIES[:, 3]), 1.0, COPIES[:, 3])  # one that nobody lacks
NAMES = tuple(f"rs{j:02d}" for j in range(VARIANTS))
IDS = [f"p{i}" for i in range(PERSONS)]


def write_bed(at: Path, copies: np.ndarray = COPIES, ids: list[str] = IDS, names: tuple[str, ...] = NAMES) -> Path:
    codes = np.select([copies.T == 2, np.isnan(copies.T), copies.T == 1], [0, 1, 2], 3).astype(np.uint8)
    padded = np.zeros((len(codes), -(-codes.shape[1] // 4) * 4), dtype=np.uint8)
    padded[:, : codes.shape[1]] = codes
    quads = padded.reshape(len(codes), -1, 4)
    whole = quads[:, :, 0] | quads[:, :, 1] << 2 | quads[:, :, 2] << 4 | quads[:, :, 3] << 6
    path = at / "toy.bed"
    path.write_bytes(bytes([0x6C, 0x1B, 1]) + whole.astype(np.uint8).tobytes())
    path.with_suffix(".bim").write_text(
        "".join(f"1 {name} 0 {j + 1} A G\n" for j, name in enumerate(names[: len(codes)]))
    )
    path.with_suffix(".fam").write_text("".join(f"0 {i} 0 0 0 -9\n" for i in ids))
    return path


def table(extra: int = 0) -> tuple[pd.DataFrame, Codebook]:
    """Return persons in another order than the file, some without genotypes, and their codebook."""
    ids = [*reversed(IDS), *(f"q{i}" for i in range(extra))]
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"id": ids, "age": rng.normal(60, 9, len(ids)), "y": rng.normal(size=len(ids))})
    frame["z"] = (frame["y"] > 0).astype(float)
    return frame, Codebook(
        "toy", {"id": Variable("id", "identifier"), **{n: Variable(n, "number") for n in ("age", "y", "z")}}, "id"
    )


@pytest.fixture
def bed(tmp_path):
    return Bed(write_bed(tmp_path), NAMES, PERSONS)


@pytest.mark.parametrize("rows", [None, np.arange(100)[::-1], np.array([5, -1, 7, 64, 130, -1])], ids=str)
def test_genotypes_of_two_bits_are_counted_and_multiplied_as_numbers(bed, rows):
    wide = Wide.over(bed).named(NAMES[::-1])
    plain = COPIES[:, ::-1]
    if rows is not None:
        wide, plain = wide.of(rows), np.where((rows < 0)[:, None], np.nan, plain[rows])
    assert wide.shape == plain.shape
    assert np.array_equal(wide[:, :], plain, equal_nan=True)
    assert np.array_equal(wide[:, 5:9], plain[:, 5:9], equal_nan=True)
    assert np.array_equal(wide[:3], plain[:3], equal_nan=True)
    assert np.array_equal(wide[:, 4], plain[:, 4], equal_nan=True)
    assert wide.packed
    counts = [*((plain == k).sum(axis=0) for k in range(3)), np.isnan(plain).sum(axis=0)]
    assert np.array_equal(wide.counted, np.column_stack(counts))
    values, weight = RNG.normal(size=(len(plain), 3)), RNG.random(len(plain))
    copies, absent = wide.products(values)
    assert np.allclose(copies, np.nan_to_num(plain).T @ values, rtol=1e-12, atol=1e-12)
    assert np.allclose(absent, np.isnan(plain).T @ values, rtol=1e-12, atol=1e-12)
    assert np.allclose(wide.squares(weight), weight @ np.nan_to_num(plain) ** 2, rtol=1e-12)


def test_a_choice_of_a_choice_and_what_travels_to_a_cluster(bed):
    wide = Wide.over(bed).of(np.arange(50)).of(np.array([49, 0, 3])).named(("rs07", "rs03"))
    again = pickle.loads(pickle.dumps(wide))
    assert np.array_equal(again[:, :], COPIES[np.ix_([49, 0, 3], [7, 3])], equal_nan=True)
    held = Wide.held(NAMES, COPIES).of(np.array([4, 2])).named(("rs01",))
    assert len(pickle.dumps(held)) < 1000
    assert np.array_equal(pickle.loads(pickle.dumps(held))[:, 0], COPIES[[4, 2], 1], equal_nan=True)
    assert not Wide.over(bed).of(np.array([3, 3])).packed  # somebody with two rows: read, not counted


def test_a_bed_file_that_is_none_or_of_others_is_refused(tmp_path, bed):
    with pytest.raises(BadTable, match="70 variants of 200 persons"):
        Bed(bed.path, NAMES, 200)
    with pytest.raises(BadTable, match="cannot be read"):
        Bed(tmp_path / "absent.bed", NAMES, PERSONS)
    bed.path.write_bytes(bytes([0x6C, 0x1B, 0]) + bed.path.read_bytes()[3:])
    with pytest.raises(BadTable, match="make-bed"):
        Bed(bed.path, NAMES, PERSONS)


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("association_scan", {"formula": "y ~ age", "features": "rs*"}),
        ("association_scan", {"formula": "z ~ age", "features": "rs*", "family": "binomial"}),
        ("genotype_qc", {"features": "rs*"}),
        ("principal_components", {"features": "rs*", "components": 2, "scaling": "genotype"}),
        ("polygenic_score", {"formula": "y ~ age", "variants": NAMES[:5], "weights": (1.0, -0.5, 0.2, 2.0, 0.1)}),
        ("differential_expression", {"formula": "~ age", "features": "rs*"}),
    ],
    ids=lambda v: v if isinstance(v, str) else v.get("family", ""),
)
def test_a_study_says_the_same_of_a_file_in_place(tmp_path, method, call):
    frame, book = table(extra=4)
    sites, plain = [], []
    for s in range(3):
        part = frame.iloc[s::3].reset_index(drop=True)
        folder = tmp_path / str(s)
        folder.mkdir()
        beside = Beside(write_bed(folder), "GRCh38")
        assert load(folder / "d.duckdb", "toy", part, book, "here", beside) == len(part)
        source = TabularSource(folder / "d.duckdb")
        whole = source.codebook("toy")
        view = source.open(Scope("toy", frozenset(whole.variables)))
        sites.append(view.apply(lambda t: t, NAMES if "variants" not in call else NAMES[:5]))
        at = {person: i for i, person in enumerate(IDS)}
        copies = np.array([COPIES[at[p]] if p in at else np.full(VARIANTS, np.nan) for p in part["id"]])
        plain.append(pd.concat([part, pd.DataFrame(copies, columns=list(NAMES))], axis=1))
    assert isinstance(sites[0].wide.source, Bed)
    plan = Plan(method, call, whole, Thresholds.none(), 3)
    one, two = run(plan, sites).to_dict(), run(plan, plain).to_dict()
    assert alike(one, two)


def alike(one, two):
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(
            alike(one[k], two[k]) for k in one if k not in ("seconds", "components")
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(alike(a, b) for a, b in zip(one, two, strict=True))
    return bool(np.isclose(one, two, rtol=1e-9, atol=1e-10)) if isinstance(one, float) else one == two


def test_a_variant_may_stand_in_a_formula_and_beside_columns_of_the_table(tmp_path):
    frame, book = table()
    load(tmp_path / "d.duckdb", "toy", frame, book, "here", Beside(write_bed(tmp_path), "GRCh38"))
    source = TabularSource(tmp_path / "d.duckdb")
    view = source.open(Scope("toy", frozenset({"id", "age", "y", "rs03", "rs05"})))
    got = view.apply(lambda t: t, ("y", "rs05"))
    assert list(got.frame.columns) == ["id", "age", "rs03"]
    assert np.array_equal(got.frame["rs03"], COPIES[::-1, 3])
    assert np.array_equal(got.wide[:, 1], COPIES[::-1, 5], equal_nan=True)
    assert np.array_equal(got.wide[:, 0], frame["y"])
    with pytest.raises(Refused, match="rs06"):
        view.apply(lambda t: t, ("rs06",))


def test_genotypes_that_cannot_be_joined_are_refused_and_nothing_is_loaded(tmp_path):
    frame, book = table()
    beside = Beside(write_bed(tmp_path, ids=[f"x{i}" for i in range(PERSONS)]), "GRCh38")
    for found, told in ((book, "no person"), (Codebook("toy", book.variables), "does not name its persons")):
        with pytest.raises(BadTable, match=told):
            load(tmp_path / "d.duckdb", "toy", frame, found, "here", beside)
    beside = Beside(write_bed(tmp_path), "GRCh38")
    named = Codebook("toy", {**book.variables, "rs01": Variable("rs01", "number")}, "id")
    with pytest.raises(BadTable, match="'rs01' is a variant"):
        load(tmp_path / "d.duckdb", "toy", frame.assign(rs01=1.0), named, "here", beside)
    assert not (tmp_path / "d.duckdb").exists()
    with pytest.raises(BadTable, match="make-bed"):
        in_place(tmp_path / "toy.vcf", "GRCh38")


def test_persons_whose_identifiers_look_like_numbers_are_told_apart_and_joined(tmp_path):
    ids = ["007", "7", "12345678901234567", "12345678901234568"]
    (tmp_path / "t.csv").write_text("id,age,size\n" + "".join(f"{i},5{k},0{k}\n" for k, i in enumerate(ids)))
    frame = read_table(tmp_path / "t.csv")
    book = Codebook(
        "toy", {"id": Variable("id", "identifier"), **{n: Variable(n, "number") for n in ("age", "size")}}, "id"
    )
    copies = np.array([[0.0], [1.0], [2.0], [np.nan]])
    load(tmp_path / "d.duckdb", "toy", frame, book, "here", Beside(write_bed(tmp_path, copies, ids), "GRCh38"))
    view = TabularSource(tmp_path / "d.duckdb").open(Scope("toy", frozenset({"id", "age", "size", "rs00"})))
    got = view.apply(lambda t: t, ("rs00",))
    assert view.persons == 4
    assert np.array_equal(got.wide[:, 0], copies[:, 0], equal_nan=True)
    assert got.frame["size"].tolist() == [0.0, 1.0, 2.0, 3.0]
    whole = read_table(pd.DataFrame({"id": [2**60 + 1, 2**60 + 2]}))
    assert conform(whole, Codebook("toy", {"id": Variable("id", "identifier")}, "id"), "here")["id"].nunique() == 2
    with pytest.raises(BadTable, match="infinite"):
        read_table(pd.DataFrame({"x": ["007", "inf"]}))


def test_a_file_that_changed_since_it_was_loaded_is_not_read(tmp_path):
    frame, book = table()
    path = write_bed(tmp_path)
    load(tmp_path / "d.duckdb", "toy", frame, book, "here", Beside(path, "GRCh38"))
    path.write_bytes(path.read_bytes())
    view = TabularSource(tmp_path / "d.duckdb").open(Scope("toy", frozenset({"id", "rs01"})))
    with pytest.raises(SetupFailed, match="load the dataset again"):
        view.apply(lambda t: t, ("rs01",))


def test_columns_too_many_for_memory_are_read_from_the_table_in_blocks(tmp_path, monkeypatch):
    frame, book = table()
    many = pd.DataFrame(RNG.normal(size=(PERSONS, 600)), columns=[f"g{j:03d}" for j in range(600)])
    many.iloc[3, 5] = np.nan
    whole = pd.concat([frame, many], axis=1)
    book = Codebook("toy", {**book.variables, **{n: Variable(n, "number") for n in many}}, "id")
    load(tmp_path / "d.duckdb", "toy", whole, book, "here")
    names = tuple(many.columns)
    found = {}
    for keep in (1 << 29, 1000):
        monkeypatch.setattr(tabular, "KEEP", keep)
        view = TabularSource(tmp_path / "d.duckdb").open(Scope("toy", frozenset(book.variables)))
        found[keep] = view.apply(lambda t: t, names)
        assert list(found[keep].frame.columns) == ["id", "age", "y", "z"]
        assert np.array_equal(found[keep].wide[:, :], many, equal_nan=True)
    assert isinstance(found[1000].wide.source, Stored)
    assert np.array_equal(pickle.loads(pickle.dumps(found[1000].wide))[:, 2:4], many.iloc[:, 2:4])
    plan = Plan("differential_expression", {"formula": "~ age", "features": "g*"}, book, Thresholds.none(), 1)
    assert alike(run(plan, [found[1000]]).to_dict(), run(plan, [Table.of(whole, names)]).to_dict())


def test_a_holder_is_made_of_a_table_and_genotypes_beside_it(tmp_path, capsys):
    frame, book = table(extra=2)
    frame.to_csv(tmp_path / "clinical.csv", index=False)
    book.write(tmp_path / "clinical.toml")
    bed = write_bed(tmp_path)
    made = ["node", "init", str(tmp_path / "lih"), "--role", "holder", "--country", "LU", "--json"]
    made += ["--data", str(tmp_path / "clinical.csv"), "--codebook", str(tmp_path / "clinical.toml")]
    assert main([*made, "--genotypes", str(bed)]) != 0
    assert "--build" in capsys.readouterr().out
    assert not (tmp_path / "lih").exists()
    assert main([*made, "--genotypes", str(bed), "--build", "GRCh38"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == PERSONS + 2
    source = TabularSource(data_file(tmp_path / "lih"))
    assert source.codebook("clinical").variable("rs01").unit == "copies of A, GRCh38 1:2 G>A"


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
def test_dosages_are_read_in_place(tmp_path):
    pytest.importorskip("pgenlib")
    bed = write_bed(tmp_path)
    done = ["plink2", "--bfile", "toy", "--make-pgen", "--out", "two", "--silent"]
    assert subprocess.run(done, cwd=tmp_path).returncode == 0
    one, two = in_place(bed, "GRCh38"), in_place(tmp_path / "two.pgen", "GRCh38")
    assert two.persons == IDS
    assert one.variables["rs01"].unit == two.variables["rs01"].unit
    mixed = ("rs09", "rs02", "rs40")
    assert np.array_equal(Wide.over(two.columns).named(mixed)[:, :], COPIES[:, [9, 2, 40]], equal_nan=True)


def test_a_scan_of_genotypes_in_place_runs_over_three_nodes(tmp_path):
    """From the access body to the result; four thousand variants stay where they lie, and R's answer comes."""
    variants, each = 4000, 250
    rng = np.random.default_rng(5)
    names = tuple(f"rs{j:04d}" for j in range(variants))
    copies = rng.binomial(2, rng.uniform(0.1, 0.5, variants), (3 * each, variants)).astype(float)
    copies[rng.random(copies.shape) < 0.01] = np.nan
    age = rng.normal(60, 9, 3 * each)
    y = 0.05 * age + 0.8 * np.nan_to_num(copies[:, 7]) + rng.normal(size=3 * each)
    frame = pd.DataFrame({"id": [f"p{i}" for i in range(3 * each)], "age": age, "y": y})
    book = Codebook("g", {"id": Variable("id", "identifier"), **{n: Variable(n, "number") for n in ("age", "y")}}, "id")
    offered = Offered(
        "g", "Genotypes", "", ("genotypes",), "GENO", book, lambda i: frame.iloc[i::3], ("association_scan",)
    )
    nodes = build(tmp_path / "space", (offered,))
    for i, (holder, _) in enumerate(HOLDERS):
        at = tmp_path / holder
        at.mkdir()
        bed = write_bed(at, copies[i::3], [f"p{j}" for j in range(i, 3 * each, 3)], names)
        part = frame.iloc[i::3].reset_index(drop=True)
        load_dataset(nodes.folder / holder, f"g-{holder}", part, book, Beside(bed, "GRCh38"))
    space = Space(nodes.folder, nodes.processes, nodes.configs)
    try:
        for name in space.configs:
            space.start(name)
        space.wait()
        researcher = space.space("researcher")
        datasets = [r["dataset"] for r in researcher.search("genotypes")]
        asked = {"datasets": datasets, "variables": ["id", "age", "y", *names], "methods": ["association_scan"]}
        answer = space.apply(**asked)
        permit = space.grant(answer["application"])
        result = researcher.run("association_scan", permit=permit, formula="y ~ age", features="rs*")
        found = pd.DataFrame(result.details["features"]).set_index("feature")
        assert len(found) == variants
        assert found["p"].idxmin() == "rs0007"
        assert found.loc["rs0007", "position"] == 8
        g = np.where(np.isnan(copies), np.nanmean(copies, axis=0), copies)[:, 7]
        x = np.column_stack([np.ones(3 * each), age, g])
        assert found.loc["rs0007", "estimate"] == pytest.approx(np.linalg.lstsq(x, y, rcond=None)[0][2], rel=1e-8)
    finally:
        space.stop()
