"""A small world to run engines in: late online experts, offline ones off in size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from modelyard.ensemble.learning.integrate import integrate_tables
from modelyard.ensemble.policies.policy import Policy
from modelyard.ensemble.policies.settings import Settings
from modelyard.ensemble.runtime.engine import Engine, Issued, Setup
from modelyard.ensemble.runtime.mutants import fit_limits

START = pd.Timestamp("2024-01-01", tz="UTC")


@dataclass(frozen=True)
class World:
    """Truth and forecasts of one series; the online experts stand first."""

    truth: np.ndarray
    forecast: np.ndarray  # (T, H, K)
    online: tuple[str, ...]
    offline: tuple[str, ...]

    @property
    def groups(self) -> dict[str, str]:
        return dict.fromkeys(self.online, "online") | dict.fromkeys(self.offline, "offline")

    def setup(self, **changes: object) -> Setup:
        """A setup whose limits are fitted on the first half."""
        half = len(self.truth) // 2
        limits = fit_limits(self.truth[:half], self.forecast[:half][:, :, len(self.online) :], epsilon=None)
        base = Setup(
            method="boa",
            beta=0.98,
            dirty_interval=2,
            amplitude_window=8,
            horizon=self.forecast.shape[1],
            online=self.online,
            offline=self.offline,
            limits=limits,
        )
        return replace(base, **changes)

    def origin(self, index: int) -> np.ndarray:
        """Forecasts known at an origin, `(H, K)`."""
        leads = np.arange(self.forecast.shape[1])
        return self.forecast[index + 1 + leads, leads]

    def run(self, setup: Setup | None = None, engine: Engine | None = None, start: int = 0) -> list[Issued]:
        """What is issued at every origin from `start` on."""
        engine = engine or Engine(setup or self.setup())
        issued = []
        for index in range(start, len(self.truth) - self.forecast.shape[1]):
            engine.observe(float(self.truth[index]))
            issued.append(engine.issue(self.origin(index)))
        return issued

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The same as predictions and truth tables, hourly."""
        steps, leads, _ = self.forecast.shape
        times = pd.date_range(START, periods=steps, freq="h")
        parts = []
        for k, name in enumerate(self.online + self.offline):
            for lead in range(1, leads + 1):
                origin = times - pd.Timedelta(hours=lead)
                part = {"model": name, "series": "s", "origin": origin, "lead": lead, "target_time": times}
                values = self.forecast[:, lead - 1, k]
                served = pd.DataFrame(part | {"issued_at": origin, "y_pred": values})
                parts.append(served[~np.isnan(values)])
        truth = pd.DataFrame({"series": "s", "target_time": times, "y": self.truth})
        return pd.concat(parts, ignore_index=True), truth


def build_world(seed: int = 0, steps: int = 240, leads: int = 3) -> World:
    """A 24-step season with a burst, drifting in size, and storms; three online and two offline experts."""
    rng = np.random.default_rng(seed)
    t = np.arange(steps)
    shape = 20 + 8 * np.sin(2 * np.pi * t / 24) + 25.0 * (t % 24 == 9)
    truth = shape * (1 + 0.3 * np.sin(t / 60)) + rng.normal(0, 0.5, steps)
    for storm in (45, 77, 101, 150, 190, 215):
        truth[storm : storm + 2] += 60.0 + storm / 10
    forecast = np.full((steps, leads, 5), np.nan)
    for lead in range(1, leads + 1):
        late = np.concatenate([np.full(lead, 20.0), truth[:-lead]])
        forecast[:, lead - 1, 0] = late
        forecast[:, lead - 1, 1] = 0.5 * late + 10
        forecast[:, lead - 1, 2] = late + rng.normal(0, 1, steps)
        forecast[:, lead - 1, 3] = 0.7 * shape
        forecast[:, lead - 1, 4] = 1.4 * shape + rng.normal(0, 1, steps)
    return World(truth, forecast, ("naive", "half", "noisy"), ("low", "high"))


@pytest.fixture
def world() -> World:
    """The default world."""
    return build_world()


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    """Worlds by seed and size."""
    return cache(build_world)


@pytest.fixture
def learn() -> Callable[[World], Policy]:
    """The policy learnt on the first 160 steps of a world."""

    def learnt(world: World) -> Policy:
        settings = Settings(
            horizon=world.forecast.shape[1],
            period=24,
            step_s=3600.0,
            validation_until=START + pd.Timedelta(hours=160),
            beta=0.98,
            dirty_interval=2,
            amplitude_window=8,
        )
        predictions, truth = world.tables()
        return integrate_tables(
            predictions,
            truth,
            settings=settings,
            groups=world.groups,
            excluded=(),
            created_at="2024-01-01T00:00:00+00:00",
        )

    return learnt
