"""PLINK files read in place: two bits a genotype (.bed), or dosages (.pgen); nothing of them is kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ihds.errors import BadTable, SetupFailed

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

_MAGIC = bytes([0x6C, 0x1B, 0x01])
_CODES = np.arange(256)[:, None] >> np.arange(0, 8, 2) & 3  # the four genotypes of a byte, the first in its low bits


def _decoder(*values: float) -> NDArray[np.void]:
    """Return, for each byte, the values of its four genotypes as one item of 32 bytes, which is copied whole.

    ``values`` are those of the codes 0 to 3: two copies of A1, missing, one copy, none.
    """
    return np.ascontiguousarray(np.array(values)[_CODES]).view("V32").ravel()


_COPIES_OR_NAN = _decoder(2.0, np.nan, 1.0, 0.0)
_COPIES = _decoder(2.0, 0.0, 1.0, 0.0)
_SQUARES = _decoder(4.0, 0.0, 1.0, 0.0)
_MISSING = _decoder(0.0, 1.0, 0.0, 0.0)
#: Variants decoded at once: their numbers stay in the processor's cache.
_TILE = 64


def _tiles(count: int) -> Iterator[slice]:
    return (slice(at, at + _TILE) for at in range(0, count, _TILE))


@dataclass(frozen=True)
class Bed:
    """A PLINK 1 ``.bed`` file of ``height`` persons: copies of A1."""

    path: Path
    names: tuple[str, ...]
    height: int
    _rows: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        width = -(-self.height // 4)
        try:
            whole = np.memmap(self.path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise BadTable(f"{self.path} cannot be read: {error}", remedy="check the path") from error
        if whole[:3].tobytes() != _MAGIC or len(whole) != 3 + width * len(self.names):
            raise BadTable(
                f"{self.path.name} does not hold {len(self.names)} variants of {self.height} persons",
                remedy="give the .bim and .fam it was made with, or write it anew: plink2 --make-bed",
            )
        object.__setattr__(self, "_rows", whole[3:].reshape(len(self.names), width))

    def __reduce__(self) -> tuple[Any, ...]:  # what travels to a cluster is where the file lies
        return Bed, (self.path, self.names, self.height)

    def read(self, columns: Ints) -> Floats:
        """Return copies (height, k), NaN where missing."""
        block = np.take(_COPIES_OR_NAN, self._rows[columns], mode="clip").view(np.float64)
        return np.asarray(block.reshape(len(columns), -1)[:, : self.height].T)

    def counted(self, columns: Ints, persons: NDArray[np.bool_]) -> Floats:
        """Return how many of the persons have no, one and two copies, and none known (k, 4)."""
        found = np.zeros((len(columns), 4))
        width = -(-self.height // 32) * 8  # whole words of 32 genotypes
        flags = np.zeros(width * 4, dtype=np.uint8)
        flags[: self.height] = persons
        quads = flags.reshape(-1, 4)
        mask = (quads[:, 0] | quads[:, 1] << 2 | quads[:, 2] << 4 | quads[:, 3] << 6).view(np.uint64)
        filled = np.zeros((_TILE, width), dtype=np.uint8)
        for part in _tiles(len(columns)):
            chosen = columns[part]
            filled[: len(chosen), : self._rows.shape[1]] = self._rows[chosen]
            words = filled[: len(chosen)].view(np.uint64)
            low, high = words & mask, (words >> np.uint64(1)) & mask
            two, ones, highs = (np.bitwise_count(b).sum(axis=1, dtype=np.int64) for b in (low & high, low, high))
            none_known, one = ones - two, highs - two
            found[part] = np.column_stack([two, one, persons.sum() - ones - one, none_known])
        return found

    def products(self, columns: Ints, values: Floats, lacking: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Return copies times ``values`` (height, q), and values where a ``lacking`` variant is missing (k, q)."""
        found, absent = self._times(_COPIES, columns, values), np.zeros((len(columns), values.shape[1]))
        absent[lacking] = self._times(_MISSING, columns[lacking], values)
        return found, absent

    def squares(self, columns: Ints, values: Floats) -> Floats:
        """Return copies squared times ``values`` (height, q): (k, q)."""
        return self._times(_SQUARES, columns, values)

    def _times(self, decoder: NDArray[np.void], columns: Ints, values: Floats) -> Floats:
        values = np.pad(values, ((0, 4 * self._rows.shape[1] - self.height), (0, 0)))
        found = np.zeros((len(columns), values.shape[1]))
        tile = np.empty((_TILE, self._rows.shape[1]), dtype="V32")
        for part in _tiles(len(columns)):
            rows = self._rows[columns[part]]
            decoded = np.take(decoder, rows, out=tile[: len(rows)], mode="clip")
            found[part] = decoded.view(np.float64).reshape(len(rows), -1) @ values
        return found


@dataclass(frozen=True)
class Pgen:
    """A PLINK 2 ``.pgen`` file of ``height`` persons: dosages of the alternative allele.

    ``kept`` are the variants of two alleles, by their place in the file; ``alleles`` where the alleles
    of each variant of the file begin (variants + 1,).
    """

    path: Path
    names: tuple[str, ...]
    height: int
    kept: Ints
    alleles: Ints

    def read(self, columns: Ints) -> Floats:
        """Return dosages (height, k), NaN where missing."""
        try:
            import pgenlib
        except ImportError as error:
            raise SetupFailed(
                "the reader of .pgen files is not installed", remedy="pip install 'ihds[genotypes]'"
            ) from error
        wanted = self.kept[columns].astype(np.uint32)
        block = np.empty((len(columns), self.height), dtype=np.float32)
        begins = self.alleles.astype(np.uintp)
        reader = pgenlib.PgenReader(
            bytes(self.path), raw_sample_ct=self.height, variant_ct=len(begins) - 1, allele_idx_offsets=begins
        )
        try:
            reader.read_dosages_list(wanted, block)
        finally:
            reader.close()
        return np.where(block.T < 0, np.nan, block.T.astype(np.float64))
