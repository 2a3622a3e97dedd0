"""Packs, recorded answers of two models, and comparisons of one with the other."""

from __future__ import annotations

import json
import os

import pytest

from modelyard.core.signing import trusted_keys
from modelyard.evaluation.interview import Surroundings
from modelyard.evaluation.pool import read_judge, read_pool
from modelyard.evidence.answers import SIDES
from modelyard.evidence.certify import Provenance, certify
from modelyard.evidence.comparison import Terms, declare_comparison
from modelyard.evidence.design import declare
from modelyard.verify.certificate import verify_certificate


@pytest.fixture
def pack(tmp_path):
    """Writes a pack of items whose right answer is `yes`; `more` has fields of items by their number."""

    def write(count, more=None, **fields):
        path = tmp_path / "pack.jsonl"
        rows = [
            {
                "prompt_id": f"q{i:03}", "prompt": f"Is {i} so?", "answers": ["yes"],
                "scorer": {"id": "exact"}, **fields, **(more or {}).get(i, {}),
            }
            for i in range(count)
        ]  # fmt: skip
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def recorded(tmp_path):
    """Writes what a model answers, by the numbers of items; an entry of a pool that says it again."""

    def write(name, texts, samples=1):
        path = tmp_path / f"{name}.jsonl"
        lines = [
            {"example_id": f"q{i:03}", "sample": sample, "text": text, "error": "" if text else "lost",
             "latency_s": 0.5}
            for i, text in enumerate(texts)
            for sample in range(samples)
        ]  # fmt: skip
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return {"name": name, "engine": "replay", "answers": str(path)}

    return write


@pytest.fixture
def declared(tmp_path):
    """A comparison of a candidate with a baseline."""

    def make(path, baseline, candidate, judge=None, terms=None, **design):
        models = read_pool({"pool": [baseline, candidate]}, path=tmp_path / "yard.yaml")
        judge = read_judge({"judge": judge}, path=tmp_path / "yard.yaml")
        terms = Terms(design=declare(**design), **(terms or {}))
        return declare_comparison(path, dict(zip(SIDES, models, strict=True)), terms, judge)

    return make


@pytest.fixture
def certified(yard, declared):
    """Certifies, lets the verifier recompute what was issued, and gives what came of it."""

    def run(
        *told, stop=lambda: "", told_of=lambda _model, _reply: None, provenance=None, environment=None, **more
    ):
        around = Surroundings(environment={**os.environ, **(environment or {})}, stop=stop, told=told_of)
        done = certify(yard, declared(*told, **more), around, provenance or Provenance())
        if done.report is not None:
            trusted = trusted_keys(yard.keys_dir / "trusted")
            found = verify_certificate(done.folder / "paired_eval_report.json", trusted)
            assert (found.faults, found.verdict) == ((), done.report["verdict"])
            assert found.report_digest == done.report_digest
        return done

    return run
