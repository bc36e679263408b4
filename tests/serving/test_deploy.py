"""The files of deploy/: valid, and in step with the server's own flags, ports and limits."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridclf.cli.serve import serve

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
IGNORED = ROOT / ".dockerignore"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def load(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    return {manifest["kind"]: manifest for manifest in load("kubernetes.yaml")}


def drain_seconds() -> float:
    return inspect.signature(serve).parameters["drain_seconds"].default


def check_flags(arguments: list[str]) -> None:
    """Every flag is one of `hybridclf serve`."""
    flags = {f"--{name.replace('_', '-')}" for name in inspect.signature(serve).parameters}
    assert {argument for argument in arguments if argument.startswith("--")} <= flags


@pytest.mark.skipif(not IGNORED.exists(), reason="a source distribution has no .dockerignore")
def test_what_the_image_is_built_of_is_there_and_not_ignored() -> None:
    """The versions that the tests ran with among it, so that an image built later is the same."""
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    names = {name for names in copied for name in names if not names[0].startswith("--from=")}
    ignored = IGNORED.read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*" and {f"!{name}" for name in names} <= set(ignored)
    assert all((ROOT / name).exists() for name in names)
    assert "constraints.txt" in names and " -c constraints.txt " in DOCKERFILE


def test_manifests_are_valid_to_kubernetes_own_schemas(manifests: dict[str, dict[str, Any]]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, "1.30", strict=True)


def test_pods_are_unprivileged_and_their_root_is_read_only(manifests: dict[str, dict[str, Any]]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"--uid {pod['securityContext']['runAsUser']} " in DOCKERFILE
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert container["resources"]["limits"]["memory"]


def test_probes_ask_paths_of_the_server(manifests: dict[str, dict[str, Any]]) -> None:
    (container,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    (port,) = container["ports"]
    assert f'"{port["containerPort"]}"' in DOCKERFILE
    assert manifests["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    check_flags(container["args"])


def test_a_pod_has_the_time_to_drain_and_one_is_always_there(manifests: dict[str, dict[str, Any]]) -> None:
    deployment, budget = manifests["Deployment"]["spec"], manifests["PodDisruptionBudget"]["spec"]
    pod = deployment["template"]["spec"]
    before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > before + drain_seconds()
    assert 0 < budget["minAvailable"] < deployment["replicas"]
    labels = deployment["template"]["metadata"]["labels"].items()
    for selector in (deployment["selector"]["matchLabels"], manifests["Service"]["spec"]["selector"]):
        assert selector.items() <= labels
    assert budget["selector"]["matchLabels"].items() <= labels


def test_compose_has_the_server_and_prometheus_that_scrapes_it() -> None:
    (compose,) = load("compose.yaml")
    server, prometheus = compose["services"]["hybridclf"], compose["services"]["prometheus"]
    check_flags(server["command"])
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert (DEPLOY / server["build"] / "Dockerfile").is_file()
    assert int(server["stop_grace_period"].removesuffix("s")) > drain_seconds()
    assert all(port.startswith("127.0.0.1:") for port in server["ports"] + prometheus["ports"])
    (mounted,) = [volume for volume in prometheus["volumes"] if volume.startswith("./")]
    (scraped,) = load(mounted.split(":")[0])
    assert scraped["scrape_configs"][0]["static_configs"] == [{"targets": ["hybridclf:8000"]}]
