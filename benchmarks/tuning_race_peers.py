"""One run of a peer's optimiser on one function of the race, by the peer's own interface.

    python benchmarks/tuning_race_peers.py PEER CASE SEED

Prints {"values": the value of each trial, "cpu_s": process seconds a trial, "peer": name and version}. Run
in an interpreter that has the peer; it needs nothing of modelyard. Peers get what their users would give
them: the default as the first trial (not TAO, which has no place for it), the logarithmic scale (not TAO,
which has none for ranges), integers as integers. Conditions: Optuna's samplers are asked for what counts
alone, SMAC and Ax are told them (Ax those on one value; it refuses others). TAO, and Optuna's Gaussian
process, which draws by chance what does not always count, get the flat space; what does not count is ignored.
Where the race has to train, it answers the line `ASK {point}` of standard output with the value.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tuning_race_cases import CASES, Case

Run = Callable[[Case, int], list[float]]


def _optuna(kind: str, *, flat: bool = False) -> Run:
    def run(case: Case, seed: int) -> list[float]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        samplers = optuna.samplers
        sampler = {
            "random": samplers.RandomSampler, "tpe": samplers.TPESampler, "gp": samplers.GPSampler,
        }[kind](seed=seed)  # fmt: skip
        study = optuna.create_study(sampler=sampler)

        def objective(trial: Any) -> float:
            point: dict[str, Any] = {}
            for axis in case.axes:
                if not flat and any(point.get(name) not in values for name, values in axis.when):
                    continue
                if axis.kind == "choice":
                    point[axis.name] = trial.suggest_categorical(axis.name, axis.choices)
                elif axis.kind == "int":
                    low, high = int(axis.low), int(axis.high)
                    point[axis.name] = trial.suggest_int(axis.name, low, high, log=axis.log)
                else:
                    point[axis.name] = trial.suggest_float(axis.name, axis.low, axis.high, log=axis.log)
            return _value(case, point)

        study.enqueue_trial(dict(case.default))
        study.optimize(objective, n_trials=case.trials)
        return [trial.value for trial in study.trials]

    return run


def _value(case: Case, point: Mapping[str, Any]) -> float:
    """The value of what counts at a point, from the race where there is no function."""
    counting = case.active({**case.default, **point})
    if case.function is not None:
        return case.function(counting)
    print("ASK " + json.dumps(counting), flush=True)
    return float(sys.stdin.readline())


def _ax_parameters(case: Case) -> list[Any]:
    """As Ax has them: a tree, in which a parameter hangs on one value of the last choice it depends on."""
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    parameters: list[Any] = []
    for axis in case.axes:
        dependent: dict[Any, list[str]] = {}
        for other in case.axes:
            name, values = other.when[-1] if other.when else ("", ())
            if name == axis.name and len(values) == 1:
                dependent.setdefault(values[0], []).append(other.name)
        if axis.kind == "choice":
            parameters.append(
                ChoiceParameterConfig(
                    name=axis.name, parameter_type="str", values=list(axis.choices), is_ordered=False,
                    dependent_parameters=dependent or None,
                )
            )  # fmt: skip
        else:
            parameters.append(
                RangeParameterConfig(
                    name=axis.name, parameter_type=axis.kind, bounds=(axis.low, axis.high),
                    scaling="log" if axis.log else "linear",
                )
            )  # fmt: skip
    return parameters


def _ax(case: Case, seed: int) -> list[float]:
    import logging

    from ax.api.client import Client

    logging.disable(logging.CRITICAL)
    client = Client(random_seed=seed)
    client.configure_experiment(parameters=_ax_parameters(case))
    client.configure_optimization(objective="-loss")
    values = [_value(case, case.default)]
    first = client.attach_trial(parameters=case.active(case.default))
    client.complete_trial(trial_index=first, raw_data={"loss": values[0]})
    while len(values) < case.trials:
        for index, point in client.get_next_trials(max_trials=1).items():
            values.append(_value(case, point))
            client.complete_trial(trial_index=index, raw_data={"loss": values[-1]})
    return values


def _smac_space(case: Case, seed: int) -> Any:
    from ConfigSpace import AndConjunction, Categorical, ConfigurationSpace, Float, InCondition, Integer

    space = ConfigurationSpace(seed=seed)
    for axis in case.axes:
        if axis.kind == "choice":
            space.add(Categorical(axis.name, list(axis.choices)))
        elif axis.kind == "int":
            space.add(Integer(axis.name, (int(axis.low), int(axis.high)), log=axis.log))
        else:
            space.add(Float(axis.name, (float(axis.low), float(axis.high)), log=axis.log))
    for axis in case.axes:
        conditions = [InCondition(space[axis.name], space[name], list(values)) for name, values in axis.when]
        if conditions:
            space.add(conditions[0] if len(conditions) == 1 else AndConjunction(*conditions))
    return space


def _smac(case: Case, seed: int) -> list[float]:
    from ConfigSpace import Configuration
    from smac import BlackBoxFacade, Scenario
    from smac.runhistory import TrialValue

    space = _smac_space(case, seed)
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            space, n_trials=case.trials, deterministic=True, seed=seed, output_directory=Path(folder)
        )
        first = Configuration(space, values=case.active(case.default))
        smac = BlackBoxFacade(
            scenario, lambda config, seed: 0.0, overwrite=True, logging_level=False,
            initial_design=BlackBoxFacade.get_initial_design(scenario, additional_configs=[first]),
        )  # fmt: skip
        values = []
        for _ in range(case.trials):
            asked = smac.ask()
            values.append(_value(case, _plain(dict(asked.config))))
            smac.tell(asked, TrialValue(cost=values[-1]))
    return values


def _plain(point: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and texts of NumPy as Python's."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in point.items()}


def _tao(case: Case, seed: int) -> list[float]:
    from tao_automl import AutoML

    leaves: dict[str, Any] = {}
    for axis in case.axes:
        leaf: dict[str, Any] = {"default": case.default[axis.name], "automl_enabled": True}
        if axis.kind == "choice":
            leaf |= {"type": "categorical", "enum": list(axis.choices)}
        else:
            leaf |= {"type": axis.kind, "minimum": axis.low, "maximum": axis.high}
        leaves[axis.name] = leaf
    schema = {"type": "object", "properties": leaves, "default": dict(case.default)}
    settings = {
        "algorithm": "bayesian", "metric": "loss", "automl_max_recommendations": case.trials,
        "session_id": str(seed),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        search = AutoML(
            workspace=folder, network="race", train_specs=dict(case.default), settings=settings,
            automl_hyperparameters=[axis.name for axis in case.axes], search_schema=schema,
        )  # fmt: skip
        values: list[float] = []
        while len(values) < case.trials:
            for recommended in search.next_recommendation():
                values.append(_value(case, recommended.specs))
                search.report_result(recommended.id, values[-1])
    return values


PEERS: dict[str, tuple[str, Run]] = {
    "optuna-random": ("optuna", _optuna("random")),
    "optuna-tpe": ("optuna", _optuna("tpe")),
    "optuna-gp": ("optuna", _optuna("gp", flat=True)),
    "ax": ("ax-platform", _ax),
    "smac": ("smac", _smac),
    "tao": ("nvidia-tao-automl", _tao),
}


def main() -> None:
    """Run one peer and print what it found."""
    name, case, seed = sys.argv[1:]
    package, run = PEERS[name]
    warnings.simplefilter("ignore")
    begun = time.process_time()
    values = run(CASES[case], int(seed))
    spent = time.process_time() - begun
    said = {
        "values": values, "cpu_s": spent / CASES[case].trials,
        "peer": f"{package} {importlib.metadata.version(package)}",
    }  # fmt: skip
    print("RESULT " + json.dumps(said))


if __name__ == "__main__":
    main()
