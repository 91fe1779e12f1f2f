"""SQL in files, by the names of its statements."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from analytics_collector.adapters.sqlfile import load_blocks, parse_blocks

QUERIES = files("analytics_collector.adapters.postgres") / "queries"


def test_a_statement_is_all_between_two_names():
    """Comments that explain it stay with it; what stands above the first name is for readers."""
    text = "-- About.\n\n-- name: one\n-- Why.\nselect 1\n\n-- name: two\nselect\n    2\n"

    assert parse_blocks(text) == {"one": "-- Why.\nselect 1", "two": "select\n    2"}


def test_a_name_that_stands_twice_is_a_mistake():
    """The second would silently take the place of the first."""
    with pytest.raises(ValueError, match="twice"):
        parse_blocks("-- name: one\nselect 1\n-- name: one\nselect 2\n")


@pytest.mark.parametrize("filename", sorted(entry.name for entry in QUERIES.iterdir()))
def test_every_file_of_ours_is_named_statements(filename):
    """No statement is empty, none is two, none holds a value that was pasted in."""
    blocks = load_blocks("analytics_collector.adapters.postgres", f"queries/{filename}")

    assert blocks
    for statement in blocks.values():
        code = re.sub(r"--.*", "", statement).strip()
        assert code
        assert ";" not in code.rstrip(";")
        assert "%s" not in code
