"""The bad requests of tests/corpus, as they go over the wire."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[1] / "corpus"


@dataclass(frozen=True, slots=True)
class Case:
    """One file of the corpus and what the manifest says of it."""

    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """The file's name."""
        name: str = self.facts["file"]
        return name

    @property
    def is_raw(self) -> bool:
        """Whether the file is a whole request."""
        return self.facts.get("transport") == "raw"

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return (_FOLDER / self.name).read_bytes()

    @property
    def headers(self) -> dict[str, str]:
        """Content-Type and Content-Encoding, where it has them."""
        headers = {}
        if self.facts["content_type"] is not None:
            headers["Content-Type"] = self.facts["content_type"]
        if self.facts["encoding"] not in (None, "identity"):
            headers["Content-Encoding"] = self.facts["encoding"]
        return headers

    def request(self, ingest_key: str, read_key: str) -> bytes:
        """Return the request, with keys in the place of the placeholders."""
        content = self.content
        if self.is_raw:
            return content.replace(b"$KEY", ingest_key.encode())
        key = self.facts.get("api_key", "$KEY")
        key = {
            "$KEY": ingest_key,
            "$READONLY": read_key,
            "$KEY[:-1]": ingest_key[:-1],
            "$KEY.upper": ingest_key.upper(),
        }.get(key, key)
        headers = {"Host": "x", "Connection": "close", "Content-Length": str(len(content))}
        headers |= self.headers | ({} if key is None else {"x-api-key": key})
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(["POST /api/v1/events HTTP/1.1", *lines, "", ""])
        return head.encode("latin-1") + content


def load_cases() -> list[Case]:
    """Return every case of the manifest."""
    manifest = json.loads((_FOLDER / "manifest.json").read_text(encoding="utf-8"))
    return [Case(facts) for facts in manifest["cases"]]


def gzip_bomb(mebibytes: int) -> bytes:
    """Return what inflates to the beginning of a JSON list and so many MiB of blanks."""
    packer = zlib.compressobj(9, wbits=31)
    blanks = b" " * 1024 * 1024
    # After a full flush the same bytes are packed the same again: packing them all takes seconds.
    first, again = (
        packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)
        for content in (b"[" + blanks, blanks)
    )
    return first + again * (mebibytes - 1)
