"""Files of metrics while jobs write them: read on, cut short, moved, written anew; and all places at once."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import TuneError
from modelyard.tuning.metrics.curves import MetricRules, Reading
from modelyard.tuning.metrics.event_files import EventFolder
from modelyard.tuning.metrics.files import FollowedFile, MetricSources, Places, RecordReader, StatusReader

LOSS = MetricRules(names=("loss",))


def told(readings: list[Reading]) -> list[tuple]:
    return [(reading.step, reading.value) for reading in readings]


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


# -- files that are followed ---------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def test_a_file_is_read_on_from_where_it_was_left(log):
    followed = FollowedFile(log, chunk_bytes=4)
    assert list(followed.chunks()) == []
    log.write_bytes(b"0123456789")
    assert list(followed.chunks()) == [b"0123", b"4567", b"89"]
    assert list(followed.chunks()) == []
    with log.open("ab") as file:
        file.write(b"ab")
    assert list(followed.chunks()) == [b"ab"]
    assert followed.notes == []


def test_a_file_that_is_cut_short_is_read_again(log):
    followed = FollowedFile(log)
    log.write_bytes(b"one\ntwo\nhal")
    assert list(followed.chunks()) == [b"one\ntwo\nhal"]
    log.write_bytes(b"new\n")
    assert list(followed.chunks()) == [None, b"new\n"]
    assert followed.notes == [
        f"{log}: was written anew after 11 bytes; what it said before is kept, and it was read again from "
        "its start"
    ]


def test_a_file_that_is_cut_and_has_grown_beyond_is_noticed_too(log):
    followed = FollowedFile(log)
    log.write_bytes(b"one\n")
    list(followed.chunks())
    log.write_bytes(b"a longer text than before\n")
    assert list(followed.chunks()) == [None, b"a longer text than before\n"]


def test_the_rest_of_a_file_that_was_moved_is_read_before_the_new_one(log):
    followed = FollowedFile(log)
    log.write_bytes(b"one\n")
    list(followed.chunks())
    with log.open("ab") as file:
        file.write(b"two\n")
    log.rename(log.with_name("log.jsonl.1"))
    assert list(followed.chunks()) == []  # nothing stands there
    log.write_bytes(b"three\n")
    assert list(followed.chunks()) == [b"two\n", None, b"three\n"]
    assert followed.notes == [f"{log}: was moved to log.jsonl.1; both were read"]
    assert list(followed.chunks()) == []


def test_a_file_that_is_replaced_by_a_longer_copy_goes_on(log):
    followed = FollowedFile(log)
    log.write_bytes(b"one\n")
    list(followed.chunks())
    other = log.with_name("other")
    other.write_bytes(b"one\ntwo\n")
    other.replace(log)
    assert list(followed.chunks()) == [b"two\n"]
    assert followed.notes == []


def test_what_cannot_be_read_is_noted_once(tmp_path):
    followed = FollowedFile(tmp_path)
    assert list(followed.chunks()) == list(followed.chunks()) == []
    assert followed.notes == [f"{tmp_path}: cannot be read (Is a directory); its metrics are missing"]


@given(st.lists(st.tuples(st.binary(max_size=30), st.booleans()), max_size=6))
def test_whatever_is_appended_and_however_often_it_is_looked_at_all_is_read(tmp_path_factory, writes):
    log = tmp_path_factory.mktemp("followed") / "log"
    followed, found = FollowedFile(log, chunk_bytes=7), []
    for data, look in writes:
        with log.open("ab") as file:
            file.write(data)
        found += list(followed.chunks()) if look else []
    found += list(followed.chunks())
    assert b"".join(found) == b"".join(data for data, _ in writes)


# -- JSON lines ----------------------------------------------------------------------------------------


def test_records_are_read_line_by_line_and_only_whole_ones():
    reader = RecordReader(LOSS)
    data = lines({"step": 1, "loss": 0.5}, {"note": "loss: 9"}, [1], {"step": 2, "loss": math.nan})
    found = reader.feed(data + b"loss: 7\n{broken\n\n" + lines({"step": 3, "loss": 0.25})[:-3])
    assert repr(told(found)) == "[(1, 0.5), (2, nan)]"
    assert told(reader.feed(b"5}\n")) == [(3, 0.25)]


@pytest.mark.parametrize(("ended_well", "wanted"), [(True, [(1, 1.0)]), (False, [])])
def test_a_last_record_without_its_end_counts_only_if_the_program_ended_well(ended_well, wanted):
    reader = RecordReader(LOSS)
    assert reader.feed(b'{"step": 1, "loss": 1}') == []
    assert told(reader.finish(ended_well=ended_well)) == wanted


def test_a_record_nested_beyond_all_measure_is_passed_over():
    data = b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n"
    assert RecordReader(LOSS).feed(data) == []


# -- TAO's status.json ---------------------------------------------------------------------------------


def eval_line(value: float) -> dict[str, object]:
    """What TAO's modules write after a validation: numbers may be strings, and there is no epoch."""
    return {
        "date": "5/7/2026",
        "status": "RUNNING",
        "message": "Eval metrics generated.",
        "kpi": {"val_mAP": str(value)},
    }


def train_line(value: float) -> dict[str, object]:
    return {"status": "RUNNING", "message": "Train metrics generated.", "kpi": {"train_loss": value}}


def epoch_line(epoch: int, kpi: object) -> dict[str, object]:
    """What TAO's callback writes at an epoch's end: it repeats the last values."""
    return {
        "epoch": epoch,
        "max_epoch": 9,
        "eta": "0:00:01",
        "message": "Training loop in progress",
        "kpi": kpi,
    }


def status(metric: str, *records: dict[str, object]) -> list[tuple]:
    reader = StatusReader(MetricRules(names=(metric,)))
    return told(reader.feed(lines(*records)) + reader.finish(ended_well=True))


def run_of_tao(*, validations: dict[int, float], losses: dict[int, float]) -> list[dict[str, object]]:
    records: list[dict[str, object]] = [{"status": "STARTED", "message": "Starting Training Loop."}]
    kpi: object = {}
    for epoch in sorted(losses):
        if epoch in validations:
            records.append(eval_line(validations[epoch]))
            kpi = records[-1]["kpi"]
        records += [epoch_line(epoch, kpi), train_line(losses[epoch])]
        kpi = records[-1]["kpi"]
    return [*records, {"status": "RUNNING", "message": "Training loop complete.", "kpi": kpi}]


def test_values_of_tao_stand_at_their_epochs_and_repetitions_count_for_nothing():
    records = run_of_tao(validations={2: 0.5, 4: 0.5}, losses={1: 3.0, 2: 2.0, 3: 2.0, 4: 1.0})
    assert status("val_mAP", *records) == [(2, 0.5), (4, 0.5)]
    assert status("train_loss", *records) == [(1, 3.0), (2, 2.0), (3, 2.0), (4, 1.0)]
    assert status("val_loss", *records) == []


def test_an_epoch_and_its_values_on_one_line():
    assert status(
        "val/loss", {"epoch": 3, "kpi": {"val_loss": 0.5}}, {"epoch": 4, "kpi": {"val_loss": 0.4}}
    ) == [
        (3, 0.5),
        (4, 0.4),
    ]


def test_values_without_any_epoch_count_up():
    assert status("val_mAP", eval_line(0.5), eval_line(0.5), eval_line(0.6)) == [
        (None, 0.5),
        (None, 0.5),
        (None, 0.6),
    ]
    repeated = {"message": "Train finished successfully.", "kpi": eval_line(0.5)["kpi"]}
    assert status("val_mAP", eval_line(0.5), repeated, repeated) == [(None, 0.5)]


def test_a_kpi_that_is_a_number_is_no_collection_of_values():
    assert status("kpi", {"epoch": 1, "kpi": 99}) == []


STATUS = lines(*run_of_tao(validations={1: 0.1, 3: math.nan}, losses={1: 3.0, 2: 2.0, 3: 1.0}))


@given(st.lists(st.integers(0, len(STATUS)), max_size=10), st.sampled_from([RecordReader, StatusReader]))
def test_however_a_file_is_cut_the_readings_are_the_same(cuts, reads):
    rules = MetricRules(names=("val_mAP", "train_loss"))
    reader, found = reads(rules), []
    for start, end in pairwise([0, *sorted(cuts), len(STATUS)]):
        found += reader.feed(STATUS[start:end])
    whole = reads(rules)
    wanted = whole.feed(STATUS) + whole.finish(ended_well=True)
    assert repr(found + reader.finish(ended_well=True)) == repr(wanted)


# -- TensorBoard ---------------------------------------------------------------------------------------


@pytest.fixture
def board() -> Callable[..., None]:
    """Writes scalars as a training script would, by torch's own writer."""
    tensorboard = pytest.importorskip("torch.utils.tensorboard")

    def write(folder: Path, *scalars: tuple[str, int, float], suffix: str = "") -> None:
        with tensorboard.SummaryWriter(str(folder), filename_suffix=suffix) as writer:
            for tag, step, value in scalars:
                writer.add_scalar(tag, value, step)
            writer.add_text("loss", "no number")
            writer.add_histogram("loss", np.array([1.0, 2.0]), 1)

    return write


def event_file(folder: Path) -> Path:
    (path,) = folder.rglob("*tfevents*")
    return path


def test_scalars_are_read_with_their_steps(tmp_path, board):
    board(tmp_path / "run", ("val/loss", 1, 0.5), ("val/loss", 7, math.nan), ("loss", 7, 0.25))
    events = EventFolder(tmp_path, MetricRules(names=("val_loss", "loss")))
    found = events.poll()
    assert (
        repr([(r.name, r.step, r.value) for r in found])
        == "[('val_loss', 1, 0.5), ('val_loss', 7, nan), ('loss', 7, 0.25)]"
    )
    assert events.poll() == []
    assert events.notes == ()


def test_texts_and_histograms_are_no_values(tmp_path, board):
    board(tmp_path)
    assert EventFolder(tmp_path, MetricRules(names=("loss", "loss/text_summary"))).poll() == []


def test_no_folder_and_no_files_are_no_fault(tmp_path):
    assert EventFolder(tmp_path / "none", LOSS).poll() == []
    assert EventFolder(tmp_path, LOSS).poll() == []


def test_event_files_are_read_while_they_grow_whatever_is_half_written(tmp_path, board):
    board(tmp_path / "whole", *(("loss", step, step / 8) for step in range(1, 9)))
    data = event_file(tmp_path / "whole").read_bytes()
    target = tmp_path / "run" / "events.out.tfevents.1"
    target.parent.mkdir()
    events, found = EventFolder(target.parent, LOSS), []
    for start in range(0, len(data), 37):
        with target.open("ab") as file:
            file.write(data[start : start + 37])
        found += told(events.poll())
    assert found == [(step, step / 8) for step in range(1, 9)]


def test_a_second_file_goes_on_and_a_file_that_is_written_anew_is_read_again(tmp_path, board):
    board(tmp_path / "run", ("loss", 1, 4.0), ("loss", 2, 3.0), suffix=".a")
    events = EventFolder(tmp_path / "run", LOSS)
    assert told(events.poll()) == [(1, 4.0), (2, 3.0)]
    first = event_file(tmp_path / "run")
    board(tmp_path / "run", ("loss", 3, 2.0), suffix=".b")
    assert told(events.poll()) == [(3, 2.0)]
    board(tmp_path / "other", ("loss", 1, 1.0))
    shutil.copyfile(event_file(tmp_path / "other"), first)
    assert told(events.poll()) == [(1, 1.0)]
    assert [note.split(": ")[1] for note in events.notes] == [
        f"was written anew after {events_size(tmp_path, board)} bytes; it was read again from its start"
    ]


def events_size(tmp_path: Path, board: Callable[..., None]) -> int:
    board(tmp_path / "same", ("loss", 1, 4.0), ("loss", 2, 3.0), suffix=".a")
    return event_file(tmp_path / "same").stat().st_size


def test_folders_tell_training_from_validation(tmp_path, board):
    board(tmp_path / "train", ("epoch_loss", 1, 3.0))
    board(tmp_path / "validation", ("epoch_loss", 1, 4.0))
    assert told(EventFolder(tmp_path, MetricRules(names=("val_epoch_loss",))).poll()) == [(1, 4.0)]
    assert told(EventFolder(tmp_path, MetricRules(names=("train/epoch_loss",))).poll()) == [(1, 3.0)]
    events = EventFolder(tmp_path, MetricRules(names=("epoch_loss",)))
    assert told(events.poll()) == [(1, 3.0)]
    assert events.notes == (
        f"{tmp_path}: epoch_loss is in train and in validation, and was read in the first; name it "
        "train/epoch_loss or validation/epoch_loss",
    )


def test_without_the_library_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.event_file_loader", None)
    (tmp_path / "events.out.tfevents.1").write_bytes(b"x")
    with pytest.raises(
        TuneError, match=r"needs tensorboard\S* to be read; pip install 'modelyard\[tensorboard\]'"
    ):
        EventFolder(tmp_path, LOSS).poll()


# -- all places together -------------------------------------------------------------------------------


def test_what_a_job_tells_goes_before_what_it_prints(tmp_path):
    sources = MetricSources(LOSS, Places(told=tmp_path / "metrics.jsonl"))
    assert told(sources.feed(b"loss: 9\nloss: 8\n")) == [(1, 9.0), (2, 8.0)]
    assert sources.poll() == []
    (tmp_path / "metrics.jsonl").write_bytes(lines({"step": 5, "loss": 0.5}))
    assert told(sources.poll()) == [(5, 0.5)]
    assert sources.feed(b"loss: 7\n") == []
    assert sources.curves["loss"].points == {5: 0.5}


def test_every_place_has_its_rank(tmp_path, board):
    rules = MetricRules(names=("loss", "val_loss", "acc", "f1"))
    (tmp_path / "tao" / "train").mkdir(parents=True)
    (tmp_path / "tao/train/status.json").write_bytes(lines({"epoch": 1, "kpi": {"loss": 2, "val_loss": 2}}))
    board(tmp_path / "board", ("loss", 1, 3.0), ("val_loss", 1, 3.0), ("acc", 1, 3.0))
    (tmp_path / "metrics.jsonl").write_bytes(lines({"step": 1, "loss": 1}))
    sources = MetricSources(
        rules, Places(told=tmp_path / "metrics.jsonl", status=tmp_path / "tao", events=tmp_path / "board")
    )
    sources.feed(b"step 1: loss: 4, val_loss: 4, acc: 4, f1: 4\n")
    sources.finish(ended_well=True)
    assert {name: curve.last for name, curve in sources.curves.items()} == {
        "loss": 1,
        "val_loss": 2,
        "acc": 3,
        "f1": 4,
    }


@pytest.mark.parametrize(("ended_well", "wanted"), [(True, {1: 1.0, 2: 2.0}), (False, {1: 1.0})])
def test_the_end_of_a_job_settles_every_place(tmp_path, ended_well, wanted):
    (tmp_path / "metrics.jsonl").write_bytes(lines({"step": 1, "loss": 1}, {"step": 2, "loss": 2})[:-1])
    sources = MetricSources(LOSS, Places(told=tmp_path / "metrics.jsonl"))
    sources.finish(ended_well=ended_well)
    assert sources.curves["loss"].points == wanted


def test_a_job_that_goes_on_counts_on(tmp_path):
    sources = MetricSources(LOSS, start=9)
    assert told(sources.feed(b"loss: 3\n")) == [(10, 3.0)]


def test_half_a_line_of_a_file_that_is_written_anew_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sources = MetricSources(LOSS, Places(told=path))
    path.write_bytes(lines({"step": 1, "loss": 1}) + b'{"step": 2, "lo')
    assert told(sources.poll()) == [(1, 1.0)]
    path.write_bytes(lines({"step": 1, "loss": 5}))
    assert told(sources.poll()) == [(1, 5.0)]
    assert [note.startswith(f"{path}: was written anew") for note in sources.notes] == [True]


def test_lines_in_doubt_are_handed_on():
    sources = MetricSources(LOSS)
    sources.feed(b"Baseline loss: 1\n")
    assert sources.passed_over == ("Baseline loss: 1",)


@given(st.lists(st.sampled_from(["print", "tell", "poll"]), max_size=12))
def test_whoever_begins_again_gets_the_same_curves(tmp_path_factory, deeds):
    path, printed = tmp_path_factory.mktemp("sources") / "metrics.jsonl", b""
    first = MetricSources(LOSS, Places(told=path))
    for number, deed in enumerate(deeds):
        if deed == "print":
            printed += b"loss: %d\n" % number
            first.feed(b"loss: %d\n" % number)
        elif deed == "tell":
            with path.open("ab") as file:
                file.write(lines({"loss": number}))
        else:
            first.poll()
    first.finish(ended_well=True)
    second = MetricSources(LOSS, Places(told=path))
    second.feed(printed)
    second.finish(ended_well=True)
    assert first.curves["loss"].points == second.curves["loss"].points


def test_files_are_not_held_open_between_looks(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(lines({"step": 1, "loss": 1}))
    sources = MetricSources(LOSS, Places(told=tmp_path / "metrics.jsonl"))
    sources.poll()
    held = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert tmp_path / "metrics.jsonl" not in held
