"""Reading genotypes, PLINK 1 and 2, VCF and BGEN, as allele counts; the codebook says which allele is counted.

Parsing is left to maintained readers (Pgenlib, cyvcf2, bgen), installed with ``ihds[genotypes]``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ihds.data.codebook import Codebook, Variable
from ihds.data.plink import Bed, Pgen
from ihds.data.wide import Columns
from ihds.errors import BadTable, SetupFailed

Copies = NDArray[np.float64]

_PLACE = re.compile(r"copies of \S+, .+ (\S+):(\d+) \S+>\S+")


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant of two alleles; ``counted`` is the one whose copies are given."""

    name: str
    chromosome: str
    position: int
    other: str
    counted: str

    def unit(self, build: str) -> str:
        """Return what the copies are copies of: sites whose units differ are not joined."""
        return f"copies of {self.counted}, {build} {self.chromosome}:{self.position} {self.other}>{self.counted}"


@dataclass(frozen=True, slots=True)
class InPlace:
    """A PLINK file left where it is: its columns, its persons in order, and the codebook's entries of its variants."""

    columns: Columns
    persons: list[str]
    variables: dict[str, Variable]


def in_place(path: Path, build: str) -> InPlace:
    """Return the genotypes of a .bed or .pgen file, to be read when they are needed.

    Raises:
        BadTable: the file is absent, of another kind or broken; a variant or person stands twice.

    """
    if path.suffix not in (".bed", ".pgen") or not path.is_file():
        raise BadTable(
            f"{path} is no .bed or .pgen file", remedy="convert it with plink2 --make-bed (dosages: --make-pgen)"
        )
    first = path.suffix == ".bed"
    try:
        persons = _persons(path.with_suffix(".fam" if first else ".psam"), header=not first)
        variants, alleles = _bim(path.with_suffix(".bim")) if first else _pvar(path.with_suffix(".pvar"))
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise BadTable(f"what stands beside {path} cannot be read: {error}", remedy="check it with plink2") from error
    kept = [(at, variant) for at, variant in enumerate(variants) if variant is not None]
    names = tuple(variant.name for _, variant in kept)
    _must_differ(names, persons)
    found = {v.name: Variable(v.name, "number", unit=v.unit(build), minimum=0.0, maximum=2.0) for _, v in kept}
    if first:
        return InPlace(Bed(path.resolve(), names, len(persons)), persons, found)
    at = np.array([at for at, _ in kept], dtype=np.intp)
    begins = np.cumsum([0, *alleles], dtype=np.intp)
    return InPlace(Pgen(path.resolve(), names, len(persons), at, begins), persons, found)


def _must_differ(names: Sequence[str], persons: Sequence[str]) -> None:
    """Refuse a variant or a person that stands twice.

    Raises:
        BadTable: one does.

    """
    twice = {name for name, count in Counter(names).items() if count > 1}
    if twice:
        raise BadTable(
            f"the variant {min(twice)!r} stands twice", remedy="give each a name of its own (plink2 --set-all-var-ids)"
        )
    again = {name for name, count in Counter(persons).items() if count > 1}
    if again:
        raise BadTable(f"the person {min(again)!r} stands twice", remedy="give each an identifier of its own")


def place(unit: str) -> tuple[str, int] | None:
    """Return the chromosome and position that the unit of a variant tells, None for another unit."""
    found = _PLACE.fullmatch(unit)
    return (found[1], int(found[2])) if found else None


def read_genotypes(
    path: Path, build: str, person: str = "person_id", wanted: frozenset[str] = frozenset()
) -> tuple[pd.DataFrame, Codebook]:
    """Return persons x variants, NaN where a genotype is missing, and the codebook of the variants.

    ``wanted`` are names of variants, all if empty. Variants of more than two alleles are left out.

    Raises:
        BadTable: the file is absent, of an unknown kind, or cannot be read; a variant or person stands twice.
        SetupFailed: the reader is not installed.

    """
    if not path.is_file():
        raise BadTable(f"there is no file {path}", remedy="check the path")
    kind = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    readers = {".bed": _plink, ".pgen": _plink, ".vcf": _vcf, ".vcf.gz": _vcf, ".bcf": _vcf, ".bgen": _bgen}
    if kind not in readers:
        raise BadTable(f"{path.name} is of no known kind", remedy=f"give one of: {', '.join(readers)}")
    try:
        persons, variants = readers[kind](path, wanted)
        held = list(variants)
    except ImportError as error:
        raise SetupFailed(
            f"the reader of {kind} files is not installed", remedy="pip install 'ihds[genotypes]'"
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, IndexError) as error:
        raise BadTable(f"{path} cannot be read: {error}", remedy="check it with plink2 or bcftools") from error
    names = [variant.name for variant, _ in held]
    _must_differ(names, persons)
    absent = wanted - set(names)
    if absent:
        raise BadTable(f"{path.name} has no variant {min(absent)!r}", remedy="check the names")
    if not names:
        raise BadTable(f"{path.name} holds no variant of two alleles", remedy="check the file")
    table = pd.DataFrame({v.name: copies for v, copies in held})
    table.insert(0, person, persons)
    variables = {person: Variable(person, "identifier")}
    for variant, _ in held:
        variables[variant.name] = Variable(variant.name, "number", unit=variant.unit(build), minimum=0.0, maximum=2.0)
    return table, Codebook(path.stem, variables, person)


def _plink(path: Path, wanted: frozenset[str]) -> tuple[list[str], Iterator[tuple[Variant, Copies]]]:
    """Read PLINK 1 (.bed, .bim, .fam) or PLINK 2 (.pgen, .pvar, .psam); PLINK 1 counts A1, PLINK 2 ALT."""
    import pgenlib

    first = path.suffix == ".bed"
    persons = _persons(path.with_suffix(".fam" if first else ".psam"), header=not first)
    variants, alleles = _bim(path.with_suffix(".bim")) if first else _pvar(path.with_suffix(".pvar"))
    offsets = np.cumsum([0, *alleles], dtype=np.uintp)  # the reader asks for these where a variant has many alleles

    def each() -> Iterator[tuple[Variant, Copies]]:
        reader = pgenlib.PgenReader(
            bytes(path), raw_sample_ct=len(persons), variant_ct=len(variants), allele_idx_offsets=offsets
        )
        buffer = np.empty(len(persons), dtype=np.float32)
        try:
            for index, variant in enumerate(variants):
                if variant is not None and (not wanted or variant.name in wanted):
                    reader.read_dosages(index, buffer)
                    copies = buffer.astype(np.float64)
                    yield variant, np.where(copies < 0, np.nan, copies)
        finally:
            reader.close()

    return persons, each()


def _persons(path: Path, *, header: bool) -> list[str]:
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    column = 1
    if header and lines and lines[0][0].startswith("#"):
        column = [name.lstrip("#") for name in lines[0]].index("IID")
        lines = lines[1:]
    return [line[column] for line in lines]


def _bim(path: Path) -> tuple[list[Variant | None], list[int]]:
    """Return the variants and how many alleles each has."""
    found: list[Variant | None] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        chromosome, name, _, position, counted, other = line.split()[:6]
        found.append(_variant(name, chromosome, int(position), other, counted))
    return found, [2] * len(found)


def _pvar(path: Path) -> tuple[list[Variant | None], list[int]]:
    """Return the variants, None for those of more than two alleles, and how many alleles each has."""
    found: list[Variant | None] = []
    alleles: list[int] = []
    columns = ["CHROM", "POS", "ID", "REF", "ALT"]
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("##"):
            continue
        if line.startswith("#"):
            columns = line.lstrip("#").split("\t")
            continue
        row = dict(zip(columns, line.split("\t"), strict=False))
        alleles.append(2 + row["ALT"].count(","))
        variant = _variant(row["ID"], row["CHROM"], int(row["POS"]), row["REF"], row["ALT"])
        found.append(variant if alleles[-1] == 2 else None)
    return found, alleles


def _variant(name: str, chromosome: str, position: int, other: str, counted: str) -> Variant:
    """Return a variant; one without a name is called by place and alleles."""
    named = name if name not in ("", ".") else f"{chromosome}_{position}_{other}_{counted}"
    return Variant(named, chromosome.removeprefix("chr"), position, other, counted)


def _vcf(path: Path, wanted: frozenset[str]) -> tuple[list[str], Iterator[tuple[Variant, Copies]]]:
    """Read a VCF or BCF: dosages (DS) where given, else genotypes; ALT is counted."""
    import cyvcf2

    source: Any = cyvcf2.VCF(str(path), gts012=True)

    def each() -> Iterator[tuple[Variant, Copies]]:
        for row in source:
            if len(row.ALT) != 1:
                continue
            variant = _variant(row.ID or ".", row.CHROM, row.POS, row.REF, row.ALT[0])
            if wanted and variant.name not in wanted:
                continue
            dosage = row.format("DS") if "DS" in (row.FORMAT or []) else None
            copies = np.asarray(row.gt_types if dosage is None else dosage.ravel(), dtype=np.float64)
            yield variant, np.where((copies > 2) | (copies < 0), np.nan, copies)
        source.close()

    return list(source.samples), each()


def _bgen(path: Path, wanted: frozenset[str]) -> tuple[list[str], Iterator[tuple[Variant, Copies]]]:
    """Read a BGEN file: expected copies of its second allele."""
    import bgen

    source: Any = bgen.BgenReader(str(path))

    def each() -> Iterator[tuple[Variant, Copies]]:
        for row in source:
            if len(row.alleles) != 2:
                continue
            variant = _variant(row.rsid or row.varid, row.chrom, row.pos, *row.alleles)
            if not wanted or variant.name in wanted:
                yield variant, np.asarray(row.alt_dosage, dtype=np.float64)

    return [str(name) for name in source.samples], each()
