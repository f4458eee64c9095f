from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.errors import BadInput
from tests.analysis.methods.test_differential_expression import bladder
from tests.conftest import federate, reference, split


def test_components_equal_prcomp(shared):
    r = reference("omics")["bladder"]
    result = federate(bladder(shared), "principal_components", features="g_*")
    assert np.allclose(result.details["sd"], r["pca"]["sdev"], rtol=1e-8)
    assert np.allclose(result.details["share"], np.square(r["pca"]["sdev"]) / r["pca"]["total"], rtol=1e-8)
    found = pd.DataFrame(result.details["features"]).set_index("feature").loc[[f"g_{g}" for g in r["genes"]]]
    expected = np.array(r["pca"]["loadings"])
    for j in range(expected.shape[1]):
        mine = found[f"component_{j + 1}"].to_numpy()
        sign = np.sign(mine @ expected[:, j])
        assert np.allclose(sign * mine, expected[:, j], atol=1e-7)


@pytest.mark.parametrize("scaling", ["unit", "genotype"])
def test_scaled_components_equal_the_pooled_singular_values(scaling):
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(rng.binomial(2, rng.uniform(0.1, 0.5, 40), (150, 40)).astype(float))
    frame.columns = [f"rs{j}" for j in range(40)]
    frame["rs1"] = (frame["rs0"] + (rng.random(150) < 0.1)).clip(0, 2)
    x = frame - frame.mean()
    x = x / (x.std() if scaling == "unit" else np.sqrt(frame.mean() * (1 - frame.mean() / 2)))
    result = federate(split(frame, 3), "principal_components", features="rs*", scaling=scaling, components=3)
    assert np.allclose(result.details["sd"], np.linalg.svd(x / np.sqrt(149), compute_uv=False)[:3], rtol=1e-7)


def test_a_constant_feature_has_no_loading_and_wrong_numbers_are_named():
    frame = pd.DataFrame(np.random.default_rng(6).normal(size=(60, 12)), columns=[f"g{j:02d}" for j in range(12)])
    result = federate(
        split(frame.assign(g05=3.0), 3), "principal_components", features="g*", scaling="unit", components=2
    )
    assert abs(result.details["features"]["component_1"][5]) < 1e-15
    with pytest.raises(BadInput, match="components"):
        federate(split(frame, 3), "principal_components", features="g*", components=0)
