"""The page /docs: all that the OpenAPI description says, and nothing from elsewhere."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

from hybridclf import HybridClassifier
from hybridclf.serving import create_app


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    with TestClient(create_app(HybridClassifier.from_pretrained("digits"))) as client:
        yield client


class Page(HTMLParser):
    """Text of a page, and the addresses that it loads or links."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.tags, self.addresses = "", set[str](), set[str]()
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses |= {value or "" for name, value in attrs if name in ("href", "src", "action", "data")}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_asks_no_host_and_runs_no_script(http: TestClient) -> None:
    answer = http.get("/docs")
    assert answer.status_code == 200
    page = Page(answer.text)
    assert page.addresses == {"openapi.json"}
    assert http.get("/openapi.json").status_code == 200
    assert not page.tags & {"script", "link", "img", "iframe", "object", "form"}
    assert not re.search(r"url\(|@import", answer.text)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert http.get("/redoc").status_code == 404


def test_the_page_has_every_operation_and_field(http: TestClient) -> None:
    text, openapi = Page(http.get("/docs").text).text, http.get("/openapi.json").json()
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in text
            for content in operation.get("requestBody", {}).get("content", {}).values():
                assert [name for name in content["schema"]["properties"] if name not in text] == []
    assert "array of object or string" in text
    assert "maxItems 10000" in text
    assert "data:image/png;base64," in text  # the example
