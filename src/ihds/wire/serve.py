"""Endpoints: plain functions behind HTTP, with bounded bodies, bounded waits and honest errors."""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ihds.errors import BadMessage, IhdsError, TooLarge, TooSlow
from ihds.wire.strict import read_json

_log = logging.getLogger("ihds.http")

#: Largest JSON message taken from a stranger, and largest contribution or state.
MAX_JSON = 1 << 20
MAX_BODY = 1 << 28
#: How long a request may take to arrive: its head, and its body after that.
HEAD_SECONDS = 15.0
BODY_SECONDS = 120.0


class AnyText(PathConvertor):
    """A path parameter of any text: Starlette's own ``path`` does not match a line break."""

    regex = "(?s:.*)"


register_url_convertor("text", AnyText())


def bearer(authorization: str) -> str:
    """Return the bearer token of an Authorization header, or an empty text."""
    return authorization[7:] if authorization[:7].lower() == "bearer " else ""


@dataclass(frozen=True, slots=True)
class Call:
    """An incoming request with its body read; ``caller`` are the claims of whoever was let in."""

    method: str
    path: dict[str, str]
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    client: str
    query_text: str = ""
    caller: dict[str, Any] = field(default_factory=dict)

    @property
    def bearer(self) -> str:
        """The bearer token, or an empty text."""
        return bearer(self.headers.get("authorization", ""))

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises:
            BadMessage: it is none.

        """
        value = read_json(self.body)
        if not isinstance(value, dict):
            raise BadMessage("the body is not a JSON object", remedy="send a JSON object")
        return value


@dataclass(frozen=True, slots=True)
class Answer:
    """An outgoing response: JSON unless ``raw`` or ``chunks`` is given; ``after`` is called once it is sent.

    ``chunks`` are sent as they come, compressed if the caller understands gzip.
    """

    body: Any = None
    status: int = 200
    raw: bytes | None = None
    chunks: Iterable[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    after: Callable[[], None] | None = None


def octets(data: bytes) -> Answer:
    """Return an answer of bytes."""
    return Answer(raw=data, media_type="application/octet-stream")


Handler = Callable[[Call], Answer]
OnError = Callable[[Call, IhdsError], Answer]


def plain_error(_call: Call, error: IhdsError) -> Answer:
    """Return an error in IHDS's own form."""
    return Answer(error.to_dict(), status=error.http_status)


def endpoint(
    handler: Handler,
    *,
    max_body: int = MAX_JSON,
    on_error: OnError = plain_error,
    before: Handler | None = None,
) -> Callable[[Request], Awaitable[Response]]:
    """Turn a plain function into a Starlette endpoint that runs in a worker thread.

    ``before`` sees a large request without its body and may refuse it before a byte is read.
    """

    async def serve(request: Request) -> Response:
        head = Call(
            method=request.method,
            path=dict(request.path_params),
            query=dict(request.query_params),
            headers=dict(request.headers),
            body=b"",
            client=request.client.host if request.client else "",
            query_text=request.url.query,
        )
        announced = request.headers.get("content-length", "")
        large = not announced.isdigit() or int(announced) > MAX_JSON
        if before is not None and large:
            refused = await run_in_threadpool(_guarded, before, on_error, head)
            if refused.status >= 400:
                return _response(refused)
        chunks, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > max_body:
                        return _response(_too_large(max_body))
                    chunks.append(chunk)
        except TimeoutError:
            return _response(plain_error(head, TooSlow(f"the body did not arrive within {BODY_SECONDS:g} s")))
        except ClientDisconnect:
            return Response(status_code=400)
        call = replace(head, body=b"".join(chunks) if len(chunks) != 1 else chunks[0])
        answer = await run_in_threadpool(_guarded, handler, on_error, call)
        return _response(answer, gzip="gzip" in request.headers.get("accept-encoding", ""))

    return serve


def _guarded(handler: Handler, on_error: OnError, call: Call) -> Answer:
    try:
        return handler(call)
    except IhdsError as error:
        return on_error(call, error)
    except Exception:  # noqa: BLE001 - the peer learns nothing of our bug; the operator reads the log
        _log.exception("a request failed")
        return on_error(call, IhdsError("this node failed", remedy="tell its operator the time"))


def _too_large(limit: int) -> Answer:
    error = TooLarge(f"the body is larger than {limit} bytes", remedy="send less")
    return Answer(error.to_dict(), status=error.http_status)


def _response(answer: Answer, *, gzip: bool = False) -> Response:
    after = BackgroundTask(answer.after) if answer.after else None
    if answer.chunks is not None:
        headers = {**answer.headers, "Vary": "Accept-Encoding"} | ({"Content-Encoding": "gzip"} if gzip else {})
        chunks = _gzipped(answer.chunks) if gzip else answer.chunks
        return StreamingResponse(chunks, answer.status, headers, answer.media_type, after)
    if answer.raw is not None:
        return Response(answer.raw, answer.status, answer.headers, answer.media_type, after)
    content = b"" if answer.body is None else json.dumps(answer.body).encode()
    return Response(content, answer.status, answer.headers, answer.media_type, after)


def _gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(1, wbits=31)
    for chunk in chunks:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


class Patient(HttpToolsProtocol):
    """uvicorn's protocol, with an end to its patience: a head that does not arrive closes the connection.

    uvicorn bounds how long an idle connection is kept, but not how slowly a head may drip in.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._waiting = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def on_headers_complete(self) -> None:
        """Stop waiting: the head is here."""
        self._waiting.cancel()
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        """Wait for the next head on a kept connection."""
        super().on_message_begin()
        self._waiting.cancel()
        self._waiting = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting: nobody is there."""
        self._waiting.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()
