"""The documentation is true: its commands run, its links lead somewhere, its drawings show what is there."""

from __future__ import annotations

import ast
import importlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from tests.docs import pages

from modelyard.cli.main import cli
from modelyard.evaluation.pool import read_pool
from modelyard.lifecycle.declaration import read_declaration
from modelyard.testing.slurm_cluster import why_not

ROOT = Path(__file__).resolve().parents[2]
RUN = (
    "README.md",
    "docs/tutorial.md",
    "docs/how-to.md",
    "docs/merging.md",
    "docs/heads.md",
    "docs/evaluating.md",
    "docs/routing.md",
    "docs/tuning.md",
    "docs/governing.md",
    "docs/gateway.md",
    "docs/slurm.md",
)
#: Where a reader looks for a command.
PAGES = ("tutorial", "how-to", "merging", "heads", "evaluating", "routing", "tuning", "governing", "gateway")
#: What CI runs on its own.
ELSEWHERE = ("make demo", "make test")
LIMIT_S = 600.0
ELPA_FIELDS = {"test_dataset"}
_TOLD_LINES = 30
_DEFINED = re.compile(r"^def (test_\w+)", re.MULTILINE)
#: A yard around a fragment of `models:`.
YARD = """
schema: modelyard.yard/1
name: fragment
horizon: 1
data: {truth: truth.csv, history: history.csv, dataset: train.csv, test_dataset: test.csv}
ensemble: {validation_until: 2024-01-01}
"""


class Shell:
    """Runs the commands of one page, one after another, as a person would in one terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place = folder
        self._started: list[subprocess.Popen[bytes]] = []
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        settings = {"PATH": programs, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self._environment = {**os.environ, **settings}

    def run(self, command: str) -> tuple[int, str]:
        """The exit status and what was printed; a `cd` holds for the next command."""
        place = self.folder / ".place"
        script = f'{command}\nstatus=$?\npwd > "{place}"\nexit $status'
        with tempfile.TemporaryFile() as printed:  # no pipe: what runs in the background may keep it open
            process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self._place,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._started.append(process)
            status = process.wait(timeout=LIMIT_S)
            printed.seek(0)
            text = printed.read().decode(errors="replace")
        if place.exists():
            self._place = Path(place.read_text().strip())
        return status, text

    def close(self) -> None:
        """Stop what a page left in the background."""
        for process in self._started:
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                continue


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A terminal in the test's folder."""
    opened = Shell(tmp_path)
    yield opened
    opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_the_commands_of_a_page_run(name: str, shell: Shell) -> None:
    if name == "docs/slurm.md" and (why := why_not()):
        pytest.skip(why)
    for block in pages.blocks((ROOT / name).read_text()):
        if block.path is not None:
            path = shell.folder / block.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body)
        elif block.language == "console" and not block.no_run:
            _follow(name, block, shell)


def _follow(name: str, block: pages.Block, shell: Shell) -> None:
    for command in pages.commands(block):
        if command.text.startswith(ELSEWHERE):
            continue
        status, printed = shell.run(command.text)
        place = f"{name}, line {command.line}: {command.text}"
        last = "\n".join(printed.splitlines()[-_TOLD_LINES:])
        assert status == command.status, f"{place}\nended with {status}, not {command.status}:\n{last}"
        missing = pages.not_printed(command.shown, printed)
        assert missing is None, f"{place}\ndid not print, after the lines before it: {missing}\nbut:\n{last}"


@pytest.mark.parametrize("path", pages.page_files(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    lost = []
    for link in pages.links(path.read_text()):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in pages.anchors(target.read_text())):
            lost.append(link)
    assert lost == []


def test_the_readme_draws_the_folders_that_exist() -> None:
    package = ROOT / "src" / "modelyard"
    there = {path.name for path in package.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert pages.drawn_folders((ROOT / "README.md").read_text(), "## The house", "src/modelyard/") == there


def test_the_reference_is_current() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "tests.docs.reference"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    assert (ROOT / "docs" / "reference.md").read_text() == made.stdout, "run `make docs`"


def _fragments() -> Iterator[tuple[str, str]]:
    for path in pages.page_files(ROOT):
        for block in pages.blocks(path.read_text()):
            if block.language == "yaml" and isinstance(yaml.safe_load(block.body), list):
                yield f"{path.name}:{block.line}", block.body


@pytest.mark.parametrize(("place", "body"), list(_fragments()))
def test_a_fragment_of_models_is_accepted(tmp_path: Path, place: str, body: str) -> None:
    models = [{**_complete(model), **model} for model in yaml.safe_load(body)]
    path = tmp_path / "yard.yaml"
    path.write_text(YARD + yaml.safe_dump({"models": models}))
    declared = read_declaration(path, tmp_path / "run")
    assert [member.name for member in declared.members] == [model["name"] for model in models], place


def _pools() -> Iterator[tuple[str, str]]:
    for path in pages.page_files(ROOT):
        for block in pages.blocks(path.read_text()):
            if (
                block.language == "yaml"
                and block.path is None
                and "pool" in (yaml.safe_load(block.body) or ())
            ):
                yield f"{path.name}:{block.line}", block.body


@pytest.mark.parametrize(("place", "body"), list(_pools()))
def test_a_fragment_of_a_pool_is_accepted(tmp_path: Path, place: str, body: str) -> None:
    document = yaml.safe_load(body)
    models = read_pool(document, path=tmp_path / "yard.yaml")
    assert [model.name for model in models] == [entry["name"] for entry in document["pool"]], place


def _complete(model: dict[str, object]) -> dict[str, object]:
    predictions = {"predictions": "{model_dir}/predictions.csv"}
    given = model.get("outputs")
    return {"predict": "true", "outputs": {**predictions, **(given if isinstance(given, dict) else {})}}


def _snippets() -> Iterator[tuple[str, str]]:
    for path in pages.page_files(ROOT):
        for block in pages.blocks(path.read_text()):
            if block.language == "python":
                yield f"{path.name}:{block.line}", block.body


@pytest.mark.parametrize(("place", "body"), list(_snippets()))
def test_a_python_block_names_what_exists(place: str, body: str) -> None:
    for node in ast.walk(ast.parse(body, filename=place)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modelyard"):
            module = importlib.import_module(str(node.module))
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert missing == [], place


@pytest.mark.parametrize("path", pages.page_files(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_tests_that_a_page_names_exist(path: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", path.read_text()))
    there = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in _DEFINED.findall(file.read_text())
    }
    assert named - there - ELPA_FIELDS == set()


def test_every_command_is_in_the_tutorial_or_the_recipes() -> None:
    text = "".join((ROOT / "docs" / f"{page}.md").read_text() for page in PAGES)
    run = [c.text for b in pages.blocks(text) if b.language == "console" for c in pages.commands(b)]
    names = cli.list_commands(click.Context(cli))
    assert [name for name in names if not any(f"modelyard {name}" in line for line in run)] == []
