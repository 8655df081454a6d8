"""Build the Verilog of one component with cocotb inside, and run its testbench."""

from dataclasses import fields, replace
from pathlib import Path

from cocotb_tools import config
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

from splatforge.designs.bsu import BsuDesign
from splatforge.designs.ccu import CcuDesign
from splatforge.designs.cfu import CfuDesign
from splatforge.designs.codebook import CodebookDesign
from splatforge.designs.entry import EntryFormat
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.fetch import FetchDesign
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lists import ListsDesign
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.nru import NruDesign
from splatforge.designs.qsu import QsuDesign
from splatforge.designs.radiance import RadianceDesign
from splatforge.designs.raster import PRESETS, RasterDesign
from splatforge.designs.resolve import ResolveDesign
from splatforge.designs.shell import AcceleratorDesign
from splatforge.designs.streaminggs import PartitionDesign, StreaminggsDesign
from splatforge.designs.tilelists import TilelistsDesign
from splatforge.designs.voyager import VoyagerDesign
from splatforge.designs.vru import VruDesign
from splatforge.designs.vsort import VsortDesign
from splatforge.designs.vsu import VsuDesign
from splatforge.hw.generate import home, verilog
from splatforge.verification.lib.build import SLOW, Binary, build

__all__ = ["TESTED", "TESTED_GSCORE", "TESTED_LUMINA", "TESTED_LUMINCORE",
           "TESTED_STREAMINGGS", "TESTED_VOYAGER", "build_cocotb", "build_testbench", "run_module",
           "run_testbench"]

#: Configuration of the testbenches: few lanes and short buffers, that fill up often.
TESTED: RasterDesign = replace(
    PRESETS["16-lane"],
    fetch=FetchDesign(buffer_splats=16, burst_beats=8, outstanding_bursts=2),
    resolve=ResolveDesign(outstanding_bursts=3),
)
#: At most 127 features.
_ENTRY = EntryFormat(feature_bits=7)
#: The same of GSCore, with a cache that forgets soon, short lists of short pages, small chunks.
TESTED_GSCORE = GscoreDesign(
    ccu=CcuDesign(entry=_ENTRY, buffer_beats=64, burst_beats=8, outstanding_bursts=2),
    lists=ListsDesign(entry=_ENTRY, tiles=64, slots=64, page_bytes=64, page_bits=10,
                      waiting_beats=8, buffer_beats=8, outstanding_pages=2),
    qsu=QsuDesign(chunk=8, buckets=4),
    bsu=BsuDesign(entry=_ENTRY, chunk=8, width=4, units=2),
    vru=VruDesign(entry=_ENTRY, cache_features=8, waiting=8, outstanding_features=4),
    array=TESTED.array, resolve=TESTED.resolve,
)
#: The same of Voyager's client.
TESTED_VOYAGER = VoyagerDesign(
    **{field.name: getattr(TESTED_GSCORE, field.name) for field in fields(GscoreDesign)
       if field.name != "array"},
    array=replace(TESTED.array, alpha=FalloffDesign()))
#: The same of StreamingGS, with small codebooks.
TESTED_STREAMINGGS = StreaminggsDesign(
    cfu=CfuDesign(voxels_ahead=4, buffer_beats=64, burst_beats=16, outstanding_bursts=3,
                  queue=32),
    ffu=FfuDesign(
        waiting=16, buffer_beats=16, burst_beats=8, outstanding_bursts=2, codebook_bursts=1,
        codebooks=CodebookDesign(rotation=(5, 3), ratios=(4,), opacity=(4,), color=(4, 2),
                                 sh1=(3, 2), sh2=(3,), sh3=(2, 1))),
    partition=PartitionDesign(capacity=16), vsort=VsortDesign(capacity=16, width=4, waiting=16),
    vsu=VsuDesign(voxels=128, scan_width=2, interval=3, buffer_beats=16, burst_beats=4,
                  outstanding_bursts=2, waiting_rows=2),
    array=replace(TESTED.array, group_tiles=2), resolve=TESTED.resolve)

#: The same of Lumina, with a cache that forgets soon and small groups.
TESTED_LUMINA = LuminaDesign(
    nru=NruDesign(side=2, chunk_splats=16, queue_entries=4),
    radiance=RadianceDesign(record_ids=3, sets=16, group_tiles=2, outstanding_bursts=2),
    tilelists=TilelistsDesign(
        entry=_ENTRY, buffer_beats=16, burst_beats=4, outstanding_bursts=2),
    vru=TESTED_GSCORE.vru,
    resolve=TESTED.resolve)
#: The whole of it, which has a unit for every four pixels of a tile.
TESTED_LUMINCORE = replace(TESTED_LUMINA, nru=replace(TESTED_LUMINA.nru, side=8))


def _tested(name: str) -> AcceleratorDesign:
    """What the testbench of component `name` is written for."""
    if name == TESTED_LUMINCORE.name:
        return TESTED_LUMINCORE
    return {"raster": TESTED, "gscore": TESTED_GSCORE, "lumina": TESTED_LUMINA,
            "streaminggs": TESTED_STREAMINGGS, "voyager": TESTED_VOYAGER}[home(name)]


def build_testbench(
    name: str, *, design: AcceleratorDesign | None = None, trace: str | None = None,
    cache: Path | None = None,
) -> Binary:
    """Component `name` under Verilator with cocotb's VPI, from the cache if there.

    Without a design it is that which the component's testbench is written for.

    Only the ports are visible to cocotb; making everything visible costs most of the speed.
    """
    return build_cocotb(verilog(name, design or _tested(name)), name, trace=trace, cache=cache)


def run_testbench(
    name: str, folder: Path, *, seed: int, design: AcceleratorDesign | None = None,
    waves: str | None = None, cache: Path | None = None,
) -> None:
    """Run the tests of ``splatforge.verification.<name>`` on the Verilog of `name`.

    Parameters
    ----------
    name : str
        A component of :data:`splatforge.hw.generate.COMPONENTS`.
    folder : Path
        Where results and waves go.
    seed : int
        Of cocotb's and the testbench's random numbers.
    design : AcceleratorDesign, optional
        What is built; the testbenches are written for :data:`TESTED` and its like.
    waves : {"fst", "vcd"}, optional
        Write ``dump.fst`` or ``dump.vcd`` into `folder`.
    cache : Path, optional
        Folder of built simulations.

    Raises
    ------
    BuildError
        If the simulation cannot be built.
    AssertionError
        If a test fails, if there is none, or if the simulation does not end as it should.
    """
    binary = build_testbench(name, design=design, trace=waves, cache=cache)
    run_module(f"splatforge.verification.{name}", name, binary, folder, seed=seed,
               waves=waves is not None)


def build_cocotb(
    verilog: str, top: str, *, trace: str | None = None, cache: Path | None = None
) -> Binary:
    """Any Verilog under Verilator with cocotb's VPI; the signals of the top module are visible."""
    main = config.share_dir / "lib" / "verilator" / "verilator.cpp"
    libraries = config.libs_dir
    return build(
        verilog, top, [main], trace=trace, cache=cache,
        verilate=["--vpi", "--public-depth", "1", "--timescale", "1ns/1ps"],
        link=[f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lcocotbvpi_verilator"],
        optimise=SLOW)


def run_module(
    module: str, top: str, binary: Binary, folder: Path, *, seed: int, waves: bool = False,
) -> None:
    """Run the cocotb tests of a Python module on a binary of :func:`build_cocotb`.

    Parameters
    ----------
    module : str
        Name that it is imported by.
    top : str
        Name of the top module.
    binary : Binary
        The simulation.
    folder : Path
        Where results and waves go.
    seed : int
        Of cocotb's and the module's random numbers.
    waves : bool
        Whether to write waves; the binary must have been built with them.

    Raises
    ------
    AssertionError
        If a test fails, if there is none, or if the simulation does not end as it should.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    results, log = folder / "results.xml", folder / "log"
    # cocotb starts the executable that is called like the top module.
    executable = folder / top
    executable.unlink(missing_ok=True)
    executable.symlink_to(binary.path)
    broken = ""
    try:
        get_runner("verilator").test(
            hdl_toplevel=top, hdl_toplevel_lang="verilog", build_dir=folder, test_dir=folder,
            test_module=module, seed=seed, waves=waves,
            results_xml=str(results), log_file=log)
    except (RuntimeError, SystemExit) as error:
        # The simulator died, or, under pytest, cocotb's runner wants to exit behind a failure.
        broken = f" ({error})"
    tests, failures = get_results(results) if results.exists() else (0, 0)
    if tests == 0 or failures or broken:
        said = log.read_text(errors="replace") if log.exists() else ""
        raise AssertionError(
            f"{top}: {failures} of {tests} tests failed{broken}; {log}:\n{_failures(said)}")


def _failures(log: str) -> str:
    """What `log` says of the first failure, and its summary."""
    lines = log.splitlines()
    first = next((n for n, line in enumerate(lines) if "Traceback" in line), len(lines))
    return "\n".join([*lines[first:first + 40], "...", *lines[-40:]])
