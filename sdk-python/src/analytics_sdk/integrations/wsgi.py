"""Analytics for any WSGI application.

    application = AnalyticsMiddleware(application)

Events that a request tracks, in the middle of a streamed answer too, say who made it and where.
Its own event is tracked when the answer is exhausted or closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import ref

from analytics_sdk.integrations._exchange import Body, Exchange
from analytics_sdk.integrations._options import GivenOptions, checked_options
from analytics_sdk.integrations._request import headers_of, quoted, scope_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

Environ: TypeAlias = dict[str, Any]
Application: TypeAlias = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

# Where a framework finds a reference to the exchange of its request in the environ.
EXCHANGE_KEY: Final = "analytics_sdk.exchange"


class AnalyticsMiddleware:
    """
    A WSGI application round another; takes the options that `GivenOptions` explains.

    WSGI has no routes: say with `route=` how to find the template in the environ. Raises
    ConfigError, which names every mistake at once.
    """

    def __init__(self, app: Application, **options: Unpack[GivenOptions]) -> None:
        self.app = app
        self._options = checked_options(options)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, as the application does."""
        path = quoted(
            f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}".encode(
                "latin-1", "replace"
            )
        )
        if self._options.ignores(path, environ):
            return self.app(environ, start_response)
        scope = scope_of(
            self._options,
            headers_of(environ),
            scheme=environ.get("wsgi.url_scheme", "http"),
            path=path,
            query=environ.get("QUERY_STRING", ""),
            ip=environ.get("REMOTE_ADDR"),
        )
        exchange = Exchange(self._options, environ, environ.get("REQUEST_METHOD", ""), scope)
        # Weak, for the exchange holds the environ: a cycle would outlive the request.
        environ[EXCHANGE_KEY] = ref(exchange)

        def start(status: str, *arguments: Any) -> Any:
            write = start_response(status, *arguments)
            exchange.status_code = _code_of(status)
            return write

        with exchange:
            pieces = self.app(environ, start)
        is_bare = _is_bare(pieces, environ)
        if is_bare or exchange.is_complete:
            exchange.finish()
        return pieces if is_bare else Body(exchange, pieces)


def _code_of(status: str) -> int | None:
    return int(code) if (code := status[:3]).isdecimal() else None


def _is_bare(pieces: Any, environ: Environ) -> bool:
    """Tell whether no code of the application is left to run, and the server has a use for that.

    Servers look at the length of a list, and send the file of their own wrapper faster.
    """
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(pieces, (list, tuple)) or (
        isinstance(wrapper, type) and isinstance(pieces, wrapper)
    )
