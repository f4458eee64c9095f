from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ihds.errors import BadMessage, Refused
from ihds.privacy.secagg import aggregators
from ihds.privacy.secagg.aggregators import SplitParty
from ihds.privacy.secagg.party import public_half
from ihds.privacy.secagg.setting import Setting
from tests.privacy.rounds import STATE, drawn

KEYS = {"did:web:lu": "11" * 32, "did:web:kr": "22" * 32, "did:web:us": "33" * 32}
PUBLIC = {a: public_half(key) for a, key in KEYS.items()}


def split(n: int, words: dict[str, np.ndarray], colluding: int = 0):
    """Return setting, digest, masked words and what each holder said."""
    setting = Setting.of("ab" * 32, [f"did:web:p{i:03}" for i in range(n)], colluding)
    parties = {h: SplitParty.begin(setting, h, 0, PUBLIC).enter(STATE)[0] for h in setting.holders}
    masked = {h: p.mask(words[h].copy()) for h, p in parties.items()}
    return setting, parties, masked, {h: p.masked(masked[h]) for h, p in parties.items()}


def opened(setting, named, said, survivors, size):
    some = {h: said[h] for h in survivors}
    return {a: aggregators.masks(key, a, setting, named, some, size) for a, key in KEYS.items()}


def holders(n: int) -> Setting:
    return Setting.of("ab" * 32, [f"did:web:p{i:03}" for i in range(n)], 0)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 8), size=st.integers(1, 30), data=st.data())
def test_the_sum_of_who_answered_is_exact(n, size, data):
    words = drawn(holders(n), size)
    setting, parties, masked, said = split(n, words)
    left = data.draw(st.sets(st.sampled_from(list(words)), min_size=setting.threshold(n)))
    named = next(iter(parties.values())).digest()
    total = np.sum([masked[h] for h in left], axis=0, dtype=np.uint64)
    for masks in opened(setting, named, said, left, size).values():
        total += masks
    assert np.array_equal(total, np.sum([words[h] for h in left], axis=0, dtype=np.uint64))


def test_all_aggregators_but_one_open_nothing_and_two_survivor_sets_are_noise():
    zeros = dict.fromkeys(holders(4).holders, np.zeros(4000, dtype=np.uint64))
    setting, parties, masked, said = split(4, zeros)
    named, rest = parties["did:web:p000"].digest(), list(zeros)[1:]
    everybody = opened(setting, named, said, zeros, 4000)
    fewer = opened(setting, named, said, rest, 4000)
    total = np.sum(list(masked.values()), axis=0, dtype=np.uint64)
    one, two, three = KEYS
    for taken in (everybody[one] + everybody[two], everybody[one] + everybody[two] + fewer[three]):
        assert abs(np.unpackbits((total + taken).view(np.uint8)).mean() - 0.5) < 0.01
    assert not np.any(total + everybody[one] + everybody[two] + everybody[three])


def test_an_aggregator_opens_for_enough_holders_of_this_round_only():
    words = drawn(holders(4), 5)
    setting, parties, _, said = split(4, words, colluding=1)
    named, (me, key) = parties["did:web:p000"].digest(), next(iter(KEYS.items()))
    few = dict(list(said.items())[:2])
    other = SplitParty.begin(setting, "did:web:p000", 1, PUBLIC).enter(STATE)[0].masked(words["did:web:p000"])
    foreign = {**said, "did:web:x": replace(said["did:web:p000"], party="did:web:x")}
    swapped = {**said, "did:web:p000": said["did:web:p001"]}
    for wrong in (few, {**said, "did:web:p000": other}, foreign, swapped):
        with pytest.raises(Refused):
            aggregators.masks(key, me, setting, named, wrong, 5)
    stolen = replace(said["did:web:p001"], sealed=said["did:web:p000"].sealed)
    with pytest.raises(BadMessage, match="p001"):
        aggregators.masks(key, me, setting, named, {**said, "did:web:p001": stolen}, 5)


def test_a_round_asked_again_is_the_same_and_another_state_is_refused():
    words = drawn(holders(3), 5)
    _, parties, masked, said = split(3, words)
    for h, party in parties.items():
        again = SplitParty.from_bytes(party.to_bytes())
        assert again == party
        assert np.array_equal(again.mask(words[h].copy()), masked[h])
        assert again.masked(masked[h]) == said[h]
        assert party.secret not in repr(party)
        with pytest.raises(Refused):
            again.enter("another state")


def test_one_aggregator_or_a_holder_as_aggregator_is_no_second_model():
    setting = holders(3)
    for wrong in (dict(list(PUBLIC.items())[:1]), {**PUBLIC, "did:web:p001": "aa" * 32}):
        with pytest.raises(BadMessage):
            SplitParty.begin(setting, "did:web:p000", 0, wrong)
