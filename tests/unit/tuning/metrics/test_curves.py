"""Printed lines: what is a reading of the metric asked for, what is none, and what a curve makes of them."""

from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelyard.tuning.metrics.curves import (
    LINE_BYTES,
    Curve,
    LineReader,
    MetricRules,
    NoValue,
    Reading,
    WholeLines,
    outcome,
)
from modelyard.tuning.metrics.rules import canonical, number
from modelyard.tuning.trial import Objective

nan, inf = math.nan, math.inf


def read(metric: str, text: str | bytes, *, ended_well: bool = False, **rules: object) -> list[tuple]:
    """(step, value) of every reading of one metric."""
    reader = LineReader(MetricRules(names=(metric,), **rules))
    data = text.encode() if isinstance(text, str) else text
    found = reader.feed(data) + reader.finish(ended_well=ended_well)
    assert {reading.name for reading in found} <= {metric}
    return [(reading.step, reading.value) for reading in found]


def same(found: list[tuple], wanted: list[tuple]) -> bool:
    """Equality in which nan is nan."""
    return repr(found) == repr(wanted)


#: Logs that the original reads wrongly, each with the right reading.
MISREAD = [
    ("loss", "loss: 0.5\nloss: nan\n", [(None, 0.5), (None, nan)]),
    ("val_acc", "val_acc: .93\nval_acc: .88\nval_acc: .71\n", [(None, 0.93), (None, 0.88), (None, 0.71)]),
    ("loss", "loss: 0.0", []),
    ("loss", "loss: 12", []),
    ("loss", "loss=3.2e", []),
    ("loss", "loss=3.2e\n", []),
    ("loss", "loss: 1.5\nBaseline loss: 0.01 (from paper)\n", [(None, 1.5)]),
    ("loss", "loss: 0.4\nkpi: 99\n", [(None, 0.4)]),
    ("kpi", "loss: 0.4\nkpi: 99\n", [(None, 99.0)]),
    ("loss", '"loss": 0.25\n', [(None, 0.25)]),
    ("train/loss", "train/loss: .3\n", [(None, 0.3)]),
    ("train_loss", "train/loss: .3\n", [(None, 0.3)]),
    ("loss", "train/loss: .3\n", []),
    ("accuracy", "accuracy 0.9\n", [(None, 0.9)]),
    ("loss", "\x1b[1mloss\x1b[0m: \x1b[32m0.25\x1b[0m\n", [(None, 0.25)]),
    ("loss", "\x1b]0;title\x07\x1b[2Kloss: 0.25\x1b[K\n", [(None, 0.25)]),
    ("loss", "loss: 1,234.5\n", [(None, 1234.5)]),
]

#: Another metric, whose name merely contains the one that was asked for.
OTHERS = [
    "val_loss: 1", "loss_scale: 1", "sub-loss: 1", "model.loss: 1", "losses: 1", "val/loss: 1", "x loss 1",
    "loss/train: 1", "Validation loss: 1", "validation loss = 1", "best loss: 1", "the loss: 1", "loss@5: 1",
    "Train loss: 1", "average loss: 1", "Average loss (train): 1", "loss (train): 1", "驗證loss: 1",
    '{"val": {"loss": 1}}', '{"baseline": {"loss": 1}}', "{'baseline': {'loss': 1}}", 'Baseline: {"loss": 1}',
    "Val: loss 1, acc 2", "Val | loss: 1 | acc: 2", "Validation - loss: 1 - acc: 2", "Baseline - loss: 1",
]  # fmt: skip

#: No numbers, or not to their ends.
NO_NUMBERS = [
    "loss: 12ms", "loss: 0,5", "loss: 1,23", "loss: 1.2.3", "loss: 9/10", "loss: 9 / 10", "loss: 2024-01-02",
    "loss: 12:30", "loss: 0.5-0.6", "loss: 1e-", "loss: None", "loss: null", "loss:", "loss", "loss: -",
    "loss: .", "loss: nano", "loss: infer", "loss: [0.5]", "loss: 0x1f", "loss: 1_000", "loss function 3",
    "loss 3 times less than before", '{"loss": true}', '{"loss": null}', '{"loss": "low"}', '{"loss": [1]}',
    "loss: ٣",
]  # fmt: skip

#: What programs print, as they print it.
SPELLED = [
    ("loss", "loss=0.5", [(None, 0.5)]),
    ("loss", "Loss : 5.0e-01.", [(None, 0.5)]),
    ("loss", "loss = +.5;", [(None, 0.5)]),
    ("loss", "loss: -1.5E-3, next", [(None, -0.0015)]),
    ("loss", "loss -> 1", []),
    ("loss", "loss => 1", [(None, 1.0)]),
    ("loss", "accuracy: 98.5%", []),
    ("accuracy", "accuracy: 98.5%", [(None, 98.5)]),
    ("loss", "loss: 1,234,567", [(None, 1234567.0)]),
    ("loss", "step=1,loss=2,acc=3", [(1, 2.0)]),
    ("loss", "loss: NaN", [(None, nan)]),
    ("loss", "loss=-inf", [(None, -inf)]),
    ("loss", "loss: Infinity", [(None, inf)]),
    ("loss", "loss nan", [(None, nan)]),
    ("loss", "loss: tensor(0.5, device='cuda:0')", [(None, 0.5)]),
    ("loss", "{'loss': np.float64(0.5), 'epoch': 2}", [(2, 0.5)]),
    ("loss", "loss: 0.01 (from paper)", [(None, 0.01)]),
    ("loss", "loss: 0.5 (best loss: 0.1)", [(None, 0.5)]),
    ("loss", "Train Epoch: 1 [0/60000 (0%)]\tLoss: 2.300039", [(1, 2.300039)]),
    ("loss", "Epoch [3/10], Step [100/200], Loss: 0.4", [(3, 0.4)]),
    ("loss", "Epoch 3/10: loss 0.4", [(3, 0.4)]),
    ("loss", "[Epoch 3] loss: 0.4", [(3, 0.4)]),
    ("loss", "Epoch 3 finished with loss 0.4", [(3, 0.4)]),
    ("loss", "loss: 0.4 at step 1,200", [(1200, 0.4)]),
    ("loss", "Epoch: [0][10/50]\tTime 0.5 (0.6)\tLoss 6.9 (6.95)\tAcc@1 0.25 (0.12)", [(0, 6.9)]),
    ("Acc@1", "Epoch: [0][10/50]\tTime 0.5 (0.6)\tLoss 6.9 (6.95)\tAcc@1 0.25 (0.12)", [(0, 0.25)]),
    ("loss", "313/313 [=====] - 1s 3ms/step - loss: 0.4 - accuracy: 0.9", [(None, 0.4)]),
    ("accuracy", "313/313 [=====] - 1s 3ms/step - loss: 0.4 - accuracy: 0.9", [(None, 0.9)]),
    ("loss", "Step: 107/107, Loss: 8.27675, Grad norm: 0.3", [(107, 8.27675)]),
    ("val_loss", "[SFT] Validation loss: 0.12 for train step 100", [(100, 0.12)]),
    ("val_mAP", " Validation mAP : 0.31", [(None, 0.31)]),
    ("val_mAP", " Validation mAP50 : 0.31", []),
    ("val_loss", "train loss: 0.2, val loss: 0.3", [(None, 0.3)]),
    ("loss", "2024-01-01 12:00:00,123 - trainer - INFO - loss: 0.4, acc: 0.9", [(None, 0.4)]),
    ("acc", "2024-01-01 12:00:00,123 - trainer - INFO - loss: 0.4, acc: 0.9", [(None, 0.9)]),
    ("loss", "2024-05-01 10:00:00.000 | INFO     | __main__:main:12 - loss: 0.3", [(None, 0.3)]),
    ("loss", "I0101 12:00:00.000000 123 trainer.py:12] loss: 0.3", [(None, 0.3)]),
    ("loss", "INFO:root:epoch 3 loss: 0.4", [(3, 0.4)]),
    ("loss", "INFO:root:loss: 0.4", [(None, 0.4)]),
    ("loss", "Jan 01 12:00:00 host app[12]: INFO loss: 0.4", [(None, 0.4)]),
    ("loss", "[rank0]: loss: 0.4", [(None, 0.4)]),
    ("loss", "(worker pid=3) loss: 0.4", [(None, 0.4)]),
    ("loss", "status: running, loss: 0.3", [(None, 0.3)]),
    ("loss", "|    loss     | 0.25     |", [(None, 0.25)]),
    ("loss", '{"step": 3, "loss": 0.25}', [(3, 0.25)]),
    ("loss", '{"loss": NaN, "step": 4}', [(4, nan)]),
    ("loss", '{"loss": "0.25"}', [(None, 0.25)]),
    ("loss", '{"loss": 1' + "0" * 400 + "}", [(None, inf)]),
    ("loss", '12:00 metrics: {"loss": 0.3, "epoch": 2}', [(2, 0.3)]),
    ("loss", "step 5: {'loss': 0.3}", [(5, 0.3)]),
    ("loss", '{"metrics": {"loss": 0.3}, "epoch": 2}', [(2, 0.3)]),
    ("loss", '{"baseline": {"loss": 0.1}, "loss": 0.3}', [(None, 0.3)]),
    ("val_loss", '{"val": {"loss": 0.1}, "loss": 0.3}', [(None, 0.1)]),
    ("loss", '  "loss": 0.25,', [(None, 0.25)]),
    ("loss", "{'loss': nan, 'grad_norm': 1.2, 'epoch': 0.26}", [(0, nan)]),
]


@pytest.mark.parametrize(("metric", "text", "wanted"), MISREAD)
def test_what_the_original_misreads_is_read_rightly(metric, text, wanted):
    assert same(read(metric, text), wanted)


@pytest.mark.parametrize("line", OTHERS)
def test_another_metric_is_not_taken_for_the_one_asked_for(line):
    assert read("loss", line + "\n") == []


@pytest.mark.parametrize("line", NO_NUMBERS)
def test_what_is_not_a_number_to_its_end_is_none(line):
    assert read("loss", line + "\n") == []


@pytest.mark.parametrize(("metric", "line", "wanted"), SPELLED)
def test_lines_as_programs_print_them(metric, line, wanted):
    assert same(read(metric, line + "\n"), wanted)


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("epoch 3 step 100 loss: 1", 3),  # steps may begin anew in each epoch, epochs do not
        ("epoch 1.5 step 100 loss: 1", 100),
        ("epoch 2.0 step 100 loss: 1", 100),
        ("epoch 2.7 loss: 1", 2),
        ("best epoch: 2 loss: 1", None),
        ("steps per epoch: 90, loss: 1", None),
        ("max_epoch: 9, loss: 1", None),
        ("max epoch: 9, loss: 1", None),
        ("epoch: -1, loss: 1", None),
        ("epoch 45% loss: 1", None),
        ("epoch 3k loss: 1", None),
        ("global_step=7, loss: 1", 7),
        ("iteration 7: loss: 1", 7),
        (f"step {'9' * 30}: loss: 1", None),
        ('{"epoch": -1, "loss": 1}', None),
        ('{"epoch": true, "loss": 1}', None),
        ('{"epoch": 1e300, "loss": 1}', None),
        ('{"epoch": "4", "loss": 1}', 4),
        ('{"step": 300, "epoch": 1.0, "loss": 1}', 300),
    ],
)
def test_the_step_of_a_line(line, step):
    assert read("loss", line + "\n") == [(step, 1.0)]


def test_which_names_are_steps_can_be_said():
    assert read("loss", "epoch 3 step 100 loss: 1\n", steps=("step",)) == [(100, 1.0)]
    assert read("loss", "round 5: loss: 1\n", steps=("round",)) == [(5, 1.0)]


def test_a_nearer_spelling_goes_before_a_farther_one():
    line = "loss_step=0.9, loss=0.5, loss_epoch=0.7\n"
    assert read("loss", line) == [(None, 0.5)]
    assert read("loss", "loss_step=0.9, loss_epoch=0.7\n") == [(None, 0.7)]
    assert read("loss_step", line) == [(None, 0.9)]
    assert read("train_loss_epoch", "train_loss: 0.3\n") == [(None, 0.3)]


def test_a_farther_spelling_in_doubt_does_not_matter():
    assert read("loss", "loss_epoch=1 loss_epoch=2 loss=3\n") == [(None, 3.0)]


@pytest.mark.parametrize(
    "line",
    ["Train: loss 0.3, acc 0.9", "Val | loss: 0.4 | acc: 0.8", "12:00 Validation - loss: 0.4 - acc: 0.8"],
)
def test_what_a_line_is_about_holds_for_all_of_it(line):
    assert read("acc", line + "\n") == []


def test_further_spellings_are_told_by_the_user():
    assert read("mAP", "bbox AP50 = 0.4\n") == []
    assert read("mAP", "bbox AP50 = 0.4\n", spellings={"mAP": ["bbox AP50"]}) == [(None, 0.4)]


def test_two_different_values_in_one_line_are_no_reading():
    reader = LineReader(MetricRules(names=("loss",)))
    assert reader.feed(b'loss: 0.3 loss: 0.4\n{"val/x": 1, "loss": 1, "LOSS": 2}\n') == []
    assert len(reader.passed_over) == 2
    assert read("loss", "loss: 0.3 loss: 0.3\n") == [(None, 0.3)]


def test_several_metrics_are_read_off_one_line():
    reader = LineReader(MetricRules(names=("val_loss", "loss", "acc")))
    found = reader.feed(b"epoch 2: loss: 0.4, val_loss: 0.5, accuracy: 1, acc: 0.8\n")
    assert {(r.name, r.step, r.value) for r in found} == {
        ("loss", 2, 0.4),
        ("val_loss", 2, 0.5),
        ("acc", 2, 0.8),
    }


PATTERN = r"final (?P<value>\S+)(?: after (?P<step>\d+))?"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("final 0.25 after 12", [(12, 0.25)]),
        ("\x1b[1mfinal\x1b[0m 0.25 after 12", [(12, 0.25)]),
        ("epoch 4: final 0.25", [(4, 0.25)]),
        ("final 0.25", [(None, 0.25)]),
        ("final nan", [(None, nan)]),
        ("final 1 final 2", [(None, 2.0)]),
        ("final answer", []),
        ("loss: 3", []),  # what has a pattern is looked for in no other way
    ],
)
def test_a_pattern_of_the_users(line, wanted):
    assert same(read("loss", line + "\n", patterns={"loss": PATTERN}), wanted)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"patterns": {"loss": "("}}, "is no regular expression"),
        ({"patterns": {"loss": r"loss (\d+)"}}, r"no group named value; write \(\?P<value>"),
        ({"patterns": {"los": r"(?P<value>\d+)"}}, "'los' is not among those wanted: loss"),
        ({"spellings": {"los": ("x",)}}, "'los' is not among"),
        ({"names": ("/",)}, "no letters or digits"),
    ],
)
def test_rules_that_cannot_work_are_refused(rules, says):
    with pytest.raises(ValueError, match=says):
        MetricRules(**{"names": ("loss",), **rules})


@pytest.mark.parametrize(
    ("ended_well", "wanted"), [(True, [(None, 1.0), (None, 12.0)]), (False, [(None, 1.0)])]
)
def test_a_last_line_without_its_end_counts_only_if_the_program_ended_well(ended_well, wanted):
    assert read("loss", "loss: 1\nloss: 12", ended_well=ended_well) == wanted


def test_after_the_end_of_a_stream_another_begins():
    reader = LineReader(MetricRules(names=("loss",)))
    reader.feed(b"loss: 1")
    assert reader.finish(ended_well=False) == []
    assert [r.value for r in reader.feed(b"2\nloss: 3\n")] == [3.0]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # A bar drawn over is one line, and its last state is what it says.
        ("\r 0%| | 0/3 [00:00<?]\r 33%|#| 1/3 [00:01, loss=0.5]\r 66%|#| 2/3 [loss=0.4]\n", [(None, 0.4)]),
        ("\r 33%|# | 1/3 [loss=0.5]\r                  \rdone\n", [(None, 0.5)]),
        # Each epoch that a bar shows has its last value.
        ("\rEpoch 1: 9%|#| [loss=3]\rEpoch 1: 99%| [loss=2]\rEpoch 2: 9%| [loss=1]\n", [(1, 2.0), (2, 1.0)]),
        # The state that is being drawn when the program ends is half a line.
        ("\rEpoch 1: 9%|#| [loss=3]\rEpoch 1: 99%|#| [loss=2", [(1, 3.0)]),
        ("loss: 0.5\r\nloss: 0.4\r\n", [(None, 0.5), (None, 0.4)]),
        ("1/3 - loss: 0.5\x08\x08\x08\x08\x08\x082/3 - loss: 0.4\n", [(None, 0.4)]),
    ],
)  # fmt: skip
def test_progress_bars(text, wanted):
    assert read("loss", text) == wanted


def test_a_bar_is_read_while_it_is_drawn_once_a_later_step_shows():
    reader = LineReader(MetricRules(names=("loss",)))
    assert reader.feed(b"\rEpoch 1: [loss=3]\rEpoch 1: [loss=2]\r") == []
    assert [(r.step, r.value) for r in reader.feed(b"Epoch 2: [loss=1]\r")] == [(1, 2.0)]
    assert [(r.step, r.value) for r in reader.finish(ended_well=False)] == [(2, 1.0)]


def test_bytes_that_are_no_text_do_no_harm():
    assert read("loss", b"\xff\xfe\x00 garbage \x80\nloss: 0.5\nlo\xffss: 3\n") == [(None, 0.5)]


def test_lines_in_doubt_are_shown_to_who_asks():
    reader = LineReader(MetricRules(names=("loss",)))
    reader.feed(
        b"nothing\nBaseline loss: 1\nBaseline  loss: 1\nthe loss: 2\n\x1b[1mloss: 9/10\nmy loss: 4\nloss: 1\n"
    )
    assert reader.passed_over == ("Baseline loss: 1", "the loss: 2", "[1mloss: 9/10")


LINES = [
    b"loss: 0.5\n", b"epoch 3 loss: 1,234.5\r\n", b'{"loss": 0.25, "step": 7}\n', b"\rEpoch 1: [loss=3]",
    b"\rEpoch 2: [loss=2]\n", b"\x1b[32mloss\x1b[0m: \x1b[1m1e-3\x1b[0m\n", b"loss: 12", b"loss=nan\n",
    b"Baseline loss: 1\n", "loss: 3 — größer\n".encode(), b"\n", b"\r", b"\x08\x08", b"x" * 70 + b"\n",
]  # fmt: skip
logs = st.lists(st.sampled_from(LINES) | st.binary(max_size=8), max_size=12).map(b"".join)


@given(logs, st.lists(st.integers(0, 400), max_size=12), st.booleans())
@example(b"loss: 0.5\r\n", [10], False)
def test_however_the_bytes_are_cut_the_readings_are_the_same(log, cuts, ended_well):
    whole = read("loss", log, ended_well=ended_well)
    reader, found = LineReader(MetricRules(names=("loss",))), []
    places = [0, *sorted(min(cut, len(log)) for cut in cuts), len(log)]
    for start, end in pairwise(places):
        found += reader.feed(log[start:end])
    found += reader.finish(ended_well=ended_well)
    assert same([(r.step, r.value) for r in found], whole)


@given(logs, st.lists(st.integers(0, 400), max_size=12), st.integers(0, 40))
def test_lines_that_are_too_long_are_empty_however_they_are_cut(log, cuts, longest):
    lines, found = WholeLines(longest_bytes=longest), []
    places = [0, *sorted(min(cut, len(log)) for cut in cuts), len(log)]
    for start, end in pairwise(places):
        found += list(lines.feed(log[start:end]))
    rest = lines.finish()
    wanted = [b""]
    for letter in (log[i : i + 1] for i in range(len(log))):
        wanted = [*wanted, letter, b""] if letter in b"\r\n\x08" else [*wanted[:-1], wanted[-1] + letter]
    kept = [line if len(line) <= longest else b"" for line in wanted[::2]]
    assert [line for line, _ in found] + [rest] == kept
    assert [end for _, end in found] == wanted[1::2]


@given(st.floats(), st.sampled_from(["loss: {}", "loss={}", "epoch 1 - loss {}", '{{"loss": {}}}']))
def test_every_float_that_python_prints_is_read_as_it_is(value, template):
    assert repr(read("loss", template.format(value) + "\n")[0][1]) == repr(value)


@given(st.integers(-(10**12), 10**12), st.integers(0, 3))
def test_every_grouped_number_is_read_as_it_is(value, digits):
    assert read("loss", f"loss: {value:,.{digits}f}\n") == [(None, float(value))]


@given(st.text(max_size=30))
def test_no_text_breaks_the_reader_and_nothing_is_read_without_the_name(text):
    found = read("loss", text + "\n", ended_well=True)
    assert found == [] or "loss" in canonical(text)


def test_a_long_log_is_read_in_little_memory():
    chunk = b"".join(b"2024-01-01 12:00:00 batch %d took 12 ms on gpu\n" % i for i in range(1500))
    reader, found = LineReader(MetricRules(names=("loss",))), 0
    tracemalloc.start()
    for epoch in range(40):
        found += len(reader.feed(chunk)) + len(reader.feed(b"epoch %d loss: 0.5\n" % epoch))
    for _ in range(20):  # and a line that never ends
        found += len(reader.feed(b"x" * (LINE_BYTES // 4)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == 40
    assert peak < 4 * LINE_BYTES


@pytest.mark.parametrize(
    "line", ["loss " * 20_000, "loss: x " * 10_000, "\x1b]" * 50_000, "loss" + " " * 100_000]
)
def test_a_line_that_repeats_itself_takes_time_in_proportion_only(line):
    # With a search that tries every way to read it, this would not end.
    assert read("loss", line + "\nloss: 1\n") == [(None, 1.0)]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("1,234.5", 1234.5),
        (" 3 ", 3.0),
        ("5%", 5.0),
        (True, None),
        ("x", None),
        (None, None),
        (-(10**400), -inf),
    ],
)
def test_numbers(value, wanted):
    assert number(value) == wanted


def curve(*points: tuple[int | None, float], **settings: int) -> Curve:
    made = Curve(**settings)
    for step, value in points:
        made.add(Reading(name="loss", step=step, value=value))
    return made


def test_values_without_a_step_count_up_from_one():
    assert curve((None, 3.0), (None, 2.0), (None, 1.0)).points == {1: 3.0, 2: 2.0, 3: 1.0}
    assert curve((None, 3.0), start=9).points == {10: 3.0}
    assert curve((4, 3.0), (None, 2.0)).points == {4: 3.0, 5: 2.0}


def test_a_curve_keeps_every_step_and_tells_last_from_best():
    made = curve((3, 0.7), (1, 0.9), (2, 0.93), (2, 0.8))
    assert list(made.points.items()) == [(1, 0.9), (2, 0.8), (3, 0.7)]
    assert (made.last, made.best("maximize"), made.best("minimize")) == (0.7, 0.9, 0.7)
    assert (made.at(2), made.at(99), made.at(0)) == (0.8, 0.7, None)
    assert (len(made), made.diverged) == (3, None)


def test_an_empty_curve_has_nothing():
    made = curve()
    assert (len(made), made.last, made.best("minimize"), made.at(5), made.diverged) == (
        0,
        None,
        None,
        None,
        None,
    )


def test_a_value_that_is_not_finite_is_kept_apart():
    made = curve((1, 0.5), (2, inf), (3, nan), (4, 0.4))
    assert made.finite == {1: 0.5, 4: 0.4}
    assert made.diverged == 2
    assert (made.best("maximize"), made.last) == (0.5, 0.4)
    assert math.isnan(made.points[3])
    assert curve((3, nan), (1, inf), (2, nan)).diverged == 1
    # Whether a driver looked in between must not matter.
    assert curve((1, nan), (1, 0.5)).diverged == 1


def test_of_several_spellings_the_nearest_makes_the_curve():
    made = Curve()
    far, near = ({"name": "loss", "rank": rank} for rank in (5, 1))
    assert made.add(Reading(step=50, value=nan, **far)) == 50
    assert made.add(Reading(step=1, value=0.5, **near)) == 1
    assert made.add(Reading(step=60, value=0.1, **far)) is None
    assert made.add(Reading(value=0.4, **near)) == 2
    assert (made.points, made.diverged) == ({1: 0.5, 2: 0.4}, None)


@pytest.mark.parametrize(
    ("points", "direction", "take", "wanted"),
    [
        ([(1, 0.9), (2, 0.93), (3, 0.71)], "maximize", "last", 0.71),
        ([(1, 0.9), (2, 0.93), (3, 0.71)], "maximize", "best", 0.93),
        ([(1, 0.9), (2, 0.3), (3, 0.71)], "minimize", "best", 0.3),
        ([], "minimize", "last", ("missing", None, "no value of loss was reported")),
        ([(1, 0.5), (2, nan)], "minimize", "best", ("diverged", 2, "loss diverged: it was nan at step 2")),
        (
            [(7, inf), (8, 0.1)],
            "minimize",
            "last",
            ("diverged", 7, "loss diverged: it was infinite at step 7"),
        ),
    ],
)
def test_the_outcome_of_a_curve(points, direction, take, wanted):
    objective = Objective(metric="loss", direction=direction, take=take)
    found = outcome(curve(*points), objective)
    assert ((found.kind, found.step, found.why) if isinstance(found, NoValue) else found) == wanted
