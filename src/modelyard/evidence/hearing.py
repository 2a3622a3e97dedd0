"""The hearing: block after block is asked, judged where it needs to be, and shown to the monitor.

It can be begun anew at any time: what was answered is taken from the files, in the same order, and so it
comes to the same end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.core.errors import EvidenceError
from modelyard.core.failpoints import failpoint
from modelyard.evidence.answers import BASELINE, BLOCK_ITEMS, CANDIDATE, SIDES, Answer, Call, Panel, answered
from modelyard.evidence.comparison import Comparison
from modelyard.evidence.duels import Referee, duel_of, needs_judge, settled
from modelyard.evidence.outcomes import Item, Outcome, Outcomes
from modelyard.evidence.sequential import Advice, Monitor


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """All that was answered, and what it is worth, item by item."""

    answers: tuple[Answer, ...]
    outcomes: Outcomes


def hear(
    comparison: Comparison, blocks: Sequence[Sequence[Call]], panel: Panel, referee: Referee | None
) -> Heard | None:
    """Ask until everything is answered or the monitor has seen enough; None where a stop was asked for.

    Raises:
        EngineError: A model or the judge cannot be asked, or stopped answering.
        EvidenceError: A model gave no answer to anything.
    """
    panel.load([call for block in blocks for call in block])
    items = {item.id: item for item in comparison.items}
    monitor = Monitor(comparison.design, comparison.items) if comparison.design.sequential else None
    advice, answers, outcomes = Advice.GO_ON, list[Answer](), list[Outcome]()
    for calls in _rounds(comparison, blocks):
        wanted = [call for call in calls if advice is Advice.GO_ON or call.item.critical]
        panel.ask(wanted, of_all=comparison.questions)
        batch = _scored(comparison, wanted, panel, referee)
        if batch is None:
            return None
        failpoint("certify.after_block")
        answers.extend(batch)
        for outcome in _outcomes(batch, items):
            outcomes.append(outcome)
            if monitor is not None and advice not in (Advice.PASS, Advice.FAIL):
                advice = monitor.tell(outcome)
        if advice in (Advice.PASS, Advice.FAIL):
            break
    _refuse_mute(comparison, answers, panel)
    return Heard(answers=tuple(answers), outcomes=Outcomes(pack=comparison.items, answered=tuple(outcomes)))


def _rounds(comparison: Comparison, blocks: Sequence[Sequence[Call]]) -> list[list[Call]]:
    """Blocks that are asked together, so that both models have enough to do at a time."""
    parallel = max(model.manners.parallel for model in comparison.models.values())
    size = max(1, parallel // (BLOCK_ITEMS * comparison.design.samples))
    return [
        [call for block in blocks[begin : begin + size] for call in block]
        for begin in range(0, len(blocks), size)
    ]


def _scored(
    comparison: Comparison, calls: Sequence[Call], panel: Panel, referee: Referee | None
) -> list[Answer] | None:
    """The answers to all of the calls with their scores; None where some were not asked."""
    answers = []
    for call in calls:
        reply = panel.known(call)
        if reply is None:
            return None
        answers.append(answered(call, reply, comparison.models[call.side], whole=comparison.terms.whole))
    compared = [answer for answer in answers if needs_judge(answer)]
    if not compared or referee is None:
        return answers
    judged = _judged(comparison, compared, referee)
    if judged is None:
        return None
    return [answer for answer in answers if not needs_judge(answer)] + judged


def _judged(comparison: Comparison, answers: Sequence[Answer], referee: Referee) -> list[Answer] | None:
    pairs: dict[tuple[int, int], dict[str, Answer]] = {}
    for answer in answers:
        pairs.setdefault((answer.call.order, answer.call.sample), {})[answer.call.side] = answer
    done, duels = [], []
    for pair in pairs.values():
        plain = settled(pair)
        if plain is None:
            duels.append(duel_of(pair, comparison=comparison.id, seed=comparison.design.seed))
        else:
            done.extend(plain)
    ruled = referee.rule(duels, of_all=2 * comparison.questions)
    return None if ruled is None else done + ruled


def _outcomes(answers: Sequence[Answer], items: Mapping[str, Item]) -> list[Outcome]:
    """Item by item, in the order of asking; samples in their order."""
    found: dict[int, dict[str, list[Answer]]] = {}
    for answer in sorted(answers, key=lambda each: (each.call.order, each.call.sample)):
        by_side = found.setdefault(answer.call.order, {side: [] for side in SIDES})
        by_side[answer.call.side].append(answer)
    return [
        Outcome(
            item=items[said[BASELINE][0].call.item.id],
            baseline=tuple(answer.score for answer in said[BASELINE]),
            candidate=tuple(answer.score for answer in said[CANDIDATE]),
            missing_baseline=sum(answer.missing for answer in said[BASELINE]),
            missing_candidate=sum(answer.missing for answer in said[CANDIDATE]),
        )
        for said in found.values()
    ]


def _refuse_mute(comparison: Comparison, answers: Sequence[Answer], panel: Panel) -> None:
    """A model that answered nothing at all was not compared; what it did not say is forgotten."""
    for side in SIDES:
        given = [answer for answer in answers if answer.call.side == side]
        if given and all(answer.reply.text is None for answer in given):
            panel.forget(side)
            raise EvidenceError(
                f"{comparison.models[side].name}: answered none of {len(given)} questions "
                f"({given[-1].error}); see that it can be asked, and go on with the same command"
            )
