"""Simulated persons with Parkinson's disease and controls, near published figures; nobody's data.

Figures: two thirds men, mean age 67, GBA1 carriers about 12 % and smell reduced in most patients
(Luxembourg Parkinson's Study: Hipp et al., Front Aging Neurosci 2018;10:326; Pachchek et al., npj
Parkinsons Dis 2023;9:156); motor score about 2.5 points worse a year, faster with GBA1 (Holden et
al., Mov Disord Clin Pract 2018;5:47; Brockmann et al., Mov Disord 2015;30:407). Rounded, not fitted.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

_VISITS = ("baseline", "year_1", "year_2", "year_3", "year_4")
#: Variants near loci of Parkinson's disease: frequency of the counted allele and log odds ratio.
_VARIANTS = {
    "rs356182": (0.36, 0.28),
    "rs34637584": (0.006, 1.8),
    "rs34311866": (0.19, 0.20),
    "rs76904798": (0.14, 0.14),
    "rs11248060": (0.13, 0.15),
    **{f"rs9{j:05d}": (0.1 + 0.015 * j, 0.0) for j in range(1, 21)},
}


def site(number: int, persons: int) -> dict[str, pd.DataFrame]:
    """Return the tables ``persons`` and ``visits`` of one site."""
    rng = np.random.default_rng([20250702, number])
    n = persons
    age = np.clip(np.rint(rng.normal(66 + number, 9, n)), 35, 90)
    components = rng.normal(0, 1, (n, 2)) + 0.3 * number
    copies = {
        v: rng.binomial(2, np.clip(f + 0.01 * components[:, 0] * (f > 0.05), 0.001, 0.9))
        for v, (f, _) in _VARIANTS.items()
    }
    genetic = sum(copies[v] * odds for v, (_, odds) in _VARIANTS.items())
    male = rng.random(n) < 0.58
    risk = 0.35 + genetic - np.mean(genetic) + 0.5 * (male - 0.58) + 0.02 * (age - 66)
    patient = rng.random(n) < 1 / (1 + np.exp(-risk))
    gba = rng.random(n) < np.where(patient, 0.12, 0.05)
    identified = np.where(patient, rng.normal(7.0, 3.0, n), rng.normal(12.2, 2.0, n)) - 0.05 * (age - 66)
    smell = np.clip(np.rint(identified), 0, 16)
    education = np.clip(np.rint(rng.normal(13, 3.5, n)), 5, 22)
    moca = np.clip(np.rint(rng.normal(26.5 - 1.5 * patient - 0.05 * (age - 66) + 0.1 * (education - 13), 2.2)), 8, 30)
    severity, speed = rng.normal(0, 7, n), rng.normal(0, 1.3, n)
    pace = 2.5 + 1.2 * gba + speed
    to_stage_3 = rng.exponential(110 / np.exp(0.5 * gba + 0.04 * (age - 66) + 0.15 * speed))
    to_death = rng.exponential(240 / np.exp(0.08 * (age - 66)))
    end = rng.uniform(18, 96, n)
    first = np.minimum(to_stage_3, to_death)
    came_first = np.where(first > end, "censored", np.where(to_stage_3 <= to_death, "hoehn_yahr_3", "death"))
    names = np.array([f"p{number}-{i:04d}" for i in range(n)])
    table = pd.DataFrame(
        {
            "person": names,
            "group": np.where(patient, "patient", "control"),
            "parkinsons": patient.astype(float),
            "age": age,
            "sex": np.where(male, "male", "female"),
            "education_years": education,
            "gba": np.where(gba, "carrier", "non_carrier"),
            "smell": smell,
            "moca": moca,
            "milestone_months": np.where(patient, np.maximum(np.ceil(np.minimum(first, end)), 1), np.nan),
            "milestone": pd.Series(came_first).mask(~patient),
            "ancestry_1": np.round(components[:, 0], 4),
            "ancestry_2": np.round(components[:, 1], 4),
            **{v: c.astype(float) for v, c in copies.items()},
        }
    )
    return {"persons": table, "visits": _visits(rng, names, age, male, gba, severity, pace, np.flatnonzero(patient))}


def _visits(
    rng: np.random.Generator,
    names: np.ndarray,
    age: np.ndarray,
    male: np.ndarray,
    gba: np.ndarray,
    severity: np.ndarray,
    pace: np.ndarray,
    patients: np.ndarray,
) -> pd.DataFrame:
    who = np.repeat(patients, len(_VISITS))
    visit = np.tile(np.arange(len(_VISITS)), len(patients))
    years = np.round(np.where(visit == 0, 0.0, visit + rng.normal(0, 0.08, len(visit))), 2)
    motor = 24 + severity[who] + pace[who] * years + 0.15 * (age[who] - 66) + rng.normal(0, 4, len(who))
    own = rng.normal(0, 1, (len(names), 3))[who]
    noise = rng.normal(0, 1, (len(who), 3))
    table = pd.DataFrame(
        {
            "person": names[who],
            "visit": np.array(_VISITS)[visit],
            "years": years,
            "age": age[who],
            "sex": np.where(male[who], "male", "female"),
            "gba": np.where(gba[who], "carrier", "non_carrier"),
            "motor_score": np.clip(np.rint(motor), 0, 108),
            "ledd_mg": np.clip(np.rint((300 + 90 * years + rng.normal(0, 120, len(who))) / 10) * 10, 0, 2500),
            "tremor_power": np.round(2.0 + 0.02 * motor + 0.5 * own[:, 0] + 0.25 * noise[:, 0], 3),
            "gait_speed": np.round(1.25 - 0.006 * motor + 0.10 * own[:, 1] + 0.05 * noise[:, 1], 3),
            "tapping_rate": np.round(5.2 - 0.02 * motor + 0.5 * own[:, 2] + 0.4 * noise[:, 2], 3),
        }
    )
    seen = (visit == 0) | (rng.random(len(who)) < 0.93 - 0.05 * visit)
    kept: pd.DataFrame = table[seen].reset_index(drop=True)
    return kept
