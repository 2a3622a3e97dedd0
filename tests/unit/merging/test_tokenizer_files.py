"""Tokenizer files: what is read of them, and that the library that made them reads what is written."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken as Added
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers

from modelyard.core.errors import MergeError
from modelyard.merging.recipe import ModelRef, TokenizerChoice, TokenRule
from modelyard.merging.tokenizer_files import read_tokenizer, write_tokenizer
from modelyard.merging.vocabulary import AddedToken, plan_vocabulary

LETTERS = list("abcdefghiknorstuw")
#: Its own ordinary token "king" is one that the base builds of other parts.
BASE = [*LETTERS, "Ġ", "in", "ing", "th", "Ġth", "Ġthe"]
BASE_MERGES = [("i", "n"), ("in", "g"), ("t", "h"), ("Ġ", "th"), ("Ġth", "e")]
OTHER = [*reversed(LETTERS), "Ġ", "ki", "in", "kin", "king", "Ġk"]
OTHER_MERGES = [("k", "i"), ("i", "n"), ("ki", "n"), ("kin", "g"), ("Ġ", "k")]
TEXT = "the bird is in the house, running"


def byte_level(folder, vocabulary, merges, *, added=(), lower=False, **config):
    """A byte-level BPE tokenizer's files, as its own library writes them."""
    library = Library(models.BPE(vocab={t: i for i, t in enumerate(vocabulary)}, merges=merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    if lower:
        library.normalizer = normalizers.Lowercase()
    for token in added:
        (library.add_special_tokens if token.special else library.add_tokens)([token])
    folder.mkdir()
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def special(text):
    return Added(text, special=True, normalized=False)


@pytest.fixture
def folders(tmp_path):
    """Two models: they share letters, ids differ, and each has an own special token."""
    base = byte_level(
        tmp_path / "base",
        BASE,
        BASE_MERGES,
        added=[special("<|end|>")],
        model_max_length=64,
        added_tokens_decoder={"23": {"content": "<|end|>", "special": True}},
    )
    other = byte_level(
        tmp_path / "other",
        OTHER,
        OTHER_MERGES,
        added=[special("<|user|>"), Added("<tool>", lstrip=True, normalized=True), special("<|end|>")],
    )
    return base, other


def written(folders, out, *, source="union", rows=None, tokens=None):
    """Plan, write into `out`, and give the plan."""
    tokenizers = [read_tokenizer(folder) for folder in folders]
    choice = TokenizerChoice(source=source, tokens=tokens or {})
    plan = plan_vocabulary(
        choice,
        tokenizers,
        rows=rows or [len(t.tokens) for t in tokenizers],
        base=0,
        chosen=None,
        models=[ModelRef(path=folder.name) for folder in folders],
    )
    write_tokenizer(choice, tokenizers, plan, out)
    return plan


def loaded(folder):
    return Library.from_file(str(folder / "tokenizer.json"))


def test_every_token_is_read_with_the_id_that_the_library_gives(folders):
    for folder in folders:
        assert dict(read_tokenizer(folder).tokens) == loaded(folder).get_vocab()
    assert read_tokenizer(folders[1]).added == {
        "<|user|>": AddedToken(special=True),
        "<tool>": AddedToken(lstrip=True, normalized=True),
        "<|end|>": AddedToken(special=True),
    }


def test_a_union_is_loaded_with_the_planned_ids(folders, tmp_path):
    plan = written(folders, tmp_path / "out")
    library = loaded(tmp_path / "out")
    expected = dict(read_tokenizer(folders[0]).tokens) | {t.text: t.id for t in plan.new}
    assert library.get_vocab() == expected
    assert dict(read_tokenizer(tmp_path / "out").tokens) == expected
    assert plan.tokens == len(expected) == library.get_vocab_size()


def test_a_union_keeps_ids_when_the_base_has_rows_beyond_its_tokens(folders, tmp_path):
    plan = written(folders, tmp_path / "out", rows=[64, 64])
    assert plan.size == 64
    assert all(loaded(tmp_path / "out").token_to_id(token.text) == token.id for token in plan.new)


def test_a_union_encodes_the_base_s_text_as_before_except_where_a_new_token_occurs(folders, tmp_path):
    plan = written(folders, tmp_path / "out")
    before, after = loaded(folders[0]), loaded(tmp_path / "out")
    assert not any(token.text in TEXT for token in plan.new)
    assert after.encode(TEXT).ids == before.encode(TEXT).ids
    assert after.decode(after.encode(TEXT).ids) == before.decode(before.encode(TEXT).ids)
    assert before.encode("a king").tokens == ["a", "Ġ", "k", "ing"]
    # the consequence that `write_tokenizer` tells: longest new token first, cut out before the rest
    assert after.encode("a king").tokens == ["a", "Ġ", "king"]
    assert after.encode("kinder").tokens[0] == "kin"


def test_special_tokens_stay_whole_and_special(folders, tmp_path):
    written(folders, tmp_path / "out")
    library = loaded(tmp_path / "out")
    encoded = library.encode("<|user|>the <tool>the<|end|>")
    assert encoded.tokens == ["<|user|>", "th", "e", " <tool>", "th", "e", "<|end|>"]
    assert library.decode(encoded.ids, skip_special_tokens=False) == "<|user|>the<tool>the<|end|>"
    assert library.decode(encoded.ids, skip_special_tokens=True) == "the<tool>the"
    assert read_tokenizer(tmp_path / "out").added["<tool>"] == AddedToken(lstrip=True, normalized=True)
    assert read_tokenizer(tmp_path / "out").added["king"] == AddedToken()


def test_a_new_token_is_found_although_the_base_changes_case(tmp_path, folders):
    base = byte_level(tmp_path / "lower", BASE, BASE_MERGES, lower=True)
    other = byte_level(tmp_path / "upper", [*LETTERS, "K"], [])
    written((base, other), tmp_path / "out")
    assert "K" in loaded(tmp_path / "out").encode("a K").tokens


def test_the_config_lists_the_new_tokens_where_it_lists_any(folders, tmp_path):
    plan = written(folders, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 64
    listed = {entry["content"]: int(number) for number, entry in config["added_tokens_decoder"].items()}
    assert listed == {"<|end|>": 23} | {token.text: token.id for token in plan.new}
    user = next(token for token in plan.new if token.text == "<|user|>")
    assert config["added_tokens_decoder"][str(user.id)] == {
        "content": "<|user|>", "special": True, "normalized": False,
        "single_word": False, "lstrip": False, "rstrip": False,
    }  # fmt: skip


def test_a_config_that_lists_no_tokens_is_left_as_it_is(folders, tmp_path):
    written(folders[::-1], tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer_config.json").read_text() == "{}"


def test_a_list_of_added_tokens_goes_on(folders, tmp_path):
    (folders[0] / "added_tokens.json").write_text('{"<|end|>": 23}')
    plan = written(folders, tmp_path / "out")
    listed = json.loads((tmp_path / "out" / "added_tokens.json").read_text())
    assert listed == {"<|end|>": 23} | {token.text: token.id for token in plan.new}


def test_the_base_s_files_are_copied_byte_for_byte(folders, tmp_path):
    (folders[0] / "special_tokens_map.json").write_text('{"eos_token":"<|end|>"}  ')
    (folders[0] / "tokenizer.model").write_bytes(b"\0\1")
    (folders[0] / "model.safetensors").write_bytes(b"no part of the tokenizer")
    written(folders, tmp_path / "out", source="base")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"]
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (folders[0] / name).read_bytes()


def test_a_union_of_equal_tokenizers_is_a_copy(folders, tmp_path):
    plan = written((folders[0], folders[0]), tmp_path / "out")
    assert plan.new == ()
    copied, original = (f / "tokenizer.json" for f in (tmp_path / "out", folders[0]))
    assert copied.read_bytes() == original.read_bytes()


def test_rules_add_tokens_to_the_base(folders, tmp_path):
    rules = {
        "<|user|>": TokenRule(model=ModelRef(path="other")),
        "<|start|>": TokenRule(model=ModelRef(path="base"), token="<|end|>"),
        "<plain>": TokenRule(),
    }
    plan = written(folders, tmp_path / "out", source="base", tokens=rules)
    assert [token.text for token in plan.new] == list(rules)
    encoded = loaded(tmp_path / "out").encode("<|user|><|start|>the<plain>")
    assert encoded.tokens == ["<|user|>", "<|start|>", "th", "e", "<plain>"]
    assert [encoded.ids[i] for i in (0, 1, -1)] == [24, 25, 26]
    added = read_tokenizer(tmp_path / "out").added
    assert added["<|start|>"].special  # as the token whose row it takes
    assert added["<|user|>"].special
    assert not added["<plain>"].special


def test_tokens_that_only_the_config_names_keep_their_ids_in_a_union(folders, tmp_path):
    decoder = {"25": {"content": "<mask>"}, "24": {"content": "<pad>", "special": True}}
    config = {"added_tokens_decoder": decoder}
    (folders[0] / "tokenizer_config.json").write_text(json.dumps(config))
    plan = written(folders, tmp_path / "out", rows=[26, 30])
    assert plan.new[0].id == 26
    library = loaded(tmp_path / "out")
    assert (library.token_to_id("<pad>"), library.token_to_id("<mask>")) == (24, 25)
    assert all(library.token_to_id(token.text) == token.id for token in plan.new)


def test_vocab_json_with_merges_is_read_and_extended(tmp_path, folders):
    folder = tmp_path / "gpt2"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(BASE)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in BASE_MERGES) + "\n")
    (folder / "added_tokens.json").write_text('{"<|end|>": 23}')
    (folder / "special_tokens_map.json").write_text(
        '{"eos_token": {"content": "<|end|>"}, "bos_token": "the", "additional_special_tokens": ["in"]}'
    )
    tokenizer = read_tokenizer(folder)
    assert tokenizer.tokens["<|end|>"] == 23
    assert tokenizer.added["in"].special
    plan = written((folder, folders[1]), tmp_path / "out")
    ids = {token.text: token.id for token in plan.new}
    assert json.loads((tmp_path / "out" / "added_tokens.json").read_text()) == {"<|end|>": 23} | ids
    assert (tmp_path / "out" / "merges.txt").read_bytes() == (folder / "merges.txt").read_bytes()
    assert read_tokenizer(tmp_path / "out").tokens.items() >= ids.items()
    assert read_tokenizer(tmp_path / "out").added["<|user|>"].special


@pytest.mark.parametrize("kind", ["unigram", "wordpiece", "wordlevel"])
def test_other_models_are_read_and_extended(tmp_path, folders, kind):
    words = ["<unk>", "▁the", "the", "▁", "s"]
    numbered = {word: i for i, word in enumerate(words)}
    model = {
        "unigram": lambda: models.Unigram([(word, -1.0) for word in words], unk_id=0),
        "wordpiece": lambda: models.WordPiece(numbered, unk_token="<unk>"),
        "wordlevel": lambda: models.WordLevel(numbered, unk_token="<unk>"),
    }[kind]()
    folder = tmp_path / kind
    folder.mkdir()
    Library(model).save(str(folder / "tokenizer.json"))
    assert dict(read_tokenizer(folder).tokens) == numbered
    plan = written((folder, folders[1]), tmp_path / "out")
    assert all(loaded(tmp_path / "out").token_to_id(token.text) == token.id for token in plan.new)


def test_a_text_in_the_vocabulary_keeps_its_id_whatever_the_list_says(tmp_path, folders):
    path = folders[0] / "tokenizer.json"
    document = json.loads(path.read_text())
    document["added_tokens"].append(
        {"id": 99, "content": "the", **dict.fromkeys(("special", "lstrip"), False)}
    )
    document["model"]["vocab"]["the"] = 5
    path.write_text(json.dumps(document))
    assert read_tokenizer(folders[0]).tokens["the"] == 5


def test_sentencepiece_alone_says_how_to_convert_it(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\n\0")
    with pytest.raises(
        MergeError, match=r"tokenizer\.model only, which cannot be read here; convert it to tok"
    ):
        read_tokenizer(tmp_path)


def test_a_folder_without_tokenizer_is_told(tmp_path):
    with pytest.raises(
        MergeError, match=r"neither tokenizer\.json nor vocab\.json.*; put the tokenizer's files"
    ):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("tokenizer.json", "{", "cannot be read as JSON"),
        ("tokenizer.json", "\ud800", "cannot be read as JSON"),
        ("tokenizer.json", "[]", "holds a JSON list, not a mapping"),
        ("tokenizer.json", "{}", "has no model.vocab"),
        ("tokenizer.json", '{"model": {"vocab": "abc"}}', "no mapping of tokens to ids"),
        ("tokenizer.json", '{"model": {"vocab": {"a": true}}}', "the id of 'a' is True, not an integer"),
        ("tokenizer.json", '{"model": {"vocab": {"a": -1}}}', "the id of 'a' is -1"),
        ("tokenizer.json", '{"model": {"vocab": [["a"], "b"]}}', "something other than"),
        (
            "tokenizer.json",
            '{"model": {"vocab": {}}, "added_tokens": {"a": 1}}',
            "added_tokens is not a list",
        ),
        ("tokenizer.json", '{"model": {"vocab": {}}, "added_tokens": [{"id": 1}]}', "has no content"),
        (
            "tokenizer.json",
            '{"model": {"vocab": {}}, "added_tokens": [{"content": "a"}]}',
            "id of 'a' is None",
        ),
        ("vocab.json", '{"a": 1.5}', "the id of 'a' is 1.5"),
        ("added_tokens.json", '{"a": "1"}', "the id of 'a' is '1'"),
    ],
)
def test_broken_files_are_told_by_name(tmp_path, name, text, told):
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(MergeError, match=told) as caught:
        read_tokenizer(tmp_path)
    assert str(tmp_path / name) in str(caught.value)
