"""The pages of docs/: their commands parse, the tutorials' run, what is generated is the code's."""

import io
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from splatforge.cli import main
from splatforge.designs.accelerators import ACCELERATORS
from splatforge.hw.generate import COMPONENTS, UNITS

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import from_code
import offline
from test_docs import COMMANDS, parse

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(path: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(path.read_text("utf-8"))


#: The notebook's page has no code of its own.
TUTORIALS = [path for path in PAGES if path.parent.name == "tutorials"
             and any(language in ("sh", "python") for language, _ in blocks(path))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_commands_of_a_page_parse(path):
    text = path.read_text("utf-8")
    for language, block in blocks(path):
        if language in ("sh", "console"):
            for line in block.splitlines():
                if line.removeprefix("$ ").startswith("splatforge "):
                    parse(line.removeprefix("$ "))
    for verb in re.findall(r"`splatforge (\w+)", text):
        assert verb in {words[0] for words in COMMANDS}, verb
    for target in re.findall(r"^\$? ?make (\w+)$", text, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def run_line(line: str) -> None:
    """A line of a shell block: a verb in this process, anything else by the shell."""
    if line.startswith("splatforge "):
        import shlex

        assert main(shlex.split(line)[1:]) == 0, line
    else:
        subprocess.run(line, shell=True, check=True, timeout=60)


@pytest.mark.rtl
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_code_of_a_tutorial_runs(path, tmp_path, monkeypatch):
    """Block after block in one folder; a `text` block is what the Python before it prints."""
    monkeypatch.chdir(tmp_path)
    said = ""
    for language, block in blocks(path):
        if language == "sh":
            for line in block.strip().splitlines():
                run_line(line)
        elif language == "python":
            out = io.StringIO()
            with redirect_stdout(out):
                exec(compile(block, str(path), "exec"), {})
            said = out.getvalue()
        elif language == "text":
            assert said == block


def test_links_between_pages_lead_somewhere():
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#:]+\.\w+)\)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_files_that_pages_name_are_there():
    text = "\n".join(path.read_text("utf-8") for path in PAGES)
    for name in re.findall(r"`((?:examples|hw|sim|designs|tests|verification)/[\w/.]+)`", text):
        assert (ROOT / name).exists() or "NAME" in name, name


@pytest.mark.parametrize("name", sorted(UNITS))
def test_diagram_has_every_unit_and_its_streams(name):
    parts, edges = from_code.connections(name)
    inside = {"alpha", "falloff", "blend", "registers", name}
    assert UNITS[name] - inside <= set(parts)
    assert {giver for giver, _, _, _ in edges} | {taker for _, taker, _, _ in edges} <= set(parts)
    # Whatever a unit is for, it takes or gives something.
    touched = {part for edge in edges for part in edge[:2]}
    assert UNITS[name] - inside <= touched
    text = from_code.diagram(name)
    assert text.count("{") == text.count("}")


def test_streams_of_the_smallest_core():
    _, edges = from_code.connections("raster")
    assert {(giver, taker, called) for giver, taker, called, _ in edges} >= {
        ("fetch", "array", "splat"), ("fetch", "array", "tile"), ("array", "resolve", "tile"),
        ("shell", "fetch", "beat"), ("fetch", "shell", "address")}
    assert {called: width for giver, _, called, width in edges
                if giver == "fetch"}["splat"] == 128


@pytest.mark.parametrize("name", sorted(UNITS))
def test_every_unit_has_its_row_and_its_section(name):
    rows, lines = from_code.unit_table(name), from_code.unit_sections(name)
    assert len(rows) == 2 + len(UNITS[name])
    for unit in UNITS[name]:
        assert any(row.startswith(f"| [`{unit}`](#{name}-{unit}) |") for row in rows)
        assert f"### `{unit}`" in lines
        assert f"({name}-{unit})=" in lines
    text = "\n".join([*rows, *lines])
    assert "`array.lanes` = 64" in text or name == "lumina"
    assert "array.alpha.table_entries`" in text or name == "lumina"
    assert ":class:" not in text
    assert "``" not in text


@pytest.mark.parametrize("name", sorted(UNITS))
def test_a_parameter_has_the_name_that_a_sweep_takes(name):
    """As a page spells it, so it is turned."""
    lines = from_code.unit_sections(name)
    named = re.findall(r"`([\w.]+)`(?: = |\s(?:[US]Q|float))", " ".join(
        line for line in lines if line.startswith(": ")))
    assert len(named) > 8
    for each in named:
        part = ACCELERATORS[name].design
        for step in each.split("."):
            part = getattr(part, step)


def test_every_accelerator_and_system_has_its_page():
    from splatforge.sim.systems.run import SYSTEMS

    assert {path.stem for path in (DOCS / "accelerators").glob("*.md")} == set(UNITS)
    text = "\n".join(from_code.systems_table())
    assert set(re.findall(r"^## `(\w+)`$", text, re.MULTILINE)) == set(SYSTEMS)
    assert set(COMPONENTS) == set().union(*UNITS.values())


def test_what_is_fetched_from_elsewhere_is_found(tmp_path):
    page = tmp_path / "a.html"
    page.write_text('<link rel="canonical" href="https://x.org"><a href="https://x.org">x</a>')
    (tmp_path / "searchindex.js").touch()
    assert offline.main(tmp_path) == 0
    page.write_text('<script src="//cdn.x.org/a.js"></script>')
    (tmp_path / "a.css").write_text("@font-face { src: url('https://fonts.x.org/f') }")
    assert offline.fetched_from_elsewhere(tmp_path) == [
        "a.html: //cdn.x.org/a.js", "a.css: https://fonts.x.org/f"]
    assert offline.main(tmp_path) == 1
