"""The HTTP data plane: files and upstream endpoints, pulled or pushed as streams in bounded memory.

A body is never held whole: it is read and sent a mebibyte at a time, from an offset if the other
side has the beginning already, no faster than configured. What was sent is counted and written
to the audit log, also when the line breaks. Suspension and termination stop a stream on its way.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import anyio
import httpx
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ihds.audit.log import Event, Log
from ihds.canonical import sha256
from ihds.connector.dataplane.plane import Flow, FlowEvent, FlowState, Report, Tokens, data_address
from ihds.connector.dsp.transfer import read_address
from ihds.errors import BadInput, IhdsError, NotAuthenticated, NotFound, PeerFailed
from ihds.store.store import Put
from ihds.wire.http import Http

_log = logging.getLogger("ihds.dataplane")

PULL, PUSH = "HttpData-PULL", "HttpData-PUSH"
CHUNK = 1 << 20
#: An inbox waits this long for its file; a receiver is looked at again this often while bytes flow.
_INBOX_SECONDS = 7 * 86_400.0
_ADMIT_SECONDS = 5.0
_PUSH_ATTEMPTS = 8

#: Returns where a dataset's bytes lie: a file, or the URL of an upstream endpoint.
Origin = Callable[[str], Path | str]


@dataclass
class HttpPlane:
    """Serves and receives byte streams for one connector. ``rate`` is bytes per second and stream; 0 is unbounded.

    ``report`` tells the connector that a push ended, with None or the reason it failed; ``admit`` refuses
    a receiver that may have nothing more.
    """

    log: Log
    me: str
    url: str
    origin: Origin
    inbox: Path
    http: Http
    tokens: Tokens
    report: Report
    admit: Callable[[Flow], None]
    rate: float = 0.0
    formats: frozenset[str] = frozenset({PULL, PUSH})
    largest: int = 10**12
    _stopped: set[str] = field(default_factory=set)
    _receiving: set[str] = field(default_factory=set)
    _pushing: set[str] = field(default_factory=set)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8, "push"))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # -- asked by the control plane ----------------------------------------------------------------

    def prepare(self, flow: Flow) -> tuple[dict[str, Any] | None, list[Put]]:
        """Open an inbox for a push; a pull needs nothing here."""
        if flow.format != PUSH:
            return None, []
        token, put = self.tokens.issue(flow, _INBOX_SECONDS)
        return data_address(f"{self.url}/inbox/{_name(flow.id)}", token), [put]

    def start(self, flow: Flow) -> tuple[dict[str, Any] | None, list[Put]]:
        """Open the outlet of a pull, or begin to push."""
        if flow.format == PULL:
            token, put = self.tokens.issue(flow)
            return data_address(f"{self.url}/flows/{_name(flow.id)}", token), [put]
        if flow.address is None:
            raise BadInput("a push needs the data address of the receiver", remedy="request it with a dataAddress")
        found = self.log.get("push", flow.id)
        body = {"flow": flow.to_dict(), "state": str(FlowState.STARTED)}
        return None, [Put("push", flow.id, found.version if found else 0, body)]

    def started(self, flow: Flow) -> None:
        """Take a push (again) on the consumer's side."""
        self._stopped.discard(flow.id)

    def go(self, flow: Flow) -> None:
        """Let a stream flow (again); begin to push."""
        self._stopped.discard(flow.id)
        if flow.format == PUSH:
            self._push(flow.id)

    def stop(self, flow: Flow, event: FlowEvent) -> list[Put]:
        """Stop streams of a flow and end its token; a suspended inbox keeps it, for the sender has no other."""
        self._stopped.add(flow.id)
        if flow.consumer and event is FlowEvent.SUSPEND:
            return []
        found = self.log.get("push", flow.id)
        ended = []
        if found is not None:
            state = {FlowEvent.SUSPEND: FlowState.SUSPENDED, FlowEvent.COMPLETE: FlowState.COMPLETED}
            after = state.get(event, FlowState.TERMINATED)
            ended = [Put("push", flow.id, found.version, {**found.body, "state": str(after)})]
        return [*self.tokens.revoke(flow), *ended]

    def resume(self) -> None:
        """Go on with pushes that a crash interrupted."""
        for record in self.log.store.list("push"):
            if record.body["state"] == FlowState.STARTED:
                self._push(record.id)

    # -- pulled --------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """Return the public endpoints."""
        return [
            Route("/public/flows/{name}", self._serve, methods=["GET", "HEAD"]),
            Route("/public/inbox/{name}", self._receive, methods=["PUT", "HEAD"]),
        ]

    def _flow(self, request: Request) -> Flow:
        header = request.headers.get("authorization", "")
        token = header[7:] if header[:7].lower() == "bearer " else header
        flow = self.tokens.check(token)
        if _name(flow.id) != request.path_params["name"] or flow.id in self._stopped:
            raise NotAuthenticated("the token is for another flow, or its transfer is not started")
        return flow

    async def _serve(self, request: Request) -> Response:
        try:
            flow = await run_in_threadpool(self._flow, request)
            await run_in_threadpool(self.admit, flow)
            origin = self.origin(flow.dataset)
        except IhdsError as error:
            return _refusal(error)
        if isinstance(origin, str):
            return await self._proxy(request, flow, origin)
        return await self._file(request, flow, origin)

    async def _file(self, request: Request, flow: Flow, path: Path) -> Response:
        try:
            stat = await run_in_threadpool(path.stat)
        except OSError as error:
            _log.error("the file of %s cannot be read: %s", flow.dataset, error)
            return _refusal(NotFound(f"the bytes of {flow.dataset!r} are not there now"))
        tag = _tag(stat)
        headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        wanted = request.headers.get("range")
        if wanted and request.headers.get("if-range", tag) != tag:
            wanted = None  # the file changed: the beginning the receiver has is of another
        span = _span(wanted, stat.st_size) if wanted else (0, stat.st_size)
        if span is None:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{stat.st_size}"})
        first, end = span
        headers["Content-Length"] = str(end - first)
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{stat.st_size}"
        status = 206 if wanted else 200
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        return StreamingResponse(self._metered(flow, _blocks(path, first, end), first), status, headers)

    async def _proxy(self, request: Request, flow: Flow, url: str) -> Response:
        """Pass an upstream answer through as it comes."""
        passed = {k: v for k, v in request.headers.items() if k in ("range", "if-range", "accept")}
        passed["accept-encoding"] = "identity"
        client = httpx.AsyncClient(timeout=30, trust_env=False)
        try:
            answer = await client.send(client.build_request(request.method, url, headers=passed), stream=True)
        except httpx.HTTPError as error:
            await client.aclose()
            _log.error("the source of %s does not answer: %s", flow.dataset, error)
            return _refusal(PeerFailed(f"the source of {flow.dataset!r} does not answer"))
        kept = ("content-type", "content-length", "content-range", "etag", "accept-ranges")
        headers = {k: v for k, v in answer.headers.items() if k in kept}

        async def body() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_raw(CHUNK):
                    yield chunk
            finally:
                await answer.aclose()
                await client.aclose()

        return StreamingResponse(self._metered(flow, body(), 0), answer.status_code, headers)

    async def _metered(self, flow: Flow, blocks: AsyncIterator[bytes], first: int) -> AsyncIterator[bytes]:
        """Pass blocks on at the configured rate; count them, whatever ends the stream."""
        sent, began = 0, time.monotonic()
        try:
            looked = time.monotonic()
            async for block in blocks:
                if time.monotonic() - looked > _ADMIT_SECONDS:
                    await run_in_threadpool(self.admit, flow)
                    looked = time.monotonic()
                if flow.id in self._stopped:
                    raise ClientDisconnect  # the line closes short of its length: the receiver sees a broken stream
                if self.rate and (ahead := sent / self.rate - (time.monotonic() - began)) > 0:
                    await asyncio.sleep(ahead)
                yield block
                sent += len(block)
        finally:
            details = {"transfer": flow.id, "dataset": flow.dataset, "from": first, "bytes": sent}
            with anyio.CancelScope(shield=True):  # the receiver may be gone; what it got is counted all the same
                await run_in_threadpool(self.log.commit, Event("data.sent", flow.counterparty, details))

    # -- pushed --------------------------------------------------------------------------------------

    async def _receive(self, request: Request) -> Response:
        """Take a pushed stream from the offset held so far; HEAD tells the offset."""
        try:
            flow = await run_in_threadpool(self._flow, request)
            await run_in_threadpool(self.admit, flow)
        except IhdsError as error:
            return _refusal(error)
        if flow.id in self._receiving:
            return Response(status_code=409, headers={"Retry-After": "1"})
        self._receiving.add(flow.id)
        try:
            return await self._take(request, flow)
        finally:
            self._receiving.discard(flow.id)

    async def _take(self, request: Request, flow: Flow) -> Response:
        """Take a part of a push; only one at a time is let in, and only of one version of the source."""
        self.inbox.mkdir(parents=True, exist_ok=True)
        part, mark = (self.inbox / f"{_name(flow.id)}.{end}" for end in ("part", "etag"))
        tag = request.headers.get("etag", "")[:200]
        if part.exists() and (mark.read_text() if mark.exists() else "") != tag:
            part.unlink()  # the beginning is of another version
        mark.write_text(tag)
        held = part.stat().st_size if part.exists() else 0
        if request.method == "HEAD":
            return Response(headers={"Upload-Offset": str(held)})
        found = re.fullmatch(
            r"bytes ([0-9]{1,15})-([0-9]{0,15})/([0-9]{1,15})", request.headers.get("content-range", "")
        )
        if not found or int(found[1]) != held:
            return Response(status_code=409, headers={"Upload-Offset": str(held)})
        total, got = int(found[3]), 0
        if total > self.largest:
            return _refusal(BadInput(f"the inbox takes files up to {self.largest} bytes"))
        try:
            with part.open("ab") as file:
                async for chunk in request.stream():
                    if held + got + len(chunk) > total or flow.id in self._stopped:
                        return _refusal(BadInput("more bytes came than were announced, or the transfer has ended"))
                    await run_in_threadpool(file.write, chunk)
                    got += len(chunk)
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            details = {"transfer": flow.id, "dataset": flow.dataset, "from": held, "bytes": got, "of": total}
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(self.log.commit, Event("data.received", flow.counterparty, details))
        if part.stat().st_size == total:
            part.replace(self.inbox / f"{_name(flow.id)}.data")
            mark.unlink(missing_ok=True)
            return Response(status_code=201)
        return Response(status_code=202)

    def _push(self, identifier: str) -> None:
        """Push in the background, a few flows at a time, each once."""
        with self._lock:
            if identifier in self._pushing:
                return
            self._pushing.add(identifier)
        self._pool.submit(self._pushed, identifier)

    def _pushed(self, identifier: str) -> None:
        try:
            self._push_all(identifier)
        except Exception:  # noqa: BLE001 - one bug must not end the pool; resume takes it up again
            _log.exception("the push %s failed", identifier)
        finally:
            with self._lock:
                self._pushing.discard(identifier)

    def _push_all(self, identifier: str) -> None:
        record = self.log.get("push", identifier)
        if record is None or record.body["state"] != FlowState.STARTED:
            return
        flow = Flow(**record.body["flow"])
        failure = "no attempt was made"
        for attempt in range(_PUSH_ATTEMPTS):
            if flow.id in self._stopped:
                return
            try:
                self._push_once(flow)
            except (httpx.HTTPError, OSError, ValueError, IhdsError) as error:
                failure = str(error) or type(error).__name__
                _log.info("push %s: %s", flow.id, failure)
                time.sleep(min(10.0, 0.2 * 2**attempt))
            else:
                self.report(flow.id, None)
                return
        if flow.id not in self._stopped:
            self.report(flow.id, failure)

    def _push_once(self, flow: Flow) -> None:
        self.admit(flow)
        endpoint, token = read_address(flow.address)
        origin = self.origin(flow.dataset)
        if isinstance(origin, str):
            raise BadInput("only a file is pushed", remedy="offer the upstream endpoint for pull")
        stat = origin.stat()
        size = stat.st_size
        headers = {"Authorization": f"Bearer {token}", "ETag": _tag(stat)}
        asked = self.http.send("HEAD", endpoint, headers=headers)
        offset = int(asked.headers.get("upload-offset", 0)) if asked.status_code == 200 else 0
        sent = 0

        def blocks() -> Iterator[bytes]:
            nonlocal sent
            began = time.monotonic()
            with origin.open("rb") as file:
                file.seek(offset)
                while block := file.read(CHUNK):
                    if flow.id in self._stopped:
                        raise PeerFailed("the transfer was stopped")
                    yield block
                    sent += len(block)
                    if self.rate and (ahead := sent / self.rate - (time.monotonic() - began)) > 0:
                        time.sleep(ahead)

        headers |= {"Content-Range": f"bytes {offset}-{max(size - 1, 0)}/{size}", "Content-Length": str(size - offset)}
        try:
            answer = self.http.client.put(endpoint, content=blocks(), headers=headers)
        finally:
            details = {"transfer": flow.id, "dataset": flow.dataset, "from": offset, "bytes": sent}
            self.log.commit(Event("data.sent", flow.counterparty, details))
        if answer.status_code not in (200, 201, 204):
            raise PeerFailed(f"{endpoint} answered {answer.status_code}")


def _tag(stat: os.stat_result) -> str:
    """Return what tells one version of a file from another."""
    return f'"{sha256(f"{stat.st_mtime_ns}-{stat.st_size}".encode())[:32]}"'


def _name(identifier: str) -> str:
    """Return a file and path name for a transfer: ids are the counterparty's or ours, names are ours."""
    return sha256(identifier.encode())[:40]


def _span(text: str, size: int) -> tuple[int, int] | None:
    """Return first byte and end of a single range, or None if it cannot be served."""
    found = re.fullmatch(r"bytes=([0-9]{0,15})-([0-9]{0,15})", text.strip())
    if not found or not (found[1] or found[2]):
        return None
    if not found[1]:
        return (max(0, size - int(found[2])), size) if int(found[2]) else None
    first = int(found[1])
    end = min(size, int(found[2]) + 1) if found[2] else size
    return (first, end) if first < end else None


async def _blocks(path: Path, first: int, end: int) -> AsyncIterator[bytes]:
    file: BinaryIO = await run_in_threadpool(path.open, "rb")
    try:
        await run_in_threadpool(file.seek, first)
        left = end - first
        while left > 0:
            block = await run_in_threadpool(file.read, min(CHUNK, left))
            if not block:
                return
            left -= len(block)
            yield block
    finally:
        file.close()


def _refusal(error: IhdsError) -> Response:
    return JSONResponse(error.to_dict(), error.http_status)
