"""Reading a model's tokenizer files, and writing those of a merged model.

`tokenizer.json` is the main format; `vocab.json` with `merges.txt` is the other one that is read. Knows
nothing of embedding rows: which tokens the output has is the vocabulary plan's to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelyard.core.errors import MergeError
from modelyard.core.files import write_json, write_whole
from modelyard.merging.recipe import TokenizerChoice
from modelyard.merging.vocabulary import AddedToken, NewToken, Tokenizer, VocabularyPlan

__all__ = ["TOKENIZER_FILES", "Tokenizer", "read_tokenizer", "write_tokenizer"]

#: Every file that a tokenizer may consist of.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)
#: Formats that hold a vocabulary but need a library of their own to be read.
_UNREAD = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json", "vocab.txt")


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokens of a checkpoint's tokenizer.

    Where files disagree on a token's id, the vocabulary wins over added tokens and `tokenizer.json`
    over the other files, as readers of `tokenizer.json` have it.

    Raises:
        MergeError: The folder has no tokenizer that can be read, or a file of it is broken.
    """
    document = _document(folder / "tokenizer.json")
    if document is not None:
        tokens = _vocabulary(document, folder / "tokenizer.json")
        entries = _entries(document.get("added_tokens") or [], folder / "tokenizer.json")
    else:
        tokens, entries = _ids(_document(folder / "vocab.json"), folder / "vocab.json"), []
    if not tokens and not entries:
        raise MergeError(_nothing_to_read(folder))
    entries += _configured(folder)
    named = _named_special(folder)
    added: dict[str, AddedToken] = {}
    for text, number, flags in entries:
        tokens.setdefault(text, number)
        added.setdefault(text, flags)
    ordinary = (text for text in named if text in tokens and text not in added)
    added.update(dict.fromkeys(ordinary, AddedToken(special=True)))
    return Tokenizer(tokens=tokens, added=added, folder=folder)


def write_tokenizer(
    choice: TokenizerChoice, tokenizers: Sequence[Tokenizer], plan: VocabularyPlan, out: Path
) -> None:
    """Write the output's tokenizer files into `out`.

    The files of the tokenizer that the plan is built on are copied byte for byte. Tokens that the plan
    has beyond it become added tokens: with the flags of the model that they come from, or of the token
    whose row a rule gives them, else plain ones. An added token is cut out of the text before the
    vocabulary is applied, so text is encoded as before except where the text of a new token occurs in
    it: with a new ordinary token "ing", "king" becomes "k" and "ing".

    Raises:
        MergeError: A file of the source is broken.
    """
    source = tokenizers[plan.source]
    for name in TOKENIZER_FILES:
        if (source.folder / name).is_file():
            write_whole(out / name, (source.folder / name).read_bytes())
    if not plan.new:
        return
    flags = {token.text: _flags(token, choice, tokenizers) for token in plan.new}
    late = {text: source.tokens[text] for text in source.added}
    ids = {**late, **{token.text: token.id for token in plan.new}}
    _extend_main(out / "tokenizer.json", ids, {**source.added, **flags})
    _extend_rest(out, {token.text: token.id for token in plan.new}, flags)


def _flags(token: NewToken, choice: TokenizerChoice, tokenizers: Sequence[Tokenizer]) -> AddedToken:
    """How a new token is found in text."""
    if token.owner is not None:
        return tokenizers[token.owner].added.get(token.text, AddedToken())
    origin = choice.tokens[token.text].token or ""
    return next((t.added[origin] for t in tokenizers if origin in t.added), AddedToken())


def _extend_main(path: Path, ids: Mapping[str, int], flags: Mapping[str, AddedToken]) -> None:
    """Append to `tokenizer.json` the added tokens that neither its list nor its vocabulary has."""
    document = _document(path)
    if document is None:
        return
    listed = document.get("added_tokens") or []
    known = {entry["content"] for entry in listed} | _vocabulary(document, path).keys()
    fresh = sorted((number, text) for text, number in ids.items() if text not in known)
    entries = [{"id": number, "content": text, **asdict(flags[text])} for number, text in fresh]
    write_json(path, {**document, "added_tokens": [*listed, *entries]})


def _extend_rest(out: Path, ids: Mapping[str, int], flags: Mapping[str, AddedToken]) -> None:
    """Add new tokens to the files beside `tokenizer.json` that list added tokens.

    Without `tokenizer.json` these files are the only place for them, and are made.
    """
    alone = not (out / "tokenizer.json").is_file()
    config = _document(out / "tokenizer_config.json")
    if alone or (config and "added_tokens_decoder" in config):
        decoder = {str(number): {"content": text, **asdict(flags[text])} for text, number in ids.items()}
        config = config or {}
        merged = {**(config.get("added_tokens_decoder") or {}), **decoder}
        write_json(out / "tokenizer_config.json", {**config, "added_tokens_decoder": merged})
    listed = _document(out / "added_tokens.json")
    if alone or listed is not None:
        write_json(out / "added_tokens.json", {**(listed or {}), **ids})


def _document(path: Path) -> dict[str, Any] | None:
    """The JSON mapping in a file; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MergeError(
            f"{path} cannot be read as JSON ({error}); fetch or save the tokenizer again"
        ) from error
    if not isinstance(value, dict):
        raise MergeError(
            f"{path} holds a JSON {type(value).__name__}, not a mapping; save the tokenizer again"
        )
    return value


def _vocabulary(document: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Token ids in the model of a `tokenizer.json`; Unigram lists pieces with scores in order of id."""
    model = document.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):
        if all(isinstance(piece, list) and piece and isinstance(piece[0], str) for piece in vocabulary):
            return {piece[0]: number for number, piece in enumerate(vocabulary)}
        raise MergeError(
            f"{path}: model.vocab lists something other than [piece, score]; save the tokenizer again"
        )
    if vocabulary is None:
        raise MergeError(f"{path} has no model.vocab, so its tokens are not known; save the tokenizer again")
    return _ids(vocabulary, path)


def _ids(vocabulary: object, path: Path) -> dict[str, int]:
    """A mapping of tokens to ids, checked; None is an empty one."""
    if vocabulary is None:
        return {}
    if not isinstance(vocabulary, dict):
        raise MergeError(f"{path}: the vocabulary is no mapping of tokens to ids; save the tokenizer again")
    for text, number in vocabulary.items():
        if type(number) is not int or number < 0:
            raise MergeError(
                f"{path}: the id of {text!r} is {number!r}, not an integer of at least 0; "
                "save the tokenizer again"
            )
    return vocabulary


def _entries(listed: object, path: Path) -> list[tuple[str, int, AddedToken]]:
    """Text, id and flags of each token in a list of added tokens."""
    if not isinstance(listed, list):
        raise MergeError(f"{path}: added_tokens is not a list; save the tokenizer again")
    entries = []
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise MergeError(f"{path}: the added token {entry!r} has no content; save the tokenizer again")
        text = entry["content"]
        number = _ids({text: entry.get("id")}, path)[text]
        flags = {name: bool(entry.get(name, False)) for name in AddedToken.__dataclass_fields__}
        entries.append((text, number, AddedToken(**flags)))
    return entries


def _configured(folder: Path) -> list[tuple[str, int, AddedToken]]:
    """Added tokens that files beside `tokenizer.json` name."""
    path = folder / "tokenizer_config.json"
    decoder = (_document(path) or {}).get("added_tokens_decoder") or {}
    listed = [
        {**entry, "id": int(key)}
        for key, entry in (decoder.items() if isinstance(decoder, dict) else ())
        if key.isdecimal() and isinstance(entry, dict)
    ]
    simple = folder / "added_tokens.json"
    plain = [(text, number, AddedToken()) for text, number in _ids(_document(simple), simple).items()]
    return _entries(listed, path) + plain


def _named_special(folder: Path) -> list[str]:
    """The texts in `special_tokens_map.json`, such as of the end of a sequence."""
    found: list[str] = []
    for value in (_document(folder / "special_tokens_map.json") or {}).values():
        for item in value if isinstance(value, list) else [value]:
            text = item.get("content") if isinstance(item, dict) else item
            if isinstance(text, str):
                found.append(text)
    return found


def _nothing_to_read(folder: Path) -> str:
    held = [name for name in _UNREAD if (folder / name).is_file()]
    if held:
        return (
            f"{folder} has its vocabulary in {held[0]} only, which cannot be read here; convert it to "
            "tokenizer.json: load it with transformers' AutoTokenizer and save it into the folder"
        )
    return (
        f"{folder} has neither tokenizer.json nor vocab.json, so its tokens are not known; "
        "put the tokenizer's files there, or leave the tokenizer out of the recipe"
    )
