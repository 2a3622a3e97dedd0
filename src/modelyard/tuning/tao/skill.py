"""Skills of TAO's skill bank: what a model's folder says of one action.

    references/skill_info.yaml              actions, container image, where data go in the specification
    references/spec_template_ACTION.yaml    the specification to begin with; may be missing
    schemas/ACTION.schema.json              its keys, their defaults and ranges; may be missing
    versions.yaml                           in a folder above: images by key

Everything is read and checked at once; nothing is made here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.faults import Faults, Section, read_json_document
from modelyard.core.yaml_documents import read_yaml_document
from modelyard.tuning.tao.specs import Specs, flat_keys, placed, value_at

_FORMATS = ("json", "yaml", "toml")
_SOURCES = ("train_datasets", "eval_dataset")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """An action that is a Python script rather than a command in a container."""

    path: Path
    # May hold {config_path}, {results_dir} and {job_id}.
    args: tuple[str, ...] = ("--config", "{config_path}")
    cwd: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """One action of one model."""

    folder: Path
    action: str
    network: str
    # Empty for an action that is a script.
    image: str
    command: str
    config_format: str
    script: Script | None = None
    # As the action declares them; `inputs` and `outputs` are keys of the specification.
    inputs: Any = None
    outputs: Any = None
    upload_excludes: tuple[str, ...] = ()
    specs: Specs = field(default_factory=dict)
    schema: Specs | None = None
    # By key of the specification: where its value comes from.
    data_sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data_format: str = ""

    @property
    def known_keys(self) -> frozenset[str]:
        """Every key that a specification of this action may have, by the template and the schema."""
        schema = self.schema or {}
        defaults = schema.get("default") or {}
        return frozenset({*flat_keys(self.specs), *_schema_keys(schema), *flat_keys(defaults)})

    @property
    def declared_outputs(self) -> frozenset[str]:
        """Keys of the specification whose place the platform chooses."""
        return frozenset(map(str, self.outputs or ()))

    def with_data(self, train: str, evaluation: str) -> dict[str, Any]:
        """The specification with the places of the data sets put in as the skill's rules say."""
        specs = copy.deepcopy(dict(self.specs))
        places = dict(zip(_SOURCES, (train, evaluation), strict=True))
        for key, rule in self.data_sources.items():
            place = places.get(str(rule.get("source")), "")
            if place:
                base = place.replace("aws://", "s3://", 1) if place.startswith("aws://") else place
                found = _data_value(rule, base.rstrip("/"), specs, key=key, kind=self.data_format)
                if found is not None:
                    placed(specs, key, found)
        return specs


def read_skill(
    folder: Path, action: str, *, image: str | None = None, execution: Mapping[str, Any] | None = None,
    versions: Path | None = None,
) -> Skill:  # fmt: skip
    """Read a skill's folder.

    Args:
        folder: The model's folder in the skill bank.
        action: Such as train.
        image: The container image, in place of the skill's.
        execution: How a script is run, in place of the skill's.
        versions: The file of images; None looks in the folders above.

    Raises:
        DocumentError: With everything that is wrong, each with its remedy.
    """
    path = folder / "references" / "skill_info.yaml"
    faults = Faults(file=str(path))
    told = read_yaml_document(path, faults, absent="give the folder of a model of TAO's skill bank")
    faults.raise_if_any()
    info = Section(told, faults=faults)
    actions = info.section("actions")
    if not isinstance(actions.data.get(action), Mapping):
        known = ", ".join(sorted(map(str, actions.data))) or "none"
        faults.add(f"actions.{action}", None, "is missing", f"use one of its actions: {known}")
        faults.raise_if_any()
    own = actions.section(action)
    script = _script(own, folder, execution)
    schema = _schema(folder, action, faults, needed=script is not None)
    default_format = "toml" if script is None else "yaml"
    data_sources = info.section("data_sources").raw(action)
    skill = Skill(
        folder=folder, action=action, network=info.text("network_arch", folder.absolute().name),
        image="" if script else _image(image or own.raw("container_image") or info.raw("container_image"),
                                       versions or _above(folder), faults),
        command="" if script else own.text("command"),
        config_format=_format(own, execution, default_format), script=script, inputs=own.raw("inputs"),
        outputs=own.raw("outputs"), upload_excludes=own.texts("upload_excludes"),
        specs=_specs(folder, action, schema, faults), schema=schema,
        data_sources=_rules(data_sources, faults, action), data_format=str(info.raw("data_format") or ""),
    )  # fmt: skip
    if script is not None and image:
        faults.add("image", image, "is given for an action that is a Python script", "leave the image out")
    faults.raise_if_any()
    return skill


def _script(own: Section, folder: Path, execution: Mapping[str, Any] | None) -> Script | None:
    """The script of an action, where it is one."""
    told = execution if execution is not None else own.raw("execution")
    if told is None:
        return None
    run = Section(
        told, faults=own.faults, path="execution" if execution is not None else own.key("execution")
    )
    run.choice("type", "python_script", ("python_script",))
    path = (folder / Path(run.text("script")).expanduser()).resolve()
    cwd = (folder / Path(run.text("cwd", ".")).expanduser()).resolve()
    if run.has("script") and not path.is_file():
        run.faults.add(run.key("script"), str(path), "does not exist", "give the script's path in the folder")
    if not cwd.is_dir():
        run.faults.add(run.key("cwd"), str(cwd), "is not a folder", "give the folder that the script runs in")
    args = run.texts("args") if run.has("args") else run.texts("script_args")
    given = run.has("args") or run.has("script_args")
    return Script(path=path, cwd=cwd, args=args) if given else Script(path=path, cwd=cwd)


def _format(own: Section, execution: Mapping[str, Any] | None, default: str) -> str:
    """How the specification is written for the command: what the script says, or the action."""
    told = execution if execution is not None else own.raw("execution")
    said = told.get("config_format") if isinstance(told, Mapping) else None
    if said is not None:
        return Section({"config_format": said}, faults=own.faults).choice("config_format", default, _FORMATS)
    return own.choice("config_format", default, _FORMATS)


def _schema(folder: Path, action: str, faults: Faults, *, needed: bool) -> Specs | None:
    path = folder / "schemas" / f"{action}.schema.json"
    if not path.exists():
        if needed:
            faults.add(
                str(path), None, "does not exist", "write the schema: what a script takes is told there"
            )
        return None
    own = Faults(file=str(path))
    schema = read_json_document(path, own)
    faults.found += own.found
    if not isinstance(schema, Mapping):
        faults.add(str(path), None, "is not a mapping", "give the schema of the action")
        return None
    return dict(schema)


def _specs(folder: Path, action: str, schema: Specs | None, faults: Faults) -> dict[str, Any]:
    """The template, or else the schema's defaults."""
    path = folder / "references" / f"spec_template_{action}.yaml"
    if not path.exists():
        default = (schema or {}).get("default")
        return copy.deepcopy(dict(default)) if isinstance(default, Mapping) else {}
    own = Faults(file=str(path))
    specs = read_yaml_document(path, own)
    faults.found += own.found
    if specs is not None and not isinstance(specs, Mapping):
        faults.add(str(path), None, "is not a mapping", "write the specification as keys and values")
        return {}
    return dict(specs or {})


def _image(told: object, versions: Path | None, faults: Faults) -> str:
    """The image: as it is written, or by its key in the file of versions."""
    if not isinstance(told, str) or not told:
        faults.add("container_image", told, "is missing", "name the image: run(image=...)")
        return ""
    if "/" in told or ":" in told:
        return told
    if versions is None:
        problem = "is a key of versions.yaml, and there is no such file above the folder"
        faults.add("container_image", told, problem, "give the image itself: run(image=...)")
        return ""
    own = Faults(file=str(versions))
    manifest = read_yaml_document(versions, own)
    faults.found += own.found
    images = manifest.get("images") if isinstance(manifest, Mapping) else None
    found = value_at(images, told) if isinstance(images, Mapping) else None
    if not isinstance(found, str):
        faults.add("container_image", told, f"is no key of {versions}", "correct it, or give run(image=...)")
        return ""
    return found


def _above(folder: Path) -> Path | None:
    """The versions.yaml in the nearest folder above that has one."""
    candidates = (parent / "versions.yaml" for parent in (folder.absolute(), *folder.absolute().parents))
    return next((path for path in candidates if path.is_file()), None)


def _rules(told: object, faults: Faults, action: str) -> dict[str, Mapping[str, Any]]:
    if told is None:
        return {}
    rules = dict(told) if isinstance(told, Mapping) else {"": told}
    for key, rule in rules.items():
        if not isinstance(rule, Mapping):
            faults.add(f"data_sources.{action}.{key}", rule, "is not a mapping", "write source: and path:")
    return {str(key): rule for key, rule in rules.items() if isinstance(rule, Mapping)}


def _data_value(rule: Mapping[str, Any], base: str, specs: Specs, *, key: str, kind: str) -> Any:
    """What a rule puts into the specification; None where it says nothing."""
    mapping, path, by_format = rule.get("mapping"), rule.get("path"), rule.get("path_from_format")
    if isinstance(mapping, Mapping):
        item = {}
        for name, one in mapping.items():
            told = one if isinstance(one, Mapping) else {}
            if told.get("path"):
                item[str(name)] = f"{base}/{str(told['path']).lstrip('/')}"
            elif not told.get("optional"):
                item[str(name)] = base
        return [item] if rule.get("multiple_sources") or isinstance(value_at(specs, key), list) else item
    if path:
        filled = str(path)
        for name, value in specs.items():
            if isinstance(value, str | int | float):
                filled = filled.replace(f"{{{name}}}", str(value))
        return f"{base}/{filled}"
    if isinstance(by_format, Mapping):
        return f"{base}/{_suffix(by_format.get(kind, by_format.get('*')))}"
    return None


def _suffix(told: object) -> str:
    """The file within the data set: the one named, or of several archives that of videos, else the last."""
    if isinstance(told, str):
        return told
    archives = (
        [s for s in told if isinstance(s, str) and s.endswith(".tar.gz")] if isinstance(told, list) else []
    )
    return next((s for s in archives if "video" in s), archives[-1] if archives else "")


def _schema_keys(schema: object, prefix: str = "") -> Iterator[str]:
    """The dotted names of a schema's properties; the first item stands for those of a list."""
    if not isinstance(schema, Mapping):
        return
    properties = schema.get("properties")
    for name, child in properties.items() if isinstance(properties, Mapping) else ():
        full = f"{prefix}.{name}" if prefix else str(name)
        yield full
        yield from _schema_keys(child, full)
    if prefix and isinstance(schema.get("items"), Mapping):
        yield f"{prefix}[0]"
        yield from _schema_keys(schema["items"], f"{prefix}[0]")
