"""Read JSON Schema as far as Python's types go: follow references, merge what holds at once. Pure.

Everything else a schema can say only narrows what is valid, so leaving it out keeps every valid
value possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from analytics_sdk.errors import AnalyticsError

TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
# What a schema may have beside a `$ref` that changes nothing about the values.
ANNOTATIONS = frozenset(
    {"$comment", "$id", "$schema", "title", "description", "default", "examples", "deprecated"}
)
DEFINITIONS = ("$defs", "definitions")


class CodegenError(AnalyticsError):
    """A schema can't be made into code; correct it `where` it says *what* is wrong."""

    def __init__(self, where: str, what: str) -> None:
        self.where = where
        self.what = what
        super().__init__(f"{where}: {what}")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a schema says about a value, in the words that have a type in Python."""

    types: tuple[str, ...] | None = None
    """Names of JSON types; None is any, and an empty tuple no value at all."""
    values: tuple[Any, ...] | None = None
    """The values of `enum` or `const`."""
    format: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    additional: Any = None
    """The schema of other members; None if nothing is said of them."""
    items: Any = None
    prefix: tuple[Any, ...] = ()
    choices: tuple[tuple[Any, ...], ...] = ()
    """Each `anyOf` and `oneOf`."""
    description: str = ""
    followed: tuple[str, ...] = ()
    """The references on the way to it. What a choice refers to can't be one of them."""

    @property
    def is_bare(self) -> bool:
        """Tell whether it says nothing but types and choices."""
        return replace(self, types=None, choices=(), description="", followed=()) == Shape()


def shape_of(schema: Any, root: Any, where: str, followed: tuple[str, ...] = ()) -> Shape:
    """Return what *schema* says, which stands in the document *root*, with all it refers to."""
    if schema is True:
        return Shape()
    if schema is False:
        return Shape(types=())
    if not isinstance(schema, Mapping):
        raise CodegenError(where, "a schema must be an object, true or false.")
    shape = replace(_own(schema, where), followed=followed)
    if (reference := schema.get("$ref")) is not None:
        if reference in followed:
            raise CodegenError(where, f"{reference!r} refers to itself.")
        target = target_of(reference, root, where)
        shape = merged(shape, shape_of(target, root, where, (*followed, reference)))
    for part in _list(schema, "allOf", where):
        shape = merged(shape, shape_of(part, root, where, followed))
    return shape


def target_of(reference: Any, root: Any, where: str) -> Any:
    """Return what the JSON pointer *reference* points at in the document *root*."""
    if not isinstance(reference, str) or not (reference + "/").startswith("#/"):
        raise CodegenError(where, f"{reference!r} must be a reference inside the file: '#/...'.")
    node = root
    for step in unquote(reference).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, Mapping) and key in node:
            node = node[key]
        else:
            raise CodegenError(where, f"{reference!r} points at nothing.")
    return node


def _own(schema: Mapping[str, Any], where: str) -> Shape:
    """Return what the keywords of *schema* itself say."""
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise CodegenError(where, "`properties` must be an object with a schema for each.")
    items, prefix = schema.get("items"), _list(schema, "prefixItems", where)
    if isinstance(items, list):
        # As drafts before 2020-12 said it.
        prefix = tuple(items)
        items = schema.get("additionalItems")
    choices = (_list(schema, "anyOf", where), _list(schema, "oneOf", where))
    description = schema.get("description")
    return Shape(
        types=_types(schema, where),
        values=_values(schema, where),
        format=schema.get("format"),
        properties=properties,
        required=_names(schema, "required", where),
        additional=_additional(schema),
        items=items,
        prefix=prefix,
        choices=tuple(choice for choice in choices if choice),
        description=description if isinstance(description, str) else "",
    )


def _types(schema: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
    types = schema.get("type")
    if types is None:
        return None
    names = _names({"type": [types] if isinstance(types, str) else types}, "type", where)
    if not names or not set(names) <= set(TYPES):
        raise CodegenError(where, f"`type` must be of {', '.join(TYPES)}, not {types!r}.")
    return names


def _values(schema: Mapping[str, Any], where: str) -> tuple[Any, ...] | None:
    if "const" in schema:
        return (schema["const"],)
    values = _list(schema, "enum", where)
    if "enum" in schema and not values:
        raise CodegenError(where, "`enum` must have a value.")
    return values or None


def _names(schema: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    names = _list(schema, key, where)
    if not all(isinstance(name, str) for name in names):
        raise CodegenError(where, f"`{key}` must be a list of names.")
    return tuple(dict.fromkeys(names))


def _list(schema: Mapping[str, Any], key: str, where: str) -> tuple[Any, ...]:
    parts = schema.get(key, [])
    if not isinstance(parts, list):
        raise CodegenError(where, f"`{key}` must be a list.")
    return tuple(parts)


def _additional(schema: Mapping[str, Any]) -> Any:
    if schema.get("patternProperties"):
        return True
    return schema.get("additionalProperties", schema.get("unevaluatedProperties"))


def merged(one: Shape, other: Shape) -> Shape:
    """Return what holds when both do."""
    return Shape(
        types=_common_types(one.types, other.types),
        values=_common(one.values, other.values),
        format=one.format or other.format,
        properties={
            name: _both(one.properties.get(name), other.properties.get(name))
            for name in {**one.properties, **other.properties}
        },
        required=tuple(dict.fromkeys((*one.required, *other.required))),
        additional=_both(one.additional, other.additional),
        items=_both(one.items, other.items),
        prefix=one.prefix or other.prefix,
        choices=(*one.choices, *other.choices),
        description=one.description or other.description,
        followed=tuple(dict.fromkeys((*one.followed, *other.followed))),
    )


def _both(one: Any, other: Any) -> Any:
    if one is None or other is None or one == other:
        return other if one is None else one
    if one is False or other is False:
        return False
    return {"allOf": [one, other]}


def _common_types(
    one: tuple[str, ...] | None, other: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    if one is None or other is None:
        return other if one is None else one
    # An integer is a number as well.
    return tuple(
        kind
        for kind in TYPES
        if all(kind in types or (kind == "integer" and "number" in types) for types in (one, other))
    )


def _common(one: tuple[Any, ...] | None, other: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    if one is None or other is None:
        return other if one is None else one
    return tuple(value for value in one if value in other)


def as_one_object(shape: Shape, root: Any, where: str) -> Shape:
    """Return the members that an object may have in any of the choices; required if in all."""
    base = replace(shape, choices=())
    for choice in shape.choices:
        base = _any_of(
            as_one_object(merged(base, shape_of(schema, root, where, shape.followed)), root, where)
            for schema in choice
        )
    return base


def _any_of(shapes: Iterable[Shape]) -> Shape:
    shapes = list(shapes)
    schemas: dict[str, list[Any]] = {}
    for shape in shapes:
        for name, schema in shape.properties.items():
            if schema not in schemas.setdefault(name, []):
                schemas[name].append(schema)
    additional = [shape.additional for shape in shapes]
    return replace(
        shapes[0],
        types=None
        if any(shape.types is None or "object" in shape.types for shape in shapes)
        else (),
        properties={
            name: found[0] if len(found) == 1 else {"anyOf": found}
            for name, found in schemas.items()
        },
        required=tuple(
            name for name in shapes[0].required if all(name in shape.required for shape in shapes)
        ),
        additional=additional[0] if all(found == additional[0] for found in additional) else None,
    )
