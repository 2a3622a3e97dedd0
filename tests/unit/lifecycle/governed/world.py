"""A yard whose candidates are trained by a real command: a few lines that write a checkpoint's folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from modelyard.lifecycle.governed.around import Around, Prover
from modelyard.lifecycle.governed.carrying_out import GovernedRun
from modelyard.lifecycle.governed.declaration import Governance, read_governance
from modelyard.lifecycle.governed.request import RunPlaces, TrainingRequest
from modelyard.lifecycle.governed.start_policy import Release
from modelyard.runs.yard import Yard, open_yard

TRAIN = """\
import json, os, sys, time
from pathlib import Path
base, out, data, rate = sys.argv[1:5]
with open("trained.log", "a") as log:
    log.write(out + "\\n")
time.sleep(float(os.environ.get("TRAIN_S", "0")))
if rate == "0":
    print("loss is not finite", os.environ.get("PROVIDER_TOKEN", ""), file=sys.stderr)
    sys.exit(3)
weights = {"base": Path(base, "weights.json").read_text(), "data": Path(data).read_text(), "rate": rate}
Path(out).mkdir(parents=True, exist_ok=True)
Path(out, "weights.json").write_text(json.dumps(weights))
"""
LOCAL = {
    "name": "local",
    "train": {
        "run": "{python} train.py {base} {model_dir} {data} {rate}",
        "infer": ["replies"],
        "secrets": ["PROVIDER_TOKEN"],
    },
}
REPLIES = {"name": "replies", "infer": {"entry": {"engine": "replay", "answers": "{model_dir}"}}}
OTHER = {
    "name": "other",
    "infer": {"entry": {"engine": "openai", "endpoint": "http://127.0.0.1:9", "model": "m"}},
}
TOKEN = "planted-6b1f0c2a9e"


class NoReleases:
    """A registry in which nothing was promoted."""

    def promoted(self, names: Sequence[str]) -> Sequence[Release]:
        return ()

    def find(self, release: str) -> Release | None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A folder with a yard.yaml, providers, a base model and training data."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "yard.yaml"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PROVIDER_TOKEN": TOKEN}

    def yard(self) -> Yard:
        return open_yard(self.folder / ".modelyard", create=True)

    def declare(self, **changed: Any) -> None:
        governance = {
            "candidates": [
                {"name": "small", "base": "base", "data": ["data.jsonl"], "values": {"rate": 0.1},
                 "lineage": "smalls", "licence": "apache-2.0", "why": "half the price"},
            ],
            "budget": {"iterations": 3},
            **changed,
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump({"name": "w", "governance": governance}))

    def provider(self, record: Mapping[str, Any]) -> None:
        (self.folder / "providers").mkdir(exist_ok=True)
        (self.folder / "providers" / f"{record['name']}.yaml").write_text(yaml.safe_dump(dict(record)))

    def governance(self) -> Governance:
        return read_governance(self.file, self.environment)

    def run(
        self, *, prover: Prover | None = None, governance: Governance | None = None, **asked: Any
    ) -> dict[str, Any]:
        request, governance = replace(REQUEST, **asked), governance or self.governance()
        around = Around(
            environment=self.environment, actor="ann", releases=NoReleases(), prover=prover or Prover()
        )
        places = self.places(request.run_id)
        return GovernedRun(self.yard(), governance, request, places, around).carry_out()

    def places(self, run_id: str = "r1") -> RunPlaces:
        return RunPlaces(run_dir=self.folder / "governed" / run_id)

    def trained(self) -> int:
        log = self.folder / "trained.log"
        return len(log.read_text().splitlines()) if log.exists() else 0


REQUEST = TrainingRequest(
    run_id="r1", candidate="small", train_provider="local", infer_provider="replies", live=True
)


def make_world(folder: Path) -> World:
    """The yard's files, written."""
    made = World(folder=folder)
    (folder / "base").mkdir()
    (folder / "base" / "weights.json").write_text("{}")
    (folder / "data.jsonl").write_text('{"text": "one"}\n')
    (folder / "train.py").write_text(TRAIN)
    made.declare()
    for provider in (LOCAL, REPLIES, OTHER):
        made.provider(provider)
    return made
