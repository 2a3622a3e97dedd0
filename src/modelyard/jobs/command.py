"""Command templates: split first, substituted after, so that a value can never become syntax.

Only `{identifier}` is a placeholder; every other brace stands for itself. Without `shell: true`
a command that needs a shell is refused. With it each value is quoted for the place where it
stands: bare, in double quotes or in single quotes. Where that cannot be told (a here-document, an
inner shell), only a plain word is let in.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from modelyard.core.faults import Faults

_PLACEHOLDER = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OPERATORS = ("&&", "||", ">>", "<<", "$(", "|", ">", "<", ";", "&", "`")
_VARIABLE = re.compile(r"\$(\{?[A-Za-z_][A-Za-z0-9_]*\}?|[0-9@*#?$!-])")
_QUOTING, _WORD = re.compile(r"[\\'\"]"), re.compile(r"[^ \t\r\n]+")
_TELLING = re.compile(r"[&|<>;$`]")
_BARE, _SINGLE, _DOUBLE, _LITERAL = "", "'", '"', "\\"
#: A value that means itself wherever it stands.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]*")
#: What reads its text a second time, so that quotes are not enough.
_INNER_SHELL = re.compile(r"\beval\b|\b(?:ba|da|k|z)?sh\s+-\w*c\b")
#: What changes the meaning of quotes: backquotes, here-documents, $'..', arithmetic, comments, case.
_UNFOLLOWED = re.compile(r"`|<<|\$'|\(\(|\$\{[^}]*\{|(?:^|\s)#|\bcase\b")


def placeholders(template: str) -> list[str]:
    """The names between braces, in order of appearance."""
    return _PLACEHOLDER.findall(template)


def check_command(
    template: str, *, key: str, shell: bool, known: Mapping[str, object], faults: Faults
) -> None:
    """Note every reason why the template cannot be turned into a command."""
    check_placeholders(template, key=key, known=known, faults=faults)
    _check_values(template, key=key, shell=shell, known=known, faults=faults)
    if shell:
        return
    for word in dict.fromkeys(shell_syntax(template)):
        faults.add(
            key,
            template,
            f"holds the shell's {word}, but commands run without a shell",
            "set shell: true, or quote it if it is meant literally",
        )
    try:
        words = _words(template)
    except ValueError as error:
        faults.add(key, template, f"cannot be split into words ({error})", "close the quotes")
        return
    if not words:
        faults.add(key, template, "is empty", "write the command to run")


def check_placeholders(template: str, *, key: str, known: Mapping[str, object], faults: Faults) -> None:
    """Note every placeholder of a command or a path that stands for nothing."""
    for name in dict.fromkeys(placeholders(template)):
        if name not in known:
            near = get_close_matches(name, list(known), n=1)
            advice = f"did you mean {{{near[0]}}}?" if near else f"known: {', '.join(sorted(known))}"
            faults.add(key, template, f"unknown placeholder {{{name}}}", advice)


def render_argv(template: str, values: Mapping[str, object]) -> tuple[str, ...]:
    """Split as a POSIX shell would, then put the values into the words.

    Args:
        template: A command that `check_command` accepts.
        values: What each placeholder stands for.
    """
    return tuple(fill(word, values) for word in _words(template))


def render_shell(template: str, values: Mapping[str, object]) -> tuple[str, ...]:
    """One string for `sh -c`, each value quoted for the place where it stands."""
    spans = {match.start(): match for match in _PLACEHOLDER.finditer(template)}
    pieces, skip = [], 0
    for position, character, quote in _quoted(template):
        if position in spans and quote != _LITERAL:
            match = spans[position]
            pieces.append(_quote_for(str(values[match[1]]), quote))
            skip = match.end()
        elif position >= skip:
            pieces.append(character)
    return ("".join(pieces),)


def fill(text: str, values: Mapping[str, object]) -> str:
    """Put the values into one word; names that are not known stay as they are."""
    return _PLACEHOLDER.sub(lambda m: str(values[m[1]]) if m[1] in values else m[0], text)


def shell_syntax(template: str) -> list[str]:
    """What in the template only a shell would understand: operators, variables, substitutions."""
    found: list[str] = []
    if not _TELLING.search(template):
        return found
    skip = 0
    for position, _, quote in _quoted(template):
        if position < skip or quote in (_SINGLE, _LITERAL):
            continue
        variable = _VARIABLE.match(template, position)
        if variable:
            found.append(variable[0])
            skip = variable.end()
            continue
        operator = next((o for o in _OPERATORS if template.startswith(o, position)), "")
        if operator and (quote == _BARE or operator in ("$(", "`")):
            found.append(operator)
            skip = position + len(operator)
    return found


def _words(template: str) -> list[str]:
    """The words of a POSIX command line; the slow way only where there is something to unquote."""
    if _QUOTING.search(template):
        return shlex.split(template)
    return _WORD.findall(template)


def _check_values(
    template: str, *, key: str, shell: bool, known: Mapping[str, object], faults: Faults
) -> None:
    """Note values that could become syntax because the quotes around them cannot be followed."""
    risk = _INNER_SHELL.search(template) or (_UNFOLLOWED.search(template) if shell else None)
    if risk is None:
        return
    for name in dict.fromkeys(placeholders(template)):
        if name in known and not _PLAIN.fullmatch(str(known[name])):
            faults.add(
                key,
                template,
                f"{{{name}}} is {str(known[name])!r}, which {risk[0].strip()} could take for syntax",
                'hand it over as a variable (env) and write "$NAME", or use a plain value',
            )


def _quoted(text: str) -> Iterator[tuple[int, str, str]]:
    """Each character, its position and the quotes it stands in; escaped ones and quotes are literal."""
    quote, position = _BARE, 0
    around: list[str] = []  # the quotes outside each open parenthesis
    while position < len(text):
        character = text[position]
        if character == "\\" and quote != _SINGLE and position + 1 < len(text):
            yield position, character, _LITERAL
            yield position + 1, text[position + 1], _LITERAL
            position += 2
            continue
        if character in (_SINGLE, _DOUBLE) and quote in (_BARE, character):
            yield position, character, _LITERAL
            quote = character if quote == _BARE else _BARE
        else:
            yield position, character, quote
            quote = _within(text, position, quote, around)
        position += 1


def _within(text: str, position: int, quote: str, around: list[str]) -> str:
    """The quotes after this character: `$(` begins anew, and its `)` goes back to those outside."""
    opens = text[position] == "(" and (quote == _BARE or text[position - 1 : position] == "$")
    if opens and quote != _SINGLE:
        around.append(quote)
        return _BARE
    if text[position] == ")" and quote == _BARE and around:
        return around.pop()
    return quote


def _quote_for(value: str, quote: str) -> str:
    if quote == _BARE:
        return shlex.quote(value)
    if quote == _SINGLE:
        return value.replace("'", "'\\''")
    return re.sub(r'([\\"$`])', r"\\\1", value)
