"""`modelyard forecast`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from modelyard.core.errors import PolicyError
from modelyard.core.failpoints import failpoint
from modelyard.core.files import read_json, write_json, write_whole

if TYPE_CHECKING:
    from modelyard.ensemble.policies.stream import Stream


@click.command(name="forecast")
@click.argument("policy", type=click.Path(path_type=Path))
@click.option(
    "--predictions", "folder", metavar="DIR", type=click.Path(path_type=Path),
    help="Forecasts of the experts and the truth, as tables; without it, JSON lines on standard input.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path),
    help="Where the forecasts go: Parquet of tables, JSON lines of a stream. [default: standard output]",
)  # fmt: skip
@click.option(
    "--state", "state_file", metavar="FILE", type=click.Path(path_type=Path),
    help="Of a stream: keep where it stands, and go on from there.",
)  # fmt: skip
@click.option(
    "--save-every", type=click.IntRange(min=1), default=1, show_default=True,
    help="Of a stream: origins from one state to the next.",
)  # fmt: skip
def command(
    policy: Path, folder: Path | None, output: Path | None, state_file: Path | None, save_every: int
) -> None:
    """Forecast with an ELPA policy, and let it learn on the way.

    With --predictions, from every origin of the tables after the policy's validation. Without it, one
    origin at a time: each line of standard input is an object with series, origin, y and forecasts, and
    is answered by a line. With --state and --output a stream that was killed at any moment and is given
    its lines again has written the same bytes.
    """
    from modelyard.ensemble.policies.policy import read_policy  # pandas loads here, not before

    if folder is None:
        from modelyard.ensemble.policies.stream import Stream

        _run_stream(Stream(read_policy(policy)), output, state_file, save_every)
        return
    if output is None:
        raise click.UsageError("with --predictions, --output names the Parquet file to write")
    from modelyard.ensemble.policies.forecasting import forecast_table, read_folder, to_parquet

    frame = forecast_table(read_policy(policy), *read_folder(folder))
    write_whole(output, to_parquet(frame))
    origins, series = frame["origin"].nunique(), frame["series"].nunique()
    click.echo(f"{len(frame)} forecasts from {origins} origins of {series} series: {output}")


def _run_stream(stream: Stream, output: Path | None, state_file: Path | None, save_every: int) -> None:
    """Answer every line; the state is saved before an answer is printed, and after one is in a file."""
    kept, since = _restore(stream, output, state_file), 0
    with click.open_file("-", "rb") as lines, _opened(output, kept) as written:
        for number, text in enumerate(lines, start=1):
            answer = stream.take(_parsed(text, number), again=output is None) if text.strip() else None
            if answer is None:
                continue
            line = (json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n").encode()
            kept, since = kept + len(line), since + 1
            if output is None and since % save_every == 0:
                _save(stream, state_file, kept)
            written.write(line)
            written.flush()
            failpoint("forecast.after_answer")
            if output is not None and since % save_every == 0:
                _save(stream, state_file, kept)
        _save(stream, state_file, kept)


@contextmanager
def _opened(output: Path | None, kept: int) -> Iterator[IO[Any]]:
    """The output, cut to what the state stands for."""
    if output is None:
        with click.open_file("-", "wb") as printed:
            yield printed
        return
    output.touch()
    with output.open("r+b") as written:
        written.truncate(kept)
        written.seek(kept)
        yield written


def _restore(stream: Stream, output: Path | None, state_file: Path | None) -> int:
    """Go on from the state file, if there is one; how many bytes of the output it stands for."""
    if state_file is None or not state_file.exists():
        return 0
    try:
        state: dict[str, Any] = read_json(state_file)
        stream.load_state(state["stream"])
        kept = int(state["bytes"])
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyError(
            f"{state_file}: is not a state of a stream ({error}); remove it, or name another"
        ) from error
    if output is not None and (not output.exists() or output.stat().st_size < kept):
        raise PolicyError(
            f"{output}: holds less than the {kept} bytes that {state_file} stands for; bring it back, or "
            f"remove the state and begin anew"
        )
    return kept


def _save(stream: Stream, state_file: Path | None, kept: int) -> None:
    if state_file is not None:
        write_json(state_file, {"bytes": kept, "stream": stream.to_state()}, durable=False)
        failpoint("forecast.after_state")


def _parsed(text: bytes, number: int) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise PolicyError(f"line {number} is not JSON ({error}); give one object a line") from error
    if not isinstance(value, dict):
        raise PolicyError(f"line {number} is {type(value).__name__}; give one object a line")
    return value
