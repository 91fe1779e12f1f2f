"""Break the code on purpose, one guard at a time, and see that a test notices: `nox -s mutants`.

Each mutant is made in a copy of the sources. There the tests that keep its promise must fail, by an
assertion of theirs: a module that can't be imported or a fixture that breaks proves nothing. In a
copy that nobody has touched the same tests must pass. Arguments choose: those with one of these
words in their name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from xml.etree import ElementTree

from mutants.catalogue import MUTANTS, Mutant, StaleMutantError

ROOT = Path(__file__).parents[2]
SOURCES = ("collector/src", "sdk-python/src", "tests")
# Nothing that only lies about: environments, caches, the repository.
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist")
# A test that is named runs, also one that is long.
_PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "")
_PATIENCE_S = 180.0

PASSED, FAILED, ERROR, SKIPPED = "passed", "failed", "error", "skipped"
_BY_SERIOUSNESS = (ERROR, FAILED, PASSED, SKIPPED)
DEAD, SURVIVED, UNDECIDED = "dead", "SURVIVED", "undecided"
SOUND, UNSOUND = "sound", "UNSOUND"


class Verdict(NamedTuple):
    """What came out, and why it is not as it should be."""

    word: str
    reason: str = ""


class Run(NamedTuple):
    """How pytest ended, and what became of each test; of one with parameters, of the worst."""

    exit_code: int | None
    outcomes: Mapping[str, str]
    seconds: float


def verdict_on(mutant: Mutant, run: Run) -> Verdict:
    """Return whether the tests that are to notice *mutant* did."""
    outcomes = {test: run.outcomes.get(test, "not run") for test in mutant.tests}
    if run.exit_code is None:
        return Verdict(UNSOUND, f"its tests did not end within {_PATIENCE_S:.0f} s")
    if run.exit_code not in (0, 1) or ERROR in run.outcomes.values():
        return Verdict(UNSOUND, f"its tests broke rather than failed: {outcomes}")
    unmoved = [test for test, outcome in outcomes.items() if outcome != FAILED]
    if not unmoved:
        return Verdict(DEAD)
    if all(outcomes[test] == SKIPPED for test in unmoved):
        return Verdict(UNDECIDED, f"skipped on this machine: {', '.join(unmoved)}")
    return Verdict(SURVIVED, f"breaks “{mutant.promise}” and nothing noticed: {', '.join(unmoved)}")


def verdict_on_original(run: Run) -> Verdict:
    """Return whether the tests pass where nothing was changed."""
    red = [test for test, outcome in run.outcomes.items() if outcome in (FAILED, ERROR)]
    if run.exit_code == 0 and not red:
        return Verdict(SOUND)
    return Verdict(UNSOUND, f"tests fail without any mutant (exit {run.exit_code}): {red}")


def run_tests(
    tests: Iterable[str],
    mutant: Mutant | None,
    patience_s: float = _PATIENCE_S,
    root: Path = ROOT,
) -> Run:
    """Run *tests* in a copy of everything below *root*, in which *mutant* was made."""
    with TemporaryDirectory(prefix="analytics-mutant-") as folder:
        copy = Path(folder, "copy")
        shutil.copytree(root, copy, ignore=_LEFT_OUT)
        if mutant is not None:
            mutant.make_in(copy)
        report = Path(folder, "report.xml")
        command = [sys.executable, *_PYTEST, f"--junitxml={report}", *tests]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(str(copy / source) for source in SOURCES),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        started = time.monotonic()
        try:
            exit_code = subprocess.run(
                command, cwd=copy, env=environment, timeout=patience_s, check=False,
                capture_output=True,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            exit_code = None
        seconds = time.monotonic() - started
        return Run(exit_code, _outcomes(report, tests), seconds)


def _outcomes(report: Path, tests: Iterable[str]) -> dict[str, str]:
    """Return what *report* says of each of *tests*."""
    if not report.exists():
        return {}
    names = {_name_in_report(test): test for test in tests}
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name', '').partition('[')[0]}"
        test = names.get(name, name)
        found[test] = min(found.get(test, SKIPPED), _outcome(case), key=_BY_SERIOUSNESS.index)
    return found


def _name_in_report(test: str) -> str:
    return test.replace(".py::", ".").replace("/", ".")


def _outcome(case: ElementTree.Element) -> str:
    elements = {element.tag for element in case}
    for element, outcome in (("error", ERROR), ("failure", FAILED), ("skipped", SKIPPED)):
        if element in elements:
            return outcome
    return PASSED


def _judge(mutant: Mutant) -> Verdict:
    run = run_tests(mutant.tests, mutant)
    verdict = verdict_on(mutant, run)
    _print(verdict, mutant.name, run.seconds)
    return verdict


def _judge_original(mutants: Iterable[Mutant]) -> Verdict:
    tests = dict.fromkeys(test for mutant in mutants for test in mutant.tests)
    run = run_tests(tests, None, len(tests) * _PATIENCE_S)
    verdict = verdict_on_original(run)
    _print(verdict, "what nobody has touched", run.seconds)
    return verdict


def _print(verdict: Verdict, name: str, seconds: float) -> None:
    print(f"{verdict.word:<10} {seconds:5.1f} s  {name}", flush=True)
    if verdict.reason:
        print(f"{'':20}{verdict.reason}", flush=True)


def main(words: Sequence[str]) -> int:
    """Return 0 if every chosen mutant is dead, or can't be judged here; else 1."""
    chosen = [m for m in MUTANTS if not words or any(word in m.name for word in words)]
    if not chosen:
        sys.exit(f"no mutant has one of these words in its name: {', '.join(words)}")
    try:
        for mutant in chosen:
            mutant.check(ROOT)
    except StaleMutantError as error:
        sys.exit(str(error))
    # Most of a test's time is waiting for servers to start.
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        original = pool.submit(_judge_original, chosen)
        verdicts = [*pool.map(_judge, chosen), original.result()]
    counts = Counter(verdict.word for verdict in verdicts)
    print(f"{len(chosen)} mutants: {', '.join(f'{n} {word}' for word, n in counts.items())}")
    return 1 if counts[SURVIVED] or counts[UNSOUND] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
