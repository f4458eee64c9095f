"""A coordinator that lies about who dropped out: to one, to two groups, or with what another round told it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ihds.attacks.attack import Attack, Outcome
from ihds.attacks.replies import VICTIM, Asked
from ihds.attacks.world import Space, people, reason, same, shared_out
from ihds.canonical import pack, sha256, unpack
from ihds.errors import IhdsError
from ihds.federation.study import Confirm, Confirmed, Shared, Uncover, Uncovered
from ihds.governance.aggregation import CONTINUE, Aggregation
from ihds.privacy.secagg.messages import Announcement, Reveal, Shares
from ihds.privacy.secagg.opening import Opening, Recovered, boxes_for, recover, unmask
from ihds.privacy.secagg.party import pair_stream, private, self_stream
from ihds.privacy.secagg.setting import Setting
from ihds.privacy.secagg.stream import Stream, apply

_SITES = 5


def _space(dropouts: str = "wait") -> Space:
    return Space(shared_out(people(40 * _SITES, seed=62), _SITES), aggregation=Aggregation(dropouts))


@dataclass(frozen=True)
class Liar:
    """The user's seat in the first round of a study, with software of their own."""

    asked: Asked
    roster: dict[str, Announcement]
    shares: dict[str, Shares]
    setting: Setting

    @classmethod
    def of(cls, space: Space) -> Liar:
        """Ask the first round of a study, and keep all that is told."""
        asked = Asked.of(space)
        study, everybody = asked.study, [str(gate.me) for gate in space.gates]
        roster = {did: Announcement.from_claims(space.user.verify(asked.announced[did], did)) for did in everybody}
        dealt = [unpack(Shared, gate.join(study.id, "t", asked.announced)).shares for gate in space.gates]
        return cls(asked, roster, {s.party: s for s in dealt}, Setting.of(study.digest(), study.holders))

    @property
    def all(self) -> tuple[str, ...]:
        """All holders."""
        return tuple(self.roster)

    @property
    def others(self) -> tuple[str, ...]:
        """All holders but the one aimed at."""
        return tuple(did for did in self.roster if did != self.asked.victim)

    def confirmed(self, site: str, survivors: Sequence[str]) -> str:
        """Tell one site who survived; return its signed word."""
        asked = self.asked
        claims = {"study": asked.study.id, "permit": asked.study.permit, "attempt": 0, "survivors": list(survivors)}
        gate = next(g for g in asked.space.gates if g.me == site)
        body = pack(Confirm(asked.space.user.sign(claims), ()))
        return unpack(Confirmed, gate.step(asked.study.id, "t", "confirm", body)).said

    def opening(self, survivors: Sequence[str]) -> Opening:
        """Return the round as it would be with these survivors."""
        state = sha256(pack(self.asked.state))
        return Opening.of(self.setting, 0, self.roster, state, self.all, survivors)

    def secrets(self, survivors: Sequence[str]) -> Recovered:
        """Tell everybody that these survived, and ask for the shares that open their sum."""
        words = tuple((site, self.confirmed(site, survivors)) for site in survivors)
        reveals = dict[str, Reveal]()
        for gate in self.asked.space.gates:
            if gate.me in survivors:
                body = self.uncover(gate.me, words, survivors)
                reveals[gate.me] = unpack(Uncovered, gate.step(self.asked.study.id, "t", "uncover", body)).reveal
        return recover(self.opening(survivors), self.shares, reveals)

    def uncover(self, site: str, words: tuple[tuple[str, str], ...], survivors: Sequence[str]) -> bytes:
        """Return what asks one site for its shares, with the words of others that they open the same."""
        return pack(Uncover(words, boxes_for(site, self.opening(survivors), self.shares)))

    def total(self, survivors: Sequence[str]) -> Any:
        """Open the sum of these survivors."""
        replies = [reply.words for gate, reply in self.replies if gate in survivors]
        return unmask(sum(replies[1:], replies[0].copy()), self.opening(survivors), self.secrets(survivors))

    @property
    def replies(self) -> list[tuple[str, Any]]:
        """The masked replies by holder."""
        return [(g.me, r) for g, r in zip(self.asked.space.gates, self.asked.replies, strict=True)]

    def masks(self, key: str = "", seed: str = "") -> list[Stream]:
        """Return what takes the victim's masks off, as far as its secrets are known."""
        victim, named = self.asked.victim, self.opening(self.all).digest
        own = [self_stream(bytes.fromhex(seed), victim, named).undone] if seed else []
        public = {other: self.roster[other].mask_key for other in self.others} if key else {}
        return own + [pair_stream(private(key), there, victim, other, named).undone for other, there in public.items()]


def _with_and_without() -> Outcome:
    """Subtract what is opened with a site and without it, where the coordinator's word is enough."""
    asked = Asked.of(_space())
    words = [asked.space.plain(asked.study, asked.state, site) for site in range(_SITES)]
    everybody = sum(words[1:], words[0].copy())
    return Outcome(same(everybody - (everybody - words[VICTIM]), asked.truth))


def _said_to_be_lost() -> Outcome:
    """Open a study's first sum with everybody; then begin another, and say that the victim is lost."""
    space, told = _space(), ""
    whole = Liar.of(space)
    everybody = whole.total(whole.all)
    again = Liar.of(space)
    try:
        return Outcome(same(everybody - again.total(again.others), again.asked.truth))
    except IhdsError as error:
        told = reason(error)
    return Outcome(same(again.asked.reply, again.asked.truth), told)


def _both_kinds() -> Outcome:
    liar = Liar.of(_space())
    party = liar.asked.party(VICTIM)
    return liar.asked.unmasked(liar.asked.reply, liar.masks(party.mask_key, party.self_seed))


def _two_sets() -> Outcome:
    """Tell the others that the victim is lost, then that it is not, under a permit that lets studies go on."""
    liar, told, seed = Liar.of(_space(CONTINUE)), "", ""
    victim = liar.asked.victim
    key = liar.secrets(liar.others).secrets[victim].hex()
    try:
        seed = liar.secrets(liar.all).secrets[victim].hex()
    except IhdsError as error:
        told = reason(error)
    return Outcome(liar.asked.unmasked(liar.asked.reply, liar.masks(key, seed)).figure, told)


def _shares_of_another_round() -> Outcome:
    """Open the first round; ask the second, and take its masks off with what the first has told, or ask with it."""
    space, told = _space(), ""
    liar = Liar.of(space)
    asked = liar.asked
    words = tuple((did, liar.confirmed(did, liar.all)) for did in liar.all)
    seeds = liar.secrets(liar.all).secrets
    state = asked.study.plan().aggregate(asked.state, space.opened(asked.study, asked.state))
    replies = space.replies(asked.study, state)
    for gate in space.gates:
        try:
            gate.step(asked.study.id, "t", "uncover", liar.uncover(gate.me, words, liar.all))
        except IhdsError as error:
            told = reason(error)
    named = asked.party(VICTIM).digest
    known = [self_stream(seed, did, named).undone for did, seed in seeds.items()]
    total: Any = sum((reply.words for reply in replies[1:]), replies[0].words.copy())
    plain = [space.plain(asked.study, state, site) for site in range(_SITES)]
    return Outcome(same(apply(total, known), sum(plain[1:], plain[0].copy())), told)


def _attack(name: str, title: str, sees: str, arms: Any, **more: str) -> Attack:
    return Attack(
        name=name,
        title=title,
        attacker="the user, with software of their own",
        sees=sees,
        succeeds_from=0.01,
        unprotected=arms[0],
        protected=arms[1],
        **{"measures": "share of one site's numbers that are read", "source": "Bonawitz et al. 2017", **more},
    )


ATTACKS = (
    _attack(
        "false_dropouts",
        "A site said to be lost",
        "a sum with a site and one without it, subtracted",
        (_with_and_without, _said_to_be_lost),
        without="sums over whoever the coordinator says is there",
        protection="every sum of a permit is over all its holders, unless it says otherwise",
    ),
    _attack(
        "two_survivor_sets",
        "Two stories of who is there",
        "shares for the sum without a site, and for the sum with it",
        (_both_kinds, _two_sets),
        without="shares of both of a site's secrets",
        protection="a holder opens one sum of a round, and only if a threshold of holders opens the same",
    ),
    _attack(
        "replayed_shares",
        "Shares of one round in another",
        "what was told to open one round, used on the next",
        (_both_kinds, _shares_of_another_round),
        measures="share of numbers that are read without the holders' agreement",
        without="keys that serve for all rounds of a study",
        protection="fresh keys for each round; words and shares name the round",
    ),
)
