"""Types as Python writes them, and the text of those that need a name: TypedDicts, long unions."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from analytics_sdk.codegen.names import LINE, Names, columns, docstring, literal, pascal, stable

INDENT = "    "


@dataclass(frozen=True, slots=True)
class Type:
    """The expression of a type: a name or a literal, or `head[args]`, or a union of *args*."""

    head: str
    args: tuple[Type, ...] = ()

    def __str__(self) -> str:
        if self.head == "|":
            return " | ".join(map(str, self.args))
        return f"{self.head}[{', '.join(map(str, self.args))}]" if self.args else self.head

    def __or__(self, other: Type) -> Type:
        return union((self, other))

    def names(self) -> Iterator[str]:
        """Yield every name in it, and every literal."""
        yield self.head
        for arg in self.args:
            yield from arg.names()

    @property
    def members(self) -> tuple[Type, ...]:
        """What it is a union of; itself if it is none."""
        return self.args if self.head == "|" else (self,)


ANY = Type("Any")
NONE = Type("None")
NEVER = Type("|")


def union(types: Iterable[Type]) -> Type:
    """Return the union of *types*: flat, each once, literals in one, None last."""
    members = list(dict.fromkeys(member for one in types for member in one.members))
    if ANY in members:
        return ANY
    literals = [value for member in members if member.head == "Literal" for value in member.args]
    others = [member for member in members if member.head != "Literal" and member != NONE]
    if literals:
        others.append(Type("Literal", tuple(dict.fromkeys(literals))))
    if NONE in members:
        others.append(NONE)
    return others[0] if len(others) == 1 else Type("|", tuple(others))


class Declarations:
    """What a module declares; `texts` in order, `used` the names that it needs for that."""

    def __init__(self, names: Names) -> None:
        self.texts: list[str] = []
        self.used: set[str] = set()
        self.names = names
        # Those whose text is still to come, since they contain themselves.
        self.pending: set[str] = set()

    def declare(
        self,
        name: str,
        required: Mapping[str, Type],
        optional: Mapping[str, Type],
        description: str,
    ) -> None:
        """Declare a TypedDict; one with both kinds of members in two steps.

        For `Required` and `NotRequired` came with Python 3.11.
        """
        doc = docstring(description, indent=INDENT)
        base = "TypedDict"
        if required and optional:
            base = self.names.give(f"_{name}Required")
            self._declare_members(base, "TypedDict", required, [])
            required = {}
        self._declare_members(name, base, optional or required, doc, is_total=not optional)

    def _declare_members(
        self,
        name: str,
        base: str,
        members: Mapping[str, Type],
        doc: Sequence[str],
        *,
        is_total: bool = True,
    ) -> None:
        self._use("TypedDict")
        if not all(map(_can_be_attribute, members)):
            self._declare_functional(name, base, members, doc, is_total=is_total)
            return
        body = [
            stable(
                f"{INDENT}{member}: {self.fitted(found, pascal(name, member), columns(member) + 6)}"
            )
            for member, found in members.items()
        ]
        gap = [""] if doc and body else []
        head = _class_head(name, base, *([] if is_total else ["total=False"]))
        self.texts.append("\n".join([*head, *doc, *gap, *(body or [f"{INDENT}pass"])]))

    def _declare_functional(
        self,
        name: str,
        base: str,
        members: Mapping[str, Type],
        doc: Sequence[str],
        *,
        is_total: bool,
    ) -> None:
        """Declare a TypedDict whose members have names that no attribute can have."""
        has_class = bool(doc) or base != "TypedDict"
        own = self.names.give(f"_{name}Members") if has_class else name
        lines = [f"{own} = TypedDict(", f"{INDENT}{literal(own)},", f"{INDENT}{{"]
        for member, found in members.items():
            self._use(*found.names())
            lines.append(f"{INDENT * 2}{literal(member)}: {literal(str(found))},")
        lines += [f"{INDENT}}},", *([] if is_total else [f"{INDENT}total=False,"]), ")"]
        self.texts.append("\n".join(lines))
        if has_class:
            head = _class_head(name, *([] if base == "TypedDict" else [base]), own)
            self.texts.append("\n".join([*head, *(doc or [f"{INDENT}pass"])]))

    def fitted(self, found: Type, name: str, used_chars: int) -> Type:
        """Return *found*, or the name of it if its line would be too long; it counts as used."""
        if used_chars + columns(str(found)) > LINE and found.args:
            found = Type(self._alias(found, name))
        self._use(*found.names())
        return found

    def _alias(self, found: Type, wish: str) -> str:
        """Declare a name for *found*, a line for each of its parts."""
        name = self.names.give(wish)
        head = "Union" if found.head == "|" else found.head
        start = f"{name}: TypeAlias = {head}["
        used_chars = columns(start) + 1 if len(found.args) == 1 else len(INDENT) + len(",")
        parts = found.args
        if head != "Literal":
            self._use(head)
            parts = tuple(self.fitted(part, pascal(wish, "Part"), used_chars + 2) for part in parts)
        texts = [
            literal(str(part)) if self.pending & set(part.names()) else str(part) for part in parts
        ]
        self._use("TypeAlias", head)
        if len(texts) > 1:
            lines = [start, *(f"{INDENT}{text}," for text in texts), "]"]
        else:
            lines = [stable(f"{start}{texts[0]}]")]
        self.texts.append("\n".join(lines))
        return name

    def _use(self, *names: str) -> None:
        self.used.update(names)


def _class_head(name: str, *arguments: str) -> list[str]:
    line = f"class {name}({', '.join(arguments)}):"
    if columns(line) <= LINE:
        return [line]
    # With a comma at its end a formatter leaves it so, whatever its length of line.
    return [f"class {name}(", *(f"{INDENT}{argument}," for argument in arguments), "):"]


def _can_be_attribute(name: str) -> bool:
    # Python has its own mind about names that are not ASCII, and about two underscores in front.
    is_name = name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
    return is_name and not name.startswith("__")
