"""The client behind the module-level functions: made by `init()`, or from the environment."""

from __future__ import annotations

from analytics_sdk.client import Client
from analytics_sdk.config import is_in_environment
from analytics_sdk.errors import ConfigError
from analytics_sdk.logs import QuietLogger
from analytics_sdk.process import restart_after_fork
from analytics_sdk.stats import Counters, Stats

ADVICE = (
    "Nothing is tracked: call analytics_sdk.init(api_key, api_url) first, or set "
    "ANALYTICS_API_KEY and ANALYTICS_API_URL."
)


class DefaultClient:
    """The place of the default client, and the account of calls while it is empty."""

    def __init__(self) -> None:
        self._log = QuietLogger(__name__)
        # A dict for its atomic setdefault(): two threads may make the first call at once.
        self._place: dict[str, Client] = {}
        self._warned = False
        self.start_afresh()

    def start_afresh(self) -> None:
        """Count anew in a forked child; the client looks after itself."""
        self._counters = Counters()

    def get(self) -> Client | None:
        """Return the client, made from the environment if that is enough, or None."""
        client = self._place.get("client")
        if client is None and is_in_environment():
            try:
                client = self._place.setdefault("client", Client())
            except ConfigError as error:
                self._log.warning("bad_environment", str(error))
        return client

    def put(self, client: Client) -> None:
        """Make *client* the default; one that was it before delivers what it has and ends."""
        before, self._place = self._place.get("client"), {"client": client}
        if before is not None:
            before.shutdown()

    def refuse(self) -> bool:
        """Count a call that no client can take, and say once what to do about it."""
        restart_after_fork(self)
        self._counters.refuse("not_initialised")
        if not self._warned:
            self._warned = True
            self._log.warning("not_initialised", ADVICE)
        return False

    def stats(self) -> Stats:
        """Return the account of the client, or of the calls that found none."""
        client = self._place.get("client")
        return self._counters.stats(queued=0) if client is None else client.stats()
