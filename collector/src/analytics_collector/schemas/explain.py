"""Tell what is wrong with an event that its schema refuses: all that is missing or mistyped.

Whether it is refused, the compiled schema alone decides. This says why, and cannot be made to take
long: it goes through the value beside the schema, looks at no more than so many parts, and asks
compiled pieces of the schema, which never list or copy what they saw. No value is repeated in what
it says; names are, since they are what has to be corrected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from analytics_collector.model import Violation
from analytics_collector.schemas.compiled import Validator, compiled, compiled_piece
from analytics_collector.schemas.cost import target_of

MAX_STEPS: Final = 5_000
_MAX_TEXT_CHARS: Final = 200
_MAX_LEVELS: Final = 64
_MAX_WRITTEN: Final = 10
# Names that clients made up are only reported if they look like names.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$. -]{0,63}")

# What each word says to people; {} is what the schema has there.
_SENTENCES: Final = {
    "type": "must be of type {}",
    "enum": "must be one of {}",
    "const": "must be {}",
    "format": "must have the format {}",
    "pattern": "must match the pattern {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be greater than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "uniqueItems": "must have no item twice",
    "minProperties": "must have at least {} members",
    "maxProperties": "must have at most {} members",
    "propertyNames": "has a member whose name is not allowed",
    "patternProperties": "has a member that its pattern does not allow",
    "dependentRequired": "lacks a member that another one needs",
    "dependentSchemas": "does not fit the schema that one of its members asks for",
    "dependencies": "lacks what one of its members needs",
    "anyOf": "fits none of the alternatives",
    "oneOf": "must fit exactly one of the alternatives",
    "not": "must not fit the schema under `not`",
    "if": "does not fit the schema of its case",
    "contains": "has too few or too many items of the kind that it must contain",
}
_UNEVALUATED: Final = {
    "unevaluatedProperties": "has members that are not in the schema",
    "unevaluatedItems": "has items that are not in the schema",
}
# Words that mean something only together.
_TOGETHER: Final = {
    "if": ("then", "else"),
    "contains": ("minContains", "maxContains"),
}


class _At(NamedTuple):
    path: str
    """Of the value, in the event."""
    place: str
    """The same as the schema knows it: members of a name that it does not know are `*`."""
    level: int = 0

    def member(self, name: str, *, is_named: bool) -> _At:
        step = name if is_named else "*"
        return _At(f"{self.path}.{name}"[:_MAX_TEXT_CHARS], f"{self.place}.{step}", self.level + 1)


class Explainer:
    """Explains for one schema, and keeps the compiled pieces that it asks."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._pieces: dict[tuple[int, str], Validator] = {}

    def explain(self, value: Any, part: str, limit: int) -> list[Violation]:
        """Return up to *limit* things that are wrong with *value*, the member *part* of the event.

        At least one, since this is asked about a value that the schema refuses.
        """
        found = list(islice(_Search(self).violations(self._schema, value, _At(part, part)), limit))
        return found or [Violation(part, "does not fit its schema", "schema", part)]

    def piece(self, node: dict[str, Any], word: str) -> Validator:
        """Return the compiled keyword *word* of *node*, with those that belong to it."""
        key = (id(node), word)
        if key not in self._pieces:
            words = (word, *_TOGETHER.get(word, ()))
            if word in _UNEVALUATED:
                words = tuple(node)
            said = {each: node[each] for each in words if each in node}
            self._pieces[key] = compiled_piece(said, self._schema)
        return self._pieces[key]

    def target(self, reference: str) -> Any:
        """Return the part of the schema that *reference* points at."""
        return target_of(self._schema, reference, "schema")


class _Search:
    """One walk through a value, with so many steps."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer
        self._steps = MAX_STEPS

    def violations(self, node: Any, value: Any, at: _At) -> Iterator[Violation]:
        """Yield what *node* has against *value*."""
        self._steps -= 1
        if self._steps < 0 or at.level > _MAX_LEVELS or node is True:
            return
        if node is False:
            yield Violation(at.path, "must not be there", "false", at.place)
            return
        is_wrong = False
        for found in self._told(node, value, at):
            is_wrong = True
            yield found
        # What was looked at depends on all the rest: only where that is right can it be told.
        if not is_wrong:
            yield from self._words(_UNEVALUATED, node, value, at)

    def _told(self, node: dict[str, Any], value: Any, at: _At) -> Iterator[Violation]:
        yield from self._words(_SENTENCES, node, value, at)
        if "$ref" in node:
            yield from self.violations(self._explainer.target(node["$ref"]), value, at)
        for part in node.get("allOf", ()):
            yield from self.violations(part, value, at)
        if isinstance(value, dict):
            yield from self._members(node, value, at)
        elif isinstance(value, list):
            yield from self._items(node, value, at)

    def _words(
        self, sentences: Mapping[str, str], node: dict[str, Any], value: Any, at: _At
    ) -> Iterator[Violation]:
        for word, sentence in sentences.items():
            if word in node:
                self._steps -= 1
                if self._steps < 0:
                    return
                if not self._explainer.piece(node, word).is_valid(value):
                    text = sentence.format(_written(node[word]))
                    yield Violation(at.path, text[:_MAX_TEXT_CHARS], word, at.place)

    def _members(self, node: dict[str, Any], value: dict[str, Any], at: _At) -> Iterator[Violation]:
        for name in node.get("required", ()):
            if name not in value:
                member = at.member(name, is_named=True)
                yield Violation(member.path, "is missing", "required", member.place)
        named = node.get("properties", {})
        for name, sub in named.items():
            if name in value:
                yield from self.violations(sub, value[name], at.member(name, is_named=True))
        others = node.get("additionalProperties", True)
        if others is True:
            return
        if node.get("patternProperties"):
            # Which members are meant, the pattern engine alone can tell.
            yield from self._rest(node, value, at)
            return
        for name in value.keys() - named.keys():
            if others is False:
                member = at.member(name, is_named=_PLAIN_NAME.fullmatch(name) is not None)
                yield Violation(
                    member.path, "is not in the schema", "additionalProperties", member.place
                )
            else:
                yield from self.violations(others, value[name], at.member(name, is_named=False))

    def _rest(self, node: dict[str, Any], value: dict[str, Any], at: _At) -> Iterator[Violation]:
        words = ("properties", "patternProperties", "additionalProperties")
        said = {word: node[word] for word in words if word in node}
        said["properties"] = dict.fromkeys(said.get("properties", ()), True)
        said["patternProperties"] = dict.fromkeys(said["patternProperties"], True)
        if said["additionalProperties"] is False and not compiled(said).is_valid(value):
            yield Violation(
                at.path, "has members that are not in the schema", "additionalProperties", at.place
            )

    def _items(self, node: dict[str, Any], value: list[Any], at: _At) -> Iterator[Violation]:
        first = node.get("prefixItems", [])
        for index, item in enumerate(value):
            sub = first[index] if index < len(first) else node.get("items", True)
            if sub is True or self._steps < 0:
                return
            member = at.member(str(index), is_named=index < len(first))
            yield from self.violations(sub, item, member)


def _written(said: Any) -> str:
    """Return what a schema says under a word, for people."""
    if isinstance(said, str):
        return said
    values = said if isinstance(said, list) else [said]
    texts = [orjson.dumps(value).decode() for value in values[:_MAX_WRITTEN]]
    return ", ".join(texts) + (", ..." if len(values) > _MAX_WRITTEN else "")
