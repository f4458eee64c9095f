"""Bladder cancer: the codebook of recurrences, and the Byar trial in its words."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ihds.data.codebook import Codebook
from ihds.data.table import read_table

_HERE = Path(__file__).parent


def codebook() -> Codebook:
    """Return the codebook of the recurrence table."""
    return Codebook.read(_HERE / "codebook.toml")


def byar_trial() -> pd.DataFrame:
    """Return the Byar bladder-tumour trial, one row per interval between recurrences.

    118 patients were randomised to placebo, pyridoxine or thiotepa; the 116 with any follow-up are
    kept. Source: Andrews & Herzberg 1985, table 45.1; Wei, Lin & Weissfeld 1989.
    """
    return read_table(_HERE / "byar_trial.csv", "byar_trial")


def site_part(site: int, sites: int = 3) -> pd.DataFrame:
    """Return one of ``sites`` parts of the trial, split by patient number."""
    trial = byar_trial()
    return trial[trial["person_id"] % sites == site].reset_index(drop=True)
