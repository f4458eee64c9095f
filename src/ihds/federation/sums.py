"""The coordinator's side of secure sums: asks all holders of a round, and opens nothing but the sum of their replies.

The coordinator does not know how sums are hidden beyond the interface ``Sums``. It keeps ``Progress`` with the
study, so that whatever a crash interrupts is asked again and answered the same.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ihds.canonical import pack, sha256, unpack
from ihds.errors import BadMessage, SiteMissing
from ihds.federation.calls import Calls
from ihds.federation.channel import Channel
from ihds.federation.round import Signatures, fewest
from ihds.federation.study import Confirm, Confirmed, Reply, Round, Shared, Study, Uncover, Uncovered
from ihds.governance.aggregation import CONTINUE
from ihds.privacy.secagg.messages import Announcement, Masked, Reveal, Shares, Survivors, words_digest
from ihds.privacy.secagg.opening import Opening, add, boxes_for, keeping, recover, unmask
from ihds.privacy.secagg.setting import Setting


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the sums of a study are: the next attempt, of whom, and their signed keys for it, if they are known.

    ``opened`` says that a sum was opened; ``missing`` who is left out since which round.
    """

    attempt: int
    present: tuple[str, ...]
    announced: dict[str, str] = field(default_factory=dict)
    opened: bool = False
    missing: tuple[tuple[str, int], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "attempt": self.attempt,
            "present": list(self.present),
            "announced": self.announced,
            "opened": self.opened,
            "missing": [list(pair) for pair in self.missing],
        }

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Progress:
        """Read the JSON form."""
        missing = tuple((str(h), int(r)) for h, r in body["missing"])
        return cls(body["attempt"], tuple(body["present"]), dict(body["announced"]), body["opened"], missing)

    def without(self, lost: Mapping[str, Any], number: int) -> Progress:
        """Return the progress of a study that goes on without some holders from a round on."""
        left = tuple(h for h in self.present if h not in lost)
        return replace(self, present=left, missing=(*self.missing, *((h, number) for h in sorted(lost))))


@dataclass(frozen=True, slots=True)
class Opened:
    """One opened sum, before the method reads it; ``faults`` tell of holders that sent wrong shares."""

    reply: Reply
    words: Any
    bytes: int
    digest: str
    faults: tuple[str, ...] = ()


@dataclass
class Lost(Exception):
    """Holders were lost after a sum was opened: the study begins again without them."""

    progress: Progress


class Sums(Protocol):
    """How sums are opened, as the coordinator sees it."""

    progress: Progress

    def begin(self) -> None:
        """Open the study at all its holders, unless that was done."""
        ...

    def sum(self, number: int, state: bytes) -> Opened:
        """Ask a round and open its sum. Raises SiteMissing, Lost."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Say how sums were opened, and without whom: the part of a result's provenance that tells of it."""
        ...


@dataclass
class Asking:
    """What it takes to ask: the study, who signs, the way to each holder, and how far they are.

    ``lost_before`` are the holders that other studies of the permit lack: gates let it lack no others.
    """

    study: Study
    signatures: Signatures
    calls: Calls
    channels: dict[str, Channel]
    progress: Progress
    lost_before: frozenset[str] = frozenset()

    @property
    def present(self) -> list[Channel]:
        """The way to each holder that takes part."""
        return [self.channels[h] for h in self.progress.present]

    def asked(self, number: int, state: bytes, present: tuple[str, ...]) -> bytes:
        """Return a signed round."""
        claims = {
            "study": self.study.id,
            "permit": self.study.permit,
            "round": number,
            "attempt": self.progress.attempt,
            "state": sha256(state),
            "present": list(present),
        }
        return pack(Round(self.signatures.sign(claims), np.frombuffer(state, dtype=np.uint8)))

    def provenance(self, scheme: str, terms: dict[str, Any]) -> dict[str, Any]:
        """Return what a result says of its sums: the scheme in words, and its terms beside it."""
        missing = [{"did": holder, "since_round": number} for holder, number in self.progress.missing]
        scheme += f"; {terms['threshold']} of {len(self.progress.present)} holders open a sum"
        terms = {**terms, "dropouts": self.study.aggregation.dropouts, "missing": missing}
        if missing:
            scheme += "; without " + ", ".join(f"{m['did']} since round {m['since_round']}" for m in missing)
        return {"secure_aggregation": scheme, "secure_sums": terms}

    def may_miss(self, away: Mapping[str, SiteMissing], left: int, least: int) -> None:
        """Say whether a sum may be without some holders.

        Raises:
            SiteMissing: the study waits for them.

        """
        noisy = bool(self.study.params.get("privacy"))
        enough = left >= max(least, fewest(self.study), self.study.thresholds.min_holders) and not noisy
        others = self.lost_before and self.lost_before != set(away)
        if away and (self.study.aggregation.dropouts != CONTINUE or self.progress.missing or others or not enough):
            raise next(iter(away.values()))


def sums(asking: Asking) -> Sums:
    """Return how the sums of a study are opened."""
    return MaskedSums(asking)


@dataclass
class MaskedSums:
    """Double masks among the holders: reply, agree on who survived, give shares; the next round's keys ride along."""

    asking: Asking
    _shares: dict[str, Shares] = field(default_factory=dict)

    @property
    def progress(self) -> Progress:
        """How far the study is."""
        return self.asking.progress

    @progress.setter
    def progress(self, value: Progress) -> None:
        self.asking.progress = value

    @functools.cached_property
    def setting(self) -> Setting:
        """The numbers of the study's secure sums."""
        study = self.asking.study
        return Setting.of(study.digest(), study.holders, study.aggregation.colluders(len(study.holders)))

    def provenance(self) -> dict[str, Any]:
        """Say how sums were opened, and without whom."""
        count, colluding = len(self.progress.present), self.setting.colluding
        return self.asking.provenance(
            "double masks over Z_2^64, opened by threshold shares (X25519, HKDF-SHA256, AES-128-CTR, Shamir)",
            {"model": "holders", "threshold": self.setting.threshold(count), "colluding": colluding},
        )

    def begin(self) -> None:
        """Open the study at all its holders, and learn their keys."""
        asking = self.asking
        if not self.progress.announced:
            signed = asking.signatures.sign({"study": asking.study.to_dict(), "attempt": self.progress.attempt})
            announced = asking.calls.all(asking.present, lambda c: c.open(signed))
            self.progress = replace(self.progress, announced=announced)

    def _ready(self, number: int) -> None:
        """Share the keys of the next round where that was not done with the last."""
        asking = self.asking
        without = [c for c in asking.present if c.holder not in self._shares]
        announced, study_id = self.progress.announced, asking.study.id
        answers, away = asking.calls.there(without, lambda c: c.join(study_id, announced))
        self._shares |= {h: self._dealt(h, unpack(Shared, raw)) for h, raw in answers.items()}
        if away:
            asking.may_miss(away, len(self._shares), self.setting.threshold(len(announced)))
            raise self._lost(away, number)

    def sum(self, number: int, state: bytes) -> Opened:
        """Ask a round and open its sum.

        Raises:
            SiteMissing: the study waits for a holder.
            Lost: it does not, and begins again without the holder.

        """
        self.begin()
        self._ready(number)
        asking, present = self.asking, self.progress.present
        asked = asking.asked(number, state, present)
        study_id = asking.study.id
        raw, away = asking.calls.there(asking.present, lambda c: c.answer(study_id, asked))
        replies = {h: unpack(Reply, r) for h, r in raw.items()}
        roster = {h: self._keys(h, token, self.progress.attempt) for h, token in self.progress.announced.items()}
        following = {h: r.told for h, r in replies.items()}
        for holder, token in following.items():
            self._keys(holder, token, self.progress.attempt + 1)
        if away:
            asking.may_miss(away, len(replies), self.setting.threshold(len(replies)))
            if self.progress.opened:
                self.progress = replace(self.progress, attempt=self.progress.attempt + 1, announced=following)
                self._shares = {}
                raise self._lost(away, number)
        survivors = keeping(self.setting, roster, replies)
        opening = Opening.of(self.setting, self.progress.attempt, roster, sha256(state), present, survivors)
        total = self._added(opening, {h: replies[h] for h in survivors})
        shares, faults = self._opened(opening, total, following)
        gone = {h: None for h in present if h not in survivors}
        after = self.progress.without(gone, number)
        announced = {h: following[h] for h in survivors}
        self.progress = replace(after, attempt=self.progress.attempt + 1, announced=announced, opened=True)
        self._shares = shares
        return Opened(replies[survivors[0]], total, len(raw[survivors[0]]), opening.digest, faults)

    def _lost(self, away: Mapping[str, SiteMissing], number: int) -> Lost:
        self._shares = {h: s for h, s in self._shares.items() if h not in away}
        self.progress = self.progress.without(away, number)
        return Lost(self.progress)

    def _added(self, opening: Opening, replies: Mapping[str, Reply]) -> Any:
        """Add the masked words; each holder has signed its own."""
        total: Any = None
        first: Reply | None = None
        for holder, reply in replies.items():
            said = Masked(holder, opening.digest, words_digest(reply.words))
            said.check(self.asking.signatures.verify(reply.said, holder))
            if first is None:
                first, total = reply, reply.words.copy()
            elif (reply.kind, reply.layout) != (first.kind, first.layout):
                raise BadMessage(f"{holder} answered in another shape than the others")
            else:
                add(total, reply.words)
        return total

    def _opened(
        self, opening: Opening, total: Any, following: Mapping[str, str]
    ) -> tuple[dict[str, Shares], tuple[str, ...]]:
        """Take the masks off; return the shares for the next round, and who was found to break this one's rules."""
        asking, study_id = self.asking, self.asking.study.id
        claims = {
            "study": study_id,
            "permit": asking.study.permit,
            "attempt": opening.round,
            "survivors": list(opening.survivors),
        }
        announced = tuple((h, following[h]) for h in opening.survivors)
        asked = pack(Confirm(asking.signatures.sign(claims), announced))
        channels = [asking.channels[h] for h in opening.survivors]
        raw, late = asking.calls.there(channels, lambda c: c.step(study_id, "confirm", asked))
        confirmed = {h: unpack(Confirmed, answer) for h, answer in raw.items()}
        for holder, answer in confirmed.items():
            Survivors.from_claims(asking.signatures.verify(answer.said, holder))
        threshold = self.setting.threshold(len(opening.roster))
        words = tuple((h, confirmed[h].said) for h in sorted(confirmed)[:threshold])
        if len(words) < threshold:
            raise next(iter(late.values()))
        shared = self._shares
        raw, _ = asking.calls.there(
            [c for c in channels if c.holder in confirmed],
            lambda c: c.step(study_id, "uncover", pack(Uncover(words, boxes_for(c.holder, opening, shared)))),
        )
        reveals = {h: self._revealed(h, unpack(Uncovered, answer)) for h, answer in raw.items()}
        found = recover(opening, shared, reveals)
        unmask(total, opening, found)
        dealt = {h: self._dealt(h, a.shared) for h, a in confirmed.items() if a.shared is not None}
        return dealt, tuple(map(str, found.faults))

    def _keys(self, holder: str, token: str, attempt: int) -> Announcement:
        said = Announcement.from_claims(self.asking.signatures.verify(token, holder))
        if (said.party, said.study, said.round) != (holder, self.setting.study, attempt):
            raise BadMessage(f"{holder} announced keys of another study or round")
        return said

    def _dealt(self, holder: str, shared: Shared) -> Shares:
        shared.shares.check(self.asking.signatures.verify(shared.signature, holder))
        if shared.shares.party != holder:
            raise BadMessage(f"{holder} sent the shares of {shared.shares.party}")
        return shared.shares

    def _revealed(self, holder: str, said: Uncovered) -> Reveal:
        said.reveal.check(self.asking.signatures.verify(said.signature, holder))
        return said.reveal
