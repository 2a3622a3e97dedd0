"""Side by side with nvidia-tao-automl itself, where it is installed: what both do alike, both do alike."""

from __future__ import annotations

import contextlib
import copy
import json
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.tuning.tao_bench import SCHEMA, SPECS, make_skill

from modelyard.core.errors import DocumentError
from modelyard.tuning.tao.automl import AutoML as OurAutoML
from modelyard.tuning.tao.automl_plan import PLATFORMS
from modelyard.tuning.tao.calls import trial_call
from modelyard.tuning.tao.checkpoints import Checkpoint, checkpoint_of
from modelyard.tuning.tao.request import argument_names
from modelyard.tuning.tao.result import comparison
from modelyard.tuning.tao.resuming import ENVIRONMENT, Ancestor, checkpoint_in, resume_place, resumed
from modelyard.tuning.tao.settings import Retention, implied_direction, read_tao_settings
from modelyard.tuning.tao.skill import read_skill
from modelyard.tuning.tao.specs import (
    budget_keys,
    flat_keys,
    merged,
    with_own_outputs,
    with_retention,
    with_trainable_batch,
)

theirs = pytest.importorskip("tao_automl.runner", reason="peer: nvidia-tao-automl is not installed")

NAMES = st.sampled_from(["a", "b", "train", "results_dir", "num_epochs", "batch_size"])
LEAVES = st.integers(0, 9) | st.text("xy/", max_size=3) | st.none() | st.booleans()
NESTED = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=8)
SPECIFICATIONS = st.dictionaries(NAMES, NESTED, max_size=4)
DOTTED = st.lists(NAMES, min_size=1, max_size=3).map(".".join)


def test_the_arguments_of_run():
    import inspect

    names = list(inspect.signature(theirs.AutoMLRunner.run).parameters)
    assert names == ["self", *argument_names(), "platform_kwargs"]


@given(SPECIFICATIONS, st.dictionaries(DOTTED, LEAVES | SPECIFICATIONS, max_size=4))
def test_merging(specs, overrides):
    try:
        expected = theirs.AutoMLRunner._merge_specs(specs, overrides)
    except (
        TypeError
    ):  # a way through null, which we take, or through a value, which we refuse with the reason
        with contextlib.suppress(ValueError):
            assert set(flat_keys(merged(specs, overrides))) >= set(overrides)
        return
    assert merged(specs, overrides) == expected


@pytest.mark.parametrize("name", ["a[1].b", "a[0].b.c", "x.y[2].z", "new[1]"])
def test_merging_into_lists(name):
    specs = {"a": [{"b": {"c": 1}}, {"b": 2}], "x": {"y": [{"z": 0}]}}
    assert merged(specs, {name: 7}) == theirs.AutoMLRunner._merge_specs(specs, {name: 7})


@given(SPECIFICATIONS)
def test_names(specs):
    assert set(flat_keys(specs)) == theirs._flatten_keys(specs)


@given(SPECIFICATIONS, st.integers(0, 99), st.sets(DOTTED, max_size=2))
def test_places_of_output(specs, number, declared):
    expected = copy.deepcopy(specs)
    moved = theirs._auto_suffix_output_dirs(expected, number, declared)
    assert with_own_outputs(specs, number, declared) == (expected, moved)


@given(st.integers(1, 99), st.integers(1, 99), st.integers(1, 9), st.integers(1, 9))
def test_batches(batch, samples, shards, mini):
    specs = {"train": {"batch_size": batch, "num_gpus": shards, "mini_batch": mini}}
    expected, rec = copy.deepcopy(specs), SimpleNamespace(id=0, specs={}, adjustments=[], failure_reason=None)
    refused = theirs._maybe_cap_effective_batch(expected, rec, {"train_samples": samples}, {})
    own, change, refusal = with_trainable_batch(specs, sample_count=samples, platform={})
    assert (own, refusal) == (expected, refused or "")
    assert ([] if change is None else [change.record()]) == rec.adjustments


@given(
    st.dictionaries(st.sampled_from(["num_epochs", "lr"]), st.integers(1, 9), max_size=2),
    st.none() | st.dictionaries(st.sampled_from(["monitor", "mode", "save_top_k"]), st.text(max_size=2)),
    st.sampled_from(["auto", "best", "terminal"]),
    st.sampled_from(["minimize", "maximize"]),
)
def test_checkpoints(train, checkpointer, strategy, direction):
    specs = {"train": {**train, **({} if checkpointer is None else {"checkpointer": checkpointer})}}
    expected = copy.deepcopy(specs)
    own = with_retention(specs, Retention(strategy=strategy), metric="m", direction=direction)
    try:
        theirs._apply_checkpoint_retention_strategy(
            expected, enabled=True, strategy=strategy, metric="m", direction=direction
        )
    except ValueError:  # it refuses the trial where we leave it as it is
        assert own == specs
    else:
        assert own == expected


@given(st.floats(-9, 9), st.floats(-9, 9), st.sampled_from(["minimize", "maximize"]))
def test_comparisons(baseline, value, direction):
    assert comparison(baseline, value, direction) == theirs._compare_to_baseline(baseline, value, direction)


def test_every_setting_is_known_to_both():
    for name in theirs.KNOWN_AUTOML_SETTINGS:
        theirs._validate_automl_settings({name: None})
        read_tao_settings({name: None, "algorithm": "asha"})
    for name in ("automl_max_recommendation", "metrik"):
        with pytest.raises(ValueError, match="Unrecognized"):
            theirs._validate_automl_settings({name: 1})
        with pytest.raises(DocumentError, match="unknown key"):
            read_tao_settings({"algorithm": "asha", name: 1})


@given(st.text(max_size=12))
def test_directions(metric):
    from tao_automl.objectives import implicit_direction

    assert implied_direction(metric) == implicit_direction(metric)


def test_epochs():
    from tao_automl.brain.base import AutoMLAlgorithmBase

    specs = {
        "train": {"num_epochs": 1, "optim": {"epochs": 2}}, "epochs": 3, "model": {"epochs": 4},
        "runner": {"max_epochs": 5}, "train_config": {"n_epochs": 6},
    }  # fmt: skip
    brain = SimpleNamespace(
        state_store=SimpleNamespace(get_job_specs=lambda _: specs), context=SimpleNamespace(id=0)
    )
    found = AutoMLAlgorithmBase._training_budget_spec_overrides(brain, num_epochs=9)
    assert found == dict.fromkeys(budget_keys(specs), 9)


RULES = {
    "dataset.train": {"source": "train_datasets", "path": "{kind}/images.tar.gz"},
    "dataset.val": {"source": "eval_dataset", "path_from_format": {"*": ["a.tar.gz", "videos.tar.gz"]}},
    "dataset.sources": {"source": "train_datasets", "mapping": {"path": {"path": "/images"}, "root": {}}},
}


@pytest.mark.parametrize("train", ["", "aws://bucket/train/", "/data"])
def test_data_and_skills(tmp_path, train):
    folder = make_skill(tmp_path / "toy")
    path = folder / "references" / "skill_info.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "data_sources": {"train": RULES}}))
    (folder / "references" / "spec_template_train.yaml").write_text(yaml.safe_dump({**SPECS, "kind": "coco"}))
    skill, context = read_skill(folder, "train"), theirs.SkillContext(skill_dir=folder, action="train")
    assert (skill.specs, skill.schema) == (context.default_specs, context.schema)
    assert skill.known_keys == context.valid_spec_keys
    assert (skill.network, skill.image) == (context.network_arch, context.container_image)
    expected = copy.deepcopy(context.default_specs)
    theirs.AutoMLRunner._apply_data_sources(
        skill_info=context.skill_info, specs=expected, action="train", train_dataset_uri=train,
        eval_dataset_uri="s3://e", data_format=None,
    )  # fmt: skip
    assert skill.with_data(train, "s3://e") == expected


class Recording:
    """An SDK that keeps what it is asked for and refuses it."""

    def __init__(self):
        self.asked = []

    def create_job(self, **arguments):
        self.asked.append(("create_job", arguments))
        raise ValueError("recorded")

    def create_python_job(self, **arguments):
        self.asked.append(("create_python_job", arguments))
        raise ValueError("recorded")


@pytest.mark.parametrize("script", [False, True], ids=["container", "script"])
def test_calls(tmp_path, script):
    execution = {"type": "python_script", "script": "train.py"} if script else None
    folder = make_skill(
        tmp_path / "toy", upload_excludes=["*.log"], inputs={"dataset.train": {}}, execution=execution
    )
    if script:
        search = {
            "properties": {"a": {"type": "number", "minimum": 0.0, "maximum": 1.0, "automl_enabled": True}}
        }
        schema = {**SCHEMA, "type": "object", **search, "default": {"a": 0.5}}
        (folder / "schemas" / "train.schema.json").write_text(json.dumps(schema))
        (folder / "references" / "spec_template_train.yaml").write_text("a: 0.5\n")
    sdk = Recording()
    runner = theirs.AutoMLRunner(sdk, folder, poll_interval=0)
    context = runner.skill_ctx
    runner._run_one_job(
        image=context.container_image, action_cfg=context.action_cfg, specs=context.default_specs,
        rec=SimpleNamespace(id=0, assign_job_id=print, failure_reason=None), metric_name="loss",
        execution=context.execution, platform_kwargs={"gpu_count": 2},
    )  # fmt: skip
    ((method, expected),) = sdk.asked
    call = trial_call(read_skill(folder, "train"), context.default_specs, {})
    assert (call.method, {**call.arguments, "gpu_count": 2}) == (method, expected)


@pytest.mark.parametrize("path", [True, False], ids=["path", "switch"])
@pytest.mark.parametrize("switch", [True, False], ids=["resume", "none"])
@pytest.mark.parametrize("network", ["toy", "nvpanoptix3d"])
def test_going_on_from_a_checkpoint(tmp_path, path, switch, network):
    train = {"num_epochs": 9, **({"resume": None} if switch else {}),
             **({"resume_training_checkpoint_path": None} if path else {})}  # fmt: skip
    kept = tmp_path / "platform" / "job-1" / "model_epoch_002.pth"
    kept.parent.mkdir(parents=True)
    kept.touch()
    platform = {"mounts": [{"host_path": str(tmp_path / "platform"), "container_path": "/results"}]}
    folder = make_skill(tmp_path / "toy")
    info = folder / "references" / "skill_info.yaml"
    info.write_text(yaml.safe_dump({**yaml.safe_load(info.read_text()), "network_arch": network}))
    (folder / "references" / "spec_template_train.yaml").write_text(yaml.safe_dump({"train": train}))
    (folder / "schemas" / "train.schema.json").write_text(json.dumps({"default": {"train": train}}))
    runner = theirs.AutoMLRunner(Recording(), folder, poll_interval=0)
    rec = SimpleNamespace(id=0, resume_from_job_id="job-1", resume_from_epoch=3, resume_from_step=None)
    expected = runner._apply_resume_checkpoint({"train": copy.deepcopy(train)}, rec, platform)
    skill = read_skill(folder, "train")
    place = resume_place(skill, {"train": train})
    assert bool(place) == (path or switch)
    own = {"train": train}
    if place:
        parent = Ancestor(job_id="job-1", epoch=3)
        found = checkpoint_in(Recording(), platform, parent, place=place, network=network)
        assert found == "/results/job-1/model_epoch_002.pth"
        own = resumed(own, place, found, network=network)
        environment = runner._apply_resume_environment(platform, rec)["env_vars"]
        assert environment == ENVIRONMENT
    assert own == expected


NAMED = st.sampled_from(
    ["model_epoch_{:03d}.pth", "epoch={}-step=5.ckpt", "model_best_{}.pth", "epoch_{}.pth"]
)
KEPT = st.lists(st.tuples(NAMED, st.integers(0, 5)), max_size=5)


@given(KEPT, st.integers(1, 5))
def test_which_checkpoint(kept, epoch):
    from tao_sdk.checkpoints import select_checkpoint_path

    paths = [name.format(number) for name, number in kept if not name.startswith("epoch=")]  # it reads none
    expected = select_checkpoint_path(paths, epoch=epoch)
    own = checkpoint_of([Checkpoint(path=path) for path in paths], epoch=epoch)
    assert (own is None) == (expected is None)
    if own is not None:  # which of two that are as good is open
        assert Checkpoint(path=own).epoch == Checkpoint(path=expected).epoch


def test_the_arguments_of_the_lower_level():
    import inspect

    from tao_automl import AutoML

    own = inspect.signature(OurAutoML.__init__).parameters
    for name, parameter in inspect.signature(AutoML.__init__).parameters.items():
        assert own[name].default == parameter.default
    assert list(own) == list(inspect.signature(AutoML.__init__).parameters)
    methods = ("next_recommendation", "report_result", "get_best", "get_progress", "get_history",
               "get_pareto_front", "get_status", "is_complete", "finish", "get_required_checkpoint_job_ids",
               "get_verified_full_fidelity_best", "get_algorithm_state")  # fmt: skip
    for name in methods:
        theirs_takes, ours_takes = (inspect.signature(getattr(kind, name)) for kind in (AutoML, OurAutoML))
        assert list(ours_takes.parameters) == list(theirs_takes.parameters)


def test_the_keys_of_the_lower_level(tmp_path):
    from tao_automl import AutoML

    told = []
    for kind, folder in ((AutoML, tmp_path / "theirs"), (OurAutoML, tmp_path / "ours")):
        settings = {"algorithm": "bayesian", "metric": "loss", "automl_max_recommendations": 1}
        automl = kind(str(folder), "toy", copy.deepcopy(SPECS), settings, search_schema=SCHEMA)
        (rec,) = automl.next_recommendation()
        automl.report_result(rec.id, 0.5)
        assert automl.is_complete()
        status = automl.get_status()
        told.append([
            sorted(status), sorted(status["progress"]), sorted(rec.keys()), automl.get_best().result,
            set(status["best"]), set(status["recommendations"][0]),
        ])  # fmt: skip
        automl.finish()
    assert told[0][:4] == told[1][:4]
    assert told[0][4] <= told[1][4]
    assert told[0][5] - told[1][5] <= {"created_on", "last_modified", "adjustments", "feedback"}


def test_plans_name_the_same_platforms():
    assert set(PLATFORMS) == set(theirs._PLATFORMS)
