"""Fixtures that several rooms' tests share: steps, settings, and waiting for what other processes do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tests import postgres

from modelyard.jobs.backend import Backend, BackendSettings
from modelyard.jobs.backends.local import LocalBackend
from modelyard.jobs.step import Step
from modelyard.runs.yard import Yard, open_yard

#: Far more than anything here takes; a test that reaches it has failed.
DEADLINE_S = 30.0

# The machine may be busy: how long an example takes says nothing.
settings.register_profile(
    "house", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")


@pytest.fixture
def make_step(tmp_path: Path) -> Callable[..., Step]:
    """A step of one shell script (or of `argv`) that runs in the test's folder."""

    def make(name: str = "train/one", script: str = "true", **fields: Any) -> Step:
        command = {} if "argv" in fields else {"argv": (script,), "shell": True}
        return Step(**{"name": name, "cwd": str(tmp_path), **command, **fields})

    return make


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """A new yard."""
    return open_yard(tmp_path / "yard", create=True)


@pytest.fixture
def open_local(tmp_path: Path) -> Iterator[Callable[..., LocalBackend]]:
    """Opens local backends over one folder of jobs, as processes that come one after another would."""
    opened: list[LocalBackend] = []

    def open_one(**settings: Any) -> LocalBackend:
        given = {"jobs_dir": tmp_path / "jobs", "environment": dict(os.environ), "slots": 2, "grace_s": 0.5}
        backend = LocalBackend(BackendSettings(**{**given, **settings}))
        opened.append(backend)
        return backend

    yield open_one
    jobs = [str(folder) for folder in (tmp_path / "jobs").glob("*") if (folder / "claim").exists()]
    if opened and jobs:
        settle(opened[-1], jobs, cancel=True)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Any]], Any]:
    """Waits for a condition and gives what it gave; fails when it never holds."""
    return _wait_until


def _wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


def settle(backend: Backend, native_ids: list[str], *, cancel: bool) -> dict[str, Any]:
    """The final reports of jobs."""
    if cancel:
        backend.cancel(native_ids)

    def final() -> dict[str, Any] | None:
        reports = backend.poll(native_ids)
        if all(report.state.final for report in reports.values()):
            return reports
        backend.wait(0.02)
        return None

    return dict(_wait_until(final))


@pytest.fixture
def ended() -> Callable[..., Any]:
    """Waits for one job's end and gives its report."""

    def end(backend: Backend, native_id: str, *, cancel: bool = False) -> Any:
        return settle(backend, [native_id], cancel=cancel)[native_id]

    return end


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights and a vocabulary of words, made by transformers."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "A", "B", "C", "one", "two", "three", "is", "the", "?"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<unk>").save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """An empty PostgreSQL database: that of MODELYARD_TEST_POSTGRES, or of a server started here."""
    given = os.environ.get("MODELYARD_TEST_POSTGRES")
    if given:
        yield given
        return
    with postgres.server() as url:
        if url is None:
            pytest.skip("no PostgreSQL here (pg_ctl); install it, or set MODELYARD_TEST_POSTGRES to a URL")
        yield url


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is there (MODELYARD_NO_SKIPS, set by CI), a skipped test fails the session.

    Skips that begin with `peer:` are expected: software of others and data that no extra of ours installs.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    stats = reporter.stats.get("skipped", []) if reporter is not None else []
    skipped = [report for report in stats if "peer:" not in str(report.longrepr)]
    if os.environ.get("MODELYARD_NO_SKIPS") and skipped:
        reporter.write_line(f"{len(skipped)} tests were skipped where none may be", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
