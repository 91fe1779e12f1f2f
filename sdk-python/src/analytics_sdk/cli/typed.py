"""`codegen`: write typed functions for the events that schemas describe."""

from __future__ import annotations

import argparse
from pathlib import Path

from analytics_sdk import codegen
from analytics_sdk.cli.console import Console, Failure, Outcome


def generate(options: argparse.Namespace, console: Console) -> Outcome:
    """Write the file, or with --check tell how it differs from what would be written."""
    output: Path = options.output
    try:
        code = codegen.generate(codegen.load(options.source), str(options.source))
        difference = codegen.check(output, code)
    except codegen.CodegenError as error:
        raise Failure("failed", str(error)) from None
    except UnicodeDecodeError:
        raise Failure("failed", f"{output} is no Python file, and stays as it is") from None
    if options.check and difference:
        console.say(difference)
        message = f"{output} is out of date; run the same without --check"
        raise Failure("failed", message, file=str(output), difference=difference)
    if difference:
        output.write_text(code, encoding="utf-8")
    facts = {"file": str(output), "changed": bool(difference)}
    return Outcome("ok", f"{output} is {'written' if difference else 'up to date'}", facts)
