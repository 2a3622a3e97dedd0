"""Layouts of heads: what each folder means to who reads it, and that there and back keeps every logit."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from modelyard.core.errors import CheckpointError, HeadsError
from modelyard.heads.config import HeadsConfig
from modelyard.heads.formats import LAYOUTS, layout_of
from modelyard.heads.formats.comparing import compare
from modelyard.heads.formats.layout import BaseFacts
from modelyard.heads.model import Heads

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def base_facts(*, hidden=8, vocab=20, dtype=torch.float32, seed=0):
    """A base of which only the projection is real."""
    chance = torch.Generator().manual_seed(seed + 1)
    rows_vh = torch.randn(vocab, hidden, generator=chance).to(dtype)
    return BaseFacts(projection_vh=rows_vh, fingerprint="sha256:base", name="some/base")


def random_heads(base, *, heads=3, layers=1, own=False, shortlist=None, dtype=torch.float32, seed=0):
    """Heads whose every weight is drawn."""
    config = HeadsConfig(
        heads=heads, layers=layers, hidden_size=base.hidden_size, vocab_size=base.vocab_size,
        projection="own" if own else "shared",
        drafted=base.vocab_size if shortlist is None else len(shortlist),
        base=base.fingerprint, base_name=base.name,
    )  # fmt: skip
    made = Heads(config, base.projection_vh.to(dtype), None if shortlist is None else torch.tensor(shortlist))
    chance = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=chance)
    return made.to(dtype).requires_grad_(False)


def written(heads, base, name, folder):
    """The notes of writing into a folder."""
    return LAYOUTS[name].write(heads, folder, base)


def states(base, count=6):
    return torch.randn(count, base.hidden_size, generator=torch.Generator().manual_seed(7))


def block(x_nh, weight_hh, bias_h):
    return x_nh + torch.nn.functional.silu(x_nh @ weight_hh.float().T + bias_h.float())


def as_medusa_loads(folder, base, x_nh, *, file="medusa_lm_head.safetensors"):
    """Logits of every head as FasterDecoding's (of several blocks as TGI's) code would compute them."""
    config = json.loads((folder / "config.json").read_text())
    assert "architectures" not in config and config["base_model_name_or_path"] == base.name
    tensors = load_file(folder / file)
    logits = []
    for k in range(config["medusa_num_heads"]):
        y_nh = x_nh
        for j in range(config["medusa_num_layers"]):
            y_nh = block(y_nh, tensors[f"{k}.{j}.linear.weight"], tensors[f"{k}.{j}.linear.bias"])
        shared = config.get("version") == "2"
        rows = base.projection_vh if shared else tensors[f"{k}.{config['medusa_num_layers']}.weight"]
        logits.append(y_nh @ rows.float().T)
    return torch.stack(logits)


def as_vllm_loads(folder, base, x_nh):
    """As vLLM 0.32 does: biases on request, one projection on request, no map (its loader refuses one)."""
    config = json.loads((folder / "config.json").read_text())
    assert [key for key in config if "num" in key and "heads" in key] == ["num_heads"]
    assert [key for key in config if "num" in key and "layers" in key] == ["num_hidden_layers"]
    assert config["hidden_size"] == base.hidden_size and config["model_type"] == "medusa"
    tensors = load_file(folder / "model.safetensors")
    logits = []
    for k in range(config["num_heads"]):
        y_nh = x_nh
        for j in range(config["num_hidden_layers"]):
            bias = tensors[f"{k}.{j}.linear.bias"] if config.get("medusa_fc_bias") else torch.zeros(1)
            y_nh = block(y_nh, tensors[f"{k}.{j}.linear.weight"], bias)
        own = f"{k}.{config['num_hidden_layers']}.weight"
        rows = tensors["lm_head.weight" if config.get("original_lm_head") else own]
        assert len(rows) == config["vocab_size"] == config["truncated_vocab_size"]
        logits.append(y_nh @ rows.float().T)
    return torch.stack(logits)


def as_economize_loads(folder, base, x_nh):
    """As economize 0.3.2 does with heads of their own projection."""
    document = json.loads((folder / "economize_config.json").read_text())
    (technique,) = document["techniques"]
    assert set(technique) == {"technique", "config"} and technique["technique"] == "medusa"
    config, tensors = technique["config"], load_file(folder / "economize_model.safetensors")
    logits = []
    for k in range(config["num_heads"]):
        y_nh, name = x_nh, f"medusa.heads.{k}"
        for j in range(config["num_layers"]):
            linear = f"{name}.blocks.{j}.linear"
            y_nh = block(y_nh, tensors[f"{linear}.weight"], tensors[f"{linear}.bias"])
        logits.append(y_nh @ tensors[f"{name}.proj.weight"].float().T)
    return torch.stack(logits)


READERS = {
    "medusa": as_medusa_loads, "medusa2": as_medusa_loads, "tgi": as_medusa_loads, "vllm": as_vllm_loads,
    "economize": as_economize_loads,
}  # fmt: skip


@given(
    name=st.sampled_from(sorted(LAYOUTS)), heads=st.integers(1, 4), layers=st.integers(1, 3),
    hidden=st.integers(1, 12), vocab=st.integers(6, 40), own=st.booleans(), short=st.booleans(),
    dtype=st.sampled_from(sorted(DTYPES)), seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_there_and_back_every_logit_is_the_same(name, heads, layers, hidden, vocab, own, short, dtype, seed):
    base = base_facts(hidden=hidden, vocab=vocab, dtype=DTYPES[dtype], seed=seed)
    shortlist = [vocab - 1, 0, 3] if short else None
    made = random_heads(
        base, heads=heads, layers=layers, own=own, shortlist=shortlist, dtype=DTYPES[dtype], seed=seed
    )
    with TemporaryDirectory() as place:
        folder = Path(place)
        if own and (short or name == "medusa2"):
            with pytest.raises(HeadsError, match="their own"):
                written(made, base, name, folder)
            assert list(folder.iterdir()) == []
            return
        written(made, base, name, folder)
        found = layout_of(folder).read(folder, base)
    back = found.heads
    assert back.config.projection == ("own" if own else "shared")
    assert not back.config.shortlisted
    assert (back.config.heads, back.config.layers) == (heads, layers)
    assert {tensor.dtype for tensor in back.parameters()} == {DTYPES[dtype]}
    compared = compare(made, back, states(base))
    assert compared.identical and compared.tokens == len(shortlist or range(vocab))
    if back.config.drafted == made.config.drafted:
        x_nh = states(base).to(DTYPES[dtype])
        assert torch.equal(made(x_nh), back(x_nh))


@pytest.mark.parametrize("name", sorted(LAYOUTS))
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("short", [False, True])
def test_who_reads_a_folder_computes_our_logits(name, layers, own, short, tmp_path):
    base = base_facts()
    made = random_heads(base, layers=layers, own=own, shortlist=[4, 1, 17] if short else None)
    if own and (short or name == "medusa2"):
        return  # refused, as the test above shows
    written(made, base, name, tmp_path)
    theirs = READERS[name](tmp_path, base, states(base))
    assert theirs.shape[-1] == base.vocab_size
    torch.testing.assert_close(theirs[..., made.shortlist], made(states(base)))


def test_a_difference_is_seen(tmp_path):
    base = base_facts()
    made = random_heads(base)
    written(made, base, "medusa", tmp_path)
    back = layout_of(tmp_path).read(tmp_path, base).heads
    back.blocks[2][0].linear.bias[5] += 1e-3
    assert 0 < compare(made, back, states(base)).largest_difference < 0.1
    with pytest.raises(HeadsError, match="others"):
        compare(made, random_heads(base, heads=2), states(base))
    with pytest.raises(HeadsError, match="1 of the tokens"):
        compare(random_heads(base, shortlist=[1, 2]), random_heads(base, shortlist=[2, 3, 4]), states(base))


def test_the_pt_file_alone_is_enough_and_is_not_executed(tmp_path):
    base = base_facts()
    made = random_heads(base, own=True, dtype=torch.bfloat16)
    written(made, base, "medusa", tmp_path)
    theirs = torch.load(tmp_path / "medusa_lm_head.pt", weights_only=True)
    assert torch.equal(theirs["2.1.weight"], made.projection(2))
    (tmp_path / "medusa_lm_head.safetensors").unlink()
    layout = layout_of(tmp_path)
    assert layout.name == "medusa"
    assert compare(made, layout.read(tmp_path, base).heads, states(base)).identical

    flag = tmp_path / "executed"
    _replace_pickle(tmp_path / "medusa_lm_head.pt", _Touches(str(flag)))
    with pytest.raises(CheckpointError, match="was not executed"):
        layout_of(tmp_path).read(tmp_path, base)
    assert not flag.exists()


class _Touches:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def _replace_pickle(path, value):
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, pickle.dumps(value) if name.endswith("data.pkl") else data)


def rewrite(folder, file="medusa_lm_head.safetensors", config="config.json", *, tensors=None, **keys):
    """Change the tensors of a folder by a function, and keys of its config (None takes one away)."""
    if tensors is not None:
        save_file(
            {k: v.contiguous().clone() for k, v in tensors(load_file(folder / file)).items()}, folder / file
        )
    document = {**json.loads((folder / config).read_text()), **keys}
    (folder / config).write_text(json.dumps({k: v for k, v in document.items() if v is not None}))


def test_the_tensors_decide_how_many_heads_there_are(tmp_path):
    base = base_facts()
    made = random_heads(base, heads=5, own=True)
    written(made, base, "medusa", tmp_path)
    rewrite(tmp_path, medusa_num_heads=3, medusa_num_layers=2)
    found = layout_of(tmp_path).read(tmp_path, base)
    assert found.heads.config.heads == 5 and compare(made, found.heads, states(base)).identical
    notes = " ".join(found.notes)
    assert "states 3 heads, the tensors hold 5" in notes and "states 2 residual blocks" in notes


def test_repeated_blocks_are_named(tmp_path):
    base = base_facts()
    made = random_heads(base, layers=2, own=True)
    assert "FasterDecoding" in " ".join(written(made, base, "medusa", tmp_path))
    assert not any("one block repeated" in note for note in layout_of(tmp_path).read(tmp_path, base).notes)

    def repeat(tensors):
        return tensors | {n.replace(".0.", ".1."): t for n, t in tensors.items() if ".0.linear" in n}

    rewrite(tmp_path, tensors=repeat)
    found = layout_of(tmp_path).read(tmp_path, base)
    assert any("2 blocks of each head are one block repeated" in note for note in found.notes)


def test_rows_that_pad_a_vocabulary_are_cut_and_missing_ones_cannot_be_drafted(tmp_path):
    base = base_facts()
    made = random_heads(base, own=True)
    written(made, base, "medusa", tmp_path)

    def resize(rows):
        def change(tensors):
            return {
                name: torch.cat([t, t])[:rows] if name.endswith(".1.weight") else t
                for name, t in tensors.items()
            }

        return change

    rewrite(tmp_path, tensors=resize(24))
    found = layout_of(tmp_path).read(tmp_path, base)
    assert compare(made, found.heads, states(base)).identical
    assert any("24 rows for 20 tokens" in note for note in found.notes)
    rewrite(tmp_path, tensors=resize(15))
    fewer = layout_of(tmp_path).read(tmp_path, base).heads
    assert fewer.config.drafted == 15 and fewer.shortlist.tolist() == list(range(15))
    assert torch.equal(fewer(states(base)), made(states(base))[..., :15])


def test_vllms_own_names_and_a_missing_bias_are_read(tmp_path):
    base = base_facts()
    made = random_heads(base, own=True, layers=2)
    written(made, base, "vllm", tmp_path)

    def rename(tensors):
        named = {}
        for name, tensor in tensors.items():
            k, j, *rest = name.split(".")
            own = f"lm_heads.{k}.weight"
            named[f"medusa_heads.{own}" if rest == ["weight"] else f"blocks.{k}.layers.{j}.{rest[1]}"] = (
                tensor
            )
        return named

    rewrite(tmp_path, "model.safetensors", tensors=rename)
    assert compare(made, layout_of(tmp_path).read(tmp_path, base).heads, states(base)).identical
    rewrite(tmp_path, medusa_fc_bias=None)
    assert any("drops these biases" in note for note in layout_of(tmp_path).read(tmp_path, base).notes)

    rewrite(tmp_path, "model.safetensors", tensors=lambda t: {n: v for n, v in t.items() if "bias" not in n})
    found = layout_of(tmp_path).read(tmp_path, base)
    assert any("without biases" in note for note in found.notes)
    assert all(block[j].linear.bias.abs().max() == 0 for block in found.heads.blocks for j in (0, 1))


def test_vllm_cuts_a_whole_projection_to_its_map(tmp_path):
    base = base_facts()
    made = random_heads(base, shortlist=[9, 2, 5])
    written(made, base, "vllm", tmp_path)

    def mapped(rows_vh):
        def change(tensors):
            blocks = {n: t for n, t in tensors.items() if ".linear." in n}
            return blocks | {"lm_heads.0.weight": rows_vh, "token_map": made.shortlist}

        return change

    for rows in (base.projection_vh, made.shared_sh):
        rewrite(tmp_path, "model.safetensors", tensors=mapped(rows), truncated_vocab_size=3)
        found = layout_of(tmp_path).read(tmp_path, base).heads
        assert found.config.projection == "shared" and found.shortlist.tolist() == [9, 2, 5]
        assert torch.equal(found(states(base)), made(states(base)))
    rewrite(
        tmp_path, "model.safetensors", tensors=lambda t: {n: v for n, v in t.items() if "lm_head" not in n}
    )
    with pytest.raises(HeadsError, match="original_lm_head"):
        layout_of(tmp_path).read(tmp_path, base)


def test_a_projection_that_is_not_the_bases_own_stays_one_of_their_own(tmp_path):
    base = base_facts()
    written(random_heads(base), base, "vllm", tmp_path)
    other = base_facts(seed=5)
    found = layout_of(tmp_path).read(tmp_path, other).heads
    assert found.config.projection == "own" and torch.equal(found.projection(1), base.projection_vh)


def test_shared_heads_of_economize_are_refused(tmp_path):
    base = base_facts()
    written(random_heads(base), base, "economize", tmp_path)
    entry = json.loads((tmp_path / "economize_config.json").read_text())["techniques"][0]
    entry["config"]["head"] = "shared"
    rewrite(tmp_path, config="economize_config.json", techniques=[entry])
    with pytest.raises(HeadsError, match="before the base's final norm"):
        layout_of(tmp_path).read(tmp_path, base)
    rewrite(tmp_path, config="economize_config.json", techniques=[entry, entry])
    with pytest.raises(HeadsError, match="2 sets"):
        layout_of(tmp_path).read(tmp_path, base)


def test_tgi_gets_version_1_where_version_2_cannot_be(tmp_path):
    base = base_facts()
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert "version 2" in " ".join(written(random_heads(base), base, "tgi", one))
    assert "version 1" in " ".join(written(random_heads(base, layers=2), base, "tgi", two))
    assert layout_of(one).name == "medusa2" and layout_of(two).name == "medusa"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {n: v for n, v in t.items() if not n.startswith("1.")}, "block 1.0 is missing"),
        (lambda t: {n: v for n, v in t.items() if n.endswith(".1.weight")}, "no residual blocks|after 0"),
        (lambda t: {n: v for n, v in t.items() if n != "1.1.weight"}, "projections of heads"),
        (lambda t: t | {"2.0.linear.bias": torch.zeros(9)}, r"hidden size is 8"),
        (lambda t: t | {"2.1.weight": torch.zeros(20, 9)}, r"hidden size is 8"),
        (lambda t: t | {"norm.weight": torch.zeros(9)}, "'norm.weight' is no part"),
        (lambda t: t | {"0.2.weight": torch.zeros(20, 8)}, "does not come after"),
    ],
)  # fmt: skip
def test_what_does_not_hang_together_is_refused(change, message, tmp_path):
    base = base_facts()
    written(random_heads(base, own=True), base, "medusa", tmp_path)
    rewrite(tmp_path, tensors=change)
    with pytest.raises(HeadsError, match=message):
        LAYOUTS["medusa"].read(tmp_path, base)


def test_folders_of_no_or_of_two_layouts_are_refused(tmp_path):
    base = base_facts()
    with pytest.raises(HeadsError, match="looks like none"):
        layout_of(tmp_path)
    with pytest.raises(HeadsError, match="is no folder"):
        layout_of(tmp_path / "nothing")
    written(random_heads(base), base, "medusa2", tmp_path)
    written(random_heads(base), base, "economize", tmp_path)
    with pytest.raises(HeadsError, match="looks like medusa2, economize"):
        layout_of(tmp_path)
    for odd in ({"architectures": 5}, {"architectures": ["Llama"]}, {"medusa_num_heads": "many"}):
        (tmp_path / "config.json").write_text(json.dumps(odd))
        with pytest.raises(HeadsError, match="looks like medusa2, economize"):
            layout_of(tmp_path)
    (tmp_path / "economize_config.json").unlink()
    assert layout_of(tmp_path).read(tmp_path, base).heads.config.heads == 3
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(HeadsError, match="not a JSON object"):
        layout_of(tmp_path)
