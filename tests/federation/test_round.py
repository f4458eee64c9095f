"""Rounds in which holders vanish, crash or are lied to: what is opened, and what is not."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field

import pytest

from ihds.attacks.dropouts import Liar
from ihds.attacks.world import Keys, Space, people, shared_out
from ihds.audit.log import Log
from ihds.canonical import pack, unpack
from ihds.errors import CannotVerify, IhdsError, NotAuthenticated, Refused, SiteMissing
from ihds.federation.channel import MemoryChannel
from ihds.federation.coordinator import Coordinator
from ihds.federation.round import fewest, missing
from ihds.federation.study import Confirm, Uncovered
from ihds.governance.aggregation import CONTINUE, Aggregation
from ihds.privacy.secagg.party import Party
from ihds.roles.local import LocalKeys
from ihds.store.store import Store

FORMULA = "relapse ~ age + bmi"
SITES = 4


@dataclass(frozen=True)
class Line(MemoryChannel):
    """A way to a holder that breaks at chosen calls: ``cut`` names them, ``again`` counts how often each came."""

    cut: set = field(default_factory=set)
    came: Counter = field(default_factory=Counter)

    def _call(self, name):
        number = self.came[name]
        self.came[name] += 1
        if "dead" in self.cut or (name, number) in self.cut:
            self.cut.add("dead")
            raise SiteMissing(f"{self.holder} did not answer")

    def join(self, *args):
        self._call("join")
        return super().join(*args)

    def answer(self, *args):
        self._call("answer")
        return super().answer(*args)

    def step(self, study_id, name, body):
        self._call(name)
        return super().step(study_id, name, body)


class Runs:
    """A study of glm over four sites with our own coordinator, on lines that can be cut."""

    def __init__(self, aggregation: Aggregation | None = None, sites: int = SITES) -> None:
        self.space = Space(shared_out(people(40 * sites, 3), sites), aggregation=aggregation or Aggregation())
        self.log = Log(Store("sqlite://"), self.space.user.identity.did, self.space.user.identity.key)
        self.coordinator = Coordinator(self.log, LocalKeys(self.space.user.identity, self.space.known))
        self.study = self.space.study("glm", formula=FORMULA, family="gaussian")
        self.coordinator.start(self.study)

    def run(self, cut: dict[int, set] | None = None):
        lines = [Line(g.me, g, "t", (cut or {}).get(i, set())) for i, g in enumerate(self.space.gates)]
        return self.coordinator.run(self.study.id, lines)

    def events(self, kind: str) -> list[dict]:
        return [e["details"] for e in map(json.loads, self.log.store.read()) if e["kind"] == kind]

    def at(self, site: int, kind: str) -> list[dict]:
        read = self.space.gates[site].log.store.read()
        return [e["details"] for e in map(json.loads, read) if e["kind"] == kind]


def numbers(result) -> list[float]:
    return [c.estimate for c in result.coefficients]


@pytest.fixture(scope="module")
def undisturbed() -> list[float]:
    return numbers(Runs().run())


@pytest.fixture(scope="module")
def without_the_second() -> list[float]:
    parts = shared_out(people(40 * SITES, 3), SITES)
    return numbers(Space([p for i, p in enumerate(parts) if i != 1]).run("glm", formula=FORMULA, family="gaussian"))


@pytest.mark.parametrize("step", ["confirm", "uncover"])
def test_a_holder_that_vanishes_after_its_reply_costs_nothing(undisturbed, step):
    runs = Runs()
    with pytest.raises(SiteMissing):
        runs.run({1: {(step, 1)}})
    assert [e["round"] for e in runs.events("study.round")] == [0, 1], "the round was completed with it included"
    result = runs.run()
    assert numbers(result) == pytest.approx(undisturbed, rel=1e-12)
    assert result.provenance["secure_sums"]["missing"] == []
    assert [e["round"] for e in runs.at(1, "round.answered")] == list(range(result.rounds))


def test_by_default_a_study_waits_for_a_holder_that_does_not_answer(undisturbed):
    runs = Runs()
    with pytest.raises(SiteMissing):
        runs.run({1: {("answer", 1)}})
    assert [e["round"] for e in runs.events("study.round")] == [0]
    assert not [e for site in range(SITES) for e in runs.at(site, "round.confirmed") if e["round"] == 1]
    assert numbers(runs.run()) == pytest.approx(undisturbed, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "since", "begun"), [(("answer", 0), 0, 0), (("answer", 2), 2, 1), (("confirm", 1), 2, 1)]
)
def test_a_study_that_may_goes_on_without_a_holder_and_says_so(without_the_second, call, since, begun):
    runs = Runs(Aggregation(CONTINUE))
    result = runs.run({1: {call}})
    assert numbers(result) == pytest.approx(without_the_second, rel=1e-12)
    lost = runs.space.gates[1].me
    assert result.provenance["secure_sums"]["missing"] == [{"did": lost, "since_round": since}]
    assert f"without {lost} since round {since}" in result.provenance["secure_aggregation"]
    assert lost not in {h["did"] for h in result.provenance["holders"]}
    assert len(runs.events("study.restarted")) == begun
    assert runs.space.gates[0].log.get("gate.without", runs.study.permit).body == {"missing": [lost]}


def test_two_groups_that_open_sums_share_a_holder_that_does_not_collude():
    for holders in (4, 5, 7, 9):
        runs = Runs(Aggregation(dropouts=CONTINUE), sites=holders)
        colluding, least = runs.study.aggregation.colluders(holders), fewest(runs.study)
        assert 2 * least - holders > colluding
        assert missing(runs.study, runs.study.holders[:least]) == tuple(sorted(runs.study.holders[least:]))
        with pytest.raises(Refused, match="not opened") as refused:
            missing(runs.study, runs.study.holders[: least - 1])
        assert any("survivors" in reason for reason in refused.value.reasons)


def test_a_noisy_sum_is_not_opened_without_the_noise_of_some():
    study = Runs(Aggregation(dropouts=CONTINUE), sites=5).study
    noisy = dataclasses.replace(study, params={**study.params, "privacy": {"epsilon": 1.0}})
    assert missing(study, study.holders[:4])
    with pytest.raises(Refused) as refused:
        missing(noisy, study.holders[:4])
    assert any("noise" in reason for reason in refused.value.reasons)


def test_a_study_waits_where_too_few_would_be_left():
    runs = Runs(Aggregation(CONTINUE), sites=3)
    with pytest.raises(SiteMissing):
        runs.run({1: {("answer", 1)}})
    assert runs.run().provenance["secure_sums"]["missing"] == []


def test_a_second_loss_is_waited_for():
    runs = Runs(Aggregation(CONTINUE), sites=6)
    with pytest.raises(SiteMissing):
        runs.run({1: {("answer", 0)}, 2: {("answer", 2)}})
    missing = runs.run({1: {"dead"}}).provenance["secure_sums"]["missing"]
    assert [m["did"] for m in missing] == [runs.space.gates[1].me]


def test_under_one_permit_sums_lack_one_group_of_holders():
    """Without this, each site could be said to be lost in a study of its own, and be found by subtraction."""
    space = Space(shared_out(people(160, 3), SITES), aggregation=Aggregation(CONTINUE))
    first, second = Liar.of(space), Liar.of(space)
    one, two = first.all[1], first.all[2]
    first.secrets([d for d in first.all if d != one])
    with pytest.raises(Refused, match="without other holders"):
        second.secrets([d for d in second.all if d != two])


def test_a_study_waits_for_a_holder_that_other_studies_of_its_permit_had(undisturbed):
    runs = Runs(Aggregation(CONTINUE))
    runs.run({1: {("answer", 0)}})
    runs.study = runs.space.study("glm", formula=FORMULA, family="gaussian")
    runs.coordinator.start(runs.study)
    with pytest.raises(SiteMissing):
        runs.run({2: {("answer", 0)}})
    assert numbers(runs.run()) == pytest.approx(undisturbed, rel=1e-12)


def test_keys_of_a_holder_that_cannot_be_looked_up_any_more_stop_no_round(monkeypatch, undisturbed):
    verify, gone = Keys.verify, set()

    def looked_up(self, token, signer):
        if signer in gone and self is not runs.space.user:
            raise CannotVerify(f"the DID document of {signer} cannot be fetched")
        return verify(self, token, signer)

    class Dying(Line):
        def answer(self, *asked):
            reply = super().answer(*asked)
            if self.came["answer"] == 2:
                gone.add(self.holder)
                self.cut.add("dead")
            return reply

    runs = Runs()
    monkeypatch.setattr(Keys, "verify", looked_up)
    lines = [(Dying if i == 1 else Line)(g.me, g, "t", set()) for i, g in enumerate(runs.space.gates)]
    with pytest.raises((SiteMissing, CannotVerify)):  # the next round waits
        runs.coordinator.run(runs.study.id, lines)
    assert [e["round"] for e in runs.events("study.round")] == [0, 1]
    gone.clear()
    assert numbers(runs.run()) == pytest.approx(undisturbed, rel=1e-12)


def test_a_site_of_few_persons_takes_no_part_where_it_may_be_told_from_the_others():
    parts = shared_out(people(160, 3), SITES)
    parts[1] = parts[1].iloc[:8]
    limits = dataclasses.replace(Space(parts).limits, min_site_persons=5, min_difference=10)
    assert Space(parts, limits).run("describe", variables="age")
    with pytest.raises(Refused) as refused:
        Space(parts, limits, aggregation=Aggregation(CONTINUE)).run("describe", variables="age")
    assert "min_difference" in str(refused.value)


# -- a coordinator that lies ---------------------------------------------------------------------


def liar(dropouts: str = CONTINUE) -> Liar:
    return Liar.of(Space(shared_out(people(160, 3), SITES), aggregation=Aggregation(dropouts)))


def test_nobody_is_left_out_of_a_sum_that_is_over_all():
    told = liar("wait")
    with pytest.raises(Refused, match="over all its holders"):
        told.confirmed(told.all[0], told.others)


def test_a_sum_is_not_opened_for_too_few(monkeypatch):
    told = liar()
    with pytest.raises(Refused, match="min_holders"):
        told.confirmed(told.all[0], told.all[:2])


def test_two_survivor_sets_are_not_both_confirmed_nor_opened_by_half_the_holders():
    told = liar()
    a, b = told.all[:2], told.all[2:]
    first, second = [d for d in told.all if d != a[1]], list(told.all)
    words = {d: told.confirmed(d, first) for d in (a[0], b[0])} | {d: told.confirmed(d, second) for d in (b[1],)}
    with pytest.raises(Refused, match="another set was confirmed"):
        told.confirmed(a[0], second)
    gate = next(g for g in told.asked.space.gates if g.me == a[0])
    for few in (dict(list(words.items())[:2]), words):
        with pytest.raises(Refused, match="too few confirmed"):
            gate.step(told.asked.study.id, "t", "uncover", told.uncover(a[0], tuple(few.items()), first))


def test_a_word_that_its_holder_did_not_sign_opens_nothing():
    told = liar()
    words = {d: told.confirmed(d, told.all) for d in told.all}
    forged = dict.fromkeys(told.all, words[told.all[0]])
    gate = told.asked.space.gates[0]
    with pytest.raises(NotAuthenticated):
        gate.step(told.asked.study.id, "t", "uncover", told.uncover(gate.me, tuple(forged.items()), told.all))
    body = pack(Confirm(LocalSigned(told).sign({"attempt": 0, "survivors": list(told.all)}), ()))
    with pytest.raises(NotAuthenticated):
        gate.step(told.asked.study.id, "t", "confirm", body)


class LocalSigned:
    """Signs what lacks study and permit, as if for any of them."""

    def __init__(self, told: Liar) -> None:
        self.sign = told.asked.space.user.sign


def test_words_and_shares_of_another_study_open_nothing():
    space = Space(shared_out(people(160, 3), SITES))
    one, two = Liar.of(space), Liar.of(space)
    for told in (one, two):
        words = tuple((d, told.confirmed(d, told.all)) for d in told.all)
    gate = space.gates[0]
    other = tuple((d, one.confirmed(d, one.all)) for d in one.all)
    with pytest.raises(Refused, match="too few confirmed"):
        gate.step(two.asked.study.id, "t", "uncover", two.uncover(gate.me, other, two.all))
    answer = gate.step(two.asked.study.id, "t", "uncover", one.uncover(gate.me, words, two.all))
    shares = unpack(Uncovered, answer).reveal
    assert set(shares.unreadable) == set(two.all), "boxes of another study do not open"
    assert not shares.shares.any()


def test_a_study_does_not_begin_again_under_a_permit_that_waits():
    told = liar("wait")
    told.secrets(told.all)
    space, study = told.asked.space, told.asked.study
    claims = {"study": study.id, "permit": study.permit, "round": 0, "attempt": 1, "present": list(told.others)}
    with pytest.raises(Refused):
        space.gates[0].answer(study.id, "t", space.signed(claims, told.asked.state))


# -- crashes ---------------------------------------------------------------------------------------


class Crash(Exception):
    """The process died here."""


def anew(space: Space) -> None:
    """Replace every gate by one that knows no more than the store does."""
    space.gates[:] = [dataclasses.replace(g, _works={}, _marks={}, _lock=type(g._lock)()) for g in space.gates]


def test_what_is_asked_again_after_a_crash_is_answered_the_same():
    told = liar()
    space, study = told.asked.space, told.asked.study
    gate, state = space.gates[0], told.asked.state
    first = gate.answer(study.id, "t", space.asked(study, state))
    words = tuple((d, told.confirmed(d, told.all)) for d in told.all)
    ask = told.uncover(gate.me, words, told.all)
    shares = unpack(Uncovered, gate.step(study.id, "t", "uncover", ask)).reveal.shares.tobytes()
    entries = len(list(gate.log.store.read()))
    anew(space)
    gate = space.gates[0]
    assert gate.answer(study.id, "t", space.asked(study, state)) == first
    told.confirmed(gate.me, told.all)
    assert unpack(Uncovered, gate.step(study.id, "t", "uncover", ask)).reveal.shares.tobytes() == shares
    assert len(list(gate.log.store.read())) == entries, "nothing was done twice"


@pytest.mark.parametrize("mode", ["before", "after"])
def test_a_crash_at_every_transaction_loses_nothing_and_opens_nothing_twice(monkeypatch, undisturbed, mode):
    plain, alive = Store.transact, {"left": 10**9}

    def dying(self, puts, append):
        alive["left"] -= 1
        if alive["left"] < 0 or (alive["left"] == 0 and mode == "before"):
            raise Crash
        plain(self, puts, append)
        if alive["left"] == 0:
            raise Crash

    monkeypatch.setattr(Store, "transact", dying)
    runs, lives, after, result = Runs(sites=SITES), 0, 1, None
    while result is None:
        alive["left"], lives = after, lives + 1
        after = 1 + (lives % 4 == 0) + (mode == "before")  # a row that comes first would starve the next
        try:
            result = runs.run()
        except (Crash, IhdsError):
            anew(runs.space)
    assert lives > 15
    alive["left"] = 10**9
    assert numbers(result) == pytest.approx(undisturbed, rel=1e-12)
    for site in range(SITES):
        for kind in ("round.answered", "round.confirmed"):
            attempts = [e["attempt"] for e in runs.at(site, kind) if "attempt" in e]
            assert attempts == sorted(set(attempts)), f"{kind} twice"


def test_secrets_of_a_round_are_sealed_and_gone_when_the_next_is_entered(monkeypatch):
    drawn, begin = [], Party.begin
    monkeypatch.setattr(Party, "begin", lambda *asked: drawn.append(begin(*asked)) or drawn[-1])
    plain = {}
    monkeypatch.setattr(
        Keys, "seal", lambda _, data: plain.setdefault(f"sealed {len(plain)}", data) and list(plain)[-1]
    )
    monkeypatch.setattr(Keys, "unseal", lambda _, text: plain[text])
    space = Space(shared_out(people(160, 3), SITES))
    rounds = space.rounds(space.study("glm", formula=FORMULA, family="gaussian"))
    for number in range(3):
        next(rounds)
        kept = [g.log.store.list("gate.study")[0].body for g in space.gates]
        text = json.dumps(kept)
        assert not any(
            getattr(p, name) in text for p in drawn for name in ("mask_key", "share_key", "self_seed", "coins")
        )
        held = b"".join(plain[body["sums"][place]] for body in kept for place in ("party", "next")).decode()
        assert {p.round for p in drawn if p.mask_key in held} == {number, number + 1}
    for gate in space.gates:
        gate.close(gate.log.store.list("gate.study")[0].id, "t")
    assert all(g.log.store.list("gate.study")[0].body["sums"] == {} for g in space.gates)
