"""HTTP to other nodes: a small client with bounded waits, bounded answers and honest errors."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from ihds.errors import (
    AnalysisFailed,
    BadInput,
    BadMessage,
    IllegalTransition,
    NotAuthenticated,
    NotFound,
    PeerFailed,
    Refused,
    SiteMissing,
    from_dict,
)
from ihds.wire.guard import LOOPBACK, Guard, GuardedTransport, within
from ihds.wire.strict import clean, read_json

_log = logging.getLogger("ihds.http")

#: Largest answer taken from a peer.
MAX_ANSWER = 1 << 25


@dataclass
class Http:
    """A client shared by the threads of a node; connections are kept alive.

    ``allowed`` are the networks that may be called beside public addresses.
    """

    timeout_seconds: float = 30.0
    allowed: tuple[str, ...] = LOOPBACK
    _client: httpx.Client | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def guard(self) -> Guard:
        """Which addresses may be called."""
        return Guard.of(self.allowed)

    @property
    def client(self) -> httpx.Client:
        """The underlying client, made when first needed."""
        with self._lock:
            if self._client is None:
                limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
                transport = GuardedTransport(self.guard, limits)
                self._client = httpx.Client(timeout=self.timeout_seconds, transport=transport, trust_env=False)
            return self._client

    def send(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        seconds: float | None = None,
        limit: int = MAX_ANSWER,
    ) -> httpx.Response:
        """Send a request and return whatever answer comes, whole within ``seconds`` and ``limit`` bytes.

        Raises:
            PeerFailed: no answer came, or one that is too slow or too large.

        """
        plain = {"Accept-Encoding": "identity", **(headers or {})}  # nobody inflates anything here
        try:
            with (
                within(seconds or self.timeout_seconds),
                self.client.stream(method, url, content=body, headers=plain) as answer,
            ):
                chunks, size = [], 0
                for chunk in answer.iter_raw():
                    size += len(chunk)
                    if size > limit:
                        raise PeerFailed(f"{url} answers with more than {limit} bytes")
                    chunks.append(chunk)
                kept = [(k, v) for k, v in answer.headers.items() if k.lower() != "content-encoding"]
                return httpx.Response(answer.status_code, headers=kept, content=b"".join(chunks))
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise PeerFailed(
                f"{url} does not answer: {error or type(error).__name__}",
                remedy="check that the node runs and that its address can be reached from here",
            ) from error

    def json(
        self,
        method: str,
        url: str,
        body: Any = None,
        token: str | None = None,
        authorization: str | None = None,
        seconds: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Send JSON with a bearer token or a whole Authorization header; return status and JSON (None if empty).

        Raises:
            PeerFailed: no answer came, or it was not JSON.

        """
        sent = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
        if token or authorization:
            sent["Authorization"] = authorization or f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        answer = self.send(method, url, body=data, headers=sent, seconds=seconds)
        return answer.status_code, _read(answer, url)

    def page(self, method: str, url: str, body: Any, authorization: str) -> tuple[dict[str, Any], str | None]:
        """Send JSON and return the JSON object of a 2xx answer and the address of the next page, if there is one.

        Raises:
            IhdsError: the error the peer reported, as its own class, or PeerFailed.

        """
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Authorization": authorization}
        answer = self.send(method, url, body=json.dumps(body).encode(), headers=headers)
        found = _read(answer, url)
        raise_for(answer.status_code, found, url)
        return found if isinstance(found, dict) else {}, answer.links.get("next", {}).get("url")

    def get_json(self, url: str, token: str | None = None, seconds: float | None = None) -> dict[str, Any]:
        """Fetch a JSON object.

        Raises:
            IhdsError: the peer's error, or PeerFailed.

        """
        return self.call("GET", url, token=token, seconds=seconds)

    def call(
        self, method: str, url: str, body: Any = None, token: str | None = None, seconds: float | None = None
    ) -> dict[str, Any]:
        """Send JSON and return the JSON object of a 2xx answer.

        Raises:
            IhdsError: the error the peer reported, as its own class, or PeerFailed.

        """
        status, answer = self.json(method, url, body, token, seconds=seconds)
        raise_for(status, answer, url)
        return answer if isinstance(answer, dict) else {}

    def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            self._client.close()


@dataclass
class Line:
    """One kept-alive connection to one peer, for requests that may be repeated and bodies of any size.

    The standard library's client reads a large body in one piece, where ``Http`` parses it in
    thousands; a round of a study travels this way.
    """

    base: str
    guard: Guard
    timeout_seconds: float = 120.0
    _connection: HTTPConnection | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Send a body below the base address; return status and answer.

        Raises:
            PeerFailed: no answer came, twice.
        """
        parts = urlsplit(self.base)
        with self._lock:
            for attempt in (1, 2):  # a kept connection may have been closed by the peer
                if self._connection is None:
                    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
                    self._connection = kind(parts.netloc, timeout=self.timeout_seconds)
                    self._connection._create_connection = self.guard.connect  # type: ignore[attr-defined]
                try:
                    self._connection.request("POST", parts.path + path, body, headers)
                    answer = self._connection.getresponse()
                    return answer.status, answer.read()
                except (OSError, HTTPException) as error:
                    self._connection.close()
                    self._connection = None
                    if attempt == 2:
                        raise PeerFailed(
                            f"{self.base} does not answer: {error or type(error).__name__}",
                            remedy="check that the node runs and that its address can be reached from here",
                        ) from error
        raise AssertionError

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def fetch(url: str, token: str, path: Path, progress: Callable[[int, int], None]) -> int:
    """Fetch bytes into a file in bounded memory; what the file holds already is not fetched again.

    Returns the size. The beginning must be of the same version of the source, which is remembered
    beside the file until it is whole.

    Raises:
        PeerFailed: the line broke, or the source refuses; what came is kept.

    """
    part, mark = path.with_name(path.name + ".part"), path.with_name(path.name + ".etag")
    held = part.stat().st_size if part.exists() and mark.exists() else 0
    headers = {"Authorization": f"Bearer {token}"}
    if held:
        headers |= {"Range": f"bytes={held}-", "If-Range": mark.read_text()}
    try:
        headers["Accept-Encoding"] = "identity"
        with httpx.stream("GET", url, headers=headers, timeout=60, trust_env=False) as answer:
            if answer.status_code not in (200, 206):
                raise PeerFailed(f"{url} answered {answer.status_code}")
            if answer.status_code == 200:
                held = 0
            mark.write_text(answer.headers.get("etag", ""))
            total = held + int(answer.headers.get("content-length", 0))
            with part.open("ab" if held else "wb") as file:
                for chunk in answer.iter_raw(1 << 20):
                    held += file.write(chunk)
                    progress(held, total)
    except httpx.HTTPError as error:
        raise PeerFailed(f"{url}: {error or type(error).__name__} after {held} bytes") from error
    part.replace(path)
    mark.unlink(missing_ok=True)
    return held


def raise_for(status: int, answer: Any, url: str) -> None:
    """Raise the error a peer reported, if the status says so."""
    if status < 400:
        return
    reason = answer.get("reason", answer) if isinstance(answer, dict) else answer
    if isinstance(answer, dict) and str(answer.get("code", "")).startswith("IHDS-"):
        if "message" not in answer and isinstance(reason, list) and reason:  # DSP's form of an error
            answer = {**answer, "message": reason[0], "reasons": reason[1:]}
        given = answer.get("reasons")
        error = from_dict(
            {
                "code": answer["code"],
                "message": clean(answer.get("message", "the node gave no message"), 1000),
                "reasons": [clean(r, 1000) for r in given[:50]] if isinstance(given, list) else [],
                "remedy": clean(answer.get("remedy", "")),
            }
        )
        if isinstance(error, _TOLD):
            raise error
        raise PeerFailed(f"{url} answered {status}: {error.message}")
    raise PeerFailed(f"{url} answered {status}: {clean(reason)}")


#: The errors a peer may report as its own; others mean something about this node, which a peer cannot say.
_TOLD = (Refused, NotAuthenticated, NotFound, BadInput, AnalysisFailed, IllegalTransition, SiteMissing)


def _read(answer: httpx.Response, url: str) -> Any:
    try:
        return read_json(answer.content) if answer.content else None
    except BadMessage as error:
        raise PeerFailed(f"{url} answered {answer.status_code} with something other than JSON") from error
