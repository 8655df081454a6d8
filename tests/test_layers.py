"""Who may import whom: the table of the design, read from the source of every module."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "scenes": set(),
    "designs": set(),
    "algos": {"scenes", "designs"},
    "hw": {"designs", "algos"},
    "sim": {"scenes", "designs", "algos"},
    "verification": {"hw", "algos", "scenes", "designs", "sim"},
    "synth": {"hw", "designs", "verification"},
    "claims": {"sim", "algos", "scenes", "designs"},
    "report": set(),
}
#: Whole-system modules of `algos` that hardware has no business with: it takes ROM contents,
#: number formats, and graphs of operations with their schedules only.
HW_MAY_TAKE_FROM_ALGOS = {
    "alpha", "ccu", "cfu", "dataflow", "falloff", "ffu", "fixed", "floating", "footprint",
    "schedule", "vsu"}
FILES = sorted(path for folder in ALLOWED for path in (ROOT / folder).rglob("*.py"))


def own_imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of everything of ours that a module imports, lazily or not."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports must be absolute"
            if node.module == "splatforge":
                found += [(node.lineno, f"splatforge.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, node.module or ""))
    return [(line, name) for line, name in found if name.split(".")[0] == "splatforge"]


def test_every_folder_of_the_package_is_in_the_table():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"splatforge"}
    assert folders == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_stay_in_their_layer(path):
    layer = path.relative_to(ROOT).parts[0]
    for line, name in own_imports(path):
        parts = name.split(".")
        assert len(parts) > 1, f"line {line}: the package itself is no layer"
        assert parts[1] in ALLOWED[layer] | {layer}, f"line {line}: {layer} may not import {name}"
        if layer == "hw" and parts[1] == "algos":
            assert "".join(parts[2:3]) in HW_MAY_TAKE_FROM_ALGOS, f"line {line}: {name}"


def test_the_command_line_imports_lazily():
    tree = ast.parse((ROOT / "splatforge" / "cli.py").read_text("utf-8"))
    for node in tree.body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not [name for name in names if name.startswith(("splatforge", "numpy", "numba"))]


def modules() -> dict[str, set[str]]:
    """Module to the modules of ours that it imports when it is imported itself."""
    names = {}
    for path in FILES:
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        names[".".join(["splatforge", *parts])] = path
    graph: dict[str, set[str]] = {}
    for module, path in names.items():
        graph[module] = set()
        for node in ast.parse(path.read_text("utf-8")).body:
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                graph[module].add(full if full in names else node.module)
        graph[module] &= set(names)
    return graph


def test_no_circles():
    graph, done, path = modules(), set(), []

    def visit(module: str) -> None:
        if module in done:
            return
        assert module not in path, " -> ".join([*path[path.index(module):], module])
        path.append(module)
        for other in sorted(graph[module]):
            visit(other)
        path.pop()
        done.add(module)

    assert graph
    for module in sorted(graph):
        visit(module)
