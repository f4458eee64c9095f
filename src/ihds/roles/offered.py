"""What every holder of a simulated data space offers its own part of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from ihds.cohorts import bladder_cancer
from ihds.data.codebook import Codebook
from ihds.roles.config import REVIEWED, DatasetConfig

HOLDERS = (("lih", "LU"), ("ncck", "KR"), ("us-site", "US"))


@dataclass(frozen=True)
class Offered:
    """A table that every holder offers its own part of; ``part`` gives it by the holder's number."""

    id: str
    title: str
    description: str
    keywords: tuple[str, ...]
    health_category: str
    codebook: Codebook
    part: Callable[[int], pd.DataFrame]
    methods: tuple[str, ...] = REVIEWED

    def dataset(self, holder: str, evidence: Sequence[str] = ()) -> DatasetConfig:
        """Return what a holder says of its part, and what it would vouch for under its law."""
        shared = {k: getattr(self, k) for k in ("description", "keywords", "health_category", "methods")}
        shared |= {"national_id": self.codebook.person, "unidentified": "" if self.codebook.person else "no names"}
        return DatasetConfig(f"{self.id}-{holder}", f"{self.title}, {holder}", evidence=tuple(evidence), **shared)


BYAR = Offered(
    id="bladder",
    title="Bladder tumour recurrences",
    description="Byar trial of intravesical treatment: recurrences of superficial bladder cancer",
    keywords=("bladder cancer", "recurrence", "randomised trial"),
    health_category="EHCT",
    codebook=bladder_cancer.codebook(),
    part=lambda number: bladder_cancer.site_part(number, len(HOLDERS)),
)
