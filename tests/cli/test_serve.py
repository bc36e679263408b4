"""`hybridclf serve` up to its start: the served model's name, and signals that come before."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hybridclf import HybridClassifier, serving
from hybridclf.cli import app


class Served:
    """What `serving.run` was called with, and what was read anew."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = list[str]()
        self.read_anew = list[str]()
        self.on_hangup: Any = None
        monkeypatch.setattr(serving, "run", self._run)
        monkeypatch.setattr(serving, "reload_model", lambda application, load: self.read_anew.append("model"))
        monkeypatch.setattr(serving, "reload_keys", lambda application, path: self.read_anew.append("keys"))

    def _run(self, application: Any, *_: Any, on_hangup: Any, **options: Any) -> None:
        self.names.append(application.state.name)
        self.on_hangup = on_hangup


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    return Served(monkeypatch)


def serve(*arguments: str) -> None:
    result = CliRunner().invoke(app, ["serve", "--port", "0", "--model", "digits", *arguments])
    assert result.exit_code == 0, result.output


def test_re_ranking_that_is_off_is_said(served: Served, tmp_path: Path) -> None:
    clf = HybridClassifier.from_pretrained("digits")
    fusion = replace(clf.fusion_, pays=False)
    assert clf.calibration_ is not None
    clf.fusion_, clf.calibration_ = fusion, replace(clf.calibration_, fusion=fusion)
    clf.save(tmp_path / "off")
    for model, said in ((tmp_path / "off", 1), ("digits", 0)):
        result = CliRunner().invoke(app, ["serve", "--port", "0", "--model", str(model)])
        assert result.stderr.count("Re-ranking is off in this model") == said


def test_a_model_in_a_folder_has_the_folders_own_name(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    HybridClassifier.from_pretrained("digits").save(tmp_path / "version-1")
    (tmp_path / "current").symlink_to("version-1")
    monkeypatch.chdir(tmp_path / "version-1")
    for model in (".", "../version-1/", "../current", "digits"):
        serve("--model", model)
    assert served.names == ["version-1", "version-1", "current", "digits"]


def test_without_a_name_the_pair_for_photographs_is_served(served: Served) -> None:
    result = CliRunner().invoke(app, ["serve", "--port", "0"])
    assert result.exit_code == 0 and served.names == ["cifar10"], result.output


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="has no SIGHUP")
def test_sighup_while_the_model_loads_is_answered_once_it_has(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("key\n")
    escaped, load = list[int](), HybridClassifier.from_pretrained

    def loading(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGHUP)
        assert served.read_anew == []
        return load(*arguments, **options)

    monkeypatch.setattr(HybridClassifier, "from_pretrained", loading)
    before = signal.signal(signal.SIGHUP, lambda number, _: escaped.append(number))
    try:
        serve("--reload-model", "--api-key-file", str(tmp_path / "keys"))
        assert served.read_anew == ["keys", "model"] and escaped == []
        served.on_hangup()
        assert served.read_anew == ["keys", "model"] * 2
        signal.raise_signal(signal.SIGHUP)
        assert escaped == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)
