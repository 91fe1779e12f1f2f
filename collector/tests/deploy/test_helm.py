"""The chart: what it renders is valid for Kubernetes, safe, and what the collector understands."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

Manifests = list[dict[str, Any]]

VERSIONS = ("1.29", "1.37")
EXAMPLES = Path(__file__).parents[2] / "deploy/examples"
VALUES = {
    "as it comes": (),
    "central": ("-f", str(EXAMPLES / "central.yaml")),
    "beside sidecars": ("-f", str(EXAMPLES / "sidecar-values.yaml")),
    "with everything": (
        *("--set", "ingress.enabled=true,ingress.tlsSecretName=tls,spool.size=1Gi"),
        *("--set", "spool.storageClassName=fast,secretKeys.secretPrevious=secret-previous"),
        *("--set", "serviceMonitor.enabled=true,podAnnotations.a=b,podLabels.c=d"),
        *("--set", "serve.nodeSelector.disk=ssd,worker.nodeSelector.disk=ssd"),
        *("--set", "imagePullSecrets[0].name=pull,image.tag=1.2.3,service.annotations.e=f"),
    ),
}


@pytest.fixture(params=[*VALUES, "the sidecar example"])
def manifests(request, render) -> Manifests:
    """What is given to Kubernetes, for each way of installing it."""
    if request.param in VALUES:
        return render(*VALUES[request.param])
    return [*yaml.safe_load_all((EXAMPLES / "sidecar.yaml").read_text())]


def _pods(manifests: Manifests) -> Iterator[dict[str, Any]]:
    for manifest in manifests:
        if "template" in manifest.get("spec", {}):
            yield manifest["spec"]["template"]["spec"]


def _containers(manifests: Manifests) -> Iterator[dict[str, Any]]:
    for pod in _pods(manifests):
        yield from pod.get("initContainers", [])
        yield from pod["containers"]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(manifests, version):
    """Each object is valid by the schemas of Kubernetes itself, with no field that it ignores."""
    for manifest in manifests:
        if manifest["kind"] != "ServiceMonitor":  # a resource of the Prometheus operator
            kubernetes_validate.validate(manifest, version, strict=True)


def test_no_container_is_root_or_writes_where_it_should_not(manifests):
    """Non-root, without capabilities, with a read-only root; /data and /tmp are volumes."""
    for pod in _pods(manifests):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
    for container in _containers(manifests):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert container["resources"]["limits"]["memory"]
        assert not container["image"].endswith(":latest")
        assert ":" in container["image"]


def test_no_secret_stands_in_a_manifest(manifests):
    """The database's URL, the secret and keys come from a Secret."""
    for container in _containers(manifests):
        for variable in container["env"]:
            if variable["name"].endswith(("_URL", "_SECRET", "_KEY", "_PREVIOUS")):
                local = variable.get("value", "").startswith("http://127.0.0.1")
                assert "secretKeyRef" in variable.get("valueFrom", {}) or local


def test_every_volume_that_is_mounted_is_there(manifests):
    """A misspelt name would only be noticed by a cluster."""
    for manifest in manifests:
        for pod in _pods([manifest]):
            claims = manifest["spec"].get("volumeClaimTemplates", [])
            names = {volume["name"] for volume in pod.get("volumes", [])}
            names |= {claim["metadata"]["name"] for claim in claims}
            mounted = {m["name"] for c in _containers([manifest]) for m in c["volumeMounts"]}
            assert mounted == names


def test_selectors_find_the_pods_that_they_are_for(render):
    """And nobody else's: a service that also found the workers would send events to them."""
    manifests = render(*VALUES["with everything"])
    labels = {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["metadata"]["labels"]
        for manifest in manifests
        if "template" in manifest["spec"]
    }

    def found(selector: dict[str, str]) -> set[str]:
        return {name for name, has in labels.items() if selector.items() <= has.items()}

    name = "analytics-analytics-collector"
    for manifest in manifests:
        spec = manifest["spec"]
        selector = spec.get("selector", {})
        if manifest["kind"] == "Service":
            assert found(selector) == {manifest["metadata"]["name"]}
        elif manifest["kind"] == "PodDisruptionBudget":
            assert found(selector["matchLabels"]) == {name}
        elif "template" in spec and manifest["kind"] != "Job":
            assert found(selector["matchLabels"]) == {manifest["metadata"]["name"]}


def test_the_spool_has_a_disk_of_each_replicas_own(render):
    """What was acknowledged from it must outlive the pod; without a size nothing is spooled."""
    with_spool, without = render("--set", "spool.size=1Gi"), render()

    assert [m["kind"] for m in with_spool if _is_server(m)] == ["StatefulSet"]
    assert [m["kind"] for m in without if _is_server(m)] == ["Deployment"]
    for manifests, expected in ((with_spool, True), (without, False)):
        names = {
            v["name"]
            for m in manifests
            if _is_server(m)
            for c in _containers([m])
            for v in c["env"]
        }
        assert ("ANALYTICS_ACK" in names) is expected


def _is_server(manifest: dict[str, Any]) -> bool:
    return manifest["kind"] in ("Deployment", "StatefulSet") and not manifest["metadata"][
        "name"
    ].endswith("-worker")


def test_the_schema_comes_before_the_programs(render):
    """A hook that runs to its end before anything is installed or upgraded."""
    (job,) = [manifest for manifest in render() if manifest["kind"] == "Job"]

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert next(_containers([job]))["args"] == ["migrate"]


def test_nothing_but_the_api_is_let_in_from_outside(render):
    """Metrics and health are for inside."""
    (ingress,) = [m for m in render("--set", "ingress.enabled=true") if m["kind"] == "Ingress"]

    paths = [path["path"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    assert paths == ["/api/"]


def test_the_chart_is_well_kept(program: Callable[[str], str], deploy: Path, version: str):
    """Helm has nothing to complain of, and the versions are those of the package."""
    chart = deploy / "helm/analytics-collector"
    lint = subprocess.run(
        [program("helm"), "lint", "--strict", str(chart)],
        capture_output=True,
        text=True,
        check=False,
    )
    described = yaml.safe_load((chart / "Chart.yaml").read_text())

    assert lint.returncode == 0, lint.stdout + lint.stderr
    assert (described["version"], described["appVersion"]) == (version, version)
