"""README and documentation: their Python runs as it stands, their commands exist, and no public name is missing."""

import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import hybridclf
from hybridclf.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = {page: page.relative_to(ROOT).as_posix() for page in PAGES}

DOCUMENTED = (
    "hybridclf",
    "hybridclf.batch",
    "hybridclf.data.shapes",
    "hybridclf.metrics",
    "hybridclf.models",
    "hybridclf.ports",
    "hybridclf.serving",
    "hybridclf_adapters.diffusers",
    "hybridclf_adapters.open_clip",
    "hybridclf_adapters.ray",
    "hybridclf_adapters.sklearn",
    "hybridclf_adapters.timm",
)
"""Modules of which every public name is in the API reference."""


TAKES_LONG = {
    "docs/quickstart.md",
    "docs/guide/behind.md",
    "docs/guide/denoiser.md",
    "docs/guide/guarantee.md",
    "docs/guide/photographs.md",
}
"""Pages whose blocks take as long as they say."""


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def commands(page: Path) -> Iterator[str]:
    """Lines of indented or fenced blocks that call `hybridclf`, without their comments."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"(?:    )?hybridclf (\w+.*)", line):
            yield match[1].partition(" # ")[0]


def api_entries() -> set[tuple[str, str]]:
    """(module, name) of everything that an `autosummary` of the API reference lists."""
    entries, module = set(), ""
    for line in (ROOT / "docs" / "api" / "index.rst").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = match[1]
        elif match := re.match(r"   ([A-Za-z_]\w*)$", line):
            entries.add((module, match[1]))
    return entries


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= 900


def test_readme_starts_with_ten_lines() -> None:
    blocks = python_blocks(README)
    assert len(blocks) == 3
    assert len(blocks[0].strip().splitlines()) <= 10


RUNNING = [
    pytest.param(page, id=NAMES[page], marks=[pytest.mark.slow] if NAMES[page] in TAKES_LONG else [])
    for page in PAGES
    if python_blocks(page)
]


@pytest.mark.parametrize("page", RUNNING)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, one after the other, in one namespace; `assert`s in them are the page's own claims."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for i, block in enumerate(python_blocks(page)):
        exec(compile(block, f"{NAMES[page]}, block {i + 1}", "exec"), names)


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))], ids=NAMES.get)
def test_commands_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    for command in commands(page):
        name, *arguments = shlex.split(command)
        known = {option for parameter in group.commands[name].params for option in parameter.opts}  # type: ignore[attr-defined]
        given = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
        assert given <= known, f"{NAMES[page]}: hybridclf {command}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)\s#]+)", page.read_text(encoding="utf-8")):
        made = target.startswith("gallery/")  # by the build, which checks it
        assert made or (page.parent / target).exists(), f"{NAMES[page]} links to {target}"


@pytest.mark.parametrize("module", DOCUMENTED)
def test_every_public_name_is_in_the_api_reference(module: str) -> None:
    public = {(module, name) for name in importlib.import_module(module).__all__}
    # what a documented module has from another is documented once, where it is at home
    elsewhere = {name for where, name in api_entries() if where != module}
    assert {name for _, name in public - api_entries()} <= elsewhere


def test_the_api_reference_lists_what_there_is() -> None:
    for module, name in api_entries():
        value = getattr(importlib.import_module(module), name)
        assert not inspect.isclass(value) or value.__doc__, f"{module}.{name}"


def test_every_name_of_the_package_is_listed_as_its_own() -> None:
    assert {("hybridclf", name) for name in hybridclf.__all__} <= api_entries()


def test_the_reference_lists_every_method_of_the_classifier() -> None:
    template = (ROOT / "docs" / "_templates" / "autosummary" / "estimator.rst").read_text(encoding="utf-8")
    public = {name for name in dir(hybridclf.HybridClassifier) if name[0] != "_"}
    inherited = {"score", "set_fit_request", "set_score_request"}  # described by scikit-learn
    assert set(re.findall(r'"([a-z_]+)"', template)) == public - inherited
