"""The ledger against differencing: what a user's studies covered at this site, by private fingerprints.

A study that covers nearly the same persons as an earlier one of the same user would let their sums
be subtracted, so it is refused. One record per user and dataset; it changes in the transaction of
the round that is answered, so that neither a crash nor two studies at once can pass it by.
"""

from __future__ import annotations

import base64
import secrets
from typing import Any, Protocol

import numpy as np

from ihds.analysis.coverage import Coverage, Population
from ihds.audit.log import Event, Log
from ihds.canonical import digest, sha256
from ihds.errors import Conflict, Refused
from ihds.federation.study import Study
from ihds.privacy.population import Words, differing
from ihds.store.store import Put

KIND = "gate.ledger"
_SECRET = "secret"  # noqa: S105 - its name in the store

REMEDY = (
    "give all studies of these data the same complete_for, from the first on; now: leave out the variable that few "
    "persons lack, or add to complete_for one that more lack; after an update of the data wait until more have come"
)


class Sealing(Protocol):
    """Seals this site's secrets."""

    def seal(self, data: bytes) -> str:
        """Return a secret encrypted for this site only."""
        ...

    def unseal(self, text: str) -> bytes:
        """Return a sealed secret."""
        ...


def secret(log: Log, sealing: Sealing, me: str, kind: str = KIND, begun: str = "ledger.begun") -> bytes:
    """Return the secret under which this site marks persons, or one of another kind; made once, for ever."""
    found = log.get(kind, _SECRET)
    if found is None:
        try:
            sealed = sealing.seal(secrets.token_bytes(32))
            log.commit(Event(begun, me, {}), Put(kind, _SECRET, 0, {"sealed": sealed}))
        except Conflict:  # another process of this site was first
            pass
        found = log.get(kind, _SECRET)
        assert found is not None
    return sealing.unseal(found.body["sealed"])


def fingerprint_of(covered: Coverage) -> str:
    """Return one digest of all that a study covers."""
    return sha256(b"".join(p.words.tobytes() for p in covered.populations))


def knows(log: Log, user: str, dataset: str) -> bool:
    """Return whether a user has had a study on a dataset here."""
    return log.get(KIND, digest([user, dataset])) is not None


def entered(log: Log, study: Study, dataset: str, covered: Coverage, least: int) -> Put:
    """Return the ledger's record with a study in it.

    Raises:
        Refused: fewer than ``least`` persons, but some, differ from what an earlier study covered.

    """
    identifier = digest([study.user, dataset])
    found = log.get(KIND, identifier)
    body: dict[str, Any] = found.body if found else {"user": study.user, "dataset": dataset, "populations": {}}
    populations = dict(body["populations"])
    if any(_near(new, text, told, least) for new in covered.populations for text, told in populations.items()):
        raise Refused(
            "this study would cover nearly the same persons as an earlier one of this user here",
            reasons=(f"min_difference: what two studies cover must be the same, or differ by {least} persons or more",),
            remedy=REMEDY,
        )
    for new in covered.populations:
        text = _text(new)
        before = populations.get(text, {"variables": [], "permits": []})
        populations[text] = {
            "variables": sorted(new.variables | set(before["variables"])),
            "permits": sorted({study.permit, *before["permits"]}),
        }
    return Put(KIND, identifier, found.version if found else 0, {**body, "populations": populations})


def _near(new: Population, text: str, told: dict[str, Any], least: int) -> bool:
    """Return whether two populations differ by too few, and sums over them could be subtracted.

    Complete rows are always compared, for one variable may follow from another; what is told of
    single variables is compared where a variable is the same.
    """
    kind, words = text[0], _words(text)
    if not (new.whole and kind == "w") and not new.variables & set(told["variables"]):
        return False
    return 0 < differing(new.words, words, least) < least


def _text(population: Population) -> str:
    """Return a population as the ledger names it: its kind, then its fingerprint."""
    kind = "w" if population.whole else "v"
    return kind + base64.b64encode(population.words.astype("<u4").tobytes()).decode()


def _words(text: str) -> Words:
    return np.frombuffer(base64.b64decode(text[1:]), dtype="<u4").astype(np.uint64)
