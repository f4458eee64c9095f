from __future__ import annotations

import pytest

from ihds.analysis import formula as formulas
from ihds.errors import BadFormula, IhdsError, UnknownVariable

COLUMNS = ["time", "status", "age", "stage", "ph.ecog", "id"]


def parse(text):
    return formulas.parse(text, COLUMNS, ["stage"])


def test_specials_are_taken_out_of_the_terms():
    f = parse("Surv(time, status) ~ age + strata(stage) + cluster(id) + offset(log(age))")
    assert (f.survival, f.response, f.terms) == (True, ("time", "status"), ("age",))
    assert (f.strata, f.cluster, f.offset) == (("stage",), "id", ("log(age)",))


def test_names_with_dots_are_columns():
    f = parse("Surv(time, status) ~ ph.ecog")
    assert f.variables == {"time", "status", "ph.ecog"}
    assert f.label(f.terms[0]) == "ph.ecog"


@pytest.mark.parametrize(
    "text",
    [
        "age ~ __import__('os').system('true')",
        "age ~ ().__class__",
        "age ~ I(age.__class__)",
        "age ~ {open('/etc/passwd')}",
        "age ~ log(age, base=10)",
        "age ~ C(stage, exec('1'))",
        "age ~ C(stage, contr.treatment(base=exec('1')))",
        "age ~ I([x for x in age])",
        "age ~ I(lambda: 1)",
        "age ~ poly(age, 2)",
        "age ~ bs(age)",
        "age ~ scale(age)",
        "age ~ strata(open('x'))",
        "age ~ offset(eval('1'))",
        "eval('1') ~ age",
        "Surv(open('x'), status) ~ age",
        "age ~ cluster(eval('1'))",
        "age ~ I(age*(age @ age > 113000))",
        "age ~ I(age*(29 in age))",
        "age ~ I(9**9**9)",
        "age ~ I(age**99)",
        "age ~ I('a'*10)",
        "age ~ I(1 < age < 2)",
        "age ~ log(age, status)",
        "age ~ I(age % 2)",
        "age ~ I(age // 2)",
        "age ~ I(age << 2)",
        "age ~ I(age & 1)",
        "age ~ cluster()",
        "age ~ " + "*".join(["age"] * 12),
        "age ~ " + "+".join(["age"] * 3000),
        "age ~ I(" + "-" * 5000 + "age)",
    ],
)
def test_nothing_runs_that_is_not_on_the_list(text):
    with pytest.raises(IhdsError):
        parse(text)


@pytest.mark.parametrize(
    "text", ["age", "a ~ b ~ c", "age ~ age +", "Surv(time) ~ age", "~ (", "Surv(a, b, c, d) ~ age"]
)
def test_malformed_formulas_say_what_to_do(text):
    with pytest.raises(BadFormula) as caught:
        parse(text)
    assert caught.value.remedy


def test_an_unknown_variable_is_named_with_those_that_exist():
    with pytest.raises(UnknownVariable, match="'weight'") as caught:
        parse("age ~ weight")
    assert "stage" in caught.value.remedy
