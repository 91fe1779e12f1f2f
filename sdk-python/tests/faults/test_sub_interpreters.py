"""A second interpreter in the process: refused, and nothing comes to harm."""

import pytest


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_a_sub_interpreter_is_refused(run_script, collector, kind):
    """With words that help; and the first interpreter delivers as ever."""
    program = run_script(f"""
        import textwrap
        import analytics_sdk as analytics

        try:
            import _interpreters as interpreters
            made = interpreters.create({kind!r})
        except ImportError:
            import _xxsubinterpreters as interpreters
            made = interpreters.create(isolated={kind == "isolated"})
        analytics.track("before")
        interpreters.run_string(made, textwrap.dedent('''
            try:
                import analytics_sdk
            except ImportError as error:
                print(error, flush=True)
        '''))
        interpreters.destroy(made)
        analytics.track("after")
        assert analytics.flush(20)
    """)

    assert program.returncode == 0, program.stderr
    assert "main interpreter" in program.stdout
    assert "WSGIApplicationGroup" in program.stdout
    assert collector.names == ["before", "after"]
