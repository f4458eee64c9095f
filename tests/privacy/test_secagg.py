from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ihds.errors import BadInput, BadMessage, Refused, SiteMissing
from ihds.privacy.secagg import opening, shamir
from ihds.privacy.secagg.messages import chosen_by
from ihds.privacy.secagg.party import Party, commitment
from ihds.privacy.secagg.setting import FAILURE, Setting, odds
from ihds.privacy.secagg.stream import Stream, apply
from tests.privacy.rounds import STATE, Ring, drawn


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 9), size=st.integers(0, 40), seed=st.integers(0, 999), data=st.data())
def test_the_sum_of_who_is_left_is_exact_whenever_they_vanish(n, size, seed, data):
    ring = Ring.shared(n, colluding=data.draw(st.integers(0, max(0, n - 2))))
    words, least = drawn(ring.setting, size, seed), ring.setting.threshold(n)
    vanish = data.draw(st.sets(st.sampled_from(list(words)), max_size=n - least))  # before they answered
    after = data.draw(st.sets(st.sampled_from(list(words)), max_size=n - least - len(vanish)))
    ring.enter({h: w for h, w in words.items() if h not in vanish})
    left = [h for h in words if h not in vanish]
    total, found = ring.sum(left, by=[h for h in left if h not in after] if len(left) - len(after) >= least else ())
    assert np.array_equal(total, np.sum([words[h] for h in left], axis=0, dtype=np.uint64))
    assert found.faults == ()


def test_a_sum_needs_shares_of_a_threshold():
    ring = Ring.shared(5)
    ring.enter(drawn(ring.setting, 3))
    left = ring.setting.holders
    with pytest.raises(SiteMissing, match="taken off"):
        ring.sum(left, by=left[:3])
    with pytest.raises(SiteMissing, match="opens for 4"):
        ring.opening(left[:3])


def test_a_masked_answer_and_a_partial_sum_are_noise():
    ring = Ring.shared(4)
    ring.enter({h: np.zeros(4000, dtype=np.uint64) for h in ring.setting.holders})
    for some in (1, 3):
        partial = np.sum(list(ring.masked.values())[:some], axis=0, dtype=np.uint64)
        assert abs(np.unpackbits(partial.view(np.uint8)).mean() - 0.5) < 0.01
        assert len(np.unique(partial)) == 4000


def test_a_party_takes_one_roster_one_state_and_one_survivor_set():
    ring = Ring.shared(6, colluding=1)
    ring.enter(drawn(ring.setting, 3))
    me, *others = ring.setting.holders
    party, _ = ring.parties[me].confirm(ring.setting.holders)
    elsewhere = Party.begin(ring.setting, others[0], 0).announcement()
    with pytest.raises(Refused, match="keys of a round changed"):
        party.share({**ring.roster, others[0]: elsewhere})
    for state, sharers in (("other", ring.shares), (STATE, [me, *others[:4]])):
        with pytest.raises(Refused, match="same number"):
            party.enter(state, sharers)
    with pytest.raises(Refused) as told:
        party.confirm(ring.setting.holders[:5])
    assert "another set" in told.value.reasons[0]
    assert party.confirm(ring.setting.holders)[1] == ring.parties[me].confirm(ring.setting.holders)[1]


def test_a_coordinator_that_lies_about_who_dropped_gets_no_shares():
    ring = Ring.shared(6, colluding=1)
    ring.enter(drawn(ring.setting, 3))
    all_of_them, victim = ring.setting.holders, ring.setting.holders[0]
    one, two = all_of_them, all_of_them[1:]
    said = {}
    for h in all_of_them:
        ring.parties[h], said[h] = ring.parties[h].confirm(one if h < all_of_them[3] else two)
    for h in all_of_them[1:]:
        mine = ring.parties[h].survivors
        boxes = opening.boxes_for(h, ring.opening(mine), ring.shares)
        with pytest.raises(Refused) as told:
            ring.parties[h].reveal(said, boxes)
        assert "too few confirmed" in told.value.reasons[0]
    with pytest.raises(Refused) as told:
        Ring.shared(6, colluding=1).enter(drawn(ring.setting, 1)).parties[victim].confirm(two)
    assert "this party is missing" in told.value.reasons[0]


def test_survivors_of_two_opened_sums_are_the_same():
    ring = Ring.shared(5, colluding=0)
    ring.enter(drawn(ring.setting, 3))
    left = ring.setting.holders[:4]
    with pytest.raises(Refused) as told:
        ring.parties[left[0]].confirm(left, fixed=ring.setting.holders)
    assert "two opened sums" in told.value.reasons[0]
    ring.parties[left[0]].confirm(left, fixed=left)


def test_fewer_survivors_than_the_threshold_are_refused():
    ring = Ring.shared(6, colluding=2)
    ring.enter(drawn(ring.setting, 3))
    left = ring.setting.holders[:4]
    with pytest.raises(Refused) as told:
        ring.parties[left[0]].confirm(left)
    assert "too few" in told.value.reasons[0]


def test_a_reveal_gives_one_share_of_each_and_never_both():
    ring = Ring.shared(5, colluding=0)
    ring.enter(drawn(ring.setting, 3))
    left, gone = ring.setting.holders[:4], ring.setting.holders[4]
    opened, me = ring.opening(left), left[0]
    shown = ring.reveals(left)[me]
    assert shown.shares.shape == (5, shamir.SHARE_BYTES)
    for at, dealer in enumerate(opened.sharers):
        other = ring.shares[dealer].commitments[0]
        kinds = {"seed": other[32:].tobytes(), "mask": other[:32].tobytes()}
        kind = "mask" if dealer == gone else "seed"
        share = shown.shares[at].tobytes()
        assert commitment(share, kind, dealer, me, ring.shares[dealer].roster) == kinds[kind]


def test_where_parties_were_told_two_states_the_masks_do_not_vanish():
    ring, zeros = Ring.shared(4), np.zeros(4000, dtype=np.uint64)
    me, *others = ring.setting.holders
    told, _ = ring.parties[me].enter("another state", ring.shares)
    ring.enter(dict.fromkeys(others, zeros))
    total = np.sum([told.mask(zeros.copy()), *ring.masked.values()], axis=0, dtype=np.uint64)
    secrets = {h: bytes.fromhex(p.self_seed) for h, p in ring.parties.items()}
    opening.unmask(total, ring.opening(ring.setting.holders), opening.Recovered(secrets, ()))
    assert abs(np.unpackbits(total.view(np.uint8)).mean() - 0.5) < 0.01


def test_a_round_asked_again_gives_the_same_bytes_also_after_a_restart():
    ring = Ring.shared(4)
    words = drawn(ring.setting, 20)
    ring.enter(words)
    for h, party in ring.parties.items():
        again = Party.from_bytes(party.to_bytes())
        assert again == party
        assert np.array_equal(again.mask(words[h].copy()), ring.masked[h])
        assert again.share(ring.roster)[1].claims() == ring.shares[h].claims()


def test_two_rounds_never_share_a_mask():
    one, two = Ring.shared(3, number=0), Ring.shared(3, number=1)
    zeros = {h: np.zeros(50, dtype=np.uint64) for h in one.setting.holders}
    one.enter(zeros)
    two.enter(zeros)
    assert all(not np.any(one.masked[h] == two.masked[h]) for h in zeros)


def test_a_box_that_does_not_open_and_a_wrong_share_name_their_senders():
    ring = Ring.shared(7)
    ring.enter(drawn(ring.setting, 3))
    holders = ring.setting.holders
    spoiled = ring.shares[holders[0]].boxes.copy()
    spoiled[2, 5] ^= 1
    ring.shares[holders[0]] = replace(ring.shares[holders[0]], boxes=spoiled)
    shown = ring.reveals(holders)
    wrong = shown[holders[3]].shares.copy()
    wrong[4, 0] ^= 1
    shown[holders[3]] = replace(shown[holders[3]], shares=wrong)
    found = opening.recover(ring.opening(holders), ring.shares, shown)
    assert {(f.party, f.against) for f in found.faults} == {(holders[0], holders[2]), (holders[3], holders[4])}


@settings(max_examples=20, deadline=None)
@given(secret=st.binary(min_size=32, max_size=32), parties=st.integers(2, 12), data=st.data())
def test_any_threshold_of_shares_gives_the_secret_and_fewer_do_not(secret, parties, data):
    threshold = data.draw(st.integers(2, parties))
    shares = shamir.share(secret, b"c" * 32, threshold, parties)
    some = data.draw(st.permutations(range(1, parties + 1)))[:threshold]
    assert shamir.combine([shares[x - 1] for x in some], shamir.weights(some)) == secret
    fewer = some[:-1]
    assert shamir.combine([shares[x - 1] for x in fewer], shamir.weights(fewer)) != secret


def test_thresholds_leave_two_honest_in_every_sum_and_one_in_every_two_quorums():
    for n in (*range(2, 60), 100, 500):
        for colluding in range(n - 1):
            setting = Setting("s", tuple(f"p{i}" for i in range(n)), colluding)
            for m in {n, max(colluding + 2, n - 3)}:
                t = setting.threshold(m)
                assert t >= colluding + 2
                assert 2 * t - m > colluding
    with pytest.raises(BadInput):
        Setting.of("s", ["a", "b"], 1)


def test_announced_keys_are_of_this_study_this_round_and_of_holders():
    ring, party = Ring.shared(3), Party.begin(Ring.shared(3).setting, "did:web:p000", 0)
    mine = {**ring.roster, "did:web:p000": party.announcement()}
    late = Party.begin(ring.setting, "did:web:p001", 1).announcement()
    for wrong in (
        {**mine, "did:web:p001": late},
        {**mine, "did:web:x": late},
        ring.roster,
        dict(list(mine.items())[:1]),
    ):
        with pytest.raises(BadMessage):
            party.share(wrong)


def test_secrets_are_not_printed():
    party = Ring.shared(3).parties["did:web:p000"]
    assert party.self_seed not in repr(party)
    assert party.mask_key not in repr(party)


def test_a_sparse_graph_survives_drop_outs_and_keeps_nobody_who_is_left_alone():
    ring = Ring.shared(54, colluding=0)
    setting, words = ring.setting, drawn(ring.setting, 3)
    assert not setting.complete
    gone = list(words)[::4]
    ring.enter({h: w for h, w in words.items() if h not in gone})
    left = opening.keeping(setting, ring.roster, ring.masked)
    assert left == tuple(ring.masked)
    total, _ = ring.sum(left)
    assert np.array_equal(total, np.sum([words[h] for h in left], axis=0, dtype=np.uint64))
    me = left[0]
    mine = sorted(chosen_by(setting, ring.roster[me]))
    lonely = [h for h in setting.holders if h not in mine[: setting.degree - setting.kept + 1]]
    assert me not in opening.keeping(setting, ring.roster, lonely)
    again = Party.from_bytes(replace(ring.parties[me], survivors=()).to_bytes())
    with pytest.raises(Refused) as told:
        again.confirm(lonely)
    assert any("keeps too few of its neighbours" in reason for reason in told.value.reasons)


def test_the_odds_of_a_sparse_graph_are_small_and_bound_what_is_drawn():
    for n, colluding in ((54, 0), (200, 20), (500, 100)):
        setting = Setting("s", tuple(f"p{i:03}" for i in range(n)), colluding)
        assert odds(n, colluding, setting.degree, setting.kept) <= FAILURE
        assert 2 * setting.degree < n
    rng, alone = np.random.default_rng(5), 0
    for _ in range(500):  # graphs so thin that all three choices of one of 14 may be among the 6 who collude
        alone += any((rng.permutation(19)[:3] < 6).all() for _ in range(14))
    assert 0.1 < alone / 500 <= 2 ** odds(20, 6, 3, 3) < 1


@pytest.mark.parametrize("size", [1, (1 << 14) - 1, (1 << 14) + 1, 50_001])
def test_a_mask_longer_than_one_step_is_one_stream(size):
    key, zeros = b"k" * 16, np.zeros(60_000, dtype=np.uint64)
    whole, part = apply(zeros.copy(), [Stream(key, add=True)]), apply(zeros[:size].copy(), [Stream(key, add=True)])
    assert np.array_equal(whole[:size], part)
    assert not apply(part, [Stream(key, add=False)]).any()
