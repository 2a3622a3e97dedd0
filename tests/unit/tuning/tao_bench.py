"""A skill of our own in the layout of TAO's skill bank, whose training runs on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from modelyard.testing.process_sdk import ProcessSdk
from modelyard.tuning.tao.automl_runner import AutoMLRunner

#: A leaf that is searched, one whose default is best, and the rest of a specification.
SPECS = {
    "results_dir": None,
    "train": {"num_epochs": 3, "optim": {"lr": 0.001, "momentum": 0.9}, "resume": None},
    "dataset": {"batch_size": 4, "train": "", "sources": [{"path": ""}]},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "default": SPECS,
    "automl_default_parameters": ["train.optim.lr", "train.optim.momentum"],
    "properties": {
        "results_dir": {"type": "string"},
        "train": {
            "type": "object",
            "properties": {
                "num_epochs": {"type": "int", "default": 3, "minimum": 1, "maximum": 100},
                "optim": {
                    "type": "object",
                    "properties": {
                        "lr": {
                            "type": "float", "default": 0.001, "minimum": 1e-5, "maximum": 0.1,
                            "automl_enabled": "TRUE",
                        },
                        "momentum": {
                            "type": "float", "default": 0.9, "minimum": 0.1, "maximum": 0.99,
                            "automl_enabled": "TRUE",
                        },
                    },
                },
            },
        },
        "dataset": {
            "type": "object",
            "properties": {"batch_size": {"type": "int", "default": 4, "minimum": 1, "maximum": 64}},
        },
    },
}  # fmt: skip

TRAINING = """
import json, math, os, sys, time, yaml
spec = yaml.safe_load(open(sys.argv[sys.argv.index("--config") + 1]))
optim = spec["train"]["optim"]
if optim["lr"] > float(os.environ.get("BREAKS_ABOVE", "inf")):
    sys.exit("CUDA error: an illegal memory access was encountered")
far = abs(math.log10(optim["lr"]) + 2) + abs(optim["momentum"] - 0.5)
while os.path.exists(os.environ.get("HOLD", "/nowhere/hold")):
    time.sleep(0.01)
begun = 0
if spec["train"].get("resume"):
    begun = json.load(open(spec["train"]["resume"]))["epoch"]
for epoch in range(begun + 1, spec["train"]["num_epochs"] + 1):
    if os.environ.get("KEEPS") and epoch % spec["train"].get("checkpoint_interval", 1) == 0:
        folder = os.path.join(spec["results_dir"], "checkpoints")
        os.makedirs(folder, exist_ok=True)
        name = os.environ["KEEPS"].format(epoch=epoch, before=epoch - 1)
        json.dump({"epoch": epoch}, open(os.path.join(folder, name), "w"))
    line = json.dumps({"epoch": epoch, "kpi": {"loss": far + 1 / epoch, "latency": 10.0 * optim["momentum"]}})
    if os.environ.get("QUIET"):
        folder = spec["results_dir"]
        os.makedirs(folder, exist_ok=True)
        open(os.path.join(folder, "status.json"), "a").write(line + "\\n")
    else:
        latency = 10.0 * optim["momentum"]
        print(f"epoch: {epoch} loss: {far + 1 / epoch:.6f} latency: {latency:.3f}", flush=True)
"""


def make_skill(folder: Path, **action: Any) -> Path:
    """A skill of the model `toy`; `action` changes what its training action says."""
    references = folder / "references"
    references.mkdir(parents=True)
    (folder / "schemas").mkdir()
    (folder / "train.py").write_text(TRAINING)
    own = {
        "command": f"{sys.executable} {folder / 'train.py'} --config {{config_path}}",
        "config_format": "yaml", "outputs": ["results_dir"], "container_image": "toys/trainer:1", **action,
    }  # fmt: skip
    own = {name: value for name, value in own.items() if value is not None}
    info = {"network_arch": "toy", "actions": {"train": own}, "container_image": "toolkit.pyt"}
    (references / "skill_info.yaml").write_text(yaml.safe_dump(info))
    (references / "spec_template_train.yaml").write_text(yaml.safe_dump(SPECS))
    (folder / "schemas" / "train.schema.json").write_text(json.dumps(SCHEMA))
    return folder


class Bench:
    """One skill, one platform, one workspace."""

    def __init__(self, folder):
        self.folder, self.workspace = folder, folder / "workspace"
        self.skill = make_skill(folder / "toy")
        self.environment = None

    def sdk(self, kind=ProcessSdk):
        return kind(self.folder / "platform")

    def runner(self, sdk=None, **given):
        given.setdefault("environment", self.environment)
        return AutoMLRunner(sdk or self.sdk(), self.skill, poll_interval=0.02, **given)

    def run(self, *, sdk=None, settings=None, **arguments):
        own = {"algorithm": "random", "metric": "loss", "num_recommendations": 3, **(settings or {})}
        return self.runner(sdk).run(automl_settings=own, workspace_path=self.workspace, **arguments)

    @property
    def run_dir(self):
        (found,) = self.workspace.glob("run_*")
        return found

    def launches(self):
        return len(list((self.folder / "platform").glob("*")))
