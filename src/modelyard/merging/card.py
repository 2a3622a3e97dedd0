"""What lies beside the tensors of a merged checkpoint: config, tokenizer, model card with the recipe."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from modelyard.core.files import write_json, write_whole
from modelyard.merging.chat_templates import choose_template, read_tokenizer_config, write_chat_template
from modelyard.merging.planning import MergePlan
from modelyard.merging.tokenizer_files import TOKENIZER_FILES, write_tokenizer

#: Files of the donor that a merged model needs as they are.
_COMPANIONS = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE",
    "LICENSE.txt",
    "NOTICE",
)
_LICENSE = re.compile(r"\A---\n(?:.*\n)*?license:[ \t]*(?P<name>[^\n#]+)\n(?:.*\n)*?---", re.MULTILINE)


def write_companions(plan: MergePlan, folder: Path) -> list[str]:
    """Write everything but tensors, index and record; gives warnings, such as of licences that differ."""
    if plan.config:
        write_json(folder / "config.json", dict(plan.config))
    donor = plan.donor.checkpoint.folder
    _copy(donor, folder, _COMPANIONS)
    if plan.vocabulary and plan.recipe.tokenizer:
        write_tokenizer(plan.recipe.tokenizer, plan.vocabulary.tokenizers, plan.vocabulary.plan, folder)
    else:
        _copy(donor, folder, TOKENIZER_FILES)
    _write_template(plan, folder)
    licences = {str(model.ref): licence_of(model.checkpoint.folder) for model in plan.models}
    write_whole(folder / "README.md", _card(plan, licences))
    known = {licence for licence in licences.values() if licence}
    if len(known) > 1:
        told = ", ".join(f"{name}: {licence or 'not stated'}" for name, licence in licences.items())
        return [
            f"the models have different licences ({told}); whether the merge may be used is for you to settle"
        ]
    return []


def licence_of(folder: Path) -> str | None:
    """The licence that a checkpoint's model card states, or None."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = _LICENSE.match(text)
    return match["name"].strip().strip("\"'") if match else None


def recipe_text(plan: MergePlan) -> str:
    """The recipe as YAML, without what stands at its default."""
    return yaml.safe_dump(_plain(asdict(plan.recipe)), sort_keys=False, allow_unicode=True)


def _copy(donor: Path, folder: Path, names: Sequence[str]) -> None:
    for name in names:
        if (donor / name).is_file():
            shutil.copyfile(donor / name, folder / name)


def _write_template(plan: MergePlan, folder: Path) -> None:
    choice = plan.recipe.chat_template
    if choice is None:
        return
    configs = [read_tokenizer_config(model.checkpoint.folder) for model in plan.models]
    template = choose_template(choice, configs)
    if template is not None:
        write_chat_template(folder, template)


def _plain(value: Any) -> Any:
    """A record as YAML can have it: no tuples, and nothing that is empty."""
    if isinstance(value, dict):
        kept = {str(k): _plain(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in (None, [], {}, False)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _card(plan: MergePlan, licences: dict[str, str | None]) -> str:
    known = {licence for licence in licences.values() if licence}
    head: dict[str, Any] = {"base_model": list(licences), "tags": ["merge", "modelyard"]}
    if len(known) == 1 and all(licences.values()):
        head["license"] = known.pop()
    models = "\n".join(
        f"- `{name}` (licence: {licence or 'not stated'})" for name, licence in licences.items()
    )
    paper = f"\n\n{plan.method.paper}" if plan.method.paper else ""
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n"
        "# Merged model\n\n"
        f"Made by modelyard with the method `{plan.method.name}`: {plan.method.formula}.{paper}\n\n"
        f"## Models\n\n{models}\n\n## Recipe\n\n```yaml\n{recipe_text(plan)}```\n\n"
        "Digests of the models and checksums of all tensors are in `merge.json`; "
        "`modelyard merge verify` checks them.\n"
    )
