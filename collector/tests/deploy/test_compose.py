"""compose.yaml: valid, ordered by health, and with Postgres as the README recommends it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

OWN = ("migrate", "collector", "worker")


@pytest.fixture(scope="module")
def compose(deploy: Path) -> dict[str, Any]:
    """The file, with what it repeats by reference written out."""
    loaded: dict[str, Any] = yaml.safe_load((deploy / "compose.yaml").read_text())
    return loaded


def test_it_is_a_compose_file(compose):
    """By the Compose specification, which knows every key and every value of a choice."""
    PyCompose.from_yaml(yaml.safe_dump(compose))

    with pytest.raises(ValueError, match="helthcheck"):  # it would notice
        PyCompose.from_yaml(yaml.safe_dump({"services": {"a": {"image": "a:1", "helthcheck": {}}}}))


@pytest.mark.parametrize("name", ["postgres", "valkey", *OWN])
def test_every_service_is_kept_in_bounds(compose, name):
    """A read-only root, no new privileges, a version, a restart policy, bounded logs."""
    service = compose["services"][name]

    assert service["read_only"] is True
    assert "no-new-privileges:true" in service["security_opt"]
    assert re.search(r":\d", service["image"])
    assert service["restart"] in ("unless-stopped", "on-failure")
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert "healthcheck" in service


@pytest.mark.parametrize("name", OWN)
def test_our_own_are_nobody_in_particular(compose, name):
    """The user of the image, with no capability; what they write goes to memory or a volume."""
    service = compose["services"][name]

    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"]


def test_the_schema_comes_before_the_programs(compose):
    """Postgres is healthy before the migration, which is over before anything that needs it."""
    services = compose["services"]

    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("collector", "worker"):
        assert services[name]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "valkey": {"condition": "service_healthy"},
        }


def test_nothing_but_the_collector_can_be_reached_from_outside(compose):
    """And it by this machine only: a proxy with TLS stands before it."""
    ports = {name: service.get("ports", []) for name, service in compose["services"].items()}

    assert ports.pop("collector") == ["127.0.0.1:8000:8000"]
    assert not any(ports.values())


def test_what_must_stay_is_on_a_volume(compose):
    """Postgres, Valkey's log and the spool; each volume is declared."""
    mounts = {
        name: service["volumes"]
        for name, service in compose["services"].items()
        if "volumes" in service
    }

    assert mounts == {
        "postgres": ["postgres:/var/lib/postgresql"],
        "valkey": ["valkey:/data"],
        "collector": ["spool:/data"],
    }
    assert compose["volumes"].keys() == {"postgres", "valkey", "spool"}


def test_valkey_throws_nothing_away(compose):
    """It writes what it holds to disk, and refuses to grow rather than to forget."""
    command = compose["services"]["valkey"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"


def test_postgres_is_as_the_readme_recommends(compose, repository):
    """Each setting is explained there with the same value, and no safety is off."""
    command = compose["services"]["postgres"]["command"]
    settings = dict(part.split("=") for part in command[2::2])
    readme = (repository / "collector/README.md").read_text()
    section = readme.partition("## Postgres settings")[2].partition("\n## ")[0]
    explained = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)`", section, re.M))

    assert command[0] == "postgres"
    assert set(command[1::2]) == {"-c"}
    assert settings == explained
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        assert settings[name] == "on"


def test_secrets_are_files_that_git_does_not_know(compose, deploy):
    """Each that a service asks for is declared, and lies in a folder that is ignored."""
    asked = {name for s in compose["services"].values() for name in s.get("secrets", [])}

    assert asked == compose["secrets"].keys()
    assert all(secret["file"].startswith("./secrets/") for secret in compose["secrets"].values())
    assert "secrets/" in (deploy / ".gitignore").read_text().splitlines()


def test_the_image_is_of_this_version(compose, version):
    """As the chart's."""
    assert {compose["services"][name]["image"] for name in OWN} == {
        f"analytics-collector:{version}"
    }
