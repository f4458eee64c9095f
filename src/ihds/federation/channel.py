"""How a study reaches one holder: in memory to its gate, or over HTTPS to its data plane."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ihds.errors import PeerFailed, SiteMissing
from ihds.federation.gate import Gate
from ihds.ids import Did
from ihds.wire.http import Http, Line, raise_for

#: The header in which an environment shows, with each call, that it is the one calling: whoever else has the
#: transfer's token, its user above all, learns nothing by it.
ENVIRONMENT = "IHDS-Environment"


class Channel(Protocol):
    """One holder, as the coordinator sees it. Every call may be repeated without harm."""

    @property
    def holder(self) -> Did:
        """The holder's DID."""
        ...

    def open(self, signed: str) -> str:
        """Send the signed study; return the holder's signed mask key."""
        ...

    def join(self, study_id: str, announcements: dict[str, str]) -> bytes:
        """Send everybody's mask keys; return the holder's sealed shares."""
        ...

    def answer(self, study_id: str, body: bytes) -> bytes:
        """Send a packed round; return the packed reply. Raises SiteMissing."""
        ...

    def step(self, study_id: str, name: str, body: bytes) -> bytes:
        """Send a further message of a round; return the answer. Raises SiteMissing."""
        ...

    def close(self, study_id: str) -> None:
        """End the study at the holder."""
        ...


@dataclass(frozen=True)
class MemoryChannel:
    """A gate in this process."""

    holder: Did
    gate: Gate
    transfer: str

    def open(self, signed: str) -> str:
        """Send the signed study."""
        return self.gate.open(signed, self.transfer)

    def join(self, study_id: str, announcements: dict[str, str]) -> bytes:
        """Send everybody's mask keys."""
        return self.gate.join(study_id, self.transfer, announcements)

    def answer(self, study_id: str, body: bytes) -> bytes:
        """Send a round."""
        return self.gate.answer(study_id, self.transfer, body)

    def step(self, study_id: str, name: str, body: bytes) -> bytes:
        """Send a further message of a round."""
        return self.gate.step(study_id, self.transfer, name, body)

    def close(self, study_id: str) -> None:
        """End the study."""
        self.gate.close(study_id, self.transfer)


@dataclass(frozen=True)
class HttpChannel:
    """A holder's study endpoint, opened by a started transfer and its bearer token.

    ``shown`` makes an environment's own token, good for one call.
    """

    holder: Did
    http: Http
    endpoint: str
    token: str
    line: Line
    shown: Callable[[], str] | None = None

    def open(self, signed: str) -> str:
        """Send the signed study."""
        answer = self._json("POST", "/studies", {"study": signed})
        return str(answer["announcement"])

    def join(self, study_id: str, announcements: dict[str, str]) -> bytes:
        """Send everybody's mask keys."""
        return self._packed(f"/studies/{study_id}/holders", json.dumps(announcements).encode())

    def answer(self, study_id: str, body: bytes) -> bytes:
        """Send a round."""
        return self._packed(f"/studies/{study_id}/rounds", body)

    def step(self, study_id: str, name: str, body: bytes) -> bytes:
        """Send a further message of a round."""
        return self._packed(f"/studies/{study_id}/{name}", body)

    def _packed(self, path: str, body: bytes) -> bytes:
        """Post bytes over the open line; return those answered."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/octet-stream", **self._own()}
        try:
            status, answer = self.line.post(path, body, headers)
        except PeerFailed as error:
            raise self._missing(error) from error
        if status >= 400:
            try:
                reported = json.loads(answer)
            except ValueError:
                reported = None
            raise_for(status, reported, self.endpoint + path)
        return answer

    def close(self, study_id: str) -> None:
        """End the study."""
        self._json("DELETE", f"/studies/{study_id}", None)

    def _json(self, method: str, path: str, body: object) -> dict[str, object]:
        try:
            status, answer = self.http.json(method, self.endpoint + path, body, self.token, headers=self._own())
        except PeerFailed as error:
            raise self._missing(error) from error
        raise_for(status, answer, self.endpoint + path)
        return answer if isinstance(answer, dict) else {}

    def _own(self) -> dict[str, str]:
        return {ENVIRONMENT: f"Bearer {self.shown()}"} if self.shown is not None else {}

    def _missing(self, error: PeerFailed) -> SiteMissing:
        return SiteMissing(
            f"{self.holder} did not answer: {error.message}",
            remedy="the study waits; resume it when the site is back: ihds study run --resume STUDY",
        )
