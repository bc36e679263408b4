"""Cohere's own client against a server with API keys; the keys themselves."""

from collections.abc import Iterator
from pathlib import Path

import cohere
import pytest
from cohere.errors import BadRequestError, UnauthorizedError

from hybridclf import InvalidInputError
from hybridclf.serving.auth import ApiKeys, read_keys
from tests.serving.processes import Server, picture, uri


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that two keys open."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("# those who may ask\nfirst-key\n\n second-key \n")
    with Server(["--api-key-file", str(path)]) as server:
        yield server


def test_the_official_client_works_unmodified(keyed: Server) -> None:
    with cohere.ClientV2(api_key="second-key", base_url=keyed.url) as client:
        answer = client.rerank(model="digits", query=uri(picture(1000)), documents=["1", "4", "7"], top_n=2)
    assert len(answer.results) == 2
    best, second = answer.results
    assert ["1", "4", "7"][best.index] == "1"
    assert 1 >= best.relevance_score >= second.relevance_score >= 0
    assert answer.id
    assert answer.meta is not None


def test_the_official_client_understands_refusals(keyed: Server) -> None:
    with cohere.ClientV2(api_key="first-key", base_url=keyed.url) as client, pytest.raises(BadRequestError) as bad:
        client.rerank(model="digits", query=uri(picture(1)), documents=["1", "yak"])
    assert "does not know the label 'yak'" in bad.value.body["message"]
    with cohere.ClientV2(api_key="no-key", base_url=keyed.url) as client, pytest.raises(UnauthorizedError):
        client.rerank(model="digits", query=uri(picture(1)), documents=["1", "4"])


@pytest.mark.parametrize("header", [None, "", "Bearer", "first-key", "Basic first-key", "Bearer first-ke"])
def test_without_a_key_nothing_is_answered(keyed: Server, header: str | None) -> None:
    with keyed.client() as client:
        for path in ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/classify"):
            answer = client.post(path, content=b"{", headers={} if header is None else {"authorization": header})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["message"] == "send an API key, Authorization: Bearer KEY"
        for path in ("/healthz", "/readyz", "/metrics"):
            assert client.get(path).status_code == 200


def test_keys_are_told_apart() -> None:
    keys = ApiKeys(["one", "zwei-ü"])
    assert keys.accept("Bearer one") and keys.accept("bearer  one ") and keys.accept("Bearer zwei-ü")
    assert not any(keys.accept(h) for h in (None, "", "Bearer", "Bearer on", "Bearer oneone", "Basic one", "one"))
    assert ApiKeys().accept(None)


def test_files_without_a_key_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nothing\n\n")
    with pytest.raises(InvalidInputError, match="has no API key"):
        read_keys(tmp_path / "empty")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_keys(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_keys(tmp_path / "binary")
