"""Learning a policy from predictions and truth.

The engine is run over every origin before `validation_until`, with the truth that had arrived by
then, and the policy holds the state it has at that moment: the next call is the first forecast of the
backtest. Pure functions; reading and writing files is others' work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.lessons import Floats
from modelyard.ensemble.combining.rules import COMMITTEE
from modelyard.ensemble.measuring.certificate import certify_regret
from modelyard.ensemble.measuring.scorecard import (
    Scorecard,
    best_of,
    card_detail,
    card_ties,
    comparable,
    inverse_weights,
    make_card,
)
from modelyard.ensemble.policies.policy import Excluded, Method, Policy, SeriesState, finite, state_digest
from modelyard.ensemble.policies.settings import AUTO, Settings
from modelyard.ensemble.runtime.engine import Engine, Setup
from modelyard.ensemble.runtime.matrix import AlignedMatrix, Capability, SeriesMatrix, build_matrix
from modelyard.ensemble.runtime.mutants import Limits, fit_limits, usual_jump
from modelyard.ensemble.runtime.replay import replay

BETAS = (0.9, 0.97, 0.99, 0.995, 0.999)  # what "auto" chooses from
BLOCKS = 4  # of validation, that each memory is judged on
_SMALLEST = 1e-12  # a block loss below it is none


def integrate_tables(
    predictions: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    settings: Settings,
    groups: Mapping[str, str],
    excluded: Sequence[Excluded],
    created_at: str,
) -> Policy:
    """Learn a policy from the truth before `settings.validation_until`.

    Args:
        predictions: Columns `model, series, origin, lead, target_time, issued_at, y_pred`.
        truth: Columns `series, target_time, y`.
        settings: What the user decided.
        groups: Model name -> "online" | "offline".
        excluded: Models that are known to be unusable, with reasons; they are left out of `groups`.
        created_at: Time stamp of the policy.

    Raises:
        TableError: The tables are inconsistent.
        PolicyError: Nothing can be learnt from them.
    """
    unusable = {entry.name for entry in excluded}
    wanted = {name: group for name, group in groups.items() if name not in unusable}
    known = predictions[pd.to_datetime(predictions["target_time"], utc=True) < settings.validation_until]
    found = [*excluded, *non_finite(known, list(wanted))]
    for entry in found:
        wanted.pop(entry.name, None)
    matrix = build_matrix(predictions, truth, groups=wanted, horizon=settings.horizon, step_s=settings.step_s)
    return integrate_matrix(matrix, settings, excluded=found, created_at=created_at)


def non_finite(predictions: pd.DataFrame, models: Sequence[str]) -> list[Excluded]:
    """Of these models, those with a forecast that is not a finite number."""
    bad = predictions[~np.isfinite(predictions["y_pred"].astype(float))]
    counts = bad["model"].value_counts()
    return [
        Excluded(name=name, reason="non-finite forecasts", rows=int(counts[name]))
        for name in models
        if name in counts
    ]


def integrate_matrix(
    matrix: AlignedMatrix, settings: Settings, *, excluded: Sequence[Excluded], created_at: str
) -> Policy:
    """Learn a policy from an aligned matrix; arguments and errors as of `integrate_tables`."""
    matrix = matrix.fresh(settings.max_staleness_s)
    cuts = [matrix.index_of(part, settings.validation_until) for part in matrix.parts]
    _check_cuts(matrix, cuts, settings.validation_until)
    order, idle = _usable(matrix.until(cuts))
    matrix = matrix.select(order)
    seen = matrix.until(cuts)
    limits = [_limits(seen, part, settings) for part in seen.parts]
    beta, notes = _memory(seen, limits, settings)
    settings = replace(settings, beta=beta)
    engines, cards, issued_th = [], [], []
    for part, cut, own, past in zip(matrix.parts, cuts, limits, seen.parts, strict=True):
        engine = Engine(_setup(matrix, settings, beta, own))
        issued_th.append(_issued(engine, part, cut))
        engine.observe(float(part.truth_t[cut - 1]))
        engines.append(engine)
        cards.append(
            make_card(past, own, beta=beta, dirty_interval=settings.dirty_interval, period=settings.period)
        )
    policy = _assemble(seen, cards, engines, settings, excluded=[*excluded, *idle], created_at=created_at)
    certificate = certify_regret(engines[0].setup, seen.parts, issued_th)
    return replace(policy, warnings=(*notes, *policy.warnings), regret_certificate=certificate)


def _issued(engine: Engine, part: SeriesMatrix, cut: int) -> Floats:
    """Run the engine over every origin before the last; what it issued for each target and lead."""
    leads = np.arange(engine.setup.horizon)
    out = np.full((cut, len(leads)), np.nan)
    for origin, issued in replay(engine, part, 0, cut - 1):
        use = leads[origin + 1 + leads < cut]
        out[origin + 1 + use, use] = issued.forecast_h[use]
    return out


def method_of(requested: str) -> Method:
    """The rule that a request stands for where forecasts exist."""
    if requested == AUTO:
        return Method(name=COMMITTEE, requested=AUTO, reason="forecasts exist, so regret can be measured")
    return Method(name=requested, requested=requested, reason="as requested")


def _check_cuts(matrix: AlignedMatrix, cuts: Sequence[int], moment: pd.Timestamp) -> None:
    for part, cut in zip(matrix.parts, cuts, strict=True):
        if not np.isfinite(np.diff(part.truth_t[:cut])).any():
            times, seen = matrix.times(part), int(np.isfinite(part.truth_t[:cut]).sum())
            raise PolicyError(
                f"validation_until = {moment.isoformat()} leaves{_named(part.series)} fewer than two "
                f"neighbouring values to learn from ({seen} before it); its truth "
                f"goes from {times[0].isoformat()} to {times[-1].isoformat()}: choose a time well inside"
            )


def _named(series: str) -> str:
    """The series as a part of a sentence; a config's only one has no name."""
    return f" series {series!r}" if series else ""


def _usable(matrix: AlignedMatrix) -> tuple[list[int], list[Excluded]]:
    """The experts that serve a row, online ones first, and those that serve none."""
    served = np.zeros(len(matrix.experts), dtype=bool)
    for part in matrix.parts:
        served |= np.isfinite(part.forecast_thk[np.isfinite(part.truth_t)]).any(axis=(0, 1))
    idle = [
        Excluded(name=name, reason="serves no lead of the policy before validation_until", rows=0)
        for name, any_row in zip(matrix.experts, served, strict=True)
        if not any_row
    ]
    if not served.any():
        raise PolicyError(
            "no expert serves a lead of the policy before validation_until; check leads and times"
        )
    order = [
        k for g in ("online", "offline") for k in np.flatnonzero(served).tolist() if matrix.groups[k] == g
    ]
    return order, idle


def _limits(matrix: AlignedMatrix, part: SeriesMatrix, settings: Settings) -> Limits:
    offline = [k for k, group in enumerate(matrix.groups) if group == "offline"]
    forecast_thk = part.forecast_thk[:, :, offline]
    limits = fit_limits(part.truth_t, forecast_thk, epsilon=settings.mutant_epsilon, period=settings.period)
    return replace(limits, drift=settings.drift)


def _setup(matrix: AlignedMatrix, settings: Settings, beta: float, limits: Limits) -> Setup:
    pairs = list(zip(matrix.experts, matrix.groups, strict=True))
    return Setup(
        method=method_of(settings.method).name,
        beta=beta,
        dirty_interval=settings.dirty_interval,
        amplitude_window=settings.amplitude_window,
        horizon=settings.horizon,
        online=tuple(name for name, group in pairs if group == "online"),
        offline=tuple(name for name, group in pairs if group == "offline"),
        limits=limits,
        coverage=settings.coverage,
    )


def _memory(
    matrix: AlignedMatrix, limits: Sequence[Limits], settings: Settings
) -> tuple[float, tuple[str, ...]]:
    """The memory asked for, or the one with the least loss on the second half of validation."""
    if settings.beta is not None:
        return settings.beta, ()
    blocks = np.array(
        [
            np.mean(
                [
                    _block_losses(part, _setup(matrix, settings, beta, own))
                    for part, own in zip(matrix.parts, limits, strict=True)
                ],
                axis=0,
            )
            for beta in BETAS
        ]
    )  # (betas, blocks)
    share = blocks / np.maximum(blocks.min(axis=0), _SMALLEST)
    best = BETAS[int(np.argmin(share.mean(axis=1)))]
    return best, (
        f"beta = {best} was chosen from {list(BETAS)} by its loss relative to the least, averaged over "
        f"{BLOCKS} blocks of the second half of the validation period",
    )


def _block_losses(part: SeriesMatrix, setup: Setup) -> Floats:
    """Mean absolute error in each block of the second half, in units of the series' usual step."""
    rows = len(part.truth_t)
    error_th = np.abs(_issued(Engine(setup), part, rows) - part.truth_t[:, None])[rows // 2 :]
    means = [block[np.isfinite(block)] for block in np.array_split(error_th, BLOCKS)]
    return np.array([float(known.mean()) if len(known) else 0.0 for known in means]) / setup.limits.scale


def _assemble(
    matrix: AlignedMatrix,
    cards: Sequence[Scorecard],
    engines: Sequence[Engine],
    settings: Settings,
    *,
    excluded: Sequence[Excluded],
    created_at: str,
) -> Policy:
    first = engines[0].setup
    detail = {name: card_detail(cards, k, seed=settings.seed) for k, name in enumerate(matrix.experts)}
    scores = {name: entry["mean"] for name, entry in detail.items()}
    epsilon, source = _epsilon([engine.setup.limits for engine in engines])
    online, offline, meta = _standing(engines)
    columns = range(len(matrix.experts))
    split = len(first.online)
    best_online, ties_online = _best(matrix, cards, scores, columns[:split])
    best_offline, ties_offline = _best(matrix, cards, scores, columns[split:])
    policy = Policy(
        created_at=created_at,
        beta=first.beta,
        dirty_interval=settings.dirty_interval,
        amplitude_window=settings.amplitude_window,
        mutant_epsilon=epsilon,
        mutant_epsilon_source=source,
        online_models=first.online,
        offline_models=first.offline,
        scores=scores,
        online_weights=dict(zip(first.online, online, strict=True)),
        offline_weights=dict(zip(first.offline, offline, strict=True)),
        meta_weights=dict(zip(first.members, meta, strict=True)),
        best_online_model=best_online,
        best_offline_model=best_offline,
        best_online_tie_set=ties_online,
        best_offline_tie_set=ties_offline,
        method=method_of(settings.method),
        horizon=settings.horizon,
        period=settings.period,
        step_s=settings.step_s,
        seed=settings.seed,
        coverage=settings.coverage,
        max_staleness_s=settings.max_staleness_s,
        validation_until=settings.validation_until.isoformat(),
        excluded=tuple(excluded),
        score_detail=detail,
        capabilities={seen.name: _contract(seen) for seen in matrix.capabilities()},
        warnings=tuple(_warnings(first, matrix, cards)),
        series={
            part.series: SeriesState(
                limits=engine.setup.limits,
                scale=finite(card.scale),
                static_weights=inverse_weights(card.compatible_scores(matrix.experts, first.beta)),
                state=engine.to_state(),
                until=matrix.times(part)[-1].isoformat(),
            )
            for part, card, engine in zip(matrix.parts, cards, engines, strict=True)
        },
    )
    return replace(policy, digests={"state": state_digest(policy)})


def _best(
    matrix: AlignedMatrix, cards: Sequence[Scorecard], scores: Mapping[str, float], columns: Sequence[int]
) -> tuple[str | None, tuple[str, ...]]:
    """The best of a group and its tie set, among those that serve at least 95 % of what the most do."""
    fit = comparable(cards, columns)
    names = [matrix.experts[k] for k in fit]
    best = best_of(scores, names)
    return best, card_ties(cards, fit, names, best=best, lead=matrix.horizon)


def _epsilon(limits: Sequence[Limits]) -> tuple[float | None, dict[str, Any]]:
    """The foreseen-mutant limit over all series (each runs with its own), and where it is from."""
    conformal = limits[0].jump_kind == "conformal"
    source = {
        "kind": limits[0].jump_kind,
        "alpha": limits[0].alpha if conformal else None,
        "n": sum(own.jump_rows for own in limits) if conformal else None,
    }
    return usual_jump(limits), source


def _standing(engines: Sequence[Engine]) -> list[list[float]]:
    """Weights of both groups and of the members, averaged over series and leads."""
    levels = zip(*(engine.standing_weights() for engine in engines), strict=True)
    return [np.mean(np.concatenate(level), axis=0).tolist() for level in levels]


def _contract(seen: Capability) -> dict[str, Any]:
    return {
        "group": seen.group,
        "leads": list(seen.leads),
        "share": seen.share,
        "worst_staleness_s": finite(seen.worst_staleness_s),
    }


def _warnings(setup: Setup, matrix: AlignedMatrix, cards: Sequence[Scorecard]) -> Iterator[str]:
    if setup.beta < 1.0 and 1.0 / (1.0 - setup.beta) < 2 * setup.horizon:
        yield (
            f"beta = {setup.beta} remembers {1.0 / (1.0 - setup.beta):.1f} rows, less than twice the horizon "
            f"of {setup.horizon}: weights follow noise; use at least {1.0 - 0.5 / setup.horizon:.4g}"
        )
    for part, card in zip(matrix.parts, cards, strict=True):
        if card.censored_share > 0.5:
            share = f"{card.censored_share:.0%}"
            of = f" of{_named(part.series)}" if part.series else ""
            yield f"dirty intervals censor {share} of the validation rows{of}"
    for seen in matrix.capabilities():
        if len(seen.leads) < setup.horizon:
            yield f"{seen.name} ({seen.group}) serves leads {list(seen.leads)} of 1..{setup.horizon}"
