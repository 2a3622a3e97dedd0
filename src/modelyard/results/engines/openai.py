"""Servers that speak OpenAI's HTTP interface: vendors, vLLM, llama.cpp, gateways.

One request a question, without streaming. Retries and pace are for the caller.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import exp, fsum, isfinite
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx2

from modelyard.core.digests import canonical_json
from modelyard.core.errors import EngineError
from modelyard.core.faults import Section
from modelyard.results.engines import Question, Reply
from modelyard.results.engines.letters import likeliest

#: Statuses after which the same request may succeed.
_AGAIN = frozenset({408, 409, 425, 429})
#: Statuses that no request of this model will survive.
_FATAL = frozenset({401, 402, 403, 404, 405})
_TOP = 20
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN_CHARS = 300
#: What reading raises where a body is not an answer at all.
_NO_ANSWER = (ValueError, LookupError, TypeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAISettings:
    """See `EngineSettings`."""

    by_example: ClassVar[bool] = False
    # Up to and with /v1.
    endpoint: str
    # What the server calls it.
    model: str
    # chat: /chat/completions; completions: /completions, for models without a chat template.
    api: str = "chat"
    # Around the prompt of a completion, such as "Q: {prompt}\\nA:"; for models that were not taught to chat.
    template: str = "{prompt}"
    # The environment variable that holds the key; none is sent without it.
    api_key: str | None = None
    # Sent as they stand: temperature, max_tokens, stop ...
    options: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 120.0

    @property
    def identity(self) -> Mapping[str, Any]:
        """Where, whom and with what; neither the key nor the time limit."""
        return {
            "engine": "openai",
            "endpoint": self.endpoint,
            "model": self.model,
            "api": self.api,
            "template": self.template,
            "options": dict(self.options),
        }

    @property
    def lane(self) -> str:
        """One lane a server."""
        return urlsplit(self.endpoint).netloc

    @property
    def secrets(self) -> tuple[str, ...]:
        """The variable of the key."""
        return () if self.api_key is None else (self.api_key,)

    @classmethod
    def read(cls, section: Section, folder: Path) -> OpenAISettings:
        """The keys endpoint, model, api, template, api_key, options and timeout_s."""
        endpoint = section.text("endpoint")
        if endpoint and (problem := endpoint_problem(endpoint)):
            section.faults.add(section.key("endpoint"), endpoint, problem, "write https://HOST/v1")
        options = section.raw("options") or {}
        if not isinstance(options, Mapping):
            section.faults.add(section.key("options"), options, "is not a mapping", "write name: value pairs")
            options = {}
        try:
            canonical_json(dict(options))
        except ValueError as error:  # rfc8785's errors are such
            section.faults.add(
                section.key("options"), None, f"is no plain JSON ({error})", "write plain numbers"
            )
        api_key = section.optional_text("api_key")
        if api_key is not None and not _VARIABLE.fullmatch(api_key):
            # not shown: it may be the key itself
            section.faults.add(
                section.key("api_key"), None, "is no name of an environment variable",
                "put the key into a variable and name that",
            )  # fmt: skip
        model = section.text("model", str(section.data.get("name") or "") or None)
        api = section.choice("api", "chat", ("chat", "completions"))
        template = section.text("template", "{prompt}")
        if "{prompt}" not in template or (api == "chat" and template != "{prompt}"):
            problem = "belongs to api: completions, and holds {prompt}"
            section.faults.add(section.key("template"), template, problem, "correct it, or leave it out")
        return cls(
            endpoint=endpoint.rstrip("/"),
            model=model,
            api=api,
            template=template,
            api_key=api_key,
            options=dict(options),
            timeout_s=section.number("timeout_s", 120.0, above=0.0),
        )

    def open(self, environment: Mapping[str, str]) -> OpenAIEngine:
        """A client with the key of the environment."""
        headers = {}
        if self.api_key is not None:
            if not environment.get(self.api_key):
                raise EngineError(
                    f"{self.endpoint}: the environment has no {self.api_key}, which {self.model!r} names as "
                    "its api_key; set it"
                )
            secret = environment[self.api_key].strip()
            if not (secret.isascii() and secret.isprintable()):
                raise EngineError(f"{self.endpoint}: {self.api_key} holds what no header can; correct it")
            headers["Authorization"] = f"Bearer {secret}"
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        try:
            client = httpx2.Client(timeout=self.timeout_s, headers=headers, limits=limits)
        except (ValueError, ImportError, OSError) as error:  # proxies and certificates of the environment
            raise EngineError(
                f"{self.endpoint}: no connection can be made ({error}); see HTTP_PROXY, ALL_PROXY and "
                "SSL_CERT_FILE of the environment"
            ) from error
        return OpenAIEngine(self, client)


class OpenAIEngine:
    """See `Engine`."""

    def __init__(self, settings: OpenAISettings, client: httpx2.Client) -> None:
        self._settings, self._client = settings, client
        self._answered = False  # whether anything was; set by any thread, and only ever to True

    def request(self, question: Question) -> Mapping[str, Any]:
        """Method, address and body."""
        chat = self._settings.api == "chat"
        asked: dict[str, Any] = (
            {"messages": question.chat()}
            if chat
            else {"prompt": self._settings.template.replace("{prompt}", question.text())}
        )
        body = {"model": self._settings.model, **asked, **self._settings.options}
        if question.letters:
            body["max_tokens"] = 1
            body |= {"logprobs": True, "top_logprobs": _TOP} if chat else {"logprobs": _TOP}
        place = "/chat/completions" if chat else "/completions"
        return {"method": "POST", "url": f"{self._settings.endpoint}{place}", "body": body}

    def ask(self, question: Question, key: str) -> Reply:
        """See `Engine`. The key is sent as Idempotency-Key."""
        request, begun = self.request(question), time.monotonic()
        try:
            response = self._client.post(
                request["url"], json=request["body"], headers={"Idempotency-Key": key}
            )
        except httpx2.RequestError as error:
            return Reply(error=f"{type(error).__name__}: {error}"[:_SHOWN_CHARS], again=True)
        latency = time.monotonic() - begun
        if response.status_code != httpx2.codes.OK:
            return self._refusal(response)
        try:
            record = response.json()
            if record["choices"] == []:  # held back by a filter: that is the answer
                return Reply(error="an answer without choices", latency_s=latency)
            choice = record["choices"][0]
        except _NO_ANSWER as error:  # an error page, or an error told with status 200
            told = " ".join(response.text.split())[:_SHOWN_CHARS]
            return Reply(error=f"no answer but {told or repr(error)}", again=True)
        self._answered = True
        try:
            return _reply(choice, record.get("usage"), question, latency)
        except (ValueError, LookupError, TypeError, AttributeError) as error:  # it was paid for
            return Reply(error=f"the answer is not as the interface has it: {error!r}", latency_s=latency)

    def close(self) -> None:
        """See `Engine`."""
        self._client.close()

    def _refusal(self, response: httpx2.Response) -> Reply:
        status, told = response.status_code, " ".join(response.text.split())[:_SHOWN_CHARS]
        moderated = status == httpx2.codes.FORBIDDEN and self._answered  # this question, not this model
        if (status in _FATAL and not moderated) or response.is_redirect or "insufficient_quota" in told:
            raise EngineError(
                f"{response.request.url}: answers {status} for the model {self._settings.model!r} ({told}); "
                "mend endpoint, model or api_key"
            )
        again = status in _AGAIN or status >= httpx2.codes.INTERNAL_SERVER_ERROR
        return Reply(error=f"status {status}: {told}", again=again, wait_s=_wait_s(response.headers))


def _reply(choice: Mapping[str, Any], usage: object, question: Question, latency_s: float) -> Reply:
    counts = usage if isinstance(usage, Mapping) else {}
    told = Reply(
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
        latency_s=latency_s,
        cost_usd=_charged(counts.get("cost")),
    )
    if question.letters:
        letter = likeliest(question.letters, _logprobs(choice["logprobs"]))
        missing = "no letter is among the likeliest tokens"
        return replace(told, text=letter, error="" if letter else missing)
    content = choice["message"].get("content") if "message" in choice else choice["text"]
    if isinstance(content, list):  # in parts, of which some are text
        content = "".join(str(part["text"]) for part in content if part.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content is {type(content).__name__}")
    return replace(told, text=content or "", confidence=_confidence(choice.get("logprobs")))


def _charged(told: object) -> float | None:
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None
    return float(told) if isfinite(told) and told >= 0 else None


def _count(told: object) -> int | None:
    return told if isinstance(told, int) and not isinstance(told, bool) and 0 <= told < 1 << 63 else None


def _logprobs(told: Mapping[str, Any]) -> dict[str, float]:
    """Of the first token, by token, in either form of the interface."""
    if "content" in told:
        return {each["token"]: float(each["logprob"]) for each in told["content"][0]["top_logprobs"]}
    return {token: float(value) for token, value in told["top_logprobs"][0].items()}


def endpoint_problem(endpoint: str) -> str:
    """Why an address cannot be asked; empty where it can."""
    try:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            return "is not a web address"
    except ValueError as error:
        return f"is not a web address ({error})"
    if parts.username or parts.password:
        return "holds a password, which would be written down; name a variable as api_key instead"
    return "has a space" if any(sign.isspace() for sign in endpoint) else ""


def _confidence(told: Mapping[str, Any] | None) -> float | None:
    """Of the tokens that were chosen, in either form of the interface; None where nothing is told."""
    if not told:
        return None
    if "content" in told:
        values = [float(each["logprob"]) for each in told["content"] or ()]
    else:
        values = [float(value) for value in told.get("token_logprobs") or () if value is not None]
    return min(1.0, exp(fsum(values) / len(values))) if values else None


def _wait_s(headers: httpx2.Headers) -> float:
    """Retry-After, in seconds or as a date; 0 where there is none."""
    told = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
