"""Reading mergekit's YAML: what is understood, and every fault with its line and its remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.core.errors import DocumentError, PluginError
from modelyard.core.faults import Faults
from modelyard.merging.config import load_documents, parse_recipes, read_recipes
from modelyard.merging.method import Base, Kind, MergeMethod, Parameter, load_method, method_names
from modelyard.merging.recipe import (
    Conditional,
    Ends,
    ModelRef,
    Module,
    Recipe,
    Slice,
    Source,
    TokenizerChoice,
    TokenRule,
)
from modelyard.merging.yaml_places import assigned, read_mappings

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.yml"))


def no_arithmetic(_tensors):
    """These tests read files and merge nothing."""


def made(name, **record):
    return MergeMethod(name=name, merge=no_arithmetic, formula="", **record)


WEIGHT = Parameter(name="weight", help="", per_model=True)
DENSITY = Parameter(name="density", help="", default=1.0, low=0.0, high=1.0, per_model=True)
NORMALIZE = Parameter(name="normalize", help="", kind=Kind.FLAG, default=True)
MAX_ITER = Parameter(name="max_iter", help="", kind=Kind.INTEGER, default=10, low=1)
METHODS = {
    method.name: method
    for method in (
        made("linear", parameters=(WEIGHT, NORMALIZE)),
        made("slerp", base=Base.REQUIRED, most=1, parameters=(Parameter(name="t", help=""),)),
        made(
            "ties",
            base=Base.REQUIRED,
            parameters=(
                WEIGHT, DENSITY, NORMALIZE, Parameter(name="lambda", help="", default=1.0),
                Parameter(
                    name="consensus_method", help="", kind=Kind.CHOICE, default="sum",
                    choices=("sum", "count"),
                ),
            ),
            accepted={"int8_mask": "masks take no memory"},
        ),
        made(
            "passthrough", most=1, parameters=(Parameter(name="scale", help="", default=1.0, per_model=True),)
        ),
        made("karcher", parameters=(MAX_ITER,)),
        made("stock", base=Base.REQUIRED, least=2),
        made("pair", base=Base.OPTIONAL, least=2, most=2, parameters=(WEIGHT,)),
        made("few", least=2, most=3),
    )
}  # fmt: skip


def find(name):
    if name not in METHODS:
        raise PluginError(f"{name} is not there")
    return METHODS[name]


def read(text, *assignments) -> list[Recipe]:
    return parse_recipes(text, file="merge.yml", assignments=assignments, method=find)


def one(text, *assignments) -> Recipe:
    (recipe,) = read(text, *assignments)
    return recipe


def faults(text, *assignments):
    with pytest.raises(DocumentError) as caught:
        read(text, *assignments)
    return caught.value.faults


def ref(path, lora=None):
    return ModelRef(path=path, lora=lora)


LINEAR = """\
merge_method: linear
models:
  - model: a
    parameters: {weight: 1}
  - model: b
    parameters: {weight: 2}
"""
TIES = """\
merge_method: ties
base_model: base
models:
  - model: a
    parameters:
      weight: 1
      density: 0.5
parameters:
  normalize: true
"""
SLICES = """\
merge_method: slerp
base_model: a
slices:
  - sources:
      - {model: a, layer_range: [0, 4]}
      - {model: b, layer_range: [2, 6]}
    parameters: {t: 0.5}
"""
STAGES = """\
name: first
merge_method: linear
models:
  - {model: a, parameters: {weight: 1}}
---
merge_method: linear
models:
  - {model: first, parameters: {weight: 1}}
  - {model: b, parameters: {weight: 3}}
"""


# What is understood.


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_the_examples_are_read_with_the_installed_methods(path):
    recipes = read_recipes(path)
    assert len(recipes) == len(list(yaml.safe_load_all(path.read_text())))


def test_there_is_an_example_of_every_form():
    text = "".join(path.read_text() for path in EXAMPLES)
    forms = ("models:", "slices:", "modules:", "filter:", "tokenizer:", "tokenizer_source:", "chat_template:",
             "lora:", "+./", "---", "kind: zero", "kind: model_token", "pad_to_multiple_of")  # fmt: skip
    assert [form for form in forms if form not in text] == []


@pytest.mark.parametrize("name", method_names())
def test_a_smallest_file_is_read_for_every_installed_method(name):
    method = load_method(name)
    needed = {
        p.name: p.choices[0] if p.choices else "file" if p.kind is Kind.FILE else 1
        for p in method.parameters
        if p.default is None
    }
    count = max(method.least, 1)
    document = {
        "merge_method": name,
        "models": [{"model": f"m{i}"} for i in range(count)],
        "parameters": needed,
    }
    if method.base is Base.REQUIRED:
        document["base_model"] = "b"
    (recipe,) = parse_recipes(json.dumps(document), file="merge.yml")
    assert (recipe.method, len(recipe.models)) == (name, count)


def test_models_with_their_settings():
    assert one(TIES) == Recipe(
        method="ties",
        base_model=ref("base"),
        models=(Source(model=ref("a"), settings={"weight": 1.0, "density": 0.5}),),
        settings={"normalize": True},
    )


def test_slices_keep_the_base_among_their_sources():
    assert one(SLICES).slices == (
        Slice(
            sources=(Source(model=ref("a"), layers=(0, 4)), Source(model=ref("b"), layers=(2, 6))),
            settings={"t": 0.5},
        ),
    )


def test_a_listed_base_leaves_the_models_and_needs_no_parameters():
    listed = TIES.replace("models:\n", "models:\n  - model: base\n")
    assert one(listed) == one(TIES)


def test_the_base_of_a_method_without_one_stays_a_model():
    recipe = one("base_model: a\n" + LINEAR)
    assert [str(source.model) for source in recipe.models] == ["a", "b"]


def test_an_optional_base_does_not_count():
    text = "merge_method: pair\nbase_model: base\nparameters: {weight: 1}\n"
    text += "models: [{model: a}, {model: base}, {model: b}]"
    assert [str(source.model) for source in one(text).models] == ["a", "b"]


def test_a_slice_may_have_a_base_of_its_own():
    text = SLICES.replace("base_model: a\n", "").replace("  - sources:", "  - base_model: a\n    sources:")
    (part,) = one(text).slices
    assert part.base_model == ref("a")
    assert len(part.sources) == 2


def test_modules():
    text = """
merge_method: linear
modules:
  text:
    models: [{model: a, parameters: {weight: 1}}]
    parameters: {normalize: false}
  vision:
    slices: [{sources: [{model: a, layer_range: [0, 2]}], parameters: {weight: 1}}]
"""
    assert one(text).modules == {
        "text": Module(
            models=(Source(model=ref("a"), settings={"weight": 1.0}),), settings={"normalize": False}
        ),
        "vision": Module(
            slices=(Slice(sources=(Source(model=ref("a"), layers=(0, 2)),), settings={"weight": 1.0}),)
        ),
    }


@pytest.mark.parametrize(
    ("written", "setting"),
    [
        ("1e-5", 1e-5),
        ("-.5", -0.5),
        ("[0, 0.5, 1]", (0.0, 0.5, 1.0)),
        ("{filter: mlp, value: 1}", (Conditional(filter="mlp", value=1.0),)),
        (
            "[{filter: mlp, value: [0, 1]}, {filter: '*', value: 2}]",
            (Conditional(filter="mlp", value=(0.0, 1.0)), Conditional(value=2.0)),
        ),
        ("[{value: 3, filter: null}]", (Conditional(value=3.0),)),
    ],
)
def test_the_forms_of_a_parameter(written, setting):
    assert one(LINEAR.replace("weight: 2", f"weight: {written}")).models[1].settings["weight"] == setting


@pytest.mark.parametrize(
    ("written", "flag"),
    [("true", True), ("False", False), ("0", False), ("1", True), ("[true, 0]", (True, False))],
)
def test_flags(written, flag):
    assert one(LINEAR + f"parameters: {{normalize: {written}}}").settings["normalize"] == flag


def test_whole_numbers_and_words():
    text = "merge_method: karcher\nmodels: [{model: a}]\nparameters: {max_iter: 7}"
    value = one(text).settings["max_iter"]
    assert (value, type(value)) == (7, int)
    assert one(TIES + "  consensus_method: count").settings["consensus_method"] == "count"


def test_parameters_without_effect_are_accepted():
    assert one(TIES + "  int8_mask: true").settings["int8_mask"] is True


@pytest.mark.parametrize("level", ["slice", "file"])
def test_a_required_parameter_may_come_from_any_level(level):
    head = "merge_method: linear\nslices:\n  - sources: [{model: a, layer_range: [0, 1]}]\n"
    tail = "    parameters: {weight: 1}" if level == "slice" else "parameters: {weight: 1}"
    assert one(head + tail).slices


@pytest.mark.parametrize(
    ("written", "model"),
    [
        ("dir/a", ref("dir/a")),
        ("dir/a+dir/lora", ref("dir/a", "dir/lora")),
        ("{model: a}", ref("a")),
        ("{model: a, lora: l}", ref("a", "l")),
        ("{model: {path: a}, lora: {path: l}}", ref("a", "l")),
        ("{model: {path: c++/a@b, revision: null}}", ref("c++/a@b")),
    ],
)
def test_the_forms_of_a_model(written, model):
    assert one(LINEAR.replace("model: a", f"model: {written}")).models[0].model == model


@pytest.mark.parametrize("name", ["a@main", "c++", "a+b+c"])
def test_a_path_that_exists_is_a_path_whatever_its_signs(tmp_path, name):
    (tmp_path / name).mkdir()
    path = str(tmp_path / name)
    assert one(LINEAR.replace("model: a", f"model: {json.dumps(path)}")).models[0].model == ref(path)


def test_a_name_too_long_for_any_file_is_still_read():
    name = "x" * 5000
    assert one(LINEAR.replace("model: a", f"model: a+{name}")).models[0].model == ref("a", name)


def test_an_at_sign_before_the_last_slash_is_part_of_a_path():
    assert one(LINEAR.replace("model: a", "model: me@host/a")).models[0].model == ref("me@host/a")


@pytest.mark.parametrize(
    ("written", "choice"),
    [
        ("tokenizer_source: union", TokenizerChoice(source="union")),
        ("tokenizer_source: base", TokenizerChoice(source="base")),
        ("tokenizer_source: dir/t", TokenizerChoice(source=ref("dir/t"))),
        ("tokenizer_source: model:dir/t", TokenizerChoice(source=ref("dir/t"))),
        ("tokenizer: {}", TokenizerChoice(source="union")),
        (
            "tokenizer: {source: a, pad_to_multiple_of: 8}",
            TokenizerChoice(source=ref("a"), pad_to_multiple_of=8),
        ),
        (
            "tokenizer: {tokens: {<a>: {source: a}, no: {source: {model: {path: b}}, force: true}}}",
            TokenizerChoice(
                source="union",
                tokens={"<a>": TokenRule(model=ref("a")), "no": TokenRule(model=ref("b"), force=True)},
            ),
        ),
        (
            "tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token: y}}, "
            "z: {source: {kind: zero}}}}",
            TokenizerChoice(
                source="union", tokens={"x": TokenRule(model=ref("a"), token="y"), "z": TokenRule()}
            ),
        ),
        (
            "tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token_id: 0}}}}",
            TokenizerChoice(source="union", tokens={"x": TokenRule(model=ref("a"), token_id=0)}),
        ),
    ],
)
def test_tokenizers(written, choice):
    assert one(LINEAR + written).tokenizer == choice


def test_the_keys_at_the_top():
    text = """
dtype: torch.float16
out_dtype: bfloat16
chat_template: llama3
embedding_source: a
lm_head_source: b+l
gradient_ends: position
truncate_embeddings: true
skip_missing: true
name: out
"""
    recipe = one(LINEAR + text)
    assert (recipe.dtype, recipe.out_dtype, recipe.chat_template) == ("float16", "bfloat16", "llama3")
    assert (recipe.embedding_source, recipe.lm_head_source) == (ref("a"), ref("b", "l"))
    assert recipe.gradient_ends is Ends.POSITION
    assert recipe.truncate_embeddings
    assert recipe.skip_missing
    assert recipe.name == "out"


def test_documents_feed_later_ones():
    first, second = read(STAGES)
    assert (first.name, second.name) == ("first", None)
    assert second.models[0].model == ref("first")


def test_merge_keys_bring_in_what_is_not_said():
    text = LINEAR.replace("{weight: 1}", "&p {weight: 1}").replace("{weight: 2}", "{<<: *p}")
    assert one(text).models[1].settings == {"weight": 1.0}
    text = LINEAR.replace("{weight: 1}", "&p {weight: 1}").replace("{weight: 2}", "{<<: [*p], weight: 4}")
    assert one(text).models[1].settings == {"weight": 4.0}


def test_names_that_yaml_would_make_into_something_else_stay_names():
    text = LINEAR.replace("model: a", "model: 2024-01-01").replace("model: b", "model: on")
    assert [source.model.path for source in one(text).models] == ["2024-01-01", "on"]


# What is refused: the line, the key, and what to do.

REFUSED = [
    # keys
    (LINEAR + "dtpye: float16", "line 7: dtpye", "is an unknown key", "did you mean dtype?"),
    (LINEAR.replace("- model: b", "- modle: b"), "line 5: models[1].model", "is missing",
     "name a checkpoint"),
    (LINEAR.replace("- model: b", "- modle: b"), "line 5: models[1].modle", "unknown key",
     "did you mean model?"),
    (LINEAR + "models: []", "line 7: models", "stands in line 2 too", "keep one of them"),
    (SLICES + "    residual_weight: 0.1", "line 8: slices[0].residual_weight",
     "has no effect in mergekit either", "remove it"),
    ("models: [{model: a}]", "line 1: merge_method", "is missing", "write a string"),
    (LINEAR.replace("linear", "liner"), "line 1: merge_method", "is not an installed",
     "did you mean linear?"),
    (LINEAR.replace("linear", "qqqq"), "line 1: merge_method", "is not an installed", "use one of"),
    # parameters
    (TIES.replace("density", "densty"), "line 7: models[0].parameters.densty",
     "is not a parameter of ties", "did you mean density?"),
    (TIES + "  lamda: 0", "line 10: parameters.lamda", "is not a parameter of ties", "did you mean lambda?"),
    (TIES + "  zzzz: 0", "line 10: parameters.zzzz", "is not a parameter",
     "ties takes consensus_method, density"),
    (TIES.replace("0.5", "7.5"), "line 7: models[0].parameters.density",
     "is out of range", "use a number of at least 0 and at most 1"),
    (TIES.replace("0.5", "[0.1, 1.5]"), "line 7: models[0].parameters.density[1]", "is out of range",
     "at most 1"),
    (TIES.replace("0.5", "'0.5'"), "line 7: models[0].parameters.density", "is not a finite number",
     "without quotes"),
    (TIES.replace("0.5", ".nan"), "line 7: models[0].parameters.density", "is not a finite number",
     "write a finite"),
    (LINEAR.replace("weight: 2", "weight: .inf"), "line 6: models[1].parameters.weight",
     "is not a finite number", "write a finite number"),
    (LINEAR.replace("weight: 2", "weight: 9" + "0" * 400), "line 6: models[1].parameters.weight",
     "is not a finite number", "write a finite number"),
    (LINEAR.replace("weight: 2", "weight: true"), "line 6: models[1].parameters.weight",
     "is not a finite number", ""),
    (LINEAR.replace("weight: 2", "weight: null"), "line 6: models[1].parameters.weight", "has no value",
     "remove"),
    (LINEAR.replace("weight: 2", "weight: []"), "line 6: models[1].parameters.weight", "is an empty list",
     "knots"),
    (LINEAR.replace("weight: 2", "weight: [1, {value: 2}]"), "line 6: models[1].parameters.weight[1]",
     "is not a finite number", "write a finite number"),
    (LINEAR.replace("weight: 2", "weight: {filter: x}"), "line 6: models[1].parameters.weight.value",
     "has no value", "give one"),
    (LINEAR.replace("weight: 2", "weight: [{fliter: x, value: 2}]"),
     "line 6: models[1].parameters.weight[0].fliter",
     "is an unknown key", "did you mean filter?"),
    (LINEAR.replace("weight: 2", "weight: [{filter: '', value: 2}]"),
     "line 6: models[1].parameters.weight[0].filter",
     "is not a non-empty string", "write a string"),
    (LINEAR.replace("{weight: 2}", "{}"), "line 6: models[1].parameters.weight",
     "is missing: linear needs it", "for all models at once"),
    (LINEAR.replace("{weight: 2}", "{weight: 2, normalize: true}"), "line 6: models[1].parameters.normalize",
     "is one value for all models", "move normalize to the parameters of the slice or of the file"),
    (LINEAR + "parameters: {normalize: 'yes'}", "line 7: parameters.normalize",
     "is neither true nor false", "without quotes"),
    (LINEAR + "parameters: {normalize: yes}", "line 7: parameters.normalize", "is neither true nor false",
     "true"),
    (LINEAR + "parameters: {normalize: 2}", "line 7: parameters.normalize", "is neither true nor false",
     "true"),
    (TIES + "  consensus_method: cuont", "line 10: parameters.consensus_method", "is not known",
     "did you mean count?"),
    (TIES + "  consensus_method: 3", "line 10: parameters.consensus_method", "is not known", "sum, count"),
    (TIES + "  int8_mask: .nan", "line 10: parameters.int8_mask", "is not a finite number", ""),
    ("merge_method: karcher\nmodels: [{model: a}]\nparameters: {max_iter: 1.5}",
     "line 3: parameters.max_iter",
     "is not a whole number", "write a whole number of at least 1"),
    ("merge_method: karcher\nmodels: [{model: a}]\nparameters: {max_iter: [1, 2]}",
     "line 3: parameters.max_iter",
     "is a gradient of whole numbers", "give one, or conditions"),
    (SLICES.replace("    parameters: {t: 0.5}\n", ""), "line 4: slices[0].parameters.t",
     "is missing: slerp needs it", "at the top of the file"),
    # models
    (LINEAR.replace("model: b", "model: a"), "line 5: models[1].model", "is listed twice",
     "the sum of the weights"),
    (LINEAR.replace("model: b", "model: b@main"), "line 5: models[1].model", "asks for a revision",
     "fetch that revision"),
    (LINEAR.replace("model: b", "model: b+l@v1"), "line 5: models[1].model", "asks for a revision", "fetch"),
    (LINEAR.replace("model: b", "model: {model: {path: b, revision: v1}}"),
     "line 5: models[1].model.model.revision",
     "asks for a revision", "fetch that revision"),
    (LINEAR.replace("model: b", "model: {model: b, override_architecture: X}"),
     "line 5: models[1].model.override_architecture", "cannot be honoured", "remove it"),
    (LINEAR.replace("model: b", "model: {path: b}"), "line 5: models[1].model.path", "is an unknown key",
     "known keys"),
    (LINEAR.replace("model: b", "model: b+c+d"), "line 5: models[1].model", "is neither PATH nor PATH+LORA",
     "path"),
    (LINEAR.replace("model: b", "model: b+"), "line 5: models[1].model", "is neither PATH nor PATH+LORA",
     "mapping"),
    (LINEAR.replace("model: b", "model: 7"), "line 5: models[1].model", "is not a non-empty string",
     "write a string"),
    (TIES.replace("base_model: base\n", ""), "line 1: base_model", "is missing: ties starts from a base",
     "name the model that the others were trained from"),
    (SLICES.replace("base_model: a\n", ""), "line 1: base_model", "is missing", "name the model"),
    (SLICES.replace("slices:", "models: [{model: a}, {model: b}, {model: c}]\nx:"), "line 3: models",
     "names 2 models besides the base, and slerp takes exactly 1", "list as many"),
    (LINEAR.replace("linear", "passthrough").replace("weight", "scale"), "line 2: models",
     "names 2 models, and passthrough takes exactly 1", "choose another merge_method"),
    ("merge_method: stock\nbase_model: b\nmodels: [{model: a}, {model: b}]", "line 3: models",
     "names 1 models besides the base, and stock takes at least 2", "list as many"),
    ("merge_method: few\nmodels: [{model: a}]", "line 2: models", "takes at least 2 and at most 3",
     "list as many"),
    # forms
    ("merge_method: linear", "line 1", "has nothing to merge",
     "give exactly one of models, slices and modules"),
    (LINEAR + "slices: [{sources: [{model: a, layer_range: [0, 1], parameters: {weight: 1}}]}]", "line 1",
     "has models and slices to merge", "give exactly one of"),
    ("merge_method: linear\nmodules: {text: {}}", "line 2: modules.text", "has nothing to merge",
     "exactly one of models and slices"),
    ("merge_method: linear\nmodels: a", "line 2: models", "is not a list", "write a list of mappings"),
    ("merge_method: linear\nslices: [{}]", "line 2: slices[0].sources", "is missing", "list models"),
    # layers
    (SLICES.replace("[2, 6]", "[2, 7]"), "line 6: slices[0].sources[1].layer_range",
     "has 5 layers where the first source has 4", "equally many"),
    *(
        (SLICES.replace("[2, 6]", bad), "line 6: slices[0].sources[1].layer_range",
         "is not a range of layers", "give two whole numbers")
        for bad in ("[6, 2]", "[2, 2]", "[-1, 3]", "[2, 6, 8]", "4", "[0.0, 4]", "[no, 4]", "[0, true]")
    ),
    (SLICES.replace(", layer_range: [2, 6]", ""), "line 6: slices[0].sources[1].layer_range", "is missing",
     "give"),
    (LINEAR.replace("model: b", "{model: b, layer_range: [0, 1]}").replace("    parameters: {weight: 2}\n",
     ""),
     "line 5: models[1].layer_range", "is an unknown key", "known keys"),
    # vocabulary and the rest
    (LINEAR + "tokenizer_source: base\ntokenizer: {source: base}", "line 7: tokenizer_source",
     "stands beside tokenizer", "keep one"),
    (LINEAR + "tokenizer: {sauce: base}", "line 7: tokenizer.sauce", "is an unknown key",
     "did you mean source?"),
    (LINEAR + "tokenizer: {pad_to_multiple_of: 0}", "line 7: tokenizer.pad_to_multiple_of",
     "is out of range", "use at least 1"),
    (LINEAR + "tokenizer:\n  tokens:\n    x: {force: true}", "line 9: tokenizer.tokens.x.source",
     "is missing", "name a checkpoint"),
    (LINEAR + "tokenizer: {tokens: {x: a}}", "line 7: tokenizer.tokens.x", "is not a mapping", "key: value"),
    (LINEAR + "tokenizer: {tokens: {x: {source: {kind: zreo}}}}", "line 7: tokenizer.tokens.x.source.kind",
     "is not known", "use one of zero, model_token"),
    *(
        (LINEAR + f"tokenizer: {{tokens: {{x: {{source: {{kind: model_token, model: a{more}}}}}}}}}",
         "line 7: tokenizer.tokens.x.source", "does not name one row", "either token or token_id")
        for more in ("", ", token: y, token_id: 3")
    ),
    (LINEAR + "dtype: bfloat61", "line 7: dtype", "is not a type that can be stored",
     "did you mean bfloat16?"),
    (LINEAR + "out_dtype: int8", "line 7: out_dtype", "is not a type that can be stored", ""),
    (LINEAR + "chat_template: chatlm", "line 7: chat_template", "neither a known template",
     "did you mean chatml?"),
    (LINEAR + "gradient_ends: last", "line 7: gradient_ends", "is not known", "use one of first, position"),
    (LINEAR + "skip_missing: 'true'", "line 7: skip_missing", "is not a boolean", "without quotes"),
    # documents
    (STAGES.replace("name: first\n", ""), "line 1: name", "is missing", "give this document a name"),
    (STAGES.replace("name: first", "name: ../x"), "line 1: name", "cannot name a folder", "use letters"),
    (STAGES.replace("---\n", "---\nname: first\n"), "line 6: name", "names an earlier document too",
     "another name"),
    (STAGES.replace("model: a", "model: last").replace("---\n", "---\nname: last\n"),
     "line 4: models[0].model",
     "is the name of this document or of a later one", "earlier documents only"),
    (STAGES.replace("model: a", "model: first+l"), "line 4: models[0].model", "is the name of this document",
     "earlier"),
    (LINEAR + "---\n", "line 8", "is a document that is not a mapping", "remove the ---"),
    ("- a\n- b", "line 1", "is a document that is not a mapping", "write key: value pairs"),
    ("", "", "is empty", "write a merge"),
    # YAML
    ("a: [1, 2", "line 1, column 9", "is not YAML", "correct the file there"),
    ("a: b: c", "line 1, column 5", "is not YAML", "correct the file there"),
    ("a: 1\nb: \x01", "line 2", "holds a character that YAML forbids", "remove it"),
    ("a: *b", "line 1, column 4", "found undefined alias", "correct the file there"),
    ("x: 1\n? [a]\n: b", "line 2", "has a key that is not a word", "write key: value"),
    ("x: 1\na: !!python/name:os.system ''", "line 2: a", "has the tag", "leave the tag out"),
    ("a: !!set {x}", "line 1: a", "has the tag", "leave the tag out"),
    ("a: !!int x", "line 1: a", "cannot be read", "write it plainly"),
    ("a: " + "9" * 5000, "line 1: a", "cannot be read", "write it plainly"),
    ('a: "\\ud800"', "line 1: a", "holds half a character", "write the whole character"),
    ('a: "\\UFFFFFFFF"', "", "cannot be read as YAML", "write it plainly"),
    ("a: 1\n<<: 3", "line 2", "merges what is not a mapping", "write <<: *name"),
    ("a: &a [*a]", "line 1", "holds itself", "without aliases"),
    ("a: &a {<<: *a}", "line 1", "holds itself", "without aliases"),
    ("[" * 5000, "", "is nested too deeply", "fewer brackets"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "key", "problem", "remedy"), REFUSED, ids=range(len(REFUSED)))
def test_every_fault_has_its_line_and_its_remedy(text, key, problem, remedy):
    found = [fault for fault in faults(text) if fault.key == key and problem in fault.problem]
    assert [fault for fault in found if remedy in fault.remedy], [str(fault) for fault in faults(text)]


def test_all_faults_are_raised_at_once_in_the_order_of_lines():
    text = TIES.replace("density: 0.5", "density: 7.5").replace("normalize", "nromalize") + "dtype: x\n"
    keys = [fault.key for fault in faults(text)]
    assert keys == ["line 7: models[0].parameters.density", "line 9: parameters.nromalize", "line 10: dtype"]


def test_the_faults_of_all_documents_are_raised_at_once():
    text = STAGES.replace("model: a", "modle: a").replace("weight: 3", "wieght: 3")
    assert {fault.key.partition(":")[0] for fault in faults(text)} == {"line 4", "line 9"}


def test_a_wrong_value_is_not_called_missing_too():
    assert len(faults(LINEAR.replace("weight: 2", "weight: x"))) == 1


def test_a_method_that_does_not_load_is_told_apart_from_one_that_is_not_there():
    def broken(name):
        raise PluginError(f"{name} does not load: no module")

    with pytest.raises(DocumentError, match=r"line 1: merge_method = \"linear\": does not load .*reinstall"):
        parse_recipes(LINEAR, file="merge.yml", method=broken)


def test_aliases_cannot_fill_the_memory():
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    merges = "a0: &a0 {x: 1}\n" + "".join(
        f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40)
    )
    long_keys = f"a: &a\n  ? {'k' * 200_000}\n  : 1\nb: [{', '.join(['*a'] * 2_000)}]"
    for bomb in (laughs, merges, long_keys):
        assert [fault.problem for fault in faults(bomb)] == ["stands for more than 100,000 values"]


# Files.


def test_a_file_is_read_with_its_name_in_messages(tmp_path):
    path = tmp_path / "merge.yml"
    path.write_text("\ufeff" + LINEAR, encoding="utf-8")
    assert read_recipes(path, method=find) == read(LINEAR)
    path.write_text("{}")
    with pytest.raises(DocumentError, match=r"merge\.yml: line 1: merge_method: is missing"):
        read_recipes(path, method=find)


def test_files_that_are_none(tmp_path):
    (tmp_path / "latin").write_bytes(b"name: caf\xe9")
    (tmp_path / "large").write_bytes(b"#" * (4 * 2**20 + 1))
    told = {
        "absent": "does not exist",
        "latin": "is not UTF-8 text",
        "large": "is larger than",
        ".": "cannot be read",
    }
    for name, problem in told.items():
        with pytest.raises(DocumentError, match=problem):
            read_recipes(tmp_path / name, method=find)


def test_plain_documents(tmp_path):
    path = tmp_path / "stack.yml"
    path.write_text("layer_slices: [{model: a, start: 0, end: 4}]\n---\nx: 1e-3")
    assert load_documents(path) == [{"layer_slices": [{"model": "a", "start": 0, "end": 4}]}, {"x": 0.001}]
    path.write_text("a: 1\na: 2")
    with pytest.raises(DocumentError, match="line 2: a: stands in line 1 too"):
        load_documents(path)


# Assignments.


@pytest.mark.parametrize(
    ("assignment", "weights"),
    [
        ("models.1.parameters.weight=0.3", [1.0, 0.3]),
        ("models[1].parameters.weight=3e-1", [1.0, 0.3]),
        ("models.0.parameters.weight=[0, 1]", [(0.0, 1.0), 2.0]),
        ("models.1.parameters={weight: 5}", [1.0, 5.0]),
    ],
)
def test_assignments_replace_values(assignment, weights):
    assert [source.settings["weight"] for source in one(LINEAR, assignment).models] == weights


def test_documents_are_left_as_they_are_by_assignments():
    found = Faults(file="merge.yml")
    documents = read_mappings("a: {b: 1}", found)
    (changed,) = assigned(documents, ["a.b=2"], found)
    assert (documents[0].data, changed.data) == ({"a": {"b": 1}}, {"a": {"b": 2}})


def test_later_assignments_win():
    assert one(SLICES, "slices.0.parameters.t=1", "slices.0.parameters.t=2").slices[0].settings == {"t": 2.0}


def test_assignments_go_to_the_last_document_or_to_the_named_one():
    key = "models.0.parameters.weight"
    changed = read(STAGES, f"{key}=7", f"first:{key}=8")
    assert [recipe.models[0].settings["weight"] for recipe in changed] == [8.0, 7.0]


def test_an_assignment_does_not_reach_other_uses_of_an_anchor():
    text = LINEAR.replace("{weight: 1}", "&p {weight: 1}").replace("{weight: 2}", "*p")
    recipe = one(text, "models.1.parameters.weight=9")
    assert [source.settings["weight"] for source in recipe.models] == [1.0, 9.0]


@pytest.mark.parametrize(
    ("assignment", "key", "remedy"),
    [
        ("models.1.parameters.wieght=1", "--set models.1.parameters.wieght",
         "did you mean models.1.parameters.weight?"),
        ("modles.1.parameters.weight=1", "--set modles.1.parameters.weight", "did you mean models?"),
        ("models.2.parameters.weight=1", "--set models.2.parameters.weight", "models has the indices 0 to 1"),
        ("models.x=1", "--set models.x", "models has the indices 0 to 1"),
        ("merge_method.x=1", "--set merge_method.x", "merge_method is a single value"),
        ("qqqq=1", "--set qqqq", "the file has the keys merge_method, models"),
        ("other:models=1", "--set other:models", "did you mean"),
        ("models.1.parameters.weight", "--set", "write it like parameters.t=0.4"),
        ("models.1.parameters.weight=[1", "--set models.1.parameters.weight", "write a number"),
        ("models.1.parameters.weight=", "--set models.1.parameters.weight", "write a number"),
        ("=1", "--set ", "the file has the keys"),
        # what an assignment breaks is told of the assignment
        ("models.1.parameters.weight=x", "--set: models[1].parameters.weight", "write a finite number"),
        ("models.1.parameters={wieght: 1}", "--set: models[1].parameters.wieght", "did you mean weight?"),
    ],
)  # fmt: skip
def test_assignments_that_cannot_be_made(assignment, key, remedy):
    assert [fault for fault in faults(LINEAR, assignment) if fault.key == key and remedy in fault.remedy], [
        str(fault) for fault in faults(LINEAR, assignment)
    ]


# Any valid document is read as what it says, and nothing else ever escapes than DocumentError.

numbers = st.floats(-1e6, 1e6) | st.integers(-1000, 1000)
plain_settings = numbers | st.lists(numbers, min_size=1, max_size=5)
conditions = st.lists(
    st.fixed_dictionaries({"filter": st.sampled_from(["mlp", "self_attn"]), "value": plain_settings}),
    min_size=1,
    max_size=3,
)
weights = plain_settings | conditions
paths = st.lists(
    st.text("abcxyz./-_", min_size=1, max_size=12).filter(str.strip), unique=True, min_size=1, max_size=4
)


def expected(value):
    if isinstance(value, list) and isinstance(value[0], dict):
        return tuple(Conditional(filter=c["filter"], value=expected(c["value"])) for c in value)
    return tuple(map(float, value)) if isinstance(value, list) else float(value)


@given(paths, st.data(), st.booleans(), st.sampled_from([json.dumps, yaml.safe_dump]))
def test_a_valid_document_is_read_as_what_it_says(models, data, normalize, dump):
    given_weights = [data.draw(weights) for _ in models]
    document = {
        "merge_method": "linear",
        "models": [
            {"model": m if dump is json.dumps else f"./{m}", "parameters": {"weight": w}}
            for m, w in zip(models, given_weights, strict=True)
        ],
        "parameters": {"normalize": normalize},
        "dtype": data.draw(st.sampled_from(["float32", "bfloat16"])),
    }
    recipe = one(dump(document))
    assert recipe == Recipe(
        method="linear",
        models=tuple(
            Source(model=ref(m["model"]), settings={"weight": expected(w)})
            for m, w in zip(document["models"], given_weights, strict=True)
        ),
        settings={"normalize": normalize},
        dtype=document["dtype"],
    )


def read_or_refused(text, *assignments):
    try:
        read(text, *assignments)
    except DocumentError as error:
        assert error.faults
        str(error).encode()


KEYS = [
    "merge_method",
    "models",
    "slices",
    "modules",
    "sources",
    "model",
    "layer_range",
    "parameters",
    "weight",
    "value",
    "filter",
    "tokenizer",
    "tokens",
    "source",
    "kind",
    "name",
    "base_model",
    "lora",
    "path",
    "<<",
]
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        ["linear", "ties", "slerp", "union", "a+b", "a@b", "zero", "model_token", "", "\x00", "{{"]
    )
    | st.text(max_size=8)
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)


@given(trees)
@settings(max_examples=300)
def test_any_tree_is_read_or_refused(tree):
    read_or_refused(json.dumps(tree))


@given(
    st.sampled_from(["linear", "ties", "slerp", "passthrough", "karcher"]),
    st.dictionaries(st.sampled_from(KEYS), trees),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_tree_with_a_method_is_read_or_refused(method, tree):
    read_or_refused(json.dumps({**tree, "merge_method": method}))


@given(st.text(), st.lists(st.text(max_size=20), max_size=2))
def test_any_text_and_any_assignment_are_read_or_refused(text, assignments):
    read_or_refused(text)
    read_or_refused(LINEAR, *assignments)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "merge.yml"
    path.write_bytes(content)
    try:
        read_recipes(path, method=find)
    except DocumentError as error:
        assert error.faults


@given(
    st.sampled_from([LINEAR, TIES, SLICES, STAGES, *(path.read_text() for path in EXAMPLES)]),
    st.lists(
        st.tuples(
            st.integers(0, 2000),
            st.integers(0, 6),
            st.text("{}[]:,-&*!|>'\"%@`#?\n \t<=~09.eE+\\xuabyn\x00\ud800"),
        ),
        min_size=1,
        max_size=4,
    ),
)
@settings(max_examples=400)
def test_any_damage_to_a_file_is_read_or_refused(text, edits):
    for place, gone, new in edits:
        start = place % (len(text) + 1)
        text = text[:start] + new + text[start + gone :]
    read_or_refused(text)
