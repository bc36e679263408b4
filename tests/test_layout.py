"""The layout of the core: imports make no circle, and between folders they only go down."""

import ast
import functools
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

CORE = Path(__file__).resolve().parents[1] / "hybridclf"
FILES = {".".join(p.relative_to(CORE.parent).with_suffix("").parts): p for p in CORE.rglob("*.py")}
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}

LEVELS = (
    {"__main__"},
    {"cli"},
    {"tuning"},
    {"evaluating"},
    {"app", "batch", "pair_training", "serving"},
    {"demo", "zeroshot"},
    {"estimator"},
    {"persistence"},
    {"captions", "counterfactual", "explanation", "fitting", "live"},
    {"reranker", "training"},
    {"denoising", "models"},
    {"pretrained", "proposer", "reranking"},
    {"data"},
    {"atomic", "devices", "metrics", "plugins"},
    {"utils"},
    {"ports"},
    {"errors"},
    {"hybridclf"},  # the package itself: its version
)
"""Folders and top-level modules, the highest first: each imports only from levels below its own."""

HEIGHT = {name: -i for i, names in enumerate(LEVELS) for name in names}


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, those in functions included, but none that is for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")):
            yield child
            yield from at_run_time(child)


def imports(module: str) -> set[str]:
    """Absolute names of what a module imports: modules of the core, and other packages as they are written."""
    path, found = MODULES[module], set()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in at_run_time(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {n if (n := f"{source}.{alias.name}") in MODULES else source for alias in node.names}
    return found - {module}


@functools.cache
def graph() -> dict[str, set[str]]:
    """What each module imports."""
    return {module: imports(module) for module in MODULES}


def folder(module: str) -> str:
    """The folder of a module, or its own name at the top level."""
    return [*module.split("."), ""][1] or module


def test_imports_make_no_circle() -> None:
    TopologicalSorter(graph()).prepare()  # raises, and names the circle


def test_every_folder_has_its_level() -> None:
    assert {folder(module) for module in MODULES} - HEIGHT.keys() == set()


def test_folders_import_from_below() -> None:
    arrows = {(a, b) for a, targets in graph().items() for b in targets & MODULES.keys() if folder(a) != folder(b)}
    assert {(a, b) for a, b in arrows if HEIGHT[folder(a)] <= HEIGHT[folder(b)]} == set()


def test_reranking_needs_no_torch_and_the_core_no_adapter() -> None:
    packages = {(module, name.partition(".")[0]) for module, names in graph().items() for name in names}
    assert {module for module, name in packages if name == "torch" and folder(module) == "reranking"} == set()
    assert {module for module, name in packages if name == "hybridclf_adapters"} == set()


def test_few_modules_stand_at_the_top_level() -> None:
    assert len(list(CORE.glob("*.py"))) <= 20
