"""mergekit's YAML as recipes, read strictly: every fault of a file at once, each with its line.

A file holds one merge, or several documents of which each may take an earlier one by its `name` as
a model; the last is the output. What a file may say is mergekit's format with a few keys of ours
(`embedding_source`, `lm_head_source`, `gradient_ends`, `truncate_embeddings`, `skip_missing`, `name`).

For methods that take a base, the base never stands among `models`; in a slice it stays among the
`sources`, because only there its layers are named. Nothing here opens a checkpoint.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard.core.errors import PluginError
from modelyard.core.faults import Faults, Section
from modelyard.jobs.step import is_name
from modelyard.merging.chat_templates import CHAT_TEMPLATES
from modelyard.merging.method import Base, MergeMethod, load_method, method_names
from modelyard.merging.recipe import (
    Ends,
    ModelRef,
    Module,
    Recipe,
    Settings,
    Slice,
    Source,
    TokenizerChoice,
    TokenRule,
)
from modelyard.merging.settings import lacking, read_settings
from modelyard.merging.yaml_places import Document, assigned, read_mappings, read_text

_DTYPES = ("bfloat16", "float16", "float32", "float64")
_FORMS = ("models", "slices", "modules")


def read_recipes(
    path: Path, *, assignments: Sequence[str] = (), method: Callable[[str], MergeMethod] = load_method
) -> list[Recipe]:
    """The merges of a YAML file, in order.

    Args:
        path: The file.
        assignments: Values to replace, as `KEY=VALUE` or `NAME:KEY=VALUE`; see `assigned`.
        method: Finds a merge method by name, or raises `PluginError`.

    Raises:
        DocumentError: With every fault of the file; keys have the form `line 7: parameters.density`.
    """
    return parse_recipes(read_text(path), file=str(path), assignments=assignments, method=method)


def parse_recipes(
    text: str,
    *,
    file: str,
    assignments: Sequence[str] = (),
    method: Callable[[str], MergeMethod] = load_method,
) -> list[Recipe]:
    """The merges of a YAML text; `file` is its name in messages. See `read_recipes`."""
    faults = Faults(file=file)
    documents = assigned(read_mappings(text, faults), assignments, faults)
    faults.raise_if_any()
    names = [_name(document) for document in documents]
    recipes = []
    for number, document in enumerate(documents):
        own = Faults(file=file)
        reader = _Reader(Section(document.data, faults=own), method, names=names, number=number)
        recipes.append(reader.recipe())
        faults.found += document.placed(own.found)
    faults.raise_if_any()
    return recipes


def load_documents(path: Path) -> list[Any]:
    """The documents of a YAML file as plain data.

    Raises:
        DocumentError: It cannot be read, is not YAML, or holds something else than mappings.
    """
    return [document.data for document in read_mappings(read_text(path), Faults(file=str(path)))]


def _name(document: Document) -> str | None:
    name = document.data.get("name")
    return name if isinstance(name, str) else None


class _Reader:
    """Reads one document of a file whose documents are called `names`, of which it is the `number`-th."""

    def __init__(
        self,
        top: Section,
        find: Callable[[str], MergeMethod],
        *,
        names: Sequence[str | None],
        number: int,
    ) -> None:
        self.top, self.faults = top, top.faults
        self.earlier = frozenset(name for name in names[:number] if name)
        self.later = frozenset(name for name in names[number:] if name) - self.earlier
        self.last = number == len(names) - 1
        self.method = self._method(find)
        self.takes_base = self.method is not None and self.method.base is not Base.IGNORED

    def recipe(self) -> Recipe:
        """The recipe; meaningless where faults were noted."""
        top = self.top
        name, base = self._own_name(), self._model(top, "base_model")
        settings = read_settings(top, self.method)
        models = self._models(top, base, (settings,))
        slices = self._slices(top, base, (settings,))
        modules = self._modules(base, (settings,))
        self._check_form(top, _FORMS)
        self._check_base(base, [*slices, *(s for module in modules.values() for s in module.slices)])
        recipe = Recipe(
            name=name,
            method=self.method.name if self.method else "",
            base_model=base,
            models=models,
            slices=slices,
            modules=modules,
            settings=settings,
            dtype=self._dtype("dtype"),
            out_dtype=self._dtype("out_dtype"),
            tokenizer=self._tokenizer(),
            chat_template=self._chat_template(),
            embedding_source=self._model(top, "embedding_source"),
            lm_head_source=self._model(top, "lm_head_source"),
            gradient_ends=Ends(top.choice("gradient_ends", Ends.FIRST.value, [end.value for end in Ends])),
            truncate_embeddings=top.flag("truncate_embeddings", default=False),
            skip_missing=top.flag("skip_missing", default=False),
        )
        top.close()
        return recipe

    # The head of a document.

    def _method(self, find: Callable[[str], MergeMethod]) -> MergeMethod | None:
        name = self.top.text("merge_method")
        if not name:
            return None
        try:
            return find(name)
        except PluginError as error:
            names = method_names()
            near = difflib.get_close_matches(name, names, n=1)
            advice = f"did you mean {near[0]}?" if near else f"use one of {', '.join(names)}"
            if name in names:
                self.faults.add("merge_method", name, f"does not load ({error})", "reinstall its package")
            else:
                self.faults.add("merge_method", name, "is not an installed merge method", advice)
            return None

    def _own_name(self) -> str | None:
        name = self.top.optional_text("name")
        if name is None and not self.last:
            self.faults.add(
                "name", None, "is missing: only the last document is written out",
                "give this document a name and use it as a model below, or remove it",
            )  # fmt: skip
        elif name and not is_name(name):
            self.faults.add("name", name, "cannot name a folder", "use letters, digits, '.', '_', '-'")
        elif name in self.earlier:
            self.faults.add("name", name, "names an earlier document too", "choose another name")
        return name

    def _check_base(self, base: ModelRef | None, slices: Sequence[Slice]) -> None:
        if self.method is None or self.method.base is not Base.REQUIRED or base is not None:
            return
        if not slices or any(part.base_model is None for part in slices):
            self.faults.add(
                "base_model", None, f"is missing: {self.method.name} starts from a base",
                "name the model that the others were trained from",
            )  # fmt: skip

    def _dtype(self, key: str) -> str | None:
        value = self.top.optional_text(key)
        name = value.removeprefix("torch.") if value else None
        if name and name not in _DTYPES:
            near = difflib.get_close_matches(name, _DTYPES, n=1)
            advice = f"did you mean {near[0]}?" if near else f"use one of {', '.join(_DTYPES)}"
            self.faults.add(key, value, "is not a type that can be stored", advice)
        return name

    def _chat_template(self) -> str | None:
        value = self.top.optional_text("chat_template")
        names = ["auto", *CHAT_TEMPLATES]
        if value and value not in names and "{{" not in value and "{%" not in value:
            near = difflib.get_close_matches(value, names, n=1)
            advice = f"did you mean {near[0]}?" if near else f"use one of {', '.join(names)}, or Jinja"
            self.faults.add("chat_template", value, "is neither a known template nor Jinja", advice)
        return value

    # What is merged.

    def _check_form(self, section: Section, forms: Sequence[str]) -> None:
        given = [form for form in forms if section.raw(form)]
        if len(given) != 1:
            listed = ", ".join(forms[:-1]) + f" and {forms[-1]}"
            problem = f"has {' and '.join(given) or 'nothing'} to merge"
            self.faults.add(section.path, None, problem, f"give exactly one of {listed}")

    def _models(
        self, section: Section, base: ModelRef | None, levels: tuple[Settings, ...]
    ) -> tuple[Source, ...]:
        """The whole models of a mapping, the base not among them."""
        if not section.raw("models"):
            return ()
        sources = self._sources(section, "models", base, levels)
        return tuple(source for source in sources if not self._is_base(source.model, base))

    def _modules(self, base: ModelRef | None, levels: tuple[Settings, ...]) -> dict[str, Module]:
        group = self.top.section("modules")
        modules = {}
        for name in group.data:
            section = group.section(name)
            settings = read_settings(section, self.method)
            modules[name] = Module(
                models=self._models(section, base, (settings, *levels)),
                slices=self._slices(section, base, (settings, *levels)),
                settings=settings,
            )
            self._check_form(section, ("models", "slices"))
            section.close()
        return modules

    def _slices(
        self, section: Section, base: ModelRef | None, levels: tuple[Settings, ...]
    ) -> tuple[Slice, ...]:
        slices = []
        for part in section.sections("slices"):
            if part.raw("residual_weight") is not None:
                self.faults.add(
                    part.key("residual_weight"), part.raw("residual_weight"),
                    "has no effect in mergekit either", "remove it",
                )  # fmt: skip
            own_base = self._model(part, "base_model")
            settings = read_settings(part, self.method)
            sources = self._sources(part, "sources", own_base or base, (settings, *levels))
            if not part.raw("sources"):
                self.faults.add(part.key("sources"), None, "is missing", "list models with their layer_range")
            part.close()
            slices.append(Slice(sources=sources, base_model=own_base, settings=settings))
        return tuple(slices)

    def _sources(
        self, section: Section, key: str, base: ModelRef | None, levels: tuple[Settings, ...]
    ) -> tuple[Source, ...]:
        """The models of a list; those of a slice with their layers."""
        sources: list[Source] = []
        parts = section.sections(key)
        for part in parts:
            model = self._model(part, "model", required=True)
            layers = _layer_range(part) if key == "sources" else None
            settings = read_settings(part, self.method, of_model=True)
            part.close()
            if model is None:
                continue
            source = Source(model=model, layers=layers, settings=settings)
            _check_against(part, source, sources)
            sources.append(source)
            if not self._is_base(model, base):
                self._check_given(part, (settings, *levels), per_model=True)
        if parts:
            bases = sum(self._is_base(source.model, base) for source in sources)
            self._check_count(section.key(key), len(parts) - bases)
            self._check_given(section, levels, per_model=False)
        return tuple(sources)

    def _is_base(self, model: ModelRef | None, base: ModelRef | None) -> bool:
        """Whether a model is the base of a method that takes one, and so none of those merged into it."""
        return self.takes_base and base is not None and model == base

    def _check_given(self, section: Section, levels: Sequence[Settings], *, per_model: bool) -> None:
        if self.method is None:
            return
        where = "here, or for all models at once" if per_model else "here, or at the top of the file"
        for name in lacking(self.method, levels, per_model=per_model):
            self.faults.add(
                section.key(f"parameters.{name}"), None, f"is missing: {self.method.name} needs it",
                f"give it {where}, under parameters",
            )  # fmt: skip

    def _check_count(self, key: str, count: int) -> None:
        if self.method is None:
            return
        least, most = self.method.least, self.method.most
        if count < least or (most is not None and count > most):
            bounds = f"exactly {least}" if least == most else f"at least {least}"
            if most is not None and least != most:
                bounds += f" and at most {most}"
            beside = " besides the base" if self.takes_base else ""
            self.faults.add(
                key, None, f"names {count} models{beside}, and {self.method.name} takes {bounds}",
                "list as many, or choose another merge_method",
            )  # fmt: skip

    # Models.

    def _model(self, section: Section, key: str, *, required: bool = False) -> ModelRef | None:
        """A model as PATH, PATH+LORA or a mapping; None where it is absent or has a fault."""
        value = section.raw(key)
        if value is None:
            if required:
                self.faults.add(section.key(key), None, "is missing", "name a checkpoint")
            return None
        if isinstance(value, Mapping):
            return self._model_mapping(section.section(key))
        text = section.text(key)
        return self._model_text(section.key(key), text) if text else None

    def _model_text(self, key: str, text: str) -> ModelRef | None:
        parts = [text] if "+" not in text or _exists(text) else [part.strip() for part in text.split("+")]
        if len(parts) > 2 or not all(parts):
            self.faults.add(
                key, text, "is neither PATH nor PATH+LORA",
                "write a path with '+' in it as a mapping: {model: {path: ...}}",
            )  # fmt: skip
            return None
        for part in parts:
            if "@" in part.rpartition("/")[2] and not _exists(part):
                self._refuse_revision(key, text)
        return self._ref(key, *parts)

    def _model_mapping(self, section: Section) -> ModelRef | None:
        """mergekit's mapping form: `model` and `lora`, each a path or a mapping with `path`."""
        if section.raw("override_architecture") is not None:
            self.faults.add(
                section.key("override_architecture"), section.raw("override_architecture"),
                "cannot be honoured: layers and roles are read from the tensors' names", "remove it",
            )  # fmt: skip
        path = self._path(section, "model")
        lora = self._path(section, "lora") if section.has("lora") else None
        section.close()
        return self._ref(section.key("model"), path, lora or None) if path else None

    def _path(self, section: Section, key: str) -> str:
        if not isinstance(section.raw(key), Mapping):
            return section.text(key)
        inner = section.section(key)
        path = inner.text("path")
        if inner.raw("revision") is not None:
            self._refuse_revision(inner.key("revision"), inner.raw("revision"))
        inner.close()
        return path

    def _refuse_revision(self, key: str, value: object) -> None:
        self.faults.add(
            key, value, "asks for a revision of a remote model, and models are read from disk only",
            "fetch that revision and give its folder",
        )  # fmt: skip

    def _ref(self, key: str, path: str, lora: str | None = None) -> ModelRef:
        if path in self.later:
            self.faults.add(
                key, path, "is the name of this document or of a later one",
                "use the names of earlier documents only",
            )  # fmt: skip
        return ModelRef(path=path, lora=lora)

    # The vocabulary.

    def _tokenizer(self) -> TokenizerChoice | None:
        top = self.top
        if top.has("tokenizer") and top.has("tokenizer_source"):
            self.faults.add(
                "tokenizer_source", top.raw("tokenizer_source"), "stands beside tokenizer", "keep one of them"
            )
        if not top.has("tokenizer"):
            top.raw("tokenizer")
            source = self._tokenizer_source(top, "tokenizer_source")
            return TokenizerChoice(source=source) if source else None
        section = top.section("tokenizer")
        top.raw("tokenizer_source")
        source = self._tokenizer_source(section, "source") or "union"
        tokens = section.section("tokens")
        rules = {token: self._token_rule(tokens.section(token)) for token in tokens.data}
        padding = section.integer("pad_to_multiple_of", 1, low=1)
        multiple = padding if section.has("pad_to_multiple_of") else None
        section.close()
        return TokenizerChoice(source=source, tokens=rules, pad_to_multiple_of=multiple)

    def _tokenizer_source(self, section: Section, key: str) -> str | ModelRef | None:
        value = section.raw(key)
        if not isinstance(value, str) or not value.strip():
            return self._model(section, key)
        if value in ("union", "base"):
            return value
        return self._model_text(section.key(key), value.removeprefix("model:"))

    def _token_rule(self, section: Section) -> TokenRule:
        """Where the row of one token comes from; `source` without `kind` is a model."""
        force = section.flag("force", default=False)
        source = section.raw("source")
        if isinstance(source, Mapping) and "kind" in source:
            rule = self._kind_of_row(section.section("source"), force=force)
        else:
            rule = TokenRule(model=self._model(section, "source", required=True), force=force)
        section.close()
        return rule

    def _kind_of_row(self, source: Section, *, force: bool) -> TokenRule:
        if source.choice("kind", "zero", ("zero", "model_token")) == "zero":
            source.close()
            return TokenRule(force=force)
        model = self._model(source, "model", required=True)
        token = source.optional_text("token")
        number = source.integer("token_id", 0, low=0) if source.has("token_id") else None
        source.raw("token_id")
        if (token is None) == (number is None):
            self.faults.add(
                source.path, dict(source.data), "does not name one row", "give either token or token_id"
            )
        source.close()
        return TokenRule(model=model, token=token, token_id=number, force=force)


def _layer_range(part: Section) -> tuple[int, int] | None:
    value = part.raw("layer_range")
    key = part.key("layer_range")
    if value is None:
        part.faults.add(key, None, "is missing", "give [first layer, layer after the last]")
        return None
    numbers = value if isinstance(value, list) else []
    if len(numbers) == 2 and all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        start, end = numbers
        if 0 <= start < end:
            return start, end
    part.faults.add(
        key, value, "is not a range of layers",
        "give two whole numbers, the first layer (from 0) and the layer after the last",
    )  # fmt: skip
    return None


def _check_against(part: Section, source: Source, before: Sequence[Source]) -> None:
    """That a source is new, and has as many layers as the first."""
    if any(source.model == other.model and source.layers == other.layers for other in before):
        part.faults.add(
            part.key("model"),
            str(source.model),
            "is listed twice",
            "list it once, with the sum of the weights",
        )
    first = before[0].layers if before else None
    if source.layers and first and source.layers[1] - source.layers[0] != first[1] - first[0]:
        count, needed = source.layers[1] - source.layers[0], first[1] - first[0]
        problem = f"has {count} layers where the first source has {needed}"
        part.faults.add(
            part.key("layer_range"), list(source.layers), problem,
            "give every source of a slice equally many",
        )  # fmt: skip


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, or not a path at all
        return False
