"""The tables behind the pictures, and that a picture becomes a file."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from tests.unit.merging.made import llama, ref, source, written

from modelyard.core.errors import MergeError
from modelyard.merging.contributions import contributions
from modelyard.merging.differences import compare
from modelyard.merging.engine import MergeOptions, run_merge
from modelyard.merging.measuring import open_model
from modelyard.merging.pictures import check_picture, comparison_picture, contribution_picture, write_picture
from modelyard.merging.planning import plan_merge
from modelyard.merging.recipe import Recipe

ROWS = ["input_layernorm", "mlp.down_proj", "self_attn.q_proj"]


@pytest.fixture
def trio(tmp_path):
    base = llama(0, layers=12)
    tensors = {"base": base} | {
        n: llama(i, layers=12, around=base, spread=0.01) for i, n in enumerate("ab", start=1)
    }
    for name, each in tensors.items():
        written(tmp_path / name, each)
    return tensors


@pytest.fixture
def drawn(trio, tmp_path):
    models = [open_model(str(tmp_path / name)) for name in ("a", "b", "base")]
    return comparison_picture(compare(*models), title="A = a, B = b")


def test_a_cell_is_what_the_tensor_measures(drawn, trio):
    assert drawn.grid.rows == ROWS and drawn.grid.columns == [str(n) for n in range(12)]
    a, b, base = (trio[n]["model.layers.10.mlp.down_proj.weight"].astype(float) for n in ("a", "b", "base"))
    cells = [each.values[1, 10] for each in drawn.maps]
    norm = np.linalg.norm
    assert cells[0] == pytest.approx(100 * norm(a - b) / norm(b))
    assert cells[2] == pytest.approx(100 * norm(a - base) / norm(base))
    assert cells[3] == pytest.approx(100 * norm(b - base) / norm(base))
    cosine = ((a - base) * (b - base)).sum() / norm(a - base) / norm(b - base)
    assert cells[4] == pytest.approx(np.degrees(np.arccos(cosine)))
    assert cells[5] == pytest.approx(100 * np.mean(np.sign(a - base) != np.sign(b - base)))


def test_tensors_outside_of_the_layers_and_the_whole_stand_in_the_note(drawn, trio):
    told = dict(part.removesuffix(" %").rsplit(" ", 1) for part in drawn.maps[0].note.split("   "))
    assert list(told) == ["whole model", "lm_head", "embed_tokens", "norm"]
    a, b = (trio[n]["lm_head.weight"].astype(float) for n in "ab")
    assert float(told["lm_head"]) == pytest.approx(100 * np.linalg.norm(a - b) / np.linalg.norm(b), rel=5e-3)


def test_all_layers_together_by_module(drawn, trio):
    (row,) = [values for name, values in drawn.by_module if name == "self_attn.q_proj"]
    names = [n for n in trio["a"] if "q_proj" in n]
    a, b = (np.concatenate([trio[m][n].astype(float).ravel() for n in names]) for m in "ab")
    assert row[0] == pytest.approx(100 * np.linalg.norm(a - b) / np.linalg.norm(b))


def test_two_stacks_and_a_layer_without_a_module(tmp_path):
    one = np.ones((2, 2), np.float32)
    tensors = {f"encoder.layer.{i}.w.weight": one for i in range(2)} | {"decoder.layer.0.v.weight": one}
    for n in "ab":
        written(tmp_path / n, tensors)
    found = compare(*[open_model(str(tmp_path / n)) for n in "ab"])
    picture = comparison_picture(found, title="t")
    assert picture.grid.columns == ["decoder.layer.0", "encoder.layer.0", "encoder.layer.1"]
    assert len(picture.maps) == 2
    blank = np.isnan(picture.maps[0].values)
    assert dict(zip(picture.grid.rows, blank.tolist(), strict=True)) == {
        "v": [False, True, True],
        "w": [True, False, False],
    }


def test_contributions_are_a_map_a_parent_and_what_they_explain(trio, tmp_path):
    sources = tuple(source(tmp_path / n, weight=w) for n, w in (("a", 0.25), ("b", -0.5)))
    recipe = Recipe(method="task_arithmetic", base_model=ref(tmp_path / "base"), models=sources)
    run_merge(plan_merge(recipe, file="r.yml", folder=Path()), tmp_path / "out", MergeOptions())
    picture = contribution_picture(contributions(tmp_path / "out"), title="out")
    values = [each.values for each in picture.maps]
    assert values[0] == pytest.approx(0.25, abs=1e-4) and values[1] == pytest.approx(-0.5, abs=1e-4)
    assert values[2] == pytest.approx(100.0) and values[2].shape == (3, 12)
    assert [each.centre for each in picture.maps] == [0.0, 0.0, None]


def test_a_png_of_a_sane_size(drawn, tmp_path):
    write_picture(drawn, tmp_path / "d.png")
    data = (tmp_path / "d.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and 20_000 < len(data) < 2_000_000
    width, height = struct.unpack(">II", data[16:24])
    assert width == 1840 and 1000 < height < 3000


def test_a_page_that_needs_no_other_file(drawn, tmp_path):
    write_picture(drawn, tmp_path / "d.html")
    text = (tmp_path / "d.html").read_text()
    assert text.count("<svg") == 1 and "self_attn.q_proj" in text and "A = a, B = b" in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*', text)


def test_what_cannot_be_drawn_is_told_before_the_work(tmp_path):
    with pytest.raises(MergeError, match=r"ends in \.png or \.html"):
        check_picture(tmp_path / "x.gif")
    with pytest.raises(MergeError, match="is not a folder"):
        check_picture(tmp_path / "none" / "x.png")
    check_picture(tmp_path / "x.png")


def test_models_without_layers_have_no_picture(tmp_path):
    for n in "ab":
        written(tmp_path / n, {"w": np.ones(3)})
    found = compare(*[open_model(str(tmp_path / n)) for n in "ab"])
    with pytest.raises(MergeError, match="nothing can be drawn"):
        comparison_picture(found, title="t")
