"""Noisy studies at the gate: each test fails without what it tests."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ihds.analysis.plan import Plan
from ihds.audit.log import Log
from ihds.canonical import pack, unpack
from ihds.errors import Refused, TooNoisy
from ihds.federation import promises
from ihds.federation.channel import MemoryChannel
from ihds.federation.coordinator import Coordinator
from ihds.federation.study import Reply, Study
from ihds.federation.sums import sums
from ihds.governance.permit import Permit
from ihds.privacy.accountant import Demand, Promise
from ihds.store.store import Store
from tests.conftest import ROOT
from tests.federation.test_gate import World

BOUNDS = {"age": [20, 100]}
DEMAND = Demand.of({"epsilon": 2, "per_study": 1})


def private(world: World, **changes: Any) -> Study:
    privacy = {"epsilon": 1, "bounds": BOUNDS, **changes}
    return world.study(method="describe", params={"variables": ["age"], "privacy": privacy})


@pytest.fixture
def world() -> World:
    return World(methods=frozenset({"cox", "describe", "glm"}), differential_privacy=DEMAND)


def reply(world: World, study: Study, name: str = "lu") -> Reply:
    asked = world.ask(study, study.plan().begin())
    return unpack(Reply, world.gates[name].answer(study.id, "t", asked))


def budgets(world: World, name: str = "lu") -> dict[str, Fraction]:
    return {r.id.split(":")[0]: Fraction(r.body["spent"]) for r in world.logs[name].store.list(promises.BUDGET)}


def test_a_noisy_study_runs_to_its_result_and_is_charged_once(world: World) -> None:
    user = world.people["user"]
    coordinator = Coordinator(Log(Store("sqlite://"), user.did, user.key), world.user)
    study = private(world)
    coordinator.start(study)
    result = coordinator.run(study.id, [MemoryChannel(g.me, g, "t") for g in world.gates.values()])
    coordinator.shutdown()
    rho = study.plan().wanted.promise.rho
    assert result.details["privacy"]["rho"] == str(rho)
    assert result.rounds == 1
    assert abs(result.n - 90) < 10 * result.details["privacy"]["noise_sd"]["rows"]
    for name in world.names:
        assert budgets(world, name) == {"dataset": rho, "permit": rho}
    assert [e["details"]["rho"] for e in answers(world)] == [str(rho)]


def test_the_opened_sum_carries_everybodys_noise(world: World) -> None:
    study = private(world)
    world.begin(study)
    plan, state = study.plan(), study.plan().begin()
    words = sums(world.asking(study)).sum(0, pack(state)).words
    plain = np.sum([plan.flatten(state, plan.work(world.frames[n]).local(state))[1] for n in world.names], axis=0)
    apart = (words.astype(np.uint64) - plain.astype(np.uint64)).view(np.int64)
    assert (apart[:-1] != 0).all()
    assert apart[-1] == 0
    kept = [world.logs[n].get(promises.NOISE, study.id).body["noise"] for n in world.names]
    shares = [np.frombuffer(_keys(world, n).unseal(k), dtype=np.uint64) for n, k in zip(world.names, kept, strict=True)]
    assert np.array_equal(np.sum(shares, axis=0, dtype=np.uint64), apart.view(np.uint64))


def answers(world: World, name: str = "lu") -> list[dict[str, Any]]:
    return [e for e in world.logs[name].entries() if e["kind"] == "round.answered"]


def _keys(world: World, name: str) -> Any:
    return world.gates[name].signatures


def test_the_same_round_again_gets_the_same_noise_and_costs_nothing(world: World) -> None:
    study = private(world)
    world.begin(study)
    first = reply(world, study)
    before = budgets(world)
    world.gates["lu"] = world.make_gate("lu", "LU")  # after a crash
    assert pack(reply(world, study)) == pack(first)
    assert budgets(world) == before


def test_two_studies_never_get_the_same_noise(world: World) -> None:
    seen = []
    for _ in range(2):
        study = private(world)
        world.begin(study)
        reply(world, study)
        seen.append(_keys(world, "lu").unseal(world.logs["lu"].get(promises.NOISE, study.id).body["noise"]))
    assert seen[0] != seen[1]


def test_the_noise_is_erased_when_the_study_ends(world: World) -> None:
    study = private(world)
    world.begin(study)
    reply(world, study)
    world.gates["lu"].close(study.id, "t")
    assert world.logs["lu"].get(promises.NOISE, study.id).body["noise"] == ""


def test_a_permit_that_demands_noise_opens_nothing_without(world: World) -> None:
    with pytest.raises(Refused) as caught:
        world.open(world.study(method="describe", params={"variables": ["age"]}))
    assert any("no sum without noise" in r for r in caught.value.reasons)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"epsilon": "1.01"}, "one study has an epsilon of at most 1"),
        ({"delta": "1e-5"}, "delta is at most"),
        ({"colluding": 0}, "collude or are lost"),
    ],
)
def test_less_noise_than_demanded_is_refused(world: World, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused) as caught:
        world.open(private(world, **changes))
    assert any(why in r for r in caught.value.reasons)


def test_the_permits_budget_ends(world: World) -> None:
    """Of epsilon 2, studies of epsilon 1 take less than half each: zero-concentrated privacy adds up better."""
    for _ in range(DEMAND.total.rho // Promise.of({"epsilon": 1}).rho):
        study = private(world)
        world.begin(study)
        reply(world, study)
    study = private(world)
    world.begin(study)
    with pytest.raises(Refused) as caught:
        reply(world, study)
    assert any("differential privacy: of epsilon 2" in r for r in caught.value.reasons)
    assert len(answers(world)) == 3
    spent = budgets(world)
    assert spent["permit"] <= DEMAND.total.rho
    told = {row["budget"].split(":")[0]: row for row in promises.left(world.logs["lu"], {})}
    assert told["permit"]["spent_epsilon"] <= 2
    assert told["permit"]["spent_rho"] == str(spent["permit"])


def test_the_persons_of_a_dataset_have_a_budget_of_their_own() -> None:
    world = World(methods=frozenset({"describe"}))  # a permit that demands no noise
    world.gates["lu"].promises = {"table": Promise.of({"epsilon": 1})}
    first, second = private(world), private(world)
    world.begin(first)
    world.begin(second)
    reply(world, first)
    with pytest.raises(Refused, match="dataset 'table' has no privacy budget"):
        reply(world, second)
    assert set(budgets(world)) == {"dataset"}
    assert len(answers(world)) == 1


def test_bounds_and_rounds_are_not_the_coordinators_choice(world: World) -> None:
    """A narrower frame, or a second round, would be answered with noise that does not fit."""
    study = private(world)
    world.begin(study)
    state = study.plan().begin()
    frame = dataclasses.replace(state.agreement.frame, scale=state.agreement.frame.scale / 1000)
    narrow = dataclasses.replace(state, agreement=dataclasses.replace(state.agreement, frame=frame))
    for bad in (narrow, dataclasses.replace(state, rounds=1)):
        with pytest.raises(Refused) as caught:
            world.gates["lu"].answer(study.id, "t", world.ask(study, bad, number=0))
        assert any("differential privacy" in r for r in caught.value.reasons)
    reply(world, study)
    with pytest.raises(Refused, match="may not answer"):
        world.gates["lu"].answer(study.id, "t", world.ask(study, dataclasses.replace(state, rounds=1)))


def test_too_few_persons_are_told_before_anything_is_spent(world: World) -> None:
    plan: Plan = private(world, epsilon="0.1").plan()
    with pytest.raises(TooNoisy, match="from about"):
        promises.refuse_useless(plan, 90)
    promises.refuse_useless(plan, 10**6)
    promises.refuse_useless(world.study().plan(), 1)  # without noise there is nothing to say


def test_a_holder_sees_the_cost_before(world: World) -> None:
    study = private(world)
    world.open(study)
    told = world.gates["lu"].preview(study.id).to_dict()["privacy"]
    assert told["rho"] == str(study.plan().wanted.promise.rho)
    assert told["needs_persons"] > 90
    assert budgets(world) == {}


def test_a_permit_carries_its_demand(world: World) -> None:
    assert Permit.from_dict(world.permit.to_dict()) == world.permit
    assert Permit.from_dict({**world.permit.to_dict(), "differential_privacy": None}).differential_privacy is None


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/explanation/differential-privacy.md").read_text(), re.DOTALL
    )
    exec(compile(example, "differential-privacy.md", "exec"), {})
    told = capsys.readouterr().out
    assert "2.72 times as likely" in told
    assert "says something from about" in told
