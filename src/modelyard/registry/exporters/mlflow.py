"""A registry in MLflow's: registered models with their versions, the aliases `stage` and `prod`, the history.

MLflow overwrites an alias and keeps nothing of what it served before, so every move is a tag of the version
that it went to: `modelyard.move.ALIAS.GENERATION`, with who, when, why and on what evidence. Versions are
found again by the tag `modelyard.id`; MLflow numbers them itself. MLflow's client library is enough:
`mlflow-skinny`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelyard.core.errors import RegistryError
from modelyard.core.mlflow_service import cut, refusals, without_password
from modelyard.registry.exporters import Exported
from modelyard.registry.records import ALIASES, Move, Version
from modelyard.registry.store import Registry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

_OURS, _NAME, _ID = "modelyard.registry", "modelyard.name", "modelyard.id"
#: What MLflow takes at most of a description and of a name; and how much of a reason a tag gets.
_DESCRIPTION_CHARS, _NAME_CHARS, _REASON_CHARS = 5000, 240, 2000
_PAGE = 200
_OLDER = "older moves: see the versions' tags"


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowExporter:
    """Writes registries to an MLflow server, or to a database that one can read."""

    # As MLflow has it, such as http://host:5000 or sqlite:///mlflow.db; without it, what MLflow finds itself.
    tracking_uri: str | None = None

    def export(self, registry: Registry, name: str | None = None) -> Exported:
        """Write every version that is not there, and bring all that is there up to date.

        May be interrupted at any moment and called again. Not to be called twice at once for one registry:
        a version might be written twice.

        Args:
            registry: Whose versions.
            name: Only those of this name; aliases that serve another are then not in use there.

        Raises:
            RegistryError: There is no such name, MLflow cannot be reached, or a model of this name there is
                not this registry's.
        """
        history = registry.history()
        versions = registry.versions(name)  # read later: every move's version is among them
        if name is not None and not versions:
            registry.version(name)
        client_of = _client_class()
        with refusals(self.tracking_uri, "the registry", RegistryError):
            client = client_of(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)
            writer = _Writer(client=client, registry_id=registry.id, history=history)
            for each in sorted({version.name for version in versions}):
                writer.write([version for version in versions if version.name == each])
            if name is None:
                writer.take_aliases_elsewhere()
            place = without_password(self.tracking_uri or _found_uri())
        return Exported(
            place=place,
            added=tuple(writer.labels["added"]),
            updated=tuple(writer.labels["updated"]),
            known=tuple(writer.labels["known"]),
            aliases={a: m.label for a, m in writer.serving.items() if name in (None, m.name)},
        )


@dataclass(slots=True, kw_only=True)
class _Writer:
    """Writes one registry, model by model."""

    client: MlflowClient
    registry_id: str
    history: Sequence[Move]
    labels: dict[str, list[str]] = field(default_factory=lambda: {"added": [], "updated": [], "known": []})

    @property
    def serving(self) -> dict[str, Move]:
        """The move in force of each alias."""
        return {move.alias: move for move in self.history}

    def write(self, versions: Sequence[Version]) -> None:
        """Write the versions of one name, then what its aliases serve."""
        name = versions[0].name
        moves = [move for move in self.history if move.name == name]
        model = self._model(name)
        there = {each.tags.get(_ID): each for each in reversed(self._versions(model.name))}
        numbers = {}
        for version in versions:
            own = [move for move in moves if move.version == version.version]
            tags, told = version_tags(version, own), description(own)
            found = there.get(version.id)
            if found is None:
                found = self.client.create_model_version(
                    model.name, self._source(version), tags=tags, description=told
                )
                self.labels["added"].append(version.label)
            else:
                changed = self._update(found, tags, told)
                self.labels["updated" if changed else "known"].append(version.label)
            numbers[version.version] = str(found.version)
        told = description(moves)
        if (model.description or "") != told:
            self.client.update_registered_model(model.name, told)
        self._aliases(model, name, numbers)

    def take_aliases_elsewhere(self) -> None:
        """Take an alias from every model of this registry but the one that it serves.

        The last step, so that at no moment an alias is nowhere.
        """
        query = f"tags.`{_OURS}` = '{self.registry_id}'"
        for model in _pages(self.client.search_registered_models, query):
            self._take(model, model.tags.get(_NAME, ""))

    def _model(self, name: str) -> RegisteredModel:
        """The registered model of a name, which is made where it is missing."""
        from mlflow.exceptions import MlflowException

        wanted = allowed_name(name)
        tags = {_OURS: self.registry_id, _NAME: name}
        try:
            found = self.client.get_registered_model(wanted)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return self.client.create_registered_model(wanted, tags=tags)
        if {each: found.tags.get(each) for each in tags} != tags:
            raise RegistryError(
                f"{wanted}: MLflow has a model of this name that is not {name} of this registry; rename it "
                "in MLflow, or register ours under another name"
            )
        return found

    def _versions(self, name: str) -> list[ModelVersion]:
        return sorted(
            _pages(self.client.search_model_versions, f"name = '{name}'"), key=lambda each: int(each.version)
        )

    def _source(self, version: Version) -> str:
        """Where the model is: not where MLflow could fetch it, but what it is."""
        return f"modelyard://{self.registry_id}/{version.digest.replace(':', '/')}"

    def _update(self, found: ModelVersion, tags: Mapping[str, str], told: str) -> bool:
        """Whether anything had to be changed. Tags of others stay."""
        model, number = found.name, str(found.version)
        stale = {key: value for key, value in tags.items() if found.tags.get(key) != value}
        gone = [key for key in found.tags if key.startswith("modelyard.") and key not in tags]
        for key, value in stale.items():
            self.client.set_model_version_tag(model, number, key, value)
        for key in gone:
            self.client.delete_model_version_tag(model, number, key)
        retold = (found.description or "") != told
        if retold:
            self.client.update_model_version(model, number, told)
        return bool(stale or gone or retold)

    def _aliases(self, model: RegisteredModel, name: str, numbers: Mapping[int, str]) -> None:
        """Point the aliases that serve this model at its versions, and take the others from it."""
        # a database gives their numbers as integers, a server as texts
        there = {alias: str(number) for alias, number in model.aliases.items()}
        for alias, move in self.serving.items():
            if move.name == name and there.get(alias) != numbers[move.version]:
                self.client.set_registered_model_alias(model.name, alias, numbers[move.version])
        self._take(model, name)

    def _take(self, model: RegisteredModel, name: str) -> None:
        for alias in ALIASES:
            move = self.serving.get(alias)
            if alias in model.aliases and (move is None or move.name != name):
                self.client.delete_registered_model_alias(model.name, alias)


def version_tags(version: Version, moves: Sequence[Move]) -> dict[str, str]:
    """All that is known of a version, and every move to it; what there is nothing of is left out.

    The newest move of each alias stands in tags of its own too, which MLflow can search.
    """
    facts = {
        "id": version.id, "label": version.label, "digest": version.digest, "yard": version.yard,
        "registered_at": version.created_at, "trained_by": version.trained_by, "run_id": version.run_id,
        "parent_digest": version.parent_digest,
    }  # fmt: skip
    for move in moves:
        facts[f"move.{move.alias}.{move.generation}"] = json.dumps(_told(move), ensure_ascii=False)
        newest = {
            "by": move.actor, "at": move.at, "why": cut(move.reason, _REASON_CHARS), "kind": move.kind,
            "evidence_digest": move.evidence_digest,
        }  # fmt: skip
        facts |= {f"{move.alias}.{key}": value for key, value in newest.items()}
    return {f"modelyard.{key}": value for key, value in facts.items() if value}


def description(moves: Sequence[Move]) -> str:
    """The moves for people, the newest first: as many as MLflow takes."""
    lines: list[str] = []
    room = _DESCRIPTION_CHARS - len(_OLDER)
    for move in sorted(moves, key=lambda each: each.at, reverse=True):
        line = cut(
            f"- {move.at[:19]} {move.alias} {move.generation}: {move.kind} to {move.label} by {move.actor}: "
            f"{' '.join(move.reason.split())}",
            _REASON_CHARS,
        ) + f" (evidence {move.evidence_digest.removeprefix('sha256:')[:12]})"  # fmt: skip
        room -= len(line) + 1
        if room < 0:
            return "\n".join([*lines, _OLDER])
        lines.append(line)
    return "\n".join(lines)


def allowed_name(name: str) -> str:
    """A model's name as MLflow takes it: other signs become `_`."""
    return re.sub(r"[^\w.\- ]", "_", name)[:_NAME_CHARS]


def _told(move: Move) -> dict[str, Any]:
    """A move as its tag has it: all of it but the signatures of its approvals."""
    approvals = [
        {
            "approver": each.get("approver"),
            "at": each.get("at"),
            "key_id": (each.get("signature") or {}).get("key_id"),
        }
        for each in move.approvals
    ]
    return {**move.record(), "reason": cut(move.reason, _REASON_CHARS), "approvals": approvals}


def _pages(search: Any, query: str) -> Iterator[Any]:
    """Everything that a search of MLflow's client finds."""
    token: str | None = None
    while True:
        page = search(filter_string=query, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _client_class() -> type[MlflowClient]:
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise RegistryError(
            "a registry cannot be exported to MLflow without its client; "
            "install it with pip install 'modelyard[mlflow]'"
        ) from error
    return MlflowClient


def _found_uri() -> str:
    """Where MLflow finds its registry itself."""
    import mlflow

    return mlflow.get_registry_uri()
