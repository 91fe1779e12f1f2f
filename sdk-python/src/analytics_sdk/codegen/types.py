"""Turn schemas into Python's types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from urllib.parse import unquote

from analytics_sdk._limits import MAX_DEPTH
from analytics_sdk.codegen.declarations import ANY, NEVER, NONE, Declarations, Type, union
from analytics_sdk.codegen.names import literal, pascal
from analytics_sdk.codegen.schema import (
    ANNOTATIONS,
    DEFINITIONS,
    CodegenError,
    Shape,
    merged,
    shape_of,
    target_of,
)

FORMATS = {"date-time": "datetime", "date": "date", "uuid": "UUID"}
PLAIN = {"integer": "int", "number": "float", "boolean": "bool", "null": "None"}
MAX_LITERAL = 2**63 - 1

Key: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a schema stands."""

    root: Any
    """The document that its references are for."""
    where: str
    """The way to it, for messages."""
    name: str
    """What it is called if it needs a name."""
    level: int = 1
    followed: tuple[str, ...] = ()
    """The references that led here, from a schema of the same value."""
    outside: frozenset[str] = frozenset()
    """The references that led to the values around it."""

    def inside(self, shape: Shape, name: str, step: str) -> Place:
        """Return the place of what is in the value that *shape* is of."""
        return replace(
            self,
            where=self.where + step,
            name=name,
            level=self.level + 1,
            followed=(),
            outside=self.outside | set(shape.followed),
        )


class Types:
    """The types of one module; those that need a name are declared in `declarations`."""

    def __init__(self, declarations: Declarations) -> None:
        self.declarations = declarations
        # By the identity of a definition, which all events of a document share.
        self._classes: dict[Key, Type] = {}
        self._following: set[Key] = set()
        self._declared: dict[tuple[str, ...], str] = {}

    def of(self, schema: Any, at: Place) -> Type:
        """Return the type of *schema*."""
        if at.level > MAX_DEPTH:
            raise CodegenError(at.where, f"an event nests at most {MAX_DEPTH} levels.")
        shape = shape_of(schema, at.root, at.where, at.followed)
        reference = reference_of(schema)
        return self._of_shape(shape, at) if reference is None else self._of_reference(reference, at)

    def _of_reference(self, reference: str, at: Place) -> Type:
        target = target_of(reference, at.root, at.where)
        # What it can refer to in turn is a part of what it is.
        key = (id(target), *(id(at.root.get(definitions)) for definitions in DEFINITIONS))
        if key in self._classes:
            return self._classes[key]
        if key in self._following:
            # A list of itself, say; only a class can name itself.
            return ANY
        self._following.add(key)
        name = pascal(unquote(reference).rpartition("/")[2].strip("#") or "Event")
        at = replace(at, name=name, followed=(*at.followed, reference))
        if reference_of(target) is not None:
            found = self.of(target, at)
        else:
            found = self._of_shape(shape_of(target, at.root, at.where, at.followed), at, key)
        self._following.discard(key)
        return found

    def _of_shape(self, shape: Shape, at: Place, key: Key | None = None) -> Type:
        if key is None and at.outside & set(shape.followed):
            # It has itself inside, with changes, so that no class could be found again.
            return ANY
        if shape.choices:
            return self._of_choice(shape, replace(at, followed=shape.followed))
        if shape.values is not None:
            return union(_of_value(value) for value in shape.values if _is_of(value, shape.types))
        kinds = _implied(shape) if shape.types is None else shape.types
        if kinds is None:
            return ANY
        return union(self._of_kind(kind, shape, at, key) for kind in kinds)

    def _of_choice(self, shape: Shape, at: Place) -> Type:
        """Return the union of what *shape* is with each schema of its first choice."""
        base = replace(shape, choices=())
        types = []
        for schema in shape.choices[0]:
            if shape.is_bare and _speaks_for_itself(schema):
                types.append(self.of(schema, at))
            else:
                both = merged(base, shape_of(schema, at.root, at.where, at.followed))
                types.append(self._of_shape(both, at))
        return union(types)

    def _of_kind(self, kind: str, shape: Shape, at: Place, key: Key | None) -> Type:
        if kind == "string":
            return Type(FORMATS.get(str(shape.format), "str"))
        if kind == "array":
            items = True if shape.items is None else shape.items
            schemas = [*shape.prefix, *([] if items is False and shape.prefix else [items])]
            inner = at.inside(shape, f"{at.name}Item", "[]")
            return Type("Sequence", (_or_any(union(self.of(each, inner) for each in schemas)),))
        if kind == "object":
            if shape.properties or shape.required:
                return self._class(shape, at, key)
            of_others = True if shape.additional in (None, False) else shape.additional
            found = self.of(of_others, at.inside(shape, f"{at.name}Value", ".*"))
            return Type("Mapping", (Type("str"), _or_any(found)))
        return Type(PLAIN[kind])

    def _class(self, shape: Shape, at: Place, key: Key | None) -> Type:
        """Declare a TypedDict, or find the same, and return its name."""
        names, pending = self.declarations.names, self.declarations.pending
        name = names.give(at.name)
        if key is not None:
            self._classes[key] = Type(name)
        pending.add(name)
        parts: dict[bool, dict[str, Type]] = {True: {}, False: {}}
        for member in dict.fromkeys((*shape.properties, *shape.required)):
            inner = at.inside(shape, pascal(at.name, member), f".{member}")
            found = self.of(shape.properties.get(member, True), inner)
            if found != NEVER:
                parts[member in shape.required][member] = found
            elif member in shape.required:
                raise CodegenError(inner.where, "is required, and no value is allowed for it.")
        content = (at.name, shape.description, *(repr(part.items()) for part in parts.values()))
        if content in self._declared:
            names.take_back(name)
            pending.discard(name)
            name = self._declared[content]
            if key is not None:
                self._classes[key] = Type(name)
            return Type(name)
        self._declared[content] = name
        self.declarations.declare(name, parts[True], parts[False], shape.description)
        pending.discard(name)
        return Type(name)


def reference_of(schema: Any) -> str | None:
    """Return the `$ref` of *schema* if it says nothing more about the value."""
    if not isinstance(schema, Mapping):
        return None
    said = schema.keys() - ANNOTATIONS - set(DEFINITIONS)
    if said == {"$ref"}:
        return str(schema["$ref"])
    # As it had to be written when nothing could stand beside a reference.
    is_wrapped = said == {"allOf"} and len(schema["allOf"]) == 1
    return reference_of(schema["allOf"][0]) if is_wrapped else None


def _speaks_for_itself(schema: Any) -> bool:
    own = ("$ref", "type", "const", "enum", "anyOf", "oneOf")
    has_own = isinstance(schema, Mapping) and any(key in schema for key in own)
    return has_own or reference_of(schema) is not None


def _implied(shape: Shape) -> tuple[str, ...] | None:
    """Return the types that the keywords speak of, where `type` was left out."""
    if shape.properties or shape.required:
        return ("object",)
    if shape.items is not None or shape.prefix:
        return ("array",)
    return ("string",) if shape.format in FORMATS else None


def _or_any(found: Type) -> Type:
    return ANY if found == NEVER else found


def _of_value(value: Any) -> Type:
    """Return the type of one value of an `enum`."""
    if value is None:
        return NONE
    if isinstance(value, str):
        return Type("Literal", (Type(literal(value)),))
    # Type checkers do not read integers of more than 64 bits.
    if isinstance(value, int) and abs(value) <= MAX_LITERAL:
        return Type("Literal", (Type(repr(value)),))
    if isinstance(value, (int, float)):
        return Type(type(value).__name__)
    inner = (Type("str"), ANY) if isinstance(value, Mapping) else (ANY,)
    return Type("Mapping" if isinstance(value, Mapping) else "Sequence", inner)


def _is_of(value: Any, kinds: Sequence[str] | None) -> bool:
    """Tell whether *value* is of one of the JSON types *kinds*."""
    if kinds is None:
        return True
    if isinstance(value, bool) or value is None:
        return ("null" if value is None else "boolean") in kinds
    if isinstance(value, (int, float)):
        is_whole = isinstance(value, int) or value.is_integer()
        return "number" in kinds or ("integer" in kinds and is_whole)
    if isinstance(value, str):
        return "string" in kinds
    return ("array" if isinstance(value, list) else "object") in kinds
