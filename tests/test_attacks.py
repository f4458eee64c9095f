"""Every attack that ships, carried out: it works where the protection is missing, and what is closed stays closed."""

from __future__ import annotations

import dataclasses
import json
from base64 import b64encode

import numpy as np
import pytest

from ihds.attacks import attacks, site_facts
from ihds.attacks.attack import Outcome, Verdict, carried_out
from ihds.attacks.page import page
from ihds.attacks.world import Keys
from ihds.canonical import pack, sha256
from ihds.cli import main
from ihds.errors import BadInput
from ihds.federation.coordinator import Coordinator
from ihds.federation.environment import Environment
from ihds.governance.permit import Permit
from ihds.privacy import secagg
from ihds.wire.jose import read_unverified
from tests.conftest import ROOT

#: What still succeeds. One that closes is taken off here, and its line in LIMITATIONS.md is read again.
OPEN = {
    "collusion_of_all_others",
    "membership_above_500",
    "membership_by_errors",
    "membership_by_means",
}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    return {name: carried_out(attack) for name, attack in attacks().items()}


@pytest.mark.parametrize("name", attacks())
def test_an_attack_works_where_its_protection_is_missing(verdicts, name):
    assert verdicts[name].works, verdicts[name].unprotected


@pytest.mark.parametrize("name", attacks())
def test_what_is_closed_stays_closed_and_what_is_open_is_said(verdicts, name):
    verdict = verdicts[name]
    if name != "differencing":  # by what the gates answer
        assert (verdict.status == "open") == (name in OPEN), verdict.protected
    if verdict.status == "open":
        assert f"**{verdict.attack.limitation}" in (ROOT / "LIMITATIONS.md").read_text()


def test_differencing_is_open_or_closed_by_what_the_gates_answer(verdicts):
    verdict = verdicts["differencing"]
    assert (verdict.status == "open") == (verdict.protected.told == "every study is answered")


def test_figures_are_the_same_in_every_run(verdicts):
    for name in ("property_inference", "lengths", "risk_sets"):
        assert carried_out(attacks()[name]).protected.figure == verdicts[name].protected.figure


@pytest.mark.parametrize("name", ["risk_sets", "cross_products"])
def test_with_the_protection_less_comes_back_than_without(verdicts, name):
    assert verdicts[name].protected.figure < 0.1 * verdicts[name].unprotected.figure


def test_what_gates_said_is_told_and_names_nobody(verdicts):
    assert "min_site_persons" in verdicts["cross_products"].protected.told
    assert "asked before with another state" in verdicts["replayed_round"].protected.told
    assert "another study" in verdicts["masks_across_studies"].protected.told
    assert not any("did:" in v.protected.told for v in verdicts.values())


def test_the_time_of_replies_is_reported_and_not_judged(verdicts):
    lengths = verdicts["lengths"]
    assert lengths.protected.clock.count(" ms") == 5
    assert lengths.protected.clock not in page([lengths])


def test_the_page_says_open_or_closed_by_what_was_yielded(verdicts):
    seen = verdicts["single_reply"]
    row = next(line for line in page([seen]).splitlines() if "`single_reply`" in line)
    assert "**closed**" in row
    leaking = Verdict(seen.attack, seen.unprotected, Outcome(0.5))
    assert "**open**" in page([leaking])
    assert not Verdict(seen.attack, Outcome(0.0), seen.protected).works


def test_the_command_lists_carries_out_and_refuses_what_it_does_not_know(capsys):
    assert main(["attack", "--json"]) == 0
    assert {row["attack"] for row in json.loads(capsys.readouterr().out)} == set(attacks())
    assert main(["attack", "single_reply", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["without_protection"], row["against_us"], row["status"]) == (1.0, 0.0, "closed")
    assert main(["attack", "single_reply"]) == 0
    assert "closed" in capsys.readouterr().out
    assert main(["attack", "nonsense"]) == BadInput.exit_status
    assert main(["attack", "single_reply", "--all"]) == BadInput.exit_status


# -- a closed attack opens as soon as its protection is taken away ----------------------------------------


def test_without_masks_a_reply_is_read(monkeypatch):
    monkeypatch.setattr("ihds.federation.gate.secagg.add_masks", lambda words, *_: words)
    for name in ("single_reply", "property_inference"):
        assert carried_out(attacks()[name]).status == "open"


def test_masks_not_keyed_by_the_round_give_two_states_away(monkeypatch):
    add = secagg.add_masks
    monkeypatch.setattr("ihds.federation.gate.secagg.add_masks", lambda w, me, seeds, _: add(w, me, seeds, "same"))
    for name in ("two_states", "replayed_round"):
        assert carried_out(attacks()[name]).status == "open"


def test_a_mask_key_kept_from_study_to_study_gives_their_difference_away(monkeypatch):
    add, seeds = secagg.add_masks, secagg.seeds
    monkeypatch.setattr(Keys, "seal", lambda self, _: sha256(self.identity.did.encode()))
    monkeypatch.setattr("ihds.federation.gate.secagg.seeds", lambda key, me, known, _: seeds(key, me, known, "any"))
    monkeypatch.setattr("ihds.federation.gate.secagg.add_masks", lambda w, me, held, _: add(w, me, held, "any"))
    assert carried_out(attacks()["masks_across_studies"]).status == "open"


def test_a_site_that_shares_no_mask_with_the_one_honest_holder_is_read(monkeypatch):
    def some(key, me, known, study):
        return {did: seed for did, seed in seeds(key, me, known, study).items() if did != "did:web:attacked:4"}

    seeds = secagg.seeds
    monkeypatch.setattr("ihds.federation.gate.secagg.seeds", some)
    assert carried_out(attacks()["collusion"]).status == "open"


LEAKS = ("membership_by_totals", "risk_sets", "risk_sets_by_day", "small_cells")


@pytest.mark.parametrize("name", LEAKS)
def test_an_environment_that_told_its_totals_and_states_would_be_read(monkeypatch, name):
    """It tells rounds by name; here the name carries what was opened, beside the state."""
    opened, seen = Coordinator._round, list[str]()

    def leaking(self, study, plan, state, channels):
        totals = type(plan).total
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(plan), "total", lambda *a: seen.append(b64encode(pack(t := totals(*a))).decode()) or t)
            after, left = opened(self, study, plan, state, channels)
        seen.append(b64encode(pack(state)).decode())
        return after, dataclasses.replace(left, contribution=seen[-2], fields=())

    told = Environment.told
    monkeypatch.setattr(Coordinator, "_round", leaking)
    monkeypatch.setattr(Environment, "told", lambda *a: {**told(*a), "state": seen[-1] if seen else ""})
    assert carried_out(attacks()[name]).status == "open"


def test_a_gate_that_took_the_users_word_would_be_asked(monkeypatch):
    monkeypatch.setattr(Permit, "asker", property(lambda permit: permit.user))
    monkeypatch.setattr("ihds.federation.gate.Study.asked", lambda _: {})
    monkeypatch.setattr(
        "ihds.attacks.world.LocalKeys.verify", lambda self, token, _: read_unverified(token)[1] if token else {}
    )
    for name in ("chosen_coefficients", "small_cells"):
        assert carried_out(attacks()[name]).status == "open"


def test_where_frequencies_are_shown_members_are_found(monkeypatch):
    monkeypatch.setattr("ihds.analysis.methods.genotype_qc._FEW_PERSONS", 0)
    assert carried_out(attacks()["membership"]).status == "open"


def test_a_reply_whose_length_depended_on_rows_would_be_seen():
    lengths = list(np.array(site_facts._SIZES) * 8)
    assert site_facts._follows(lengths) == pytest.approx(1.0)
    assert site_facts._follows([7] * len(lengths)) == 0.0
