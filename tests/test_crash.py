"""Kill -9 at every transaction of negotiation and study: nothing is lost, nothing is done twice."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from ihds.analysis.plan import Plan, run
from ihds.cohorts import bladder_cancer
from ihds.demo import pooled
from ihds.errors import IhdsError
from ihds.privacy.disclosure import Thresholds
from ihds.roles.node import verify_folder
from tests.space import COX, running

FORMULA = COX


def settle(space, study: str, seconds: float = 240):
    """Resume until the study has a result, as a patient person would."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            shown = space.space("researcher").study(study)
            if shown["result"] and shown["status"] == "finished":
                return shown["result"]
            assert shown["status"] != "failed", refusals(space)
            if shown["status"] in ("waiting", "paused"):
                space.space("researcher").call("study.run", resume=study)
        except IhdsError:  # the researcher's node is just dead
            pass
        time.sleep(0.1)
    raise AssertionError(f"study {study} did not settle")


def refusals(space) -> list[str]:
    """What every node's log says of refusals: a study that failed shows only the last."""
    return [f"{n}: {e['kind']} {e['details']}" for n in space.configs for e in space.entries(n) if _bad(e["kind"])]


def _bad(kind: str) -> bool:
    return kind in ("study.refused", "study.failed", "message.abandoned", "study.closed")


@pytest.mark.parametrize(
    ("victim", "mode"),
    [("lih", "after"), ("lih", "before"), ("researcher", "after"), ("environment", "after"), ("environment", "before")],
)
def test_a_study_survives_a_node_that_dies_at_every_transaction(tmp_path, victim, mode):
    with running(tmp_path) as space:
        permit = space.permit()
        calm = len(space.entries(victim))
        space.kill(victim)
        space.start_crashing(victim, mode)
        study = start(space, permit)
        result = settle(space, study)
        lives = int((tmp_path / victim / "lives").read_text())
        reference = pooled("cox", FORMULA)
        for mine, theirs in zip(result["coefficients"], reference.coefficients, strict=True):
            assert mine["estimate"] == pytest.approx(theirs.estimate, rel=1e-8)
        entries = space.entries(victim)[calm:]
        assert lives >= 10, "the node must have died at many steps"
        assert_nothing_twice(space, study)
        assert len(entries) >= lives // 2
        for name in space.configs:
            assert verify_folder(space.folder / name)["proved"]


def test_a_holder_that_dies_in_a_round_is_waited_for_or_gone_on_without(tmp_path):
    """Killed after its masked reply, killed before it, and killed before it under a permit that lets studies go on."""
    whole = pooled("cox", FORMULA)
    with running(tmp_path) as space:
        researcher, permit = space.space("researcher"), space.permit(colluding=0)
        for method, last, opened in (("step", 3, [0, 1, 2]), ("answer", 3, [0, 1])):
            space.kill("ncck")
            space.start_vanishing("ncck", method, last)
            space.wait()
            study = researcher.start("cox", {"formula": FORMULA}, permit=permit)
            for _ in researcher.steps(study):
                pass
            assert space.processes["ncck"].wait() == -signal.SIGKILL
            assert researcher.study(study)["status"] == "waiting"
            assert rounds_opened(space, study) == opened, "with the holder included, or not at all"
            space.start("ncck")
            space.wait()
            result = researcher.resume(study)
            assert same(result, whole)
            assert result.provenance["secure_sums"]["missing"] == []
            assert "2 of 3 holders open a sum" in result.provenance["secure_aggregation"]
        space.kill("ncck")
        space.start_vanishing("ncck", "answer", 3)
        space.wait()
        permit = space.permit(colluding=0, min_holders=2, dropouts="continue")
        result = researcher.run("cox", permit=permit, formula=FORMULA)
        lost = {"did": space.configs["ncck"].did, "since_round": 2}
        assert result.provenance["secure_sums"]["missing"] == [lost]
        assert {h["name"] for h in result.provenance["holders"]} == {"lih", "us-site"}
        plan = Plan("cox", {"formula": FORMULA}, bladder_cancer.codebook(), Thresholds.none(), 2)
        assert same(result, run(plan, [bladder_cancer.site_part(0, 3), bladder_cancer.site_part(2, 3)]))
        for name in space.configs:
            assert verify_folder(space.folder / name)["proved"]


def same(result, reference) -> bool:
    pairs = zip(result.coefficients, reference.coefficients, strict=True)
    return all(mine.estimate == pytest.approx(theirs.estimate, rel=1e-8) for mine, theirs in pairs)


def rounds_opened(space, study: str) -> list[int]:
    found = [e["details"] for e in space.entries("environment") if e["kind"] == "study.round"]
    return [d["round"] for d in found if d["study"] == study]


def start(space, permit: str) -> str:
    """Start one study even if the node dies while it is asked."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            found = space.space("researcher").call("study.list")
            fresh = [s["study"] for s in found if s["permit"] == permit]
            if fresh:
                return fresh[0]
            return space.space("researcher").start("cox", {"formula": FORMULA}, permit=permit)
        except IhdsError:
            time.sleep(0.1)
    raise AssertionError("the study could not be started")


def assert_nothing_twice(space, study: str) -> None:
    for holder in ("lih", "ncck", "us-site"):
        answered = [
            e["details"]["round"]
            for e in space.entries(holder)
            if e["kind"] == "round.answered" and e["details"]["study"] == study
        ]
        assert answered == sorted(set(answered)), f"{holder} answered a round twice"
        agreed = [
            e
            for e in space.entries(holder)
            if e["kind"] == "negotiation.advanced" and e["details"]["event"] == "finalize"
        ]
        assert len(agreed) == 1, f"{holder} agreed {len(agreed)} contracts"
    rounds = Counter(e["details"]["round"] for e in space.entries("environment") if e["kind"] == "study.round")
    assert set(rounds.values()) == {1}, "a round was opened twice"
