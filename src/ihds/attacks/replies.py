"""One site's numbers out of its masked reply: by the user, another holder, several together, or a replay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ihds.analysis.methods.glm import Sums
from ihds.analysis.plan import PlanState
from ihds.attacks.attack import Attack, Outcome
from ihds.attacks.world import Space, people, reason, same, shared_out, with_inner
from ihds.errors import IhdsError, Refused
from ihds.federation.study import Reply, Study
from ihds.privacy.secagg.party import Party, pair_stream, private, self_stream
from ihds.privacy.secagg.stream import Stream, apply

_FORMULA = "relapse ~ age + bmi"
_SITES, VICTIM = 5, 1
_KNOWN = Stream(bytes(16), add=True)
_NEIGHBOURS, _ALL_BUT_TWO, _ALL_BUT_ONE = (0, 2), (0, 2, 3), (0, 2, 3, 4)


@dataclass(frozen=True)
class Asked:
    """The first round of a study, from every seat."""

    space: Space
    study: Study
    state: PlanState
    announced: dict[str, str]
    replies: list[Reply]

    @classmethod
    def of(cls, space: Space, formula: str = _FORMULA) -> Asked:
        """Ask the first round of a study."""
        study = space.study("glm", formula=formula, family="binomial")
        announced = space.begin(study)
        state = study.plan().begin()
        return cls(space, study, state, announced, space.replies(study, state))

    @property
    def victim(self) -> str:
        """The holder aimed at."""
        return self.space.gates[VICTIM].me

    @property
    def reply(self) -> Any:
        """The victim's masked words."""
        return self.replies[VICTIM].words

    @property
    def truth(self) -> Any:
        """The victim's words unmasked."""
        return self.space.plain(self.study, self.state, VICTIM)

    def party(self, site: int) -> Party:
        """Return what a holder keeps secret of its present round."""
        gate = self.space.gates[site]
        record = gate.log.get("gate.study", self.study.id)
        assert record is not None
        return Party.from_bytes(gate.signatures.unseal(record.body["sums"]["party"]))

    def unmasked(self, masked: Any, known: Iterable[Stream]) -> Outcome:
        """Take known masks off the victim's words."""
        return Outcome(same(apply(masked.copy(), known), self.truth))

    def known_to(self, sites: Iterable[int]) -> list[Stream]:
        """Return what takes off masks that holders share with the victim, and its own, which opening a sum tells."""
        victim = self.party(VICTIM)
        assert victim.roster is not None
        named, public = victim.digest, victim.roster[self.victim].mask_key
        shared = [(self.party(site).mask_key, self.space.gates[site].me) for site in sites]
        own = self_stream(bytes.fromhex(victim.self_seed), self.victim, named).undone
        return [own, *(pair_stream(private(key), public, who, self.victim, named) for key, who in shared)]


def _space() -> Space:
    return Space(shared_out(people(40 * _SITES, seed=61), _SITES))


def _bare() -> Outcome:
    """Read a site's words as they are where nothing masks them."""
    asked = Asked.of(_space())
    return asked.unmasked(asked.truth, [])


def _single_reply() -> Outcome:
    asked = Asked.of(_space())
    return Outcome(same(asked.reply, asked.truth))


def _group_key() -> Outcome:
    """Unmask a site where all holders mask with one key of theirs."""
    asked = Asked.of(_space())
    return asked.unmasked(apply(asked.truth.copy(), [_KNOWN]), [_KNOWN.undone])


def _ring() -> Outcome:
    """Unmask a site that shares masks with its two neighbours only."""
    asked = Asked.of(_space())
    known = asked.known_to(_NEIGHBOURS)
    return asked.unmasked(apply(asked.truth.copy(), [mask.undone for mask in known]), known)


def _together(sites: tuple[int, ...]) -> Outcome:
    asked = Asked.of(_space())
    return asked.unmasked(asked.reply, asked.known_to(sites))


def _same_masks_twice() -> Outcome:
    """Subtract two different messages under one mask: keyed by neither the round nor the study."""
    asked = Asked.of(_space())
    one, two = asked.truth, asked.truth[::-1]
    sent = [apply(words.copy(), [_KNOWN]) for words in (one, two)]
    return Outcome(same(sent[0] - sent[1], one - two))


def _two_rounds() -> Outcome:
    """Ask a round again with another state; then subtract the rounds that are answered."""
    space, told = _space(), ""
    study, sent, truth = space.study("glm", formula=_FORMULA, family="binomial"), [], []
    for state, replies, total in space.rounds(study):
        other = replace(state, agreement=replace(state.agreement, cells=2 * state.agreement.cells))
        try:
            space.replies(study, other)
        except Refused as error:
            told = reason(error)
        if isinstance(total, Sums):
            sent.append(replies[VICTIM].words)
            truth.append(space.plain(study, state, VICTIM))
    pairs = range(len(sent) - 1)
    return Outcome(max(same(sent[i] - sent[i + 1], truth[i] - truth[i + 1]) for i in pairs), told)


def _two_states(*, keyed: bool) -> Outcome:
    """Tell all but the victim a state at which most of their sums vanish, or do not fit; then add all up."""
    space = _space()
    study = space.study("glm", formula=_FORMULA, family="binomial")
    state = next(state for state, _, total in space.rounds(study) if isinstance(total, Sums))
    inner, number = study.plan().inner(state), state.rounds + 1
    usual = with_inner(state, number, inner, rounds=1)
    wild = with_inner(state, number, inner, rounds=1, beta=inner.beta + 1e9)
    sent: list[Any] = []
    for site in range(_SITES):
        told = usual if site == VICTIM else wild
        sent.append(space.reply(study, told, site).words if keyed else space.plain(study, told, site))
    read: Any = np.sum(sent, axis=0, dtype=np.uint64)  # its last word counts the sites whose values did not fit
    return Outcome(same(read[:-1], space.plain(study, usual, VICTIM)[:-1]))


def _two_studies() -> Outcome:
    """Announce a mask key of one study in another; then subtract the two studies' replies."""
    space = _space()
    one, two = Asked.of(space), Asked.of(space, "relapse ~ bmi + age")
    try:
        space.gates[0].join(two.study.id, "t", {**two.announced, two.victim: one.announced[two.victim]})
        told = "the key is taken"
    except IhdsError as error:
        told = reason(error)
    return Outcome(same(one.reply - two.reply, one.truth - two.truth), told)


def _attack(name: str, title: str, attacker: str, sees: str, arms: Any, **more: str) -> Attack:
    return Attack(
        name=name,
        title=title,
        attacker=attacker,
        sees=sees,
        measures="share of one site's numbers that are read",
        succeeds_from=0.01,
        unprotected=arms[0],
        protected=arms[1],
        **{"source": "Bonawitz et al. 2017", **more},
    )


ATTACKS = (
    _attack(
        "single_reply",
        "Reading one site's reply",
        "the user, with software of their own",
        "each holder's reply",
        (_bare, _single_reply),
        without="replies in the clear",
        protection="double masks over the words of a reply",
        peers="pda, FeatureCloud's Cox and NVFLARE's hello-lr send each site's sums in the clear",
    ),
    _attack(
        "curious_holder",
        "A holder who reads another's reply",
        "a holder",
        "the other's reply, and all that holders are told",
        (_group_key, partial(_together, (0,))),
        without="one mask key that all holders have",
        protection="a mask key for each pair of holders",
    ),
    _attack(
        "collusion",
        "Holders together with the user, all but two",
        "the user and three of five holders",
        "the other's reply, and what they share with it",
        (_ring, partial(_together, _ALL_BUT_TWO)),
        without="masks shared with two neighbours only, who collude",
        protection="masks shared with every other holder; a sum opens for a threshold of holders",
    ),
    _attack(
        "collusion_of_all_others",
        "Holders together with the user, all but one",
        "the user and four of five holders",
        "the other's reply, and what they share with it",
        (_ring, partial(_together, _ALL_BUT_ONE)),
        without="masks shared with two neighbours only, who collude",
        protection="none in the sum; the access body names real holders",
        limitation="Collusion",
    ),
    _attack(
        "replayed_round",
        "One round asked twice",
        "the user, with software of their own",
        "the replies to two states, subtracted",
        (_same_masks_twice, _two_rounds),
        without="masks that do not depend on the round",
        protection="the round's digest keys the mask; a second state is refused",
    ),
    _attack(
        "two_states",
        "Two states told in one round",
        "the user, with software of their own",
        "the sum of replies, of which all but one are nearly 0",
        (partial(_two_states, keyed=False), partial(_two_states, keyed=True)),
        without="masks that vanish whatever state each holder was told",
        protection="the digest of the state keys the mask: told two states, masks do not vanish",
        source="Pasquini, Francati & Ateniese 2022",
    ),
    _attack(
        "masks_across_studies",
        "Masks of one study in another",
        "the user, with software of their own",
        "the replies of two studies, subtracted",
        (_same_masks_twice, _two_studies),
        without="masks that do not depend on the study",
        protection="fresh mask keys for each round of each study, signed for it",
    ),
)
