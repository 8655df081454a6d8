"""Save files of waves: every signal that they name is in the waves, by unit."""

import re
from pathlib import Path

import pytest

from splatforge.designs.raster import PRESETS
from splatforge.scenes import default_camera, resolve
from splatforge.verification.lib.build import BuildError
from splatforge.verification.lib.frame import Waves
from splatforge.verification.lib.wave_views import (
    View,
    gtkwave_save,
    surfer_commands,
    views,
)

DESIGN = PRESETS["16-lane"]
VERILOG = r"""module raster(clk, rst, irq, m_axi_araddr);
  input clk;
  wire clk;
  input rst;
  output irq;
  output [39:0] m_axi_araddr;
  \raster.fetch  fetch (
    .clk(clk)
  );
  \raster.lane  lane_0 (
    .clk(clk)
  );
endmodule
module \raster.fetch (i_beat__payload, skip, clk, i_beat__valid, \port$1 , \event , i_beat__ready);
  input [7:0] i_beat__payload;
  input skip;
  input clk;
  input i_beat__valid;
  output i_beat__ready;
  input \port$1 ;
  output \event ;
endmodule
module \raster.lane (clk);
  input clk;
endmodule
"""


def test_units_have_their_ports_and_lanes_no_group():
    top, fetch = views(VERILOG, DESIGN)
    assert (top.scope, top.title) == ("TOP.raster", "raster")
    assert top.ports == (("clk", 1), ("rst", 1), ("irq", 1), ("m_axi_araddr", 40))
    assert (fetch.scope, fetch.title) == ("TOP.raster.fetch", "fetch")
    assert fetch.ports == (("clk", 1), ("i_beat__valid", 1), ("i_beat__ready", 1),
                           ("i_beat__payload", 8), ("event", 1), ("skip", 1))


def test_text_of_the_save_files():
    unit = [View(scope="TOP.raster", ports=(("clk", 1),)),
            View(scope="TOP.raster.array.blend", ports=(("level", 3),))]
    assert gtkwave_save(unit, Path("a/b.fst")) == (
        '[dumpfile] "b.fst"\n[timestart] 0\n[sst_expanded] 1\n'
        "@800200\n-raster\n@28\nTOP.raster.clk\n@1000200\n-raster\n"
        "@c00200\n-array.blend\n@22\nTOP.raster.array.blend.level[2:0]\n@1400200\n-array.blend\n")
    assert surfer_commands(unit) == (
        "divider_add raster\nvariable_add TOP.raster.clk\n"
        "divider_add array.blend\nvariable_add TOP.raster.array.blend.level\nzoom_fit\n")


@pytest.mark.rtl
def test_what_the_save_files_name_is_in_the_waves(tmp_path):
    pywellen = pytest.importorskip("pywellen")
    from splatforge.verification.cosim import cosim

    scene, path = resolve("default"), tmp_path / "frame.fst"
    try:
        cosim("raster", DESIGN, scene, [default_camera(scene, 16, 16)], state=False,
              waves=Waves(path=path, last_cycle=20))
    except BuildError as error:
        if "headers of zlib and lz4" not in str(error):
            raise
        pytest.skip(str(error))
    widths = {var.full_name: var.bitwidth for var in pywellen.Waveform(str(path)).all_vars()}
    text = path.with_suffix(".gtkw").read_text()
    assert f'[dumpfile] "{path.name}"' in text
    shown = re.findall(r"^(TOP\.[\w.]+?)(?:\[(\d+):0\])?$", text, re.MULTILINE)
    assert len(shown) > 150
    for name, high in shown:
        assert widths.get(name) == int(high or 0) + 1, name
    units = re.findall(r"^-([\w.]+)$", text, re.MULTILINE)[::2]
    assert {"raster", "fetch", "array", "array.alpha", "array.blend", "resolve", "shell",
            "shell.registers"} == set(units)
    commands = path.with_suffix(".sucl").read_text()
    assert re.findall(r"^variable_add (\S+)$", commands, re.MULTILINE) == [
        name for name, _ in shown]
    assert re.findall(r"^divider_add (\S+)$", commands, re.MULTILINE) == units
