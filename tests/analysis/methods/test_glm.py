from __future__ import annotations

import numpy as np
import pytest

from ihds.data.table import read_table
from tests.conftest import assert_equal, close, federate, parkinsons, pbc, reference, split

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


LINKS = {
    "gamma_log": ("bili ~ age + sex + albumin", {"family": "gamma"}),
    "gamma_inverse": ("protime ~ age + albumin", {"family": "gamma", "link": "inverse"}),
    "probit": ("I(status == 2) ~ age + albumin + log(bili)", {"family": "binomial", "link": "probit"}),
    "cloglog": ("I(status == 2) ~ age + albumin + log(bili)", {"family": "binomial", "link": "cloglog"}),
}


@pytest.mark.parametrize("name", LINKS)
def test_links_equal_r(shared, name):
    formula, params = LINKS[name]
    r = reference("regression")[name]
    result = federate(split(pbc(shared), 4), "glm", formula=formula, **params)
    assert_equal(result, r)
    assert close(result.details["deviance"], r["deviance"])
    assert close(result.details["null_deviance"], r["null_deviance"])
    assert close(result.details["dispersion"], r["dispersion"])


@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC2", "HC3"])
def test_robust_variances_equal_sandwich(shared, kind):
    r = reference("regression")["robust"]
    linear = federate(split(pbc(shared), 4), "glm", formula="albumin ~ age + log(bili)", robust=kind)
    assert np.allclose(linear.covariance, r["lm"][kind], rtol=1e-8)
    logistic = federate(
        split(pbc(shared), 4), "glm", formula="I(status == 2) ~ age + albumin", family="binomial", robust=kind
    )
    assert np.allclose(logistic.covariance, r["glm"][kind], rtol=1e-7)
    assert linear.coefficients[1].robust_se == pytest.approx(np.sqrt(r["lm"][kind][1][1]), rel=1e-8)


def test_cluster_variance_equals_sandwich(shared):
    r = reference("regression")["robust"]["cluster"]
    result = federate(
        split(parkinsons(shared), 5, by="subject"),
        "glm",
        formula="motor_UPDRS ~ test_time + age + sex + cluster(subject)",
        robust="cluster",
        person="subject",
    )
    assert np.allclose([c.robust_se for c in result.coefficients], r["cluster_se"], rtol=1e-8)
    assert result.details["clusters"] == r["clusters"]
