"""The catalogue of mutants is of the code as it is; `nox -s mutants` runs it."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from mutants.__main__ import DEAD, SURVIVED, UNDECIDED, UNSOUND, Run, run_tests, verdict_on
from mutants.catalogue import MUTANTS, Mutant, StaleMutantError

ROOT = Path(__file__).parents[2]
MARKED = Mutant(
    name="says no", promise="yes is said", path="answer.py", text="YES", replacement="NO",
    tests=("a/test_b.py::test_c", "a/test_b.py::test_d"),
)  # fmt: skip
C, D = MARKED.tests
LONG_TEST = """
import pytest
from answer import YES

@pytest.mark.long
def test_c():
    assert YES
"""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_can_still_be_made_and_its_tests_exist(mutant: Mutant) -> None:
    """Else a guard would be without a test that was seen to fail, and nobody would know."""
    mutant.check(ROOT)
    assert mutant.text != mutant.replacement
    assert mutant.tests
    for test in mutant.tests:
        path, _, name = test.partition("::")
        defined = ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        assert name in {node.name for node in defined if isinstance(node, ast.FunctionDef)}, test


def test_no_two_mutants_have_the_same_name() -> None:
    """By their names they are chosen."""
    assert [name for name, count in Counter(m.name for m in MUTANTS).items() if count > 1] == []


@pytest.mark.parametrize("content", ["", "MAYBE", "YES YES"])
def test_a_mutant_of_other_code_is_told_and_not_made(tmp_path: Path, content: str) -> None:
    """With its name, its file and the text that is no longer there once."""
    (tmp_path / "answer.py").write_text(content)

    with pytest.raises(StaleMutantError, match=r"says no.*answer\.py.*not once.*YES"):
        MARKED.make_in(tmp_path)
    assert (tmp_path / "answer.py").read_text() == content


@pytest.mark.parametrize(
    ("exit_code", "outcomes", "word"),
    [
        (1, {C: "failed", D: "failed"}, DEAD),
        (1, {C: "failed", D: "passed"}, SURVIVED),
        (1, {C: "failed"}, SURVIVED),
        (0, {C: "passed", D: "passed"}, SURVIVED),
        (1, {C: "failed", D: "skipped"}, UNDECIDED),
        (0, {C: "skipped", D: "skipped"}, UNDECIDED),
        (1, {C: "failed", D: "error"}, UNSOUND),
        (1, {C: "failed", D: "failed", "a.test_b": "error"}, UNSOUND),
        (2, {}, UNSOUND),
        (4, {}, UNSOUND),
        (None, {C: "failed"}, UNSOUND),
    ],
)
def test_a_mutant_is_dead_only_if_each_of_its_tests_failed_by_itself(
    exit_code: int | None, outcomes: dict[str, str], word: str
) -> None:
    """What can't be imported, or set up, or does not end, has not noticed anything."""
    assert verdict_on(MARKED, Run(exit_code, outcomes, 1.0)).word == word


def test_a_real_mutant_dies_in_a_copy_and_leaves_the_sources_alone() -> None:
    """As `nox -s mutants` makes it."""
    mutant = next(m for m in MUTANTS if m.name == "ignores Retry-After")
    before = (ROOT / mutant.path).read_text(encoding="utf-8")
    tests = ("sdk-python/tests/test_retry.py::test_spec_vector",)

    run = run_tests(tests, mutant)

    assert (run.exit_code, run.outcomes) == (1, {tests[0]: "failed"})
    assert (ROOT / mutant.path).read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("replacement", "word"), [("True", SURVIVED), ("False", DEAD), ("(", UNSOUND)]
)
def test_a_mutant_is_judged_by_its_tests_in_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replacement: str, word: str
) -> None:
    """Also by one that is long; and one that breaks the import of its module is not dead."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they are most of a start
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "answer.py").write_text("YES = True\n")
    (folder / "test_b.py").write_text(LONG_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -m 'not long'\nmarkers = long\n")
    mutant = replace(
        MARKED, path="a/answer.py", text="True", replacement=replacement, tests=MARKED.tests[:1]
    )

    run = run_tests(mutant.tests, mutant, root=tmp_path)

    assert verdict_on(mutant, run).word == word
    assert (folder / "answer.py").read_text() == "YES = True\n"
