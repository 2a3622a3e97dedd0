"""A judge between two models: what it sees, both orders, what is not asked, what is kept."""

from __future__ import annotations

import json
import sys

import pytest

from modelyard.core.digests import digest_path
from modelyard.core.errors import DocumentError, EngineError
from modelyard.evidence.answers import SIDES, Answer, blocks_of
from modelyard.evidence.duels import duel_of, settled
from modelyard.results.engines import Reply
from modelyard.results.examples import Example
from modelyard.testing.openai_server import fake_server

#: Prefers the answer with `good` in it, else what stands first; writes down what it was shown.
JUDGE = """
import re, sys
text = sys.stdin.read()
open("shown", "a").write(text + "\\0")
first, second = re.search(r"\\[Answer A\\](.*)\\[Answer B\\](.*)Which", text, re.DOTALL).groups()
good = ["good" in each for each in (first, second)]
print("Verdict:", "B" if good[1] and not good[0] else "A")
"""


def pair(baseline, candidate):
    item = Example(id="q", prompt="Why?", scorer="judge")
    (calls,) = blocks_of([item], comparison="c", samples=1, seed=0)
    replies = {"baseline": baseline, "candidate": candidate}
    return {
        call.side: Answer(call=call, reply=Reply(text=replies[call.side]), score=0.0,
                          error="" if replies[call.side] is not None else "lost")
        for call in calls
    }  # fmt: skip


@pytest.mark.parametrize(
    ("baseline", "candidate", "scores"),
    [
        ("same", " same ", [0.5, 0.5]),
        (None, "an answer", [0.0, 1.0]),
        ("an answer", None, [1.0, 0.0]),
        ("an answer", " ", [1.0, 0.0]),
        (None, None, [0.0, 0.0]),
        ("", None, [0.0, 0.0]),
    ],
)
def test_what_needs_no_judge_is_not_asked(baseline, candidate, scores):
    assert [answer.score for answer in settled(pair(baseline, candidate))] == scores
    assert settled(pair("one", "another")) is None


def test_either_model_stands_first_by_the_seed_and_both_orders_are_asked():
    """With 200 seeds 100 +- 30 is more than four standard errors."""
    answers = pair("from the baseline", "from the candidate")
    duels = [duel_of(answers, comparison="c", seed=seed) for seed in range(200)]
    assert 70 < sum(duel.first == "baseline" for duel in duels) < 130
    for duel in duels[:8]:
        one, other = (question.prompt for question in duel.questions)
        for text, (first, second) in ((one, (duel.first, duel.second)), (other, (duel.second, duel.first))):
            assert text.index(f"from the {first}") < text.index(f"from the {second}")
    assert duels[0] == duel_of(answers, comparison="c", seed=0)
    assert len({key for duel in duels for key in duel.keys}) == 4


@pytest.fixture
def judge(tmp_path):
    (tmp_path / "judge.py").write_text(JUDGE)
    return {
        "name": "court", "engine": "command", "run": f"{sys.executable} judge.py", "inputs": ["judge.py"],
        "price": {"request_usd": 0.5},
    }  # fmt: skip


@pytest.fixture
def shown(tmp_path):
    """What the judge was shown so far."""
    path = tmp_path / "shown"
    return lambda: path.read_text().split("\0")[:-1] if path.exists() else []


def rulings(done):
    return [json.loads(line) for line in (done.folder / "verdicts.jsonl").read_text().splitlines()]


def test_the_candidate_wins_where_the_judge_prefers_it_in_both_orders(
    pack, recorded, certified, judge, shown
):
    told = (
        pack(9, scorer={"id": "judge"}, answers=[]),
        recorded("model-old", ["bad"] * 8 + ["good"]),
        recorded("model-new", ["good"] * 7 + ["other", "bad"]),
    )
    done = certified(*told, judge=judge)
    report = done.report
    assert report["verdict"] == "pass" and report["effect"]["method"] == "sign"
    scores = {
        (line["item"], line["side"]): line["score"]
        for line in map(json.loads, (done.folder / "answers.jsonl").read_text().splitlines())
    }
    assert [scores[f"q{i:03}", side] for i in (0, 7, 8) for side in SIDES] == [0.0, 1.0, 0.5, 0.5, 1.0, 0.0]
    assert report["judge"]["name"] == "court" and report["judge"]["unjudged"] == 0
    assert report["judge"]["raw_outputs_digest"] == digest_path(done.folder / "verdicts.jsonl")
    told_lines = rulings(done)
    assert len(told_lines) == 18 and {line["answer_a"] for line in told_lines} == set(SIDES)
    assert {line["cost_usd"] for line in told_lines} == {0.5}
    assert len(shown()) == 18 and not any("model-" in text or "date" in text for text in shown())
    again = certified(*told, judge=judge)
    assert again.before and len(shown()) == 18


def test_only_the_items_of_a_judge_are_judged(pack, recorded, certified, judge, shown):
    more = {i: {"scorer": {"id": "judge"}, "answers": []} for i in (0, 1)}
    base = recorded("base", ["good", "same", "yes", "no"] + ["yes"] * 4)
    done = certified(
        pack(8, more), base, recorded("cand", ["bad", "same", "yes", "yes"] + ["yes"] * 4), judge=judge
    )
    assert len(shown()) == 2 and len(rulings(done)) == 2
    assert done.report["pairwise_losses"] == ["q000"]


def test_without_a_judge_nothing_is_asked(pack, recorded, declared):
    path = pack(2, scorer={"id": "judge"}, answers=[])
    with pytest.raises(DocumentError, match="needs a judge, as 2 items do; declare one under `judge`"):
        declared(path, recorded("base", ["a", "b"]), recorded("cand", ["c", "d"]))


def test_a_judge_that_cannot_be_asked_ends_it_without_a_verdict(pack, recorded, certified, judge):
    told = (pack(2, scorer={"id": "judge"}, answers=[]), recorded("b", ["1", "2"]), recorded("c", ["3", "4"]))
    lost = {"name": "court", "endpoint": "http://127.0.0.1:9/v1", "retries": 0, "parallel": 1}
    for _ in range(2):
        with pytest.raises(EngineError, match=r"the judge gave no verdict \(ConnectError"):
            certified(*told, judge=lost)


def test_a_question_that_the_judge_refuses_is_a_tie_and_counted(tmp_path, pack, recorded, certified):
    base, cand = recorded("base", ["forbidden", "2 + 2"]), recorded("cand", ["3 + 3", "4 + 4"])
    path = pack(2, scorer={"id": "judge"}, answers=[])
    with fake_server(tmp_path / "log.jsonl") as server:
        court = {"name": "court", "endpoint": server.endpoint, "model": "adder", "parallel": 1, "retries": 0}
        done = certified(path, base, cand, judge=court)
    assert done.report["judge"]["unjudged"] == 1
    assert done.report["counts"]["n11"] == 2


def test_what_both_left_unanswered_is_a_tie(pack, recorded, certified, judge):
    path = pack(4, scorer={"id": "judge"}, answers=[])
    base, cand = recorded("base", ["bad", None, "same", "a"]), recorded("cand", ["good", None, "same", "b"])
    counts = certified(path, base, cand, judge=judge).report["counts"]
    assert (counts["n01"], counts["n00"], counts["n11"]) == (1, 1, 2)
    assert (counts["missing_base"], counts["missing_cand"]) == (1, 1)
