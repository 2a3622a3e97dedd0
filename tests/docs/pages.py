"""Reading our Markdown: the commands that a page runs, the files that it writes, its links.

A page is a script. Under a line ``Write `path`:`` a fenced block is a file. In a ```console block a
line `$ command` is run in the page's folder and must end with status 0, or with N where `# exits N`
follows; the lines below it must be among what it printed, in that order, `...` standing for anything.
A block marked ```console no-run is only read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"^(?P<tick>`{3,}|~{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=tick)[ \t]*$", re.MULTILINE | re.DOTALL
)
_WRITE = re.compile(r"^Write `(?P<path>[^`]+)`:\s*\Z", re.MULTILINE)
_EXITS = re.compile(r"\s+# exits (?P<status>\d+)\s*$")
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(?P<text>.+?)\s*$", re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block; `line` is where it begins, `path` the file that it is, if it is one."""

    line: int
    language: str
    no_run: bool
    body: str
    path: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command, the status that it must end with and the lines that it must print."""

    line: int
    text: str
    status: int
    shown: tuple[str, ...]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(text):
        language, *marks = match["info"].split() or [""]
        written = _WRITE.search(text[: match.start()])
        found.append(
            Block(
                line=text.count("\n", 0, match.start()) + 1,
                language=language,
                no_run="no-run" in marks,
                body=match["body"],
                path=written["path"] if written else None,
            )
        )
    return found


def commands(block: Block) -> Iterator[Command]:
    """The `$ ` lines of a console block, each with the output shown below it."""
    begun: tuple[int, str] | None = None
    shown: list[str] = []
    for number, line in enumerate(block.body.splitlines(), start=block.line + 1):
        if line.startswith("$ "):
            if begun:
                yield _command(*begun, shown)
            begun, shown = (number, line[2:]), []
        elif begun and begun[1].endswith("\\"):
            begun = (begun[0], begun[1] + "\n" + line)
        else:
            shown.append(line)
    if begun:
        yield _command(*begun, shown)


def not_printed(shown: tuple[str, ...], printed: str) -> str | None:
    """The first shown line that does not appear in what was printed, after those before it."""
    lines = iter(line.rstrip() for line in printed.splitlines())
    for line in shown:
        if line.strip() in ("", "..."):
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in _squeezed(line).split("...")))
        if not any(pattern.fullmatch(_squeezed(candidate)) for candidate in lines):
            return line
    return None


def links(text: str) -> list[str]:
    """The relative links of a page, without those in code."""
    prose = _CODE.sub("", _FENCE.sub("", text))
    targets = (match["target"] for match in _LINK.finditer(prose))
    return [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:", target)]


def anchors(text: str) -> set[str]:
    """What a link into the page may name, as code hosts make it from headings."""
    headings = (match["text"].lower() for match in _HEADING.finditer(_FENCE.sub("", text)))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def drawn_folders(text: str, heading: str, root: str) -> set[str]:
    """The folders one level below `root` in the tree drawn in the first block under a heading."""
    _, found, rest = text.partition(f"\n{heading}\n")
    tree = blocks(rest)[0].body.splitlines() if found and blocks(rest) else []
    start = next((i for i, line in enumerate(tree) if line[_depth(line) :].startswith(root)), len(tree))
    below: list[str] = []
    for line in tree[start + 1 :]:
        if _depth(line) <= _depth(tree[start]):
            break
        below.append(line)
    first = _depth(below[0]) if below else 0
    names = (line[first:].split("/")[0] for line in below if _depth(line) == first and "/" in line)
    return {name for name in names if re.fullmatch(r"\w+", name)}


def page_files(root: Path) -> list[Path]:
    """Every Markdown page of the project."""
    folders = (root, root / "docs", root / "src", root / "tests", root / "benchmarks")
    found = [path for folder in folders[1:] for path in folder.rglob("*.md")]
    return sorted([*root.glob("*.md"), *found])


def _command(line: int, text: str, shown: list[str]) -> Command:
    exits = _EXITS.search(text)
    return Command(
        line=line,
        text=_EXITS.sub("", text),
        status=int(exits["status"]) if exits else 0,
        shown=tuple(shown),
    )


def _squeezed(line: str) -> str:
    return re.sub(r"\s*\.\.\.\s*", "...", re.sub(r"[ \t]+", " ", line)).strip()


def _depth(line: str) -> int:
    """Where the first letter of a drawn line stands."""
    letter = re.search(r"\w", line)
    return letter.start() if letter else len(line)
