"""What goes in and out of an accelerator's units in every cycle of a frame.

A core with a probe beside each unit: a Verilog module that sees the unit's ports and writes them
out, one line a cycle, from reset on. A unit's netlist is driven with the inputs and must give the
outputs; see :mod:`splatforge.synth.activity`.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.hdl import Cat, ClockSignal, Instance, ResetSignal, Value
from amaranth.lib.wiring import In, Out

from splatforge.algos import gscore, lumina, raster, streaminggs
from splatforge.algos.array import Workload
from splatforge.algos.fetch import MemoryImage, pack
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.raster import RasterDesign
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import AcceleratorDesign
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.designs.voyager import VoyagerDesign
from splatforge.hw.generate import component, to_verilog
from splatforge.hw.lib.axi import axi4_lite_members, axi4_members
from splatforge.hw.lib.component import Component
from splatforge.scenes import Camera, Scene, head_jitter
from splatforge.verification.lib.build import build, register_reset
from splatforge.verification.lib.frame import HARNESS, FrameRun, SimulationError, run_frames

__all__ = ["UNITS", "VOYAGER_UNITS", "OwnRecording", "PortTrace", "Recording", "own_units",
           "record_frame", "record_own_units", "record_ports"]

#: Units of the raster core that can be recorded.
UNITS = ("array", "fetch", "registers", "resolve")
#: The one of Voyager's client that neither the raster core nor GSCore has.
VOYAGER_UNITS = ("array",)
#: Units that the other accelerators have for themselves; `vru` of LuminCore is GSCore's.
_OWN = {"gscore": ("bsu", "ccu", "lists", "qsu", "vru"),
        "lumina": ("nru", "radiance", "tilelists"),
        "streaminggs": ("cfu", "ffu", "setup", "vsort", "vsu")}

#: The record ends with the frame, when the core resets its units.
_PROBE = """
module probe_{unit}(input clk, input stop, input [{inputs}:0] inputs, input [{outputs}:0] outputs);
  integer file;
  reg over = 0;
  initial file = $fopen("{unit}.ports", "w");
  always @(posedge clk) begin
    if (stop) over <= 1;
    if (!stop && !over) $fwrite(file, "%h %h\\n", outputs, inputs);
  end
endmodule
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class PortTrace:
    """The ports of one unit in every cycle, from the first cycle of reset on.

    Parameters
    ----------
    unit : str
        Its name.
    inputs, outputs : tuple of (str, int)
        Names and widths as in the unit's own Verilog, lowest bits first; the inputs without the
        clock, with ``rst``.
    input_bytes, output_bytes : ndarray
        The bits, packed from bit 0 upward, of shape [cycles, bytes]; uint8.
    """

    unit: str
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    input_bytes: npt.NDArray[np.uint8]
    output_bytes: npt.NDArray[np.uint8]

    @property
    def cycles(self) -> int:
        """Number of cycles."""
        return len(self.input_bytes)

    def without(self, first: int, last: int) -> "PortTrace":
        """The trace without the cycles from `first` to the one before `last`.

        It is one of the unit only where it stood still meanwhile; a netlist that is driven with it
        must still give its outputs.
        """
        kept = np.r_[0:first, last:self.cycles]
        return replace(self, input_bytes=self.input_bytes[kept],
                       output_bytes=self.output_bytes[kept])

    def values(self, name: str, first: int = 0, width: int | None = None) -> npt.NDArray[np.int64]:
        """A port, or a part of it, in every cycle.

        Parameters
        ----------
        name : str
            The port.
        first, width : int
            Lowest bit, and how many up to 57; the whole port by default.

        Raises
        ------
        ValueError
            If there is no such port, or the part is not in it or is wider.
        """
        for ports, content in ((self.inputs, self.input_bytes), (self.outputs, self.output_bytes)):
            place = 0
            for port, bits in ports:
                if port == name:
                    count = bits - first if width is None else width
                    if not (0 < count <= 57 and 0 <= first <= bits - count):
                        raise ValueError(f"Part of {name} must be of 1 to 57 of its {bits} bits, "
                                         f"not {count} from {first} on")
                    byte, bit = divmod(place + first, 8)
                    # 57 bits at any place of a byte lie in eight bytes.
                    part = content[:, byte:byte + 8].astype(np.uint64)
                    word = np.bitwise_or.reduce(
                        part << (8 * np.arange(part.shape[1], dtype=np.uint64)), axis=1)
                    return (word >> np.uint64(bit) & np.uint64((1 << count) - 1)).astype(np.int64)
                place += bits
        names = [port for port, _ in (*self.inputs, *self.outputs)]
        raise ValueError(f"Port of {self.unit} must be one of {', '.join(names)}, not {name!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """One frame of a scene through a core, with what its array and other units saw.

    Parameters
    ----------
    run : FrameRun
        Counters and pixels of the RTL; the pixels are those of the bit-true model.
    workload : Workload
        What happened, from the bit-true model.
    traces : mapping
        Unit -> its ports.
    """

    run: FrameRun
    workload: Workload
    traces: Mapping[str, PortTrace]

    def tile_windows(self) -> tuple[tuple[int, int], ...]:
        """Cycles of each tile but the last in the array: from its first cycle to the next's."""
        return tuple((int(first), int(last)) for first, last in pairwise(self._begun()))

    def _begun(self) -> npt.NDArray[np.int64]:
        """Cycles in which the array begins a tile."""
        array = self.traces["array"]
        return np.flatnonzero(array.values("i_tile__valid") & array.values("i_tile__ready")) + 1

    def of_array(self, cycles: int | None = None, lead: int = 100) -> "Recording":
        """The array alone, without the cycles in which it waits for its first tile.

        Parameters
        ----------
        cycles : int, optional
            As many from the first tile on; to the frame's end by default.
        lead : int
            Cycles that are kept behind reset, and before the first tile.
        """
        trace, first = self.traces["array"], int(self._begun()[0])
        if first > 2 * lead:
            trace, first = trace.without(lead, first - lead), 2 * lead
        if cycles is not None:
            trace = trace.without(min(first + cycles, trace.cycles), trace.cycles)
        return replace(self, traces={"array": trace})


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnRecording:
    """One frame of a scene through an accelerator, with what its own units saw.

    Parameters
    ----------
    run : FrameRun
        Counters and pixels of the RTL; the pixels are those of the bit-true model.
    traces : mapping
        Unit -> its ports.
    """

    run: FrameRun
    traces: Mapping[str, PortTrace]


def own_units(design: AcceleratorDesign) -> tuple[str, ...]:
    """Units that can be recorded of a design and that no other has.

    Raises
    ------
    ValueError
        If there are none.
    """
    if design.name not in _OWN:
        raise ValueError(f"Design must be one of {', '.join(_OWN)}, not {design.name!r}")
    return _OWN[design.name]


class _Probed(Component):
    """An accelerator with a probe beside each of `units`."""

    def __init__(self, design: AcceleratorDesign, units: Sequence[str]) -> None:
        self.core: Any = component(design.name, design)
        self.units = units
        #: Unit -> inputs and outputs, known when the core is elaborated.
        self.ports: dict[str, tuple[list[tuple[str, int]], list[tuple[str, int]]]] = {}
        super().__init__(axi4_members(design.shell) | axi4_lite_members(design.shell)
                         | {"irq": Out(1)})

    def elaborate(self, platform):
        core = self.core
        # Its module is extended here, so that nothing else marks it as used.
        vars(core)["_MustUse__used"] = True
        m = core.elaborate(platform)
        for name, member in self.signature.members.items():
            inner, outer = getattr(core, name), getattr(self, name)
            m.d.comb += inner.eq(outer) if member.flow is In else outer.eq(inner)
        for unit in self.units:
            registers = m.submodules.shell.registers
            inside = registers if unit == "registers" else getattr(m.submodules, unit)
            inputs: list[tuple[str, Value]] = [("rst", ResetSignal())]
            outputs: list[tuple[str, Value]] = []
            for path, member, value in inside.signature.flatten(inside):
                side = inputs if member.flow is In else outputs
                side.append(("__".join(str(part) for part in path), Value.cast(value)))
            self.ports[unit] = ([(name, len(value)) for name, value in inputs],
                                [(name, len(value)) for name, value in outputs])
            m.submodules[f"probe_{unit}"] = Instance(
                f"probe_{unit}", i_clk=ClockSignal(), i_stop=registers.finish,
                i_inputs=Cat(value for _, value in inputs),
                i_outputs=Cat(value for _, value in outputs))
        return m


def _read(path: Path, unit: str, ports: tuple[list[tuple[str, int]], list[tuple[str, int]]]
          ) -> PortTrace:
    """What a probe has written: per cycle the outputs and the inputs, highest digit first."""
    digits = [-(-sum(width for _, width in side) // 4) for side in ports]
    content = np.frombuffer(path.read_bytes(), np.uint8)
    line = sum(digits) + 2
    if not len(content) or len(content) % line:
        raise SimulationError(f"The ports of {unit} must be lines of {line} characters")
    lines = content.reshape(-1, line)
    # "0" to "9" and "a" to "f".
    value = np.where(lines >= ord("a"), lines - (ord("a") - 10), lines - ord("0")).astype(np.uint8)
    packed = []
    for first, count in ((digits[1] + 1, digits[0]), (0, digits[1])):
        part = value[:, first:first + count][:, ::-1]
        part = np.concatenate([part, np.zeros((len(part), count % 2), np.uint8)], axis=1)
        packed.append(np.ascontiguousarray(part[:, ::2] | part[:, 1::2] << 4))
    return PortTrace(unit=unit, inputs=tuple(ports[0]), outputs=tuple(ports[1]),
                     input_bytes=packed[0], output_bytes=packed[1])


def record_ports(
    design: AcceleratorDesign, image: MemoryImage, units: Sequence[str] = UNITS, *,
    timing: MemoryTiming = MemoryTiming(),  # noqa: B008
    cache: Path | None = None, progress: Callable[[int], None] | None = None,
) -> tuple[FrameRun, dict[str, PortTrace]]:
    """Run one frame under Verilator and record the ports of units.

    Parameters
    ----------
    design : RasterDesign
        The core.
    image : MemoryImage
        The packed frame.
    units : sequence of str
        Of :data:`UNITS`, or of :func:`own_units`.
    timing : MemoryTiming
        The memory behind the core.
    cache : Path, optional
        Cache folder of the binary, see :func:`splatforge.scenes.cache.cache_folder`.
    progress : callable, optional
        Called now and then with the cycles simulated so far.

    Returns
    -------
    FrameRun
        The frame.
    dict of str to PortTrace
        The ports of each unit.

    Raises
    ------
    ValueError
        If a unit is unknown.
    BuildError, SimulationError
        If the simulation cannot be built, or the frame does not end as it must.
    """
    known = (*UNITS, *_OWN.get(design.name, ()))
    for unit in units:
        if unit not in known:
            raise ValueError(f"Unit must be one of {', '.join(known)}, not {unit!r}")
    probed = _Probed(design, units)
    text = to_verilog(probed, design.name)
    for unit, (inputs, outputs) in probed.ports.items():
        text += _PROBE.format(unit=unit, inputs=sum(width for _, width in inputs) - 1,
                              outputs=sum(width for _, width in outputs) - 1)
    binary = build(register_reset(text, design.name), design.name, [HARNESS], cache=cache)
    with tempfile.TemporaryDirectory(prefix="splatforge-") as name:
        folder = Path(name)
        (run,) = run_frames(binary.path, [image], timing=timing, folder=folder, progress=progress)
        return run, {unit: _read(folder / f"{unit}.ports", unit, ports)
                     for unit, ports in probed.ports.items()}


def record_frame(
    design: RasterDesign | VoyagerDesign, scene: Scene, camera: Camera, *,
    timing: MemoryTiming = MemoryTiming(),  # noqa: B008
    cache: Path | None = None, progress: Callable[[int], None] | None = None,
) -> Recording:
    """Render one frame of a scene with the Verilog and record the ports of units.

    They are :data:`UNITS` of the raster core, and :data:`VOYAGER_UNITS` of Voyager's client.

    Parameters
    ----------
    design : RasterDesign or VoyagerDesign
        The core.
    scene, camera : Scene, Camera
        What is drawn.
    timing, cache, progress
        As in :func:`record_ports`.

    Returns
    -------
    Recording
        The frame.

    Raises
    ------
    SimulationError
        If a pixel is not what the bit-true model says, or the frame does not end as it must.
    BuildError
        If the simulation cannot be built.
    """
    if isinstance(design, RasterDesign):
        lists = raster.prepare(scene, camera, design)
        drawn = raster.render(lists, design)
        image, units, workload = pack(lists, resolve=design.resolve), UNITS, drawn.workload
        pixels = drawn.pixels(PixelFormat.RGBA8)
    else:
        listed = gscore.prepare(scene, camera, design)
        picture = gscore.render(listed, design)
        image, units = gscore.pack(listed, design), VOYAGER_UNITS
        workload, pixels = picture.workload.array, picture.pixels(PixelFormat.RGBA8)
    run, traces = record_ports(design, image, units, timing=timing, cache=cache,
                               progress=progress)
    _check_pixels(run, pixels)
    return Recording(run=run, workload=workload, traces=traces)


def _check_pixels(run: FrameRun, pixels: npt.NDArray[np.uint8]) -> None:
    """Raise unless a recorded frame is the bit-true model's."""
    differing = int((run.pixels != pixels).any(axis=-1).sum())
    if differing or run.error:
        raise SimulationError(f"{differing} pixels of the recorded frame must be those of the "
                              f"bit-true model; error {run.error}")


def record_own_units(
    design: GscoreDesign | LuminaDesign | StreaminggsDesign, scene: Scene, camera: Camera, *,
    units: Sequence[str] | None = None, timing: MemoryTiming = MemoryTiming(),  # noqa: B008
    cache: Path | None = None, progress: Callable[[int], None] | None = None,
) -> OwnRecording:
    """Render one frame of a scene with the Verilog and record the ports of a design's own units.

    Of Lumina it is the second frame of a head that moves a little, whose cache holds what the first
    one left.

    Parameters
    ----------
    design : GscoreDesign, LuminaDesign or StreaminggsDesign
        The accelerator.
    scene, camera : Scene, Camera
        What is drawn.
    units : sequence of str, optional
        Of :func:`own_units`; all by default.
    timing, cache, progress
        As in :func:`record_ports`.

    Returns
    -------
    OwnRecording
        The frame.

    Raises
    ------
    SimulationError
        If a pixel is not what the bit-true model says, or the frame does not end as it must.
    BuildError
        If the simulation cannot be built.
    """
    if isinstance(design, GscoreDesign):
        listed = gscore.prepare(scene, camera, design)
        picture, image = gscore.render(listed, design), gscore.pack(listed, design)
    elif isinstance(design, LuminaDesign):
        path = head_jitter(camera, frames=2, seed=0).cameras
        before, after = lumina.prepare_sequence(scene, path, design)
        banks = lumina.render(before, design).banks
        picture = lumina.render(after, design, banks=banks)
        image = lumina.pack(after, design, banks=banks)
    else:
        frame = streaminggs.prepare(scene, camera, design)
        picture, image = streaminggs.render(frame, design), streaminggs.pack(frame, design)
    run, traces = record_ports(design, image, own_units(design) if units is None else units,
                               timing=timing, cache=cache, progress=progress)
    _check_pixels(run, picture.pixels(PixelFormat.RGBA8))
    return OwnRecording(run=run, traces=traces)
