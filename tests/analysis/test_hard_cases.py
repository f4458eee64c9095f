"""Data as they come: each hard case gets R's answer or a named refusal."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ihds
from ihds import errors

COX = "Surv(time, status) ~ age + arm"


def rows(n: int = 60, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "time": rng.exponential(300, n).round() + 1,
            "status": rng.integers(0, 2, n),
            "age": rng.normal(60, 9, n),
            "arm": rng.choice(["a", "b"], n),
        }
    )


def sites(**changes):
    frame = rows(120)
    for name, value in changes.items():
        frame[name] = value(frame) if callable(value) else value
    return {f"s{i}": frame.iloc[i::3].reset_index(drop=True) for i in range(3)}


def test_a_site_without_events_takes_part():
    parts = sites()
    parts["s0"]["status"] = 0
    result = ihds.local_federation(parts).run("cox", formula=COX)
    assert result.events == sum(int(p["status"].sum()) for p in parts.values())


def test_no_events_anywhere_is_named():
    with pytest.raises(errors.NoEvents, match="status"):
        ihds.local_federation(sites(status=0)).run("cox", formula=COX)


def test_one_row_at_a_site_is_refused_by_the_gate_of_that_site():
    parts = sites()
    parts["s1"] = parts["s1"].iloc[:1]
    with pytest.raises(errors.Refused) as caught:
        ihds.local_federation(parts).run("cox", formula=COX)
    assert "min_site_persons" in str(caught.value)
    assert "s1" in str(caught.value)


def test_a_category_missing_at_one_site_is_no_problem():
    parts = sites()
    parts["s0"]["arm"] = "a"
    result = ihds.local_federation(parts).run("cox", formula=COX)
    assert [c.term for c in result.coefficients] == ["age", "arm[T.b]"]


def test_a_level_seen_at_one_site_only_is_named_with_the_remedy():
    parts = sites()
    parts["s2"].loc[:8, "arm"] = "only-here"
    with pytest.raises(errors.BadLevel, match="only-here.*one site only") as caught:
        ihds.local_federation(parts).run("cox", formula=COX)
    assert "merge" in caught.value.remedy


def test_a_level_of_few_persons_is_named():
    parts = sites()
    for part in parts.values():
        part.loc[:0, "arm"] = "rare"
    with pytest.raises(errors.BadLevel, match="rare.*fewer than 5"):
        ihds.local_federation(parts).run("cox", formula=COX)


def test_a_constant_column_is_named():
    with pytest.raises(errors.ConstantColumn, match="'k'"):
        ihds.local_federation(sites(k=3.0)).run("cox", formula="Surv(time, status) ~ age + k")


def test_a_column_that_is_constant_at_one_site_only_is_no_problem():
    parts = sites()
    parts["s1"]["age"] = 50.0
    assert ihds.local_federation(parts).run("cox", formula=COX).n == 120


def test_collinear_columns_are_named():
    parts = sites(double=lambda f: 2 * f["age"] + 1)
    with pytest.raises(errors.Collinear, match=r"age, double"):
        ihds.local_federation(parts).run("cox", formula="Surv(time, status) ~ age + double + arm")


@pytest.mark.parametrize("method", ["cox", "glm"])
def test_complete_separation_is_named(method):
    parts = sites(marker=lambda f: (f["status"] > 0).astype(float) + 0.0)
    call = (
        {"formula": "Surv(time, status) ~ marker"}
        if method == "cox"
        else {"formula": "status ~ marker", "family": "binomial"}
    )
    with pytest.raises(errors.Separation, match="marker"):
        ihds.local_federation(parts).run(method, **call)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
def test_extreme_units_change_only_the_unit(scale):
    plain = ihds.local_federation(sites()).run("cox", formula=COX)
    scaled = ihds.local_federation(sites(age=lambda f: f["age"] * scale)).run("cox", formula=COX)
    one, two = plain.coefficients[0], scaled.coefficients[0]
    assert two.estimate * scale == pytest.approx(one.estimate, rel=1e-8)
    assert two.z == pytest.approx(one.z, rel=1e-8)


def test_years_are_centred_before_they_are_squared():
    parts = sites(year=lambda f: 2020 + (f["age"] > 60))
    result = ihds.local_federation(parts).run("glm", formula="age ~ year")
    pooled = pd.concat(parts.values())
    design = np.column_stack([np.ones(len(pooled)), pooled["year"] - 2020])
    beta = np.linalg.lstsq(design, pooled["age"], rcond=None)[0]
    assert result.coefficients[1].estimate == pytest.approx(beta[1], rel=1e-8)


def test_status_coded_one_and_two_is_understood_even_where_a_site_has_only_ones():
    parts = sites()
    plain = ihds.local_federation(sites()).run("cox", formula=COX)
    for part in parts.values():
        part["status"] = part["status"] + 1
    coded = ihds.local_federation(parts).run("cox", formula=COX)
    assert coded.coefficients[0].estimate == pytest.approx(plain.coefficients[0].estimate, rel=1e-12)
    parts["s0"]["status"] = 1
    assert ihds.local_federation(parts).run("cox", formula=COX).events == sum(
        int((p["status"] == 2).sum()) for p in parts.values()
    )


def test_a_status_with_three_codes_is_named():
    parts = sites(status=lambda f: np.arange(len(f)) % 3)
    with pytest.raises(errors.BadFormula, match="not coded 0/1"):
        ihds.local_federation(parts).run("cox", formula=COX)


@pytest.mark.parametrize(("least", "told"), [(3, 4), (5, 0)])  # that few lack a value is not told
def test_missing_values_are_left_out_and_counted(least, told):
    parts = sites()
    parts["s0"].loc[:3, "age"] = np.nan
    result = ihds.local_federation(parts, permit={"min_cell": least}).run("cox", formula=COX)
    assert result.n == 116
    assert result.details["left_out_missing"] == told


def test_a_column_without_any_value_is_told():
    with pytest.raises(errors.IhdsError, match="value"):
        ihds.local_federation(sites(empty=np.nan)).run("glm", formula="age ~ empty")


def test_infinities_are_refused_when_the_table_is_read():
    parts = sites()
    parts["s1"].loc[4, "age"] = np.inf
    with pytest.raises(errors.BadTable, match=r"s1.*'age'.*row 5"):
        ihds.local_federation(parts)


def test_a_logarithm_of_zero_is_told():
    parts = sites(size=lambda f: np.where(np.arange(len(f)) == 5, 0.0, 1.0 + f["age"]))
    with pytest.raises(errors.BadTable, match=r"log\(size\)"):
        ihds.local_federation(parts).run("cox", formula="Surv(time, status) ~ log(size)")


def test_a_text_column_where_another_site_has_numbers_is_told():
    parts = sites()
    parts["s1"]["age"] = parts["s1"]["age"].astype(object)
    parts["s1"].loc[3, "age"] = "abc"
    with pytest.raises(errors.BadLevel, match="'age' is not the same thing everywhere"):
        ihds.local_federation(parts)


def test_two_sites_are_refused_unless_the_permit_allows_it():
    parts = sites()
    del parts["s2"]
    with pytest.raises(errors.Refused, match="fewer than the 3"):
        ihds.local_federation(parts).run("cox", formula=COX)
    assert ihds.local_federation(parts, permit={"min_holders": 2}).run("cox", formula=COX).n == 80


def test_exact_times_only_where_the_permit_says_so():
    with pytest.raises(errors.Refused, match="does not allow time bins"):
        ihds.local_federation(sites()).run("cox", formula=COX, time_bin=0.0)
    result = ihds.local_federation(sites(), permit={"min_time_bin": 0}).run("cox", formula=COX, time_bin=0.0)
    assert result.details["risk_sets"] == "exact event times"


def test_thirty_sites():
    frame = rows(600)
    parts = {f"h{i}": frame.iloc[i::30].reset_index(drop=True) for i in range(30)}
    assert ihds.local_federation(parts).run("cox", formula=COX).n == 600


def test_years_in_products_converge_as_in_r():
    """Ill-conditioned is not separated: R fits these."""
    parts = sites(year=lambda f: 2005 + np.arange(len(f)) % 7)
    fed = ihds.local_federation(parts)
    for formula in ("Surv(time, status) ~ year + I(year^2)", "Surv(time, status) ~ age * year"):
        assert len(fed.run("cox", formula=formula).coefficients) >= 2
    assert fed.run("glm", formula="age ~ arm * year").n == 120


def test_counts_with_large_offsets_start_where_r_starts():
    parts = sites(py=lambda f: 2e5 + f["time"], deaths=lambda f: (f["age"] / 10).round())
    fed = ihds.local_federation(parts)
    result = fed.run("glm", formula="deaths ~ age + offset(log(py))", family="poisson")
    assert result.rounds < 12
    assert fed.run("glm", formula="deaths ~ 0 + age", family="poisson").n == 120


def test_a_large_offset_changes_nothing_in_cox():
    parts = sites(shift=15.0)
    fed = ihds.local_federation(parts)
    plain = fed.run("cox", formula=COX).coefficients[0].estimate
    assert fed.run("cox", formula=COX + " + offset(shift)").coefficients[0].estimate == pytest.approx(plain, rel=1e-8)


def test_an_undefined_time_is_told():
    with pytest.raises(errors.BadTable, match="undefined"):
        ihds.local_federation(sites()).run(
            "kaplan_meier", formula="Surv(time, status / (time - time)) ~ arm", time_bin=30.0
        )


def test_negative_times_are_told():
    parts = sites(time=lambda f: f["time"] - 5)
    parts["s0"].loc[0, "time"] = -1.0
    with pytest.raises(errors.BadTable, match="negative"):
        ihds.local_federation(parts).run("cox", formula=COX)


def test_a_grid_too_fine_is_told():
    with pytest.raises(errors.OutOfRange, match="fine"):
        ihds.local_federation(sites(), permit={"min_time_bin": 0}).run("cox", formula=COX, time_bin=1e-300)


def test_a_column_of_one_site_that_cannot_be_listed_is_no_category():
    parts = sites(k=lambda f: np.arange(len(f)) % 3)
    parts["s2"]["k"] = parts["s2"]["k"] + np.linspace(0, 0.4, 40)
    with pytest.raises(errors.BadLevel, match="no levels are published"):
        ihds.local_federation(parts).run("cox", formula="Surv(time, status) ~ C(k)")


def test_an_unrelated_column_does_not_spoil_the_federation():
    parts = sites(note=lambda f: [f"n{i}" for i in range(len(f))], empty="x")
    parts["s1"]["note"] = "same"
    parts["s2"]["empty"] = np.nan
    assert ihds.local_federation(parts).run("cox", formula=COX).n == 120


@pytest.mark.parametrize("name", ["class", "lambda", "Intercept", "a b", "2", "C", "ph.x", "x²"])
def test_any_column_name_can_be_used(name):
    parts = sites(**{name: lambda f: f["age"] + np.arange(len(f))})
    result = ihds.local_federation(parts).run("glm", formula=f"age ~ `{name}`")
    assert result.coefficients[1].term == name
    assert ihds.local_federation(parts).run("describe").n == 120


def test_a_curve_at_one_half_gives_the_median_r_gives():
    frame = pd.DataFrame({"time": np.arange(1.0, 25.0), "status": 1})
    parts = {f"s{i}": frame.iloc[i::3].reset_index(drop=True) for i in range(3)}
    fed = ihds.local_federation(parts, permit={"min_site_persons": 1, "min_time_bin": 0, "min_cell": 1})
    assert fed.run("kaplan_meier", formula="Surv(time, status) ~ 1", time_bin=0.0).curves[0].median == 12.5


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("kaplan_meier", {"formula": "Surv(time, status) ~ strata(arm)"}),
        ("kaplan_meier", {"formula": "Surv(time, status) ~ arm + cluster(age)"}),
        ("kaplan_meier", {"formula": "Surv(time, status) ~ arm", "tau": -5.0}),
        ("cox", {"formula": "Surv(time, status) ~ age + cluster(arm)"}),
        ("cox", {"formula": "Surv(time, status == 'dead') ~ age"}),
        ("glm", {"formula": "arm + 1 ~ age"}),
        ("glm", {"formula": "age ~ 0"}),
        ("glm", {"formula": "age ~ log(arm)"}),
        ("glm", {"formula": "age ~ C(arm, contr.treatment(base='z'))"}),
        ("logrank", {"formula": "Surv(time, status) ~ arm + strata(arm)"}),
        ("describe", {"variables": 5}),
        ("glm", {"formula": "status ~ age", "family": "poisson", "max_rounds": "x"}),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(method, call):
    with pytest.raises(errors.IhdsError) as caught:
        ihds.local_federation(sites()).run(method, **call)
    assert "this node failed" not in str(caught.value)


@pytest.mark.parametrize("method", ["ordinal", "multinomial"])
def test_names_in_any_script_are_names(method):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"état": rng.choice(["bas", "haut", "moyen"], 90), "나이": rng.normal(50, 9, 90)})
    parts = {f"s{i}": frame.iloc[i::3].reset_index(drop=True) for i in range(3)}
    result = ihds.local_federation(parts).run(method, formula="état ~ 나이")
    assert len(result.coefficients) > 1
