"""Simulated patients with bladder cancer, near published figures; nobody's data.

Figures: muscle-invasive share about a quarter, men about three quarters, median age 73; progression
within five years by EAU risk group 1, 5, 10 and 40 % (Sylvester et al., Eur Urol 2021;79:480);
mutated genes and subtypes of muscle-invasive tumours, of which luminal-papillary ones do best and
neuronal ones worst (Robertson et al., Cell 2017;171:540), FGFR3 and TERT of non-invasive ones
(Pietzak et al., Eur Urol 2017;72:952). Rounded, not fitted.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

_FOLLOW_UP = 120.0
_STAGES = ("Ta", "T1", "T2", "T3", "T4")
_RISKS = ("low", "intermediate", "high", "very_high")
_SUBTYPES = ("luminal_papillary", "luminal_infiltrated", "luminal", "basal_squamous", "neuronal")
_SHARES = (0.35, 0.19, 0.06, 0.35, 0.05)
#: Log hazard of death of bladder cancer, per subtype of invasive tumours.
_WORSE = (-0.4, 0.0, 0.0, 0.3, 0.7)
#: Genes of the panel: mean level, change with invasion, change in basal tumours (log2).
_GENES = {
    "FGFR3": (9.0, -0.8, -1.2),
    "GATA3": (10.0, -0.5, -1.8),
    "PPARG": (9.5, -0.4, -1.4),
    "UPK2": (9.0, -0.9, -1.6),
    "KRT20": (7.5, -0.6, -1.0),
    "KRT5": (8.5, 0.4, 2.0),
    "KRT14": (7.5, 0.5, 1.6),
    "CD44": (9.0, 0.5, 1.0),
    "VIM": (8.5, 0.9, 0.4),
    "ZEB1": (6.5, 0.7, 0.2),
    "MKI67": (7.5, 0.8, 0.3),
    "CCNE1": (6.8, 0.5, 0.1),
    "CD274": (5.8, 0.4, 0.6),
    "NECTIN4": (9.0, -0.3, -0.5),
    "ERBB2": (9.5, 0.1, -0.5),
    "TP63": (8.8, 0.0, 0.5),
    **{f"CTRL{j:02d}": (8.0, 0.0, 0.0) for j in range(1, 25)},
}


def site(number: int, persons: int) -> dict[str, pd.DataFrame]:
    """Return the table ``patients`` of one site; its batch moves every gene, its case mix the stages."""
    rng = np.random.default_rng([20250701, number])
    n = persons
    age = np.clip(np.rint(rng.normal(72 - number, 10, n)), 35, 95)
    male = rng.random(n) < 0.76
    smoking = rng.choice(["never", "former", "current"], n, p=[0.24, 0.46, 0.30])
    shift = 0.03 * (number - 1)
    stage = rng.choice(_STAGES, n, p=[0.46 - shift, 0.26, 0.15 + shift, 0.09, 0.04])
    invasive = np.isin(stage, _STAGES[2:])
    high_grade = rng.random(n) < np.select([stage == "Ta", stage == "T1"], [0.25, 0.85], 0.97)
    cis = ~invasive & (rng.random(n) < np.where(high_grade, 0.2, 0.01))
    count = np.clip(rng.geometric(0.45, n), 1, 8).astype(float)
    size = np.round(np.clip(rng.lognormal(0.8, 0.5, n), 0.3, 9), 1)
    points = np.sum([age > 70, count > 1, size >= 3], axis=0)
    level = np.select([(stage == "T1") & high_grade & (cis | (points > 1)), high_grade, points > 1], [3, 2, 1], 0)
    subtype = rng.choice(_SUBTYPES, n, p=_SHARES)
    basal = subtype == "basal_squamous"
    mutated = {
        "fgfr3": np.where(invasive, 0.14 + 0.2 * (subtype == "luminal_papillary"), 0.55 - 0.3 * high_grade),
        "tp53": np.where(invasive, 0.48, 0.2 * high_grade + 0.03),
        "rb1": np.where(invasive, 0.17, 0.03),
        "pik3ca": np.where(invasive, 0.22, 0.26),
        "kdm6a": np.where(invasive, 0.26, 0.40),
        "tert": np.full(n, 0.70),
    }
    mutations = {name: rng.random(n) < share for name, share in mutated.items()}
    batch = rng.normal(0, 0.4, len(_GENES))
    genes = {
        f"gene_{name}": mean + move * invasive + turn * basal * invasive + batch[j] + rng.normal(0, 0.9, n)
        for j, (name, (mean, move, turn)) in enumerate(_GENES.items())
    }
    risk = 0.03 * (age - 72) + 0.25 * mutations["tp53"] - 0.2 * mutations["fgfr3"]
    biology = 0.25 * (genes["gene_MKI67"] - 8) + 0.2 * (genes["gene_VIM"] - 9)
    risk += biology + invasive * np.array(_WORSE)[[_SUBTYPES.index(s) for s in subtype]]
    again = rng.exponential(60 / np.exp(0.35 * level + 0.12 * (count - 2) + 0.1 * (size - 2.5)))
    worse = rng.exponential(60 / (-np.log1p(-np.array([0.01, 0.05, 0.10, 0.40]))[level] * np.exp(biology)))
    of_cancer = rng.exponential(
        np.select([stage == "T4", stage == "T3", stage == "T2"], [22, 36, 70], 700) / np.exp(risk)
    )
    of_other = rng.exponential(260 / np.exp(0.07 * (age - 72)))
    end = rng.uniform(12, _FOLLOW_UP, n)
    death, follow = np.minimum(of_cancer, of_other), np.minimum(np.minimum(of_cancer, of_other), end)
    cause = np.where(death > end, "censored", np.where(of_cancer <= of_other, "bladder_cancer", "other"))
    table = pd.DataFrame(
        {
            "patient": [f"b{number}-{i:04d}" for i in range(n)],
            "age": age,
            "sex": np.where(male, "male", "female"),
            "smoking": smoking,
            "stage": stage,
            "stage_group": np.select([~invasive, stage == "T2"], ["non_invasive", "T2"], "T3_T4"),
            "grade": np.where(high_grade, "high", "low"),
            "cis": np.where(cis, "yes", "no"),
            "tumour_count": count,
            "tumour_size_cm": size,
            "risk_group": pd.Series(np.array(_RISKS)[level]).mask(invasive),
            "invasive": invasive.astype(float),
            "subtype": pd.Series(subtype).mask(~invasive),
            "recurrence_months": np.where(invasive, np.nan, _months(np.minimum(again, follow))),
            "recurrence": np.where(invasive, np.nan, again <= follow),
            "progression_months": np.where(invasive, np.nan, _months(np.minimum(worse, follow))),
            "progression": np.where(invasive, np.nan, worse <= follow),
            "survival_months": _months(follow),
            "death": (death <= end).astype(float),
            "cause_of_death": cause,
        }
    )
    for name, carried in mutations.items():
        table[f"mut_{name}"] = np.where(carried, "mutated", "wild_type")
    return {"patients": table.assign(**{k: np.round(v, 3) for k, v in genes.items()})}


def _months(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(np.ceil(values), 1.0))
