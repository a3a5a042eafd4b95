"""Small rooms, one direction: size of modules and functions, no import cycles, data folders found."""

import ast
from pathlib import Path

import pytest

import probe
from probe.resources import data_folder

ROOT = Path(probe.__file__).resolve().parent
MODULES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Modules of the package that a module imports when it is imported (not lazily, not for types)."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("probe"):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` needs the module; a package's own __init__ is not what is meant.
            found |= inner & KNOWN or {node.module}
    return found


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


KNOWN = {name_of(path) for path in MODULES}


def test_no_import_cycles() -> None:
    graph = {name_of(path): imports(path) & KNOWN - {"probe"} - {name_of(path)} for path in MODULES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_rooms_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= 60, node.name


@pytest.mark.parametrize("name", ["backends", "scenarios", "db"])
def test_data_folders_are_found(name: str) -> None:
    assert any(data_folder(name).iterdir())
