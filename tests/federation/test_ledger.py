"""Differencing: two studies on nearly the same persons, whose sums could be subtracted."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.coverage import coverage
from ihds.analysis.plan import Plan
from ihds.audit.log import Log
from ihds.canonical import pack
from ihds.data.frames import InMemory
from ihds.data.source import FrameSource
from ihds.data.table import conform, draft_codebook
from ihds.data.wide import Table, Wide
from ihds.errors import IhdsError, Refused
from ihds.federation import ledger
from ihds.federation.engine import Dask
from ihds.federation.gate import Gate
from ihds.ids import PermitId
from ihds.privacy.disclosure import Thresholds
from ihds.privacy.population import marks
from ihds.roles.local import LocalKeys
from tests.federation.test_gate import World

WIDE, NARROW = "size ~ age", "size ~ age + weight"
METHODS = frozenset({"glm", "describe", "table_one", "causal_effect"})


def rows(persons: int = 120, visits: int = 1, lack: int = 1) -> pd.DataFrame:
    """Invented persons dealt to three sites; at each the first ``lack`` persons lack a weight, once."""
    rng = np.random.default_rng(5)
    who = np.repeat(np.arange(persons), visits)
    frame = pd.DataFrame(
        {
            "person": [f"p{i:06d}" for i in who],
            "age": np.round(rng.normal(60, 8, len(who)), 3),
            "size": rng.normal(3, 1, len(who)),
            "weight": rng.normal(70, 9, len(who)),
            "arm": np.where(rng.random(len(who)) < 0.5, "a", "b"),
        }
    )
    frame.loc[(who < 3 * lack) & ~pd.Series(who).duplicated(), "weight"] = np.nan
    return frame


class Ledgers(World):
    """Three gates whose persons have names, and a user who asks one study after another."""

    def __init__(self, frame: pd.DataFrame, engine=None, **permit_changes) -> None:
        self.engine, self.book = engine, draft_codebook("t", frame, "person")
        asked = {"methods": METHODS, **permit_changes}
        super().__init__(variables=frozenset(frame.columns), max_rounds=500, **asked)
        self.book = draft_codebook("t", frame, "person")
        self.load(frame)

    def load(self, frame: pd.DataFrame) -> None:
        number = frame["person"].str[1:].astype(int)
        for i, name in enumerate(self.names):
            self.frames[name] = conform(frame[number % 3 == i].reset_index(drop=True), self.book, name)
        self.restart()

    def restart(self) -> None:
        for name, country in zip(self.names, ("LU", "KR", "US"), strict=True):
            self.gates[name] = self.make_gate(name, country)

    def make_gate(self, name: str, country: str) -> Gate:
        gate = super().make_gate(name, country)
        gate.source = FrameSource("table", self.frames[name], self.book)
        if self.engine is not None:
            gate.engine = self.engine
        return gate

    def another_permit(self) -> None:
        self.permit = self.grants.permit = dataclasses.replace(self.permit, id=PermitId.new())

    def moments(self, formula: str, method: str = "glm", **more):
        """Ask up to the moments; return rows, and the sum of the first number over them, as the user computes it."""
        study = self.study(method=method, params={"formula": formula, **more})
        self.begin(study)
        state = self.sum(study, study.plan().begin())
        plan, frame = study.plan(), state.agreement.frame
        opened = self.models[study.id].sum(state.rounds, pack(state))
        total = plan.total(state, opened.reply.kind, opened.reply.layout, opened.words)
        at = frame.columns.index("age")
        return total.count[at], total.total[at] * frame.scale[at] + total.count[at] * frame.centre[at]

    def dictionary(self, method: str = "glm", **params) -> None:
        """Ask the first round of a study."""
        study = self.study(method=method, params=params)
        self.begin(study)
        self.sum(study, study.plan().begin())


@pytest.fixture
def without_ledger(monkeypatch):
    monkeypatch.setattr(ledger, "_near", lambda *_: False)


# -- the attack ---------------------------------------------------------------------------------------


def test_without_the_ledger_two_studies_give_one_persons_value(without_ledger):
    frame = rows(lack=0)
    frame.loc[7, "weight"] = np.nan
    world = Ledgers(frame)
    (n, age), (fewer, less) = world.moments(WIDE), world.moments(NARROW)
    assert n - fewer == 1
    assert age - less == pytest.approx(frame.loc[7, "age"], abs=1e-6)


@pytest.mark.parametrize(("first", "second"), [(WIDE, NARROW), (NARROW, WIDE)])
@pytest.mark.parametrize("how", ["at once", "another permit", "restart"])
def test_two_studies_cannot_be_subtracted(first, second, how):
    world = Ledgers(rows())
    world.dictionary(formula=first)
    if how == "another permit":
        world.another_permit()
    if how == "restart":
        world.restart()
    study = world.study(method="glm", params={"formula": second})
    announced = world.open(study)
    asked = world.ask(study, study.plan().begin())
    for gate in world.gates.values():
        for ask in (lambda g: g.join(study.id, "t", announced), lambda g: g.answer(study.id, "t", asked)):
            with pytest.raises(Refused) as caught:
                ask(gate)
            assert caught.value.reasons[0].startswith("min_difference:")
            assert "complete_for" in caught.value.remedy


def test_a_study_that_one_site_refuses_is_in_no_ledger():
    frame = rows(lack=0)
    frame.loc[1, "weight"] = np.nan  # at one site one person, at the others nobody
    world = Ledgers(frame)
    world.dictionary(formula=WIDE)
    before = {n: log.store.list(ledger.KIND) for n, log in world.logs.items()}
    with pytest.raises(Refused, match="nearly the same persons"):
        world.dictionary(formula=NARROW)
    assert {n: log.store.list(ledger.KIND) for n, log in world.logs.items()} == before
    assert world.logs["kr"].entries()[-1]["kind"] == "study.refused"


def test_a_refusal_tells_neither_how_many_nor_who():
    said = []
    for lack in (1, 4):
        world = Ledgers(rows(lack=lack))
        world.dictionary(formula=WIDE)
        with pytest.raises(Refused) as caught:
            world.dictionary(formula=NARROW)
        said.append((caught.value.message, caught.value.reasons, caught.value.remedy))
        entries = json.dumps(world.logs["lu"].entries()[-1])
        assert "p0000" not in entries
    assert said[0] == said[1]
    assert re.findall(r"\d+", " ".join((said[0][0], *said[0][1], said[0][2]))) == ["10"]


@pytest.mark.parametrize(("lack", "refused"), [(9, True), (10, False)])
def test_the_threshold_itself_is_enough(lack, refused):
    world = Ledgers(rows(lack=lack))
    world.dictionary(formula=WIDE)
    if refused:
        with pytest.raises(Refused):
            world.dictionary(formula=NARROW)
    else:
        world.dictionary(formula=NARROW)


def test_the_strictest_threshold_holds():
    strict = Thresholds(min_difference=11)
    world = Ledgers(rows(lack=10), thresholds=strict)
    study = world.study(method="glm", params={"formula": WIDE})  # the study says 10
    with pytest.raises(Refused, match="refuses the study"):
        world.begin(study)
    for formula, refused in ((WIDE, False), (NARROW, True)):
        study = world.study(method="glm", params={"formula": formula}, thresholds=strict)
        if refused:
            with pytest.raises(Refused, match="nearly the same persons"):
                world.begin(study)
            continue
        world.begin(study)
        world.sum(study, study.plan().begin())


def test_rows_of_one_person_are_one_person():
    """Twelve rows of one person at each site, and all its rows but one, are both a difference of one."""
    frame = rows(visits=12, lack=0)
    frame.loc[frame["person"].isin(["p000000", "p000001", "p000002"]), "weight"] = np.nan
    for lacking in (frame, rows(visits=12, lack=1)):
        world = Ledgers(lacking)
        world.dictionary(formula=WIDE)
        with pytest.raises(Refused, match="nearly the same persons"):
            world.dictionary(formula=NARROW)


def test_over_a_cluster_persons_of_all_parts_are_compared():
    engine = Dask(workers=2)
    try:
        world = Ledgers(rows(), engine=engine)
        world.dictionary(formula=WIDE)
        world.dictionary(formula=WIDE)
        with pytest.raises(Refused, match="nearly the same persons"):
            world.dictionary(formula=NARROW)
    finally:
        engine.close()


def test_another_users_studies_are_not_compared():
    world = Ledgers(rows())
    world.dictionary(formula=WIDE)
    evil = world.people["evil"].did
    world.attested = tuple(term.replace("did:web:user", evil) for term in world.attested)
    world.restart()
    world.user = LocalKeys(world.people["evil"], world.known)
    world.permit = world.grants.permit = dataclasses.replace(world.permit, id=PermitId.new(), user=evil)
    study = world.study(method="glm", params={"formula": NARROW}, user=evil)
    world.begin(study)
    state = study.plan().begin()
    assert world.gates["lu"].answer(study.id, "t", world.ask(study, state, signer="evil"))


def test_the_holder_sees_beforehand_that_a_study_comes_too_near():
    world = Ledgers(rows())
    first, second = (world.study(method="glm", params={"formula": f}) for f in (WIDE, NARROW))
    world.open(first)
    gate, log = world.gates["lu"], world.logs["lu"]
    assert gate.preview(first.id).refused == ()
    assert log.get(ledger.KIND, "secret") is None
    world.begin(first)
    world.sum(first, first.plan().begin())
    world.open(second)
    before = len(log.entries())
    assert gate.preview(first.id).refused == ()
    assert gate.preview(second.id).refused[0].startswith("min_difference:")
    assert len(log.entries()) == before


# -- what an analyst does -----------------------------------------------------------------------------


def test_the_same_population_is_always_fine_and_kept_once():
    world = Ledgers(rows())
    sizes = set()
    for formula in (WIDE, "age ~ size", "age ~ arm + size"):
        world.dictionary(formula=formula)
        held = [r for r in world.logs["lu"].store.list(ledger.KIND) if "populations" in r.body]
        sizes.add(len(held[0].body["populations"]))
    assert sizes == {1}
    (text,) = held[0].body["populations"]
    assert len(text) < 400
    world.another_permit()
    world.dictionary(formula=WIDE)
    (told,) = world.logs["lu"].get(ledger.KIND, held[0].id).body["populations"].values()
    assert len(told["permits"]) == 2


def test_studies_complete_for_the_same_variables_cover_the_same_persons():
    frame = rows()
    world = Ledgers(frame)
    both = "weight, age"
    n, age = world.moments(WIDE, complete_for=both)
    fewer, less = world.moments(NARROW, complete_for=("age", "weight"))
    assert (n, age) == (fewer, less)
    assert n == frame["weight"].notna().sum()
    world.dictionary("describe", variables=["age", "size"], complete_for=both)
    world.dictionary("table_one", formula="~ age", by="arm", complete_for=both)
    with pytest.raises(Refused):
        world.dictionary("describe", variables=["age"])
    with pytest.raises(IhdsError, match="not in the codebook"):
        world.study(method="glm", params={"formula": WIDE, "complete_for": "wieght"}).plan()
    with pytest.raises(IhdsError, match="complete_for is 3"):
        world.study(method="glm", params={"formula": WIDE, "complete_for": 3}).plan()


def test_what_must_be_complete_must_be_permitted():
    world = Ledgers(rows())
    world.grants.permit = dataclasses.replace(world.permit, variables=frozenset({"age", "size", "person"}))
    with pytest.raises(Refused) as caught:
        world.begin(world.study(method="glm", params={"formula": WIDE, "complete_for": "weight"}))
    assert any("weight" in reason for reason in caught.value.reasons)


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        (("describe", {"variables": ["age"]}), ("glm", {"formula": NARROW}), True),
        (("glm", {"formula": NARROW}), ("describe", {"variables": ["age"]}), True),
        (("describe", {"variables": ["weight"]}), ("glm", {"formula": NARROW}), False),
        (("describe", {"variables": ["age", "weight"]}), ("describe", {"variables": ["age", "weight"]}), False),
        (("describe", {"variables": ["arm"]}), ("glm", {"formula": NARROW}), False),
        (("describe", {"variables": ["age"]}), ("table_one", {"formula": "~ age", "by": "arm"}), False),
        (("glm", {"formula": WIDE}), ("glm", {"formula": "weight ~ arm"}), True),  # no variable shared, yet refused
    ],
)
def test_a_table_covers_the_persons_of_each_variable(first, second, refused):
    world = Ledgers(rows())
    world.dictionary(first[0], **first[1])
    if refused:
        with pytest.raises(Refused, match="nearly the same persons"):
            world.dictionary(second[0], **second[1])
    else:
        world.dictionary(second[0], **second[1])


def test_groups_of_a_table_and_single_features_have_populations_too():
    frame = rows(lack=0)
    frame.loc[:2, "arm"] = None
    world = Ledgers(frame)
    world.dictionary("describe", variables=["age"])
    with pytest.raises(Refused, match="nearly the same persons"):
        world.dictionary("table_one", formula="~ age", by="arm")
    book = world.book
    plan = Plan("causal_effect", {"formula": "arm ~ age", "outcome": "weight"}, book, Thresholds(), 3)
    lacking = conform(rows(lack=2), book, "x")
    table = Table.of(lacking, plan.agreement.ask.features)
    told = coverage(plan.agreement.ask, plan.agreement.begin().levels, table, marks(b"s", [lacking["person"]], 120))
    assert [sorted(p.variables) for p in told.populations] == [["age", "arm"], ["weight"]]
    assert not np.array_equal(told.populations[0].words, told.populations[1].words)


def test_rows_of_many_features_are_compared_with_those_of_models():
    frame = rows(lack=0).assign(**{f"gene_{i:03}": np.arange(120.0) for i in range(70)})
    world = Ledgers(frame, methods=METHODS | {"principal_components"})
    world.dictionary("principal_components", features="gene_*")
    frame.loc[:2, "weight"] = np.nan
    world.load(frame)
    with pytest.raises(Refused, match="nearly the same persons"):
        world.dictionary(formula=NARROW)


def test_a_model_with_gaps_covers_the_persons_of_each_number():
    book = draft_codebook("t", rows(lack=0), "person")
    plan = Plan("glm_imputed", {"formula": NARROW}, book, Thresholds(), 3)
    lacking = conform(rows(lack=2), book, "x")
    told = coverage(
        plan.agreement.ask, plan.agreement.begin().levels, Table.of(lacking, ()), marks(b"s", [lacking["person"]], 120)
    )
    assert [(sorted(p.variables), p.whole) for p in told.populations] == [
        (["size"], True),
        (["age"], False),
        (["weight"], False),
    ]
    assert np.array_equal(told.populations[0].words, told.populations[1].words)
    assert not np.array_equal(told.populations[0].words, told.populations[2].words)


# -- data that change ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "refused"), [(0, False), (9, True), (30, False)])
def test_new_persons_must_be_enough(more, refused):
    world = Ledgers(rows(lack=0))
    world.dictionary(formula=WIDE)
    grown = pd.concat([rows(lack=0), rows(120 + more, lack=0).iloc[120:]], ignore_index=True)
    world.load(grown.sample(frac=1, random_state=1))  # in another order
    if refused:
        with pytest.raises(Refused, match="nearly the same persons"):
            world.dictionary(formula=WIDE)
    else:
        world.dictionary(formula=WIDE)


def test_a_person_exchanged_for_another_is_seen():
    frame = rows(lack=0)
    world = Ledgers(frame)
    world.dictionary(formula=WIDE)
    frame.loc[5, "person"] = "p000999"
    world.load(frame)
    with pytest.raises(Refused, match="nearly the same persons"):
        world.dictionary(formula=WIDE)


def test_data_that_change_during_a_study_end_it():
    world = Ledgers(rows(lack=0))
    study = world.study(method="glm", params={"formula": WIDE})
    world.begin(study)
    state = world.sum(study, study.plan().begin())
    world.load(rows(200, lack=0))
    with pytest.raises(Refused, match="data changed during the study"):
        world.sum(study, state)


# -- who would get round it ---------------------------------------------------------------------------


def test_persons_are_told_apart_as_the_site_says():
    world = Ledgers(rows())
    forged = dataclasses.replace(world.book, person="arm")
    with pytest.raises(Refused) as caught:
        world.begin(world.study(method="glm", params={"formula": WIDE}, codebook=forged.to_dict()))
    assert any("counts persons" in reason for reason in caught.value.reasons)


def test_nobody_is_left_out_by_leaving_out_a_level():
    world = Ledgers(rows(lack=0))
    arm = dataclasses.replace(world.book.variable("arm"), levels=("a",))
    forged = dataclasses.replace(world.book, variables={**world.book.variables, "arm": arm})
    with pytest.raises(Refused) as caught:
        world.begin(world.study(method="glm", params={"formula": "size ~ arm"}, codebook=forged.to_dict()))
    assert any("levels here that the study leaves out" in reason for reason in caught.value.reasons)


def test_a_level_that_is_held_cannot_be_dropped_between_rounds():
    """A modified coordinator would ask for moments with and without the few persons of a level."""
    world = Ledgers(rows(lack=0))
    study = world.study(method="glm", params={"formula": "size ~ age + arm"})
    world.begin(study)
    state = world.sum(study, study.plan().begin())
    levels, whole = {"arm": ("a",)}, state.agreement.frame
    kept = [i for i, name in enumerate(whole.columns) if "arm" not in name]
    frame = dataclasses.replace(
        whole,
        levels=levels,
        columns=tuple(whole.columns[i] for i in kept),
        centre=whole.centre[kept],
        scale=whole.scale[kept],
    )
    evil = dataclasses.replace(state, agreement=dataclasses.replace(state.agreement, levels=levels, frame=frame))
    with pytest.raises(Refused) as caught:
        world.gates["lu"].answer(study.id, "t", world.ask(study, evil))
    assert any("levels" in reason for reason in caught.value.reasons)
    with pytest.raises(Refused, match="closed"):  # one question, not one per level
        world.gates["lu"].answer(study.id, "t", world.ask(study, state))


def test_what_a_formula_computes_does_not_choose_who_is_compared():
    """Else the site that holds one known person would refuse, and so tell that it does."""
    world = Ledgers(rows(lack=0))
    world.dictionary(formula=WIDE)
    age = float(world.frames["kr"]["age"].iloc[0])
    study = world.study(method="glm", params={"formula": f"size ~ age + I(1/(age-{age!r}))"})
    world.begin(study)
    for gate in world.gates.values():
        assert gate.answer(study.id, "t", world.ask(study, study.plan().begin()))


def test_a_round_and_its_entry_are_written_together_or_not_at_all(monkeypatch):
    world = Ledgers(rows())
    world.dictionary(formula=WIDE)
    study = world.study(method="glm", params={"formula": "age ~ arm"})
    world.begin(study)
    asked, gate = world.ask(study, study.plan().begin()), world.gates["lu"]
    before = world.logs["lu"].store.list(ledger.KIND)
    commit = Log.commit

    def dying(self, event, *puts):
        if event.kind == "round.answered":
            raise KeyboardInterrupt
        commit(self, event, *puts)

    monkeypatch.setattr(Log, "commit", dying)
    with pytest.raises(KeyboardInterrupt):
        gate.answer(study.id, "t", asked)
    assert world.logs["lu"].store.list(ledger.KIND) == before
    monkeypatch.undo()
    world.restart()
    gate = world.gates["lu"]
    first = gate.answer(study.id, "t", asked)
    after = world.logs["lu"].store.list(ledger.KIND)
    assert gate.answer(study.id, "t", asked) == first
    assert world.logs["lu"].store.list(ledger.KIND) == after


def test_sites_keep_secrets_of_their_own_and_the_store_names_nobody():
    world = Ledgers(rows())
    world.dictionary(formula=WIDE)
    known = {n: world.logs[n].get(ledger.KIND, "secret").body["sealed"] for n in world.names}
    assert len(set(known.values())) == 3
    text = json.dumps([r.body for r in world.logs["lu"].store.list(ledger.KIND)])
    assert "p0000" not in text
    opened = {n: ledger.secret(world.logs[n], LocalKeys(world.people[n], world.known, world.sealing), n) for n in known}
    assert len(set(opened.values())) == 3
    assert all(len(value) == 32 for value in opened.values())


def test_the_log_proves_what_was_covered():
    world = Ledgers(rows())
    world.dictionary(formula=WIDE)
    told = [e["details"]["covered"] for e in world.logs["lu"].entries() if e["kind"] == "round.answered"]
    assert re.fullmatch("[0-9a-f]{64}", told[0])


def test_a_row_must_have_a_feature_that_is_read_in_blocks():
    book = draft_codebook("t", rows(lack=0), "person")
    call = {"formula": "~ age", "features": "weight", "complete_for": "weight"}
    plan = Plan("differential_expression", call, book, Thresholds(), 3)
    lacking = conform(rows(lack=2), book, "x")
    beside = Wide.held(("weight",), lacking[["weight"]].to_numpy())
    table = Table(InMemory(lacking.drop(columns="weight")), beside)
    levels = plan.agreement.begin().levels
    whole, feature = coverage(plan.agreement.ask, levels, table, marks(b"s", [lacking["person"]], 120)).populations
    assert np.array_equal(whole.words, feature.words)
    assert plan.agreement.rows(plan.begin().agreement, table).left_out == 6


def test_rows_without_names_are_persons_by_their_place():
    frame = rows(lack=0)
    world = Ledgers(frame)
    world.book = dataclasses.replace(world.book, person="")
    world.load(frame)
    world.dictionary(formula=WIDE)
    world.load(frame.iloc[:-6])
    with pytest.raises(Refused, match="nearly the same persons"):
        world.dictionary(formula=WIDE)
