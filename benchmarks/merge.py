"""Merging checkpoints: modelyard beside mergekit and beside `cp`, interleaved in one run.

    python benchmarks/merge.py --data DIR --peer PYTHON [--sizes S,M,L] [--methods ...] [--rounds 3]
                               [--cold] [--only ours,peer,cp] [--json out.json]

PYTHON is the interpreter of an environment with mergekit 0.1.5. For each size and method: modelyard
once with an empty kernel cache, then rounds of modelyard, mergekit, mergekit's imports alone and
`cp`, each a new process, its output checked by its bytes and removed. The inputs are in the page
cache; with `--cold` they are dropped from it before each run. `cp` reads all inputs but one and
copies that one. CPU seconds are the figure that survives a busy machine; ratios are medians of the
rounds' own ratios. The data is made below DIR when it is not there (benchmarks/merge_data.py).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import merge_data
import merge_peer
from merge_peer import Cost

LINEAR_WALL_TO_CP = 1.5  # at most
PRIVATE_MB = 300.0  # less
STARTUP_S = 0.5  # less
BOUNDED = ("linear", "slerp", "task_arithmetic", "dare_ties", "passthrough")  # elementwise and norm methods
NAMES = {
    "ours": "modelyard",
    "cold_kernels": "modelyard, cold kernels",
    "peer": "mergekit",
    "net": "mergekit without imports",
    "cp": "cp",
}
HEADER = """
| size, method, cache | | CPU s | wall s | private MB | resident MB | CPU to ours | wall to cp | goal |
|---|---|---|---|---|---|---|---|---|"""
NOTES = """
`cp` reads all inputs but one into one buffer and copies that one; it and modelyard fsync what they
write, mergekit does not. mergekit runs with its default options. CPU is user and system time of the
process and its children; private is the highest RssAnon of 20 ms samples over the process tree;
resident is VmHWM, in which mapped input files count. Of a mixture of experts mergekit writes the
experts of a layer as one tensor (transformers 5), modelyard as they came; the bytes are the same.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is the same for all cases."""

    data: Path
    peer: Path
    only: tuple[str, ...]
    rounds: int
    cold: bool
    limit_s: float


@dataclass(slots=True, kw_only=True)
class Case:
    """One size and method, and what its runs cost, contender by contender."""

    size: str
    method: str
    cached: list[float] = field(default_factory=list)  # share of the inputs, before each run
    loads: list[float] = field(default_factory=list)  # load average, before each round
    costs: dict[str, list[Cost]] = field(default_factory=dict)


def run_case(bench: Bench, size: str, method: str) -> Case:
    """All rounds of one size and method."""
    home = merge_data.prepare(bench.data, size)
    case = Case(size=size, method=method)
    with tempfile.TemporaryDirectory(prefix="kernels-", dir=bench.data) as kernels:
        if "ours" in bench.only:
            case.costs["cold_kernels"] = [run(bench, case, home, "ours", kernels)]
        for _ in range(bench.rounds):
            case.loads.append(round(os.getloadavg()[0], 2))
            for contender in bench.only:
                case.costs.setdefault(contender, []).append(run(bench, case, home, contender, kernels))
                if contender == "peer":
                    case.costs.setdefault("imports", []).append(imports(bench))
    return case


def run(bench: Bench, case: Case, home: Path, contender: str, kernels: str) -> Cost:
    """One process of one contender, on inputs that are in the page cache or are not."""
    read = merge_peer.weights(home, merge_peer.inputs(case.method))
    os.sync()
    (merge_peer.drop if bench.cold else merge_peer.read_through)(read)
    case.cached.append(round(merge_peer.cached_share(read), 3))
    with tempfile.TemporaryDirectory(prefix="out-", dir=bench.data) as folder:
        work = Path(folder)
        argv = merge_peer.command(contender, case.method, home, peer=bench.peer, work=work)
        cost = merge_peer.measure(argv, limit_s=bench.limit_s, env=environment(kernels))
        if not cost.failed:
            first = home / merge_peer.inputs(case.method)[0]
            cost = replace(cost, failed=merge_peer.shortfall(first, work / "model"))
    return cost


def environment(kernels: str) -> Mapping[str, str]:
    """Our kernels' cache; and nobody asks a network for a local file."""
    return {"MODELYARD_CACHE": kernels, "HF_HUB_OFFLINE": "1"}


def imports(bench: Bench) -> Cost:
    """mergekit's start: its imports and nothing else."""
    return merge_peer.measure([str(bench.peer), "-c", merge_peer.IMPORTS], limit_s=bench.limit_s)


def startup(bench: Bench) -> dict[str, list[Cost]]:
    """Commands that have next to nothing to do, in turn; our kernels' cache is warm after the first."""
    home = merge_data.prepare(bench.data, "tiny")
    found: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory(prefix="startup-", dir=bench.data) as folder:
        work = Path(folder)
        ready = merge_peer.command("ours", "linear", home, peer=bench.peer, work=work)
        ours = {
            "modelyard merge methods": [ready[0], "merge", "methods"],
            "modelyard merge run --dry-run (9 MB)": [*ready, "--dry-run"],
            "modelyard merge run (9 MB)": ready,
        }
        peer = {
            "mergekit's imports": [str(bench.peer), "-c", merge_peer.IMPORTS],
            "mergekit-yaml (9 MB)": merge_peer.command("peer", "linear", home, peer=bench.peer, work=work),
        }
        commands = (ours if "ours" in bench.only else {}) | (peer if "peer" in bench.only else {})
        for _ in range(1 + bench.rounds):
            for name, argv in commands.items():
                cost = merge_peer.measure(argv, limit_s=bench.limit_s, env=environment(folder))
                found.setdefault(name, []).append(cost)
                shutil.rmtree(work / "model", ignore_errors=True)
    return {name: costs[1:] for name, costs in found.items()}


def spread(costs: list[Cost], value: Callable[[Cost], float]) -> str:
    """Median and, of more than one, least and most of the runs that count."""
    values = [value(cost) for cost in costs if not cost.failed]
    if not values:
        return ""
    middle = figure(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({figure(min(values))} to {figure(max(values))})"


def failures(costs: list[Cost]) -> str:
    """How many runs do not count, and what the first of them said last."""
    said = [" ".join(cost.failed.split())[-80:] for cost in costs if cost.failed]
    return f", **{len(said)} of {len(costs)} failed** ({said[0]})" if said else ""


def figure(value: float) -> str:
    """Three digits, and none after the point of what is over a hundred."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def ratio(above: list[Cost], below: list[Cost], value: Callable[[Cost], float]) -> float | None:
    """Median of the rounds' ratios; None where no round has both."""
    pairs = [(a, b) for a, b in zip(above, below, strict=False) if not (a.failed or b.failed)]
    return statistics.median(value(a) / value(b) for a, b in pairs) if pairs else None


def net(case: Case) -> list[Cost]:
    """mergekit's runs with the imports of the same round taken off their CPU seconds."""
    return [
        replace(
            whole,
            wall_s=whole.wall_s - start.wall_s,
            cpu_s=whole.cpu_s - start.cpu_s,
            failed=whole.failed or start.failed,
        )
        for whole, start in zip(case.costs.get("peer", []), case.costs.get("imports", []), strict=True)
    ]


def goals(case: Case, who: str, wall_to_cp: float | None) -> str:
    """What was promised of this row, and whether it holds."""
    if who != "ours":
        return ""
    found = []
    if case.method == "linear" and wall_to_cp is not None:
        found.append(
            verdict(f"wall at most {LINEAR_WALL_TO_CP} times cp", met=wall_to_cp <= LINEAR_WALL_TO_CP)
        )
    counted = [cost.private_mb for cost in case.costs["ours"] if not cost.failed]
    if case.method in BOUNDED and counted:
        found.append(verdict(f"private under {PRIVATE_MB:g} MB", met=max(counted) < PRIVATE_MB))
    return "; ".join(found)


def verdict(goal: str, *, met: bool) -> str:
    """One goal in words."""
    return f"{goal}: {'met' if met else '**missed**'}"


def rows(case: Case, *, cold: bool) -> Iterator[str]:
    """The table's rows of one case: each contender's own, and mergekit's without its imports."""
    costs = case.costs | ({"net": net(case)} if "peer" in case.costs else {})
    cache = "cold" if cold else "warm"
    for who in NAMES:
        if who not in costs:
            continue
        times_ours = ratio(costs[who], costs.get("ours", []), lambda c: c.cpu_s)
        times_cp = ratio(costs[who], costs.get("cp", []), lambda c: c.wall_s)
        cells = [f"{case.size} {case.method}, {cache}", NAMES[who] + failures(costs[who])]
        cells += [spread(costs[who], lambda c: c.cpu_s), spread(costs[who], lambda c: c.wall_s)]
        cells += [spread(costs[who], lambda c: c.private_mb), spread(costs[who], lambda c: c.resident_mb)]
        cells += ["" if r is None else figure(r) for r in (times_ours, times_cp)]
        yield "| " + " | ".join([*cells, goals(case, who, times_cp)]) + " |"


def print_startup(found: Mapping[str, list[Cost]]) -> None:
    """The table of what next to nothing costs."""
    print("\n| start-up | wall s | CPU s | goal |\n|---|---|---|---|")
    for name, costs in found.items():
        counted, goal = [cost.wall_s for cost in costs if not cost.failed], ""
        if name.startswith("modelyard") and counted:
            goal = verdict(f"wall under {STARTUP_S} s", met=statistics.median(counted) < STARTUP_S)
        figures = f"{spread(costs, lambda c: c.wall_s)} | {spread(costs, lambda c: c.cpu_s)}"
        print(f"| {name}{failures(costs)} | {figures} | {goal} |")


def print_state(cases: list[Case]) -> None:
    """How busy the machine was, what the page cache had, and the notes."""
    loads = [load for case in cases for load in case.loads]
    shares = [share for case in cases for share in case.cached]
    print(f"\nLoad average before the rounds: {min(loads)} to {max(loads)}.")
    print(f"Share of the inputs in the page cache before the runs: {min(shares):.0%} to {max(shares):.0%}.")
    print(NOTES)


def among(known: Iterable[str]) -> Callable[[str], list[str]]:
    """What reads a list of these names, comma between them."""

    def read(text: str) -> list[str]:
        if unknown := [name for name in text.split(",") if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return text.split(",")

    return read


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="where the checkpoints are or will be")
    parser.add_argument("--peer", type=Path, required=True, help="python of an environment with mergekit")
    parser.add_argument("--sizes", type=among(merge_data.SHAPES), default="S,M,L")
    parser.add_argument("--methods", type=among(merge_peer.METHODS), default=",".join(merge_peer.METHODS))
    parser.add_argument("--only", type=among(merge_peer.CONTENDERS), default="ours,peer,cp")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="inputs out of the page cache")
    parser.add_argument("--limit-s", type=float, default=3600.0, help="a run that takes longer is ended")
    parser.add_argument("--json", type=Path, help="every run's figures, written after each case")
    return parser.parse_args()


def main() -> None:
    """Measure case by case and print two Markdown tables."""
    chosen = options()
    bench = Bench(
        data=chosen.data.absolute(),
        peer=chosen.peer.absolute(),
        only=tuple(c for c in merge_peer.CONTENDERS if c in chosen.only),
        rounds=chosen.rounds,
        cold=chosen.cold,
        limit_s=chosen.limit_s,
    )
    whole: dict[str, object] = {"about": merge_peer.about(bench.peer), "cold": bench.cold, "cases": []}
    print(f"{json.dumps(whole['about'])}; rounds: {bench.rounds}\n{HEADER}", flush=True)
    cases: list[Case] = []
    for size in chosen.sizes:
        for method in chosen.methods:
            cases.append(run_case(bench, size, method))
            print("\n".join(rows(cases[-1], cold=bench.cold)), flush=True)
            save(chosen.json, whole | {"cases": [asdict(case) for case in cases]})
    found = startup(bench)
    print_startup(found)
    print_state(cases)
    started = {name: [asdict(cost) for cost in costs] for name, costs in found.items()}
    save(chosen.json, whole | {"cases": [asdict(case) for case in cases], "startup": started})


def save(path: Path | None, whole: Mapping[str, object]) -> None:
    """The figures so far, when a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(whole, indent=2) + "\n")


if __name__ == "__main__":
    main()
