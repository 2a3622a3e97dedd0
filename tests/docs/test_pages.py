"""Reading Markdown: a fault here would leave commands unrun without a word."""

from __future__ import annotations

import pytest
from tests.docs import pages

PAGE = """
# A page

Write `a/b.yaml`:

```yaml
key: value
```

Text with `$ false` in it and [a link](other.md#there), [out](https://example.org), `[code](no.md)`.

```console
$ one  # exits 3
shown ... here
$ two \\
    --more
```

```console no-run
$ ssh host
```
"""


def test_files_and_commands_are_found() -> None:
    written, run, read = pages.blocks(PAGE)
    assert (written.path, written.body) == ("a/b.yaml", "key: value\n")
    assert (run.path, run.no_run, read.no_run) == (None, False, True)
    first, second = pages.commands(run)
    assert (first.text, first.status, first.shown) == ("one", 3, ("shown ... here",))
    assert (second.text, second.status, second.shown) == ("two \\\n    --more", 0, ())
    assert PAGE.splitlines()[first.line - 1] == "$ one  # exits 3"


@pytest.mark.parametrize(
    ("shown", "missing"),
    [
        (("alpha", "gamma"), None),
        (("alpha", "...", "gamma"), None),
        (("be...", "gam...a"), None),
        (("gamma", "alpha"), "alpha"),
        (("beta",), "beta"),
        (("alpha", "alpha"), "alpha"),
        (("delta",), "delta"),
    ],
)
def test_shown_lines_are_held_against_what_was_printed(shown: tuple[str, ...], missing: str | None) -> None:
    assert pages.not_printed(shown, "alpha\nbeta  12.5 s\ngamma\n") == missing


def test_a_dot_stands_for_itself() -> None:
    assert pages.not_printed(("a.c",), "abc\n") == "a.c"


def test_links_without_those_in_code_or_outside() -> None:
    assert pages.links(PAGE) == ["other.md#there"]


def test_anchors_are_made_of_headings() -> None:
    assert pages.anchors("# A page\n\n## 2. What `up` does\n\n```\n# no heading\n```\n") == {
        "a-page",
        "2-what-up-does",
    }


@pytest.mark.parametrize("bars", ["    ", "├── "])
def test_the_folders_of_a_drawn_tree(bars: str) -> None:
    below = [f"{bars}cli/    commands", f"{bars}core/   a/b", f"{bars}py.typed", f"    {bars}deeper/"]
    tree = "\n".join(["docs/", "src/modelyard/", *below, "tests/"])
    page = f"# x\n\n## The house\n\n```\n{tree}\n```\n"
    assert pages.drawn_folders(page, "## The house", "src/modelyard/") == {"cli", "core"}
    assert pages.drawn_folders("# nothing\n", "## The house", "src/modelyard/") == set()
