"""Chat templates by name, the one that most models share, and writing it beside a tokenizer.

A template is Jinja that turns messages with a role and a content into the text that a model was
trained on. It is only handed on here, never rendered.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard.core.errors import MergeError
from modelyard.core.files import write_json

_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"

_ALPACA = """\
{%- set preamble = 'Below is an instruction that describes a task. \
Write a response that appropriately completes the request.' -%}
{%- if messages and messages[0].role == 'system' -%}
    {%- set preamble = messages[0].content -%}
{%- endif -%}
{{- bos_token -}}
{{- preamble -}}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{- '\\n\\n### Instruction:\\n' ~ message.content -}}
    {%- elif message.role == 'assistant' -%}
        {{- '\\n\\n### Response:\\n' ~ message.content ~ eos_token -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '\\n\\n### Response:\\n' -}}
{%- endif -%}
"""
_CHATML = """\
{%- for message in messages -%}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
_EXAONE = """\
{%- if not messages or messages[0].role != 'system' -%}
    {{- '[|system|][|endofturn|]\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- set end = '' if message.role == 'user' else '[|endofturn|]' -%}
    {{- '[|' ~ message.role ~ '|]' ~ message.content ~ end ~ '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '[|assistant|]' -}}
{%- endif -%}
"""
_LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
    {{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' -}}
    {{- message.content | trim ~ '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""
_MISTRAL = """\
{%- set turn = namespace(system='') -%}
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message.role == 'system' -%}
        {%- set turn.system = message.content ~ '\\n\\n' -%}
    {%- elif message.role == 'user' -%}
        {{- '[INST] ' ~ turn.system ~ message.content ~ ' [/INST]' -}}
        {%- set turn.system = '' -%}
    {%- else -%}
        {{- ' ' ~ message.content ~ eos_token -}}
    {%- endif -%}
{%- endfor -%}
"""
#: The formats that a recipe may call by name. Mistral's has no system turn: its text opens the user's.
CHAT_TEMPLATES: Mapping[str, str] = {
    "alpaca": _ALPACA,
    "chatml": _CHATML,
    "exaone": _EXAONE,
    "llama3": _LLAMA3,
    "mistral": _MISTRAL,
}


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """A folder's `tokenizer_config.json`, with the template of a `chat_template.jinja` beside it.

    A folder without these files gives an empty mapping.

    Raises:
        MergeError: A file cannot be read.
    """
    config: Any = {}
    path = folder / _CONFIG
    try:
        if path.is_file():
            config = json.loads(path.read_text(encoding="utf-8"))
        path = folder / _TEMPLATE
        template = path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, ValueError, RecursionError) as error:
        raise MergeError(f"{path} cannot be read ({error}); fetch or save the tokenizer again") from error
    if not isinstance(config, dict):
        raise MergeError(f"{folder / _CONFIG} is not a mapping of keys to values; save the tokenizer again")
    return config if template is None else {**config, "chat_template": template}


def choose_template(choice: str, tokenizer_configs: Sequence[Mapping[str, Any]]) -> str | None:
    """The template that a recipe means.

    Args:
        choice: A name of `CHAT_TEMPLATES`, a Jinja template, or `auto`: what most of the models that
            have a template share, on a tie that of the first such model.
        tokenizer_configs: One per model, in the recipe's order.

    Returns:
        The template; None for `auto` where no model has one.

    Raises:
        MergeError: The choice is neither a known name nor Jinja.
    """
    if choice == "auto":
        counts = Counter(filter(None, map(_template_of, tokenizer_configs)))
        # most_common keeps the order of first occurrence among equals
        return counts.most_common(1)[0][0] if counts else None
    if choice in CHAT_TEMPLATES:
        return CHAT_TEMPLATES[choice]
    if "{{" in choice or "{%" in choice:
        return choice
    names = ["auto", *CHAT_TEMPLATES]
    near = difflib.get_close_matches(choice, names, n=1)
    advice = f"did you mean {near[0]}?" if near else f"use one of {', '.join(names)}, or a Jinja template"
    raise MergeError(f"chat_template = {choice!r} is neither a known name nor Jinja; {advice}")


def write_chat_template(out: Path, template: str) -> None:
    """Set the chat template in the `tokenizer_config.json` of a folder, as the only one there.

    Raises:
        MergeError: The config that is there cannot be read.
    """
    write_json(out / _CONFIG, {**read_tokenizer_config(out), "chat_template": template})
    # readers prefer this file to the config
    (out / _TEMPLATE).unlink(missing_ok=True)


def _template_of(config: Mapping[str, Any]) -> str | None:
    """A model's template; of several by name the one called `default`."""
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    return template if isinstance(template, str) and template.strip() else None
