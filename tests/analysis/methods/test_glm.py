from __future__ import annotations

import pytest

from ihds.data.table import read_table
from tests.conftest import close, federate, reference, split

MODELS = {
    "gaussian": ("lung", "gaussian", "wt.loss ~ age + sex + C(ph.ecog)"),
    "interaction": ("pbc", "gaussian", "bili ~ age * sex + I(albumin^2)"),
    "no_intercept": ("pbc", "gaussian", "bili ~ 0 + age + albumin"),
    "binomial": ("pbc", "binomial", "I(status == 2) ~ age + sex + log(bili)"),
    "poisson": ("pbc", "poisson", "stage ~ age + albumin + offset(log(time))"),
}


@pytest.mark.parametrize("name", MODELS)
def test_glm_equals_r(shared, name):
    table, family, formula = MODELS[name]
    frame = read_table(shared / "data/survival-reference" / f"{table}.csv")
    if name == "gaussian":
        frame = frame[frame["ph.ecog"] < 3]
    result = federate(split(frame, 4), "glm", formula=formula, family=family)
    r = reference("glm")[name]
    order = _order(name, [c.term for c in result.coefficients])
    for row, j in zip(result.coefficients, order, strict=True):
        assert close(row.estimate, r["coef"][j]), (row.term, row.estimate, r["coef"][j])
        assert close(row.se, r["se"][j]), (row.term, row.se)
        assert close(row.z, r["z"][j], 1e-7)
        assert close(row.p, r["p"][j], 1e-6)
    assert close(result.details["deviance"], r["deviance"][0])
    if name != "no_intercept":
        assert close(result.details["null_deviance"], r["null_deviance"][0])
    assert close(result.log_likelihood["fitted"], r["loglik"][0])
    assert result.n == r["n"][0]


def _order(name: str, terms: list[str]) -> list[int]:
    """R puts interactions last; so do we, but I(albumin^2) stands before or after the interaction."""
    r_terms = [t.split("(")[0] if t != "(Intercept)" else t for t in reference("glm")[name]["terms"]]
    if name != "interaction":
        return list(range(len(terms)))
    found = []
    for term in terms:
        key = {"sex[T.m]": "sexm", "age:sex[T.m]": "age:sexm"}.get(term, "I" if term.startswith("I(") else term)
        found.append(r_terms.index(key))
    return found
