"""Command templates: a value is never syntax, wherever it stands."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelyard.core.faults import Faults
from modelyard.jobs.command import check_command, fill, placeholders, render_argv, render_shell, shell_syntax

# Whatever a file name or a setting may hold; no NUL, which no argument can carry.
awkward = st.text(
    st.sampled_from(list(" \t\n'\"\\$`;&|<>(){}[]*?!#~=%^-,:@/ab0é"))
    | st.characters(exclude_categories=["Cs"]),
    max_size=12,
).filter(lambda text: "\0" not in text)
NASTY = [
    "a b",
    "$(id)",
    "`id`",
    ";id;",
    "'",
    '"',
    "\\",
    "\n",
    "{x}",
    "${HOME}",
    "*",
    "~",
    "",
    "-n",
    "a'b\"c\\'d",
]


def faults_of(template: str, *, shell: bool = False, **known: object) -> list[str]:
    faults = Faults(file="yard.yaml")
    check_command(template, key="train", shell=shell, known=known, faults=faults)
    return [fault.problem for fault in faults.found]


# -- argv ----------------------------------------------------------------------------------------------


@given(awkward)
@example("a b; rm -rf {x} $(id) 'q' \"d\"\n")
def test_a_value_stays_one_word_of_the_argv(value):
    argv = render_argv("python run.py --data {x} --out=dir/{x}.csv '{x} and {x}'", {"x": value})
    assert argv == ("python", "run.py", "--data", value, f"--out=dir/{value}.csv", f"{value} and {value}")


@given(st.lists(awkward, min_size=1, max_size=4))
def test_words_without_placeholders_are_split_as_a_shell_would(words):
    assert render_argv(shlex.join(words), {}) == tuple(words)


@given(st.lists(st.sampled_from(["{abc}", "{", "}", "abc", "{}", "{xyz}", "{ abc }", " ", "'"])), awkward)
def test_only_known_identifiers_in_braces_are_replaced(pieces, value):
    text = "".join(pieces)
    assert fill(text, {"abc": value}) == value.join(text.split("{abc}"))
    assert fill(text, {}) == text


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{a} {b_1} {_c} {a}", ["a", "b_1", "_c", "a"]),
        ("{} { a } {a.b} {a!r} {a:>3} {1a} {{", []),
        ('{"lr": {lr}}', ["lr"]),
        ("${HOME} {home}", ["home"]),
        ("{seed.__class__}", []),
    ],
)
def test_what_is_a_placeholder(template, names):
    assert placeholders(template) == names


def test_values_are_not_looked_at_again():
    assert fill("{a}{b}", {"a": "{b}", "b": "{a}"}) == "{b}{a}"


def test_values_are_written_as_text():
    assert render_argv("run {i} {f} {b}", {"i": 24, "f": 0.7, "b": True}) == ("run", "24", "0.7", "True")


# -- sh ------------------------------------------------------------------------------------------------


def words_of(template: str, **values: object) -> list[str]:
    """The words that /bin/sh makes of a rendered `printf` template."""
    (line,) = render_shell(template, values)
    printed = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True).stdout
    return printed.decode().split("\0")[:-1]


EVERYWHERE = (
    'printf \'%s\\0\' {x} "{x}" \'{x}\' a{x}b "a{x}b" \'a{x}b\' "it\'s {x}" \'say "{x}"\' \\\'{x}\\" "\\"{x}"'
)


def expected(x: str) -> list[str]:
    return [x, x, x, f"a{x}b", f"a{x}b", f"a{x}b", f"it's {x}", f'say "{x}"', f"'{x}\"", f'"{x}']


@settings(max_examples=60)
@given(awkward)
def test_the_shell_passes_every_value_through_unchanged(value):
    assert words_of(EVERYWHERE, x=value) == expected(value)


@pytest.mark.parametrize("value", NASTY)
def test_nasty_values_too(value):
    assert words_of(EVERYWHERE, x=value) == expected(value)


@settings(max_examples=25)
@given(awkward)
def test_values_inside_substitutions_are_quoted_for_where_they_stand(value):
    """`$(` begins anew inside double quotes; its closing parenthesis goes back to them."""
    template = (
        "printf '%s\\0' \"$(printf '%s.' {x})\" \"$(printf '%s.' \"{x}\")\" \"$(printf '%s.' '{x}')\" "
        '"$(printf \'%s.\' "$(printf \'%s.\' {x})")" "$(true) {x}"'
    )
    # A substitution itself drops newlines at the end; the dot keeps them.
    assert words_of(template, x=value) == [f"{value}."] * 3 + [f"{value}..", f" {value}"]


def test_the_shell_still_works_around_the_values():
    assert words_of("for w in {a} {b}; do printf '%s\\0' \"$w\"; done | cat", a="1 2", b="3") == ["1 2", "3"]


def test_an_escaped_brace_is_no_placeholder():
    """Else the backslash would eat the quote and let the value out."""
    assert words_of("printf '%s\\0' \\{x} \"\\{x}\"", x="a; echo out") == ["{x}", "\\{x}"]


@pytest.mark.parametrize(
    "template",
    [
        "cat <<EOF\n{x}\nEOF",
        "echo `echo {x}`",
        "echo $'{x}'",
        "echo $(( {x} + 1 ))",
        "echo ${HOME:-{x}}",
        "true # don't\necho {x}",
        'case a in a) echo "$(echo {x})";; esac',
        'eval "echo {x}"',
        'sh -c "echo {x}"',
    ],
)
def test_where_quotes_cannot_be_followed_only_plain_values_are_let_in(template):
    for plain in ("24", "data/train.csv", "--lr=0.1", 0.7):
        assert faults_of(template, shell=True, x=plain) == []
    for risky in ("a b", "$(touch pwned)", "x;id", "it's", "a\n"):
        (problem,) = faults_of(template, shell=True, x=risky)
        assert "could take for syntax" in problem


def test_an_inner_shell_is_no_safer_without_an_outer_one():
    assert faults_of("bash -lc 'python run.py --data {x}'", x="train.csv") == []
    (problem,) = faults_of("bash -lc 'python run.py --data {x}'", x="a; id")
    assert "'a; id', which bash -lc could take for syntax" in problem


# -- checks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("a | b", ["|"]),
        ("a && b || c", ["&&", "||"]),
        ("a > b 2>> c < d", [">", ">>", "<"]),
        ("a; b &", [";", "&"]),
        ("echo $HOME ${HOME} $1 $?", ["$HOME", "${HOME}", "$1", "$?"]),
        ("echo `id` $(id)", ["`", "`", "$("]),
        ('echo "$HOME `id` $(id)"', ["$HOME", "`", "`", "$("]),
        ("echo '$HOME `id` | ; &'", []),
        ('echo "a | b; c & d > e"', []),
        ("echo \\$HOME \\| \\; \\`", []),
        ('echo "\\$HOME"', []),
        ("price 5$ {x}", []),
    ],
)
def test_what_only_a_shell_would_understand(template, found):
    assert shell_syntax(template) == found


@given(st.lists(awkward, min_size=1, max_size=4))
def test_what_is_quoted_needs_no_shell(words):
    assert shell_syntax(shlex.join(words)) == []


def test_shell_syntax_is_refused_without_a_shell_and_allowed_with_one():
    assert faults_of("cd x && run | tee $LOG") == [
        f"holds the shell's {word}, but commands run without a shell" for word in ("&&", "|", "$LOG")
    ]
    assert faults_of("cd x && run | tee $LOG", shell=True) == []


def test_unknown_placeholders_are_named_once_with_the_nearest_known():
    faults = Faults(file="f")
    known = {"dataset": "x", "horizon": 1}
    check_command("run {datset} {datset} {zzz}", key="train", shell=False, known=known, faults=faults)
    assert [(f.problem, f.remedy) for f in faults.found] == [
        ("unknown placeholder {datset}", "did you mean {dataset}?"),
        ("unknown placeholder {zzz}", "known: dataset, horizon"),
    ]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("run 'open", "cannot be split into words (No closing quotation)"),
        ("  ", "is empty"),
        ("", "is empty"),
    ],
)
def test_what_cannot_be_split_is_a_fault(template, problem):
    assert faults_of(template) == [problem]


@given(awkward, st.booleans())
def test_any_template_can_be_checked(template, shell):
    faults_of(template, shell=shell, x="a b")
