"""OpenTelemetry: a span for each request, in the trace that the sender's `traceparent` names.

Off, and not even imported, unless the environment names where spans go: the standard's own
variables hold, OTEL_EXPORTER_OTLP_ENDPOINT and so on. Needs the extra `[otel]`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from starlette.types import ASGIApp

from analytics_collector.errors import ConfigurationError

# Those who watch ask all the time, and nothing happens.
_UNTRACED: Final = "livez,readyz,health,metrics"


def traced(app: ASGIApp) -> ASGIApp:
    """Return *app* with a span round each request; what it does not send at exit is lost.

    Raises `ConfigurationError` if the packages are missing.
    """
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.instrumentation") is None:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but tracing is not installed: "
            'install "analytics-collector[otel]"'
        )
    # Only here, since few have them and they take long to import.
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware  # noqa: PLC0415
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "analytics-collector"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return OpenTelemetryMiddleware(
        app,
        tracer_provider=provider,
        excluded_urls=_UNTRACED,
        exclude_spans=["receive", "send"],
    )
