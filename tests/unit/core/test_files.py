"""Files are written whole or not at all."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.files import read_json, write_json, write_whole


@pytest.mark.parametrize("durable", [True, False])
def test_bytes_and_text_arrive_and_parents_are_made(tmp_path, durable):
    path = tmp_path / "deep/er/file"
    write_whole(path, "é\n", durable=durable)
    assert path.read_bytes() == "é\n".encode()
    write_whole(path, b"\x00\xff", durable=durable)
    assert path.read_bytes() == b"\x00\xff"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_reader_sees_the_old_or_the_new_never_a_part(tmp_path):
    path = tmp_path / "file"
    contents = {b"a" * 300_000, b"b" * 700_000}
    write_whole(path, min(contents), durable=False)
    seen, stop = set(), threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(30):
        for content in contents:
            write_whole(path, content, durable=False)
    stop.set()
    reader.join()
    assert seen <= contents


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"old": True})
    with pytest.raises(ValueError):
        write_json(path, {"new": float("nan")})
    with pytest.raises(TypeError):
        write_whole(path, 3)  # type: ignore[arg-type]
    assert read_json(path) == {"old": True}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_a_full_disk_leaves_the_old_content_and_no_litter(tmp_path):
    """A limit on the size of files stands in for the full disk."""
    path = tmp_path / "file"
    path.write_text("old")
    code = (
        "import sys; from pathlib import Path; from modelyard.core.files import write_whole\n"
        "try:\n    write_whole(Path(sys.argv[1]), b'x' * 100_000)\n"
        "except OSError as error:\n    print(error.errno)"
    )

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    answer = subprocess.run(
        [sys.executable, "-c", code, str(path)], preexec_fn=limit, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "27"  # EFBIG
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_json_comes_back_as_it_was(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value, durable=False)
    assert read_json(path) == value
    assert path.read_bytes().endswith(b"\n")


def test_reading_lets_the_plain_errors_pass(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_bytes(b'{"half": ')
    with pytest.raises(ValueError):
        read_json(tmp_path / "bad.json")
