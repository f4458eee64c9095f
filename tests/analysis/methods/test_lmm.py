from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.data.table import read_table
from ihds.errors import BadFormula, Collinear
from tests.conftest import close, federate, parkinsons, reference, split


def motor(shared):
    frame = parkinsons(shared)
    frame["years"] = frame["test_time"] / 365.25
    return split(frame, 5, by="subject")


def visits(shared):
    frame = read_table(shared / "data/survival-reference/pbcseq.csv")
    frame["years"] = frame["day"] / 365.25
    return split(frame, 5, by="id")


FITS = [
    ("intercept", "motor_UPDRS ~ years + age + sex + (1 | subject)", motor),
    ("slope", "motor_UPDRS ~ years + age + sex + (years | subject)", motor),
    ("pbc", "log(bili) ~ years * sex + age + (years | id)", visits),
    ("pbc_uncorrelated", "log(bili) ~ years * sex + age + (years || id)", visits),
]


REML_ONLY = {("pbc_uncorrelated", "ML")}


def assert_fits(result, r, *, relative=1e-6):
    terms = {c.term.replace("[T.m]", "m"): c for c in result.coefficients}
    order = [terms[t if t in terms else ":".join(reversed(t.split(":")))] for t in r["terms"]]
    assert np.allclose([c.estimate for c in order], r["coef"], rtol=relative, atol=1e-9)
    assert np.allclose([c.se for c in order], r["se"], rtol=relative)
    assert close(result.log_likelihood["fitted"], r["loglik"], 1e-9)
    if "df" in r:
        degrees = dict(zip(terms, result.details["degrees_of_freedom"], strict=True))
        names = [t if t in terms else ":".join(reversed(t.split(":"))) for t in r["terms"]]
        assert np.allclose([degrees[n] for n in names], r["df"], rtol=1e-5)
        assert np.allclose([c.p for c in order], r["p"], rtol=1e-4)


CASES = [(*fit, criterion) for fit in FITS for criterion in ("REML", "ML") if (fit[0], criterion) not in REML_ONLY]


@pytest.mark.parametrize(
    ("name", "formula", "parts", "criterion"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_fixed_effects_variances_and_degrees_of_freedom_equal_r(shared, name, formula, parts, criterion):
    r = reference("mixed")[name][criterion.lower()]
    person = "subject" if parts is motor else "id"
    result = federate(parts(shared), "lmm", formula=formula, criterion=criterion, person=person)
    assert_fits(result, r)
    assert np.allclose([e["sd"] for e in result.details["random"]], list(r["sd"].values()), rtol=1e-6)
    assert close(result.details["residual_sd"], r["residual_sd"], 1e-6)
    if "cor" in r and len(result.details["random"]) == 2 and name != "pbc_uncorrelated":
        assert close(result.details["random"][1]["correlation"][0], float(np.ravel(r["cor"])[0]), 1e-6)
    assert result.details["groups"] == r["groups"]


def test_intraclass_correlations_of_voice_measures_equal_r(shared):
    for name, r in reference("mixed")["icc"].items():
        plain = name if name.isidentifier() else f"`{name}`"
        result = federate(motor(shared), "lmm", formula=f"{plain} ~ 1 + (1 | subject)", person="subject")
        assert close(result.details["intraclass_correlation"], r["icc"], 1e-6)
        assert close(result.details["residual_sd"] ** 2, r["within_var"], 1e-6)


def test_a_variance_of_zero_is_a_fit_like_any_other():
    r = reference("mixed")["degenerate"]
    frame = pd.DataFrame(r["data"])
    frame["id"] = frame["id"].astype(str)
    result = federate([frame[:20], frame[20:32], frame[32:]], "lmm", formula="y ~ visit + arm + (1 | id)", person="id")
    assert_fits(result, r)
    assert result.details["random"][0]["sd"] < 1e-4


def test_one_row_per_patient_and_other_formulas_are_named(shared):
    parts = motor(shared)
    once = [p.drop_duplicates("subject").reset_index(drop=True) for p in parts]
    with pytest.raises(Collinear, match="theta"):
        federate(once, "lmm", formula="motor_UPDRS ~ age + (1 | subject)", person="subject")
    for wrong in (
        "motor_UPDRS ~ age",
        "motor_UPDRS ~ age + (1 | subject) + (1 | sex)",
        "motor_UPDRS ~ age + (years | subject)",
        "motor_UPDRS ~ 0 + age + (1 | subject)",
    ):
        with pytest.raises(BadFormula):
            federate(parts, "lmm", formula=wrong, person="subject")
