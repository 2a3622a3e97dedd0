"""Three real small language models behind the gateway, asked by OpenAI's own client.

    python benchmarks/gateway_real.py DIR [--questions 80] [--json out.json]

DIR has the three GGUF files that `routing_real_models.py` makes; each is served by xllamacpp (llama.cpp), one
thread each. They are evaluated on one half of made and looked-up questions, a router is fitted, `modelyard
serve` is started over them, and the `openai` client asks the other half as `auto` and by each name. Besides:
streams give what whole answers give, JSON mode gives JSON, tools and errors come through. Needs what
`routing_real.py` needs, and openai.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai

import routing_real
from routing_real import MODELS, PRICES, SEED, free_port, questions, told

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}},
    },
}


def pool(ports: dict[str, int]) -> list[dict[str, Any]]:
    """All three chat."""
    options = {"temperature": 0, "max_tokens": 32, "seed": SEED}
    return [
        {
            "name": name, "endpoint": f"http://127.0.0.1:{port}/v1", "parallel": 2, "options": options,
            "price": {"prompt_usd_per_million": PRICES[name], "completion_usd_per_million": 4 * PRICES[name]},
        }
        for name, port in ports.items()
    ]  # fmt: skip


@contextmanager
def served(folder: Path, name: str) -> Iterator[int]:
    """A model behind llama.cpp's server; its port."""
    port = free_port()
    argv = [sys.executable, routing_real.__file__, "--serve", str(folder / f"{name}.gguf"), str(port)]
    with (
        (folder / f"{name}.log").open("wb") as log,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        try:
            yield port
        finally:
            process.stdin.close()
            process.wait()


@contextmanager
def gateway(work: Path) -> Iterator[str]:
    """A running gateway; its address."""
    argv = [sys.executable, "-m", "modelyard.cli.main", "serve", "yard.yaml", "--router", "router"]
    argv += ["--port", "0", "--json"]
    with subprocess.Popen(argv, cwd=work, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.terminate()
            process.wait()


async def ask_half(client: openai.AsyncOpenAI, model: str, asked: list[dict[str, Any]]) -> dict[str, Any]:
    """Every question once, four at a time; how many answers hold what is right, and who gave them."""
    slots, by = asyncio.Semaphore(4), Counter[str]()
    begun, cost, right = time.monotonic(), 0.0, 0

    async def ask(question: dict[str, Any]) -> None:
        nonlocal cost, right
        async with slots:
            got = await client.chat.completions.with_raw_response.create(
                model=model, messages=[{"role": "user", "content": question["prompt"]}], temperature=0,
                max_tokens=32, seed=SEED,
            )  # fmt: skip
        text = got.parse().choices[0].message.content or ""
        by[got.headers["x-modelyard-model"]] += 1
        cost += float(got.headers["x-modelyard-cost-usd"])
        right += any(answer.lower() in text.lower() for answer in question["answers"])

    await asyncio.gather(*(ask(question) for question in asked))
    return {
        "asked": model, "questions": len(asked), "right": right, "by": dict(by), "usd": cost,
        "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip


def through_the_client(client: openai.OpenAI) -> dict[str, Any]:
    """What a client does besides asking."""
    said: dict[str, Any] = {"models": [model.id for model in client.models.list()]}
    plain: Any = {
        "messages": [{"role": "user", "content": "Name three colours."}],
        "temperature": 0,
        "max_tokens": 24,
        "seed": SEED,
    }
    whole = client.chat.completions.create(model="smollm", **plain)
    stream = client.chat.completions.create(
        model="smollm", stream=True, stream_options={"include_usage": True}, **plain
    )
    parts = list(stream)
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    said["a stream gives what a whole answer gives"] = text == whole.choices[0].message.content
    said["usage of both"] = [
        whole.usage and whole.usage.total_tokens,
        parts[-1].usage and parts[-1].usage.total_tokens,
    ]
    in_json = client.chat.completions.create(
        model="smollm", response_format={"type": "json_object"}, max_tokens=64, temperature=0,
        messages=[{"role": "user", "content": "Give a JSON object with the keys name and age."}],
    )  # fmt: skip
    said["JSON mode"] = json.loads(in_json.choices[0].message.content or "")
    called = client.chat.completions.create(
        model="smollm", tools=[TOOL], tool_choice="required", max_tokens=64, temperature=0,  # type: ignore[list-item]
        messages=[{"role": "user", "content": "Add 3 and 4."}],
    )  # fmt: skip
    calls = called.choices[0].message.tool_calls or []
    said["tool"] = [f"{call.function.name}({call.function.arguments})" for call in calls]  # type: ignore[union-attr]
    try:
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "?"}])
    except openai.NotFoundError as error:
        said["an unknown model"] = str(error)
    return said


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Everything, in a folder of its own."""
    work = folder / "gateway"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    asked = questions()
    fit, report = ([each for each in asked if (each["split"] == "fit") is wanted] for wanted in (True, False))
    fit, report = fit[:: max(1, len(fit) // count)], report[:: max(1, len(report) // count)]
    (work / "set.jsonl").write_text("".join(json.dumps(each) + "\n" for each in fit))
    with ExitStack() as stack:
        ports = {name: stack.enter_context(served(folder, name)) for name in MODELS}
        (work / "yard.yaml").write_text(json.dumps({"name": "real", "pool": pool(ports)}))
        told(work, "evaluate", "yard.yaml", "--set", "set.jsonl", "--output", "fit")
        told(work, "router", "fit", "--results", "fit", "--output", "router")
        address = stack.enter_context(gateway(work))
        record: dict[str, Any] = {"client": openai.__version__}
        record |= through_the_client(openai.OpenAI(base_url=address, api_key="none", max_retries=0))
        rows = []
        for model in ("auto", *MODELS):
            client = openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0)
            rows.append(asyncio.run(ask_half(client, model, report)))
        record["rows"] = rows
        time.sleep(2)
        record["usage"] = told(work, "usage", "--by", "model")
    return record


def main() -> None:
    """Print the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=80)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    record = measure(given.folder, given.questions)
    if given.json:
        given.json.write_text(json.dumps(record, indent=1))
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
