"""The YAML document under a yard: what its file says, as a JSON value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_bytes
from modelyard.core.faults import Faults, Section
from modelyard.core.yaml_documents import read_yaml_document
from modelyard.jobs.step import is_name


@dataclass(frozen=True, slots=True, kw_only=True)
class YardDocument:
    """One yard.yaml as it stands."""

    path: Path
    name: str
    # Of what the file says of the run, comments and layout apart. It names the run: a changed file is
    # another run. When to look again and whom to tell (`watch`, `notify`, `retrain`) change no run.
    digest: str
    data: Any


def read_document(path: Path) -> YardDocument:
    """Read a yard.yaml as far as the name of its run needs.

    Raises:
        DocumentError: The file is not YAML, or does not name the yard.
    """
    faults = Faults(file=str(path))
    absent = "give the path of the file, or make one with `modelyard init`"
    data = read_yaml_document(path, faults, absent=absent)
    faults.raise_if_any()
    name = Section(data, faults=faults).text("name")
    if name and not is_name(name):
        faults.add("name", name, "cannot name a folder", "use letters, digits, '.', '_', '-'")
    faults.raise_if_any()
    # Not RFC 8785, which knows neither NaN nor integers beyond 2^53: whether those may stand is judged later.
    return YardDocument(
        path=path,
        name=name,
        digest=digest_bytes(json.dumps(_lasting(data), sort_keys=True).encode()),
        data=data,
    )


def _lasting(data: Any) -> Any:
    """What a document says without what may change while a run goes on."""
    if not isinstance(data, dict):
        return data
    said = {key: value for key, value in data.items() if key not in ("watch", "notify")}
    models = said.get("models")
    if isinstance(models, list):
        said["models"] = [_without_retrain(model) for model in models]
    return said


def _without_retrain(model: Any) -> Any:
    return {k: v for k, v in model.items() if k != "retrain"} if isinstance(model, dict) else model
