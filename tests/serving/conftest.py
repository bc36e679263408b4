"""One server of the embedded digits pair for all tests that only ask."""

from collections.abc import Iterator

import httpx
import pytest

from tests.serving.processes import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """`hybridclf serve` as it is."""
    with Server() as process:
        yield process


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client
