"""People who opted out are not in the view: a registry's list at the holder, and what of it applies to a permit.

The list comes signed, in pages that each go on where the last ended; a page that does not is refused, so no
former list can be shown again. What applies to a permit is fixed when its data are first opened: all its
studies see the same persons, and a later choice cannot be found by subtraction (EHDS Art. 71).
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ihds.audit.log import Event, Log, now
from ihds.canonical import digest
from ihds.data.source import Source, View
from ihds.errors import (
    BadMessage,
    CannotVerify,
    Conflict,
    IhdsError,
    NotAuthenticated,
    Refused,
    SetupFailed,
    SiteMissing,
)
from ihds.governance.opt_out import SCOPES, exception, reaching
from ihds.governance.permit import Permit
from ihds.governance.policy import Granted
from ihds.ids import Did
from ihds.privacy.opt_outs import ENTRY, History, Tokens, among, tokens
from ihds.store.store import Put

LIST, PART, APPLIED = "opt_outs.list", "opt_outs.part", "opt_outs.applied"
#: How far ahead of this holder's clock a registry's may be.
_LEEWAY = timedelta(minutes=1)


class Choices(Protocol):
    """Keeps people who opted out of a permit's data out of its views."""

    def fix(self, permit: Permit, dataset: str) -> dict[str, Any]:
        """Fix, once, what applies to a permit here; return it for the log. Raises Refused, SiteMissing."""
        ...

    def applied(self, view: View, permit: Permit) -> View:
        """Return a view without those who are out of a permit's data. Raises Refused where nothing was fixed."""
        ...

    def foreseen(self, view: View, permit: Permit | None = None) -> View:
        """Return a view as it would be now, for a preview; nothing is fetched or fixed."""
        ...


class NoRegistry:
    """A site that follows no registry: what it does under the EHDS is refused, other regimes know no such list."""

    def fix(self, permit: Permit, dataset: str) -> dict[str, Any]:
        """Refuse under the EHDS (deny by default)."""
        if permit.legal_regime == "ehds":
            raise Refused(
                "this holder follows no registry of opt-outs",
                reasons=("EHDS 71: data are opened under a permit only without those who opted out",),
                remedy="its operator sets opt_out_registry in node.toml",
            )
        return {"registry": ""}

    def applied(self, view: View, permit: Permit) -> View:
        """Leave out nobody."""
        self.fix(permit, view.scope.dataset)
        return view

    def foreseen(self, view: View, permit: Permit | None = None) -> View:
        """Leave out nobody."""
        return view


@dataclass(frozen=True, slots=True)
class Line:
    """The way to a registry: what fetches a page and a dataset's two keys, and what checks the registry's signature."""

    registry: Did
    page: Callable[[str, int], str]
    keys: Callable[[str], tuple[bytes, bytes]]
    verify: Callable[[str, str], dict[str, Any]]


@dataclass
class OptOuts:
    """A registry's list at one holder.

    ``identified`` names, by dataset, the column of national identifiers; a dataset without one holds nobody
    whom the registry could name (Art. 71(8)). ``hours`` is how old a list may be when it is fixed for a permit.
    """

    me: Did
    country: str
    source: Source
    log: Log
    line: Line
    identified: Mapping[str, str]
    hours: float = 24.0
    clock: Callable[[], datetime] = now
    _histories: dict[str, History] = field(default_factory=dict)
    _tokens: dict[str, Tokens] = field(default_factory=dict)
    _last: dict[str, tuple[str, NDArray[np.bool_], int]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        for dataset, column in self.identified.items():
            book = self.source.codebook(dataset)
            kind = book.variables[column].kind if column in book.variables else ""
            if not book.person or kind not in ("identifier", "text", "category"):  # numbers lose digits
                raise SetupFailed(
                    f"dataset {dataset!r} has no column {column!r} of texts, or none that tells persons apart",
                    remedy="correct national_id in node.toml, or load the dataset with --person",
                )

    # -- what applies ----------------------------------------------------------------------------

    def fix(self, permit: Permit, dataset: str) -> dict[str, Any]:
        """Fix, once, which version of the list applies to a permit; return what the log of a round says.

        Raises:
            SiteMissing: the list at hand is not of after the permit's issue, or too old, and no newer one came.
            Refused: the registry showed something other than the continuation of its list.

        """
        found = self.log.get(APPLIED, digest([permit.id, dataset]))
        if found is None:
            told = self._to_fix(permit, dataset)
            details = {"permit": permit.id, "dataset": dataset, **told}
            put = Put(APPLIED, digest([permit.id, dataset]), 0, details)
            try:
                self.log.commit(Event("opt_outs.applied", self.me, details), put)
            except Conflict:  # another study of the permit was first
                return self.fix(permit, dataset)
            return told
        return {k: v for k, v in found.body.items() if k not in ("permit", "dataset")}

    def _to_fix(self, permit: Permit, dataset: str) -> dict[str, Any]:
        if dataset not in self.identified:
            return {"registry": "", "rule": "EHDS 71(8): nobody is identified in these data"}
        allowed = exception(permit, self.country, permit.issued_at.date())
        if isinstance(allowed, Granted):
            return {"registry": "", "rule": allowed.because[0]}
        late: SiteMissing | None = None
        try:
            self.refresh(dataset)
        except SiteMissing as error:  # the list at hand may do
            late = error
        held = self.log.get(LIST, dataset)
        as_of = _time(held.body["as_of"]) if held else None
        if held is None or as_of is None or as_of < permit.issued_at or self._age(as_of) > self.hours:
            raise SiteMissing(
                "this holder has no fresh list of opt-outs, so it opens nothing under a new permit",
                reasons=("EHDS 71: the list must be of after the permit's issue, and not too old",),
                remedy="resume the study later",
            ) from late
        return {"registry": self.line.registry, "version": int(held.body["version"]), "as_of": held.body["as_of"]}

    def _age(self, as_of: datetime) -> float:
        return (self.clock() - as_of) / timedelta(hours=1)

    def applied(self, view: View, permit: Permit) -> View:
        """Return a view without those who are out of a permit's data, as it was fixed.

        Raises:
            Refused: nothing was fixed yet.

        """
        found = self.log.get(APPLIED, digest([permit.id, view.scope.dataset]))
        if found is None:
            raise Refused("EHDS 71: which opt-outs apply to this permit is not fixed yet", remedy="ask again")
        if not found.body["registry"]:
            return view
        return self._without(view, permit, int(found.body["version"]))

    def foreseen(self, view: View, permit: Permit | None = None) -> View:
        """Return a view as it would be with the list at hand; nothing is fetched or fixed."""
        dataset = view.scope.dataset
        if permit is not None and self.log.get(APPLIED, digest([permit.id, dataset])):
            return self.applied(view, permit)
        if self.log.get(LIST, dataset) is None:
            return view
        return self._without(view, permit, self._history(dataset).version)

    def _without(self, view: View, permit: Permit | None, version: int) -> View:
        dataset = view.scope.dataset
        at = permit.issued_at if permit else self.clock()
        scopes = reaching(permit.purpose, permit.legal_regime, self.country, at.date()) if permit else _ALL
        named = digest([dataset, version, int(at.timestamp()), sorted(scopes)])
        with self._lock:
            if self._last.get(dataset, ("",))[0] != named:
                history = self._history(dataset)
                if history.version < version:
                    raise Refused("EHDS 71: the list of opt-outs that applies is not at hand", remedy="restore it")
                persons = self._persons(dataset)
                rows = among(persons, history.out(int(at.timestamp()), version, scopes))
                self._last[dataset] = (named, *self._whole_persons(dataset, persons, rows))
            _, rows, left = self._last[dataset]
        return view.without(rows, left) if rows.any() else view

    def _persons(self, dataset: str) -> Tokens:
        if dataset not in self._tokens:
            column = self.source.column(dataset, self.identified[dataset])
            self._tokens[dataset] = tokens(*self.line.keys(dataset), self.country, column)
        return self._tokens[dataset]

    def _whole_persons(self, dataset: str, persons: Tokens, rows: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
        """Return the rows of those who are out, all of each person, and how many persons stay."""
        person = self.source.codebook(dataset).person
        if person and person != self.identified[dataset]:
            who = self.source.column(dataset, person)
            rows = rows | who.isin(set(who[rows].dropna())).to_numpy()
            left = int(who[~rows].nunique())
        else:
            kept = np.sort(persons[~rows & (persons != 0)])
            left = int(len(kept) and 1 + (kept[1:] != kept[:-1]).sum())
        return rows, left

    # -- the list --------------------------------------------------------------------------------

    def refresh(self, dataset: str) -> None:
        """Bring the list up to date, page by page.

        Raises:
            SiteMissing: the registry does not answer, or not yet.
            Refused: what it answered is not the continuation of the list at hand.

        """
        with self._lock:
            last = False
            while not last:
                held = self.log.get(LIST, dataset)
                try:
                    self.line.keys(dataset)  # they are kept: a view needs them, and may not ask then
                    signed = self.line.page(dataset, int(held.body["version"]) if held else 0)
                except IhdsError as error:
                    raise SiteMissing(f"the registry of opt-outs does not answer: {error.message}") from error
                try:
                    last = self.take(dataset, signed)
                except CannotVerify as error:
                    raise SiteMissing(f"the registry's key cannot be learnt: {error.message}") from error
                except (NotAuthenticated, BadMessage) as error:
                    details = {"registry": self.line.registry, "dataset": dataset, "reasons": [error.message]}
                    self.log.commit(Event("opt_outs.refused", self.me, details))
                    raise Refused(
                        "the list of opt-outs is not what its registry showed before",
                        reasons=(error.message, "EHDS 71: without a sound list nothing is opened"),
                        remedy="the holder asks the registry's operator",
                    ) from error

    def take(self, dataset: str, signed: str) -> bool:
        """Take one page of the list; return whether it was the last.

        Raises:
            NotAuthenticated: it is not signed by the registry, is for somebody else, or does not go on where
                the list at hand ends: a list shown before, or another history.
            BadMessage: it cannot be read.

        """
        claims = self.line.verify(signed, self.line.registry)
        page = Page.of(claims)
        held = self.log.get(LIST, dataset)
        body: dict[str, Any] = held.body if held else {"version": 0, "chain": "", "as_of": "", "scopes": [], "parts": 0}
        as_of = _time(body["as_of"])
        wrong = [
            text
            for text, bad in (
                ("it is for another holder or dataset", (page.holder, page.dataset) != (self.me, dataset)),
                ("it does not go on where the list at hand ends", page.after != body["version"]),
                ("it goes on from another history", page.before != body["chain"]),
                ("it is older than the list at hand", as_of is not None and page.as_of < as_of),
                ("it is from the future", page.as_of > self.clock() + _LEEWAY),
                ("it names other scopes than before", list(page.scopes[: len(body["scopes"])]) != body["scopes"]),
            )
            if bad
        ]
        if wrong:
            raise NotAuthenticated(f"a page of the list of opt-outs is refused: {'; '.join(wrong)}")
        after = {
            "version": page.after + len(page.entries),
            "chain": page.chain,
            "as_of": page.as_of.isoformat() if page.last else body["as_of"],
            "scopes": list(page.scopes),
            "parts": body["parts"] + bool(len(page.entries)),
        }
        puts = [Put(LIST, dataset, held.version if held else 0, after)]
        if len(page.entries):
            part = {"entries": base64.b64encode(page.entries.tobytes()).decode()}
            puts.append(Put(PART, f"{dataset}/{body['parts']:06d}", 0, part))
        details = {"registry": self.line.registry, "dataset": dataset, "version": after["version"]}
        self.log.commit(Event("opt_outs.received", self.me, {**details, "as_of": page.as_of.isoformat()}), *puts)
        return page.last

    def _history(self, dataset: str) -> History:
        """Return the list at hand; it is read from the store when it grew."""
        held = self.log.get(LIST, dataset)
        kept = self._histories.get(dataset, History())
        if held is not None and kept.version != held.body["version"]:
            parts = [self.log.get(PART, f"{dataset}/{n:06d}") for n in range(held.body["parts"])]
            raw = b"".join(base64.b64decode(part.body["entries"]) for part in parts if part)
            kept = self._histories[dataset] = History(tuple(held.body["scopes"]), np.frombuffer(raw, dtype=ENTRY))
        return kept


_ALL = tuple(scope.id for scope in SCOPES)


def _time(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a registry's list for one dataset: the entries after a version, up to another."""

    holder: str
    dataset: str
    after: int
    before: str
    chain: str
    last: bool
    as_of: datetime
    scopes: tuple[str, ...]
    entries: NDArray[Any]

    def claims(self) -> dict[str, Any]:
        """Return what the registry signs."""
        return {
            "aud": self.holder,
            "dataset": self.dataset,
            "after": self.after,
            "before": self.before,
            "chain": self.chain,
            "last": self.last,
            "as_of": self.as_of.isoformat(),
            "scopes": list(self.scopes),
            "entries": base64.b64encode(self.entries.tobytes()).decode(),
        }

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Page:
        """Read what a registry signed.

        Raises:
            BadMessage: it is no page of a list.

        """
        try:
            entries = np.frombuffer(base64.b64decode(claims["entries"], validate=True), dtype=ENTRY)
            as_of = datetime.fromisoformat(claims["as_of"])
            if as_of.tzinfo is None:
                raise ValueError("as_of has no time zone")
            return cls(
                holder=str(claims["aud"]),
                dataset=str(claims["dataset"]),
                after=int(claims["after"]),
                before=str(claims["before"]),
                chain=str(claims["chain"]),
                last=bool(claims["last"]),
                as_of=as_of,
                scopes=tuple(map(str, claims["scopes"])),
                entries=entries,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadMessage(f"this is no page of a list of opt-outs: {error!r}") from error
