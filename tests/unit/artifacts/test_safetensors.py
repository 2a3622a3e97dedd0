"""The safetensors format, against the safetensors library and against damage of every kind."""

from __future__ import annotations

import json
import math
import os
import struct
import tracemalloc

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.artifacts.safetensors import (
    MOST_HEADER_BYTES,
    DType,
    TensorInfo,
    dtype_by_torch_name,
    layout,
    read_header,
)
from modelyard.core.errors import CheckpointError

# The numpy types of the types that numpy has.
NUMPY = {
    DType.F16: np.float16,
    DType.F32: np.float32,
    DType.F64: np.float64,
    DType.I64: np.int64,
    DType.I32: np.int32,
    DType.I16: np.int16,
    DType.I8: np.int8,
    DType.U64: np.uint64,
    DType.U32: np.uint32,
    DType.U16: np.uint16,
    DType.U8: np.uint8,
    DType.BOOL: np.bool_,
}
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda x: x != "__metadata__")
shapes = st.lists(st.integers(0, 4), max_size=3)
GOOD = safetensors.numpy.save(
    {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.int8)}, {"format": "pt"}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("headers")


def write(folder, header, *, data=b"", length=None):
    """A file of this header: bytes as they are, anything else as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "made.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype="U8", shape=(2,), begin=0, end=2):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < len(str(path)) + 500
    return str(caught.value)


def content(info):
    return info.path.read_bytes()[info.offset : info.offset + info.bytes]


@pytest.mark.parametrize("dtype", NUMPY, ids=lambda dtype: dtype.word)
def test_a_file_of_the_library_is_read(folder, dtype):
    array = np.arange(6).reshape(2, 3).astype(NUMPY[dtype])
    path = folder / "made.safetensors"
    safetensors.numpy.save_file({"x": array, "none": array[:0]}, path, {"k": "v"})
    infos, metadata = read_header(path)
    assert metadata == {"k": "v"}
    found = {info.name: info for info in infos}
    assert (found["x"].dtype, found["x"].shape, found["none"].shape) == (dtype, (2, 3), (0, 3))
    assert content(found["x"]) == array.tobytes()


@pytest.mark.parametrize("dtype", DType, ids=lambda dtype: dtype.word)
def test_a_file_laid_out_here_is_read_by_the_library(folder, dtype):
    path = folder / "made.safetensors"
    start, infos, file_bytes = layout([("x", dtype, (2, 3))], path=path, metadata={"k": "v"})
    data = bytes(k % 2 for k in range(infos[0].bytes))
    path.write_bytes(start + data)
    assert path.stat().st_size == file_bytes
    with safetensors.safe_open(path, "numpy") as opened:
        assert opened.metadata() == {"k": "v"}
        view = opened.get_slice("x")
        assert (view.get_dtype(), view.get_shape()) == (dtype.word, [2, 3])
    ((name, found),) = safetensors.deserialize(path.read_bytes())
    assert (name, found["dtype"], bytes(found["data"])) == ("x", dtype.word, data)
    assert read_header(path) == (infos, {"k": "v"})


@settings(deadline=None)
@given(
    st.dictionaries(names, st.tuples(st.sampled_from(list(DType)), shapes), max_size=6),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), names, max_size=3),
)
def test_every_layout_is_read_back_and_known_to_the_library(folder, tensors, metadata):
    path = folder / "layout.safetensors"
    items = [(name, dtype, shape) for name, (dtype, shape) in tensors.items()]
    start, infos, file_bytes = layout(items, path=path, metadata=metadata)
    assert len(start) % 8 == 0
    assert [(info.name, info.dtype, list(info.shape)) for info in infos] == items
    assert all(info.bytes == math.prod(info.shape) * info.dtype.item_bytes for info in infos)
    data = os.urandom(file_bytes - len(start))
    path.write_bytes(start + data)
    found, told = read_header(path)
    assert {info.name: info for info in found} == {info.name: info for info in infos}
    assert told == metadata
    theirs = dict(safetensors.deserialize(start + data))
    assert {name: bytes(view["data"]) for name, view in theirs.items()} == {
        info.name: content(info) for info in infos
    }


def test_tensors_come_in_the_order_of_their_bytes(folder):
    header = {"late": entry(begin=2, end=4), "early": entry(), "none": entry(shape=[0], begin=2, end=2)}
    infos, metadata = read_header(write(folder, header, data=b"abcd"))
    assert [info.name for info in infos] == ["early", "none", "late"]
    assert content(infos[0]) + content(infos[2]) == b"abcd"
    assert metadata == {}


@pytest.mark.parametrize("header", [{}, {"__metadata__": None}, {"__metadata__": {}}])
def test_a_file_without_tensors(folder, header):
    path = write(folder, header)
    assert read_header(path) == ([], {})
    assert safetensors.deserialize(path.read_bytes()) == []


@pytest.mark.parametrize("dtype", DType)
def test_the_names_of_pytorch(dtype):
    assert dtype_by_torch_name(dtype.torch_name) is dtype
    assert dtype_by_torch_name(f"torch.{dtype.torch_name}") is dtype
    assert dtype.floating == ("float" in dtype.torch_name)
    assert dtype_by_torch_name(f"x{dtype.torch_name}") is None


def test_a_file_cut_short_anywhere_is_refused(folder):
    path = folder / "cut.safetensors"
    for length in range(len(GOOD)):
        path.write_bytes(GOOD[:length])
        refusal(path)
    path.write_bytes(GOOD + b"x")
    assert "describes" in refusal(path)


@pytest.mark.parametrize("length", [13, 2**31, MOST_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_an_untrue_length_takes_no_memory(folder, length):
    path = write(folder, b"{}          ", length=length)
    assert path.stat().st_size == 20
    tracemalloc.start()
    try:
        assert f"{length} bytes, of 20" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_header_beyond_what_the_format_allows_is_not_read(folder):
    path = write(folder, b"{}", length=MOST_HEADER_BYTES + 1)
    with path.open("r+b") as file:
        file.truncate(MOST_HEADER_BYTES + 100)  # sparse
    assert str(MOST_HEADER_BYTES + 1) in refusal(path)


@pytest.mark.parametrize(
    "shape",
    [
        *([2**40, 2**40], [2**63], [2**62, 2], [2] * 1000, [10**400], [-1], [-1, -2], [2.0], [True], ["2"]),
        *([[2]], None, 2, "2", {}, {"0": 2}),
    ],
)
def test_a_shape_without_measure(folder, shape):
    refusal(write(folder, {"a": {"dtype": "U8", "shape": shape, "data_offsets": [0, 2]}}, data=b"ab"))


@pytest.mark.parametrize(
    "offsets",
    [
        *([0, 3], [1, 3], [0, 1], [2, 0], [-2, 0], [0, 2.0], [False, 2], [0], [0, 2, 2], [], None, "02"),
        *([2**70, 2**70 + 2], [0, 10**300]),
    ],
)
def test_offsets_that_do_not_fit(folder, offsets):
    refusal(write(folder, {"a": {"dtype": "U8", "shape": [2], "data_offsets": offsets}}, data=b"ab"))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": entry(), "b": entry()}, "b: begins at byte 0 where byte 2"),
        ({"a": entry(), "b": entry(begin=1, end=3)}, "begins at byte 1 where byte 2"),
        ({"a": entry(), "b": entry(begin=3, end=5)}, "begins at byte 3 where byte 2"),
        ({"a": entry(begin=2, end=4)}, "begins at byte 2 where byte 0"),
        ({"a": entry()}, "holds 4 bytes of tensors where its header describes 2"),
        ({"a": entry(shape=(6,), end=6)}, "holds 4 bytes of tensors where its header describes 6"),
    ],
)
def test_holes_overlaps_and_ends(folder, header, words):
    path = write(folder, header, data=b"abcd")
    with pytest.raises(CheckpointError, match=words):
        read_header(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"\xff\xfe{}", "not JSON"),
        (b'{"\xc3\x28": 1}', "not JSON"),
        (b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', "not JSON"),
        (b'{"__metadata__":{"a":"\\ud800"}}', "not JSON"),
        (b'{"a":' + b"[" * 100_000, "not JSON"),
        (b'{"a":{"dtype":' + b"[" * 900 + b"]" * 900 + b"}}", "not known"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a":1,"a":1}', "names 'a' twice"),
        (b'{"a":{"dtype":"U8","dtype":"U8"}}', "names 'dtype' twice"),
        (b'{"a":NaN}', "not known"),
        (b'{"a":{"dtype":"F4"}}', "dtype 'F4' is not known"),
        (b'{"a":{"dtype":"f32"}}', "dtype 'f32' is not known"),
        (b'{"__metadata__":{"a":1}}', "metadata"),
        (b'{"__metadata__":[]}', "metadata"),
    ],
)
def test_a_header_of_something_else(folder, text, words):
    assert words in refusal(write(folder, text))


def test_one_name_twice_among_very_many_is_found_soon(folder):
    many = b",".join(b'"%d":1' % k for k in range(200_000))
    assert "names '199999' twice" in refusal(write(folder, b"{" + many + b',"199999":1}'))


def test_a_file_that_cannot_be_read(tmp_path):
    assert "No such file" in refusal(tmp_path / "none")
    assert "Is a directory" in refusal(tmp_path)


def within(path):
    """What the reader accepts covers its file exactly and is accepted by the library as well."""
    try:
        infos, _ = read_header(path)
    except CheckpointError:
        return False
    assert all(isinstance(info, TensorInfo) for info in infos)
    ends = [path.stat().st_size]
    for info in reversed(infos):
        assert info.offset + info.bytes == ends[-1]
        ends.append(info.offset)
    return True


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(folder, data, fitting):
    path = folder / "random.safetensors"
    path.write_bytes((struct.pack("<Q", len(data)) if fitting else b"") + data)
    within(path)


@settings(deadline=None, max_examples=500)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 7)), min_size=1, max_size=3))
def test_flipped_bits(folder, flips):
    data = bytearray(GOOD)
    for place, bit in flips:
        data[place] ^= 1 << bit
    path = folder / "flipped.safetensors"
    path.write_bytes(data)
    within(path)


numbers = st.one_of(st.integers(-3, 12), st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**30, -(2**63)]))
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([dtype.word for dtype in DType]) | anything,
        "shape": st.lists(numbers, max_size=3) | anything,
        "data_offsets": st.lists(numbers, min_size=2, max_size=2) | anything,
    }
)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.text(max_size=3), entries | anything, max_size=4), st.integers(0, 12))
def test_any_header(folder, header, data_bytes):
    within(write(folder, header, data=bytes(data_bytes)))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=3), st.integers(0, 6))
def test_places_are_accepted_where_the_library_accepts_them(folder, places, data_bytes):
    header = {
        str(k): entry(shape=(end - begin if end > begin else 0,), begin=begin, end=end)
        for k, (begin, end) in enumerate(places)
    }
    path = write(folder, header, data=bytes(data_bytes))
    try:
        theirs = {name for name, _ in safetensors.deserialize(path.read_bytes())}
    except safetensors.SafetensorError:
        assert not within(path)
    else:
        assert within(path)
        assert theirs == {info.name for info in read_header(path)[0]}
