"""The keeper: outputs of steps that succeeded become artifacts with their lineage, once."""

from __future__ import annotations

import pytest

from modelyard.artifacts.store import ArtifactStore
from modelyard.jobs.step import Output
from modelyard.runs.keeper import ArtifactKeeper


@pytest.fixture
def chain(make_run, make_step, tmp_path):
    """data -> model, and a table that waits softly for the model."""
    data, model, table = (tmp_path / name for name in ("data.csv", "model.bin", "table"))
    return make_run(
        make_step("prepare", f"echo rows > {data}", outputs=(Output(path=str(data), kind="dataset"),)),
        make_step(
            "train",
            f"cat {data} version > {model}",
            inputs=(str(data),),
            outputs=(Output(path=str(model), kind="model"),),
        ),
        make_step(
            "predict",
            f"mkdir -p {table}; cat {model} > {table}/part",
            after=("train",),
            outputs=(Output(path=str(table), kind="predictions.online"),),
        ),
    )


def stored(yard):
    return [e.data for e in yard.journal.read() if e.kind == "artifact.stored"]


def run(yard, carry_out, chain):
    return carry_out(chain, observers=(ArtifactKeeper(yard, "night"),))


def test_outputs_are_stored_with_kind_and_parents(yard, carry_out, chain, tmp_path):
    (tmp_path / "version").write_text("1")
    run(yard, carry_out, chain)
    data, model, table = stored(yard)
    assert [d["kind"] for d in (data, model, table)] == ["dataset", "checkpoint", "predictions"]
    assert [d["step"] for d in (data, model, table)] == ["prepare", "train", "predict"]
    assert data["parents"] == []
    assert model["parents"] == [data["digest"]]
    assert table["parents"] == [model["digest"]]
    store = ArtifactStore(yard.artifacts_dir)
    assert store.path(model["digest"], verify=True).read_text() == "rows\n1"
    assert model["size_bytes"] == 6


def test_a_second_invocation_stores_nothing_anew(yard, carry_out, chain, tmp_path):
    (tmp_path / "version").write_text("1")
    run(yard, carry_out, chain)
    before = stored(yard)
    run(yard, carry_out, chain)
    assert stored(yard) == before


def test_a_newer_attempt_takes_the_place_of_the_older_in_the_lineage(yard, carry_out, chain, tmp_path):
    (tmp_path / "version").write_text("1")
    run(yard, carry_out, chain)
    for number, name in (("2", "model.bin"), ("3", "table/part")):
        (tmp_path / "version").write_text(number)
        (tmp_path / name).unlink()
        run(yard, carry_out, chain)  # each time a new keeper, which reads the journal
    last_model = [d for d in stored(yard) if d["step"] == "train"][-1]
    last_table = [d for d in stored(yard) if d["step"] == "predict"][-1]
    assert last_table["attempt"] == 3
    assert last_table["parents"] == [last_model["digest"]]


def test_what_failed_leaves_nothing(yard, carry_out, make_run, make_step, tmp_path):
    path = tmp_path / "half"
    directory = make_run(make_step("a", f"echo x > {path}; exit 1", outputs=(Output(path=str(path)),)))
    run(yard, carry_out, directory)
    assert stored(yard) == []
