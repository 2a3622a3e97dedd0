"""Programs and a judge with real models: python benchmarks/evaluating_real.py DIR [--json out.json]

DIR has the GGUF files of `routing_real_models.py`, served as in `routing_real.py`. Two questions are put:

* code: twelve small functions to write; the scorer `code` runs what SmolLM2 and its fine-tune wrote;
* judge: SmolLM2 judges its fine-tune's answers to forty capitals beside the right ones, in both orders. How
  often does it name the same place twice, and how does what it says agree with the scorer `normalised`?
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
from collections import Counter as Tally
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from modelyard.evaluation.judging import verdict
from routing_real import MODELS, pool, questions, served, show, told

#: A function's name and arguments, what it does, and a test of it.
TASKS = (
    ("double(x)", "returns twice x", "assert double(4) == 8"),
    ("add(a, b)", "returns the sum of a and b", "assert add(2, 5) == 7"),
    ("square(x)", "returns x squared", "assert square(-3) == 9"),
    ("is_even(n)", "returns True if n is even and False otherwise", "assert is_even(4) and not is_even(7)"),
    ("largest(values)", "returns the largest number of a list", "assert largest([3, 9, 2]) == 9"),
    ("total(values)", "returns the sum of a list of numbers", "assert total([1, 2, 3]) == 6"),
    ("reverse(text)", "returns the string reversed", "assert reverse('abc') == 'cba'"),
    ("count_words(text)", "returns the number of words in a string", "assert count_words('a b c') == 3"),
    ("factorial(n)", "returns the factorial of n", "assert factorial(5) == 120"),
    ("upper(text)", "returns the string in upper case", "assert upper('ab') == 'AB'"),
    ("first(values)", "returns the first element of a list", "assert first([7, 8]) == 7"),
    ("is_palindrome(text)", "returns True if the string reads the same backwards",
     "assert is_palindrome('level') and not is_palindrome('ab')"),
)  # fmt: skip


def code_set() -> list[dict[str, Any]]:
    """One example a function."""
    return [
        {"id": name, "prompt": f"Write a Python function {name} that {what}. Give only the code.",
         "answers": [test], "scorer": "code"}
        for name, what, test in TASKS
    ]  # fmt: skip


def judge_set() -> list[dict[str, Any]]:
    """Capitals, each once for the judge and once for the scorer."""
    capitals = [each for each in questions() if each["group_id"] == "capital"][:40]
    judged = [{**each, "id": f"judged-{each['id']}", "scorer": "judge", "options": {}} for each in capitals]
    return [{**each, "split": "fit"} for each in (*capitals, *judged)]


def consistency(work: Path) -> dict[str, int]:
    """The judge's verdicts, and how often both orders named the same place."""
    (path,) = (work / ".modelyard" / "answers").glob("judge-*.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        texts = [json.loads(reply)["text"] for (reply,) in connection.execute("SELECT reply FROM answers")]
    return dict(Tally(str(verdict(text)) for text in texts))


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    work = chosen.folder.absolute() / "extras"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for name, rows in (("code", code_set()), ("judge", judge_set())):
        (work / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    with ExitStack() as stack:
        folder = chosen.folder.absolute()
        ports = {
            name: stack.enter_context(served(folder, name)).server_address[1]
            for name in MODELS
            if name != "gemma"
        }
        entries = pool(ports)
        for entry in entries:
            entry["options"]["max_tokens"] = 160
        judge = {**entries[0], "name": "judge"}
        (work / "yard.yaml").write_text(json.dumps({"name": "extras", "pool": entries, "judge": judge}))
        record: dict[str, Any] = {
            "code": told(work, "evaluate", "yard.yaml", "--set", "code.jsonl", "--output", "code"),
            "judge": told(
                work, "evaluate", "yard.yaml", "--set", "judge.jsonl", "--model", "sums", "--output", "judged"
            ),
        }
        record["verdicts"] = consistency(work)
    lines = [json.loads(line) for line in (work / "judged" / "answers.jsonl").read_text().splitlines()]
    scores = {line["example_id"]: line["score"] for line in lines}
    pairs = Tally(
        (scores[name], score) for name, score in ((k.removeprefix("judged-"), v) for k, v in scores.items()
                                                  if k.startswith("judged-"))
    )  # fmt: skip
    record["right by scorer, by judge"] = {f"{a:g}, {b:g}": count for (a, b), count in sorted(pairs.items())}
    record["passed"] = [
        (each["model"], each["example_id"], each["score"], each["why"])
        for each in map(json.loads, (work / "code" / "answers.jsonl").read_text().splitlines())
    ]
    show(record, chosen.json)


if __name__ == "__main__":
    main()
