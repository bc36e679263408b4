"""What is to be typed for an extra: names of packages that an index has."""

from importlib.metadata import PackageNotFoundError
from typing import NoReturn

import pytest

from hybridclf.utils import installing


def test_the_packages_of_an_extra_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["torch>=2", 'ray[data]>=2.5; extra == "ray"', "uvicorn ; extra == 'server'", 'x; extra == "ray-server"']
    monkeypatch.setattr(installing, "requires", lambda _: listed)
    assert installing.pip_install("ray") == 'pip install "ray[data]>=2.5"'
    assert installing.pip_install("ray", "server") == 'pip install "ray[data]>=2.5" uvicorn'


def test_a_source_tree_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> NoReturn:
        raise PackageNotFoundError

    monkeypatch.setattr(installing, "requires", missing)
    assert installing.pip_install("plot") == 'pip install ".[plot]"'


@pytest.mark.parametrize("extra", ["plot", "ray", "server", "t5"])
def test_every_extra_has_packages(extra: str) -> None:
    assert len(installing.pip_install(extra).split()) > 2
    assert "hybridclf" not in installing.pip_install(extra)
