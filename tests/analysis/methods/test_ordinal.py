from __future__ import annotations

import pytest

from ihds.errors import BadFormula, Collinear, ConstantColumn
from tests.conftest import assert_equal, federate, pbc, reference, split


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_ordinal_equals_r(shared, link):
    r = reference("regression")["ordinal"][link]
    result = federate(split(pbc(shared), 4), "ordinal", formula="stage ~ age + albumin + log(bili)", link=link)
    whole = {**r, "coef": [*r["thresholds"], *r["coef"]], "se": [*r["threshold_se"], *r["se"]]}
    assert_equal(result, whole, relative=1e-7)


def test_outcomes_and_formulas_that_do_not_fit_are_named(shared):
    frame = pbc(shared)
    for method, formula in (
        ("ordinal", "age ~ albumin"),
        ("ordinal", "stage ~ albumin - 1"),
        ("multinomial", "log(age) ~ albumin"),
        ("negative_binomial", "time ~ age + strata(sex)"),
        ("parametric_survival", "Surv(age, time, status == 2) ~ sex"),
        ("gee", "albumin ~ age"),
        ("firth", "I(status == 2) ~ age + offset(albumin)"),
    ):
        with pytest.raises(BadFormula):
            federate(split(frame, 3), method, formula=formula)
    with pytest.raises(ConstantColumn):
        federate(split(frame.assign(stage="l1"), 3), "ordinal", formula="stage ~ age")
    with pytest.raises(Collinear):
        federate(split(frame.assign(twice=2 * frame.age), 3), "ordinal", formula="stage ~ age + twice")
    with pytest.raises(BadFormula, match="link"):
        federate(split(frame, 3), "glm", formula="bili ~ age", family="gamma", link="logit")
