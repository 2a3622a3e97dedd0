"""The ELPA report from the files of a run: what it says is what the files hold.

The run is synthetic, in the shared format: nine experts, storms, and weights that move.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelyard.core.errors import PolicyError
from modelyard.ensemble.report.__main__ import main
from modelyard.ensemble.report.inputs import ReportInputs
from modelyard.ensemble.report.page import build_report

ONLINE = ("ridge_lags", "lgbm_direct", "ets", "seasonal_naive", "knn_analogue")
OFFLINE = ("fourier", "poisson_glm", "forest_calendar", "mstl")
PERIOD = 24


def truth(hours: int, storms: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A daily and weekly profile with storms that halve it for a day; shape [hours] each."""
    hour = np.arange(hours)
    profile = 60 * np.clip(np.sin(2 * np.pi * (hour % 24 - 5) / 34), 0, None) + 3
    profile *= np.where((hour // 24) % 7 == 5, 0.8, 1.0)
    factor = np.ones(hours)
    for storm in storms:
        factor[storm : storm + 18] *= np.linspace(0.1, 0.7, len(factor[storm : storm + 18]))
    return profile * factor + rng.normal(0, 2, hours), profile


def backtest_rows(hours: int, leads: list[int], storms: tuple[int, ...], *, seed: int = 7) -> pd.DataFrame:
    """backtest.parquet of one series."""
    rng = np.random.default_rng(seed)
    y, profile = truth(hours, storms, rng)
    times = pd.date_range("2013-09-01", periods=hours, freq="h", tz="UTC").as_unit("us")
    mutant = np.zeros(hours, dtype=bool)
    for storm in storms:
        mutant[storm : storm + 20] = True
    frames = []
    for lead in leads:
        late = np.where(
            np.arange(hours) < lead, profile, profile * np.roll(y / np.clip(profile, 3, None), lead)
        )
        columns: dict[str, Any] = {"series": "main", "target_time": times, "lead": lead, "y": y}
        experts = {
            **{name: late + rng.normal(0, 1.5 + place, hours) for place, name in enumerate(ONLINE)},
            **{
                name: profile * (1.05 + 0.05 * place) + rng.normal(0, 2, hours)
                for place, name in enumerate(OFFLINE)
            },
        }
        pool = np.stack(list(experts.values()))
        policy = 0.6 * experts["ridge_lags"] + 0.4 * (0.7 * experts["fourier"] + 0.3 * y)
        columns |= {"policy": policy, "uniform": pool.mean(axis=0), "inverse_score": 0.5 * pool.mean(axis=0)}
        columns["inverse_score"] += 0.5 * experts["ridge_lags"]
        columns |= {"best_single": experts["fourier"], "mutant": mutant, "dirty": mutant}
        columns |= {f"expert:{name}": values for name, values in experts.items()}
        frames.append(pd.DataFrame(columns))
    rows = pd.concat(frames, ignore_index=True)
    rows.loc[rows.index[:5], "expert:mstl"] = np.nan
    return rows


def backtest_table(rows: pd.DataFrame, leads: list[int]) -> list[dict[str, Any]]:
    """The table of backtest.json from the rows themselves."""
    rules = (("policy", "policy"), ("uniform", "uniform"), ("inverse_score", "inverse_score"))
    named = [(name, kind, name, None) for name, kind in rules]
    named.append(("best_single", "best_single_hindsight", "best_single_hindsight", None))
    for column in rows.columns:
        if column.startswith("expert:"):
            name = column.removeprefix("expert:")
            named.append((column, "expert", name, "online" if name in ONLINE else "offline"))
    table = []
    for column, kind, name, group in named:
        cuts = [
            ("all", None, rows),
            ("calm", None, rows[~rows["mutant"]]),
            ("mutant", None, rows[rows["mutant"]]),
        ]
        cuts += [("all", lead, rows[rows["lead"] == lead]) for lead in leads]
        for which, lead, part in cuts:
            error = (part[column] - part["y"]).abs().dropna()
            entry = {"name": name, "kind": kind, "group": group, "rows": which, "lead": lead}
            mae = float(error.mean()) if len(error) else None
            entry |= {"mae": mae, "mase": mae and mae / 6.0, "n": len(error)}
            table.append(entry | {"served_share": len(error) / max(len(part), 1)})
    return table


def weight_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """weights.parquet: both levels, simplices that wander."""
    rng = np.random.default_rng(3)
    frames = []
    members = {"expert": [*ONLINE, *OFFLINE], "meta": ["online mix", "offline mix", "route", *ONLINE[:2]]}
    base = rows[["series", "target_time", "lead"]]
    for level, names in members.items():
        walk = (
            np.cumsum(rng.normal(0, 0.05, (len(names), len(base))), axis=1)
            - np.arange(len(names))[:, None] / 3
        )
        share = np.exp(walk) / np.exp(walk).sum(axis=0)
        frames += [base.assign(expert=n, weight=w, level=level) for n, w in zip(names, share, strict=True)]
    return pd.concat(frames, ignore_index=True)


def write_run(folder: Path, *, hours: int = 24 * 60, storms: tuple[int, ...] = (300, 700, 1100)) -> Path:
    """Every file of a run; returns the SPEC of its report."""
    leads = [1, 2, 3]
    rows = backtest_rows(hours, leads, storms)
    backtest = folder / "backtest"
    backtest.mkdir(parents=True)
    rows.to_parquet(backtest / "backtest.parquet")
    weight_rows(rows).to_parquet(backtest / "weights.parquet")
    document = {
        "schema": "modelyard.backtest/1",
        "leads": leads,
        "period": PERIOD,
        "rows": {"all": len(rows), "calm": int((~rows["mutant"]).sum()), "mutant": int(rows["mutant"].sum())},
        "table": backtest_table(rows, leads),
        "regret": {"realised": 120.5, "bound": 410.0, "per_lead": []},
        "excluded": [{"name": "broken_net", "reason": "3 of 900 errors are not finite", "rows": 3}],
        "method": {"name": "boa", "delay": True, "sleeping": ["online mix"]},
        "from": "2013-09-01T00:00:00+00:00",
        "until": "2013-10-30T23:00:00+00:00",
    }
    policy = {
        "schema": "elpa.policy/2",
        "created_at": "2026-01-02T03:04:05+00:00",
        "beta": 0.99,
        "dirty_interval": 3,
        "amplitude_window": 24,
        "mutant_epsilon": 0.31,
        "digests": {"inputs": {"predictions": "sha256:" + "ab" * 32}, "models": {}},
    }
    members = [
        {
            "name": name,
            "group": "online" if name in ONLINE else "offline",
            "status": "ok",
            "attempts": 1,
            "train_s": 1.5 + place,
            "predict_s": 0.4 * place,
            "cpu_s": 2.0 * place,
            "excluded": None,
        }
        for place, name in enumerate((*ONLINE, *OFFLINE))
    ]
    (backtest / "backtest.json").write_text(json.dumps(document))
    (folder / "policy.json").write_text(json.dumps(policy))
    (folder / "members.json").write_text(json.dumps(members))
    spec = {
        "policy": "policy.json",
        "backtest": "backtest",
        "members": "members.json",
        "title": "Departures of New York",
        "out": "report.html",
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    return path


@pytest.fixture
def elpa_spec(tmp_path: Path) -> Path:
    """The SPEC of a written run of sixty days with three storms."""
    return write_run(tmp_path / "run")


@pytest.fixture(params=[1, 2, 30])
def short_spec(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The SPEC of a run of a few hours without any mutant."""
    return write_run(tmp_path / "short", hours=request.param, storms=())


def inputs(spec: Path) -> ReportInputs:
    folder = spec.parent
    return ReportInputs(
        policy=folder / "policy.json",
        backtest=folder / "backtest",
        members=folder / "members.json",
        title="Departures",
        command="make report",
    )


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def plain(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", markup))


def test_the_page_holds_every_part_and_every_model(elpa_spec: Path) -> None:
    page = build_report(inputs(elpa_spec))

    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
    assert titles == [
        "Result",
        "By lead",
        "Largest shocks",
        "Weights over time",
        "Cumulative regret",
        "Members",
        "Method",
        "Settings",
        "Provenance",
    ]
    assert page.count("<svg") == 1 + 3 + 2 + 1 == page.count('role="img"')
    for name in ("ridge_lags", "mstl", "uniform mean", "static inverse score", "broken_net"):
        assert name in plain(page)
    assert "3 of 900 errors are not finite" in page and "make report" in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert len(page) < 600_000


def test_the_sentence_gives_the_sign_as_it_is(elpa_spec: Path) -> None:
    path = elpa_spec.parent / "backtest/backtest.json"
    backtest = json.loads(path.read_text())
    maes = {"policy": 2.0, "uniform": 4.0, "inverse_score": 2.5, "best_single_hindsight": 1.6}
    for row in backtest["table"]:
        if row["kind"] in maes and row["rows"] == "all" and row["lead"] is None:
            row["mae"] = maes[row["kind"]]
    path.write_text(json.dumps(backtest))

    text = build_report(inputs(elpa_spec))

    assert (
        "error over the backtest is 2: 25.0 % above the best single expert in hindsight, "
        "20.0 % below static inverse-score weights and 50.0 % below the uniform mean."
    ) in text


def test_the_best_single_is_told_by_its_own_name_when_the_table_has_it(elpa_spec: Path) -> None:
    path = elpa_spec.parent / "backtest/backtest.json"
    backtest = json.loads(path.read_text())
    for row in backtest["table"]:
        if row["kind"] == "best_single_hindsight":
            row["name"] = "fourier"
    path.write_text(json.dumps(backtest))

    text = plain(build_report(inputs(elpa_spec)))

    assert "the best single expert in hindsight (fourier)" in text
    assert "best single in hindsight: fourier" in text


def test_the_regret_told_is_the_sum_of_the_rows(elpa_spec: Path) -> None:
    rows = pd.read_parquet(elpa_spec.parent / "backtest/backtest.parquet")
    error = (rows["policy"] - rows["y"]).abs() - (rows["best_single"] - rows["y"]).abs()

    told = f"the policy {error.sum():+,.0f}".replace("-", "\u2212")
    assert abs(error.sum()) > 1000

    assert told in html.unescape(build_report(inputs(elpa_spec)))


def test_names_are_text_and_nothing_else(elpa_spec: Path) -> None:
    path = elpa_spec.parent / "members.json"
    path.write_text(json.dumps([{"name": "<img src=x onerror=alert(1)>", "excluded": "$\\frac{1}{2}$ <b>"}]))

    page = build_report(inputs(elpa_spec))

    assert "<img" not in page and "&lt;img src=x" in page and "<b>" not in page


def test_without_members_and_exclusions_the_section_is_left_out(elpa_spec: Path) -> None:
    change(elpa_spec.parent / "backtest/backtest.json", excluded=[])
    bare = ReportInputs(
        policy=elpa_spec.parent / "policy.json", backtest=elpa_spec.parent / "backtest", title="T"
    )

    assert '<h2 id="members' not in build_report(bare)


def test_a_backtest_of_a_few_hours_has_its_page(short_spec: Path) -> None:
    page = build_report(inputs(short_spec))

    assert "Cumulative regret" in page and not re.search(r"\bnan\b", plain(page))


def test_one_group_alone_and_half_served_experts_are_shown(elpa_spec: Path) -> None:
    path = elpa_spec.parent / "backtest/backtest.json"
    table = json.loads(path.read_text())["table"]
    change(path, table=[row for row in table if row["group"] != "offline"])

    page = build_report(inputs(elpa_spec))

    assert "(online)" in page and "(offline)" not in page


@pytest.mark.parametrize(
    "name", ["policy.json", "backtest/backtest.json", "backtest/backtest.parquet", "members.json"]
)
def test_a_missing_file_is_named(elpa_spec: Path, name: str) -> None:
    (elpa_spec.parent / name).unlink()

    with pytest.raises(PolicyError, match=re.escape(name)):
        build_report(inputs(elpa_spec))


def test_a_file_of_another_kind_is_refused(elpa_spec: Path) -> None:
    backtest = elpa_spec.parent / "backtest"
    (backtest / "weights.parquet").write_text("no table")
    with pytest.raises(PolicyError, match=r"weights\.parquet: cannot be read"):
        build_report(inputs(elpa_spec))

    change(backtest / "backtest.json", schema="modelyard.backtest/7")
    with pytest.raises(PolicyError, match=r"'modelyard\.backtest/7', but modelyard\.backtest/1 is required"):
        build_report(inputs(elpa_spec))


def test_a_missing_column_is_named(elpa_spec: Path) -> None:
    path = elpa_spec.parent / "backtest/backtest.parquet"
    pd.read_parquet(path).drop(columns="best_single").to_parquet(path)

    with pytest.raises(PolicyError, match="lacks 'best_single'"):
        build_report(inputs(elpa_spec))


def test_the_same_files_give_the_same_page(elpa_spec: Path) -> None:
    assert build_report(inputs(elpa_spec)) == build_report(inputs(elpa_spec))


def test_the_command_writes_the_page_or_tells_why_not(
    elpa_spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(elpa_spec)]) == 0
    assert "<h1>Departures of New York</h1>" in (elpa_spec.parent / "report.html").read_text()
    assert capsys.readouterr().out.strip() == str(elpa_spec.parent / "report.html")

    change(elpa_spec, polcy="x")
    assert main([str(elpa_spec)]) == 1
    assert "did you mean policy?" in capsys.readouterr().err
    assert main([]) == 2


def test_the_module_runs_and_is_light_to_import(elpa_spec: Path) -> None:
    (elpa_spec.parent / "policy.json").unlink()
    command = [sys.executable, "-W", "error", "-m", "modelyard.ensemble.report", str(elpa_spec)]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "policy.json: cannot be read" in failed.stderr and "Traceback" not in failed.stderr

    code = (
        "import sys, modelyard.ensemble.report.page; assert not {'matplotlib', 'pandas'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_mean_weights_told_are_those_of_the_file(elpa_spec: Path) -> None:
    weights = pd.read_parquet(elpa_spec.parent / "backtest/weights.parquet")
    shown = weights[(weights["lead"] == 3) & (weights["level"] == "expert")]
    means = shown.groupby("expert")["weight"].mean()

    text = plain(build_report(inputs(elpa_spec)))

    assert f"On average: {means.idxmax()} {means.max():.0%}" in text


def test_an_expert_that_is_called_like_a_member_of_the_mixture_keeps_its_prefix(elpa_spec: Path) -> None:
    path = elpa_spec.parent / "backtest/weights.parquet"
    weights = pd.read_parquet(path)
    weights.replace({"expert": {"ridge_lags": "expert:route", "lgbm_direct": "expert:other"}}).to_parquet(
        path
    )

    text = plain(build_report(inputs(elpa_spec)))

    assert "expert:route" in text and "expert:other" not in text
