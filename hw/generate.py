"""Verilog of the components, with a stable text and one module for identical parts."""

import contextlib
import gc
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.back import rtlil as rtlil_backend  # pyright: ignore[reportAttributeAccessIssue]
from amaranth.back import verilog as backend
from amaranth.hdl import Elaboratable
from amaranth.lib import wiring

from splatforge.designs.accelerators import ACCELERATORS
from splatforge.designs.ccu import (
    CAMERA_WORDS,
    FLAG_ANTIALIASED,
    gaussian_beats,
    gaussian_words,
)
from splatforge.designs.cfu import PLACE_BITS
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lumina import (
    FLAG_CACHE,
    FLAG_FLUSH,
    FLAG_REMAP,
    ID_BITS,
    LuminaDesign,
)
from splatforge.designs.nru import RECORD_ID_BITS
from splatforge.designs.raster import RasterDesign
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import (
    DESCRIPTOR_VERSION,
    HEAD_REGISTERS,
    AcceleratorDesign,
    FrameError,
    counter_registers,
)
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.designs.voxel import (
    CELL_BITS,
    LEVEL_BIT,
    OCTAVE_BITS,
    POPULATION_BITS,
    PREFIX_SHIFTS,
    STREAM_CAMERA_WORDS,
    VOXEL_WORDS,
    WORD_INTEGERS,
)
from splatforge.designs.voyager import VoyagerDesign
from splatforge.hw.alpha import Alpha
from splatforge.hw.array import Array
from splatforge.hw.blend import Blend
from splatforge.hw.bsu import Bsu
from splatforge.hw.ccu import Ccu
from splatforge.hw.cfu import Cfu
from splatforge.hw.falloff import Falloff
from splatforge.hw.fetch import Fetch
from splatforge.hw.ffu import Ffu
from splatforge.hw.gscore import Gscore
from splatforge.hw.lib.integration import core_file, smoke_test, vivado_tcl, waiver_file
from splatforge.hw.lists import Lists
from splatforge.hw.lumina import Lumina
from splatforge.hw.nru import Nru
from splatforge.hw.qsu import Qsu
from splatforge.hw.radiance import Radiance
from splatforge.hw.raster import Raster
from splatforge.hw.registers import Registers
from splatforge.hw.resolve import Resolve
from splatforge.hw.setup import Setup
from splatforge.hw.streaminggs import Streaminggs
from splatforge.hw.tilelists import Tilelists
from splatforge.hw.voyager import Voyager
from splatforge.hw.vru import Vru
from splatforge.hw.vsort import Vsort
from splatforge.hw.vsu import Vsu

__all__ = ["COMPONENTS", "UNITS", "component", "home", "register_map", "rtlil", "to_rtlil",
            "to_verilog", "verilog", "write_verilog"]

#: Every unit by name.
COMPONENTS = {
    "alpha": Alpha, "array": Array, "blend": Blend, "bsu": Bsu, "ccu": Ccu, "cfu": Cfu,
    "falloff": Falloff, "fetch": Fetch, "ffu": Ffu, "gscore": Gscore, "lists": Lists,
    "lumina": Lumina, "nru": Nru, "qsu": Qsu, "radiance": Radiance, "raster": Raster,
    "registers": Registers, "resolve": Resolve, "setup": Setup, "streaminggs": Streaminggs,
    "tilelists": Tilelists, "voyager": Voyager, "vru": Vru, "vsort": Vsort, "vsu": Vsu,
}
#: Units that accelerators with that array have.
_COMMON = frozenset({"alpha", "array", "blend", "registers", "resolve"})
#: Units of each accelerator, itself among them where its top is there.
UNITS = {
    "raster": _COMMON | {"fetch", "raster"},
    "gscore": _COMMON | {"bsu", "ccu", "gscore", "lists", "qsu", "vru"},
    "lumina": frozenset(
        {"lumina", "nru", "radiance", "registers", "resolve", "tilelists", "vru"}),
    "streaminggs": _COMMON | {"cfu", "ffu", "setup", "streaminggs", "vsort", "vsu"},
    "voyager": _COMMON - {"alpha"} | {"bsu", "ccu", "falloff", "lists", "qsu", "voyager", "vru"},
}

_MODULE = re.compile(r"^module (\\\S+ |\w+)(.*?)^endmodule\n", re.MULTILINE | re.DOTALL)
#: "  <type> <name> (" with escaped names ending in a blank: an instance.
_INSTANCE = re.compile(r"^  (\\\S+|\w+) +(?=(?:\\\S+|\w+) +\()", re.MULTILINE)
#: The same in RTLIL; attributes stand before the module.
_RTLIL_MODULE = re.compile(
    r"^((?:attribute [^\n]*\n)*)module (\S+)(.*?)^end\n", re.MULTILINE | re.DOTALL)
_RTLIL_INSTANCE = re.compile(r"^  cell (\\\S+) (?=\S+$)", re.MULTILINE)
#: Characters of RTLIL above which identical modules are merged before Yosys reads them, not only
#: behind it: it takes minutes for the 64 units of Lumina's array.
_LARGE_RTLIL = 1 << 24


def _share_modules(text: str) -> str:
    """Merge modules whose text is the same but for their name, leaves first.

    Amaranth writes one module for every instance. One module with many instances is what a reader
    expects, and what lets a simulator compile the code of a lane once.
    """
    while True:
        first: dict[str, str] = {}
        twin: dict[str, str] = {}
        for match in _MODULE.finditer(text):
            name, body = match.group(1).strip(), match.group(2)
            if first.setdefault(body, name) != name:
                twin[name] = first[body]
        if not twin:
            return text
        text = _drop_modules(text, twin)


def _drop_modules(text: str, twin: dict[str, str]) -> str:
    """Text without the modules `twin`, and their twins instantiated in their place."""
    text = _MODULE.sub(lambda m: "" if m.group(1).strip() in twin else m.group(0), text)
    return _INSTANCE.sub(lambda m: f"  {twin.get(m.group(1), m.group(1))} ", text)


def home(name: str) -> str:
    """Accelerator that unit `name` is shown in, where none is asked for.

    Raises
    ------
    ValueError
        If there is no such unit.
    """
    for accelerator, units in UNITS.items():
        if name in units:
            return accelerator
    raise ValueError(f"Component must be one of {sorted(COMPONENTS)}, not {name!r}")


def component(name: str, design: AcceleratorDesign) -> wiring.Component:
    """Unit `name` of `design`.

    Raises
    ------
    ValueError
        If `design` has no such unit.
    """
    if name not in UNITS[design.name]:
        raise ValueError(
            f"Component must be one of {sorted(UNITS[design.name])}, not {name!r}")
    made = _made(name, design)
    if type(made) is not COMPONENTS[name]:
        # One that fell through to another's case: its bench would miss ports of that.
        raise TypeError(f"{name}: hw.generate must have a case that makes it of a {design.name}, "
                        f"which gives {type(made).__name__}")
    return made


def _made(name: str, design: AcceleratorDesign) -> wiring.Component:
    """Unit `name`, of those that `design` has."""
    match name:
        case "alpha":
            return Alpha(design.array, design.splat)
        case "array":
            return Array(design.array, design.splat)
        case "blend":
            return Blend(design.array)
        case "falloff":
            return Falloff(design.array, design.splat)
        case "registers":
            return Registers.for_design(design)
        case "resolve":
            side = (design.radiance.group_tiles if isinstance(design, LuminaDesign)
                    else design.array.side)
            return Resolve(design.array.blend, design.resolve, design.shell, side)
    if isinstance(design, LuminaDesign):
        match name:
            case "lumina":
                return Lumina(design)
            case "nru":
                return Nru(
                    design.nru, design.splat, design.radiance.record_ids, design.resolve)
            case "radiance":
                return Radiance(design.radiance, design.shell)
            case "tilelists":
                return Tilelists(design.tilelists, design.shell, design.radiance.group_tiles)
        return Vru(design.vru, design.shell, placed=True, number_bits=RECORD_ID_BITS)
    if isinstance(design, RasterDesign):
        return Raster(design) if name == "raster" else Fetch(design.fetch, design.shell)
    if isinstance(design, StreaminggsDesign):
        match name:
            case "cfu":
                return Cfu(design.cfu, design.shell)
            case "ffu":
                return Ffu(design.ffu, design.shell)
            case "setup":
                return Setup(design.setup, design.ffu)
            case "streaminggs":
                return Streaminggs(design)
            case "vsu":
                return Vsu(design.vsu, design.shell)
        return Vsort(design.vsort, design.ffu)
    assert isinstance(design, GscoreDesign)
    match name:
        case "bsu":
            return Bsu(design.bsu, design.lists, design.shell)
        case "ccu":
            return Ccu(design.ccu, design.shell)
        case "gscore":
            return Gscore(design)
        case "lists":
            return Lists(design.lists, design.shell)
        case "qsu":
            return Qsu(design.qsu, design.lists, design.shell)
        case "voyager":
            assert isinstance(design, VoyagerDesign)
            return Voyager(design)
    return Vru(design.vru, design.shell)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No search for cycles: of Amaranth's tens of millions of objects all live until the end.

    Half of the time of a large accelerator is spent on looking at them again and again.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


def _converted(top: Elaboratable, name: str) -> str:
    """RTLIL as Amaranth writes it: a module for every instance."""
    with _uncollected():
        return rtlil_backend.convert(top, name=name, emit_src=False)


def verilog(name: str, design: AcceleratorDesign | None = None) -> str:
    """Verilog of unit `name`: no source paths, fixed top name, the same text on every run.

    Without a design it is that of the default parameters of the unit's accelerator.
    """
    return to_verilog(component(name, design or ACCELERATORS[home(name)].design), name)


def to_verilog(top: Elaboratable, name: str) -> str:
    """Verilog of any component, the top module called `name`.

    Raises
    ------
    RuntimeError
        If Yosys, which writes it, ends in disorder.
    """
    os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")
    text = _converted(top, name)
    if len(text) > _LARGE_RTLIL:
        text = _share_all_rtlil(text)
    try:
        # What `backend.convert` does behind its own RTLIL.
        text = backend._convert_rtlil_text(text)  # pyright: ignore[reportAttributeAccessIssue]
    except backend.YosysError as error:  # no memory, no room, a limit of the user
        last = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(f"Yosys cannot write the Verilog of {name}: {last}") from error
    # The header names the tool's build; the trigger of `always @*` blocks has a running number.
    text = re.sub(r"/\* Generated by .*? \*/\n", "", text)
    return _share_modules(re.sub(r"\\\$auto\$verilog_backend\S*", r"\\$always", text))


def _share_rtlil(text: str) -> tuple[str, bool]:
    """`text` with the modules that are the same merged, and whether there were any."""
    first: dict[tuple[str, str], str] = {}
    twin: dict[str, str] = {}
    for attributes, module, body in _RTLIL_MODULE.findall(text):
        if first.setdefault((attributes, body), module) != module:
            twin[module] = first[attributes, body]
    text = _RTLIL_MODULE.sub(lambda m: "" if m.group(2) in twin else m.group(0), text)
    return _RTLIL_INSTANCE.sub(
        lambda m: f"  cell {twin.get(m.group(1), m.group(1))} ", text), bool(twin)


def _share_all_rtlil(text: str) -> str:
    """`text` with one module for identical parts, leaves first."""
    shared = True
    while shared:
        text, shared = _share_rtlil(text)
    return text


def rtlil(name: str, design: AcceleratorDesign | None = None) -> str:
    """RTLIL of unit `name`, the top module called so, with one module for identical parts.

    Without a design it is that of the default parameters of the unit's accelerator.
    """
    return to_rtlil(component(name, design or ACCELERATORS[home(name)].design), name)


def to_rtlil(top: Elaboratable, name: str) -> str:
    """RTLIL of any component, the top module called `name`."""
    return _share_all_rtlil(_converted(top, name))


def register_map(design: AcceleratorDesign) -> dict[str, object]:
    """Register map of an accelerator, for JSON."""
    registers = [*HEAD_REGISTERS, *counter_registers(design.counters)]
    return {
        "core": design.name, "data_bits": 32, "address_bits": design.shell.register_address_bits,
        "registers": [asdict(register) for register in registers],
        "descriptor": [{"name": name, "offset": offset, "size_bytes": size}
                       for name, offset, size in design.descriptor_fields],
        "descriptor_version": DESCRIPTOR_VERSION,
        "errors": {error.name: int(error) for error in FrameError},
        "pixel_formats": {kind.name: int(kind) for kind in PixelFormat},
    }


def _raster_memory(design: RasterDesign) -> list[str]:
    """What the raster core reads and writes, in Markdown."""
    return [
        ("Backgrounds are "
         f"{design.resolve.background}; addresses of the tile table and of the splats are "
         "multiples of 256; the framebuffer's address and pitch are multiples of 16 pixels, and "
         "the pitch is at least a row of the frame."),
        "", ("Tile table: for every tile, row-major, two 32-bit words, first splat and count. "
             "Splats: 16 bytes each, fields from bit 0 upward:"), "",
        "| field | bits | signed |", "|---|---|---|",
        *(f"| {name} | {width} | {'yes' if signed else 'no'} |"
          for name, width, signed in design.splat.fields()),
    ]


def _words(names: Sequence[str]) -> list[str]:
    """A record of 32-bit words, in Markdown."""
    return ["| offset | word |", "|---|---|",
            *(f"| {4 * place} | {name} |" for place, name in enumerate(names))]


def _framebuffer(design: GscoreDesign | LuminaDesign | StreaminggsDesign) -> str:
    return (f"Backgrounds are {design.resolve.background}; the framebuffer's address and pitch "
            "are multiples of 16 pixels, and the pitch is at least a row of the frame; the other "
            "addresses are multiples of 256.")


def _gscore_memory(design: GscoreDesign) -> list[str]:
    """What GSCore and Voyager's client read and write, in Markdown."""
    beats = ", ".join(str(gaussian_beats(degree)) for degree in range(4))
    bit = FLAG_ANTIALIASED.bit_length() - 1
    return [
        _framebuffer(design), "",
        (f"Scene: a record for every Gaussian, of {beats} "
         "beats of 16 bytes for SH of degree 0, 1, 2, 3; words of binary32, the last beat filled "
         "up with zeros. `log_opacity` is -log2 of the opacity, `l` the lower Cholesky factor of "
         "the covariance:"), "", *_words(gaussian_words(3)),
        "", ("Camera: words of binary32, `flags` an integer. `right` and `down` are rows of the "
             f"rotation times the focal lengths; bit {bit} of `flags` compensates "
             "the opacity for the dilation:"), "", *_words(CAMERA_WORDS),
        "", (f"Workspace: pages of {design.lists.page_bytes} bytes, in which the core keeps "
             "feature records and the tiles' lists; nothing need be in it before a frame."),
    ]


def _streaminggs_memory(design: StreaminggsDesign) -> list[str]:
    """What the StreamingGS core reads and writes, in Markdown."""
    books = design.ffu.codebooks
    return [
        _framebuffer(design), "",
        (f"Voxel table: {4 * len(VOXEL_WORDS)} bytes for every voxel. `base` is its corner less "
         "its edge `size`, binary32; `address` the first beat of its coarse half, from the "
         f"scene's address in beats of 16 bytes; `population` its Gaussians in {POPULATION_BITS} "
         f"bits, then {len(PREFIX_SHIFTS)} times {OCTAVE_BITS} bits of octaves, and from bit "
         f"{LEVEL_BIT} its level and path; `cell` {CELL_BITS} bits an axis; `reach` two words of "
         "binary16:"), "", *_words(VOXEL_WORDS),
        "", (f"Scene: of every voxel its Gaussians by descending scale, 8 bytes each: {PLACE_BITS} "
             "bits of place in the voxel for x, y and z, and the largest scale in binary16; behind "
             "them, from the next beat on, a beat of indices for each. Indices from bit 0 "
             "upward:"), "", "| codebook | bits |", "|---|---|",
        *(f"| {name} | {width} |" for name, width, _ in books.fields()),
        "", ("Codebooks, one behind the other, each entry numbers of binary16 filled up to whole "
             "beats; those of SH above the scene's degree may be left out:"), "",
        "| codebook | entries | numbers |", "|---|---|---|",
        *(f"| {name} | {entries} | {len(numbers)} |" for name, entries, numbers
          in books.codebooks()),
        "", (f"Camera: words of binary32; {', '.join(WORD_INTEGERS)} are integers:"), "",
        *_words(STREAM_CAMERA_WORDS),
    ]


def _lumina_memory(design: LuminaDesign) -> list[str]:
    """What LuminCore reads and writes, in Markdown."""
    radiance = design.radiance
    cache, flush, remap = (flag.bit_length() - 1 for flag in (FLAG_CACHE, FLAG_FLUSH, FLAG_REMAP))
    return [
        _framebuffer(design), "",
        (f"Flags: bit {cache} uses the cache, bit {flush} starts it empty and loads no bank, bit "
         f"{remap} lets chunks be blended in passes, which changes no pixel."), "",
        (f"Tiles are in groups of {radiance.group_tiles} by {radiance.group_tiles}: groups "
         "row-major, tiles row-major in each, those outside of the frame left out. Tile table: for "
         "every tile two 32-bit words, first beat of its list and ids in it. Lists: a 32-bit word "
         f"an id, which has {ID_BITS} bits; each begins at a multiple of 256 bytes. `list_beats` "
         "are the beats of all of them."), "",
        "Features: 32 bytes each, at 32 times the Gaussian's id, fields from bit 0 upward:", "",
        "| field | bits | signed |", "|---|---|---|",
        *(f"| {name} | {width} | {'yes' if signed else 'no'} |"
          for name, width, signed in design.setup.feature.fields()),
        "", (f"Cache: a bank of {radiance.image_bytes} bytes for every group, {radiance.sets} sets "
             f"of {radiance.ways} ways one after another; of a way {radiance.tag_bits} bits of "
             "tag, 24 of colour, red lowest, a bit that says whether it is valid, and in the first "
             "way of a set its pseudo-LRU tree."),
    ]


#: For each accelerator the part of its page about memory.
_MEMORY: dict[str, Callable[[Any], list[str]]] = {
    "raster": _raster_memory, "gscore": _gscore_memory, "lumina": _lumina_memory,
    "streaminggs": _streaminggs_memory, "voyager": _gscore_memory}


def _register_page(design: AcceleratorDesign) -> str:
    """Register map of an accelerator in Markdown."""
    lines = [
        f"# {design.name.capitalize()} core: registers", "",
        ("AXI4-Lite, 32 bits. An access outside of this map, or a write to a read-only register, "
         "is answered with SLVERR."), "",
        "| offset | name | access | content |", "|---|---|---|---|",
    ]
    lines += [f"| 0x{register.offset:03x} | {register.name} | {register.access} | "
              + register.text.replace("|", "\\|") + " |"
              for register in (*HEAD_REGISTERS, *counter_registers(design.counters))]
    lines += [
        "", "## Frame descriptor", "",
        "64 bytes at a multiple of 64, little-endian. Reserved bytes are ignored.", "",
        "| offset | bytes | field |", "|---|---|---|",
        *(f"| {offset} | {size} | {name} |" for name, offset, size in design.descriptor_fields),
        "", *_MEMORY[design.name](design),
        "", "## Errors", "", "| ERROR | name |", "|---|---|",
        *(f"| {int(error)} | {error.name} |" for error in FrameError),
        "", "## Pixel formats", "", "| value | name | bytes |", "|---|---|---|",
        *(f"| {int(kind)} | {kind.name} | {kind.size_bytes} |" for kind in PixelFormat),
    ]
    return "\n".join(lines) + "\n"


def write_verilog(folder: Path, design: AcceleratorDesign) -> list[Path]:
    """Write an accelerator for an integrator.

    Parameters
    ----------
    folder : Path
        Where to; made if it is not there.
    design : AcceleratorDesign
        The design.

    Returns
    -------
    list of Path
        Of the raster core ``raster.v``, ``registers.md``, ``registers.json``, the FuseSoC file
        ``raster.core`` with ``raster_waivers.vlt`` and ``raster_smoke.cpp`` for Verilator, and
        ``raster_vivado.tcl``; of the others likewise.
    """
    name = design.name
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        f"{name}.v": verilog(name, design),
        "registers.md": _register_page(design),
        "registers.json": json.dumps(register_map(design), indent=2) + "\n",
        f"{name}.core": core_file(name, version("splatforge")),
        f"{name}_waivers.vlt": waiver_file(name),
        f"{name}_smoke.cpp": smoke_test(name),
        f"{name}_vivado.tcl": vivado_tcl(name),
    }
    written = []
    for name, content in contents.items():
        # A file is there whole or not at all.
        partial = folder / f".{name}.partial"
        try:
            partial.write_text(content)
            partial.replace(folder / name)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder / name)) from error
        finally:
            partial.unlink(missing_ok=True)
        written.append(folder / name)
    return written
