"""Refuse a schema that could keep the door busy: how much work one event can make of it. Pure.

A few lines can ask for 2^60 checks (references that fan out), so what counts is the schema written
out, without references. Each of its parts is checked once for an event, those below `items` and
the like once for each of thousands of values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from analytics_collector.errors import InvalidQuery

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MAX_PARTS: Final = 5_000
MAX_REPEATED_PARTS: Final = 300
MAX_PATTERNS: Final = 50
# Matching takes time that grows with the text and with the pattern, never faster (see `compiled`):
# a tenth of a second for the largest pattern and 100 KiB. So few may look at the same text.
MAX_PATTERNS_A_VALUE: Final = 4
MAX_HEIGHT: Final = 64
MAX_WHERE_CHARS: Final = 200
# It divides numbers of hundreds of digits.
_MULTIPLE_PARTS: Final = 30

# What is applied to the value itself, to named parts of it, and to any number of its parts.
_HERE_LISTS: Final = ("allOf", "anyOf", "oneOf")
_HERE: Final = ("not", "if", "then", "else")
_HERE_MAPS: Final = ("dependentSchemas", "dependencies")
_REPEATED: Final = (
    "additionalProperties",
    "unevaluatedProperties",
    "items",
    "unevaluatedItems",
    "contains",
    "propertyNames",
)
# They move what a reference means, or point to it only when an event is checked.
_REFUSED: Final = ("$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor")


class _Cost(NamedTuple):
    parts: int = 1
    repeated: int = 0
    patterns: int = 0
    """The most that look at one text."""
    height: int = 1


def measure(schema: dict[str, Any]) -> int:
    """Return how many patterns *schema* has, written out. Raises `InvalidQuery` if it is too much.

    It may refer to its own parts only, and none may contain itself.
    """
    walk = _Walk(schema)
    cost = walk.cost(schema, "schema", 1)
    if cost.parts > MAX_PARTS:
        raise InvalidQuery("schema", f"has more than {MAX_PARTS} parts when it is written out")
    if cost.repeated > MAX_REPEATED_PARTS:
        raise InvalidQuery(
            "schema",
            f"has more than {MAX_REPEATED_PARTS} parts below `items`, `additionalProperties` and "
            "the like when it is written out",
        )
    if walk.patterns > MAX_PATTERNS:
        raise InvalidQuery("schema", f"has more than {MAX_PATTERNS} patterns")
    if cost.patterns > MAX_PATTERNS_A_VALUE:
        raise InvalidQuery("schema", f"has more than {MAX_PATTERNS_A_VALUE} patterns for one value")
    return walk.patterns


class _Walk:
    """Goes through all parts of a schema that an event can reach, each once."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[int, _Cost] = {}
        self._open: set[int] = set()
        self.patterns = 0

    def cost(self, node: Any, where: str, level: int) -> _Cost:
        """Return what *node*, at *where*, costs."""
        if isinstance(node, bool):
            return _Cost()
        if not isinstance(node, dict):
            raise _fault(where, "must be a schema: an object, true or false")
        if id(node) in self._open:
            raise _fault(where, "refers to a schema that it is a part of")
        if id(node) not in self._known:
            if level > MAX_HEIGHT:
                raise _fault(where, f"is more than {MAX_HEIGHT} levels deep")
            self._open.add(id(node))
            self._known[id(node)] = self._own(node, where, level)
            self._open.discard(id(node))
        return self._known[id(node)]

    def _own(self, node: dict[str, Any], where: str, level: int) -> _Cost:
        self._check_words(node, where)
        here = [self.cost(sub, place, level + 1) for place, sub in self._here(node, where)]
        named = [self.cost(sub, place, level + 1) for place, sub in _named(node, where)]
        repeated = [self.cost(sub, place, level + 1) for place, sub in _repeated(node, where)]
        own_patterns = ("pattern" in node) + len(_map(node, "patternProperties"))
        self.patterns += own_patterns
        own = 1 + sum(isinstance(value, dict | list) for value in _list(node, "enum"))
        own += _MULTIPLE_PARTS * ("multipleOf" in node)
        every = [*here, *named, *repeated]
        height = 1 + max((cost.height for cost in every), default=0)
        if height > MAX_HEIGHT:
            raise _fault(where, f"is more than {MAX_HEIGHT} levels deep")
        return _Cost(
            own + sum(cost.parts for cost in every),
            sum(cost.repeated for cost in (*here, *named)) + sum(cost.parts for cost in repeated),
            own_patterns
            + sum(cost.patterns for cost in (*here, *repeated))
            + max((cost.patterns for cost in named), default=0),
            height,
        )

    def _check_words(self, node: dict[str, Any], where: str) -> None:
        for word in _REFUSED:
            if word in node:
                raise _fault(where, f"`{word}` is not known here; use `$ref`")
        if str(node.get("$schema", DIALECT)).rstrip("#") != DIALECT:
            raise _fault(where, f"`$schema` must be {DIALECT}")
        if "$id" in node and node is not self._root:
            raise _fault(where, "`$id` may stand at the top only")

    def _here(self, node: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
        if "$ref" in node:
            yield f"{where}.$ref", target_of(self._root, node["$ref"], where)
        for word in _HERE_LISTS:
            for index, sub in enumerate(_list(node, word)):
                yield f"{where}.{word}.{index}", sub
        for word in _HERE:
            if word in node:
                yield f"{where}.{word}", node[word]
        for word in _HERE_MAPS:
            for name, sub in _map(node, word).items():
                if not isinstance(sub, list):
                    yield f"{where}.{word}.{name}", sub


def target_of(root: dict[str, Any], reference: Any, where: str) -> Any:
    """Return what *reference* points at in the schema *root*. Raises `InvalidQuery`."""
    if not isinstance(reference, str) or not (reference + "/").startswith("#/"):
        raise _fault(where, "`$ref` must be a reference inside the schema: '#/...'")
    node: Any = root
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict) and name in node:
            node = node[name]
        else:
            raise _fault(where, "`$ref` points at nothing")
    return node


def _named(node: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for name, sub in _map(node, "properties").items():
        yield f"{where}.properties.{name}", sub
    for index, sub in enumerate(_list(node, "prefixItems")):
        yield f"{where}.prefixItems.{index}", sub


def _repeated(node: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for word in _REPEATED:
        if word in node:
            yield f"{where}.{word}", node[word]
    for name, sub in _map(node, "patternProperties").items():
        yield f"{where}.patternProperties.{name}", sub


def _fault(where: str, message: str) -> InvalidQuery:
    # The way through references may be long.
    return InvalidQuery(where if len(where) <= MAX_WHERE_CHARS else "schema", message)


# What has the wrong type here is told by the schema of schemas, when it is compiled.
def _map(node: dict[str, Any], word: str) -> dict[str, Any]:
    value = node.get(word)
    return value if isinstance(value, dict) else {}


def _list(node: dict[str, Any], word: str) -> list[Any]:
    value = node.get(word)
    return value if isinstance(value, list) else []
