"""The page: escaped, self-contained, accessible, and with the right cell marked as best."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.reports.page import (
    MISSING,
    Column,
    Fact,
    Figure,
    Page,
    Section,
    Table,
    Value,
    cells_of,
    render,
    shown,
)

VOID = {"meta", "link", "br"}


class Outline(HTMLParser):
    """Tags with their attributes and the text, failing on a tag that is not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def table(
    *rows: tuple[Value, ...], best: str | None = "low", heat: bool = False, **more: frozenset[int]
) -> Table:
    columns = (Column(title="name"), Column(title="error", best=best, heat=heat, hint="lower is better"))
    return Table(caption="errors", columns=columns, rows=rows, **more)


def page(*sections: Section) -> Page:
    return Page(
        title="Departures & more",
        subtitle="a report",
        facts=(Fact(value="2.5", label="error"),),
        sections=sections,
        footer="the end",
    )


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    figure = Figure(svg="<svg viewBox='0 0 1 1'></svg>", alt="a point", caption="one point")
    section = Section(title="Result", text=("one", "two"), figures=(figure,), tables=(table(("a", 1.0)),))

    html = render(page(section, Section(title="Method", terms=(("MAE", "mean absolute error"),))))

    outline = Outline(html)
    assert not re.search(r"https?:|@import|url\(", html)
    assert [link.get("href") for link in outline.all("link")] == ["data:,"]
    assert not any("src" in attributes for _, attributes in outline.tags)
    assert html.startswith("<!doctype html>") and html.endswith("</html>\n")


def test_all_text_is_escaped_wherever_it_stands() -> None:
    evil = '<script>alert("1")</script>'
    section = Section(
        title=evil,
        text=(evil,),
        figures=(Figure(svg="<svg></svg>", alt=evil, caption=evil),),
        tables=(
            Table(
                caption=evil,
                columns=(Column(title=evil, hint=evil, unit=evil),),
                rows=((evil,), (1,)),
                note=evil,
            ),
        ),
        terms=((evil, evil),),
    )

    html = render(
        Page(
            title=evil, subtitle=evil, facts=(Fact(value=evil, label=evil),), sections=(section,), footer=evil
        )
    )

    assert html.count("<script") == 1 and "alert(&#34;1&#34;)" in html
    Outline(html)


def test_the_navigation_leads_to_every_section() -> None:
    outline = Outline(
        render(page(Section(title="By lead"), Section(title="Größe & Form"), Section(title="???")))
    )

    anchors = [link["href"] for link in outline.all("a") if link["href"] != "#content"]
    assert anchors == ["#by-lead", "#gr-e-form", "#section"]
    assert [f"#{section['id']}" for section in outline.all("section")] == anchors
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {attributes["aria-labelledby"] for attributes in outline.all("section")}
    assert labelled <= set(ids)


def test_a_figure_is_told_to_those_who_cannot_see_it() -> None:
    figure = Figure(svg="<svg></svg>", alt='the policy is "below" & beyond')

    outline = Outline(render(page(Section(title="Result", figures=(figure,)))))

    drawings = [attributes for attributes in outline.all("div") if attributes.get("role") == "img"]
    assert [drawing["aria-label"] for drawing in drawings] == ['the policy is "below" & beyond']


def test_numbers_stand_right_and_sort_by_value() -> None:
    rows = (("a", 1234.5), ("b", None), ("c", -2.0))

    outline = Outline(render(page(Section(title="Result", tables=(table(*rows),)))))

    assert [head.get("class") for head in outline.all("th")] == [None, "number"]
    numbers = [cell for cell in outline.all("td") if "number" in (cell.get("class") or "")]
    assert [cell.get("data-sort") for cell in numbers] == ["1234.5", None, "-2.0"]
    assert [text for text in outline.texts if text in {"1,234.50", MISSING, "\u22122.00"}] == [
        "1,234.50",
        MISSING,
        "\u22122.00",
    ]


def test_the_best_is_marked_among_those_that_compete() -> None:
    rows = (("a", 3.0), ("hindsight", 1.0), ("b", 2.0), ("c", float("nan")), ("d", 2), ("same as b", 2.0))

    def marked(best: str | None) -> list[Value]:
        cells = cells_of(table(*rows, best=best, unranked=frozenset({1, 5})))
        return [row[0].text for row in cells if row[1].best]

    assert marked("low") == ["b", "d"] and marked("high") == ["a"] and marked(None) == []
    assert "best" in render(page(Section(title="R", tables=(table(*rows),))))


def test_a_column_of_words_or_of_nothing_has_no_best() -> None:
    assert not any(cell.best for row in cells_of(table(("a", "x"), ("b", None))) for cell in row)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_heat_rises_with_the_number_and_spans_the_scale(values: list[float]) -> None:
    cells = cells_of(table(*(("m", value) for value in values), heat=True))
    heats = [row[1].heat for row in cells]

    if min(values) == max(values):
        assert set(heats) == {None}
        return
    ordered = [heat for _, heat in sorted(zip(values, heats, strict=True), key=lambda pair: pair[0])]
    assert ordered == sorted(ordered, key=lambda heat: heat if heat is not None else -1)
    assert ordered[0] == 0 and all(heat is not None and 0 <= heat <= 100 for heat in ordered)


def test_one_hopeless_value_does_not_take_the_heat_of_the_others() -> None:
    values = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 1e9]

    heats = [row[1].heat for row in cells_of(table(*(("m", value) for value in values), heat=True))]

    assert heats[-1] == 100 and heats[6] is not None and heats[6] > 30


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, MISSING),
        (float("inf"), MISSING),
        (True, "yes"),
        (12345, "12,345 s"),
        (0.123456, "0.123 s"),
        (-0.5, "\u22120.500 s"),
        ("a-b", "a-b"),
    ],
)
def test_a_value_is_written_as_its_column_says(value: Value, text: str) -> None:
    assert shown(value, Column(title="t", decimals=3, unit=" s")) == text


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        cells_of(table(("a", 1.0, 2.0)))


def test_strong_rows_are_set_off() -> None:
    strong = table(("a", 1.0), ("b", 2.0), strong=frozenset({1}))

    classes = [
        row.get("class") for row in Outline(render(page(Section(title="R", tables=(strong,))))).all("tr")
    ]

    assert classes == [None, None, "strong"]
