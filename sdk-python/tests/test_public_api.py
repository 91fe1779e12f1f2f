"""What programs may rely on: every public name, as tests/public_api.txt has it, and documented.

After a change that is meant: python sdk-python/tests/test_public_api.py
"""

import ast
import difflib
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from types import FunctionType
from typing import get_origin

import pytest

import analytics_sdk

SNAPSHOT = Path(__file__).with_name("public_api.txt")
HOW_TO_UPDATE = (
    "The public API is not as tests/public_api.txt has it. Programs rely on these names. If the "
    "change is meant, write the file anew and commit it:\n\n"
    "    python sdk-python/tests/test_public_api.py\n"
)
# All other modules are ours alone, and may change with every release.
PUBLIC = {
    "analytics_sdk",
    "analytics_sdk.codegen",
    "analytics_sdk.context",
    "analytics_sdk.pytest_plugin",
    "analytics_sdk.testing",
}
# Each module that stands in them directly is public, unless its name begins with an underscore.
IN_PUBLIC_PACKAGES = re.compile(r"analytics_sdk\.(compat|integrations)\.[a-z]\w*")
# Whose names are not ours to choose.
FOREIGN = {"analytics_sdk.compat.segment"}
# How the name of a number says what it is.
UNITS = ("_s", "_ms", "_rate")
LINE = 100


def public_modules():
    """Return the names of all modules that programs may import."""
    root = Path(analytics_sdk.__file__).parent
    names = {
        ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in root.rglob("*.py")
    }
    return sorted(name for name in names if name in PUBLIC or IN_PUBLIC_PACKAGES.fullmatch(name))


MODULES = public_modules()


def load(name):
    """Import a module; a framework that is not installed skips the test."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("analytics_sdk", ""):
            raise
        pytest.skip(f"{missing} is not installed")


def is_ours(value):
    return value.__module__.split(".")[0] == "analytics_sdk"


# By type(), for isinstance() would ask Django's settings, which are not there.
def is_class(value):
    # For Python 3.10 `Callable[...]` is a class as well.
    return issubclass(type(value), type) and get_origin(value) is None


def is_function(value):
    return type(value) is FunctionType


def is_fixture(value):
    return type(value).__name__ == "FixtureFunctionDefinition"


def names_of(module):
    """Return the public names of a module: those it lists, else those it defines."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name
        for name, value in vars(module).items()
        if is_function(value) or is_class(value) or is_fixture(value)
        if value.__module__ == module.__name__ and not name.startswith("_")
    )


def members_of(cls):
    """Yield the public members of a class, but for those of a base that is public itself."""
    bases = [
        base
        for base in cls.__mro__
        if is_ours(base) and (base is cls or base.__name__ not in analytics_sdk.__all__)
    ]
    found = {}
    for base in reversed(bases):
        found.update(dict.fromkeys(attributes_of(base)) | vars(base))
    for name, member in sorted(found.items()):
        if not name.startswith("_") or name in ("__call__", "__enter__"):
            yield name, member


def attributes_of(cls):
    """Return the attributes of a class, and those that its __init__ sets: {name: annotation}."""
    found = dict(inspect.get_annotations(cls))
    init = vars(cls).get("__init__")
    # That of a dataclass has no source, and sets what is annotated.
    if not is_function(init) or init.__code__.co_filename.startswith("<"):
        return found
    given = {name: each.annotation for name, each in inspect.signature(init).parameters.items()}
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(init)))):
        if isinstance(node, ast.AnnAssign):
            targets, annotation = [node.target], ast.unparse(node.annotation)
        elif isinstance(node, ast.Assign):
            targets, annotation = node.targets, given.get(ast.unparse(node.value))
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                found.setdefault(target.attr, annotation)
    return found


def function_of(member):
    """Return the function behind a member of a class, or None if there is none."""
    if isinstance(member, (classmethod, staticmethod)):
        return member.__func__
    if isinstance(member, property):
        return member.fget
    return member if is_function(member) else None


def written(annotation):
    """Return an annotation as the source has it."""
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "None")


def lines_of_call(start, function, *, is_method=False):
    """Return a function with its arguments: on one line if they fit there, else on one each."""
    signature = inspect.signature(function)
    arguments, previous = [], None
    for parameter in list(signature.parameters.values())[is_method:]:
        is_first_by_name = (
            parameter.kind is parameter.KEYWORD_ONLY
            and getattr(previous, "kind", None) is not parameter.KEYWORD_ONLY
        )
        if is_first_by_name and getattr(previous, "kind", None) is not parameter.VAR_POSITIONAL:
            arguments.append("*")
        # Without the type of the default, whose text depends on the version of Python.
        text = str(parameter.replace(annotation=parameter.empty)).replace("=", " = ", 1)
        if parameter.annotation is not parameter.empty:
            name, equals, default = text.partition(" = ")
            text = f"{name}: {written(parameter.annotation)}{equals}{default}"
        arguments.append(text)
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments += options_of(function, str(parameter.annotation))
        previous = parameter
    result = signature.return_annotation
    end = "" if result is signature.empty else f" -> {written(result)}"
    indent = " " * (len(start) - len(start.lstrip()) + 4)
    if inspect.iscoroutinefunction(function):
        start = f"{indent[4:]}async {start.lstrip()}"
    line = f"{start}({', '.join(arguments)}){end}"
    if len(line) <= LINE:
        return [line]
    return [f"{start}(", *(f"{indent}{argument}," for argument in arguments), f"{indent[4:]}){end}"]


def options_of(function, annotation):
    """Return what `**options: Unpack[GivenOptions]` takes, one line each."""
    name = annotation.removeprefix("Unpack[").removesuffix("]")
    if name == annotation:
        return []
    options = function.__globals__[name].__annotations__
    return [f"    {key}: {each.__forward_arg__}" for key, each in options.items()]


def lines_of_class(name, cls):
    """Yield the lines of the snapshot for a class."""
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    start = f"class {name}" + (f"[{bases}]" if bases else "")
    if has_init(cls):
        *lines, last = lines_of_call(start, cls.__init__, is_method=True)
        yield from [*lines, last.removesuffix(" -> None")]
    else:
        yield start
    attributes = {}
    for base in reversed(cls.__mro__):
        attributes.update(attributes_of(base) if is_ours(base) else {})
    for member_name, member in members_of(cls):
        function = function_of(member)
        start = f"    {member_name}"
        if function is None:
            annotation = attributes.get(member_name)
            yield f"{start}: {written(annotation)}" if annotation else start
        elif isinstance(member, property):
            yield f"{start}: {written(inspect.signature(function).return_annotation)} (property)"
        else:
            is_method = not isinstance(member, staticmethod)
            yield from lines_of_call(start, function, is_method=is_method)


def has_init(cls):
    """Tell whether a class of ours says how it is made."""
    return any("__init__" in vars(base) for base in cls.__mro__ if is_ours(base))


def api_of(module):
    """Return the lines of the snapshot for a module."""
    lines = []
    for name in names_of(module):
        value = getattr(module, name)
        if is_class(value):
            lines += lines_of_class(name, value)
        elif is_function(value):
            lines += lines_of_call(name, value)
        elif is_fixture(value):
            lines += lines_of_call(f"fixture {name}", inspect.unwrap(value))
        else:
            kind = "TypeAlias" if get_origin(value) else type(value).__name__
            annotation = inspect.get_annotations(module).get(name, kind)
            lines.append(f"{name}: {written(annotation)}")
    return lines


def read_snapshot():
    """Return the lines of each module in the committed file."""
    sections = {}
    for line in SNAPSHOT.read_text().splitlines():
        if line.startswith("# "):
            sections[line.removeprefix("# ")] = lines = []
        elif line:
            lines.append(line)
    return sections


def callables_of(module):
    """Yield the name and the object of every public class, method and function."""
    for name in names_of(module):
        value = getattr(module, name)
        if is_function(value) or is_class(value):
            yield name, value
        if is_fixture(value):
            yield name, inspect.unwrap(value)
        if is_class(value):
            for member_name, member in members_of(value):
                function = function_of(member)
                if function is not None and not member_name.startswith("_"):
                    yield f"{name}.{member_name}", function


def test_the_snapshot_has_every_public_module():
    """No more, and no less."""
    assert sorted(read_snapshot()) == MODULES, HOW_TO_UPDATE


@pytest.mark.parametrize("name", MODULES)
def test_the_public_api_is_that_of_the_snapshot(name):
    """A name that goes, or changes its arguments, breaks somebody's program."""
    wanted, found = read_snapshot().get(name, []), api_of(load(name))
    change = "\n".join(difflib.unified_diff(wanted, found, SNAPSHOT.name, name, lineterm=""))

    assert not change, f"{HOW_TO_UPDATE}\n{change}"


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_documented(name):
    """An editor, help() and the reference show what the docstring says."""
    module = load(name)
    undocumented = [each for each, value in callables_of(module) if not inspect.getdoc(value)]

    assert module.__doc__
    assert undocumented == []


@pytest.mark.parametrize("name", sorted({*MODULES} - FOREIGN))
def test_numbers_say_their_unit(name):
    """`timeout_s`, not `timeout`: so that nobody gives milliseconds."""
    nameless = [
        f"{each}({parameter.name})"
        for each, value in callables_of(load(name))
        if is_function(value) or has_init(value)
        for parameter in inspect.signature(value).parameters.values()
        if "float" in str(parameter.annotation) and not parameter.name.endswith(UNITS)
    ]

    assert nameless == []


def write_snapshot():
    """Write the snapshot; what can't be imported here stays as it was."""
    before = read_snapshot() if SNAPSHOT.exists() else {}
    sections = []
    for name in MODULES:
        try:
            lines = api_of(load(name))
        except pytest.skip.Exception as missing:
            print(f"{name} stays as it was: {missing}")
            lines = before.get(name, [])
        sections.append("\n".join([f"# {name}", "", *lines, ""]))
    SNAPSHOT.write_text("\n".join(sections))


if __name__ == "__main__":
    write_snapshot()
