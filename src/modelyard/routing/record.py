"""A router's parts as a record and tensors, and back; how they lie on disk is `stored.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from modelyard.core.errors import RoutingError
from modelyard.routing.candidates import Candidate
from modelyard.routing.clusters import Clusters
from modelyard.routing.embedders import Embedder, load_embedder
from modelyard.routing.facts import Facts
from modelyard.routing.fitting import Fit
from modelyard.routing.profiles import Profiles
from modelyard.routing.stored import Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a router is made of."""

    embedder: Embedder
    candidate: Candidate
    clusters: Clusters
    models: Profiles
    pool: Fit
    # What is declared of models, by name.
    facts: Mapping[str, Facts]


def record_of(parts: Parts) -> tuple[dict[str, Any], dict[str, Any]]:
    """The record and the tensors."""
    models, pool = parts.models, parts.pool
    record = {
        "embedder": {"name": parts.embedder.name, "fingerprint": parts.embedder.fingerprint},
        "candidate": asdict(parts.candidate),
        "dearest_usd": pool.dearest_usd,
        "models": list(models.names),
        "examples": list(pool.examples),
        "facts": {name: facts.known() for name, facts in sorted(parts.facts.items())},
    }
    tensors: dict[str, Any] = {
        "centroids": parts.clusters.centroids_kd,
        "psi": models.psi_mk,
        "sd": models.sd_mk,
        "answers": models.answers_mk,
        "cost_usd": models.cost_usd_m,
        "cluster_cost_usd": models.cost_usd_mk,
        "errors": models.errors_mn,
        "known_errors": pool.errors_mn,
        "prompts": pool.embeddings_nd,
        "prompt_clusters": pool.clusters_n,
    }
    return record, tensors


def parts_of(record: Mapping[str, Any], tensors: Tensors, embedder: Embedder | None) -> Parts:
    """The parts out of what was stored.

    Routers that were written before costs were told by cluster have one cost a model, those that were
    written before facts have none.

    Raises:
        RoutingError: The embedder is another one.
        KeyError, TypeError, ValueError: The parts do not fit together.
    """
    given, wanted = embedder or load_embedder(record["embedder"]["name"]), record["embedder"]
    if given.fingerprint != wanted["fingerprint"]:
        raise RoutingError(
            f"the router was fitted with the embedder {wanted['name']} {wanted['fingerprint']}, not with "
            f"{given.name} {given.fingerprint}; use that one, or fit the router again"
        )
    candidate = Candidate(**record["candidate"])
    count, prompts, clusters = len(record["models"]), len(record["examples"]), candidate.clusters
    if "cluster_cost_usd" not in tensors:
        flat = np.repeat(tensors["cost_usd"][:, None], clusters, axis=1)
        tensors = {**tensors, "cluster_cost_usd": flat}
    known = tensors["known_errors"]
    shapes = {
        "centroids": (clusters, given.dimensions), "psi": (count, clusters), "sd": (count, clusters),
        "answers": (count, clusters), "cost_usd": (count,), "cluster_cost_usd": (count, clusters),
        "errors": (count, prompts), "prompts": (prompts, given.dimensions), "prompt_clusters": (prompts,),
        "known_errors": (len(known), min(prompts, known.shape[1]) if candidate.nearest else prompts),
    }  # fmt: skip
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} has shape {tensors[name].shape} where {shape} is needed")
    return Parts(
        embedder=given,
        candidate=candidate,
        clusters=Clusters(centroids_kd=tensors["centroids"]),
        models=Profiles(
            names=tuple(record["models"]),
            psi_mk=tensors["psi"],
            sd_mk=tensors["sd"],
            answers_mk=tensors["answers"],
            cost_usd_m=tensors["cost_usd"],
            cost_usd_mk=tensors["cluster_cost_usd"],
            errors_mn=tensors["errors"],
        ),
        pool=Fit(
            examples=tuple(record["examples"]),
            embeddings_nd=tensors["prompts"],
            clusters_n=tensors["prompt_clusters"],
            errors_mn=tensors["known_errors"],
            dearest_usd=float(record["dearest_usd"]),
        ),
        facts={name: Facts(**known) for name, known in record.get("facts", {}).items()},
    )
