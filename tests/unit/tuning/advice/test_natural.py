"""A tune.yaml from a wish: only one that could be run counts, and nothing is run or decided for a person."""

from __future__ import annotations

import json
from contextlib import ExitStack
from importlib.metadata import entry_points
from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from modelyard.cli.tune.ask import command
from modelyard.core.errors import DocumentError, TuneError
from modelyard.testing.openai_server import fake_server
from modelyard.tuning.advice.chat import Chat, ChatSettings
from modelyard.tuning.advice.natural import checked, drafted
from modelyard.tuning.document import read_tune

WISH = "tune lr and batch size of train.py, validation loss, 30 trials"
GOOD = """\
name: train
command: "{python} train.py {params}"
metric: {name: val_loss, direction: minimize}
space:
  lr: {low: 1e-5, high: 1e-1, default: 1e-3}
  batch_size: {choices: [16, 32, 64]}
algorithm: tpe
trials: 30
"""
NOWHERE = "http://127.0.0.1:9/v1"  # nothing listens there


@pytest.fixture
def serve(tmp_path):
    """Starts a server that answers by a script."""
    with ExitStack() as stack:

        def start(*answers, options=()):
            script = tmp_path / "script.json"
            script.write_text(json.dumps(answers))
            return stack.enter_context(
                fake_server(tmp_path / "log.jsonl", "--answers", str(script), *options)
            )

        yield start


def chat(endpoint, **fields):
    return Chat(ChatSettings(endpoint=endpoint, model="adder", **fields), {})


def faults(text, name="tune.yaml"):
    declaration, found = checked(text, name)
    assert declaration is None and found
    return " | ".join(found)


@pytest.mark.parametrize(
    "text",
    [
        GOOD, f"```yaml\n{GOOD}```", f"```\n{GOOD}\n```", f"\n\n{GOOD}\n\n",
        f"<think>lr: {{low: 5}}</think>\n{GOOD}",
    ],
)  # fmt: skip
def test_what_the_model_writes_is_a_search(serve, text):
    server = serve(text)
    draft = drafted(WISH, chat(server.endpoint))
    assert draft.text == GOOD and draft.declaration.limits.trials == 30
    assert [each.name for each in draft.declaration.space.parameters] == ["lr", "batch_size"]
    (request,) = server.requests()
    messages = request["body"]["messages"]
    assert messages[1] == {"role": "user", "content": WISH} and "hyperparameter" in messages[0]["content"]


def test_faults_are_told_back_twice_at_most(serve):
    broken, worse = GOOD.replace("low: 1e-5, ", ""), GOOD.replace("metric", "metrics")
    server = serve(broken, worse, GOOD)
    draft = drafted(WISH, chat(server.endpoint))
    assert draft.text == GOOD and len(draft.replies) == 3
    first, second = (request["body"]["messages"] for request in server.requests()[1:])
    assert [each["role"] for each in second] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "space.lr.low" in first[-1]["content"] and "metrics" in second[-1]["content"]
    assert len({request["key"] for request in server.requests()}) == 3


def test_three_answers_that_cannot_be_run_are_the_end(serve):
    server = serve("I am sorry, but", "name: one", GOOD.replace("tpe", "asha"), GOOD)
    with pytest.raises(TuneError, match=r"none of 3 answers .* asha: .*rungs"):
        drafted(WISH, chat(server.endpoint))
    assert len(server.requests()) == 3


def test_a_server_that_fails_is_told(serve):
    with pytest.raises(TuneError, match=r"gave no answer: ConnectError.*--endpoint"):
        drafted(WISH, chat(NOWHERE))
    with pytest.raises(TuneError, match="Timeout"):
        drafted(WISH, chat(serve({"delay_s": 30}).endpoint, timeout_s=1.0))
    for wish in (" ", "x" * 5000):
        with pytest.raises(TuneError, match="the wish has"):
            drafted(wish, chat(NOWHERE))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (GOOD + "shell: true\n", "shell: is not for a model to decide"),
        (GOOD + "env: {PATH: /tmp}\n", "env: is not for a model"), (GOOD + "secrets: [AWS_KEY]\n", "secrets"),
        (GOOD + "storage: postgresql://evil/x\n", "storage"), (GOOD + "image: evil/image\n", "image"),
        (GOOD + "cwd: /\n", "cwd"), (GOOD + "inputs: [/etc/passwd]\n", "inputs"),
        (GOOD + "python: /tmp/p\n", "python"),
        (GOOD.replace("tpe", "llm") + "options: {endpoint: 'http://evil/v1', model: m, api_key_env: K}\n",
         "algorithm: is not known"),
        (GOOD.replace("tpe", "hybrid"), "algorithm: is not known"),
        (GOOD.replace("tpe", "magic"), "algorithm"),
        (GOOD.replace("tpe", "[tpe]"), "algorithm"),
        (GOOD.replace("low: 1e-5", "low: .nan"), "space.lr.low: is not finite"),
        (GOOD.replace("high: 1e-1", "high: .inf"), "space.lr.high: is not finite"),
        (GOOD.replace("1e-3", "5"), "space.lr.default"),
        (GOOD + "options: {magic: 1}\n", "magic: is an unknown key"),
        (GOOD.replace("{params}", "--lr {lr}"), "command: does not use batch_size"),
        (GOOD * 2, "stands twice"),
        ("Here is your file:\n" + GOOD, ""), ("", ""), ("- 1\n", ""), ("a: &a [*a]\n", ""),
        ("x" * 50_000, "50000 characters"),
        (GOOD.replace("train.py", "train\u202e.py"), "U+202E"),
        (GOOD.replace("train.py", "train\x1b[2J.py"), "U+001B"),
        ("".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 1}]\n" for i in range(12)), ""),
        ("!!python/object/apply:os.system ['touch /tmp/x']\n", ""),
        (GOOD.replace("name: train", "name: ../../x"), "name"),
    ],
)  # fmt: skip
def test_what_could_not_be_run_or_is_not_a_models_to_decide_is_refused(text, word):
    told = faults(text)
    assert word in told and len(told) < 5000 and "/tmp/tmp" not in told


_RUNGS = "rungs: {low: 1, high: 27, eta: 3"
_MORE = {
    **dict.fromkeys(("asha", "hyperband", "hyperband_es", "bohb", "dehb"), _RUNGS + "}\n"),
    "pbt": _RUNGS + ", promote: true}\nparallel: 4\n",
}  # fmt: skip


def test_every_algorithm_that_asks_nobody_may_be_chosen():
    """`botorch` is an engine of `bayesian`."""
    algorithms = {entry.name for entry in entry_points(group="modelyard.tuners")}
    assert {"llm", "hybrid"} < algorithms
    for name in algorithms - {"llm", "hybrid", "autoresearch", "botorch"}:
        if name == "bfbo" and find_spec("botorch") is None:
            continue
        text = GOOD.replace("tpe", name) + _MORE.get(name, "")
        if name == "pbt":
            text = text.replace("{params}", "{params} --from {parent_dir} --to {budget}")
        declaration, found = checked(text, "tune.yaml")
        assert declaration is not None and declaration.algorithm == name, (name, found)


def test_checking_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    declaration, found = checked(GOOD, "tune.yaml")
    assert found == () and declaration is not None and list(tmp_path.iterdir()) == []


# -- the command ---------------------------------------------------------------------------------------


@pytest.fixture
def ask(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words, **told):
        return CliRunner().invoke(command, [WISH, "--model", "adder", *map(str, words)], **told)

    return run


def test_it_is_shown_before_it_is_written(serve, ask, tmp_path):
    server = serve(GOOD)
    result = ask("--endpoint", server.endpoint, "--out", "my.yaml", input="n\n")
    assert result.exit_code == 1 and result.stdout.startswith(GOOD)
    assert "each trial will run: {python} train.py {params}" in result.stderr
    assert "write my.yaml?" in result.stderr and not (tmp_path / "my.yaml").exists()
    result = ask("--endpoint", server.endpoint, "--out", "my.yaml", input="y\n")
    assert result.exit_code == 0 and (tmp_path / "my.yaml").read_text() == GOOD
    assert read_tune(tmp_path / "my.yaml").algorithm == "tpe"


def test_a_file_that_is_there_is_not_replaced(serve, ask, tmp_path):
    server = serve(GOOD)
    (tmp_path / "tune.yaml").write_text("mine")
    result = ask("--endpoint", server.endpoint, "--yes")
    assert result.exit_code == 2 and "--force" in result.stderr and server.requests() == []
    assert ask("--endpoint", server.endpoint, "--yes", "--force").exit_code == 0
    assert (tmp_path / "tune.yaml").read_text() == GOOD


def test_the_key_is_taken_from_the_variable(serve, ask, tmp_path):
    server = serve(GOOD, options=["--api-key", "sk-RIGHT"])
    words = ("--endpoint", server.endpoint, "--yes", "--api-key-env", "MY_KEY")
    assert isinstance(ask(*words, env={"MY_KEY": None}).exception, TuneError)
    assert isinstance(ask(*words[:-1], "sk-RIGHT").exception, DocumentError)
    result = ask(*words, env={"MY_KEY": "sk-RIGHT"})
    assert result.exit_code == 0 and "sk-RIGHT" not in result.output + (tmp_path / "tune.yaml").read_text()


def test_what_cannot_be_asked_writes_nothing(ask, tmp_path):
    for endpoint, error in ((NOWHERE, TuneError), ("nowhere", DocumentError)):
        assert isinstance(ask("--endpoint", endpoint, "--yes").exception, error)
    assert list(tmp_path.iterdir()) == []
