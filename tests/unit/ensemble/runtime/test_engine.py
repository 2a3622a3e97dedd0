from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.rules import METHODS
from modelyard.ensemble.measuring.regret import regret_bound
from modelyard.ensemble.runtime.engine import Engine


def forecasts(issued):
    return np.array([one.forecast_h for one in issued])


def by_target(world, issued):
    """What was issued for every target and lead, `(T, H)`."""
    out = np.full(world.forecast.shape[:2], np.nan)
    leads = np.arange(world.forecast.shape[1])
    for origin, one in enumerate(issued):
        out[origin + 1 + leads, leads] = one.forecast_h
    return out


@pytest.mark.parametrize("method", METHODS)
def test_all_levels_are_simplices_over_the_awake(make_world, method):
    world = make_world(0, steps=110)
    holes = np.random.default_rng(0).random(world.forecast.shape) < 0.3
    gappy = replace(world, forecast=np.where(holes, np.nan, world.forecast))
    for one in gappy.run(gappy.setup(method=method)):
        served = np.isfinite(one.forecast_h)
        assert one.meta_hm.sum(axis=1) == pytest.approx(served.astype(float))
        assert (one.meta_hm >= 0).all()
        assert (one.meta_hm[np.isnan(one.member_hm)] == 0).all()
        for weights in (one.online_hk, one.offline_hk):
            total = weights.sum(axis=1)
            assert np.isclose(total, 0).tolist() == [t == 0 for t in total]
            assert total[total > 0] == pytest.approx(1.0)


@settings(max_examples=6, deadline=None)
@given(
    at=st.integers(0, 100),
    size=st.floats(-1e6, 1e6),
    seed=st.integers(0, 50),
    method=st.sampled_from(METHODS),
)
def test_no_look_ahead(make_world, at, size, seed, method):
    world = make_world(seed, steps=120)
    setup = world.setup(method=method)
    truth = world.truth.copy()
    truth[at] += size
    before, after = world.run(setup)[: at + 9], replace(world, truth=truth).run(setup)[: at + 9]
    assert np.array_equal(forecasts(before[:at]), forecasts(after[:at]))


def test_a_truth_moves_what_is_issued_once_it_is_known(world):
    truth = world.truth.copy()
    truth[100] += 50
    before, after = forecasts(world.run()), forecasts(replace(world, truth=truth).run(world.setup()))
    assert np.array_equal(before[:100], after[:100])
    assert not np.array_equal(before[100], after[100])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scaling_the_world_scales_the_forecasts(make_world, scale, method):
    world = make_world(0, steps=110)
    big = replace(world, truth=world.truth * scale, forecast=world.forecast * scale)
    plain = forecasts(world.run(world.setup(method=method)))
    scaled = forecasts(big.run(big.setup(method=method)))
    assert scaled / scale == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_experts_does_not_matter(make_world, method):
    world = make_world(0, steps=110)
    order = [2, 0, 1, 4, 3]
    names = world.online + world.offline
    moved = replace(
        world,
        forecast=world.forecast[..., order],
        online=tuple(names[k] for k in order[:3]),
        offline=tuple(names[k] for k in order[3:]),
    )
    plain = world.run(world.setup(method=method))
    other = moved.run(moved.setup(method=method))
    assert forecasts(other) == pytest.approx(forecasts(plain), rel=1e-8)
    assert other[-1].expert_weights() == pytest.approx(plain[-1].expert_weights()[:, order], abs=1e-7)


def test_an_expert_that_is_all_nan_gets_nothing_and_changes_nothing(world):
    empty = np.full((*world.forecast.shape[:2], 1), np.nan)
    with_empty = replace(
        world, forecast=np.concatenate([empty, world.forecast], axis=2), online=("empty", *world.online)
    )
    issued = with_empty.run(with_empty.setup())
    assert all((one.expert_weights()[:, 0] == 0).all() for one in issued)
    engine = Engine(with_empty.setup())
    with_empty.run(engine=engine)
    online, _, meta = engine.standing_weights()
    assert (online[:, 0] == 0).all()
    assert (meta[:, 0] == 0).all()
    assert np.isnan(engine.scores()[:, 0]).all()


def test_where_nobody_serves_there_is_no_forecast(world):
    silent = world.forecast.copy()
    silent[100:110, 1] = np.nan
    out = by_target(world, replace(world, forecast=silent).run(world.setup()))
    assert np.isnan(out[100:110, 1]).all()
    assert np.isfinite(out[100:110, [0, 2]]).all()


def test_missing_truth_teaches_nothing_and_breaks_nothing(world):
    truth = world.truth.copy()
    truth[50:60] = np.nan
    engine = Engine(world.setup())
    out = forecasts(replace(world, truth=truth).run(engine=engine))
    assert np.isfinite(out).all()
    scored, censored = engine.counts()
    origins = len(world.truth) - 3
    assert (scored[0, 0] + censored[0, 0]) == origins - 1 - 10


def test_a_state_through_json_goes_on_bit_for_bit(world):
    setup, half = world.setup(), 120
    engine = Engine(setup)
    replace(world, truth=world.truth[: half + 3]).run(engine=engine)
    state = json.loads(json.dumps(engine.to_state(), allow_nan=False))
    copy = Engine(setup)
    copy.load_state(state)
    assert np.array_equal(
        forecasts(world.run(engine=engine, start=half)), forecasts(world.run(engine=copy, start=half))
    )
    assert engine.to_state() == copy.to_state()


def test_a_state_of_another_shape_is_refused(world):
    state = Engine(world.setup()).to_state()
    other = Engine(world.setup(amplitude_window=9))
    with pytest.raises(PolicyError, match=r"amplitude\.recent"):
        other.load_state(state)
    with pytest.raises(PolicyError, match="missing"):
        other.load_state({})


@pytest.mark.parametrize(
    "change",
    [
        {"beta": 0.9},
        {"dirty_interval": 6},
        {"amplitude_window": 3},
        {"method": "inverse_score"},
        {"method": "uniform"},
    ],
    ids=str,
)
def test_each_field_changes_a_forecast(world, change):
    plain, changed = forecasts(world.run()), forecasts(world.run(world.setup(**change)))
    assert np.abs(plain - changed).max() > 1e-3


def test_the_epsilon_changes_a_forecast(world):
    setup = world.setup()
    bold = replace(setup, limits=replace(setup.limits, jump=1e9, shock=1e9))
    shy = replace(bold, limits=replace(bold.limits, jump=0.3))
    assert np.abs(forecasts(world.run(bold)) - forecasts(world.run(shy))).max() > 1e-3


def test_the_horizon_changes_what_is_forecast_but_not_the_shorter_leads_experts(world):
    short = replace(world, forecast=world.forecast[:, :2])
    assert forecasts(short.run(short.setup())).shape[1] == 2


def test_beta_one_forgets_nothing(world):
    engine = Engine(world.setup(beta=1.0, dirty_interval=0))
    world.run(engine=engine)
    scored, _ = engine.counts()
    assert np.isfinite(engine.standing_weights()[2]).all()
    assert scored.max() > 100


def test_online_experts_sleep_while_a_shock_is_in_their_inputs(world):
    setup = world.setup(dirty_interval=2)
    calm = replace(setup, limits=replace(setup.limits, jump=1e9, shock=25.0, scale=1.0))
    truth = np.full(100, 10.0) + np.random.default_rng(1).normal(0, 1, 100)
    truth[60:] += 40
    forecast = np.repeat(truth[:, None, None], 5, axis=2).repeat(3, axis=1)
    one = replace(world, truth=truth, forecast=forecast)
    issued = one.run(calm)
    assert [i for i, at in enumerate(issued) if at.dirty_h.any()] == [60, 61]
    assert (issued[60].online_hk == 0).all()
    members = calm.members
    assert issued[60].meta_hm[:, members.index("mix:online")] == pytest.approx(0)
    assert issued[60].meta_hm[:, members.index("expert:naive")].min() > 0
    followed = [{members[k] for k in np.nonzero(issued[at].route_hm)[1]} for at in (59, 60)]
    assert followed == [
        {"expert:naive", "expert:half", "expert:noisy"},
        {"calibrated:low", "calibrated:high"},
    ]


def test_a_foreseen_mutant_puts_online_experts_to_sleep_from_its_lead_on(world):
    setup = world.setup(dirty_interval=2)
    limits = replace(setup.limits, jump=0.5, shock=1e9, level=10.0)
    forecast = np.full((40, 3, 5), 10.0)
    forecast[20:, :, 3:] = 18.0
    one = replace(world, truth=np.full(40, 10.0), forecast=forecast)
    issued = one.run(replace(setup, limits=limits))
    assert issued[17].dirty_h.tolist() == [False, False, True]
    assert issued[18].dirty_h.tolist() == [False, True, True]
    assert issued[19].dirty_h.tolist() == [True, True, True]
    assert issued[20].dirty_h.tolist() == [False, False, False]


def test_dirty_rows_are_censored_and_counted(world):
    setup = world.setup(dirty_interval=2)
    quiet = replace(setup, limits=replace(setup.limits, shock=25.0, scale=1.0, jump=1e9))
    truth = np.full(60, 10.0)
    truth[30] = 80.0
    one = replace(world, truth=truth, forecast=np.full((60, 3, 5), 10.0))
    engine = Engine(quiet)
    one.run(engine=engine)
    _, censored = engine.counts()
    # 30 is a shock and so is the way back at 31: rows 30..31+D+h-1
    assert censored[:, 0].tolist() == [1 + 2 + 1, 1 + 2 + 2, 1 + 2 + 3]
    assert engine.scores()[0, 0] == 0.0


def test_the_weights_of_base_experts_make_up_the_forecast(world):
    setup = world.setup()
    online_only = replace(world, forecast=world.forecast[..., :3], offline=())
    for origin, one in enumerate(online_only.run(replace(setup, offline=()))):
        share = one.expert_weights()
        assert share.sum(axis=1) == pytest.approx(1.0)
        assert (share * online_only.origin(origin)).sum(axis=1) == pytest.approx(one.forecast_h)
    for one in world.run():
        assert one.expert_weights().sum(axis=1) == pytest.approx(1.0)


def test_a_pool_of_offline_experts_alone_works(world):
    alone = replace(world, forecast=world.forecast[..., 3:], online=())
    out = forecasts(alone.run(alone.setup()))
    assert np.isfinite(out).all()


def test_calibration_and_the_meta_level_pay(world):
    """On this world the policy beats the best raw expert, the uniform mean and the inverse scores."""
    out = by_target(world, world.run())
    rows = slice(120, 230)
    error = np.abs(out[rows] - world.truth[rows, None]).mean()
    single = np.abs(world.forecast[rows] - world.truth[rows, None, None]).mean(axis=(0, 1))
    uniform = by_target(world, world.run(world.setup(method="uniform")))
    static = by_target(world, world.run(world.setup(method="inverse_score")))
    assert error < 0.7 * single.min()
    assert error < 0.7 * np.abs(uniform[rows] - world.truth[rows, None]).mean()
    assert error < np.abs(static[rows] - world.truth[rows, None]).mean()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.98, 1.0])
def test_the_regret_bound_holds_for_the_whole_engine(make_world, seed, beta):
    world = make_world(seed)
    rng = np.random.default_rng(seed)
    flipped = np.where(rng.random(240) < 0.5, world.forecast[:, 0, 0], world.forecast[:, 0, 3])
    hostile = replace(world, truth=np.nan_to_num(flipped, nan=20.0))
    setup = hostile.setup(beta=beta)
    out = by_target(hostile, hostile.run(setup))
    for lead in range(1, 4):
        for k in range(5):
            expert = hostile.forecast[:, lead - 1, k]
            rows = np.isfinite(out[:, lead - 1]) & np.isfinite(expert)
            mix, one, y = out[rows, lead - 1], expert[rows], hostile.truth[rows]
            realised = np.abs(mix - y).sum() - np.abs(one - y).sum()
            assert realised <= regret_bound(mix - one, members=len(setup.members), beta=beta, delay=lead)


def test_cloning_an_expert_moves_the_forecast_less_than_the_bound(world):
    clone = np.concatenate([world.forecast[..., :3], world.forecast[..., 2:]], axis=2)
    cloned = replace(world, forecast=clone, online=(*world.online, "again"))
    plain, other = by_target(world, world.run()), by_target(cloned, cloned.run(cloned.setup()))
    rows = np.isfinite(plain[:, 0])
    moved = np.abs(plain - other)[rows]
    expert = world.forecast[rows, :, 2]
    known = np.isfinite(expert[:, 0])
    gap = (plain[rows, 0] - expert[:, 0])[known]
    assert 0 < moved[:, 0].sum() <= regret_bound(gap, members=12, beta=0.98, delay=1)
    assert moved[60:].mean() < 0.1 * np.nanmean(np.abs(world.forecast - world.truth[:, None, None]))


def test_twenty_terrible_experts_cost_little(world):
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 2000, (*world.forecast.shape[:2], 20))
    crowd = replace(
        world,
        forecast=np.concatenate([world.forecast[..., :3], noise, world.forecast[..., 3:]], axis=2),
        online=(*world.online, *(f"bad{i}" for i in range(20))),
    )
    setup = crowd.setup()
    out = by_target(crowd, crowd.run(setup))
    best = np.nanargmin(np.nanmean(np.abs(world.forecast[:, 0] - world.truth[:, None]), axis=0))
    rows = np.isfinite(out[:, 0]) & np.isfinite(world.forecast[:, 0, best])
    mix, one, y = out[rows, 0], world.forecast[rows, 0, best], world.truth[rows]
    cost = np.abs(mix - y).sum() - np.abs(one - y).sum()
    assert cost <= regret_bound(mix - one, members=len(setup.members), beta=0.98, delay=1)
    late = slice(150, 230)
    assert np.abs(out[late] - world.truth[late, None]).mean() < np.abs(one - y)[-90:].mean()


@pytest.mark.parametrize("beta", [0.9, 0.99])
def test_a_bad_expert_does_not_rule_after_a_long_sleep(world, beta):
    rng, asleep = np.random.default_rng(0), range(300, 2300)
    limits = replace(world.setup().limits, level=100.0, jump=np.inf, scale=1.0, shock=np.inf, period=1)
    setup = world.setup(limits=limits, beta=beta, horizon=1, online=("one", "two", "bad"), offline=())
    engine, shares = Engine(setup), []
    for step in range(2310):
        engine.observe(100 + rng.normal())
        bad = np.nan if step in asleep else 150.0
        issued = engine.issue(np.array([[100 + rng.normal(), 100 + rng.normal(), bad]]))
        if step >= 2300:
            shares.append(issued.expert_weights()[0, 2])
    assert max(shares) < 0.01
