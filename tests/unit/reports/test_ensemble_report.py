"""The ELPA report from the files of a run: what it says is what the files hold."""

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
from modelyard.ensemble.report import ReportInputs, build_report, headline, main, shocks


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


def test_headline_joins_the_rows_and_sorts_them() -> None:
    entries = [
        ("a", "expert", 3.0, 2.0, 9.0),
        ("policy", "policy", 1.0, 0.5, None),
        ("b", "expert", None, None, None),
    ]
    table = [
        {
            "name": name,
            "kind": kind,
            "group": None,
            "rows": rows,
            "lead": lead,
            "mae": mae,
            "mase": 1.0,
            "n": 4,
            "served_share": 1.0,
        }
        for name, kind, *maes in entries
        for rows, lead, mae in zip(
            ("all", "calm", "mutant", "all"), (None, None, None, 1), (*maes, 77.0), strict=True
        )
    ]

    rows = headline({"table": table})

    assert [row["name"] for row in rows] == ["policy", "a", "b"]
    assert rows[1] == {
        "name": "a",
        "kind": "expert",
        "group": None,
        "mae": 3.0,
        "mase": 1.0,
        "mae_calm": 2.0,
        "mae_mutant": 9.0,
        "n": 4,
        "served_share": 1.0,
    }
    assert rows[2]["mae"] is None


def truth_rows(hours: int, series: str = "main") -> pd.DataFrame:
    times = pd.date_range("2013-07-01", periods=hours, freq="h", tz="UTC")
    y = 50 + 20 * np.sin(2 * np.pi * np.arange(hours) / 24)
    return pd.DataFrame({"series": series, "target_time": times, "y": y})


def test_shocks_are_found_where_they_are_largest_and_apart() -> None:
    rows = truth_rows(24 * 35)
    rows.loc[[100, 101, 102], "y"] += (30, 40, 35)
    rows.loc[400, "y"] -= 60
    rows.loc[[700, 740, 790], "y"] += (20, 19, 18)  # 740 lies in the window of 700, 790 does not

    found = shocks(rows, 24, count=4)

    assert found.index.tolist() == [400, 101, 700, 790]
    assert found["gap"].tolist() == pytest.approx([-60, 40, 20, 18])


def test_shocks_of_several_series_do_not_hide_each_other() -> None:
    rows = pd.concat([truth_rows(24 * 10), truth_rows(24 * 10, "lga")], ignore_index=True)
    rows.loc[[100, 340], "y"] += (30, 20)

    found = shocks(rows, 24, count=2)

    assert found["series"].tolist() == ["main", "lga"]


def test_missing_truth_is_no_shock() -> None:
    rows = truth_rows(24 * 10)
    rows.loc[50, "y"] = np.nan
    rows.loc[60, "y"] += 5

    assert shocks(rows, 24, count=1).index.tolist() == [60]
    assert shocks(rows.assign(y=np.nan), 24).empty


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

    code = "import sys, modelyard.ensemble.report; assert not {'matplotlib', 'pandas'} & set(sys.modules)"
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
