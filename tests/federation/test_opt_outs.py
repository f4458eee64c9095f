"""People who opted out: the registry, its list at holders, and views without them (EHDS Art. 71)."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ihds.audit.log import Log
from ihds.catalogue import citizens
from ihds.data.genotypes import read_genotypes
from ihds.data.source import FrameSource, Scope
from ihds.data.sources import tabular
from ihds.data.sources.tabular import Beside, TabularSource
from ihds.data.table import conform, draft_codebook
from ihds.errors import BadInput, NotAuthenticated, NotFound, PeerFailed, Refused, SetupFailed, SiteMissing
from ihds.federation.engine import divide
from ihds.federation.opt_outs import Line, NoRegistry, OptOuts
from ihds.governance.opt_out import Choice, Entry, Exemption, as_of, exception, reaching
from ihds.governance.policy import Granted
from ihds.governance.rule import Certainty
from ihds.ids import PermitId
from ihds.privacy.opt_outs import ENTRY, History, among, normal, tokens
from ihds.roles import opt_out as registries
from ihds.roles.config import DatasetConfig, NodeConfig
from ihds.roles.local import LocalKeys
from ihds.roles.opt_out import Registry
from ihds.store.store import Store
from tests.federation.test_ledger import NARROW, Ledgers, rows

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Clock:
    """A clock the tests turn, for registry and holders alike."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        return self.at

    def wait(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(registries, "now", made)
    return made


def registry_of(world, clock: Clock) -> Registry:
    """Return a registry on a real store and log, without the rest of its node."""
    body = world.people["evil"]  # any party of the world can be the registry
    keys = LocalKeys(body, world.known)
    log = Log(Store("sqlite://"), body.did, body.key, clock)
    config = SimpleNamespace(country="LU", name="HDAB", base_url="https://body.example")
    return Registry(SimpleNamespace(did=body.did, log=log, store=log.store, signatures=keys, config=config))


class Chosen(Ledgers):
    """The gates of the ledger's tests, whose holders follow a registry."""

    def __init__(self, frame: pd.DataFrame, clock: Clock, engine=None, **permit) -> None:
        self.clock, self.registry, self.down = clock, None, False
        super().__init__(frame, engine, issued_at=clock.at, **permit)

    def make_gate(self, name: str, country: str):
        gate = super().make_gate(name, country)
        if self.registry is None:
            self.registry = registry_of(self, self.clock)
        if "person" in gate.source.book.variables:
            gate.opt_outs = self.choices(name, gate.source)
        return gate

    def choices(self, name: str, source, **more) -> OptOuts:
        me, registry = self.people[name].did, self.registry

        def page(dataset: str, after: int) -> str:
            if self.down:
                raise PeerFailed("it does not answer")
            return LocalKeys(self.people["evil"], self.known).sign(registry.page(me, dataset, after).claims())

        line = Line(
            registry.node.did, page, lambda d: registry.keys(me, d), LocalKeys(self.people[name], self.known).verify
        )
        settings = {"identified": {"table": "person"}, "clock": self.clock, **more}
        return OptOuts(me, "LU", source, self.logs[name], line, **settings)

    def choose(self, person: str, choice: Choice = Choice.OPTED_OUT, **more) -> dict:
        return self.registry.record(choice, {"id": person, **more})

    def permit_now(self, **changes) -> None:
        changes = {"id": PermitId.new(), "issued_at": self.clock.at.replace(microsecond=0), **changes}
        self.permit = self.grants.permit = dataclasses.replace(self.permit, **changes)

    def counted(self) -> int:
        return int(self.moments(NARROW)[0])


# -- the second that decides ---------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "left"), [(-1, 119), (0, 119), (1, 120)])
def test_one_second_before_the_permit_removes_the_person_one_after_does_not(clock, seconds, left):
    world = Chosen(rows(lack=0), clock)
    clock.wait(10 + seconds)
    world.choose("p000007")
    clock.at = NOON + timedelta(seconds=10)
    world.permit_now()
    clock.wait(5)
    assert world.counted() == left
    applied = [e["details"] for e in world.logs["lu"].entries() if e["kind"] == "opt_outs.applied"][0]
    assert (applied["permit"], applied["version"]) == (world.permit.id, 1)
    answered = [e["details"]["opt_outs"] for e in world.logs["lu"].entries() if e["kind"] == "round.answered"]
    assert {a["version"] for a in answered} == {1}


def test_a_reversal_counts_for_permits_from_then_on(clock):
    world = Chosen(rows(lack=0), clock)
    world.choose("p000007")
    clock.wait(1)
    world.permit_now(user=world.people["user"].did)
    assert world.counted() == 119
    world.choose("p000007", Choice.REVERSED)
    for name in world.names:  # another user's ledger, so that only the choice is looked at
        world.logs[name].store._engine.connect().exec_driver_sql("DELETE FROM records WHERE kind = 'gate.ledger'")
    assert world.counted() == 119, "the permit keeps its list"
    clock.wait(1)
    world.permit_now()
    for name in world.names:
        world.logs[name].store._engine.connect().exec_driver_sql("DELETE FROM records WHERE kind = 'gate.ledger'")
    world.restart()
    assert world.counted() == 120


# -- differencing ----------------------------------------------------------------------------------------


def test_all_studies_of_a_permit_see_the_same_persons(clock):
    world = Chosen(rows(lack=0), clock)
    first = world.moments(NARROW)
    clock.wait(60)
    world.choose("p000007")
    world.restart()
    assert world.moments(NARROW) == first


def test_without_the_ledger_an_opt_out_between_two_permits_gives_the_persons_value(clock, monkeypatch):
    from ihds.federation import ledger

    def ages(world):
        clock.wait(1)
        world.choose("p000007")
        clock.wait(1)
        world.permit_now()
        return world.moments(NARROW)

    world = Chosen(rows(lack=0), clock)
    (n, age) = world.moments(NARROW)
    with pytest.raises(Refused, match="nearly the same persons") as refused:
        ages(world)
    assert "p000007" not in str(refused.value)
    monkeypatch.setattr(ledger, "_near", lambda *_: False)
    world = Chosen(rows(lack=0), clock)
    (n, age), (fewer, less) = world.moments(NARROW), ages(world)
    assert n - fewer == 1
    assert age - less == pytest.approx(rows(lack=0).loc[7, "age"], abs=1e-6)


def test_rows_without_a_person_keep_their_marks_when_others_leave(clock):
    """Rows of nobody are marked by position; if positions moved, one person less would look like many."""
    frame = rows(lack=0)
    frame.loc[60:, "person"] = None
    world = Chosen.__new__(Chosen)
    world.clock, world.registry, world.down = clock, None, False
    whole = frame.assign(number=np.arange(len(frame)))
    world.load = lambda _f: None
    Ledgers.__init__(world, whole.drop(columns="number"), issued_at=clock.at)
    for i, name in enumerate(world.names):
        world.frames[name] = conform(frame[whole["number"] % 3 == i].reset_index(drop=True), world.book, name)
    world.restart()
    world.moments(NARROW)
    clock.wait(1)
    world.choose("p000007")
    clock.wait(1)
    world.permit_now()
    with pytest.raises(Refused, match="nearly the same persons"):
        world.moments(NARROW)


# -- what is left out --------------------------------------------------------------------------------------


def test_all_rows_of_a_person_leave_and_thresholds_count_who_stays(clock):
    world = Chosen(rows(visits=3, lack=0), clock)
    world.choose("p000007")
    clock.wait(1)
    world.permit_now()
    assert world.counted() == 3 * 119
    study = world.study(method="glm", params={"formula": NARROW})
    world.begin(study)
    assert sorted(g._works[study.id].persons for g in world.gates.values()) == [39, 40, 40]


def test_one_row_without_an_identifier_does_not_keep_a_person_in(clock):
    frame = rows(visits=2, lack=0).assign(national=lambda f: "N" + f["person"])
    frame.loc[(frame["person"] == "p000007") & frame["person"].duplicated(), "national"] = None
    source = FrameSource("table", frame, draft_codebook("t", frame, "person"))
    world = Chosen(rows(lack=0), clock)
    world.choose("n p-000007")
    choices = world.choices("lu", source, identified={"table": "national"})
    clock.wait(1)
    world.permit_now()
    choices.fix(world.permit, "table")
    view = choices.applied(source.open(Scope("table", frozenset({"person", "age"}))), world.permit)
    assert (view.persons, view.apply(len)) == (119, 238)


def test_features_genotypes_in_place_and_parts_of_a_cluster_lack_them_too(clock, shared, tmp_path):
    bed = shared / "data/gwas-toy/regenie/example.bed"
    who = pd.read_csv(bed.with_suffix(".fam"), sep=r"\s+", header=None)[1].astype(str)
    frame = pd.DataFrame({"person": who, "trait": np.arange(len(who), dtype=float)})
    book = draft_codebook("t", frame, "person")
    tabular.load(tmp_path / "d.duckdb", "table", conform(frame, book, "x"), book, "x", Beside(bed, "GRCh37"))
    source = TabularSource(tmp_path / "d.duckdb")
    world = Chosen(rows(lack=0), clock)
    world.choose(who[3])
    choices = world.choices("lu", source)
    clock.wait(1)
    world.permit_now()
    choices.fix(world.permit, "table")
    copies = read_genotypes(bed, "GRCh37")[0]
    names = tuple(copies.columns[1:40])
    view = choices.applied(source.open(Scope("table", frozenset({"trait", *names}))), world.permit)
    table = view.apply(lambda t: t, names)
    expected = copies[list(names)].drop(index=3).to_numpy()
    assert np.array_equal(table.wide[:, :], expected, equal_nan=True)
    assert table.frame["trait"].tolist() == frame["trait"].drop(3).tolist()
    single = view.apply(lambda t: t.frame[names[0]])
    assert np.array_equal(single, expected[:, 0], equal_nan=True)
    source.close()
    choices = world.choices("kr", FrameSource("table", rows(lack=0), world.book))
    choices.fix(dataclasses.replace(world.permit, id=(fresh := PermitId.new())), "table")
    plan = world.study(method="glm", params={"formula": NARROW}).plan()
    world.choose("p000007")
    world.permit_now(issued_at=clock.at, id=PermitId.new())
    clock.wait(1)
    choices.fix(world.permit, "table")
    view = choices.source.open(Scope("table", frozenset({"person", "age", "size"})))
    for permit, left in ((dataclasses.replace(world.permit, id=fresh), 120), (world.permit, 119)):
        assert choices.applied(view, permit).apply(lambda t: sum(map(len, divide(plan, t, 4)))) == left


# -- no list, no view --------------------------------------------------------------------------------------


def test_without_a_fresh_list_nothing_is_opened_and_a_fixed_permit_goes_on(clock):
    world = Chosen(rows(lack=0), clock)
    world.down = True
    with pytest.raises(SiteMissing, match="no fresh list"):
        world.counted()
    world.down = False
    assert world.counted() == 120
    clock.wait(1)
    world.permit_now()
    world.down = True
    with pytest.raises(SiteMissing, match="no fresh list"):  # the list at hand is of before the permit
        world.counted()
    world.down = False
    assert world.counted() == 120
    world.down = True
    clock.wait(100 * 3600)
    assert world.counted() == 120


def test_a_list_too_old_is_not_fixed_even_if_it_is_of_after_the_permit(clock):
    world = Chosen(rows(lack=0), clock)
    choices = world.gates["lu"].opt_outs
    clock.wait(1)
    choices.refresh("table")
    world.down = True
    clock.wait(24 * 3600 + 1)
    with pytest.raises(SiteMissing):
        choices.fix(world.permit, "table")
    clock.wait(-2)
    assert choices.fix(world.permit, "table")["version"] == 0


def test_a_gate_opens_nothing_that_was_not_fixed(clock):
    world = Chosen(rows(lack=0), clock)
    view = world.gates["lu"].source.open(Scope("table", frozenset({"age"})))
    with pytest.raises(Refused, match="not fixed yet"):
        world.gates["lu"].opt_outs.applied(view, world.permit)


def test_a_holder_without_a_registry_opens_nothing_under_the_ehds(clock):
    world = Chosen(rows(lack=0), clock)
    ehds = dataclasses.replace(world.permit, legal_regime="ehds")
    assert NoRegistry().fix(world.permit, "table") == {"registry": ""}
    with pytest.raises(Refused, match="follows no registry"):
        NoRegistry().fix(ehds, "table")


def test_where_nobody_is_identified_the_rule_is_noted(clock):
    world = Chosen(rows(lack=0), clock)
    choices = world.choices("lu", world.gates["lu"].source, identified={})
    assert choices.fix(world.permit, "table")["rule"].startswith("EHDS 71(8)")
    view = choices.source.open(Scope("table", frozenset({"age"})))
    assert choices.applied(view, world.permit) is view
    with pytest.raises(SetupFailed):
        world.choices("lu", world.gates["lu"].source, identified={"table": "nowhere"})
    with pytest.raises(SetupFailed, match="of texts"):  # a number would be another text
        world.choices("lu", world.gates["lu"].source, identified={"table": "age"})


def test_a_holder_that_follows_a_registry_says_of_each_dataset_how():
    common = {"name": "a", "role": "holder", "country": "LU", "base_url": "http://127.0.0.1:1", "port": 1}
    with pytest.raises(SetupFailed, match="could not be left out"):
        NodeConfig(**common, opt_out_registry="did:web:b", datasets=(DatasetConfig("d", "d"),))
    for said in ({"national_id": "person"}, {"unidentified": "anonymised in 2019"}):
        NodeConfig(**common, opt_out_registry="did:web:b", datasets=(DatasetConfig("d", "d", **said),))


# -- attacks on the list -----------------------------------------------------------------------------------


def test_an_old_list_shown_again_is_refused_and_noted(clock):
    world = Chosen(rows(lack=0), clock)
    choices, me = world.gates["lu"].opt_outs, world.people["lu"].did
    signed = []
    honest = choices.line.page
    recording = dataclasses.replace(choices.line, page=lambda d, a: signed.append(honest(d, a)) or signed[-1])
    choices.line = recording
    choices.refresh("table")
    clock.wait(1)
    world.choose("p000007")
    choices.refresh("table")
    clock.wait(1)
    world.permit_now()
    for old in tuple(signed):
        choices.line = dataclasses.replace(recording, page=lambda *_, old=old: old)
        with pytest.raises(Refused, match="not what its registry showed before"):
            choices.fix(world.permit, "table")
    assert world.logs["lu"].entries()[-1]["kind"] == "opt_outs.refused"
    assert world.logs["lu"].get("opt_outs.list", "table").body["version"] == 1
    page = world.registry.page(me, "table", 1)
    keys = LocalKeys(world.people["evil"], world.known)
    for change in (
        {"holder": "did:web:kr"},
        {"dataset": "other"},
        {"before": "00"},
        {"after": 0},
        {"as_of": clock.at - timedelta(hours=1)},
        {"as_of": clock.at + timedelta(hours=1)},
        {"scopes": ("research", "all")},
    ):
        with pytest.raises(NotAuthenticated):
            choices.take("table", keys.sign(dataclasses.replace(page, **change).claims()))
    with pytest.raises(NotAuthenticated):
        choices.take("table", LocalKeys(world.people["kr"], world.known).sign(page.claims()))
    assert choices.take("table", keys.sign(page.claims()))


def test_a_registry_that_lost_entries_is_not_believed(clock):
    world = Chosen(rows(lack=0), clock)
    world.choose("p000007")
    choices = world.gates["lu"].opt_outs
    choices.refresh("table")
    world.registry = registry_of(world, clock)
    with pytest.raises(NotFound, match="holds 0 entries"):
        world.registry.page(choices.me, "table", 1)
    fresh = world.choices("lu", choices.source)
    clock.wait(1)
    world.permit_now()
    with pytest.raises(SiteMissing):
        fresh.fix(world.permit, "table")
    world.choose("p000008")
    with pytest.raises(Refused, match="not what its registry showed before"):
        fresh.fix(world.permit, "table")


def test_a_list_comes_in_pages_and_is_whole_or_not_used(clock, monkeypatch):
    monkeypatch.setattr(registries, "PAGE", 2)
    world = Chosen(rows(lack=0), clock)
    for i in range(5):
        world.choose(f"p{i:06d}")
    clock.wait(1)
    world.permit_now()
    choices, asked = world.gates["lu"].opt_outs, []
    honest = choices.line.page

    def breaks(dataset: str, after: int) -> str:
        asked.append(after)
        if len(asked) == 2:
            raise PeerFailed("the line broke")
        return honest(dataset, after)

    choices.line = dataclasses.replace(choices.line, page=breaks)
    with pytest.raises(SiteMissing):
        choices.fix(world.permit, "table")
    assert choices.fix(world.permit, "table")["version"] == 5
    assert asked == [0, 2, 2, 4]
    assert world.counted() == 115


def test_two_holders_are_told_nothing_they_could_join(clock):
    world = Chosen(rows(lack=0), clock)
    world.choose("p000007")
    told = {
        int(world.registry.page(who, dataset, 0).entries["token"][0])
        for who in (world.people["lu"].did, world.people["kr"].did)
        for dataset in ("table", "other")
    }
    assert len(told) == 4
    stored = "".join(
        json.dumps(r.body) for k in ("opt_out.entry", "opt_out.subject") for r in world.registry.node.store.list(k)
    )
    log = json.dumps(world.registry.node.log.entries())
    assert "000007" not in stored + log
    subject = world.registry.node.store.list("opt_out.entry")[0].body["subject"]
    assert subject not in log


# -- receipts ------------------------------------------------------------------------------------------------


def test_a_receipt_is_in_the_persons_language_and_its_code_reverses_once(clock):
    world = Chosen(rows(lack=0), clock)
    said = {lang: world.choose("p000007", language=lang) for lang in ("en", "de", "fr", "ko")}
    assert len({s["receipt"].splitlines()[0] for s in said.values()}) == 4
    registry = world.registry
    assert len(registry.node.store.list("opt_out.entry")) == 1, "a choice that stands is not recorded again"
    code = said["ko"]["code"]
    assert code in said["ko"]["receipt"]

    def post(path, code):
        body = json.dumps({"code": code}).encode()
        call = SimpleNamespace(headers={}, body=body, query={}, json=lambda: {"code": code})
        return (registry._look if path == "look" else registry._reverse)(call).body

    assert post("look", code.lower().replace("-", " ")) == {"scope": "all", "choice": "OPTED_OUT", "used": False}
    clock.wait(1)
    done = {"scope": "all", "choice": "REVERSED", "used": True}
    assert [post("reverse", code), post("reverse", code), post("look", code)] == [done] * 3
    clock.wait(1)
    world.choose("p000007")
    assert post("reverse", code)["choice"] == "OPTED_OUT", "a used code reverses nothing"
    with pytest.raises(NotFound):
        post("look", "A" * 20)
    history = registry.status({"id": "P000007"})["history"]
    assert [(h["choice"], h["source"]) for h in history] == [
        ("OPTED_OUT", "counter"),
        ("REVERSED", "receipt"),
        ("OPTED_OUT", "counter"),
    ]
    at = (NOON + timedelta(seconds=1)).isoformat()
    assert registry.status({"id": "P000007", "valid": at, "known": NOON.isoformat()})["choices"] == {"all": "OPTED_OUT"}
    assert registry.status({"id": "P000007", "valid": at})["choices"] == {"all": "REVERSED"}


@pytest.mark.parametrize(
    "wrong",
    [{"id": " - "}, {"id": "1", "scope": "some"}, {"id": "1", "declared_at": "2026-06-01T13:00:00+00:00"},
     {"id": "1", "declared_at": "2026-05-01T13:00:00"}, {"id": "1", "declared_at": "soon"}],
)  # fmt: skip
def test_what_the_counter_cannot_record_it_refuses(clock, wrong):
    with pytest.raises(BadInput):
        registry_of(Chosen(rows(lack=0), clock), clock).record(Choice.OPTED_OUT, wrong)


def test_nobody_takes_back_what_was_not_said(clock):
    with pytest.raises(NotFound):
        registry_of(Chosen(rows(lack=0), clock), clock).record(Choice.REVERSED, {"id": "1"})


# -- the law ---------------------------------------------------------------------------------------------------


def test_an_exception_takes_a_law_a_purpose_and_the_permits_reason(clock):
    world = Chosen(rows(lack=0), clock)
    on = date(2030, 1, 1)
    law = Exemption("LU-1", "LU", "a law invented for this test", date(2029, 1, 1), Certainty.DESIGN)
    permit = dataclasses.replace(world.permit, legal_regime="ehds", opt_out_exception="no other way in time")
    assert isinstance(exception(permit, "LU", on, (law,)), Granted)
    for less in (
        exception(permit, "LU", on),
        exception(permit, "DE", on, (law,)),
        exception(permit, "LU", date(2028, 12, 31), (law,)),
        exception(dataclasses.replace(permit, opt_out_exception=""), "LU", on, (law,)),
        exception(dataclasses.replace(permit, purpose="education"), "LU", on, (law,)),
        exception(dataclasses.replace(permit, legal_regime="contract"), "LU", on, (law,)),
    ):
        assert not isinstance(less, Granted)


def test_a_scope_reaches_what_its_law_says():
    assert reaching("scientific_research", "contract", "LU", date(2026, 1, 1)) == ("all", "research")
    assert reaching("public_health", "ehds", "LU", date(2030, 1, 1)) == ("all",)
    assert reaching("public_health", "contract", "KR", date(2026, 1, 1)) == ("all", "kr_suspension")


# -- history, as of any time as known at any other -----------------------------------------------------------------

PEOPLE = [f"n{i}" for i in range(4)]
SCOPES = ("all", "research")


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.booleans(), st.integers(0, 9)), max_size=25),
    st.integers(0, 10),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_what_a_holder_computes_is_what_the_rule_says(told, at, data):
    first, second = b"a" * 32, b"b" * 32
    named = tokens(first, second, "LU", pd.Series(PEOPLE))
    packed = np.zeros(len(told), dtype=ENTRY)
    entries = []
    for i, (who, scope, out, since) in enumerate(told):
        packed[i] = (named[who], scope, out, since, i)
        when = datetime.fromtimestamp(since, UTC), datetime.fromtimestamp(i, UTC)
        choice = Choice.OPTED_OUT if out else Choice.REVERSED
        entries.append(Entry(i + 1, PEOPLE[who], SCOPES[scope], choice, *when, ""))
    version = data.draw(st.integers(0, len(told)))
    scopes = data.draw(st.sampled_from([SCOPES, ("all",), ("research",), ()]))
    found = among(named, History(SCOPES, packed).out(at, version, scopes))
    valid, known = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(version - 1, UTC)
    for who, out in zip(PEOPLE, found, strict=True):
        said = [as_of([e for e in entries if (e.subject, e.scope) == (who, s)], valid, known) for s in scopes]
        assert out == (Choice.OPTED_OUT in said)


@given(st.text(max_size=12))
@settings(max_examples=50, deadline=None)
def test_an_identifier_is_the_same_however_it_is_written(text):
    plain = tokens(b"a" * 32, b"b" * 32, "LU", pd.Series([text, None], dtype=object))
    spaced = tokens(b"a" * 32, b"b" * 32, "lu", pd.Series([" ".join(text), None], dtype=object))
    assert normal("LU", text) == normal("lu", " ".join(text))
    assert np.array_equal(plain, spaced)
    assert plain[1] == 0


class Histories(RuleBasedStateMachine):
    """People choose, permits are issued and opened, registry and holder crash: every permit keeps to its instant."""

    @initialize()
    def begin(self):
        self.clock = Clock()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(registries, "now", self.clock)
        self.patch.setattr(registries, "PAGE", 2)
        self.world = Chosen(rows(persons=30, lack=0), self.clock)
        self.source = self.world.gates["lu"].source
        self.choices = self.world.choices("lu", self.source)
        self.told: list[tuple[str, datetime, datetime, Choice]] = []  # the model: who, from when, known when, what
        self.opened: dict[str, tuple] = {}

    @rule(
        who=st.integers(0, 3),
        out=st.booleans(),
        seconds=st.integers(0, 2),
        ago=st.integers(0, 3),
        crash=st.sampled_from(["", "commit", "_receipt"]),
    )
    def chooses(self, who, out, seconds, ago, crash):
        self.clock.wait(seconds)
        person, choice = f"p{3 * who:06d}", Choice.OPTED_OUT if out else Choice.REVERSED
        declared = self.clock.at - timedelta(seconds=ago)
        mine = sorted((t for t in self.told if t[0] == person), key=lambda t: t[1])
        with pytest.MonkeyPatch.context() as broken:
            if crash:
                broken.setattr(Log if crash == "commit" else Registry, crash, self.dies)
            try:
                self.world.choose(person, choice, declared_at=declared.isoformat())
            except NotFound:
                assert choice is Choice.REVERSED
                assert not mine
                return
            except MemoryError:
                self.world.registry = Registry(self.world.registry.node)
        if crash != "commit" and (not mine or mine[-1][3] is not choice):
            self.told.append((person, declared, self.clock.at, choice))

    @staticmethod
    def dies(*_args, **_more):
        raise MemoryError("the power is gone")

    @rule(seconds=st.integers(0, 2), restart=st.booleans())
    def a_permit_is_opened(self, seconds, restart):
        self.clock.wait(seconds)
        self.world.permit_now()
        if restart:
            self.choices = self.world.choices("lu", self.source)
        self.choices.fix(self.world.permit, "table")
        self.opened[self.world.permit.id] = (self.world.permit, len(self.told))

    @invariant()
    def every_permit_keeps_its_persons(self):
        for permit, known in getattr(self, "opened", {}).values():
            view = self.choices.applied(self.source.open(Scope("table", frozenset({"person"}))), permit)
            out = set()
            for person in {t[0] for t in self.told[:known]}:
                mine = [t for t in self.told[:known] if t[0] == person and t[1] <= permit.issued_at]
                if mine and max(enumerate(mine), key=lambda it: (it[1][1], it[0]))[1][3] is Choice.OPTED_OUT:
                    out.add(person)
            assert set(self.source.frame["person"]) - set(view.apply(lambda t: t.frame["person"])) == out

    def teardown(self):
        if hasattr(self, "patch"):
            self.patch.undo()


Histories.TestCase.settings = settings(max_examples=8, stateful_step_count=12, deadline=None)
test_histories = Histories.TestCase


def test_every_language_has_the_same_words_and_says_if_nobody_reviewed_them():
    def shape(value, path=""):
        if isinstance(value, dict):
            return {s for k, v in value.items() for s in shape(v, f"{path}/{k}")}
        return {(path, tuple(sorted(re.findall(r"{\w+}", value))))}

    english = shape({**citizens.texts("en"), "language": ""})
    for language in citizens.LANGUAGES:
        words = citizens.texts(language)
        assert shape({**words, "language": ""}) == english
        assert bool(words["review"]) == (language != "en")
        page = citizens.registry_page(language, "HDAB <b>", "https://body.example", {"choice": Choice.OPTED_OUT})
        assert f'<html lang="{language}">' in page
        assert words["review"] in page
        assert "<b>" not in page
    assert citizens.chosen("", "xx, ko;q=0.8, de") == "ko"
    assert citizens.chosen("../x", "") == "en"
