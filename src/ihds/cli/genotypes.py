"""The word for genotypes: a file of variants becomes a table with its codebook, joined to another of the persons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ihds.cli.words import command, show
from ihds.errors import BadInput, BadTable


def genotype_command(sub: Any) -> None:
    """Declare ``ihds genotypes``."""
    made = command(
        sub,
        "genotypes",
        "turn PLINK, VCF or BGEN into a table of allele counts with its codebook",
        "ihds genotypes chr22.pgen --build GRCh38 --join clinical.csv --by person_id --out holding.parquet",
        _convert,
        node=False,
    )
    made.add_argument("file", type=Path, help=".bed, .pgen, .vcf, .vcf.gz, .bcf or .bgen")
    made.add_argument(
        "--build", required=True, help="genome build, for example GRCh38: sites of another are not joined"
    )
    made.add_argument("--variants", type=Path, help="file with the wanted names, one per line (default: all)")
    made.add_argument("--join", type=Path, help="CSV or Parquet table of the same persons")
    made.add_argument("--by", default="person_id", help="its column that holds the persons of the genotypes")
    made.add_argument("--join-codebook", type=Path, help="the table's codebook in TOML (default: a draft)")
    made.add_argument("--out", type=Path, required=True, help="Parquet file to write; its codebook goes beside it")


def _convert(given: Any) -> None:
    from ihds.data.codebook import Codebook
    from ihds.data.genotypes import read_genotypes
    from ihds.data.table import draft_codebook, read_table

    wanted: frozenset[str] = frozenset()
    if given.variants:
        if not given.variants.is_file():
            raise BadInput(f"there is no file {given.variants}", remedy="give one name per line")
        wanted = frozenset(line.strip() for line in given.variants.read_text().splitlines() if line.strip())
    if given.out.suffix != ".parquet":
        raise BadInput(f"{given.out} is no Parquet file", remedy="name it, for example, holding.parquet")
    if not given.out.parent.is_dir():
        raise BadInput(f"there is no folder {given.out.parent}", remedy="make it first")
    table, book = read_genotypes(given.file, given.build, given.by, wanted)
    persons, variants = len(table), len(book.variables) - 1
    if given.join:
        other = read_table(given.join, given.join.stem)
        if given.by not in other.columns:
            raise BadTable(f"{given.join} has no column {given.by!r}", remedy="name it with --by")
        known = (
            Codebook.read(given.join_codebook) if given.join_codebook else draft_codebook(book.name, other, given.by)
        )
        both = set(known.variables) & set(book.variables) - {given.by}
        if both:
            raise BadTable(f"{min(both)!r} is a variant and a column of {given.join}", remedy="rename the column")
        other[given.by] = other[given.by].map(_as_text)
        table = other.merge(table, on=given.by, how="inner", validate="many_to_one")
        if table.empty:
            raise BadTable(
                "no person of the table has genotypes", remedy="look at both files' identifiers, and at --by"
            )
        book = Codebook(book.name, {**known.variables, **book.variables}, given.by)
    table.to_parquet(given.out, index=False)
    beside = given.out.with_suffix(".toml")
    book.write(beside)
    found = {
        "table": str(given.out),
        "codebook": str(beside),
        "persons": int(table[given.by].nunique()),
        "variants": variants,
        "without_a_row": persons - int(table[given.by].nunique()),
    }
    said = f"{found['persons']} persons, {found['variants']} variants: {given.out}, {beside}"
    show(
        given,
        found,
        f"{said}\n{found['without_a_row']} persons with genotypes are not in the table" if given.join else said,
    )


def _as_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
