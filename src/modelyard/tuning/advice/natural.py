"""A tune.yaml from a wish in plain words, by a model behind any OpenAI-compatible endpoint.

The answer counts only if it could be run as it stands: it is read as every tune.yaml is, its algorithm is
made with its options, and what is wrong is told back. Nothing is run and nothing is written here. What a
model may not decide for a person is refused: a shell, the environment, secrets, another database, and whom
to send trials to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from modelyard.core.digests import digest_json
from modelyard.core.errors import DocumentError, ModelyardError, TuneError
from modelyard.core.faults import Faults
from modelyard.core.yaml_documents import read_yaml_document
from modelyard.results.engines import Reply
from modelyard.tuning.advice.chat import Chat
from modelyard.tuning.document import TuneDeclaration, read_tune
from modelyard.tuning.preparing import prepare

#: So many answers in all: faults are told back twice.
_ANSWERS = 3
_KEYS = frozenset({
    "schema", "name", "command", "metric", "space", "algorithm", "options", "rungs", "trials", "budget",
    "target", "parallel", "seed", "confirm_seeds", "start", "timeout", "retries", "config", "resources",
    "read", "fail_alike",
})  # fmt: skip
#: Those that need nobody to be asked: `llm` and `hybrid` send trials to somebody.
_ALGORITHMS = (
    "asha", "bayesian", "bfbo", "bohb", "cmaes", "dehb", "hyperband", "hyperband_es", "nsga2", "pbt",
    "random", "tpe",
)  # fmt: skip
_LONGEST, _MOST_FAULTS, _LONGEST_FAULT, _LONGEST_WISH = 20_000, 12, 300, 4000
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCED = re.compile(r"\A```(?:ya?ml)?[ \t]*\n(.*?)\n?```\Z", re.DOTALL)

_SYSTEM = """\
You write configuration files for a hyperparameter search. Answer with one YAML document and nothing else, \
of this form:

name: digits
command: "{python} train.py {params}"      # {params} becomes --name value for every parameter
metric: {name: val_loss, direction: minimize, take: last}   # or maximize; or take: best
space:
  lr: {low: 1e-5, high: 1e-1, log: true, default: 1e-3}
  layers: {low: 1, high: 4}                # integers, since both ends are
  batch_size: {choices: [16, 32, 64], default: 32}
  optimizer: {choices: [adam, sgd]}
  momentum: {low: 0.0, high: 0.99, when: {optimizer: sgd}}
algorithm: tpe                             # or another of those below
trials: 40
parallel: 1

Algorithms: bayesian (few, costly trials), bfbo (the same, several at once), tpe, cmaes, random; asha, \
hyperband, hyperband_es, bohb, dehb where a metric after each epoch tells; pbt where values may change \
during training. With several objectives, metric: [{name: val_loss, direction: minimize}, {name: latency_ms, \
direction: minimize}], take bayesian, nsga2 or tpe.

A range has low and high, both finite, and may have log, step, integer, power_of: 2 or multiple_of: 8. \
Only asha, hyperband, hyperband_es, bohb, dehb and pbt have rungs: {low: 1, high: 27, eta: 3}, in the steps \
that the command reports; pbt has promote: true in them too, a command that goes on from the checkpoint in \
{parent_dir}, and parallel: 2 or more. \
Other keys: budget: 2h, target, seed, confirm_seeds, start (a list of configurations), timeout: 30min, \
retries, config, resources: {cpus: 1, gpus: 0}. Use no other keys. Parameters are named as the command \
takes them. Take names and numbers from the wish; what it does not say, choose with care."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A tune.yaml that could be run, and what it took to get it."""

    text: str
    declaration: TuneDeclaration
    replies: tuple[Reply, ...]


def drafted(wish: str, chat: Chat, *, file_name: str = "tune.yaml") -> Draft:
    """Ask for a tune.yaml that does what is wished.

    Raises:
        TuneError: No answer came, or none of three could be run.
    """
    if not wish.strip() or len(wish) > _LONGEST_WISH:
        raise TuneError(
            f"the wish has {len(wish.strip())} characters; say in a few sentences what is to be tuned, by "
            "which command and metric"
        )
    messages: list[tuple[str, str]] = [("system", _SYSTEM), ("user", wish)]
    replies: list[Reply] = []
    faults: Sequence[str] = ()
    for _ in range(_ANSWERS):
        reply = chat.ask(messages, digest_json([list(each) for each in messages]))
        replies.append(reply)
        if reply.error or reply.text is None:
            raise TuneError(
                f"the model gave no answer: {reply.error[:_LONGEST_FAULT]}; mend --endpoint or --model"
            )
        text = _bare(reply.text)
        declaration, faults = checked(text, file_name)
        if declaration is not None:
            return Draft(text=text, declaration=declaration, replies=tuple(replies))
        told = "\n".join(f"- {fault}" for fault in faults)
        messages += [
            ("assistant", reply.text[:_LONGEST]),
            ("user", f"This cannot be used:\n{told}\nAnswer with the corrected YAML document alone."),
        ]
    raise TuneError(
        f"none of {_ANSWERS} answers of the model can be run; the last one: {'; '.join(faults)}; say the "
        "wish more plainly, take another model, or write the file by hand"
    )


def checked(text: str, file_name: str) -> tuple[TuneDeclaration | None, tuple[str, ...]]:
    """The declaration in a text, or every reason why it cannot be run."""
    if len(text) > _LONGEST:
        return None, (f"it has {len(text)} characters; write at most {_LONGEST}",)
    odd = next((sign for sign in text if not sign.isprintable() and sign not in "\n\t"), None)
    if odd is not None:
        return None, (f"it holds the sign U+{ord(odd):04X}, which cannot be seen; write plain text",)
    try:
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / file_name
            path.write_text(text, encoding="utf-8")
            return _read(path), ()
    except DocumentError as error:
        found = [f"{fault.key}: {fault.problem}; {fault.remedy}" for fault in error.faults]
    except ModelyardError as error:
        found = [str(error)]
    return None, tuple(fault[:_LONGEST_FAULT] for fault in found[:_MOST_FAULTS])


def _read(path: Path) -> TuneDeclaration:
    faults = Faults(file=path.name)
    data = read_yaml_document(path, faults)
    faults.raise_if_any()
    keys = data if isinstance(data, dict) else {}
    for key in keys:
        if key not in _KEYS:
            faults.add(key, None, "is not for a model to decide", "leave it out; a person may add it")
    algorithm = keys.get("algorithm")
    if algorithm is not None and algorithm not in _ALGORITHMS:
        faults.add("algorithm", algorithm, "is not known", f"use one of {', '.join(_ALGORITHMS)}")
    faults.raise_if_any()
    declaration = read_tune(path)
    prepare(declaration, path.parent / "runs", environment={})
    return declaration


def _bare(text: str) -> str:
    """The document, out of thoughts before it and a fence around it."""
    bare = _THOUGHTS.sub("", text).strip()
    fenced = _FENCED.match(bare)
    return (fenced[1] if fenced else bare).strip() + "\n"
