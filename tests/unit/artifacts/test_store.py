"""The content store: whole or not at all, one artifact a content, and damage is found and healed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.artifacts.store import SCHEMA, ArtifactStore
from modelyard.core.digests import digest_path
from modelyard.core.errors import ArtifactError
from modelyard.core.failpoints import VARIABLE
from modelyard.core.files import read_json

names = st.from_regex(r"[a-z]{1,4}(/[a-z]{1,4}\.bin)?", fullmatch=True)


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"w" * 1000)
    (folder / "deep/config.json").write_text("{}")
    return folder


def litter(tmp_path):
    return [p.name for p in (tmp_path / "artifacts").iterdir() if p.name != "sha256"]


def test_a_file_comes_back(store, tmp_path):
    (tmp_path / "data.csv").write_text("a,b\n")
    artifact = store.put(tmp_path / "data.csv", kind="dataset", parents=("sha256:aa",))
    assert (artifact.kind, artifact.parents, artifact.size_bytes) == ("dataset", ("sha256:aa",), 4)
    assert artifact.digest == digest_path(tmp_path / "data.csv")
    assert store.path(artifact.digest, verify=True).read_text() == "a,b\n"
    assert store.describe(artifact.digest) == artifact
    assert litter(tmp_path) == []


def test_a_folder_comes_back(store, model):
    artifact = store.put(model, kind="checkpoint")
    assert artifact.size_bytes == 1002
    content = store.path(artifact.digest, verify=True)
    assert digest_path(content) == digest_path(model)
    assert (content / "deep/config.json").read_text() == "{}"


@settings(max_examples=40)
@given(st.dictionaries(names, st.binary(max_size=20), min_size=1, max_size=4))
def test_whatever_is_put_comes_back(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("put")
    for name, data in files.items():
        path = root / "in" / name
        if path.parent.is_file() or path.is_dir():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    store = ArtifactStore(root / "artifacts")
    artifact = store.put(root / "in", kind="dataset")
    assert digest_path(store.path(artifact.digest, verify=True)) == artifact.digest


def test_the_store_keeps_a_copy_of_its_own(store, model):
    artifact = store.put(model, kind="checkpoint")
    (model / "weights.bin").write_bytes(b"changed")
    assert (store.path(artifact.digest, verify=True) / "weights.bin").read_bytes() == b"w" * 1000


def test_the_same_content_is_one_artifact(store, model, tmp_path):
    one = store.put(model, kind="checkpoint")
    shutil.copytree(model, tmp_path / "elsewhere")
    other = store.put(tmp_path / "elsewhere", kind="checkpoint")
    assert other == one
    assert len(list((tmp_path / "artifacts").rglob("artifact.json"))) == 1


def test_its_record_carries_a_schema(store, model):
    artifact = store.put(model, kind="checkpoint", parents=["sha256:aa"])
    record = read_json(store.path(artifact.digest).with_name("artifact.json"))
    assert record.pop("schema") == SCHEMA
    assert record == {**dataclasses.asdict(artifact), "parents": ["sha256:aa"]}


def test_what_is_not_there_says_what_to_do(store):
    for ask in (store.path, store.describe):
        with pytest.raises(ArtifactError, match="run the step that makes it again"):
            ask("sha256:" + "0" * 64)


def test_damage_is_found_when_asked_for_and_healed_by_storing_again(store, model, tmp_path):
    """The message says: run the step that makes it again. So that must help."""
    artifact = store.put(model, kind="checkpoint")
    (store.path(artifact.digest) / "weights.bin").write_bytes(b"rotten")
    store.path(artifact.digest)
    with pytest.raises(ArtifactError, match="was changed on disk"):
        store.path(artifact.digest, verify=True)
    store.put(model, kind="checkpoint")
    store.path(artifact.digest, verify=True)
    assert litter(tmp_path) == []


def test_what_cannot_be_read_is_an_artifact_error(store, tmp_path):
    with pytest.raises(ArtifactError, match="cannot be stored"):
        store.put(tmp_path / "none", kind="dataset")


def test_what_cannot_be_written_is_an_artifact_error(model, tmp_path):
    (tmp_path / "artifacts").write_text("a file where the store should be")
    with pytest.raises(ArtifactError, match="cannot be stored"):
        ArtifactStore(tmp_path / "artifacts").put(model, kind="checkpoint")


def test_content_that_changes_meanwhile_is_refused(store, tmp_path):
    """A pipe gives its bytes once: what is copied is not what was digested."""
    folder = tmp_path / "moving"
    folder.mkdir()
    (folder / "log").write_text("x")
    stop = threading.Event()

    def grow():
        while not stop.is_set():
            with (folder / "log").open("a") as log:
                log.write("x" * 1000)

    writer = threading.Thread(target=grow)
    writer.start()
    refused = 0
    try:
        for _ in range(200):
            try:
                store.put(folder, kind="dataset")
            except ArtifactError as error:
                assert "changed while it was stored" in str(error)
                refused += 1
                break
    finally:
        stop.set()
        writer.join()
    assert refused
    assert litter(tmp_path) == []


def test_two_that_store_the_same_at_once_both_succeed(store, model):
    results = []

    def put():
        results.append(store.put(model, kind="checkpoint"))

    for _ in range(10):
        results.clear()
        shutil.rmtree(store._root, ignore_errors=True)
        threads = [threading.Thread(target=put) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 4
        store.path(results[0].digest, verify=True)


def test_a_death_before_the_rename_leaves_nothing_that_counts(store, model):
    code = (
        "import sys; from pathlib import Path; from modelyard.artifacts.store import ArtifactStore\n"
        "ArtifactStore(Path(sys.argv[1])).put(Path(sys.argv[2]), kind='checkpoint')"
    )
    command = [sys.executable, "-c", code, str(store._root), str(model)]
    environment = {**os.environ, VARIABLE: "artifacts.before_rename"}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    with pytest.raises(ArtifactError):
        store.path(digest_path(model))
    store.put(model, kind="checkpoint")
    store.path(digest_path(model), verify=True)
