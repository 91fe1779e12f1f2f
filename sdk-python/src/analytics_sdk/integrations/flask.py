"""Analytics for Flask.

    app = Flask(__name__)
    app.config["ANALYTICS"] = {"api_key": "ak_live_...", "api_url": "http://127.0.0.1:8000"}
    Analytics(app)                     # or, in a factory: analytics.init_app(app)

`ANALYTICS` takes the settings of `Client()` and the options that `GivenOptions` explains. With
settings for a client, `init_app()` makes it the default client, so that `analytics_sdk.track()`
works in views, commands and tasks; without, that is the program's own, or the environment's. Give
apps that share a process but not a project a client each: `Analytics(app, client=Client(...))`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from flask import (
    Flask,
    Response,
    got_request_exception,
    request,
    request_finished,
)

import analytics_sdk
from analytics_sdk.context import Identifier
from analytics_sdk.errors import ConfigError
from analytics_sdk.integrations._exchange import Exchange
from analytics_sdk.integrations._options import (
    GivenOptions,
    Options,
    checked_options,
    split_settings,
)
from analytics_sdk.integrations._request import template_of
from analytics_sdk.integrations.wsgi import EXCHANGE_KEY, AnalyticsMiddleware, Environ

if TYPE_CHECKING:
    from typing_extensions import Unpack

NAME: Final = "analytics_sdk"
ROUTE_KEY: Final = "analytics_sdk.route"


class Analytics:
    """
    Let the events of a request say who made it and where, and track one of its own.

    Takes the options that `GivenOptions` explains; they win over `app.config["ANALYTICS"]`. The
    hooks `user_id` and `route` get Flask's request and run inside its context; `ignore` gets the
    WSGI environ. Raises ConfigError, which names every mistake at once.
    """

    def __init__(self, app: Flask | None = None, **options: Unpack[GivenOptions]) -> None:
        self._given = options
        checked_options(options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve *app*, as its configuration says."""
        if NAME in app.extensions:
            raise ConfigError(["This app has its Analytics already."])
        for_client, configured = split_settings(app.config.get("ANALYTICS", {}))
        options = checked_options({**configured, **self._given})
        if for_client and options.client is None:
            analytics_sdk.init(**for_client)
        # Signals hold their receivers weakly, so the app keeps this one.
        app.extensions[NAME] = _Watcher(app, options)


class _Watcher:
    """Tells the exchange of each request of one app what only Flask knows."""

    def __init__(self, app: Flask, options: Options) -> None:
        self._options = options
        request_finished.connect(self._note_answer, app)
        got_request_exception.connect(self._note_error, app)
        app.wsgi_app = AnalyticsMiddleware(  # type: ignore[method-assign]
            app.wsgi_app,
            client=options.client,
            operations=options.operations,
            category=options.category,
            user_id=None if options.user_id is None else self._user_of,
            route=lambda environ: environ.get(ROUTE_KEY),
            ignore=options.ignore,
            failure_from_status=options.failure_from_status,
            capture_ip=options.capture_ip,
            capture_query=options.capture_query,
            trust_forwarded=options.trust_forwarded,
        )

    def _user_of(self, environ: Environ) -> Identifier | None:
        return self._options.user_of(environ["werkzeug.request"])

    def _note_answer(self, app: Flask, response: Response, **_: Any) -> None:
        if (exchange := self._note()) is not None:
            # The answer to an error looks like a stream, but for its length.
            exchange.is_complete = not response.is_streamed or response.content_length is not None

    def _note_error(self, app: Flask, exception: BaseException, **_: Any) -> None:
        if (exchange := self._note()) is not None:
            exchange.error_type = type(exception).__name__

    def _note(self) -> Exchange | None:
        """Keep what one can't ask for any more when Flask has left the request's context."""
        environ = request.environ
        # There is none if the request is ignored, or was made up in a test.
        reference: ref[Exchange] | None = environ.get(EXCHANGE_KEY)
        exchange = None if reference is None else reference()
        if exchange is not None:
            rule = request.url_rule
            environ[ROUTE_KEY] = self._options.route_of(request) or (
                None if rule is None else template_of(rule.rule)
            )
            if self._options.user_id is not None:
                exchange.scope.user_id = self._options.user_of(request)
        return exchange
