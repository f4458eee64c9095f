"""A site's side of secure sums: how its words are hidden, and what it does to let their sum be opened.

The gate does not know how words are hidden beyond the interface ``Hiding``.
What must outlive a crash is returned as ``Kept`` and stored by the gate in the transaction of the
event, before anything is sent; secrets in it are sealed, are of one round, and go with the round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ihds.audit.log import Log
from ihds.canonical import pack, unpack
from ihds.errors import CannotVerify, NotAuthenticated, NotFound, Refused
from ihds.federation.study import Confirm, Confirmed, Shared, Study, Uncover, Uncovered
from ihds.governance.aggregation import CONTINUE
from ihds.privacy.secagg.messages import Announcement, Said, Survivors
from ihds.privacy.secagg.party import Party
from ihds.privacy.secagg.setting import Setting
from ihds.privacy.secagg.stream import Words
from ihds.store.store import Put

#: What a study keeps of its secure sums between two messages.
Kept = dict[str, Any]

WITHOUT = "gate.without"

_REMEMBERED = 3

#: The further messages of a round, and the largest of them: signed words and boxes of some thousand holders.
STEPS = ("confirm", "uncover")
MAX_STEP = 1 << 23


class Signatures(Protocol):
    """Checks signatures of others, makes this site's own, and seals its secrets."""

    def sign(self, claims: dict[str, Any]) -> str:
        """Return claims signed by this site."""
        ...

    def verify(self, token: str, signer: str) -> dict[str, Any]:
        """Return the claims a signer signed. Raises NotAuthenticated."""
        ...

    def seal(self, data: bytes) -> str:
        """Return a secret encrypted for this site only."""
        ...

    def unseal(self, text: str) -> bytes:
        """Return a sealed secret."""
        ...


@dataclass(frozen=True, slots=True)
class Hidden:
    """What travels with hidden words: see ``Reply``; ``words`` is their digest."""

    words: str
    said: str
    told: str


@dataclass(frozen=True, slots=True)
class Step:
    """What came of a message: what to keep, what to answer, and what the log is told, if anything changed."""

    kept: Kept
    answer: bytes
    details: dict[str, Any] | None
    missing: tuple[str, ...] = ()


class Hiding(Protocol):
    """How a site hides its words and helps to open sums, in one study."""

    def begin(self) -> Kept:
        """Return what is kept from the start."""
        ...

    def announce(self, kept: Kept, attempt: int) -> str:
        """Return this site's signed keys for an attempt at a round."""
        ...

    def take(self, kept: Kept, announced: Mapping[str, str]) -> tuple[Kept, bytes]:
        """Take the signed keys of all; return what is answered to them."""
        ...

    def enter(self, kept: Kept, attempt: int, state: str, present: Sequence[str], *, anew: bool) -> tuple[Kept, str]:
        """Fix a round to one state and those who take part; return its digest."""
        ...

    def hide(self, kept: Kept, words: Words) -> tuple[Kept, Hidden]:
        """Hide words in place; the same words again give the same."""
        ...

    def step(self, kept: Kept, name: str, body: bytes) -> Step:
        """Go on with a round that was answered."""
        ...


def names(claimed: Any) -> tuple[str, ...]:
    """Return the holders that signed claims list; none if they list nothing of the kind."""
    return tuple(map(str, claimed)) if isinstance(claimed, list) else ()


def words_of(study: Study, name: str, body: bytes) -> list[tuple[str, str]]:
    """Return what holders of a study signed in a further message of a round: checking it may mean asking others.

    Raises:
        NotFound: there is no such message.
        BadMessage: it cannot be read.

    """
    if name not in STEPS:
        raise NotFound(f"a round has no step {name!r}")
    said = unpack(Confirm, body).announced if name == "confirm" else unpack(Uncover, body).confirmed
    return [(holder, token) for holder, token in said if holder in study.holders]


def missing(study: Study, present: Sequence[str]) -> tuple[str, ...]:
    """Return the holders of a study that a sum would be without.

    Raises:
        Refused: it may not be without any, or too few are left.

    """
    lost = tuple(sorted(set(study.holders) - set(present)))
    reasons = []
    if lost and study.aggregation.dropouts != CONTINUE:
        reasons.append("dropouts: every sum of this study is over all its holders; it waits for one that is missing")
    if not set(present) <= set(study.holders) or len(set(present)) != len(present):
        reasons.append("holders: a sum is over holders of the study, each once")
    if lost and len(present) < fewest(study):
        reasons.append(f"survivors: a sum without some holders is over at least {fewest(study)} of the study's")
    if lost and study.params.get("privacy"):
        reasons.append("differential privacy: the noise of holders that are lost is lost with them")
    if len(present) < study.thresholds.min_holders:
        reasons.append(f"min_holders X8: a sum needs {study.thresholds.min_holders} holders")
    if reasons:
        raise Refused("this sum is not opened", reasons=tuple(reasons), remedy="resume when all holders are back")
    return lost


def fewest(study: Study) -> int:
    """Return over how many of its holders a sum must be: any two such groups share one that does not collude."""
    setting = Setting.of("", study.holders, study.aggregation.colluders(len(study.holders)))
    return setting.threshold(len(study.holders))


def going_without(log: Log, permit: str, lost: Sequence[str]) -> list[Put]:
    """Return what is remembered of a permit under which a sum is opened without some holders: once, the same for ever.

    A sum with and a sum without some holders differ by theirs. Two such differences would tell them
    apart, so under one permit there is at most one.

    Raises:
        Refused: sums of this permit were opened without others.

    """
    if not lost:
        return []
    found = log.get(WITHOUT, permit)
    if found is None:
        return [Put(WITHOUT, permit, 0, {"missing": list(lost)})]
    if found.body["missing"] != list(lost):
        raise Refused(
            "sums of this permit were opened without other holders",
            reasons=("dropouts: under one permit sums may lack one group of holders, always the same",),
            remedy="resume when the others are back, or apply for another permit",
        )
    return []


def hiding(study: Study, named: str, me: str, signatures: Signatures) -> Hiding:
    """Return how words are hidden in a study; ``named`` is its digest."""
    setting = Setting.of(named, study.holders, study.aggregation.colluders(len(study.holders)))
    return Masks(study, setting, me, signatures)


@dataclass(frozen=True)
class Masks:
    """Double masks among the holders, opened by threshold shares: see ``privacy.secagg``."""

    study: Study
    setting: Setting
    me: str
    signatures: Signatures
    _opened: dict[str, Party] = field(default_factory=dict)

    def begin(self) -> Kept:
        """Draw the secrets of the first round."""
        return {"attempt": 0, "party": self._sealed(Party.begin(self.setting, self.me, 0)), "next": "", "fixed": None}

    def announce(self, kept: Kept, attempt: int) -> str:
        """Return this site's signed keys for the present attempt or the next."""
        return self._signed(self._party(kept, attempt).announcement())

    def take(self, kept: Kept, announced: Mapping[str, str]) -> tuple[Kept, bytes]:
        """Take all keys of an attempt; return this site's sealed shares."""
        missing(self.study, tuple(announced))
        roster = {holder: self._announced(holder, token) for holder, token in announced.items()}
        if self.me not in roster:
            raise Refused("the announced holders are not those of the study")
        attempt = roster[self.me].round
        party, shares = self._party(kept, attempt).share(roster)
        place = "party" if attempt == kept["attempt"] else "next"
        changed = kept if self._party(kept, attempt) == party else {**kept, place: self._sealed(party)}
        return changed, pack(Shared(shares, self._signed(shares)))

    def enter(self, kept: Kept, attempt: int, state: str, present: Sequence[str], *, anew: bool) -> tuple[Kept, str]:
        """Fix a round; its successor's secrets are drawn, its predecessor's are gone with this."""
        fixed = kept["fixed"]
        if anew:
            fixed = sorted(present)
        elif fixed is not None and sorted(present) != fixed:
            raise Refused("another group of holders than in the sums opened before", remedy="start a new study")
        before = self._party(kept, attempt)
        party, digest = before.enter(state, present)
        if party == before:
            return kept, digest
        following = Party.begin(self.setting, self.me, attempt + 1)
        entered = {"attempt": attempt, "party": self._sealed(party), "next": self._sealed(following), "fixed": fixed}
        return entered, digest

    def hide(self, kept: Kept, words: Words) -> tuple[Kept, Hidden]:
        """Add the masks."""
        party = self._party(kept, kept["attempt"])
        masked = party.masked(party.mask(words))
        if "said" not in kept:  # kept, so that a round asked again gets the same bytes
            told = self.announce(kept, party.round + 1)
            kept = {**kept, "said": self._signed(masked), "told": told}
        return kept, Hidden(masked.words, kept["said"], kept["told"])

    def step(self, kept: Kept, name: str, body: bytes) -> Step:
        """Agree to open a sum, or give shares for it."""
        if name == "confirm":
            return self._confirm(kept, unpack(Confirm, body))
        return Step(kept, self._uncover(kept, unpack(Uncover, body)), None)

    def _confirm(self, kept: Kept, asked: Confirm) -> Step:
        claims = self.signatures.verify(asked.signature, self.study.asker)
        if (claims.get("study"), claims.get("permit")) != (self.study.id, self.study.permit):
            raise NotAuthenticated("the survivors were signed for another study or permit")
        if claims.get("attempt") != kept["attempt"]:
            raise Refused("the survivors are not those of the present round", remedy="resume the study")
        survivors = names(claims.get("survivors"))
        lost = missing(self.study, survivors)
        before = self._party(kept, kept["attempt"])
        party, said = before.confirm(survivors, kept["fixed"])
        shared, after = None, {**kept, "fixed": list(party.survivors)}
        if party != before:
            after["party"] = self._sealed(party)
        if asked.announced:
            try:
                after, answer = self.take(after, dict(asked.announced))
                shared = unpack(Shared, answer)
            except CannotVerify:  # one of them is gone just now; its keys are asked for again before the next round
                pass
        details = {"attempt": kept["attempt"], "survivors": len(survivors), "missing": list(lost)}
        return Step(after, pack(Confirmed(self._signed(said), shared)), details if after != kept else None, lost)

    def _uncover(self, kept: Kept, asked: Uncover) -> bytes:
        known = [(h, token) for h, token in asked.confirmed if h in self.study.holders]
        confirmed = {h: Survivors.from_claims(self.signatures.verify(token, h)) for h, token in known}
        party = self._party(kept, kept["attempt"])
        reveal = party.reveal(confirmed, asked.boxes)
        return pack(Uncovered(reveal, self._signed(reveal)))

    def _announced(self, holder: str, token: str) -> Announcement:
        claims = self.signatures.verify(token, holder)
        if claims.get("study") != self.setting.study or claims.get("sub") != holder:
            raise NotAuthenticated(f"the mask key of {holder} is for another study")
        return Announcement.from_claims(claims)

    def _party(self, kept: Kept, attempt: int) -> Party:
        if attempt == kept["attempt"]:
            return self._unsealed(kept["party"])
        if attempt == kept["attempt"] + 1 and kept["next"]:
            return self._unsealed(kept["next"])
        raise Refused(f"attempt {attempt} does not follow attempt {kept['attempt']}", remedy="resume the study")

    def _sealed(self, party: Party) -> str:
        sealed = self.signatures.seal(party.to_bytes())
        if party.roster is not None:
            self._remember(sealed, party)
        return sealed

    def _unsealed(self, sealed: str) -> Party:
        if sealed not in self._opened:
            self._remember(sealed, Party.from_bytes(self.signatures.unseal(sealed)))
        return self._opened[sealed]

    def _remember(self, sealed: str, party: Party) -> None:
        """Spare unsealing what this process just sealed; no more is remembered than a round has need of."""
        self._opened[sealed] = party
        while len(self._opened) > _REMEMBERED:
            self._opened.pop(next(iter(self._opened)))

    def _signed(self, said: Said) -> str:
        return self.signatures.sign(said.claims())
