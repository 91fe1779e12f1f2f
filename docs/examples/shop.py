"""Serve the example shop, a page whose clicks go to a running collector, at `/demo/shop/`."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SHOP = Path(__file__).parents[2] / "sdk-js-shim" / "examples" / "shop"
PATH = "/demo/shop"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}


@dataclass
class _Site:
    pages: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Type and content of each file, by its path."""
    policy: str = ""


@contextmanager
def shop(running: dict[str, Any]) -> Iterator[str]:
    """Serve the shop with a key that only its own pages may use; gives its address."""
    site = _Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, site))
    origin = f"http://127.0.0.1:{server.server_port}"
    site.pages = _pages(running["url"], _make_key(running, origin))
    site.policy = (
        f"default-src 'none'; style-src 'self'; script-src 'self' {running['url']}; "
        f"connect-src {running['url']}"
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{origin}{PATH}"
    finally:
        server.shutdown()
        server.server_close()


def _pages(collector_url: str, key: str) -> dict[str, tuple[str, bytes]]:
    pages = {}
    for file in SHOP.iterdir():
        text = file.read_text(encoding="utf-8")
        text = text.replace("COLLECTOR_URL", collector_url).replace("API_KEY", key)
        name = "" if file.name == "index.html" else file.name
        pages[f"{PATH}/{name}"] = (TYPES[file.suffix], text.encode())
    return pages


def _make_key(running: dict[str, Any], origin: str) -> str:
    wanted = {"name": "example shop", "scopes": ["ingest"], "allowedOrigins": [origin]}
    request = urllib.request.Request(
        f"{running['url']}/api/v1/admin/keys",
        data=json.dumps(wanted).encode(),
        headers={"x-api-key": running["admin_key"]},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        key: str = json.load(answer)["data"]["key"]
    return key


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, site: _Site, *args: Any) -> None:
        self._site = site
        super().__init__(*args)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == PATH:
            self.send_response(301)
            self.send_header("location", f"{PATH}/")
            self.send_header("content-length", "0")
            self.end_headers()
        elif page := self._site.pages.get(path):
            kind, content = page
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.send_header("content-security-policy", self._site.policy)
            self.end_headers()
            self.wfile.write(content)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal belongs to the demo."""
