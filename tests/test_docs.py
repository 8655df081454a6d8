"""The documents say what the program does: every command is there, every example parses."""

import io
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import typer.main

from splatforge import __version__
from splatforge.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def commands(group=None, prefix=()) -> dict:
    """Every command by its words."""
    group = group or typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, (*prefix, name))
        else:
            found[(*prefix, name)] = command
    return found


COMMANDS = commands()


def parse(line: str) -> None:
    """Parse a command line as the program would, without running it."""
    words = shlex.split(line)
    assert words[0] == "splatforge"
    key = tuple(words[1:3]) if tuple(words[1:3]) in COMMANDS else tuple(words[1:2])
    assert key in COMMANDS, line
    COMMANDS[key].make_context(" ".join(key), words[1 + len(key):])


def example(command) -> str:
    assert command.epilog.startswith("Example: splatforge "), command.name
    return command.epilog.removeprefix("Example: ")


def readme_lines() -> list[str]:
    lines = []
    for language, text in BLOCKS:
        if language in ("sh", "console"):
            text = text.replace("\\\n", " ")
            lines += [line.removeprefix("$ ").split("  #")[0].strip()
                      for line in text.splitlines() if line.strip()]
    return lines


def test_the_verbs_of_the_design_are_there():
    assert {words[0] for words in COMMANDS} == {
        "scenes", "render", "verilog", "cosim", "simulate", "sweep", "energy", "synth",
        "report", "claims", "systems", "lod", "cloud"}
    assert {words[1] for words in COMMANDS if words[0] == "scenes"} == {
        "list", "info", "convert", "make", "get", "tune"}
    assert {words[1] for words in COMMANDS if words[0] == "lod"} == {
        "build", "info", "search", "cut"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(words):
    command = COMMANDS[words]
    assert (command.help or "").strip().endswith("."), words
    line = example(command)
    assert tuple(shlex.split(line)[1:1 + len(words)]) == words
    parse(line)
    for option in command.params:
        assert getattr(option, "help", None), f"{words}: {option.name} has no help"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_readme(words):
    assert f"splatforge {' '.join(words)}" in README or f"`{' '.join(words)}`" in README


def test_readme_commands_parse():
    lines = [line for line in readme_lines() if line.startswith("splatforge")]
    assert len(lines) >= 5
    for line in lines:
        parse(line)


def test_readme_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"report", "test"} <= named <= targets
    helped = set(re.findall(r'@echo "make ([a-z-]+) ', makefile))
    assert targets - helped == {"help", "tools", "node", "dot"}


def test_readme_example_prints_what_it_says():
    (code,) = [text for language, text in BLOCKS if language == "python"]
    assert len(code.strip().splitlines()) <= 12
    said = README.split(code)[1].split("```text\n")[1].split("```")[0]
    out = io.StringIO()
    with redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    assert out.getvalue() == said


def test_readme_says_what_cosim_compares():
    """The same frame behind the 8-bit framebuffer."""
    import numpy as np

    from splatforge.algos import raster, reference
    from splatforge.algos.quality import psnr_db
    from splatforge.designs.raster import RasterDesign
    from splatforge.designs.resolve import PixelFormat
    from splatforge.scenes import default_camera, resolve

    (said,) = re.findall(r"rounded to 8 bits, the same frame is ([\d.]+) dB", README)
    scene, design = resolve("default"), RasterDesign()
    camera = default_camera(scene, 320, 240)
    frame = raster.render(raster.prepare(scene, camera, design), design)
    shown = (frame.pixels(PixelFormat.RGBA8)[..., :3] / 255).astype(np.float32)
    assert f"{psnr_db(shown, reference.render(scene, camera).image):.1f}" == said


def test_readme_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_readme_lists_every_component():
    from splatforge.hw.generate import COMPONENTS

    assert set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) == set(COMPONENTS)


def test_changelog_has_this_version():
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## {re.escape(__version__)}\b", changes, re.MULTILINE)
