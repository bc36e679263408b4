"""Access to a server: clients by name, pages of other sites, private parts, sockets, TLS, and paths behind a proxy."""

import logging
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient

from hybridclf import HybridClassifier
from hybridclf.errors import InvalidInputError
from hybridclf.serving import Limits, check_address, check_certificate, create_app, run
from hybridclf.serving.auth import ApiKeys, read_keys
from tests.serving.processes import Server, picture, uri

BODY = {"query": uri(picture(3)), "documents": ["8", "3"], "log_prior": [-0.7, -0.7]}


@pytest.fixture(scope="module")
def clf() -> HybridClassifier:
    return HybridClassifier.from_pretrained("digits")


def test_a_key_with_a_name_is_a_client_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# who may ask\nci  key-1\nci\tkey-2\n\nkey-3\n")
    keys = ApiKeys(read_keys(tmp_path / "keys"))
    assert all(keys.accept(f"Bearer key-{i}") for i in (1, 2, 3))
    assert not any(keys.accept(f"Bearer {key}") for key in ("ci", "ci key-1", ""))
    assert keys.client("Bearer key-1", "10.0.0.1") == keys.client("Bearer key-2", "10.0.0.2") == "ci"
    assert keys.client("Bearer key-3", "10.0.0.1") not in ("ci", "key-3")


@pytest.mark.parametrize("line", ["secret # of Alice", "#secret", "a b secret", "", "  "])
def test_a_line_of_another_form_is_refused_and_not_repeated(line: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="API key 2 is neither a KEY nor a NAME and a KEY") as refused:
        ApiKeys(["k", line])
    assert "secret" not in str(refused.value)
    if line.strip() and line[0] != "#":
        (tmp_path / "keys").write_text(f"k\n{line}\n")
        with pytest.raises(InvalidInputError, match=r"line 2 of .*keys is neither"):
            read_keys(tmp_path / "keys")


def test_a_key_is_there_once_and_in_a_list(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("alice k\nk\n")
    for read in (lambda: ApiKeys(["alice k", "k"]), lambda: read_keys(tmp_path / "keys")):
        with pytest.raises(InvalidInputError, match="API key 2 is there twice"):
            read()
    with pytest.raises(InvalidInputError, match="give a list of keys"):
        ApiKeys("secret")


def test_the_log_has_the_name_and_never_the_key(clf: HybridClassifier, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hybridclf.serving.request_log")
    with TestClient(create_app(clf, api_keys=["ci secret"])) as client:
        assert client.post("/v1/rerank", json=BODY, headers={"Authorization": "Bearer secret"}).status_code == 200
    (fields,) = (record.fields for record in caplog.records if record.msg == "request")  # type: ignore[attr-defined]
    assert fields["client"] == "ci" and "secret" not in str(fields)


def test_a_page_of_another_site_may_not_ask_a_server_without_keys(clf: HybridClassifier) -> None:
    with TestClient(create_app(clf)) as client:
        # such a request needs no leave of the server: its content type is one that a form may send
        simple = {"Origin": "https://example.com", "Content-Type": "text/plain"}
        pointed_here = {"Origin": "http://evil.example:80", "Host": "evil.example:80"}  # DNS rebinding
        for foreign in (simple, {"Origin": "null"}, pointed_here, {"Origin": "http://["}, {"Origin": ""}):
            answer = client.post("/v1/rerank", json=BODY, headers=foreign)
            assert answer.status_code == 403 and "other sites" in answer.json()["message"]
        for host in ("testserver", "127.0.0.1:8000", "[::1]:8000", "localhost"):
            own = {"Origin": f"http://{host}", "Host": host}
            assert client.post("/v1/rerank", json=BODY, headers=own).status_code == 200, host
    with TestClient(create_app(clf, api_keys=["k"])) as client:
        ours = {"Origin": "https://example.com", "Authorization": "Bearer k"}
        assert client.post("/v1/rerank", json=BODY, headers=ours).status_code == 200


def test_a_private_server_shows_strangers_its_health_alone(clf: HybridClassifier) -> None:
    with TestClient(create_app(clf, api_keys=["k"], private=True)) as client:
        for path in ("/metrics", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 401, path
            assert client.get(path, headers={"Authorization": "Bearer k"}).status_code == 200, path
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    with pytest.raises(InvalidInputError, match="a private server needs keys"):
        create_app(clf, private=True)


def test_unknown_paths_and_methods_are_counted(clf: HybridClassifier) -> None:
    with TestClient(create_app(clf)) as client:
        assert client.get("/v1/nothing").status_code == 404 and client.put("/v1/rerank").status_code == 405
        assert client.post("/v1/rerank", json=BODY).status_code == 200
        text = client.get("/metrics").text
    assert 'hybridclf_requests_total{endpoint="other",outcome="refused"} 2.0' in text
    assert 'hybridclf_request_seconds_count{endpoint="rerank",outcome="ok"} 1.0' in text
    assert "process_cpu_seconds_total" in text or not Path("/proc/self/stat").exists()


@pytest.mark.parametrize(
    ("trusted", "clients"), [("", 1), ("10.0.0.1", 1), ("127.0.0.1", 3), ("10.0.0.1,127.0.0.0/8", 3)]
)
def test_a_proxy_tells_the_address_only_if_it_is_trusted(
    clf: HybridClassifier, monkeypatch: pytest.MonkeyPatch, trusted: str, clients: int
) -> None:
    """Else every client could choose another with each request, and so the shares and limits of it."""
    configs = list[uvicorn.Config]()
    monkeypatch.setattr(uvicorn.Server, "run", lambda server: configs.append(server.config))
    run(create_app(clf, Limits(images_per_minute=1)), trusted_proxies=trusted)
    configs[0].load()

    async def from_here(scope: Any, receive: Any, send: Any) -> None:
        await configs[0].loaded_app({**scope, "client": ("127.0.0.1", 50000)}, receive, send)

    with TestClient(from_here) as client:
        headers = [{"X-Forwarded-For": f"evil, 192.0.2.{i}"} for i in range(3)]
        statuses = [client.post("/v1/rerank", json=BODY, headers=header).status_code for header in headers]
    assert statuses.count(200) == clients and set(statuses) <= {200, 429}


@pytest.mark.parametrize("proxies", ["proxy.example", "*", "10.0.0.1,", "10.0.0.1/8"])
def test_proxies_that_are_no_addresses_are_refused(proxies: str) -> None:
    with pytest.raises(InvalidInputError, match=r"trusted proxies: .*give addresses or networks with commas"):
        run(None, trusted_proxies=proxies)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run([*command, *files], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def https(certificate: tuple[Path, Path], tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a server on a Unix socket, with TLS, below a path."""
    cert, key = map(str, certificate)
    options = ["--uds", str(tmp_path / "s"), "--root-path", "/clf", "--ssl-certfile", cert, "--ssl-keyfile", key]
    transport = httpx.HTTPTransport(uds=str(tmp_path / "s"), verify=ssl.create_default_context(cafile=cert))
    with Server(options) as server, httpx.Client(transport=transport, base_url="https://localhost") as client:
        yield client
        with pytest.raises(InvalidInputError, match="another server listens to"):
            check_address("", 0, str(tmp_path / "s"))
        server.stop()
    assert not (tmp_path / "s").exists()


def test_https_on_a_unix_socket_below_a_path(https: httpx.Client) -> None:
    answer = https.post("/v1/rerank", json=BODY, timeout=60)
    assert answer.status_code == 200 and {r["index"] for r in answer.json()["results"]} == {0, 1}
    assert https.get("/openapi.json").json()["servers"] == [{"url": "/clf"}]
    assert https.get("/healthz").status_code == 200


def test_what_cannot_be_listened_to_is_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there can be no socket"):
        check_address("", 0, str(tmp_path / "missing" / "socket"))
    check_address("", 0, str(tmp_path / "socket"))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "socket"))
    check_address("", 0, str(tmp_path / "socket"))  # a dead server's
    (tmp_path / "file").write_text("mine")
    for path, reason in ((tmp_path / "file", "is there and no socket"), (tmp_path / (100 * "x"), "a short path")):
        with pytest.raises(InvalidInputError, match=reason):
            check_address("", 0, str(path))
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "cert.pem").write_text("nothing")
    for name in ("cert.pem", "missing.pem"):
        with pytest.raises(InvalidInputError, match=f"{name} cannot be used: .*--ssl-keyfile"):
            check_certificate(str(tmp_path / name), None)
    with pytest.raises(InvalidInputError, match="a key alone makes no HTTPS"):
        check_certificate(None, "key.pem")
    check_certificate(None, None)
