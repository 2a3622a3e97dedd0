"""PyTorch files without PyTorch: the same bytes, and nothing that a file names is executed.

`fixtures/*.bin` were written by torch 2.13.0 with `torch.save`; `both` is `torch.arange(6).float()`:

- dtypes: `arange(6).reshape(2, 3)` in each type, named by it
- module: the state dict of `nn.Linear(3, 2)` of weight `both.reshape(2, 3)` and bias `[6, 7]`
- nested: its parameters as `{"epoch": 3, "state_dict": OrderedDict(layer.named_parameters())}`
- model: `{"model": layer.state_dict(), "step": 1}`
- views: `{"tied": both, "head": both, "tail": both[2:5], "empty": both[:0], "scalar": both[1],
  "one": both.reshape(6, 1)[::2][:1]}`
- protocol4: `{"a": both}` with `pickle_protocol=4`; legacy: with `_use_new_zipfile_serialization=False`
- transposed, complex, float8, quantized: `{"a": both.reshape(2, 3).t()}`, `both.to(complex64)`,
  `both.to(float8_e4m3fn)`, `torch.quantize_per_tensor(both, 0.1, 0, torch.qint8)`
- negbit: `{"a": torch._neg_view(both)}`
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.artifacts.checkpoints import open_checkpoint
from modelyard.artifacts.safetensors import DType
from modelyard.artifacts.torch_files import read_torch_file
from modelyard.core.errors import CheckpointError

FIXTURES = Path(__file__).with_name("fixtures")
REMEDY = "convert it to safetensors"
NUMPY = {
    DType.F16: np.float16,
    DType.F32: np.float32,
    DType.F64: np.float64,
    DType.I64: np.int64,
    DType.I32: np.int32,
    DType.I16: np.int16,
    DType.I8: np.int8,
    DType.U8: np.uint8,
    DType.BOOL: np.bool_,
}
GOOD = (FIXTURES / "module.bin").read_bytes()


def values(info):
    """The numbers of a tensor, read from its file as a reader would."""
    data = info.path.read_bytes()[info.offset : info.offset + info.bytes]
    if info.dtype is DType.BF16:
        wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).reshape(info.shape)
    return np.frombuffer(data, NUMPY[info.dtype]).reshape(info.shape)


def read(name):
    return {info.name: info for info in read_torch_file(FIXTURES / f"{name}.bin")}


def archive(path, description, *, storages=None, compression=zipfile.ZIP_STORED, byteorder=b"little"):
    """An archive such as PyTorch's around a pickle of our own."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", description)
        file.writestr("archive/byteorder", byteorder)
        for key, data in (storages or {"0": bytes(24)}).items():
            file.writestr(f"archive/data/{key}", data)
    return path


def described(shape=(2, 3), strides=(3, 1), *, offset=0, kind="FloatStorage", key="0", elements=6):
    """The pickle of {"a": tensor}, as a text of protocol 0 opcodes."""

    def number(value):
        return f"I{value}\n"

    def numbers(items):
        return "(" + "".join(map(number, items)) + "t"

    pid = f"(Vstorage\nctorch\n{kind}\nV{key}\nVcpu\n{number(elements)}tQ"
    arguments = f"({pid}{number(offset)}{numbers(shape)}{numbers(strides)}I00\nccollections\nOrderedDict\n)Rt"
    return f"}}Va\nctorch._utils\n_rebuild_tensor_v2\n{arguments}Rs.".encode()


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(REMEDY)
    return str(caught.value)


def test_every_type_gives_the_numbers_that_were_saved():
    infos = read("dtypes")
    assert {info.dtype.torch_name for info in infos.values()} == set(infos)
    assert len(infos) == 10
    for name, info in infos.items():
        expected = np.arange(6).reshape(2, 3)
        expected = expected.astype(bool) if name == "bool" else expected
        np.testing.assert_array_equal(values(info), expected)


@pytest.mark.parametrize("name", ["module", "nested", "model"])
def test_a_state_dict_is_found_alone_or_one_level_down(name):
    infos = read(name)
    assert list(infos) == ["weight", "bias"]
    np.testing.assert_array_equal(values(infos["weight"]), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(values(infos["bias"]), [6, 7])


def test_tied_and_partial_tensors_lie_within_one_storage():
    infos = read("views")
    assert infos["tied"].offset == infos["head"].offset
    np.testing.assert_array_equal(values(infos["head"]), range(6))
    np.testing.assert_array_equal(values(infos["tail"]), [2, 3, 4])
    assert infos["empty"].shape == (0,)
    assert values(infos["scalar"]) == 1
    np.testing.assert_array_equal(values(infos["one"]), [[0]])
    offsets = [info.offset for info in infos.values()]
    assert offsets == sorted(offsets)


def test_another_pickle_protocol_is_read():
    np.testing.assert_array_equal(values(read("protocol4")["a"]), range(6))


def test_a_checkpoint_may_be_such_a_file():
    assert set(open_checkpoint(FIXTURES / "module.bin").tensors) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("transposed", "not contiguous"),
        ("complex", "ComplexFloatStorage"),
        ("float8", "torch._utils._rebuild_tensor_v3"),
        ("quantized", "torch._utils._rebuild_qtensor"),
        ("negbit", "negated"),
        ("legacy", "before 1.6"),
    ],
)
def test_what_is_not_read_is_named_with_the_remedy(name, words):
    assert words in refusal(FIXTURES / f"{name}.bin")


class Harm:
    """Makes a file when it is unpickled without care."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_that_a_file_names_is_executed(tmp_path, protocol):
    trace = tmp_path / "trace"
    harm = pickle.dumps({"a": Harm(trace)}, protocol=protocol)
    assert "not executed" in refusal(archive(tmp_path / "m.bin", harm))
    assert not trace.exists()
    pickle.loads(harm)
    assert trace.exists()  # the pickle would have done it


@pytest.mark.parametrize(
    "name",
    [
        *("os system", "builtins eval", "torch load", "torch.storage FloatStorage", "torch.hub Storage"),
        *("collections Counter", "collections OrderedDict.fromkeys"),
        "torch._utils _rebuild_tensor_v2.__globals__",
    ],
)
def test_every_other_name_is_refused_by_name(tmp_path, name):
    module, word = name.split()
    text = f"c{module}\n{word}\n.".encode()
    assert f"'{module}.{word}', which was not executed" in refusal(archive(tmp_path / "m.bin", text))


@pytest.mark.parametrize("stack", ["ctorch\nFloatStorage\n", "ccollections\nOrderedDict\n"])
def test_a_name_cannot_be_changed_by_a_file(tmp_path, stack):
    for state in ("}Vitem_bytes\nI9\ns", "(N}V__len__\nI9\nst", "}V__init__\nI9\ns"):
        refusal(archive(tmp_path / "m.bin", f"{stack}{state}b.".encode()))
    assert values(read("protocol4")["a"]).size == 6
    assert not hasattr(OrderedDict, "item_bytes")


def test_attributes_of_a_mapping_are_passed_over(tmp_path):
    text = b"ccollections\nOrderedDict\n)R}Vitems\nI1\nsVget\nI1\nsb."
    assert read_torch_file(archive(tmp_path / "m.bin", text)) == []


def test_our_own_archive_is_read(tmp_path):
    path = archive(tmp_path / "m.bin", described(), storages={"0": np.arange(6, dtype="<f4").tobytes()})
    (info,) = read_torch_file(path)
    np.testing.assert_array_equal(values(info), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"strides": (1, 2)}, "not contiguous"),
        ({"strides": (0, 0)}, "not contiguous"),
        ({"strides": (6, 2)}, "not contiguous"),
        ({"strides": (1,)}, "not whole numbers"),
        ({"strides": (3, -1)}, "not whole numbers"),
        ({"shape": (-2, -3)}, "not whole numbers"),
        ({"shape": (2**70, 0), "strides": (0, 1)}, "not whole numbers"),
        ({"offset": -1}, "not whole numbers"),
        ({"offset": 1}, "beyond its storage"),
        ({"shape": (2**61, 3)}, "beyond its storage"),
        ({"key": "1"}, "is not in the file"),
        ({"key": "../data.pkl"}, "is not in the file"),
        ({"elements": 7}, "is not in the file"),
        ({"elements": -6}, "is not in the file"),
        ({"kind": "DoubleStorage"}, "is not in the file"),
        ({"kind": "ComplexDoubleStorage"}, "is not known"),
    ],
)
def test_a_description_that_does_not_fit_its_storage(tmp_path, changed, words):
    assert words in refusal(archive(tmp_path / "m.bin", described(**changed)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"I1\n.", "holds a int"),
        (b"]Va\na.", "holds a list"),
        (b"}I1\nI2\ns.", "not text"),
        (b"}V\\ud800\nI2\ns.", "not text"),
        (b"}Vepoch\nI2\ns.", "'epoch' is a int"),
        (b"}Vmodel\n}Va\n}ss.", "'a' is a dict"),
        (b"", "damaged"),
        (b".", "damaged"),
        (b"}]I1\ns.", "damaged"),
        (b"\x80\x05\x8e" + b"\xff" * 7 + b"\x7f.", "damaged"),
        (b"Nr\xff\xff\xff\x7f.", "asks for place 2147483647"),
        (b"Np99999999999\n.", "asks for place 99999999999"),
    ],
)
def test_a_pickle_of_something_else(tmp_path, text, words):
    assert words in refusal(archive(tmp_path / "m.bin", text))


def test_a_compressed_archive(tmp_path):
    path = archive(tmp_path / "m.bin", described(), compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(path)


def test_a_file_of_a_big_endian_machine(tmp_path):
    assert "byte order b'big'" in refusal(archive(tmp_path / "m.bin", described(), byteorder=b"big"))


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.bin", "w") as file:
        file.writestr("readme.txt", "words")
    assert "0 entries named data.pkl" in refusal(tmp_path / "m.bin")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(CheckpointError, match="Is a directory"):
        read_torch_file(tmp_path)


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    path = tmp_path / "m.bin"
    for length in range(len(GOOD)):
        path.write_bytes(GOOD[:length])
        refusal(path)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_refused_or_lies_within_its_bounds(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    data = bytearray(GOOD)
    for place, byte in changes:
        data[place] = byte
    path.write_bytes(data)
    try:
        infos = read_torch_file(path)
    except CheckpointError:
        return
    assert all(0 <= info.offset <= info.offset + info.bytes <= len(data) for info in infos)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_as_a_description(tmp_path_factory, description):
    path = archive(tmp_path_factory.getbasetemp() / "random.bin", description)
    try:
        read_torch_file(path)
    except CheckpointError:
        return
