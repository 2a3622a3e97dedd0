"""`heads export` and `heads import` on a real, tiny base."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from modelyard.cli.heads import export
from modelyard.core.errors import HeadsError
from modelyard.heads.config import HeadsConfig, read_record
from modelyard.heads.formats import LAYOUTS
from modelyard.heads.formats.converting import export_heads
from modelyard.heads.model import Heads, load_heads, save_heads

import_ = importlib.import_module("modelyard.cli.heads.import_")


def call(command, *arguments):
    """Run a command as from the shell; errors of ours are raised."""
    return CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False)


@pytest.fixture
def stored(tiny_base, tmp_path):
    """A function that stores random heads on the tiny base."""

    def store(*, shortlist=None, own=False):
        config = HeadsConfig(
            heads=2, layers=1, hidden_size=tiny_base.hidden_size, vocab_size=tiny_base.vocab_size,
            projection="own" if own else "shared",
            drafted=tiny_base.vocab_size if shortlist is None else len(shortlist),
            base=tiny_base.fingerprint, base_name="tiny",
        )  # fmt: skip
        heads = Heads(config, tiny_base.projection_vh, None if shortlist is None else torch.tensor(shortlist))
        for parameter in heads.blocks.parameters():
            parameter.data.normal_(generator=torch.Generator().manual_seed(1))
        save_heads(heads, tmp_path / "heads", {})
        return tmp_path / "heads"

    return store


def test_the_names_of_layouts_stand_twice_and_are_the_same():
    assert set(export.LAYOUT_NAMES) == set(LAYOUTS)


@pytest.mark.parametrize("layout", export.LAYOUT_NAMES)
def test_export_and_import_bring_back_the_same_heads(layout, stored, tiny_base, tiny_base_folder, tmp_path):
    heads, out, back = stored(), tmp_path / "out", tmp_path / "back"
    done = call(export.command, heads, "--base", tiny_base_folder, "--format", layout, "--output", out)
    assert done.exit_code == 0, done.output
    assert "are the same numbers" in done.output and f"layout      {layout}" in done.output
    read = call(import_.command, out, "--base", tiny_base_folder, "--output", back, "--json")
    record = json.loads(read.stdout)
    assert record["layout"] == ("medusa2" if layout == "tgi" else layout)
    assert read_record(back).config.base == tiny_base.fingerprint
    x_nh = torch.randn(3, tiny_base.hidden_size)
    first, second = load_heads(heads, tiny_base), load_heads(back, tiny_base)
    assert torch.equal(first(x_nh), second(x_nh))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["back", "heads", "out"]


def test_the_base_is_found_in_the_record(stored, tiny_base_folder, tmp_path):
    heads = stored()
    asked = (heads, "--format", "medusa2", "--output", tmp_path / "out")
    with pytest.raises(HeadsError, match=r"heads: their base 'tiny' is not there; give it by --base"):
        call(export.command, *asked)
    record = json.loads((heads / "heads.json").read_text())
    (heads / "heads.json").write_text(json.dumps({**record, "base_name": str(tiny_base_folder)}))
    assert "are the same numbers" in call(export.command, *asked).output


def test_without_verification_nothing_is_claimed(stored, tiny_base_folder, tmp_path):
    options = ("--base", tiny_base_folder, "--format", "medusa2", "--output", tmp_path / "out")
    done = call(export.command, stored(), *options, "--no-verify", "--base-name", "my/base")
    assert "not verified" in done.output and "same numbers" not in done.output
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    modes = {each.stat().st_mode for each in (tmp_path / "out").iterdir()}
    assert len(modes) == 1, "all files can be read by the same people"
    assert config["base_model_name_or_path"] == "my/base" and config["version"] == "2"


def test_what_cannot_be_written_leaves_nothing(stored, tiny_base_folder, tmp_path):
    heads = stored(own=True, shortlist=[3, 9, 4])
    options = ("--base", tiny_base_folder, "--output", tmp_path / "out")
    for layout in ("medusa", "tgi", "vllm", "economize", "medusa2"):
        with pytest.raises(HeadsError, match="of their own"):
            call(export.command, heads, *options, "--format", layout)
    assert [each.name for each in tmp_path.iterdir()] == ["heads"]
    (tmp_path / "out").mkdir()
    with pytest.raises(HeadsError, match="is there already"):
        call(export.command, heads, *options, "--format", "medusa")


def test_a_dropped_shortlist_is_said(stored, tiny_base_folder, tmp_path):
    heads = stored(shortlist=[3, 9, 4])
    said = {}
    for layout in ("medusa2", "vllm"):
        options = ("--base", tiny_base_folder, "--output", tmp_path / layout, "--format", layout, "--json")
        said[layout] = json.loads(call(export.command, heads, *options).stdout)
    assert any("shortlist of 3 tokens is dropped" in note for note in said["medusa2"]["notes"])
    assert any("dropped" in note for note in said["vllm"]["notes"])
    assert said["vllm"]["comparison"]["identical"] and said["vllm"]["comparison"]["tokens"] == 3


def test_a_broken_writer_is_caught_by_reading_back(stored, tiny_base_folder, tmp_path):
    def write(heads, folder, base):
        heads.blocks[1][0].linear.bias[0] += 0.5
        notes = LAYOUTS["medusa2"].write(heads, folder, base)
        heads.blocks[1][0].linear.bias[0] -= 0.5
        return notes

    broken = replace(LAYOUTS["medusa2"], write=write)
    with pytest.raises(HeadsError, match=r"differ by up to \d"):
        export_heads(stored(), tiny_base_folder, tmp_path / "out", layout=broken)
    assert [each.name for each in tmp_path.iterdir()] == ["heads"]
