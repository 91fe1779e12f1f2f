"""Where an address is, and a database that changes while we run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from analytics_collector.errors import ConfigurationError
from analytics_collector.ingest.enrich.geo import GeoDatabase

LONDON = "81.2.69.142"


def replace_with(path: Path, content: bytes) -> None:
    """Let *content* take the place of the file by a rename, as those who update it do."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


def test_an_address_has_a_place(city_database):
    """Country, region and city, of IPv4 and IPv6, with a port or without."""
    geo = GeoDatabase(city_database)

    assert json.loads(geo.facts(LONDON) or "") == {
        "continent": "EU",
        "country": "GB",
        "region": "England",
        "city": "London",
        "timezone": "Europe/London",
    }
    assert geo.facts(f"{LONDON}:4711") == geo.facts(LONDON) == geo.facts(f"::ffff:{LONDON}")
    assert json.loads(geo.facts("2001:218::1") or "")["country"] == "JP"


@pytest.mark.parametrize("value", ["", "127.0.0.1", "unknown", "x" * 100_000])
def test_what_has_no_place_has_no_facts(city_database, value):
    assert GeoDatabase(city_database).facts(value) is None


def test_a_new_database_is_used_without_a_restart(city_database, tmp_path):
    """The file is looked at now and then, and reopened when it is another."""
    path = tmp_path / "geo.mmdb"
    shutil.copy(city_database.with_name("GeoLite2-Country-Test.mmdb"), path)
    now = 0.0
    geo = GeoDatabase(path, clock=lambda: now)
    assert "city" not in json.loads(geo.facts(LONDON) or "")
    replace_with(path, city_database.read_bytes())
    geo.refresh()
    assert "city" not in json.loads(geo.facts(LONDON) or "")
    now = 60.0
    geo.refresh()

    assert json.loads(geo.facts(LONDON) or "")["city"] == "London"


def test_a_damaged_new_database_leaves_the_old_one_in_use(city_database, tmp_path):
    """A failed update costs nothing, and a later good one is taken."""
    path = tmp_path / "geo.mmdb"
    shutil.copy(city_database, path)
    now = 0.0
    geo = GeoDatabase(path, clock=lambda: now)
    for content in (b"", b"no database", city_database.read_bytes()[:5000]):
        now += 60
        replace_with(path, content)
        geo.refresh()
    path.unlink()
    now += 60
    geo.refresh()
    assert json.loads(geo.facts(LONDON) or "")["city"] == "London"
    shutil.copy(city_database.with_name("GeoLite2-Country-Test.mmdb"), path)
    now += 60
    geo.refresh()

    assert json.loads(geo.facts(LONDON) or "")["country"] == "GB"
    assert "city" not in json.loads(geo.facts(LONDON) or "")


def test_a_setting_that_names_no_database_is_told_at_the_start(tmp_path):
    """Not later, and not by facts that are missing."""
    (tmp_path / "text").write_text("no database")

    for path in (tmp_path / "text", tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigurationError, match="no database in MaxMind's format"):
            GeoDatabase(path)
