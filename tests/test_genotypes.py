"""Genotypes of every kind become the same table; sites that count other alleles are not joined."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ihds.cli import main
from ihds.data.codebook import Codebook, agree
from ihds.data.genotypes import place, read_genotypes
from ihds.data.table import read_table
from ihds.errors import BadLevel, BadTable
from tests.conftest import genotypes, unavailable

NAMES = ["rs1", "rs2", "rs3"]
COPIES = np.array([[0, 1, 2, np.nan], [2, 2, 1, 0], [0, 0, 1, 1]])
PERSONS = ["p1", "p2", "p3", "p4"]


def vcf(at: Path, persons: list[str] = PERSONS) -> Path:
    text = {0.0: "0/0", 1.0: "0/1", 2.0: "1/1"}
    lines = ["##fileformat=VCFv4.2", "##contig=<ID=22>", '##FORMAT=<ID=GT,Number=1,Type=String,Description="G">']
    lines.append("\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *persons]))
    for at_, (name, row) in enumerate(zip(NAMES, COPIES, strict=True)):
        calls = [text.get(c, "./.") for c in row]
        lines.append("\t".join(["22", str(100 + at_), name, "G", "A", ".", ".", ".", "GT", *calls]))
    lines.append("\t".join(["22", "500", "many", "G", "A,C", ".", ".", ".", "GT", "0/1", "1/2", "0/0", "2/2"]))
    path = at / "toy.vcf"
    path.write_text("\n".join(lines) + "\n")
    return path


def pgen(at: Path) -> Path:
    import pgenlib

    path = at / "toy.pgen"
    with pgenlib.PgenWriter(bytes(path), len(PERSONS), variant_ct=len(NAMES), nonref_flags=False) as writer:
        for row in COPIES:
            writer.append_biallelic(np.where(np.isnan(row), -9, row).astype(np.int8))
    lines = [f"22\t{100 + i}\t{n}\tG\tA" for i, n in enumerate(NAMES)]
    path.with_suffix(".pvar").write_text("#CHROM\tPOS\tID\tREF\tALT\n" + "\n".join(lines) + "\n")
    path.with_suffix(".psam").write_text("#IID\tSEX\n" + "".join(f"{p}\t1\n" for p in PERSONS))
    return path


def bgen(at: Path) -> Path:
    from bgen import BgenWriter

    path = at / "toy.bgen"
    with BgenWriter(str(path), len(PERSONS), PERSONS) as writer:
        for i, (name, row) in enumerate(zip(NAMES, COPIES, strict=True)):
            each = np.array([[np.nan] * 3 if np.isnan(c) else np.eye(3)[int(c)] for c in row])
            writer.add_variant(name, name, "22", 100 + i, ["G", "A"], each)
    return path


@pytest.mark.parametrize("make", [vcf, pgen, bgen], ids=["vcf", "pgen", "bgen"])
def test_every_kind_gives_the_same_table(tmp_path, make):
    table, book = read_genotypes(make(tmp_path), "GRCh38")
    assert list(table["person_id"]) == PERSONS
    assert np.allclose(table[NAMES].to_numpy().T, COPIES, atol=1e-4, equal_nan=True)
    assert book.variable("rs2").unit == "copies of A, GRCh38 22:101 G>A"
    assert place(book.variable("rs2").unit) == ("22", 101)
    assert place("mg/dl, at 12:30") is None
    assert book.person == "person_id"


def test_variants_of_many_alleles_do_not_shift_those_after_them(tmp_path):
    if shutil.which("plink2") is None:
        unavailable("plink2 is not installed")
    rng = np.random.default_rng(3)
    persons, chosen = [f"p{i}" for i in range(200)], rng.integers(0, 2, (60, 200, 2))
    chosen[:, :, 1] = np.where(
        rng.random((60, 200)) < 0.9, chosen[0, :, 1], chosen[:, :, 1]
    )  # much alike, as in packed files
    lines = ["##fileformat=VCFv4.2", "##contig=<ID=22>", '##FORMAT=<ID=GT,Number=1,Type=String,Description="G">']
    lines.append("\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *persons]))
    for j, pairs in enumerate(chosen):
        third = 2 if j % 3 == 1 else 1  # every third variant has a third allele
        calls = [f"{third * a}/{b}" for a, b in pairs]
        alleles = "A,C" if third == 2 else "A"
        lines.append("\t".join(["22", str(100 + j), f"rs{j}", "G", alleles, ".", ".", ".", "GT", *calls]))
    (tmp_path / "many.vcf").write_text("\n".join(lines) + "\n")
    made = ["plink2", "--vcf", "many.vcf", "--make-pgen", "--out", "many"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    table, book = read_genotypes(tmp_path / "many.pgen", "GRCh38")
    two = [j for j in range(60) if j % 3 != 1]
    assert list(table.columns) == ["person_id", *(f"rs{j}" for j in two)]
    assert np.array_equal(table.drop(columns="person_id").to_numpy(), chosen[two].sum(axis=2).T)
    assert book.variable("rs59").unit == "copies of A, GRCh38 22:159 G>A"


def test_plink_1_counts_the_first_allele(shared):
    table, book = read_genotypes(shared / "data/gwas-toy/regenie/example.bed", "toy", wanted=frozenset({"1", "21"}))
    frame = genotypes(shared)
    assert np.array_equal(table["1"], frame["snp_1"])
    assert np.array_equal(table["21"], frame["snp_21"])
    assert book.variable("1").unit.startswith("copies of 1, toy")


def test_sites_that_count_other_alleles_or_builds_are_not_joined(tmp_path):
    _, one = read_genotypes(vcf(tmp_path), "GRCh38")
    _, two = read_genotypes(tmp_path / "toy.vcf", "GRCh37")
    assert set(agree({"a": one, "b": one}).variables) == set(one.variables)
    with pytest.raises(BadLevel, match="not measured alike"):
        agree({"a": one, "b": two})


def test_genotypes_are_joined_to_what_else_is_known(tmp_path, capsys):
    clinical = pd.DataFrame({"person_id": [*PERSONS[:3], "p9"], "age": [50, 61, 72, 40]})
    clinical.to_csv(tmp_path / "clinical.csv", index=False)
    (tmp_path / "wanted.txt").write_text("rs1\nrs3\n")
    call = ["genotypes", str(vcf(tmp_path)), "--build", "GRCh38", "--out", str(tmp_path / "holding.parquet"), "--json"]
    call += ["--variants", str(tmp_path / "wanted.txt"), "--join", str(tmp_path / "clinical.csv")]
    assert main(call) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["persons"], found["variants"], found["without_a_row"]) == (3, 2, 1)
    table = read_table(tmp_path / "holding.parquet")
    assert list(table.columns) == ["person_id", "age", "rs1", "rs3"]
    assert Codebook.read(tmp_path / "holding.toml").variable("age").kind == "number"


def test_what_cannot_be_read_is_told(tmp_path):
    for name, text in (("a.txt", "x"), ("b.vcf", "no header"), ("c.bgen", "no")):
        (tmp_path / name).write_text(text)
        with pytest.raises(BadTable):
            read_genotypes(tmp_path / name, "GRCh38")
    with pytest.raises(BadTable, match="no variant 'rs9'"):
        read_genotypes(vcf(tmp_path), "GRCh38", wanted=frozenset({"rs9"}))
    with pytest.raises(BadTable, match="no file"):
        read_genotypes(tmp_path / "absent.vcf", "GRCh38")


def test_long_numbers_name_the_same_persons(tmp_path, capsys):
    path = vcf(tmp_path, ["1234567", "1234568", "1234569", "1234570"])
    (tmp_path / "clinical.csv").write_text("person_id,age\n1234567,50\n,44\n1234569,70\n")
    call = ["genotypes", str(path), "--build", "GRCh38", "--out", str(tmp_path / "out.parquet"), "--json"]
    assert main([*call, "--join", str(tmp_path / "clinical.csv")]) == 0
    assert json.loads(capsys.readouterr().out)["persons"] == 2
    assert main([*call, "--variants", str(tmp_path / "absent.txt")]) == 10
    assert main(["genotypes", str(path), "--build", "x", "--out", str(tmp_path / "no/out.parquet")]) == 10


def test_a_variant_that_counts_another_allele_at_a_site_is_refused(tmp_path):
    _, one = read_genotypes(vcf(tmp_path), "GRCh38")
    swapped = (tmp_path / "toy.vcf").read_text().replace("\tG\tA\t", "\tA\tG\t")
    (tmp_path / "other.vcf").write_text(swapped)
    _, two = read_genotypes(tmp_path / "other.vcf", "GRCh38")
    with pytest.raises(BadLevel, match="copies of A.*copies of G"):
        agree({"a": one, "b": two})
