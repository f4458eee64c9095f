from __future__ import annotations

import pytest

from ihds.errors import BadFormula, Refused
from tests.conftest import close, federate, pbc, reference, split

MODELS = {
    "gaussian": ("meta_gaussian", "protime ~ log(bili) + age"),
    "binomial": ("meta_binomial", "I(status == 2) ~ log(bili) + age"),
}


@pytest.mark.parametrize("family", MODELS)
def test_effects_equal_metafor(shared, family):
    name, formula = MODELS[family]
    r = reference("causal")[name]
    result = federate(split(pbc(shared), 8), "meta_analysis", formula=formula, family=family)
    for row, expected in zip(result.coefficients, ("fixed", "dl", "knha"), strict=True):
        assert close(row.estimate, r[expected][0], 1e-7)
        assert close(row.se, r[expected][1], 1e-7)
    assert close(result.details["tau2"], r["tau2"], 1e-7)
    assert close(result.tests[0].statistic, r["q"], 1e-7)
    assert close(result.details["i2"], r["i2"], 1e-7)
    assert "prefer the pooled fit" in result.details["warning"]
    reml = federate(split(pbc(shared), 8), "meta_analysis", formula=formula, family=family, tau="REML")
    assert close(reml.coefficients[1].estimate, r["reml"][0], 1e-6)
    assert close(reml.details["tau2"], r["reml_tau2"], 1e-5)


def test_few_sites_and_sites_that_cannot_stand_alone_are_refused(shared):
    with pytest.raises(Refused, match="too few"):
        federate(split(pbc(shared), 4), "meta_analysis", formula="protime ~ age")
    with pytest.raises(Refused, match="alone"):
        federate(split(pbc(shared)[:24], 12), "meta_analysis", formula="protime ~ log(bili) + age")
    with pytest.raises(BadFormula, match="no column"):
        federate(split(pbc(shared), 6), "meta_analysis", formula="protime ~ age", term="sex")
