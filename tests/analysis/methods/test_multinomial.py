from __future__ import annotations

from tests.conftest import assert_equal, federate, pbc, reference, split


def test_multinomial_equals_r(shared):
    r = reference("regression")["multinomial"]
    result = federate(split(pbc(shared), 4), "multinomial", formula="stage ~ age + log(bili)")
    whole = {k: [v for level in "234" for v in r[k][level]] for k in ("coef", "se")}
    assert_equal(result, {**r, **whole}, relative=1e-7)
