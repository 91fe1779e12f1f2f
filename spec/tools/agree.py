"""Check that the chapters, schemas, tables, vectors and the interface say the same.

Every check yields sentences; none means that all agree. Without --check the tables of codes in
chapter 4 are written first. Needs jsonschema-rs and openapi-spec-validator.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
from copies import copies
from openapi_spec_validator import OpenAPIV31SpecValidator
from openapi_spec_validator.readers import read_from_filename
from referencing.exceptions import Unresolvable

ROOT = Path(__file__).resolve().parents[2]

METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
INGEST = ("/api/v1/events", "post")
# Codes that sending events never gets, or only where the address is not known yet.
NOT_INGEST = {"NOT_FOUND", "METHOD_NOT_ALLOWED", "CONFLICT", "INVALID_QUERY", "TOO_MANY_LISTENERS"}

# Where a schema holds a number of limits.json: (file, path in it, key).
NUMBERS = [
    ("batch.json", "properties/batch/maxItems", "max_batch_events"),
    ("event.json", "properties/name/allOf/1/maxLength", "max_name_chars"),
    ("event.json", "$defs/identifier/maxLength", "max_identifier_chars"),
    ("answer.json", "properties/eventCount/maximum", "max_batch_events"),
    ("answer.json", "properties/duplicates/maximum", "max_batch_events"),
    ("error.json", "properties/rejected/maxItems", "max_batch_events"),
]
# Sentences of errors.json that hold a number of limits.json: (scope, code, key, divisor, unit).
SENTENCES = [
    ("request", "TOO_DEEP", "max_depth", 1, "levels"),
    ("request", "INVALID_ENCODING", "max_gzip_members", 1, "members"),
    ("request", "BODY_TOO_LARGE", "max_body_bytes", 2**20, "MiB"),
    ("request", "BATCH_TOO_LARGE", "max_batch_events", 1, "events"),
    ("request", "HEADERS_TOO_LARGE", "max_header_bytes", 2**10, "KiB"),
    ("event", "INVALID_NAME", "max_name_chars", 1, "characters"),
    ("event", "MISSING_NAME", "max_name_chars", 1, "characters"),
    ("event", "INVALID_IDENTIFIER", "max_identifier_chars", 1, "characters"),
    ("event", "TIMESTAMP_OUT_OF_RANGE", "min_timestamp_year", 1, ""),
    ("event", "TOO_DEEP", "max_depth", 1, "levels"),
    ("event", "EVENT_TOO_LARGE", "max_event_bytes", 2**10, "KiB"),
]

REQUIREMENT = re.compile(r"^- \*\*([A-Z]{3})-(\d+)\*\* (.+)$")
BINDING = re.compile(r"\b(MUST|SHOULD)\b")
LIMIT = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")
CODE = re.compile(r"`([A-Z]+(?:_[A-Z0-9]+)+)`")

# What was found of each interface: the tests look at many copies of one, for half a second each.
_interface_problems: dict[str, str | None] = {}


class Spec:
    """The files of spec/, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spec = root / "spec"
        self.errors = self.json("errors.json")
        limits = self.json("limits.json")
        self.limits = {**limits["wire"], **limits["delivery"], **limits["server"]}
        self.schemas = {
            path.name: self.json(f"schema/{path.name}")
            for path in sorted((self.spec / "schema").glob("*.json"))
        }
        self.vectors = {
            path.name: self.json(f"vectors/{path.name}")
            for path in sorted((self.spec / "vectors").glob("*.json"))
        }

    def json(self, name: str) -> Any:
        """Return the document in the file *name* of spec/."""
        try:
            return json.loads((self.spec / name).read_text(encoding="utf-8"))
        except json.JSONDecodeError as exc:
            raise SystemExit(f"spec/{name} is not JSON: {exc}") from exc

    def validator(self, name: str) -> jsonschema_rs.Draft202012Validator:
        """Return a validator of the schema *name* that knows the others."""
        registry = jsonschema_rs.Registry(
            [(f"json-schema:///{other}", schema) for other, schema in self.schemas.items()]
        )
        return jsonschema_rs.Draft202012Validator(
            {"$ref": f"json-schema:///{name}"}, registry=registry
        )


def node_at(document: Any, path: str) -> Any:
    """Return what stands at the slash-separated *path*, or None."""
    for step in path.split("/"):
        if isinstance(document, list):
            document = document[int(step)] if int(step) < len(document) else None
        else:
            document = document.get(step) if isinstance(document, Mapping) else None
    return document


def refusals_in(schema: Any) -> Iterator[str]:
    """Yield every `x-refusal` in *schema*."""
    if isinstance(schema, dict):
        if "x-refusal" in schema:
            yield schema["x-refusal"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from refusals_in(part)


def check_schemas(spec: Spec) -> Iterator[str]:
    """Every schema is one of draft 2020-12 and names codes that exist."""
    for name, schema in spec.schemas.items():
        if schema.get("$schema") != "https://json-schema.org/draft/2020-12/schema":
            yield f"schema/{name} does not say that it is JSON Schema 2020-12."
        try:
            jsonschema_rs.meta.validate(schema)
            spec.validator(name)
        except (ValueError, jsonschema_rs.ReferencingError) as exc:
            yield f"schema/{name} is not a valid schema: {str(exc).splitlines()[0]}"
        for code in sorted(set(refusals_in(schema)) - set(spec.errors["event"])):
            yield f"schema/{name} refuses with {code}, which errors.json does not have."

    for name, scope in (("rejection.json", "event"), ("error.json", "request")):
        enum = node_at(spec.schemas[name], "properties/code/enum")
        if enum != list(spec.errors[scope]):
            yield f"schema/{name} does not list the {scope} codes of errors.json in their order."


def check_errors(spec: Spec) -> Iterator[str]:
    """Every code has what a reader of errors.json needs."""
    for code, entry in spec.errors["request"].items():
        status = entry.get("status")
        if type(status) is not int or not 400 <= status < 600:
            yield f"errors.json gives {code} no status of 4xx or 5xx."
        if type(entry.get("retryable")) is not bool:
            yield f"errors.json does not say whether {code} is retryable."
    for scope in ("request", "event"):
        for code, entry in spec.errors[scope].items():
            if not re.fullmatch(r"[A-Z]+(_[A-Z0-9]+)*", code):
                yield f"errors.json has the code {code}, which is not UPPER_SNAKE."
            if not str(entry.get("message", "")).endswith("."):
                yield f"errors.json has no sentence for {code}."


def check_limits(spec: Spec) -> Iterator[str]:
    """A number that is repeated is the number of limits.json."""
    for name, path, key in NUMBERS:
        found = node_at(spec.schemas[name], path)
        if found != spec.limits[key]:
            yield f"schema/{name} has {found} at {path}, limits.json {spec.limits[key]} as {key}."
    for scope, code, key, divisor, unit in SENTENCES:
        number = f"{spec.limits[key] // divisor} {unit}".strip()
        if not re.search(rf"\b{number}\b", spec.errors[scope][code]["message"]):
            yield f"errors.json does not say “{number}” for {code}, as limits.json does."


def check_openapi(spec: Spec) -> Iterator[str]:
    """The interface is valid OpenAPI 3.1 and lists the codes of errors.json, each by its status."""
    document, uri = read_from_filename(str(spec.spec / "openapi.yaml"))
    if not str(document.get("openapi", "")).startswith("3.1"):
        yield "openapi.yaml is not OpenAPI 3.1."
    everything = json.dumps([document, spec.schemas])
    if everything not in _interface_problems:
        _interface_problems[everything] = _interface_problem(document, uri)
    if problem := _interface_problems[everything]:
        yield problem
        return

    listed = set(document["x-codes-anywhere"])
    for address, item in document["paths"].items():
        for method in METHODS:
            if method not in item:
                continue
            codes = yield from _codes_of(spec, document, address, method)
            listed |= codes
            if (address, method) == INGEST:
                for code in sorted(set(spec.errors["request"]) - NOT_INGEST - codes):
                    yield f"openapi.yaml does not list {code} for sending events."
                for code in sorted(codes & NOT_INGEST):
                    yield f"openapi.yaml lists {code} for sending events, which never gets it."
    for code in sorted(listed - set(spec.errors["request"])):
        yield f"openapi.yaml lists {code}, which errors.json does not have."
    for code in sorted(set(spec.errors["request"]) - listed):
        yield f"openapi.yaml lists {code} nowhere."


def _interface_problem(document: Mapping[str, Any], uri: str) -> str | None:
    """Return a sentence on why *document* is no OpenAPI, or None."""
    try:
        for problem in OpenAPIV31SpecValidator(document, base_uri=uri).iter_errors():
            return f"openapi.yaml is not valid: {problem.message.splitlines()[0]}"
    except Unresolvable as exc:
        return f"openapi.yaml refers to {exc.ref}, which is not there."
    return None


def _codes_of(
    spec: Spec, document: Mapping[str, Any], address: str, method: str
) -> Generator[str, None, set[str]]:
    """Yield what is wrong with the codes of one operation, and return them."""
    found: set[str] = set()
    for status, response in document["paths"][address][method]["responses"].items():
        if "$ref" in response:
            response = node_at(document, response["$ref"].removeprefix("#/"))
        codes = response.get("x-codes", [])
        found.update(codes)
        health = "security" in document["paths"][address][method]
        if int(status) >= 400 and not codes and not health:
            yield f"openapi.yaml lists no code for {status} of {method} {address}."
        for code in codes:
            expected = spec.errors["request"].get(code, {}).get("status")
            if expected is not None and expected != int(status):
                yield f"openapi.yaml lists {code} with {status}, errors.json with {expected}."
    return found


def verdict(spec: Spec, validator: jsonschema_rs.Draft202012Validator, event: Any) -> str | None:
    """Return the code with which the plain schema refuses *event*, or None."""
    codes = list(spec.errors["event"])
    found = [_refusal(spec, error.evaluation_path[1:]) for error in validator.iter_errors(event)]
    return min(found, key=codes.index, default=None)


def _refusal(spec: Spec, path: list[str | int]) -> str:
    schema = node = spec.schemas["event.json"]
    code: str = schema["x-refusal"]
    for step in path:
        node = node_at(schema, node["$ref"].removeprefix("#/")) if step == "$ref" else node[step]
        if isinstance(node, dict):
            code = node.get("x-refusal", code)
    return code


def event_of(given: dict[str, Any]) -> Any:
    """Return the event that a case of vectors/event.json gives."""
    event = json.loads(given["eventJson"]) if "eventJson" in given else given["event"]
    if repeat := given.get("repeat"):
        *way, last = repeat["member"]
        holder = event
        for step in way:
            holder = holder[step]
        holder[last] = repeat["text"] * repeat["times"]
    # No schema can see a lone surrogate, and the validator cannot hold one.
    return json.loads(json.dumps(event, ensure_ascii=False).encode("utf-8", "replace"))


def check_vectors(spec: Spec) -> Iterator[str]:
    """The plain schema agrees with every verdict that it can give."""
    for file, vectors in spec.vectors.items():
        names = [case.get("name") for case in vectors["cases"]]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"vectors/{file} has more than one case named “{name}”."

    validator = spec.validator("event.json")
    for case in spec.vectors["event.json"]["cases"]:
        expect = case["expect"]
        if expect["verdict"] == "rejected" and expect["code"] not in spec.errors["event"]:
            yield f"“{case['name']}” expects {expect['code']}, which errors.json does not have."
        expected = expect.get("code") if case["by"] == "schema" else None
        found = verdict(spec, validator, event_of(case["given"]))
        if found != expected:
            yield (
                f"“{case['name']}” ({case['requirement']}) should be "
                f"{expected or 'valid'} by the schema and is {found or 'valid'}."
            )

    validator = spec.validator("batch.json")
    for case in spec.vectors["batch.json"]["cases"]:
        status, code = case["expect"]["status"], case["expect"]["code"]
        if code is not None and spec.errors["request"].get(code, {}).get("status") != status:
            yield f"“{case['name']}” expects {status} with {code}, errors.json does not."
        if case["by"] == "schema":
            valid = validator.is_valid(json.loads(case["given"]["body"]))
            if valid != (status == 202):
                yield f"“{case['name']}” is {'' if valid else 'not '}valid by schema/batch.json."


def requirements(spec: Spec) -> tuple[dict[str, str], list[str]]:
    """Return the numbered sentences of the chapters, and what is wrong with how they stand."""
    found: dict[str, str] = {}
    wrong: list[str] = []
    for chapter in sorted(spec.spec.glob("0*.md")):
        for line in chapter.read_text(encoding="utf-8").splitlines():
            match = REQUIREMENT.match(line)
            if match is None:
                # Chapter 1 explains the words themselves.
                if BINDING.search(line) and not chapter.name.startswith("01"):
                    wrong.append(f"{chapter.name} binds without a number: “{line.strip()}”")
                continue
            prefix, number, sentence = match.groups()
            name = f"{prefix}-{number}"
            if name in found:
                wrong.append(f"{name} stands in {chapter.name} a second time.")
            if not BINDING.search(sentence) or not sentence.endswith("."):
                wrong.append(f"{name} is not one sentence with MUST or SHOULD.")
            found[name] = sentence
    for prefix in sorted({name.split("-")[0] for name in found}):
        numbers = {int(name.split("-")[1]) for name in found if name.startswith(prefix)}
        for number in sorted(set(range(1, max(numbers))) - numbers):
            wrong.append(f"{prefix}-{number} stands in no chapter, though {prefix} goes further.")
    return found, wrong


def check_names(spec: Spec) -> Iterator[str]:
    """A number or a code that a chapter names exists."""
    codes = {*spec.errors["request"], *spec.errors["event"]}
    for chapter in sorted(spec.spec.glob("0[2-9]*.md")):
        text = chapter.read_text(encoding="utf-8")
        for name in sorted(set(LIMIT.findall(text)) - set(spec.limits)):
            yield f"{chapter.name} names the limit {name}, which limits.json does not have."
        for name in sorted(set(CODE.findall(text)) - codes):
            yield f"{chapter.name} names the code {name}, which errors.json does not have."


def check_requirements(spec: Spec) -> Iterator[str]:
    """Every MUST is carried by a vector, by a test that is named, or confessed as pending."""
    found, wrong = requirements(spec)
    yield from wrong

    carried: set[str] = set()
    for file, vectors in spec.vectors.items():
        for case in vectors["cases"]:
            named = case.get("requirement")
            for name in named if isinstance(named, list) else [named]:
                if name not in found:
                    yield f"vectors/{file} carries {name}, which no chapter has."
                carried.add(name)

    coverage = spec.json("coverage.json")
    elsewhere, pending = coverage["elsewhere"], coverage["pending"]
    for name, (file, text) in elsewhere.items():
        path = spec.root / file
        if not path.is_file() or text not in path.read_text(encoding="utf-8"):
            yield f"coverage.json says that {file} has “{text}” for {name}; it has not."
    for name in sorted({*elsewhere, *pending} - set(found)):
        yield f"coverage.json names {name}, which no chapter has."
    for name in pending:
        if name in carried or name in elsewhere:
            yield f"{name} is tested now; take it out of `pending` in coverage.json."
    for name, sentence in found.items():
        if "MUST" in sentence and name not in {*carried, *elsewhere, *pending}:
            yield f"{name} is a MUST that no vector and no test carries."


def table(spec: Spec, scope: str) -> str:
    """Return the table of the codes of *scope* for chapter 4."""
    if scope == "event":
        rows = [f"| `{code}` | {entry['message']} |" for code, entry in spec.errors[scope].items()]
        return "\n".join(["| code | means |", "|---|---|", *rows])
    rows = [
        f"| `{code}` | {entry['status']} | {'yes' if entry['retryable'] else 'no'} "
        f"| {entry['message']} |"
        for code, entry in spec.errors[scope].items()
    ]
    return "\n".join(["| code | status | again | means |", "|---|---|---|---|", *rows])


def with_tables(spec: Spec, text: str) -> str:
    """Return chapter 4 with the tables that errors.json asks for."""
    for scope in ("request", "event"):
        before, start, rest = text.partition(f"<!-- codes: {scope} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if end:
            text = f"{before}{start}{table(spec, scope)}\n{end}{after}"
    return text


def check_tables(spec: Spec) -> Iterator[str]:
    """Chapter 4 lists the codes of errors.json."""
    text = (spec.spec / "04-answers.md").read_text(encoding="utf-8")
    if with_tables(spec, text) != text or text.count("<!-- codes: ") != 2:
        yield "The tables of 04-answers.md are not errors.json; run python spec/tools/agree.py."


def check_copies(spec: Spec) -> Iterator[str]:
    """The files that the packages carry with them are those of spec/."""
    expected = copies(spec.spec)
    found = {
        copy.relative_to(spec.root).as_posix(): copy.read_bytes()
        for copy in spec.root.glob("*/src/*/_spec/*.json")
    }
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            yield f"{name} is not as spec/ has it; run python spec/tools/copies.py."


Check = Callable[[Spec], Iterator[str]]

# What the other checks read; they run only where these find nothing.
FOUNDATIONS: list[Check] = [check_schemas, check_errors]
CHECKS: list[Check] = [
    check_limits,
    check_openapi,
    check_vectors,
    check_names,
    check_requirements,
    check_tables,
    check_copies,
]


def main(arguments: list[str] | None = None) -> int:
    """Print every disagreement; exit 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: this one)")
    options = parser.parse_args(arguments)

    spec = Spec(options.root)
    problems = [problem for check in FOUNDATIONS for problem in check(spec)]
    if not problems and not options.check:
        chapter = spec.spec / "04-answers.md"
        chapter.write_text(with_tables(spec, chapter.read_text(encoding="utf-8")), encoding="utf-8")
    if not problems:
        problems = [problem for check in CHECKS for problem in check(spec)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
