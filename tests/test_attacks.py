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
from ihds.canonical import pack
from ihds.cli import main
from ihds.errors import BadInput
from ihds.federation.coordinator import Coordinator
from ihds.federation.environment import Environment
from ihds.governance.permit import Permit
from ihds.privacy.secagg.party import Party
from ihds.privacy.secagg.stream import Stream
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
    monkeypatch.setattr("ihds.privacy.secagg.party.masks_of", lambda *_: [])
    monkeypatch.setattr("ihds.federation.sums.unmask", lambda total, *_: total)
    for name in ("single_reply", "property_inference"):
        assert carried_out(attacks()[name]).status == "open"


_HONEST = "did:web:attacked:4"


def vanishing(_setting, _roster, sharers, party, *_) -> list[Stream]:
    """Return masks that are the same in every round and study, and vanish over all sites of an attack."""
    if party == sharers[0]:
        return [Stream(bytes(16), add=True)] * (len(sharers) - 1)
    return [Stream(bytes(16), add=False)]


@pytest.mark.parametrize("name", ["two_states", "replayed_round", "masks_across_studies"])
def test_masks_not_keyed_by_round_and_study_give_their_difference_away(monkeypatch, name):
    monkeypatch.setattr("ihds.privacy.secagg.party.masks_of", vanishing)
    monkeypatch.setattr("ihds.federation.sums.unmask", lambda total, *_: total)
    assert carried_out(attacks()[name]).status == "open"


def test_a_site_that_shares_no_mask_with_the_one_honest_holder_is_read(monkeypatch):
    monkeypatch.setattr(
        "ihds.privacy.secagg.party.neighbours",
        lambda _setting, _roster, sharers: {me: frozenset(sharers) - {me, _HONEST} for me in sharers},
    )
    assert carried_out(attacks()["collusion"]).status == "open"


def test_shares_for_two_survivor_sets_give_a_site_away(monkeypatch):
    confirm = Party.confirm
    monkeypatch.setattr(
        Party, "confirm", lambda self, survivors, _fixed: confirm(dataclasses.replace(self, survivors=()), survivors)
    )
    monkeypatch.setattr("ihds.federation.gate.going_without", lambda *_: [])
    assert carried_out(attacks()["two_survivor_sets"]).status == "open"


def test_a_holder_taken_at_the_coordinators_word_for_lost_is_read(monkeypatch):
    monkeypatch.setattr("ihds.federation.round.missing", lambda *_: ())
    monkeypatch.setattr("ihds.federation.gate.missing", lambda *_: ())
    assert carried_out(attacks()["false_dropouts"]).status == "open"


def test_keys_that_are_not_of_one_round_give_the_next_away(monkeypatch):
    begin, first = Party.begin, {}

    def kept(setting, me, number):
        return dataclasses.replace(first.setdefault((setting, me), begin(setting, me, 0)), round=number)

    monkeypatch.setattr(Party, "begin", kept)
    monkeypatch.setattr(Keys, "seal", lambda _, data: data.hex())
    assert carried_out(attacks()["replayed_shares"]).status == "open"


LEAKS = ("membership_by_totals", "risk_sets", "risk_sets_by_day", "small_cells")


@pytest.mark.parametrize("name", LEAKS)
def test_an_environment_that_told_its_totals_and_states_would_be_read(monkeypatch, name):
    """It tells rounds by name; here the name carries what was opened, beside the state."""
    moved, seen = Coordinator._moved, list[str]()

    def leaking(self, plan, state, opened):
        after, left = moved(self, plan, state, opened)
        total = plan.total(state, opened.reply.kind, opened.reply.layout, opened.words)
        seen.append(b64encode(pack(state)).decode())
        return after, dataclasses.replace(left, contribution=b64encode(pack(total)).decode(), fields=())

    told = Environment.told
    monkeypatch.setattr(Coordinator, "_moved", leaking)
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
