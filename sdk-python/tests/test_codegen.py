"""Typed functions from schemas: what they take, what they send, and that text stays text."""

import ast
import inspect
import json
import subprocess
import sys
import types
from datetime import datetime, timezone
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_sdk.codegen import CodegenError, check, events_of, generate, load
from analytics_sdk.codegen.documents import expanded
from analytics_sdk.codegen.names import literal, pascal, snake
from analytics_sdk.testing import RecordingClient, capture_events

DOCUMENTS = json.loads(
    (Path(__file__).parents[2] / "spec/vectors/schemas.json").read_text(encoding="utf-8")
)
EXAMPLE = Path(__file__).parents[1] / "examples/typed_events"
COMMON = ["user_id", "anonymous_id", "session_id", "timestamp", "context", "client"]
OBJECT = {"type": "object"}


def module_of(text):
    """Run the text of a generated module, and return the module."""
    module = types.ModuleType("generated")
    exec(compile(text, "generated", "exec"), vars(module))
    return module


def functions_of(text):
    """Return the names of the functions of a generated module, and the parameters of each."""
    return {
        node.name: {arg.arg: ast.unparse(arg.annotation) for arg in node.args.kwonlyargs}
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name != "_tracker"
    }


def types_of(schema, **members):
    """Return the types of the parameters for the properties of one event."""
    text = generate({"e": {**OBJECT, "additionalProperties": False, **schema, **members}}, "x.json")
    module_of(text)
    return {name: kind for name, kind in functions_of(text)["e"].items() if name not in COMMON}


def type_of(schema, **defs):
    """Return the type of a required property."""
    found = types_of({"properties": {"p": schema}, "required": ["p"], "$defs": defs})
    return found["p"]


def sent(text, function, **arguments):
    """Return the properties that a call of a generated function sends."""
    client = RecordingClient(debug=True)
    assert getattr(module_of(text), function)(client=client, **arguments) is True
    return client.recorder.events[0]["properties"]


def python(*arguments, cwd):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


# What a function sends

CHECKOUT = {
    "type": "object",
    "properties": {
        "orderId": {"type": "string", "format": "uuid"},
        "cartValue": {"type": "number"},
        "coupon": {"type": ["string", "null"]},
        "paidAt": {"type": "string", "format": "date-time"},
    },
    "required": ["orderId"],
    "additionalProperties": False,
}
ORDER = UUID("0197b0c8-0000-7000-8000-000000000001")


def test_a_call_sends_the_properties_under_their_names_on_the_wire():
    """Arguments are Python's, properties are the schema's."""
    text = generate({"checkout_completed": CHECKOUT}, "events.json")
    paid_at = datetime(2026, 11, 20, 10, 0, tzinfo=timezone.utc)

    assert sent(
        text, "checkout_completed",
        order_id=ORDER, cart_value=9.5, coupon="X", paid_at=paid_at,
    ) == {
        "orderId": str(ORDER), "cartValue": 9.5, "coupon": "X", "paidAt": "2026-11-20T10:00:00Z",
    }  # fmt: skip


def test_what_is_not_given_is_not_sent():
    """And None is null only where the schema allows null, else it is not given either."""
    text = generate({"e": CHECKOUT}, "events.json")

    assert sent(text, "e", order_id=ORDER) == {"orderId": str(ORDER)}
    assert sent(text, "e", order_id=ORDER, cart_value=None) == {"orderId": str(ORDER)}
    assert sent(text, "e", order_id=ORDER, coupon=None) == {"orderId": str(ORDER), "coupon": None}


def test_the_event_has_its_own_name_and_the_ids_of_the_call():
    """Everything else that `track()` takes goes through."""
    client = RecordingClient()
    function = module_of(generate({"Order Placed": {}}, "x")).order_placed
    at = datetime(2026, 11, 20, 10, 0, tzinfo=timezone.utc)
    ids = {"user_id": 1, "anonymous_id": "a", "session_id": "s", "timestamp": at}
    function(**ids, context={"ip": "::1"}, client=client)

    event = client.recorder.events[0]
    assert event["type"] == "track"
    assert event["name"] == "Order Placed"
    assert (event["userId"], event["anonymousId"], event["sessionId"]) == ("1", "a", "s")
    assert event["timestamp"] == "2026-11-20T10:00:00Z"
    assert event["context"]["ip"] == "::1"


def test_without_a_client_the_default_one_of_the_call_tracks():
    """So that generated functions work in blocks that capture, and before init()."""
    module = module_of(generate({"e": CHECKOUT}, "events.json"))
    with capture_events() as events:
        assert module.e(order_id=ORDER) is True

    events.assert_tracked("e", {"orderId": ORDER}, times=1)


def test_further_properties_go_in_one_argument():
    """Where the schema allows them; one that is named wins."""
    schema = {
        "properties": {"a": {}},
        "required": ["a"],
        "additionalProperties": {"type": "number"},
    }
    text = generate({"open": {**OBJECT, **schema}, "closed": CHECKOUT}, "x")
    assert functions_of(text)["open"]["extra_properties"] == "Mapping[str, float] | None"
    assert "extra_properties" not in functions_of(text)["closed"]

    assert sent(text, "open", a=1, extra_properties={"b": 2, "a": 3}) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, "Mapping[str, Any] | None"),
        ({"additionalProperties": {"type": "string"}}, "Mapping[str, str] | None"),
        ({"additionalProperties": {"enum": ["a"], "type": "null"}}, "Mapping[str, Any] | None"),
        ({"additionalProperties": False}, None),
        ({"unevaluatedProperties": False}, None),
        (
            {"additionalProperties": False, "patternProperties": {"^x-": {}}},
            "Mapping[str, Any] | None",
        ),
        (
            {
                "allOf": [
                    {"additionalProperties": {"type": "null"}},
                    {"additionalProperties": False},
                ]
            },
            None,
        ),
        ({"anyOf": [{"additionalProperties": False}, {}]}, "Mapping[str, Any] | None"),
        ({"anyOf": [{"additionalProperties": False}]}, None),
    ],
)
def test_what_a_schema_says_of_further_properties_holds(schema, expected):
    """JSON Schema allows them unless it says that not."""
    assert functions_of(generate({"e": schema}, "x"))["e"].get("extra_properties") == expected


def test_a_missing_or_an_unknown_argument_is_an_error():
    """As of every function."""
    function = module_of(generate({"e": CHECKOUT}, "x")).e

    with pytest.raises(TypeError, match="order_id"):
        function()
    with pytest.raises(TypeError, match="ordr_id"):
        function(order_id=ORDER, ordr_id=ORDER)


# What types the arguments have


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "str"),
        ({"type": "integer"}, "int"),
        ({"type": "number"}, "float"),
        ({"type": "boolean"}, "bool"),
        ({"type": "null"}, "None"),
        ({"type": ["integer", "null", "string"]}, "int | str | None"),
        ({"type": "string", "format": "date-time"}, "datetime"),
        ({"type": "string", "format": "date"}, "date"),
        ({"type": "string", "format": "uuid"}, "UUID"),
        ({"format": "uuid"}, "UUID"),
        ({"type": "string", "format": "email"}, "str"),
        (True, "Any"),
        ({}, "Any"),
        ({"minimum": 3}, "Any"),
        ({"enum": ["a", "b", "a"]}, "Literal['a', 'b']"),
        ({"enum": ["a", None, 1, True]}, "Literal['a', 1, True] | None"),
        ({"type": "string", "enum": ["a", None, 1]}, "Literal['a']"),
        ({"type": "integer", "enum": [1, 2.5, 3.0, True]}, "float | Literal[1]"),
        ({"enum": [0.5, "a"]}, "float | Literal['a']"),
        ({"enum": [2**63, 1, -(2**63)]}, "int | Literal[1]"),
        ({"enum": [[1], {"a": 1}]}, "Sequence[Any] | Mapping[str, Any]"),
        ({"enum": [{"a": 1}], "type": "object"}, "Mapping[str, Any]"),
        ({"const": "eur"}, "Literal['eur']"),
        ({"const": None}, "None"),
        ({"type": "array"}, "Sequence[Any]"),
        ({"type": "array", "items": {"type": "string"}}, "Sequence[str]"),
        ({"items": {"type": "string"}}, "Sequence[str]"),
        ({"items": [{"type": "string"}, {"type": "null"}]}, "Sequence[Any]"),
        (
            {"items": [{"type": "string"}, {"type": "null"}], "additionalItems": False},
            "Sequence[str | None]",
        ),
        (
            {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "integer"}},
            "Sequence[str | int]",
        ),
        ({"type": "array", "items": False}, "Sequence[Any]"),
        ({"type": "object"}, "Mapping[str, Any]"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "Mapping[str, int]"),
        ({"type": "object", "additionalProperties": False}, "Mapping[str, Any]"),
        ({"type": "object", "patternProperties": {"^x": {}}}, "Mapping[str, Any]"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "str | int"),
        ({"oneOf": [{"const": "a"}, {"const": "b"}, {"type": "null"}]}, "Literal['a', 'b'] | None"),
        ({"type": "string", "anyOf": [{"format": "uuid"}, {"format": "date"}]}, "UUID | date"),
        ({"type": ["string", "null"], "anyOf": [{"minLength": 1}, {"type": "null"}]}, "str | None"),
        ({"anyOf": [{"type": "string"}, {}]}, "Any"),
        ({"anyOf": [{"type": "string"}, False]}, "str"),
        ({"allOf": [{"type": ["string", "null"]}, {"type": "string"}]}, "str"),
        ({"allOf": [{"type": "number"}, {"type": "integer"}]}, "int"),
        ({"allOf": [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}]}, "Literal['b']"),
        ({"$ref": "#/$defs/Text"}, "str"),
        ({"$ref": "#/$defs/Text", "description": "d"}, "str"),
        ({"description": "d", "allOf": [{"$ref": "#/$defs/Text"}]}, "str"),
        ({"$ref": "#/$defs/Text", "enum": ["a"]}, "Literal['a']"),
        ({"$ref": "#/$defs/To~1Text%20~0"}, "str"),
        ({"$ref": "#/properties/p/$defs/Inner", "$defs": {"Inner": {"type": "integer"}}}, "int"),
        ({"type": "array", "items": {"$ref": "#/$defs/Tree"}}, "Sequence[Sequence[Any]]"),
    ],
)
def test_a_schema_has_its_type(schema, expected):
    """Wider where Python has no word for it, never narrower."""
    defs = {
        "Text": {"type": "string"},
        "To/Text ~": {"$ref": "#/$defs/Text"},
        "Tree": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
    }

    assert type_of(schema, **defs) == expected


def test_optional_arguments_may_be_left_out():
    """Those that allow null have a default of their own, so that null can be sent."""
    properties = {"a": {"type": "string"}, "b": {"type": ["string", "null"]}, "c": {}}

    assert types_of({"properties": properties}) == {
        "a": "str | None",
        "b": "str | _Unset | None",
        "c": "Any",
    }
    assert types_of({"properties": properties, "required": ["c", "b"]}) == {
        "b": "str | None",
        "c": "Any",
        "a": "str | None",
    }


def test_a_required_property_needs_no_schema():
    """It is required all the same."""
    assert types_of({"properties": {"b": {"type": "string"}}, "required": ["a", "b"]}) == {
        "b": "str",
        "a": "Any",
    }


def test_a_property_that_may_not_be_is_no_argument():
    """`false` is the schema of nothing."""
    assert types_of({"properties": {"a": False, "b": {}, "c": {"allOf": [False]}}}) == {"b": "Any"}


def test_an_event_of_several_forms_has_the_properties_of_all():
    """Required is what every form requires."""
    card = {"properties": {"kind": {"const": "card"}, "iban": False}, "required": ["kind", "card"]}
    bank = {"properties": {"kind": {"const": "bank"}, "iban": {"type": "string"}}}
    schema = {
        "properties": {"total": {"type": "number", "description": "What it costs."}},
        "required": ["total"],
        "oneOf": [card, {**bank, "required": ["kind", "iban"]}],
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        "allOf": [{"properties": {"total": {"minimum": 0}, "b": {"type": "integer"}}}],
    }

    assert types_of(schema) == {
        "total": "float",
        "kind": "Literal['card', 'bank']",
        "b": "int | None",
        "iban": "str | None",
    }
    assert "total: What it costs." in generate({"e": schema}, "x")


def test_objects_inside_are_typed_dicts_with_their_names_on_the_wire():
    """Required and optional members, on every Python that the SDK is for."""
    address = {
        "description": "Where it goes.",
        "properties": {"zipCode": {"type": "string"}, "floor": {"type": "integer"}},
        "required": ["zipCode"],
    }
    text = generate({"e": {"properties": {"to": address}, "required": ["to"]}}, "x")
    module = module_of(text)

    assert functions_of(text)["e"]["to"] == "ETo"
    assert module.ETo.__required_keys__ == {"zipCode"}
    assert module.ETo.__optional_keys__ == {"floor"}
    assert module.ETo.__doc__ == "Where it goes."
    assert sent(text, "e", to={"zipCode": "1"}) == {"to": {"zipCode": "1"}}


@pytest.mark.parametrize("name", ["zip-code", "class", "__a", "\u017f", "str", "", "a b"])
@pytest.mark.parametrize("required", [[], ["name"], ["other"], ["name", "other"]])
@pytest.mark.parametrize("description", ["", "Told."])
def test_members_may_have_names_that_no_attribute_has(name, required, description):
    """Words of Python, dashes, names that a class would mangle, or that mean a type."""
    required = [name if which == "name" else which for which in required]
    members = {member: {"type": "string"} for member in (name, "other")}
    inner = {"properties": members, "required": required, "description": description}
    text = generate({"e": {"properties": {"p": inner}}}, "x")
    keys = module_of(text).EP

    assert keys.__required_keys__ == set(required)
    assert keys.__optional_keys__ == {name, "other"} - set(required)
    assert (keys.__doc__ or "").startswith(description)


def test_a_definition_is_one_class_for_all_events():
    """Also when it contains itself; another one of its name gets a number."""
    line = {
        "type": "object",
        "properties": {
            "parts": {"type": "array", "items": {"$ref": "#/$defs/line"}},
            "price": {"type": "object", "properties": {"amount": {"type": "number"}}},
        },
    }
    events = {name: {"properties": {"line": {"$ref": "#/$defs/line"}}} for name in ("a", "b")}
    schemas = events_of({"events": events, "$defs": {"line": line}}, "x.json")
    price = {"type": "object", "properties": {"amount": {"type": "string"}}}
    schemas["c"] = {"properties": {"line": {"$ref": "#/$defs/line"}}, "$defs": {"line": price}}
    text = generate(schemas, "x.json")

    classes = [node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert classes == ["LinePrice", "Line", "Line2"]
    assert [found["line"] for found in functions_of(text).values()] == [
        *("Line | None", "Line | None", "Line2 | None")
    ]
    assert "    parts: Sequence[Line]\n    price: LinePrice\n" in text


def test_a_definition_that_an_event_has_its_own_of_is_another_class():
    """Also inside of what it shares with others."""
    inner = {"properties": {"n": {"type": "integer"}}}
    outer = {"properties": {"inner": {"$ref": "#/$defs/inner"}}}
    event = {"properties": {"p": {"$ref": "#/$defs/outer"}}}
    own = {"$defs": {"inner": {"properties": {"n": {"type": "string"}}}}}
    document = {"events": {"a": event, "b": {**event, **own}}}
    text = generate(events_of(document | {"$defs": {"inner": inner, "outer": outer}}, "x"), "x")

    assert [found["p"] for found in functions_of(text).values()] == [
        "Outer | None",
        "Outer2 | None",
    ]
    assert "class Inner(TypedDict, total=False):\n    n: int\n" in text
    assert "class Inner2(TypedDict, total=False):\n    n: str\n" in text


def test_equal_definitions_of_different_files_are_one_class():
    """A folder of schemas repeats them."""
    inner = {"type": "object", "properties": {"price": {"properties": {"n": {"type": "number"}}}}}
    text = generate(
        {
            name: {
                "properties": {"p": {"$ref": "#/definitions/Line"}},
                "definitions": {"Line": json.loads(json.dumps(inner))},
            }
            for name in "ab"
        },
        "folder",
    )

    classes = [node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert classes == ["LinePrice", "Line"]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/Node"},
        {"description": "d", "allOf": [{"$ref": "#/$defs/Node"}]},
        {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
        {"type": "object", "oneOf": [{"allOf": [{"$ref": "#/$defs/Node"}]}]},
    ],
)
def test_what_contains_itself_is_found_again(schema):
    """However the reference is wrapped."""
    node = {"type": "object", "properties": {"next": schema}}
    text = generate({"e": {"properties": {"p": schema}, "$defs": {"Node": node}}}, "x")
    module_of(text)

    assert functions_of(text)["e"]["p"].startswith("Node | ")
    assert "    next: Node" in text


@pytest.mark.parametrize("more", [{"required": ["x"]}, {"anyOf": [{"required": ["x"]}]}])
def test_what_contains_itself_with_changes_has_no_type_inside(more):
    """There is no end of classes that it could be."""
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node", **more}}}
    text = generate(
        {"e": {"properties": {"p": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}}}, "x"
    )
    module_of(text)

    assert "class Node(TypedDict, total=False):\n    next: Any\n" in text


def test_an_event_may_contain_itself():
    """`#` is the event."""
    assert types_of({"properties": {"parent": {"$ref": "#"}}}) == {"parent": "Event | None"}


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orderId", "order_id"),
        ("order_id", "order_id"),
        ("OrderID", "order_id"),
        ("HTTPStatusCode", "http_status_code"),
        ("v2Beta", "v2_beta"),
        ("Order Placed", "order_placed"),
        ("order.placed-now", "order_placed_now"),
        ("  spaces  ", "spaces"),
        ("__private__", "private"),
        ("größeInCm", "größe_in_cm"),
        ("2fa", "property_2fa"),
        ("$ref", "ref"),
        ("ﬁle", "file"),
        ("購入", "購入"),
        ("²", "property_2"),
        ("!!!", "property"),
        ("", "property"),
        ("None", "none"),
        ("How satisfied are you with the answer that our support has given to you?",
         "how_satisfied_are_you_with_the_answer_that_our_support_has"),
        ("x" * 100, "x" * 60),
    ],
)  # fmt: skip
def test_names_become_names_of_python(name, expected):
    """Readable ones, and never longer than a line."""
    assert snake(name, "property") == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("line_item",), "LineItem"),
        (("UTMParams",), "UTMParams"),
        (("checkout_completed", "zipCode"), "CheckoutCompletedZipCode"),
        (("2fa",), "Type2fa"),
        (("!",), "Type"),
    ],
)
def test_names_become_names_of_classes(names, expected):
    """From the event and the way to the object."""
    assert pascal(*names) == expected


def test_properties_that_would_share_an_argument_each_have_their_own():
    """So do those called like a word of Python, or like an argument that every function has."""
    names = ["fooBar", "foo_bar", "foo-bar", "class", "timestamp", "client", "self", "dict", "user"]
    more = [
        "userId",
        "user_id",
        "_properties",
        "extra_properties",
        "analytics_sdk",
        "None",
        "!",
        "",
    ]
    text = generate({"e": {"properties": {name: {} for name in names + more}}}, "x")
    arguments = [name for name in functions_of(text)["e"] if name not in COMMON]
    assert arguments == [
        *("foo_bar_2", "foo_bar", "foo_bar_3", "class_", "timestamp_", "client_", "self", "dict"),
        *("user", "user_id_2", "user_id_", "properties", "extra_properties_", "analytics_sdk"),
        *("none", "property", "property_2", "extra_properties"),
    ]

    values = {argument: at for at, argument in enumerate(arguments[:-1])}
    assert sent(text, "e", **values) == {name: at for at, name in enumerate(names + more)}


def test_events_that_would_share_a_function_each_have_their_own():
    """Nor does a function hide what the module itself needs."""
    events = ["Order Placed", "order_placed", "order placed", "class", "str", "datetime", "Any"]
    more = ["analytics_sdk", "_tracker", "_unset", "print", "!"]
    text = generate(dict.fromkeys(events + more, True), "x")
    module = module_of(text)

    assert list(functions_of(text)) == [
        *("event", "any", "order_placed_2", "tracker", "unset", "analytics_sdk_", "class_"),
        *("datetime_", "order_placed_3", "order_placed", "print", "str_"),
    ]
    assert module.__all__ == sorted(functions_of(text))
    client = RecordingClient()
    for name in functions_of(text):
        getattr(module, name)(client=client)
    assert {event["name"] for event in client.recorder.events} == {*events, *more}
    assert sent(text, "order_placed") == {}


# Text that must stay text

HOSTILE = [
    '"""\nimport os\nos.abort()\n"""',
    "'''",
    '"',
    "'",
    '\\"',
    "\\",
    "ends with a backslash\\",
    'ends with a quote"',
    "\\N{DIGIT ONE} \\x41 {0} %s",
    "line\nbreak\r\x0b\x0c\x1c\x85\u2028\u2029more",
    "right to left \u202e override",
    "nul \0",
    "lone \ud800",
    "# fmt: off",
    "]; raise SystemExit #",
    "👩‍👩‍👧 emoji",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_never_code(text):
    """A literal means the text, whatever is in it, and can be seen for what it is."""
    assert ast.literal_eval(literal(text)) == text
    assert literal(text).isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_description_is_only_told(text):
    """In the docstrings of function and class, wrapped, every visible character in its order."""
    nested = {"description": text, "properties": {"b": {"type": "string"}}}
    schema = {"description": text, "properties": {"a": {**nested, "title": text}}}
    module = module_of(generate({"e": schema}, text))

    def visible(string):
        # Half a surrogate pair is no text.
        return "".join(string.split()).replace("\ud800", "\ufffd")

    assert visible(module.e.__doc__) == visible(f'Track "e". {text} a: {text}')
    assert visible(module.EA.__doc__) == visible(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_on_the_wire_is_only_a_name(text):
    """Of a property, of a member, of a value; an event can't have every name."""
    inner = {"type": "object", "properties": {text: {"enum": [text, text + "2"]}}}
    schema = {"properties": {text: inner}, "required": [text]}
    generated = generate({"e": schema}, text)
    argument = next(iter(functions_of(generated)["e"]))
    if "\ud800" in text:
        text = text.replace("\ud800", "\ufffd")

    assert sent(generated, "e", **{argument: {"x": 1}}) == {text: {"x": 1}}


def calls_in(text):
    return {
        ast.unparse(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)
    }


# Any schema

words = st.sampled_from(
    ["a", "b", "aB", "a_b", "class", "client", "str", "date", "zip-code", "__a"]
)
names = words | st.text(max_size=12)
texts = st.text(max_size=40) | st.sampled_from([text for text in HOSTILE if "\ud800" not in text])
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | names
)
leaves = st.one_of(
    st.builds(dict, type=st.sampled_from(["string", "integer", "number", "boolean", "null"])),
    st.builds(
        dict, type=st.just("string"), format=st.sampled_from(["uuid", "date", "date-time", "email"])
    ),
    st.builds(dict, enum=st.lists(scalars, min_size=1, max_size=4)),
    st.builds(dict, const=scalars),
    st.builds(dict, type=st.just(["string", "null"]), description=texts),
    st.sampled_from([True, {}, {"$ref": "#/$defs/One"}, {"$ref": "#/$defs/Two"}]),
)


def objects(inner):
    """Schemas of objects, some of whose members are required."""
    return st.builds(
        lambda properties, required, more: {
            "type": "object",
            "properties": properties,
            "required": [name for at, name in enumerate(properties) if required >> at & 1],
            **more,
        },
        st.dictionaries(names, inner, max_size=4),
        st.integers(0, 15),
        st.fixed_dictionaries(
            {}, optional={"description": texts, "additionalProperties": st.booleans() | inner}
        ),
    )


def containers(inner):
    return st.one_of(
        objects(inner),
        st.builds(dict, type=st.just("array"), items=inner),
        st.builds(dict, anyOf=st.lists(inner, min_size=1, max_size=3)),
        st.builds(dict, oneOf=st.lists(inner, min_size=1, max_size=3), description=texts),
        st.builds(dict, allOf=st.lists(inner, min_size=1, max_size=1)),
    )


schemas = st.recursive(leaves, containers, max_leaves=6)
event_names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
documents = st.fixed_dictionaries(
    {
        "events": st.dictionaries(event_names | words, objects(schemas), min_size=1, max_size=3),
        "$defs": st.fixed_dictionaries({"One": schemas, "Two": objects(schemas)}),
    }
)
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(documents, st.data())
@settings(deadline=None, max_examples=150)
def test_any_schema_becomes_functions_that_send_what_they_are_given(document, data):
    """Exactly that: nothing is lost, added or renamed; and no text of a schema is ever called."""
    try:
        loaded = events_of(document, "any.json")
        text = generate(loaded, "any.json")
    except CodegenError as error:
        # The strategy can build references that lead round in a circle, and nothing else wrong.
        assert "refers to itself" in str(error)
        return
    module = module_of(text)
    assert calls_in(text) <= {"_tracker", "_tracker(client)", "TypedDict"}
    assert generate(loaded, "any.json") == text

    client = RecordingClient()
    for function in functions_of(text):
        check_call(getattr(module, function), document["events"], client, data)
    assert {event["name"] for event in client.recorder.events} == set(document["events"])


def check_call(function, events, client, data):
    """Give some of the arguments, each a value that tells it from the others."""
    parameters = inspect.signature(function).parameters
    own = [name for name in parameters if name not in (*COMMON, "extra_properties")]
    required = {name for name in own if parameters[name].default is inspect.Parameter.empty}
    given_too = data.draw(st.sets(st.sampled_from(own)) if own else st.just(set()))
    arguments = {
        name: [at, data.draw(values)] for at, name in enumerate(own) if name in required | given_too
    }
    extra = {"an extra": data.draw(values)} if "extra_properties" in parameters else {}
    assert function(client=client, **arguments, **({"extra_properties": extra} if extra else {}))

    event = client.recorder.events[-1]
    properties, schema = event["properties"], events[event["name"]]
    assert all(properties.pop(name) == value for name, value in extra.items())
    argument_of = {value[0]: name for name, value in arguments.items()}
    named = {name: argument_of[value[0]] for name, value in properties.items()}
    assert properties == {name: arguments[argument] for name, argument in named.items()}
    assert sorted(named.values()) == sorted(arguments)
    assert {name for name, argument in named.items() if argument in required} == (
        set(schema["required"])
    )
    assert set(named) <= set(schema["properties"])
    assert len(own) == len(schema["properties"])
    assert all(argument.startswith(snake(name, "property")) for name, argument in named.items())


# What tools say about the text


def test_generated_modules_are_formatted(tmp_path):
    """As ruff has it, with whatever length of line."""
    for name, schemas in MODULES.items():
        (tmp_path / f"{name}.py").write_text(generate(schemas, name), encoding="utf-8")

    for length in ("88", "100", "120"):
        done = python(
            "-m", "ruff", "format", "--isolated", "--line-length", length, "--diff", ".",
            cwd=tmp_path,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    unused = ("--isolated", "--ignore-noqa", "--select", "F")
    done = python("-m", "ruff", "check", *unused, ".", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


TYPED = {
    "properties": {
        "orderId": {"type": "string", "format": "uuid"},
        "cartValue": {"type": "number"},
        "coupon": {"type": ["string", "null"]},
        "status": {"enum": ["paid", "open"]},
        "paidAt": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
        "payment": {"oneOf": [{"$ref": "#/$defs/Card"}, {"const": "cash"}, {"type": "null"}]},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "odd": {
            "properties": {"zip-code": {"type": "string"}, "date": {"format": "date"}},
            "required": ["zip-code"],
        },
    },
    "required": ["orderId"],
    "additionalProperties": False,
    "$defs": {
        "Line": {
            "properties": {
                "sku": {"type": "string"},
                "amount": {"type": "integer"},
                "parts": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
            },
            "required": ["sku"],
        },
        "Card": {"properties": {"last4": {"type": "string"}}, "required": ["last4"]},
    },
}
GOOD = """
from datetime import datetime, timezone
from typing import Literal
from uuid import UUID
import analytics_sdk
import events
from events import Line

ID = UUID(int=1)
line: Line = {"sku": "a", "parts": [{"sku": "b", "amount": 1}]}

def good(client: analytics_sdk.Client, status: Literal["paid", "open"]) -> bool:
    events.typed(order_id=ID)
    events.typed(order_id=ID, cart_value=9, coupon=None, status="paid", tags=["a"], client=client)
    events.typed(order_id=ID, cart_value=None, paid_at=datetime.now(timezone.utc), tags=("a", "b"))
    events.typed(order_id=ID, lines=[line, {"sku": "c"}], payment={"last4": "4242"}, user_id=7)
    events.typed(order_id=ID, payment="cash", labels={"a": "b"}, context={"ip": "::1"})
    events.typed(order_id=ID, odd={"zip-code": "1"}, user_id="u", session_id=ID)
    events.open(anything=object(), extra_properties={"more": 1})
    for name in ("a", "b"):
        events.typed(order_id=ID, coupon=name, status=status)
    return events.typed(order_id=ID)
"""
BAD = """
from uuid import UUID
import events

ID = UUID(int=1)
events.typed()  # bad: call-arg
events.typed(ID)  # bad: call-arg
events.typed(order_id="o-1")  # bad: arg-type
events.typed(order_id=None)  # bad: arg-type
events.typed(order_id=ID, cart_value="9.5")  # bad: arg-type
events.typed(order_id=ID, cartValue=9.5)  # bad: call-arg
events.typed(order_id=ID, coupon=5)  # bad: arg-type
events.typed(order_id=ID, status="payed")  # bad: arg-type
events.typed(order_id=ID, paid_at="2026-11-20T10:00:00Z")  # bad: arg-type
events.typed(order_id=ID, tags=[1])  # bad: list-item
events.typed(order_id=ID, lines=[{"amount": 1}])  # bad: typeddict-item
events.typed(order_id=ID, lines=[{"sku": "a", "prize": 1}])  # bad: typeddict-unknown-key
events.typed(order_id=ID, lines=[{"sku": "a", "parts": [{"sku": 1}]}])  # bad: typeddict-item
events.typed(order_id=ID, payment="cheque")  # bad: arg-type
events.typed(order_id=ID, labels={"a": 1})  # bad: dict-item
events.typed(order_id=ID, odd={})  # bad: arg-type
events.typed(order_id=ID, odd={"zip-code": "1", "date": "2026"})  # bad: arg-type
events.typed(order_id=ID, extra_properties={"more": 1})  # bad: call-arg
events.typed(order_id=ID, client=5)  # bad: arg-type
events.typed(order_id=ID, user_id=[1])  # bad: arg-type
events.tiped(order_id=ID)  # bad: attr-defined
events.open(anything=1, extra_properties=5)  # bad: arg-type
"""
LONG = "a_property_of_which_somebody_wrote_down_the_whole_story"
MODULES = {
    "events": {
        "typed": TYPED,
        "open": {"properties": {"anything": {}}, "required": ["anything"]},
    },
    "long": {
        "checkout_completed_by_the_customer": {
            "description": "word " * 60 + '"quoted"',
            "properties": {
                LONG: {"enum": [f"value number {number}" for number in range(9)]},
                f"{LONG}_2": {"const": "v" * 120, "description": 'Ends in a quote: "'},
                f"{LONG}_3": {
                    "oneOf": [
                        {"$ref": f"#/$defs/{LONG}"},
                        {"type": "array", "items": {"$ref": f"#/$defs/{LONG}"}},
                        {"type": "array", "items": {"enum": [LONG, LONG + "x"]}},
                        {"type": ["null", "integer"]},
                        {"type": "string", "format": "date-time"},
                    ]
                },
                "How happy are you with what we have done for you, and why?" * 2: {
                    "type": "object",
                    "properties": {LONG * 2: {"type": "string"}, "b c": {"type": "integer"}},
                    "required": ["b c"],
                },
            },
            "$defs": {
                LONG: {
                    "description": "x" * 200,
                    "properties": {
                        "inner": {"$ref": f"#/$defs/{LONG}"},
                        LONG: {
                            "anyOf": [
                                {"$ref": f"#/$defs/{LONG}"},
                                {"type": "array", "items": {"$ref": f"#/$defs/{LONG}"}},
                                {"type": "string"},
                            ]
                        },
                    },
                    "required": ["inner"],
                }
            },
            "additionalProperties": {"enum": [LONG, LONG + "x"]},
        }
    },
    "shadows": {
        "e": {
            "properties": {
                "p": {
                    "properties": {"date": {"format": "date"}, "other": {"format": "date"}},
                    "required": ["date", "other"],
                },
                "date": {"format": "date"},
                "str": {"type": "string"},
            }
        },
    },
    "names": dict.fromkeys(
        ["a", "A", "str", "class", "date", "Any", "购 买", "2fa", 'quo"te'], TYPED
    ),
    "hostile": {
        "e": {
            "description": "\n\n".join(HOSTILE),
            "properties": {
                text: {"description": text, "properties": {text: {"enum": [text]}, "str": {}}}
                for text in HOSTILE
            },
        }
    },
}


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """What mypy says about the modules, and about right and wrong calls of the first."""
    folder = tmp_path_factory.mktemp("mypy")
    for name, schemas in MODULES.items():
        (folder / f"{name}.py").write_text(generate(schemas, name), encoding="utf-8")
    (folder / "good.py").write_text(GOOD)
    (folder / "bad.py").write_text(BAD)
    flags = ("--strict", "--hide-error-context", "--no-error-summary", "--no-pretty")
    found = python("-m", "mypy", *flags, ".", cwd=folder)
    assert found.stderr == ""
    return [line for line in found.stdout.splitlines() if ": note: " not in line]


def test_generated_modules_have_no_fault_in_their_types(mypy):
    """Under mypy's strictest settings."""
    assert [line for line in mypy if not line.startswith("bad.py")] == []


def test_wrong_calls_are_found_by_a_type_checker(mypy):
    """Every one of them, and right ones are let through."""
    found = {
        (int(line.split(":")[1]), line.rpartition("[")[2].rstrip("]"))
        for line in mypy
        if line.startswith("bad.py")
    }

    assert found == {
        (number, line.rpartition("# bad: ")[2])
        for number, line in enumerate(BAD.splitlines(), 1)
        if "# bad: " in line
    }


def test_generated_modules_can_be_imported():
    """With classes that contain themselves, and names that no attribute has."""
    for name, schemas in MODULES.items():
        module_of(generate(schemas, name))


# Where schemas come from


def write(path, document):
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


A = {"type": "object", "properties": {"x": {"type": "integer"}}}
SHORT = {"orderId": "string", "itemCount": "number"}
LONG_FORM = {
    "type": "object",
    "properties": {"orderId": {"type": "string"}, "itemCount": {"type": "number"}},
    "required": ["orderId", "itemCount"],
}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"events": {"a": A, "b": SHORT}}, {"a": A, "b": LONG_FORM}),
        ({"events": {"a": A}, "$defs": {"X": A}}, {"a": {**A, "$defs": {"X": A}}}),
        (A, {"signed_up": A}),
        (SHORT, {"signed_up": LONG_FORM}),
        ({"events": "array"}, {"signed_up": {
            "type": "object", "properties": {"events": {"type": "array"}}, "required": ["events"],
        }}),
        ({"$ref": "#/$defs/X", "$defs": {"X": A}},
         {"signed_up": {"$ref": "#/$defs/X", "$defs": {"X": A}}}),
        ({"type": "object"}, {"signed_up": {"type": "object"}}),
        ({"type": "string"}, {"signed_up": {
            "type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"],
        }}),
    ],
)  # fmt: skip
def test_a_file_has_the_schemas_of_events(tmp_path, document, expected):
    """Several under `events`, or the one that it is named after; the short form is spelled out."""
    assert load(write(tmp_path / "signed_up.json", document)) == expected


@pytest.mark.parametrize("key", ["$defs", "definitions"])
def test_the_definitions_of_a_json_schema_are_events(tmp_path, key):
    """Those that nothing refers to, or those that it lists; each with all definitions."""
    event = {"properties": {"part": {"$ref": f"#/{key}/part"}}}
    defs = {"part": A, "one": event, "two/three": SHORT}

    assert load(write(tmp_path / "x.json", {key: defs})) == {
        "one": {**event, key: defs},
        "two/three": {**LONG_FORM, key: defs},
    }
    listed = {"$schema": "...", key: defs, "oneOf": [{"$ref": f"#/{key}/two~1three"}]}
    assert list(load(write(tmp_path / "x.json", listed))) == ["two/three"]


def test_a_folder_has_a_file_for_each_event(tmp_path):
    """Named after it."""
    write(tmp_path / "signed_up.json", A)
    write(tmp_path / "Order Placed.json", SHORT)
    (tmp_path / "notes.md").write_text("no schema")

    assert load(tmp_path) == {"Order Placed": LONG_FORM, "signed_up": A}


@pytest.mark.parametrize("case", DOCUMENTS["cases"], ids=lambda case: case["name"])
def test_a_document_means_what_the_vector_says(case):
    """What the collector registers and what code is generated from can't drift apart."""
    assert expanded(case["given"]["document"]) == case["expect"]["schema"]


def test_files_of_events_that_no_file_may_be_called_are_named_as_in_a_url(tmp_path):
    """As the collector writes them; schemas of other types than track make no function."""
    write(tmp_path / "Order%2FPlaced.json", A)
    write(tmp_path / "100%.json", A)
    write(tmp_path / "$identify.json", A)

    assert set(load(tmp_path)) == {"Order/Placed", "100%"}


def test_a_question_mark_makes_a_member_optional():
    """In the short form, as a default does in Python."""
    function = functions_of(generate({"e": {"a": "string", "b": "string?"}}, "x"))["e"]

    assert function["a"] == "str"
    assert function["b"] != "str"


def test_the_short_form_makes_functions_too():
    """All of it is required, and nothing said of more."""
    assert functions_of(generate({"e": SHORT}, "x"))["e"] | dict.fromkeys(COMMON) == {
        "order_id": "str",
        "item_count": "float",
        "extra_properties": "Mapping[str, Any] | None",
        **dict.fromkeys(COMMON),
    }


def test_the_order_of_events_does_not_matter():
    """A document that was sorted anew gives the same module."""
    assert generate({"b": A, "a": SHORT}, "x") == generate({"a": SHORT, "b": A}, "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "x.json: is not JSON in UTF-8: Expecting property name"),
        (b"\xff", "x.json: is not JSON in UTF-8: 'utf-8' codec can't decode"),
        ("[]", "x.json: must be a JSON object."),
        ("{}", "x.json: has neither `events` nor `$defs` nor `properties`."),
        ('{"title": "x"}', "x.json: has neither `events` nor `$defs` nor `properties`."),
        ('{"events": {}}', "x.json: has no event."),
        ('{"$defs": {}}', "x.json: has no event."),
        ('{"events": {"a": {}, "a": {}}}', "is not JSON in UTF-8: 'a' stands in one object twice"),
        ("[" * 100_000, "x.json: is nested too deep."),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, content, message):
    """By its name, with what is wrong with it."""
    file = tmp_path / "x.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(CodegenError) as caught:
        load(file)
    assert message in str(caught.value)


def test_a_place_without_schemas_is_refused(tmp_path):
    """A file that is not there, a folder that is empty."""
    with pytest.raises(CodegenError, match=r"missing\.json: can't be read: No such file"):
        load(tmp_path / "missing.json")
    with pytest.raises(CodegenError, match=r"there is no file .* in the folder"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (5, "x.json: e: a schema must be an object, true or false."),
        ({"type": "string"}, None),
        (
            {"type": ["string", "array"]},
            "x.json: e: the properties of an event must be of the type",
        ),
        (False, "x.json: e: the properties of an event must be of the type object."),
        ({"type": "objct"}, "x.json: e: `type` must be of string, integer, number"),
        ({"type": 5}, "x.json: e: `type` must be a list."),
        ({"type": []}, "x.json: e: `type` must be of string,"),
        ({"type": [5]}, "x.json: e: `type` must be a list of names."),
        ({"properties": []}, "x.json: e: `properties` must be an object with a schema for each."),
        ({"required": "p"}, "x.json: e: `required` must be a list."),
        ({"required": [1]}, "x.json: e: `required` must be a list of names."),
        ({"allOf": {}}, "x.json: e: `allOf` must be a list."),
        ({"properties": {"p": {"enum": []}}}, "x.json: e.p: `enum` must have a value."),
        ({"properties": {"p": {"type": "text"}}}, "x.json: e.p: `type` must be of"),
        ({"properties": {"p": {"items": {"type": "text"}}}}, "x.json: e.p[]: `type` must be of"),
        (
            {"properties": {"p": {"properties": {"q": {"anyOf": [7]}}}}},
            "x.json: e.p.q: a schema must be an object, true or false.",
        ),
        (
            {"properties": {"p": {"type": "object", "additionalProperties": 7}}},
            "x.json: e.p.*: a schema must be an object, true or false.",
        ),
        ({"properties": {"p": {"$ref": "other.json"}}}, "x.json: e.p: 'other.json' must be a ref"),
        ({"properties": {"p": {"$ref": 5}}}, "x.json: e.p: 5 must be a reference inside the file"),
        (
            {"properties": {"p": {"$ref": "#/$defs/A"}}},
            "x.json: e.p: '#/$defs/A' points at nothing.",
        ),
        ({"properties": {"p": {"$ref": "#/required/0"}}, "required": []}, "points at nothing."),
        (
            {"properties": {"p": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}},
            "x.json: e.p: '#/$defs/A' refers to itself.",
        ),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}]}}},
            "x.json: e: '#/$defs/A' refers to itself.",
        ),
        (
            {
                "properties": {"p": {"$ref": "#/$defs/A"}},
                "$defs": {"A": {"anyOf": [{"allOf": [{"$ref": "#/$defs/A"}, {}]}, {}]}},
            },
            "x.json: e.p: '#/$defs/A' refers to itself.",
        ),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}},
            "x.json: e: '#/$defs/A' refers to itself.",
        ),
        ({"properties": {"p": False}, "required": ["p"]}, "x.json: e.p: is required, and no value"),
        (
            {"properties": {"p": {"properties": {"q": False}, "required": ["q"]}}},
            "x.json: e.p.q: is required, and no value is allowed for it.",
        ),
    ],
)
def test_a_schema_that_is_none_is_refused(schema, message):
    """By the file, the event and the way to the property."""
    if message is None:
        assert types_of({}) == {}
        return
    with pytest.raises(CodegenError) as caught:
        generate({"e": schema}, "x.json")
    assert message in str(caught.value)
    assert str(caught.value) == f"{caught.value.where}: {caught.value.what}"


def test_no_schema_makes_no_module():
    """An empty module would pass for one that is up to date."""
    with pytest.raises(CodegenError, match=r"x\.json: has no event"):
        generate({}, "x.json")


@pytest.mark.parametrize("event", ["", "x" * 256, "line\nbreak"])
def test_what_is_no_name_of_an_event_is_refused(event):
    """`track()` would refuse it with every call."""
    with pytest.raises(CodegenError, match=r"no name for an event: (missing|invalid)_name"):
        generate({event: {}}, "x.json")


def test_a_schema_deeper_than_an_event_may_be_is_refused():
    """No event could have such a property; and no schema makes us fall over."""
    schema = {"type": "string"}
    for _ in range(40):
        schema = {"type": "array", "items": schema}

    with pytest.raises(CodegenError, match=r"e\.p(\[\])+: an event nests at most 32 levels"):
        generate({"e": {"properties": {"p": schema}}}, "x.json")


# Whether a module is up to date


def test_a_module_that_is_up_to_date_has_no_difference(tmp_path):
    """For a check in continuous integration."""
    text = generate({"e": CHECKOUT}, "events.json")
    (tmp_path / "events.py").write_text(text, encoding="utf-8")

    assert check(tmp_path / "events.py", text) == ""


def test_a_module_that_is_old_or_missing_is_shown_with_its_differences(tmp_path):
    """Which lines a new run would write."""
    text = generate({"e": CHECKOUT}, "events.json")
    file = tmp_path / "events.py"
    file.write_text(text.replace("float", "int"), encoding="utf-8")

    assert "-    cart_value: int | None = None,\n+    cart_value: float | None = None,\n" in (
        check(file, text)
    )
    assert f"--- {file}\n+++ generated\n" in check(file, text)
    assert f"+{text.splitlines()[0]}\n" in check(tmp_path / "missing.py", text)


def test_the_example_is_up_to_date():
    """`events.py` beside the schemas that it is made of."""
    schemas = EXAMPLE / "events.json"

    assert check(EXAMPLE / "events.py", generate(load(schemas), schemas.name)) == ""
