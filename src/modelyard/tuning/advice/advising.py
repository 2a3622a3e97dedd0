"""Asking a model for one trial: at most two questions, each recorded, with nothing made up in between.

Either there is advice that the space can carry, or there is a reason why there is none; what follows from
that is for the searchers. The same trials and number give the same again, from the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.faults import Section
from modelyard.results.engines import Reply
from modelyard.tuning.advice.answers import alike
from modelyard.tuning.advice.chat import Chat, ChatSettings, Messages, is_timeout, read_chat
from modelyard.tuning.advice.conversation import AdviceForm, Form, OptimiserState, outline_of, told_back
from modelyard.tuning.advice.log import AdviceLog, Call, Caps, Outcome, estimated_tokens, read_caps
from modelyard.tuning.dimensions import Point
from modelyard.tuning.searcher import SearcherSettings
from modelyard.tuning.trial import Trial

#: An answer that is refused is told what is wrong with it, once.
_TURNS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviceOptions:
    """Whom to ask, and how much that may cost."""

    chat: ChatSettings
    caps: Caps = Caps()
    # Whether the server is held to the schema of an answer (response_format).
    structured: bool = False


def read_advice_options(section: Section) -> AdviceOptions:
    """The options that all searchers have which ask a model."""
    return AdviceOptions(
        chat=read_chat(section), caps=read_caps(section),
        structured=section.flag("structured", default=False),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What came of asking."""

    # None where the model proposes nothing that can be used; `why` says the reason.
    point: Point | None = None
    # refused: it answered, and that was no advice. failed: no answer came, or none may be asked for.
    outcome: Outcome = "taken"
    why: str = ""
    # Who was asked, and in which conversation of the log.
    notes: Mapping[str, Any] = field(default_factory=dict)


class Adviser:
    """Asks a model. To be used in one thread."""

    def __init__(
        self, settings: SearcherSettings, options: AdviceOptions, *, form: Form | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Without a form it is asked for plain advice.

        Raises:
            TuneError: The environment lacks the key of the endpoint.
        """
        host = settings.host
        self.form = AdviceForm(outline=outline_of(settings)) if form is None else form
        self.log = AdviceLog(None if host is None else host.folder)
        self._options, self._seed, self._clock = options, settings.seed, clock
        self._chat = Chat(
            options.chat, {} if host is None else host.environment,
            extra=_held_to(self.form.schema()) if options.structured else None,
        )  # fmt: skip

    def advise(
        self, trials: Sequence[Trial], number: int, state: OptimiserState | None = None, *,
        final: Container[Outcome] = (),
    ) -> Advice:  # fmt: skip
        """What the model proposes for the trial of this number.

        What ended with an outcome in `final` is given again for the same trials; otherwise a conversation
        without advice is begun anew.
        """
        messages = self.form.question(trials, number, state)
        key = self._open(digest_json([[list(each) for each in messages], self._seed]), final)
        notes = {"model": self._options.chat.model, "conversation": key}
        outcome: Outcome = "refused"
        why = ""
        for turn in range(_TURNS):
            call = self._asked(messages, number, key=key, turn=turn, trials=trials)
            if isinstance(call, str):
                return Advice(outcome="failed", why=call, notes=notes)
            if call.outcome == "taken":
                read = self.form.read(call.answer, trials)
                if read.point is not None:
                    return Advice(point=read.point, notes={**notes, "model": call.model, **read.said})
            why = call.why
            if call.outcome == "failed":
                outcome = "failed"
                break
            messages = told_back(messages, call.answer, call.why.splitlines())
        return Advice(outcome=outcome, why=why.replace("\n", "; "), notes=notes)

    def agrees(self, one: Point, other: Point) -> bool:
        """Whether two points are as good as the same configuration."""
        space = self.form.outline.space
        return alike(space, one, space.repair(other))

    def _open(self, key: str, final: Container[Outcome]) -> str:
        """The conversation to go on with: one after those that came to nothing."""
        calls, times = self.log.calls(), 0
        while True:
            current = digest_json([key, times]) if times else key
            own = [call for call in calls if call.key == current]
            last = own[-1] if own else None
            if last is None or last.outcome == "taken" or last.outcome in final:
                return current
            if last.outcome == "refused" and last.turn < _TURNS - 1:  # it was killed in between
                return current
            times += 1

    def _asked(
        self, messages: Messages, number: int, *, key: str, turn: int, trials: Sequence[Trial]
    ) -> Call | str:
        """The recorded call, or else a new one; or why none can be made."""
        calls = self.log.calls()
        for call in calls:
            if (call.key, call.turn) == (key, turn):
                return call
        chars = sum(len(text) for _, text in messages)
        chat, caps = self._options.chat, self._options.caps
        problem = caps.problem(calls, prompt_chars=chars, max_tokens=chat.max_tokens)
        if problem:
            return problem
        prompt = digest_json([list(each) for each in messages])
        reply = self._chat.ask(messages, digest_json([key, turn]))
        told = self._counted(reply, chars)
        answer = reply.text or ""
        faults = (reply.error,) if reply.error else self.form.read(answer, trials).faults
        outcome: Outcome = "failed" if reply.error else ("refused" if faults else "taken")
        call = Call(
            number=number, key=key, turn=turn, prompt=prompt, model=chat.model, answer=answer,
            outcome=outcome, why="\n".join(faults), latency_s=reply.latency_s or 0.0,
            at=round(self._clock(), 3), **told,
        )  # fmt: skip
        self.log.add(call)
        return call

    def _counted(self, reply: Reply, chars: int) -> dict[str, Any]:
        """Tokens and cost of a call; where the server does not tell them, high guesses."""
        billed = not reply.error or is_timeout(reply) or reply.completion_tokens is not None
        guess_in = estimated_tokens(chars) if billed else 0
        guess_out = estimated_tokens(len(reply.text or "")) if reply.text else 0
        if is_timeout(reply):
            guess_out = self._options.chat.max_tokens
        told_in, told_out = reply.prompt_tokens, reply.completion_tokens
        counted = guess_in if told_in is None else told_in, guess_out if told_out is None else told_out
        charged = reply.cost_usd
        return {
            "prompt_tokens": counted[0],
            "completion_tokens": counted[1],
            "estimated": billed and (told_in is None or told_out is None),
            "cost_usd": self._options.caps.cost_usd(*counted) if charged is None else charged,
        }


def _held_to(schema: dict[str, Any]) -> dict[str, Any]:
    named = {"name": "advice", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}
