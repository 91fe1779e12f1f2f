"""Make Python text of any text: identifiers, string literals, docstrings. Pure.

Names and descriptions come from files that others write. Whatever they hold, what comes out here
is one identifier, or text inside quotes.
"""

from __future__ import annotations

import keyword
import re
import textwrap
import unicodedata
from collections.abc import Collection, Iterable

MAX_NAME_CHARS = 60
LINE = 88

SURROGATE = re.compile("[\ud800-\udfff]")
TOUCHING_QUOTE = re.compile(r'"(?=")|^"|"$')
BLANK_LINE = re.compile(r"\n\s*\n")


def snake(name: str, kind: str) -> str:
    """
    Return *name* as functions and arguments are called: `cartValue` becomes `cart_value`.

    *kind* is for those of which nothing is left, or that begin with a digit.
    """
    return _identifier((word.lower() for word in _words(name)), "_", kind)


def pascal(*names: str) -> str:
    """Return *names*, one after the other, as classes are called."""
    words = [word for name in names for word in _words(name)]
    return _identifier((word[0].upper() + word[1:] for word in words), "", "Type")


def _words(name: str) -> list[str]:
    """Split at what can't be in an identifier, at underscores and where camel case has a hump."""
    words, word = [], ""
    # As Python itself reads identifiers, lest two that look different are one to it.
    text = unicodedata.normalize("NFKC", name)
    for before, char, after in zip(" " + text, text, text[1:] + " ", strict=False):
        is_hump = char.isupper() and (not before.isupper() or after.islower())
        if word and (is_hump or not _fits(char)):
            words.append(word)
            word = ""
        if _fits(char):
            word += char
    return [*words, word] if word else words


def _fits(char: str) -> bool:
    return char != "_" and f"a{char}".isidentifier()


def _identifier(words: Iterable[str], joint: str, kind: str) -> str:
    name = ""
    for word in words:
        longer = f"{name}{joint}{word}" if name else word
        if name and len(longer) > MAX_NAME_CHARS:
            break
        name = longer[:MAX_NAME_CHARS]
    # A change of case can break apart what was one character.
    name = unicodedata.normalize("NFKC", name)
    name = "".join(char for char in name if f"a{char}".isidentifier())
    if not name.isidentifier():
        name = f"{kind}{joint}{name}" if name else kind
    return unicodedata.normalize("NFKC", name)


class Names:
    """Gives every thing in one namespace a name of its own."""

    def __init__(self, reserved: Collection[str]) -> None:
        self._reserved = frozenset(reserved)
        self._given: set[str] = set()

    def give(self, name: str) -> str:
        """Return *name*; with an underscore if it is reserved, with a number if it is given."""
        if keyword.iskeyword(name) or name in self._reserved:
            name += "_"
        unique, number = name, 1
        while unique in self._given:
            number += 1
            unique = f"{name.rstrip('_')}{'_' if name.islower() else ''}{number}"
        self._given.add(unique)
        return unique

    def take_back(self, name: str) -> None:
        """Let *name* be given again."""
        self._given.discard(name)

    def give_all(self, wishes: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Give names for pairs of a thing and its wish; who is called so already comes first."""
        wishes = list(wishes)
        exact = {thing: self.give(wish) for thing, wish in wishes if thing == wish}
        return {thing: exact.get(thing) or self.give(wish) for thing, wish in wishes}


def literal(text: str) -> str:
    """Return *text* as a string literal, in the quotes that need fewer escapes."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + _escaped(text).replace(quote, f"\\{quote}") + quote


def _escaped(text: str) -> str:
    """Escape what would not be itself between quotes, or can't be seen, such as bidi controls."""
    return "".join(
        char
        if char.isprintable() and char != "\\"
        else "\\\\"
        if char == "\\"
        else char.encode("unicode_escape").decode()
        for char in text
    )


def comment(text: str) -> str:
    """Return *text* in one line that can't end before its end."""
    return _escaped(text)


def columns(text: str) -> int:
    """Return how many columns *text* takes, at the most: letters of East Asia take two."""
    return len(text) + sum(unicodedata.east_asian_width(char) in "FW" for char in text)


def stable(line: str) -> str:
    """Return the statement *line* so that a formatter leaves it alone, however long it is."""
    # How it would be split depends on the formatter's own length of line.
    return line if columns(line) <= LINE else f"{line}  # fmt: skip"


def docstring(*texts: str, items: Iterable[str] = (), indent: str) -> list[str]:
    """
    Return the lines of a docstring, wrapped, or none if there is nothing to say.

    *texts* with a blank line between, then *items* without.
    """
    width = LINE - len(indent) - 2 * len('"""')
    paragraphs = [part for text in texts for part in BLANK_LINE.split(text) if part.strip()]
    blocks = [_wrapped(paragraph, width) for paragraph in paragraphs]
    blocks.append([line for item in items for line in _wrapped(item, width)])
    lines = [line for block in blocks if block for line in ("", *block)][1:]
    if len(lines) < 2:
        return [f'{indent}"""{line}"""' for line in lines]
    text = [f'{indent}"""{lines[0]}', *(f"{indent}{line}" if line else "" for line in lines[1:])]
    return [*text, f'{indent}"""']


def _wrapped(text: str, width: int) -> list[str]:
    # The surrogates are no text; a class can't have them in its docstring.
    text = SURROGATE.sub("\ufffd", " ".join(text.split()))
    lines = [_quoted(line) for line in textwrap.wrap(text, width, break_on_hyphens=False)]
    if len(lines) == 1 and columns(lines[0]) > width:
        # So much was escaped that it may not stand in one line any more.
        lines = [_quoted(line) for line in textwrap.wrap(text, len(text) // 2 + 1)]
    return lines


def _quoted(line: str) -> str:
    """Escape *line* for between three quotes, and the quotes in it that could be some of them."""
    return TOUCHING_QUOTE.sub(r'\\"', _escaped(line))
