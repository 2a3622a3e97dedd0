"""Asking a model over OpenAI's HTTP interface while a search waits: one call, with an end in sight.

A call ends after its time-out however the server goes about it, also where it sends a blank every second;
an answer of more than a megabyte is none. What is busy is asked once more; what was slow is not, for it may
have been billed. Nothing here knows what is asked, and the key of the endpoint is in no record.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

from modelyard.core.errors import EngineError, TuneError
from modelyard.core.faults import Section
from modelyard.results.engines import Question, Reply
from modelyard.results.engines.openai import OpenAIEngine, OpenAISettings

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_BYTES = 1 << 20
#: A proposal waits for at most two answers with two tries each; others wait for the study's lock.
MOST_TIMEOUT_S = 120.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
_TRIES = 2

#: Who says what: system, user or assistant, and the text.
Messages = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """Whom to ask, and how."""

    # Up to and with /v1.
    endpoint: str
    # What the server calls it.
    model: str
    # The environment variable that holds the key; none is sent without it.
    api_key_env: str | None = None
    temperature: float = 0.7
    # Of one answer.
    max_tokens: int = 1024
    # Of one call, from its beginning to the last byte.
    timeout_s: float = 60.0


def read_chat(section: Section) -> ChatSettings:
    """The keys endpoint, model, api_key_env, temperature, max_tokens and timeout_s."""
    own = {"endpoint": section.raw("endpoint"), "model": section.raw("model")}
    given = {name: value for name, value in own.items() if value is not None}
    place = OpenAISettings.read(Section(given, faults=section.faults, path=section.path), Path())
    variable = section.optional_text("api_key_env")
    if variable is not None and not _VARIABLE.fullmatch(variable):
        # not shown: it may be the key itself
        section.faults.add(
            section.key("api_key_env"), None, "is no name of an environment variable",
            "put the key into a variable and name that",
        )  # fmt: skip
    return ChatSettings(
        endpoint=place.endpoint, model=place.model, api_key_env=variable,
        temperature=section.number("temperature", 0.7, above=-1e-9, below=2.0 + 1e-9),
        max_tokens=section.integer("max_tokens", 1024, low=16, high=100_000),
        timeout_s=section.number("timeout_s", 60.0, above=0.0, below=MOST_TIMEOUT_S + 1e-9),
    )  # fmt: skip


class Chat:
    """A way to the model. Connections last for one call, so that nothing is left open between trials."""

    def __init__(
        self, settings: ChatSettings, environment: Mapping[str, str], *,
        extra: Mapping[str, Any] | None = None, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """`extra` is sent along as it stands.

        Raises:
            TuneError: The environment lacks the key.
        """
        self._settings, self._sleep = settings, sleep
        self._secret = _secret(settings, environment)
        self._engine = OpenAISettings(
            endpoint=settings.endpoint, model=settings.model, timeout_s=settings.timeout_s,
            options={
                "temperature": settings.temperature, "max_tokens": settings.max_tokens, **(extra or {})
            },
        )  # fmt: skip

    def ask(self, messages: Messages, key: str) -> Reply:
        """The model's answer, or why there is none. `key` names the question for ever."""
        reply, begun = Reply(error="nothing was asked"), time.monotonic()
        for tried in range(1, _TRIES + 1):
            reply = self._once(messages, key)
            if not reply.again or is_timeout(reply) or tried == _TRIES:
                break
            self._sleep(min(max(reply.wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S))
        text, error = self._plain(reply.text or ""), self._plain(reply.error)
        if not (text.strip() or error):
            error = "an empty answer"
        latency_s = round(time.monotonic() - begun, 3)
        return replace(reply, text=text or None, error=error, latency_s=latency_s)

    def _plain(self, text: str) -> str:
        """A text that can be stored, and without the key where a server sends it back."""
        whole = text.encode(errors="replace").decode()
        return whole.replace(self._secret, "***") if self._secret else whole

    def _once(self, messages: Messages, key: str) -> Reply:
        end = time.monotonic() + self._settings.timeout_s
        try:
            client = httpx2.Client(
                timeout=self._settings.timeout_s,
                headers={"Authorization": f"Bearer {self._secret}"} if self._secret else {},
                event_hooks={"response": [lambda response: _bound(response, end)]},
            )  # fmt: skip
        except (ValueError, ImportError, OSError) as error:  # proxies and certificates of the environment
            return Reply(error=f"no connection can be made ({error}); see HTTPS_PROXY and SSL_CERT_FILE")
        engine = OpenAIEngine(self._engine, client)
        try:
            return engine.ask(Question(example_id=key, messages=tuple(messages)), key)
        except EngineError as error:
            return Reply(error=str(error))
        finally:
            engine.close()


class _Bounded(httpx2.SyncByteStream):
    """A body that ends in an error when it takes too long, or is too long."""

    def __init__(self, stream: httpx2.SyncByteStream, end: float) -> None:
        self._stream, self._end = stream, end

    def __iter__(self) -> Iterator[bytes]:
        length = 0
        for part in self._stream:
            length += len(part)
            if length > _MOST_BYTES:
                raise httpx2.ReadError(f"the answer has more than {_MOST_BYTES} bytes")
            if time.monotonic() > self._end:
                raise httpx2.ReadTimeout("the answer did not end in time")
            yield part

    def close(self) -> None:
        """Let go of the connection."""
        self._stream.close()


def _bound(response: httpx2.Response, end: float) -> None:
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = _Bounded(response.stream, end)


def is_timeout(reply: Reply) -> bool:
    """Whether a call ended because it took too long; what was asked may have been billed."""
    return "Timeout" in reply.error.partition(":")[0]


def _secret(settings: ChatSettings, environment: Mapping[str, str]) -> str:
    """The key; empty where none is named."""
    if settings.api_key_env is None:
        return ""
    secret = environment.get(settings.api_key_env, "").strip()
    if not secret:
        raise TuneError(
            f"{settings.endpoint}: the environment has no {settings.api_key_env}, which api_key_env names; "
            "set it"
        )
    if not (secret.isascii() and secret.isprintable()):
        raise TuneError(f"{settings.endpoint}: {settings.api_key_env} holds what no header can; correct it")
    return secret
