"""A small server with OpenAI's interface for one checkpoint with heads.

`GET /v1/models`, `POST /v1/chat/completions` and `/v1/completions`, streamed or not, and `GET /health`. One
generation at a time; a client that goes away ends its own. It is for one machine or behind a gateway: there
is one key or none, and no encryption.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from modelyard.core.errors import HeadsError
from modelyard.core.signals import caught_signals
from modelyard.heads.decoding.decoder import Decoded
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.serving.completions import Asked, Naming, Refused, read_request
from modelyard.heads.serving.generations import RETRY_AFTER_S, Continues, Generation, GivenUp, Line

#: Nobody sees it: the client has gone.
_CLIENT_GONE = 499
#: What is under way may go on for so long after a signal; then it is ended with an error of ours.
_GRACE_S = 3.0
_LONGEST_GRACE_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How one checkpoint is served."""

    # What clients call it.
    model: str
    # Requests that may wait while another is answered; more are turned away.
    most_waiting: int = 16
    most_body_bytes: int = 4_000_000
    # The most tokens of an answer where a request says nothing.
    max_tokens: int = 256
    # Places of a pass that prompt lookup may take.
    lookup: int = 0
    # What requests must bear as their key; empty lets in everybody who can reach the server.
    api_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an answer needs besides the model."""

    # Seconds since 1970.
    clock: Callable[[], float]
    # A number from 0 up to, not with, its argument; seeds where a request has none.
    below: Callable[[int], int]


def make_app(
    decoder: Continues, tokenizer: Any, settings: ServerSettings, surroundings: Surroundings
) -> Starlette:
    """The application; the decoder is used by one thread at a time."""
    server = _Server(decoder, tokenizer, settings, surroundings)
    routes = [
        Route("/health", server.health),
        Route("/v1/models", server.models),
        Route("/v1/models/{name:path}", server.one_model),
        Route("/v1/chat/completions", server.chat, methods=["POST"]),
        Route("/v1/completions", server.completion, methods=["POST"]),
    ]
    handlers: Any = {Refused: _refused, HTTPException: _http_error, Exception: _broken}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=server.lifespan)
    app.state.line = server.line
    return app


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        HeadsError: The address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise HeadsError(
            f"{host}:{port}: cannot be listened on ({error.strerror or error}); choose another"
        ) from error


def address_of(listening: socket.socket) -> str:
    """The address of the server's API."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; what is under way then has a few seconds to end."""
    config = uvicorn.Config(
        app, loop="asyncio", http="h11", ws="none", lifespan="on", log_config=None, access_log=False,
        server_header=False, timeout_graceful_shutdown=_LONGEST_GRACE_S,
    )  # fmt: skip
    with caught_signals():  # uvicorn raises them again when all has ended
        _Ending(config, app.state.line).run(sockets=[listening])


class _Ending(uvicorn.Server):
    """Ends, some time after a signal, what is still being decoded."""

    def __init__(self, config: uvicorn.Config, line: Line) -> None:
        super().__init__(config)
        self._line = line

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        super().handle_exit(sig, frame)
        ending = threading.Timer(_GRACE_S, self._line.give_up_all)
        ending.daemon = True
        ending.start()


class _Server:
    """The handlers of one application."""

    def __init__(
        self, decoder: Continues, tokenizer: Any, settings: ServerSettings, surroundings: Surroundings
    ) -> None:
        self.line = Line(decoder, most_waiting=settings.most_waiting)
        self._tokenizer, self._settings, self._around = tokenizer, settings, surroundings
        self._begun = int(surroundings.clock())

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Ends the thread that decodes with the server."""
        yield
        await asyncio.to_thread(self.line.close)

    async def health(self, request: Request) -> Response:
        """Whether it runs, and how busy it is."""
        return JSONResponse({"status": "ok", "model": self._settings.model, "requests": self.line.inside})

    async def models(self, request: Request) -> Response:
        """The list of the one model."""
        self._let_in(request)
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def one_model(self, request: Request) -> Response:
        """The one model by its name."""
        self._let_in(request)
        if request.path_params["name"] != self._settings.model:
            raise Refused(
                f"the model {request.path_params['name']!r} does not exist here", status=404, param="model",
                code="model_not_found",
            )  # fmt: skip
        return JSONResponse(self._model())

    async def chat(self, request: Request) -> Response:
        """An answer in a conversation."""
        return await self._complete(request, chat=True)

    async def completion(self, request: Request) -> Response:
        """A text that goes on."""
        return await self._complete(request, chat=False)

    def _model(self) -> dict[str, Any]:
        return {
            "id": self._settings.model, "object": "model", "created": self._begun, "owned_by": "modelyard"
        }  # fmt: skip

    def _let_in(self, request: Request) -> None:
        told = request.headers.get("authorization", "")
        wanted = f"Bearer {self._settings.api_key}"
        if self._settings.api_key and not hmac.compare_digest(told.encode(), wanted.encode()):
            raise Refused("the key is missing or wrong", status=401, code="invalid_api_key")

    async def _complete(self, request: Request, *, chat: bool) -> Response:
        self._let_in(request)
        body = await self._body(request)
        defaults = DecodeSettings(
            max_new_tokens=self._settings.max_tokens, lookup=self._settings.lookup,
            seed=self._around.below(2**31),
        )  # fmt: skip
        asked = read_request(body, self._tokenizer, chat=chat, model=self._settings.model, defaults=defaults)
        naming = Naming(
            id=f"{'chatcmpl' if chat else 'cmpl'}-{self._around.below(2**96):024x}",
            created=int(self._around.clock()), model=self._settings.model, chat=chat,
        )  # fmt: skip
        generation = self.line.enter(asked)
        leaving = asyncio.create_task(_give_up_when_gone(request, generation))
        try:
            if asked.stream:
                return await _streamed(asked, naming, generation, leaving)
            return await _whole(asked, naming, generation, leaving)
        except BaseException:
            _let_go(generation, leaving)
            raise

    async def _body(self, request: Request) -> bytes:
        most = self._settings.most_body_bytes
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise Refused("the content type must be application/json", status=415)
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > most:
                raise Refused(f"the body has more than {most} bytes; send less", status=413, code="too_large")
        return bytes(data)


async def _whole(
    asked: Asked, naming: Naming, generation: Generation, leaving: asyncio.Task[None]
) -> Response:
    waited: set[asyncio.Future[Any]] = {generation.result, leaving}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if leaving.done():
        return Response(status_code=_CLIENT_GONE)
    decoded = _result(generation, asked)
    _let_go(generation, leaving)
    return JSONResponse(naming.answer(decoded, prompt_tokens=len(asked.ids)))


async def _streamed(
    asked: Asked, naming: Naming, generation: Generation, leaving: asyncio.Task[None]
) -> Response:
    """Answer when the first piece is there, so that what cannot be decoded has a status of its own."""
    first = asyncio.create_task(generation.next_piece())
    waited: set[asyncio.Future[Any]] = {first, leaving}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if leaving.done():
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return Response(status_code=_CLIENT_GONE)
    try:
        begun = first.result()
    except HeadsError as error:
        raise _as_refusal(error, asked) from error
    except GivenUp as error:
        raise _ending() from error

    async def events() -> AsyncIterator[str]:
        try:
            if naming.chat:
                yield _event(naming.opening())
            async for event in _events(asked, naming, generation, begun):
                yield event
        finally:
            _let_go(generation, leaving)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _events(
    asked: Asked, naming: Naming, generation: Generation, begun: str | None
) -> AsyncIterator[str]:
    if begun:
        yield _event(naming.piece(begun))
    try:
        async for piece in generation.pieces():
            yield _event(naming.piece(piece))
        decoded = await generation.result
    except HeadsError as error:  # the status is sent already
        yield _event(_as_refusal(error, asked).body())
        return
    except GivenUp:
        yield _event(_ending().body())
        return
    yield _event(naming.closing(decoded))
    if asked.stream_usage:
        yield _event(naming.counts(decoded, prompt_tokens=len(asked.ids)))
    yield "data: [DONE]\n\n"


def _event(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _result(generation: Generation, asked: Asked) -> Decoded:
    try:
        return generation.result.result()
    except HeadsError as error:
        raise _as_refusal(error, asked) from error
    except GivenUp as error:
        raise _ending() from error


def _ending() -> Refused:
    return Refused("the server is ending; ask another", status=503, code="ending")


def _as_refusal(error: HeadsError, asked: Asked) -> Refused:
    """What a decoder refuses is the request's fault; what fails in it is ours."""
    if isinstance(error, Refused):
        return error
    if error.__cause__ is not None:
        return Refused(str(error), status=500)
    param = "messages" if asked.chat else "prompt"
    return Refused(str(error), param=param, code="context_length_exceeded")


async def _give_up_when_gone(request: Request, generation: Generation) -> None:
    with suppress(ClientDisconnect):
        while (await request.receive())["type"] != "http.disconnect":
            pass
    generation.give_up()


def _let_go(generation: Generation, leaving: asyncio.Task[None]) -> None:
    """Nobody needs a generation any more, whether or not it has ended."""
    generation.give_up()
    leaving.cancel()


async def _refused(request: Request, error: Refused) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if error.status == 503 else {}
    if error.status == 413:
        headers["Connection"] = "close"
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    refused = Refused(f"{request.method} {request.url.path}: {error.detail}", status=error.status_code)
    return JSONResponse(refused.body(), status_code=error.status_code, headers=error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    refused = Refused(f"the server failed ({type(error).__name__})", status=500)
    return JSONResponse(refused.body(), status_code=500)
