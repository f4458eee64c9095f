from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ihds.errors import BadMessage, SiteMissing
from ihds.privacy.secagg.aggregators import SplitParty
from ihds.privacy.secagg.judge import Limits, Opened, judge, judge_share, judge_split, judge_sum
from ihds.privacy.secagg.messages import Masked, words_digest
from tests.privacy.rounds import STATE, Ring
from tests.privacy.test_aggregators import PUBLIC

SIZE = 8
LIMITS = Limits(((SIZE - 1, 1000), (1, 1)))


def counts(ring: Ring) -> dict[str, np.ndarray]:
    """Words within bounds, of both signs."""
    rng = np.random.default_rng(4)
    drawn = {h: rng.integers(-1000, 1001, SIZE).view(np.uint64) for h in ring.setting.holders}
    for words in drawn.values():
        words[-1] = 0
    return drawn


def verdict(ring: Ring, who: str, *, sent: np.ndarray | None = None, opened: Opened | None = None):
    sent = ring.masked[who] if sent is None else sent
    signed = Masked(who, ring.opening(ring.masked).digest, words_digest(sent)).claims()
    opened = opened or Opened.of(ring.parties[who])
    return judge(ring.opening(ring.masked), sent.copy(), signed, ring.shares[who], opened, LIMITS)


def test_garbage_is_laid_at_its_senders_door_and_nobody_elses():
    ring = Ring.shared(5)
    words = counts(ring)
    ring.enter(words)
    bad = ring.setting.holders[2]
    ring.masked[bad] = np.random.default_rng(0).integers(0, 2**64, SIZE, dtype=np.uint64)
    judged = {h: verdict(ring, h) for h in words}
    assert {h for h, (found, _) in judged.items() if found.guilty} == {bad}
    assert judged[bad][0].findings == (f"sent {SIZE} words beyond the declared bounds",)
    assert all(np.array_equal(plain, words[h]) for h, (_, plain) in judged.items() if h != bad)


def test_a_value_just_beyond_its_bound_is_found_and_one_at_it_is_not():
    ring = Ring.shared(3)
    words = counts(ring)
    one, two, three = words
    words[one][:2] = np.array([1000, -1000]).view(np.uint64)
    words[two][0] = 1001
    words[three][-1] = 2  # claims to be two sites whose values do not fit
    ring.enter(words)
    assert [verdict(ring, h)[0].guilty for h in words] == [False, True, True]


def test_an_accused_party_opens_the_secrets_of_the_round_or_is_guilty():
    ring, other = Ring.shared(3), Ring.shared(3)
    ring.enter(counts(ring))
    who = ring.setting.holders[0]
    mine, foreign = ring.parties[who], other.parties[who]
    cases = {
        "another mask key": Opened(who, foreign.mask_key, mine.self_seed),
        "another self-mask seed": Opened(who, mine.mask_key, foreign.self_seed),
        "no keys": Opened(who, "zz", mine.self_seed),
    }
    for told, opened in cases.items():
        found, plain = verdict(ring, who, opened=opened)
        assert told in found.findings[0]
        assert plain is None
    signed = Masked(who, ring.opening(ring.masked).digest, words_digest(ring.masked[who])).claims()
    silent, _ = judge(ring.opening(ring.masked), ring.masked[who].copy(), signed, ring.shares[who], None, LIMITS)
    assert silent.findings == ("opens nothing",)


def test_an_accuser_who_brings_other_words_than_were_signed_has_no_case():
    ring = Ring.shared(3)
    ring.enter(counts(ring))
    who = ring.setting.holders[0]
    signed = Masked(who, ring.opening(ring.masked).digest, words_digest(ring.masked[who])).claims()
    with pytest.raises(BadMessage, match="does not fit"):
        judge(ring.opening(ring.masked), ring.masked[who] + 1, signed, ring.shares[who], None, LIMITS)


def test_a_coordinator_that_complains_of_a_false_sum_is_found_out():
    ring = Ring.shared(4)
    words = counts(ring)
    ring.enter(words)
    total, _ = ring.sum(words)
    plain = [verdict(ring, h)[1] for h in words]
    assert judge_sum(total, plain)
    assert not judge_sum(total + 1, plain)


def test_of_dealer_and_receiver_of_a_share_the_liar_is_found():
    ring = Ring.shared(7)
    ring.enter(counts(ring))
    dealer, receiver, other = ring.setting.holders[:3]
    truth = ring.shares[dealer]
    shown = ring.reveals(ring.setting.holders)[receiver]
    opened, key = ring.opening(ring.setting.holders), ring.parties[receiver].share_key
    lied = shown.shares.copy()
    lied[0, 3] ^= 1
    bent = truth.commitments.copy()
    bent[1, 40] ^= 1
    closed = truth.boxes.copy()
    closed[1, 9] ^= 1
    blind = replace(shown, unreadable=(dealer,))
    assert judge_share(opened, truth, replace(shown, shares=lied), key).party == receiver
    assert judge_share(opened, truth, blind, key).party == receiver
    assert judge_share(opened, replace(truth, commitments=bent), shown, key).party == dealer
    assert judge_share(opened, replace(truth, boxes=closed), blind, key).party == dealer
    assert judge_share(opened, truth, blind, ring.parties[other].share_key).party == receiver
    with pytest.raises(BadMessage, match="is the one that was dealt"):
        judge_share(opened, truth, shown, key)


def test_shares_that_do_not_fit_together_name_their_dealer():
    ring = Ring.shared(5, colluding=0)
    ring.enter(counts(ring))
    bad = ring.setting.holders[0]
    other = Ring.shared(5, colluding=0)
    parties = {**ring.parties, bad: replace(ring.parties[bad], self_seed=other.parties[bad].self_seed)}
    _, dealt = parties[bad].share(ring.roster)
    ring.shares[bad] = replace(dealt, seed=ring.shares[bad].seed)  # bound to one seed, dealt shares of another
    with pytest.raises(SiteMissing) as told:
        ring.sum(ring.setting.holders)
    assert told.value.reasons == (f"{bad} dealt shares that do not fit together (all)",)


def test_garbage_under_aggregators_is_laid_at_its_senders_door():
    ring = Ring.shared(3)
    words, judged = counts(ring), {}
    bad = ring.setting.holders[0]
    for h in words:
        party, _ = SplitParty.begin(ring.setting, h, 0, PUBLIC).enter(STATE)
        sent = party.mask(words[h].copy())
        if h == bad:
            sent += np.uint64(2**40)
        said = party.masked(sent)
        judged[h], _ = judge_split(party, said, sent.copy(), LIMITS)
        other, _ = SplitParty.begin(ring.setting, h, 0, PUBLIC).enter(STATE)
        assert "other seeds" in judge_split(other, said, sent.copy(), LIMITS)[0].findings[0]
        assert judge_split(None, said, sent.copy(), LIMITS)[0].guilty
        with pytest.raises(BadMessage):
            judge_split(party, said, sent + 1, LIMITS)
    assert {h for h, found in judged.items() if found.guilty} == {bad}
