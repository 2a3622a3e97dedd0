"""Routers of llmrouter-lib 0.4.0 and RouteLLM 0.2.0, trained by their own code on answers that are given.

Knows how data, options and embeddings are handed over; nothing of divisions, curves and tables.

What stands in: llmrouter-lib is given prompts' vectors in the file where it keeps Longformer's, and its
trained model is asked for all prompts at once, where `route_batch` asks prompt by prompt and then calls
the chosen model. Only its graph router goes through `route_batch`, with `get_longformer_embedding` and
`call_api` of that module replaced. RouteLLM asks OpenAI for vectors: `OPENAI_CLIENT` of the two modules
that use it is replaced by a table of ours, and its `text_dim` is ours. Nothing else of either is changed.

Options are those of llmrouter-lib's own configuration files and of RouteLLM's training script. Labels:
llmrouter-lib takes the first row of the best performance as a prompt's best model, so that with right and
wrong the order of the rows decides (see `ORDERS`). RouteLLM's factorisation leaves ties out; its ranking
counts a tie as half a win.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llmrouter.models as llmrouter
import llmrouter.models.graphrouter.router as graph_module
import numpy as np
import pandas as pd
import routellm.routers.matrix_factorization.model as factor_module
import routellm.routers.routers as routellm
import torch
from routellm.routers.matrix_factorization.train_matrix_factorization import (
    MFModel_Train,
    PairwiseDataset,
    train_loops,
)

#: How the rows of one prompt are ordered, that is, which of the models that are right is "the best".
#: `arrival`: as answers come in, which is how llmrouter-lib's data preparation leaves them
#: (data/api_calling_evaluation.py, `as_completed`); here drawn by lot. The other two are kinder.
ORDERS = ("arrival", "cheapest", "strongest")
THRESHOLDS = 201
#: The models that scores are of, the scores [Q, C], and what it chooses, [Q].
Read = tuple[list[str], np.ndarray, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a router may learn from, and the prompts that it is asked about."""

    models: tuple[str, ...]
    prompts: tuple[str, ...]
    # Right (1) or wrong (0), [M, N]; NaN where a model was not asked.
    quality_mn: np.ndarray
    embeddings_nd: np.ndarray
    cost_m: np.ndarray
    # A cheap and a strong model, for routers of two.
    pair: tuple[int, int]
    asked_qd: np.ndarray
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """What a trained router says of the prompts that it is asked about."""

    chosen_q: np.ndarray
    # Of one core: its files read, its labels made, trained.
    train_cpu_s: float
    # Where prompts are asked about one by one.
    decide_cpu_ms: float | None = None
    # Of a router whose scores can be read: the higher, the better, [M, Q].
    scores_mq: np.ndarray | None = None
    # Of a router with a threshold: what it chooses at each, [P, Q].
    choices_pq: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A router of llmrouter-lib: its class, its trainer's, its options, how its scores are read."""

    router: type
    trainer: type
    options: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[Any, Any, torch.Tensor], Read] | None = None


def _classifier(router: Any, trainer: Any, asked: torch.Tensor) -> Read:
    model = trainer.model
    return list(model.classes_), model.predict_proba(asked.numpy()), list(model.predict(asked.numpy()))


def _network(router: Any, trainer: Any, asked: torch.Tensor) -> Read:
    with torch.no_grad():
        shares = torch.softmax(trainer.model.eval()(asked), dim=1)
    best = trainer.model.predict(asked).tolist()
    return list(router.model_to_idx), shares.numpy(), [router.idx_to_model[i] for i in best]


def _factors(router: Any, trainer: Any, asked: torch.Tensor) -> Read:
    model = trainer.model.eval()
    with torch.no_grad():
        scores = torch.stack([model.score_all(model.project_text(vector)) for vector in asked])
    best = torch.argmax(scores, dim=1).tolist()
    shares = torch.softmax(scores, dim=1).numpy()
    return list(router.model_to_idx), shares, [router.idx_to_model[i] for i in best]


_LAYERS = {"hidden_layer_sizes": [128, 64], "activation": "relu"}
#: Options of llmrouter-lib's configs/model_config_train/*.yaml; text_dim is that of our vectors.
KINDS: Mapping[str, Kind] = {
    "knn": Kind(
        router=llmrouter.KNNRouter,
        trainer=llmrouter.KNNRouterTrainer,
        options={"n_neighbors": 5, "weights": "uniform"},
        read=_classifier,
    ),
    "svm": Kind(
        router=llmrouter.SVMRouter,
        trainer=llmrouter.SVMRouterTrainer,
        options={"kernel": "rbf", "C": 1.0, "gamma": "scale", "probability": True, "random_state": 0},
        read=_classifier,
    ),
    "mlp": Kind(
        router=llmrouter.MLPRouter,
        trainer=llmrouter.MLPTrainer,
        options=_LAYERS | {"lr": 0.001, "epochs": 100, "batch_size": 32, "alpha": 0.0001},
        read=_network,
    ),
    "mf": Kind(
        router=llmrouter.MFRouter,
        trainer=llmrouter.MFRouterTrainer,
        options={"latent_dim": 128, "text_dim": 256, "lr": 0.001, "epochs": 5, "noise_alpha": 0.0},
        read=_factors,
    ),
    "elo": Kind(router=llmrouter.EloRouter, trainer=llmrouter.EloRouterTrainer),
    "graph": Kind(
        router=llmrouter.GraphRouter,
        trainer=llmrouter.GraphTrainer,
        options={
            "hidden_dim": 64,
            "learning_rate": 0.001,
            "weight_decay": 0.0001,
            "train_epoch": 100,
            "batch_size": 4,
            "train_mask_rate": 0.3,
            "val_split_ratio": 0.2,
        },
    ),
    "hybrid": Kind(
        router=llmrouter.HybridLLMRouter,
        trainer=llmrouter.HybridLLMTrainer,
        options=_LAYERS | {"solver": "adam", "max_iter": 300, "random_state": 0},
    ),
}


def train_llmrouter(lesson: Lesson, kind: str, order: str) -> Routed:
    """A router of llmrouter-lib, trained on the lesson with a prompt's rows in an order."""
    told = KINDS[kind]
    with tempfile.TemporaryDirectory() as name, _quiet(lesson.seed):
        path = _write_llmrouter(Path(name), lesson, told, order)
        begun = time.process_time()
        router = told.router(str(path))
        trainer = told.trainer(router, device="cpu")
        trainer.train()
        spent = time.process_time() - begun
        asked = torch.from_numpy(lesson.asked_qd)
        if told.read is not None:
            return _scored(lesson, told.read(router, trainer, asked), spent)
        if kind == "hybrid":
            return _hybrid(lesson, router, trainer, spent)
        return Routed(chosen_q=_routed_by_name(router, lesson), train_cpu_s=spent)


def _write_llmrouter(folder: Path, lesson: Lesson, kind: Kind, order: str) -> Path:
    """The files that it reads; the path of its configuration."""
    _rows(lesson, order).to_json(folder / "routing.jsonl", orient="records", lines=True)
    vectors = torch.from_numpy(lesson.embeddings_nd)
    torch.save({n: vectors[n].clone() for n in range(len(vectors))}, folder / "vectors.pt")
    weak, strong = lesson.pair
    sizes = {lesson.models[weak]: {"size": "1B"}, lesson.models[strong]: {"size": "2B"}}
    (folder / "models.json").write_text(json.dumps(sizes))
    config = {
        "data_path": {
            "routing_data_train": str(folder / "routing.jsonl"),
            "query_embedding_data": str(folder / "vectors.pt"),
            "llm_data": str(folder / "models.json"),
        },
        "model_path": {
            "ini_model_path": "",
            "save_model_path": str(folder / "trained.pkl"),
            "load_model_path": str(folder / "trained.pkl"),
        },
        "metric": {"weights": {"performance": 1, "cost": 0, "llm_judge": 0}},
        "hparam": dict(kind.options),
        "router_mode": "probabilistic",
        "router_tau": 0.1,
        "router_threshold": 0.5,
        "api_endpoint": "none",
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def _rows(lesson: Lesson, order: str) -> pd.DataFrame:
    """One row an answer."""
    ranking = np.arange(len(lesson.models))
    if order == "cheapest":
        ranking = np.argsort(lesson.cost_m, kind="stable")
    if order == "strongest":
        ranking = np.argsort(-np.nanmean(lesson.quality_mn, axis=1), kind="stable")
    places = np.repeat(np.arange(len(lesson.prompts)), len(ranking))
    rows = pd.DataFrame(
        {
            "query": np.asarray(lesson.prompts)[places],
            "embedding_id": places,
            "model_name": np.tile(np.asarray(lesson.models)[ranking], len(lesson.prompts)),
            "performance": lesson.quality_mn[ranking].T.ravel(),
        }
    ).dropna()
    return rows.sample(frac=1.0, random_state=lesson.seed) if order == "arrival" else rows


def _scored(lesson: Lesson, read: Read, spent: float) -> Routed:
    """Its scores as a row a model; 0 for a model that it has no score of."""
    names, scores_qc, best = read
    scores = np.zeros((len(lesson.models), len(scores_qc)))
    scores[[lesson.models.index(name) for name in names]] = scores_qc.T
    chosen = np.array([lesson.models.index(name) for name in best])
    return Routed(chosen_q=chosen, train_cpu_s=spent, scores_mq=scores)


def _hybrid(lesson: Lesson, router: Any, trainer: Any, spent: float) -> Routed:
    """Small where its score is at least the threshold."""
    weak, strong = lesson.pair
    score = np.clip(trainer.model.predict(lesson.asked_qd), 0.0, 1.0)
    return Routed(
        chosen_q=np.where(score >= router.router_threshold, weak, strong),
        train_cpu_s=spent,
        choices_pq=_at_thresholds(-score, lesson.pair),
    )


def _routed_by_name(router: Any, lesson: Lesson) -> np.ndarray:
    """Through its own `route_batch`, without the calls."""
    table = {str(place): torch.from_numpy(vector) for place, vector in enumerate(lesson.asked_qd)}
    if isinstance(router, llmrouter.EloRouter):
        name = router.route_single({"query": ""})["model_name"]
        return np.full(len(table), lesson.models.index(name))
    before = graph_module.get_longformer_embedding, graph_module.call_api
    graph_module.get_longformer_embedding = table.__getitem__
    graph_module.call_api = lambda request, **_: {}
    try:
        answered = router.route_batch([{"query": text} for text in table])
    finally:
        graph_module.get_longformer_embedding, graph_module.call_api = before
    return np.array([lesson.models.index(row["model_name"]) for row in answered])


@contextlib.contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """The peers' generators seeded, their progress not shown."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the peers draw from numpy's global generator
    torch.manual_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


class Vectors:
    """Stands where RouteLLM has its OpenAI client: vectors by prompt."""

    def __init__(self, vectors: Mapping[str, np.ndarray]) -> None:
        self.vectors = vectors
        self.embeddings = self

    def create(self, *, input: list[str], model: str) -> SimpleNamespace:  # noqa: A002 - OpenAI's name
        """As OpenAI's client answers."""
        return SimpleNamespace(data=[SimpleNamespace(embedding=self.vectors[text]) for text in input])


def train_factors(lesson: Lesson, battles: pd.DataFrame) -> Routed:
    """RouteLLM's matrix factorisation; its table of 64 model names lends the names."""
    names = list(factor_module.MODEL_IDS)
    data = [
        {"model_a": names[row.a], "model_b": names[row.b], "idx": row.prompt, "winner": row.winner}
        for row in battles.itertuples()
    ]
    with tempfile.TemporaryDirectory() as name, _quiet(lesson.seed):
        folder = Path(name)
        np.save(folder / "vectors.npy", lesson.embeddings_nd)
        begun = time.process_time()
        trained = _factorised(data, folder / "vectors.npy", lesson.embeddings_nd.shape)
        spent = time.process_time() - begun
        _hand_over(trained, folder, lesson.embeddings_nd.shape[1])
        weak, strong = (names[model] for model in lesson.pair)
        router = routellm.MatrixFactorizationRouter(
            str(folder), strong_model=strong, weak_model=weak, text_dim=lesson.embeddings_nd.shape[1]
        )
        return _win_rates(router, lesson, spent)


def _factorised(data: list[dict[str, Any]], vectors: Path, shape: tuple[int, ...]) -> MFModel_Train:
    """As its training script does, with the script's options, on the CPU."""
    decided = [row for row in data if row["winner"] in ("model_a", "model_b")]
    random.shuffle(decided)
    cut = int(len(decided) * 0.95)
    model = MFModel_Train(
        dim=128, num_models=64, num_prompts=shape[0], text_dim=shape[1], use_proj=True, npy_path=vectors
    )
    train_loops(
        model,
        PairwiseDataset(decided[:cut]).get_dataloaders(batch_size=64, shuffle=True),
        PairwiseDataset(decided[cut:]).get_dataloaders(1024, shuffle=False),
        lr=3e-4,
        weight_decay=1e-5,
        alpha=0.1,
        num_epochs=100,
        device="cpu",
    )
    return model


def _hand_over(trained: MFModel_Train, folder: Path, width: int) -> None:
    """The trained weights where its router looks for them: the prompts' vectors left out, as it says."""
    model = factor_module.MFModel(dim=128, num_models=64, text_dim=width, num_classes=1, use_proj=True)
    weights = {name: value for name, value in trained.state_dict().items() if not name.startswith("Q.")}
    inside = {"text_proj.weight": "text_proj.0.weight", "classifier.weight": "classifier.0.weight"}
    model.load_state_dict({inside.get(name, name): value for name, value in weights.items()})
    model.save_pretrained(folder)


def train_ranking(lesson: Lesson, battles: pd.DataFrame) -> Routed:
    """RouteLLM's similarity-weighted ranking of the two models; each decision is a regression of its own."""
    texts = [json.dumps([f"prompt number {row:09d}"]) for row in battles["prompt"]]
    table = pd.DataFrame(
        {
            "model_a": [lesson.models[model] for model in battles["a"]],
            "model_b": [lesson.models[model] for model in battles["b"]],
            "prompt": texts,
            "winner_model_a": (battles["winner"] == "model_a").astype(int),
            "winner_model_b": (battles["winner"] == "model_b").astype(int),
        }
    )
    weak, strong = (lesson.models[model] for model in lesson.pair)
    with tempfile.TemporaryDirectory() as name, _quiet(lesson.seed):
        places = {part: Path(name) / part for part in ("battles", "vectors")}
        for place in places.values():
            place.mkdir()
        table.to_parquet(places["battles"] / "train.parquet")
        vectors = pd.DataFrame({"embeddings": list(lesson.embeddings_nd[battles["prompt"]])})
        vectors.to_parquet(places["vectors"] / "train.parquet")
        begun = time.process_time()
        router = routellm.SWRankingRouter(
            [str(places["battles"])], [str(places["vectors"])], strong, weak, num_tiers=2
        )
        return _win_rates(router, lesson, time.process_time() - begun)


def _win_rates(router: Any, lesson: Lesson, spent: float) -> Routed:
    """Its decisions where half of the prompts go to the strong model, as its calibration would set it."""
    vectors = Vectors({str(place): vector for place, vector in enumerate(lesson.asked_qd)})
    before = factor_module.OPENAI_CLIENT
    factor_module.OPENAI_CLIENT = routellm.OPENAI_CLIENT = vectors
    begun = time.process_time()
    try:
        rate = np.array([router.calculate_strong_win_rate(text) for text in vectors.vectors])
    finally:
        factor_module.OPENAI_CLIENT = routellm.OPENAI_CLIENT = before
    each_ms = 1000 * (time.process_time() - begun) / len(rate)
    weak, strong = lesson.pair
    return Routed(
        decide_cpu_ms=each_ms,
        chosen_q=np.where(rate >= np.quantile(rate, 0.5), strong, weak),
        train_cpu_s=spent,
        choices_pq=_at_thresholds(rate, lesson.pair),
    )


def _at_thresholds(rate_q: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """Strong where the rate is at least the threshold, for thresholds from above all to below all."""
    weak, strong = pair
    limits = np.concatenate([[np.inf], np.quantile(rate_q, np.linspace(1, 0, THRESHOLDS))])
    return np.where(rate_q >= limits[:, None], strong, weak)
