"""Calling many holders at once, and what it means when some do not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from ihds.errors import IhdsError, Refused, SiteMissing
from ihds.federation.channel import Channel

T = TypeVar("T")


@dataclass
class Calls:
    """Calls holders side by side, each in a thread."""

    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64, "round"))

    def all(self, channels: Iterable[Channel], call: Callable[[Channel], T]) -> dict[str, T]:
        """Return every holder's answer; if any fail, raise the gravest after all have ended."""
        answers, away = self.there(channels, call)
        if away:
            raise next(iter(away.values()))
        return answers

    def there(
        self, channels: Iterable[Channel], call: Callable[[Channel], T]
    ) -> tuple[dict[str, T], dict[str, SiteMissing]]:
        """Return the answers of the holders that are there, and why the others are not.

        Raises:
            Refused: a holder refuses; all of their reasons are told.
            IhdsError: a holder fails otherwise.

        """
        futures = {channel.holder: self._pool.submit(call, channel) for channel in channels}
        answers: dict[str, T] = {}
        away: dict[str, SiteMissing] = {}
        refusals: dict[str, Refused] = {}
        failed: list[IhdsError] = []
        for holder, future in futures.items():
            try:
                answers[holder] = future.result()
            except SiteMissing as error:
                away[holder] = error
            except Refused as error:
                refusals[holder] = error
            except IhdsError as error:
                failed.append(error)
        if refusals:
            raise Refused(
                f"{len(refusals)} of {len(futures)} holders refuse",
                reasons=tuple(f"{h}: {r}" for h, e in refusals.items() for r in (e.reasons or (e.message,))),
                remedy=next(iter(refusals.values())).remedy,
            )
        if failed:
            raise failed[0]
        return answers, away

    def shutdown(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
