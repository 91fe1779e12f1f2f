"""Write typed functions for events, from JSON Schemas of their properties.

    schemas = load("events.json")
    Path("events.py").write_text(generate(schemas, "events.json"), encoding="utf-8")

so that a type checker knows what `events.checkout_completed(order_id="o-1", cart_value=9.5)` needs.
Schemas stand in one file, `{"events": {"checkout_completed": {...}}}` or a JSON Schema whose
`$defs` are the events; or in a folder of `<event>.json`. What a schema says beyond Python's types
(lengths, patterns, conditions) is left to the collector.
"""

from __future__ import annotations

from analytics_sdk.codegen.documents import events_of, load
from analytics_sdk.codegen.module import check, generate
from analytics_sdk.codegen.schema import CodegenError

__all__ = ["CodegenError", "check", "events_of", "generate", "load"]
