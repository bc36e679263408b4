"""What is shipped: the wheel, its dependencies, and how light the import is."""

import ast
import configparser
import importlib
import importlib.metadata
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import hybridclf

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = {"hybridclf": ROOT / "hybridclf", "hybridclf_adapters": ROOT / "adapters" / "hybridclf_adapters"}
MODEL_LIBRARIES = {"diffusers", "open_clip", "timm", "transformers"}
SERVER_LIBRARIES = {"fastapi", "prometheus_client", "starlette", "uvicorn"}
BESIDE_DEV = {"app", "dev-app", "dev-s3", "docs"}
"""Extras that no environment of the tests has: gradio takes no Pillow 13, S3's libraries an older python-dateutil; the
documentation is built in no test."""

ENTRY_POINTS = {"console_scripts": PROJECT["scripts"], **PROJECT["entry-points"]}


def shipped_files(package: str) -> Iterator[str]:
    """Names in the wheel of every module and data file of `package`."""
    for path in SOURCES[package].rglob("*"):
        name = path.relative_to(SOURCES[package].parent)
        if path.is_file() and "__pycache__" not in name.parts:
            yield name.as_posix()


def imports(package: str) -> Iterator[tuple[str, str]]:
    """(file, top-level package) of every absolute import, those inside functions included."""
    for path in SOURCES[package].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                yield path.relative_to(ROOT).as_posix(), name.partition(".")[0]


def build(kind: str, folder: Path) -> Path:
    """A wheel or sdist, built offline from a copy: nothing is left in the checkout, and nothing stale gets in."""
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", ".venv*", ".git", "_build", "gallery", "generated")
    shutil.copytree(ROOT, source, ignore=ignore)
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.findall(r".*(?:WARNING|Warning|no files found).*", done.stdout + done.stderr)
    assert said == []
    (path,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    path = build("wheel", tmp_path_factory.mktemp("wheel"))
    assert path.stat().st_size <= 12e6
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_both_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    dist_info = f"hybridclf-{hybridclf.__version__}.dist-info"
    files = {name for name in wheel.namelist() if not name.startswith(f"{dist_info}/")}
    assert files == {*shipped_files("hybridclf"), *shipped_files("hybridclf_adapters")}
    assert {"hybridclf/py.typed", "hybridclf_adapters/py.typed"} <= files
    assert f"{dist_info}/licenses/LICENSE" in wheel.namelist()


def test_wheel_has_the_entry_points(wheel: zipfile.ZipFile) -> None:
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(wheel.read(f"hybridclf-{hybridclf.__version__}.dist-info/entry_points.txt").decode())
    assert {group: dict(parser[group]) for group in parser.sections()} == ENTRY_POINTS


@pytest.mark.slow
def test_sdist_holds_what_its_tests_need(tmp_path: Path) -> None:
    """Unpacked, it runs tests of its own, and finds every embedded model."""
    path = build("sdist", tmp_path)
    shutil.unpack_archive(path, tmp_path / "unpacked", filter="data")
    (folder,) = (tmp_path / "unpacked").iterdir()
    files = ("tests/benchmarks/test_reference_loops.py", "tests/pretrained/test_catalog.py")
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *files]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(folder / "adapters")])}
    done = subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "models" / "hybridclf_models" / "shapes" / "model.json").exists()


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [(group, name, value) for group, entries in ENTRY_POINTS.items() for name, value in entries.items()],
)
def test_entry_point_loads(group: str, name: str, value: str) -> None:
    assert callable(importlib.metadata.EntryPoint(name, value, group).load())


def test_import_is_light() -> None:
    code = "import sys, hybridclf; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "hybridclf" in loaded
    assert not (MODEL_LIBRARIES | SERVER_LIBRARIES | {"gradio"}).intersection(loaded)


WITHOUT_MODEL_LIBRARIES = f"""
import sys
for name in {sorted(MODEL_LIBRARIES)}:
    sys.modules[name] = None
from sklearn.datasets import load_digits
import hybridclf_adapters.diffusers
from hybridclf import HybridClassifier, MissingDependencyError
X, y = load_digits(return_X_y=True)
HybridClassifier(cv=0.3, max_iter=1, random_state=0).fit(X[:100], y[:100]).predict(X[:5])
assert HybridClassifier.from_pretrained("digits").predict(X[:2].reshape(2, 8, 8)).tolist() == [0, 1]
for spec in ("open_clip:RN50-quickgelu/openai", "timm:resnet18"):
    try:
        HybridClassifier(spec, max_iter=1).fit(X[:100], y[:100])
    except MissingDependencyError as error:
        print(error)
try:
    HybridClassifier("sklearn:SVC", "diffusers:some/repository").fit(X[:100], y[:100])
except MissingDependencyError as error:
    print(error)
"""


def test_the_core_runs_without_model_libraries() -> None:
    """What is missing is named by the adapter that needs it, with what to type; none needs it on import."""
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_MODEL_LIBRARIES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for library, line in zip(("open_clip_torch", "timm", "diffusers"), done.stdout.splitlines(), strict=True):
        assert f"pip install {library}" in line


def test_core_imports_no_adapter_and_no_model_library() -> None:
    forbidden = {*MODEL_LIBRARIES, "hybridclf_adapters"}
    assert [(file, name) for file, name in imports("hybridclf") if name in forbidden] == []


@pytest.mark.parametrize("name", hybridclf.__all__)
def test_public_name_is_importable_and_documented(name: str) -> None:
    value = getattr(hybridclf, name)
    assert name in dir(hybridclf)
    if inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value):
        assert (value.__doc__ or "").strip(), f"hybridclf.{name} has no docstring"


def test_public_names_are_listed_once() -> None:
    assert dir(hybridclf) == sorted(hybridclf.__all__)
    assert len(hybridclf.__all__) == len(set(hybridclf.__all__))


def requirements(*, beside: set[str]) -> Iterator[Requirement]:
    """Every dependency, and those of all other extras than these; what an extra takes from another comes there."""
    extras = [lines for extra, lines in PROJECT["optional-dependencies"].items() if extra not in beside]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    yield from (found for found in map(Requirement, lines) if found.name != "hybridclf")


def pins(name: str) -> dict[str, Version]:
    """The version of each package in a file of constraints."""
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, version in (line.split("==") for line in lines)}


@pytest.mark.parametrize("requirement", list(requirements(beside=BESIDE_DEV)), ids=lambda found: found.name)
def test_lower_bound_is_the_version_that_the_lowest_environment_has(requirement: Requirement) -> None:
    (bound,) = requirement.specifier
    assert bound.operator == ">=", f"{requirement}: state the lowest version that works, as name>=version"
    assert pins("constraints-lowest.txt")[canonicalize_name(requirement.name)] == Version(bound.version)


@pytest.mark.parametrize("requirement", list(requirements(beside={"dev-s3", "docs"})), ids=lambda found: found.name)
def test_the_versions_that_the_tests_ran_with_are_allowed(requirement: Requirement) -> None:
    assert pins("constraints.txt")[canonicalize_name(requirement.name)] in requirement.specifier


def test_dev_has_every_extra() -> None:
    """So that the tests run with all of them; those of the page have an environment of their own."""
    extras = PROJECT["optional-dependencies"]
    (own,) = (found for found in map(Requirement, extras["dev"]) if found.name == "hybridclf")
    assert own.extras == extras.keys() - BESIDE_DEV - {"dev"}


@pytest.mark.parametrize("package", SOURCES)
def test_every_import_is_a_declared_dependency(package: str) -> None:
    extras = [
        lines for extra, lines in PROJECT["optional-dependencies"].items() if not extra.startswith(("dev", "docs"))
    ]
    lines = [*PROJECT["dependencies"], *(line for some in extras for line in some)]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    installed = importlib.metadata.packages_distributions()
    undeclared = {
        (file, name)
        for file, name in imports(package)
        if name not in sys.stdlib_module_names
        and name not in SOURCES
        and declared.isdisjoint(map(canonicalize_name, installed.get(name, [name])))
    }
    assert undeclared == set()
