"""What stands in the units of an accelerator, and what happens there in a frame.

Units are priced one by one: :func:`raster_events`, :func:`gscore_events`,
:func:`streaminggs_events` and :func:`lumina_events` say what happened, in the vocabulary of
:mod:`splatforge.sim.costs`, and the functions of the same names with ``inventory`` what stands
there. The units that the accelerators share take the measured blocks where their formats are those
of the measurement, else the operators that the formats imply. The other units are :class:`Part`,
from their parameters; where the gates of a unit were measured, its actions take the place of
operators and registers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from splatforge.algos.array import Workload
from splatforge.algos.ccu import ccu_schedule
from splatforge.algos.cfu import (
    DILATED_DOWN,
    FORM_DOWN,
    OFFSET_UP,
    REACH_DOWN,
    RECORD,
    cfu_schedule,
)
from splatforge.algos.ffu import decoded_beats, ffu_schedule, records_under_way
from splatforge.algos.floating import log2_table, reciprocal_table
from splatforge.algos.schedule import LATENCY, Schedule, Unit
from splatforge.algos.vsu import voxels_under_way, vsu_schedule
from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.array import ArrayDesign
from splatforge.designs.blend import BlendDesign
from splatforge.designs.bsu import BsuDesign
from splatforge.designs.ccu import CAMERA_WORDS
from splatforge.designs.cfu import (
    COEFFICIENT,
    DEPTH,
    DILATION_BITS,
    DISTANCE,
    HALF,
    LARGE,
    NORM,
    PLACE_BITS,
    SCALE,
)
from splatforge.designs.codebook import codebook_degree, entry_beats
from splatforge.designs.entry import TILE_TAG_BITS
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.fetch import TILE_PX, SplatFormat
from splatforge.designs.floating import BINARY32, Floating
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lists import ListsDesign
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.nru import RECORD_ID_BITS, NruDesign
from splatforge.designs.radiance import COLOR_BITS
from splatforge.designs.raster import COUNTERS, RasterDesign
from splatforge.designs.resolve import ResolveDesign
from splatforge.designs.setup import QUEUED_GROUPS, SetupDesign
from splatforge.designs.shell import DESCRIPTOR_BYTES, AcceleratorDesign
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.designs.tokens import GROUP_BITS, GROUP_TAG_BITS, INDEX_BITS
from splatforge.designs.voxel import (
    CELL_BITS,
    CHILD_WEIGHT_BITS,
    OCTREE_LEVELS,
    POPULATION_BITS,
    PREFIX_SHIFTS,
    STREAM_CAMERA_WORDS,
    VOXEL_BEATS,
    WEIGHT_BITS,
)
from splatforge.designs.vsu import (
    BLUR,
    DIGIT_BITS,
    DIGITS,
    KEY_BITS,
    RECTANGLE,
    ROWS_UNDER_WAY,
    TOKENS_UNDER_WAY,
    VsuDesign,
)
from splatforge.sim.area import array_inventory, lane_operators
from splatforge.sim.costs import CostTable
from splatforge.sim.dram_energy import dram_events
from splatforge.sim.run import Run

__all__ = ["MACRO_BITS", "Macro", "Part", "flip_flops", "gscore_events", "gscore_inventory",
           "gscore_parts", "is_measured", "lumina_events", "lumina_inventory", "lumina_parts",
           "raster_events", "raster_inventory", "streaminggs_events", "streaminggs_inventory",
           "streaminggs_parts"]

#: Events or items by name, and how many.
Counts = dict[str, float]

#: Blocks whose energies are measured (:mod:`splatforge.sim.costs`), by the unit that they are in.
MEASURED_BLOCKS = {
    "array": ("alpha", "blend", "array"), "fetch": ("fetch",), "resolve": ("resolve",),
    "shell": ("registers",)}
#: Those of an array whose exponentials are looked up; what its lanes share is another's, too.
FALLOFF_BLOCKS = ("falloff", "blend", "falloffarray")
#: Blocks that a design has once a lane.
LANE_BLOCKS = ("alpha", "falloff", "blend")
#: A memory with more bits is a macro, in one piece or in equal banks, a smaller one flip-flops; as
#: synthesis has it.
MACRO_BITS = 1024
#: What events of operators begin with.
OPERATORS = ("add_", "multiply_", "shift_")
#: Narrowest macro of the SRAM table, and the fewest words that each of its widths has; the widest
#: and the largest, of which a memory that is more takes several.
MACRO_WIDTH, MACRO_WORDS = 32, 32
WIDEST, LARGEST_BYTES = 512, 512 * 1024


def _sum(counted: Iterable[tuple[str, float]]) -> Counts:
    """Names and how many, those of the same name together."""
    counts: Counts = {}
    for name, number in counted:
        counts[name] = counts.get(name, 0) + number
    return counts


def _add(*parts: Mapping[str, float]) -> Counts:
    """All parts together."""
    return _sum(each for part in parts for each in part.items())


def _times(counts: Mapping[str, float], copies: float) -> Counts:
    """So many copies of all."""
    return {name: number * copies for name, number in counts.items()}


# ---- Units that accelerators share --------------------------------------------------------------


def is_measured(design: AcceleratorDesign, table: CostTable) -> bool:
    """Whether the measured energies are of the formats of `design`.

    A table of one's own library may hold the raster core alone, and say nothing of exponentials
    that are looked up: these then cost what their operators do. Without the raster core's blocks
    it is no table of a core, and what asks for one of them says which.
    """
    array = design.array
    if isinstance(array.alpha, FalloffDesign) and not all(
            table.is_measured(block) for block in FALLOFF_BLOCKS):
        return False
    return (array.alpha in (AlphaDesign(), FalloffDesign())
            and (array.blend, design.splat, design.resolve.background)
            == (BlendDesign(), SplatFormat(), ResolveDesign().background))


def measured_blocks(design: AcceleratorDesign) -> dict[str, tuple[str, ...]]:
    """Unit -> blocks of it that are measured, those of the array from its lanes' first part on."""
    if isinstance(design.array.alpha, FalloffDesign):
        return {**MEASURED_BLOCKS, "array": FALLOFF_BLOCKS}
    return MEASURED_BLOCKS


def flip_flops(design: AcceleratorDesign, table: CostTable) -> Counts:
    """Flip-flops of each measured block, for any number of lanes.

    The counts are those of the mapped netlists. Lanes multiply :data:`LANE_BLOCKS`; a lane of
    `blend` holds a colour and twice a T for each of its pixels of two tiles or groups, but for what
    is macros of them. What looks exponentials up is left out where it was not measured. Counters
    and the frame descriptor of the core's top level count as registers; those of the raster core's
    counters that can be read were measured with it.
    """
    array = design.array
    pixel = 2 * array.blend.transmittance.width + 3 * array.blend.accumulator.width
    macros = sum(macro.words * macro.bits for macro in _state_macros(array).values())
    counts: Counts = {}
    for block in (each for blocks in measured_blocks(design).values() for each in blocks):
        if block.startswith("falloff") and not table.is_measured(block):
            continue
        counts[block] = table.measured(block, "flip_flops").cost.value
        if block in LANE_BLOCKS:
            measured_lanes = table.measured(block, "instances").cost.value
            counts[block] *= array.lanes / measured_lanes
            if block == "blend":
                pixels = 2 * TILE_PX**2 * (array.side**2 / array.lanes - 1 / measured_lanes)
                counts[block] += array.lanes * (pixels * pixel - macros)
    counters = 2 * len(design.counters) - len(COUNTERS)
    counts["registers"] += design.shell.counter_bits * counters + 8 * DESCRIPTOR_BYTES
    return counts


def _state_macros(array: ArrayDesign) -> dict[str, "Macro"]:
    """Of a lane's pixels of two tiles or groups what is large enough for macros, by name."""
    slots = 2 * array.side**2 * TILE_PX**2 // array.lanes
    transmittance, color = array.blend.transmittance.width, array.blend.accumulator.width
    memories = {
        "product": Macro(max(2, slots // 2), transmittance), "transmittance": Macro(
            slots, transmittance),
        **{f"color_{n}": Macro(slots, color, together=3) for n in range(3)}}
    return {name: macro for name, macro in memories.items() if not macro.is_small}


def _shared_events(
    design: AcceleratorDesign, run: Run, pixels: int, significant: int, clock_hz: float,
    table: CostTable,
) -> dict[str, Counts]:
    """Events of array, resolve and shell, measured or by their operators."""
    busy = run.counters["array_busy"]
    issued = busy * design.array.lanes
    if not is_measured(design, table):
        operators = lane_operators(design.array)
        events = _add(
            _times(operators["evaluate"], issued), _times(operators["blend"], significant))
        events["register_bit_clock"] = array_inventory(design.array)["register_bit"] * run.cycles
        return {"array": events}
    alpha, blend, shared = measured_blocks(design)["array"]
    units: dict[str, Counts] = {
        "array": {f"{alpha}_evaluation": issued, f"{alpha}_significant": significant,
                  f"{blend}_evaluation": issued, f"{blend}_significant": significant,
                  f"{shared}_block": busy,
                  **_clocked("array", design, run, clock_hz, table)},
        **_output_events(design, run, pixels, clock_hz, table)}
    # A fragment that counts reads a pixel and writes it; resolve reads it once.
    for macro in _state_macros(design.array).values():
        units["array"] = _add(units["array"], {
            macro.read: significant + pixels, macro.write: significant,
            macro.leakage: 1e6 * run.cycles / clock_hz * design.array.lanes})
    return units


def _output_events(
    design: AcceleratorDesign, run: Run, pixels: int, clock_hz: float, table: CostTable
) -> dict[str, Counts]:
    """Events of resolve and shell, measured."""
    units: dict[str, Counts] = {
        "resolve": {"resolve_pixel": pixels}, "shell": {"registers_cycle": run.cycles}}
    for unit, events in units.items():
        events |= _clocked(unit, design, run, clock_hz, table)
    return units


def _clocked(unit: str, design: AcceleratorDesign, run: Run, clock_hz: float, table: CostTable
             ) -> Counts:
    """Clock and leakage of the measured blocks of a unit; nothing is gated."""
    clocked, events = flip_flops(design, table), Counts()
    for block in measured_blocks(design)[unit]:
        lanes = design.array.lanes if block in LANE_BLOCKS else 1
        events[f"{block}_flip_flop_cycle"] = clocked[block] * run.cycles
        events[f"{block}_leakage"] = (
            1e6 * run.cycles / clock_hz * lanes / table.measured(block, "instances").cost.value)
    return events


def _logic_um2(items: Mapping[str, float], table: CostTable) -> float:
    """Area of operators and flip-flops by the laws, at the node that they are given at."""
    node_nm = table.entry("area.add").node_nm
    assert node_nm is not None  # the loader of the committed table is tested for it
    return sum(table.area_of(item, node_nm=node_nm).value * count for item, count in items.items())


def _synthesised(
    design: str, units: Mapping[str, Counts], default: Mapping[str, Counts], table: CostTable
) -> dict[str, Counts]:
    """Operators and flip-flops of units by what was synthesised, where that is known.

    What synthesis gave for the default parameters (``area.<design>_<unit>``), times what the laws
    say of these parameters over the default ones.
    """
    return {
        name: {f"{design}_{name}": _logic_um2(items, table) / _logic_um2(default[name], table)}
        if f"area.{design}_{name}" in table.entries else items
        for name, items in units.items()}


def _shared_inventory(
    design: AcceleratorDesign, default: AcceleratorDesign, table: CostTable
) -> dict[str, Counts]:
    """Array, resolve and shell, as :func:`_synthesised`; by the laws flip-flops alone of the last.

    Parameters
    ----------
    design, default : AcceleratorDesign
        Its parameters, and those that were synthesised.
    table : CostTable
        Areas, and flip-flops of the measured blocks.
    """
    def laws(of: AcceleratorDesign) -> dict[str, Counts]:
        clocked, array = flip_flops(of, table), _add(array_inventory(of.array))
        array["register_bit"] -= of.array.lanes * sum(
            macro.words * macro.bits for macro in _state_macros(of.array).values())
        return {"array": array,
                "resolve": {"register_bit": clocked["resolve"]},
                "shell": {"register_bit": clocked["registers"]}}
    units = _synthesised(default.name, laws(design), laws(default), table)
    return {**units, "array": _add(units["array"], *(
        {macro.item: design.array.lanes} for macro in _state_macros(design.array).values()))}


def _memory_events(run: Run) -> Counts:
    """Of the DRAM: commands where it was simulated, else bytes."""
    if run.dram is not None:
        return dram_events(run.dram)
    return {"dram_read_byte": run.bytes_read, "dram_write_byte": run.bytes_written}


# ---- The raster core ----------------------------------------------------------------------------


def raster_events(
    workload: Workload, design: RasterDesign, run: Run, *, clock_hz: float, table: CostTable,
) -> dict[str, Counts]:
    """Events of one frame by unit.

    Evaluations are those issued, live or not; what is behind the test counts where an evaluation
    is significant; every register is clocked in every cycle, since nothing is gated.

    Parameters
    ----------
    workload : Workload
        What happened.
    design : RasterDesign
        The core.
    run : Run
        Its cycles and counters.
    clock_hz : float
        Clock: leakage lasts as long as the frame.
    table : CostTable
        Flip-flops of the measured blocks.
    """
    buffer, ahead = _fetch_memories(design)
    us = 1e6 * run.cycles / clock_hz
    dropped = run.counters["overfetch_bytes"] // design.shell.data_bytes
    splats = run.counters["fetch_busy"]
    entries = run.counters["table_bytes"] // design.shell.data_bytes
    fetch: Counts = {}
    if is_measured(design, table):
        fetch = {"fetch_splat": splats, **_clocked("fetch", design, run, clock_hz, table)}
    return {
        **_shared_events(design, run, workload.width * workload.height,
                         int(workload.significant.sum()), clock_hz, table),
        # A word of the table holds two entries, and is read for each.
        "fetch": _add(fetch, {buffer.write: splats, buffer.read: splats - dropped},
                      {ahead.write: entries, ahead.read: 2 * entries},
                      {buffer.leakage: us}, {ahead.leakage: us}),
        "memory": _memory_events(run)}


def raster_inventory(design: RasterDesign, table: CostTable) -> dict[str, Counts]:
    """The raster core by unit, as :func:`gscore_inventory`; by the laws no operators of `fetch`."""
    default = RasterDesign()
    fetch = {"fetch": {"register_bit": flip_flops(design, table)["fetch"]}}
    units = {**_shared_inventory(design, default, table),
             **_synthesised(design.name, fetch, fetch, table)}
    return {**units, "fetch": _add(
        units["fetch"], *({macro.item: 1} for macro in _fetch_memories(design)))}


def _fetch_memories(design: RasterDesign) -> tuple["Macro", "Macro"]:
    """The splat buffer, and what is read ahead of the tile table: two bursts."""
    beats = design.shell.data_bits
    return Macro(design.fetch.buffer_splats, beats), Macro(2 * design.fetch.burst_beats, beats)


# ---- GSCore -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Macro:
    """An SRAM, one read or write a cycle.

    Parameters
    ----------
    words, bits : int
        Depth and width.
    together : int
        Equal memories, this among them, that are the banks of one.
    """

    words: int
    bits: int
    together: int = 1

    @property
    def is_small(self) -> bool:
        """Whether it is flip-flops."""
        return self.words * self.bits * self.together <= MACRO_BITS

    @property
    def slices(self) -> int:
        """Macros side by side, all of which an access takes."""
        return -(-self.bits // WIDEST)

    @property
    def banks(self) -> int:
        """Macros one behind the other, one of which an access takes."""
        return -(-self.words * -(-self.bits // self.slices) // (8 * LARGEST_BYTES))

    @property
    def item(self) -> str:
        """Name in the vocabulary of areas.

        What is smaller than the table costs its smallest, an upper end: a bank of 16 words that of
        32, whose cells are twice as many and whose periphery is the same.
        """
        bits, words = -(-self.bits // self.slices), -(-self.words // self.banks)
        width = max(bits, MACRO_WIDTH)
        least = MACRO_WORDS * (1 << (width - 1).bit_length())
        return f"sram_{width}b_{max(-(-words * bits // 8), least // 8)}B"

    @property
    def read(self) -> str:
        """Event of a read."""
        return self.item.replace("sram_", "sram_read_")

    @property
    def write(self) -> str:
        """Event of a write."""
        return self.item.replace("sram_", "sram_write_")

    @property
    def leakage(self) -> str:
        """Event of a microsecond's leakage."""
        return self.item.replace("sram_", "sram_leakage_")


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a unit is made of.

    Parameters
    ----------
    operators : Mapping
        Operators of the vocabulary of :mod:`splatforge.sim.costs`, and how many stand there.
    register_bits : int
        Flip-flops, those of small memories among them.
    memories : Mapping
        Its other memories by name.
    """

    operators: Mapping[str, float]
    register_bits: int
    memories: Mapping[str, Macro]

    @property
    def logic(self) -> Counts:
        """Operators and flip-flops."""
        return {**self.operators, "register_bit": self.register_bits}

    @property
    def macros(self) -> Counts:
        """Instances of its other memories by item."""
        return _sum((macro.item, macro.slices * macro.banks) for macro in self.memories.values())

    def standby(self) -> Counts:
        """A microsecond of its memories' leakage."""
        return _sum((macro.leakage, macro.slices * macro.banks)
                    for macro in self.memories.values())

    def accesses(self, **times: tuple[float, float]) -> Counts:
        """Events of its memories, from (reads, writes) of each that is not all flip-flops."""
        return _sum((event, macro.slices * count) for name, macro in self.memories.items()
                    for event, count in zip((macro.read, macro.write), times[name], strict=True))


def _floating_operators(unit: Unit, fmt: Floating) -> Counts:
    """Integer operators of one unit of the CCU's arithmetic.

    A product rounds with one adder; a sum compares magnitudes and exponents, aligns, adds,
    normalises and rounds. A reciprocal or logarithm is a table, which is not counted, and two
    products and two sums in Horner's form.
    """
    if unit.kind.startswith("wide_") or unit.kind == "narrow":
        fmt = BINARY32
    significand, exponent = fmt.fraction_bits + 1, fmt.exponent_bits + 2
    rounding = (f"add_{exponent + fmt.fraction_bits}", 1)
    match unit.kind:
        case "multiply" | "wide_multiply":
            return _sum([(f"multiply_{significand}x{significand}", 1), (f"add_{exponent}", 1),
                           rounding])
        case "add" | "wide_add":
            total = significand + 3
            return _sum([
                (f"add_{fmt.width - 1}", 1), (f"add_{exponent - 1}", 2), (f"shift_{total}", 2),
                (f"add_{total}", 1), (f"add_{exponent}", 1), rounding])
        case "compare":
            return _sum([(f"add_{fmt.width}", 1)])
        case "narrow":
            return _sum([rounding])
        case "to_fixed":
            bits = max(placed.to.width for placed in unit.placed if placed.to)
            return _sum([(f"shift_{bits}", 1), (f"add_{bits}", 1), (f"add_{exponent}", 1)])
    tables = {to: log2_table(fmt, to) for to in {placed.to for placed in unit.placed} if to}
    table = next(iter(tables.values()), None) or reciprocal_table(fmt)
    argument = fmt.fraction_bits - table.index_bits
    c0, c1, c2 = (int(abs(c).max()).bit_length() + 1 for c in (table.c0, table.c1, table.c2))
    return _sum([
        (f"multiply_{c2}x{argument}", 1), (f"multiply_{c1 + 1}x{argument}", 1),
        (f"add_{c1 + 1}", 1), (f"add_{c0 + table.c0_up}", 1), rounding])


@lru_cache
def _folded(schedule: Callable[[Any], Schedule], design: Any) -> tuple[Mapping[str, float], int]:
    """Operators and register bits of a unit's folded arithmetic, buffer and results apart.

    A unit's pipeline holds one and a half words a cycle: the word, its sign and exponent apart, and
    guard bits.
    """
    plan, fmt = schedule(design), design.floating
    operators, registers = Counts(), plan.register_bits
    for unit in plan.units:
        width = (BINARY32 if unit.kind.startswith("wide_") else fmt).width
        registers += 2 * width + 3 * LATENCY[unit.kind] * width // 2
        operators = _add(operators, _floating_operators(unit, fmt))
    return operators, registers


def _results(plan: Schedule, fmt: Floating) -> Macro:
    """Queue of the results of folded arithmetic; its last word is a register."""
    bits = sum(output.to.width if output.to else (BINARY32 if output.wide else fmt).width
               for output in plan.outputs)
    return Macro(plan.under_way - 1, bits)


@lru_cache
def _evaluated(schedule: Callable[[Any], Schedule], design: Any) -> Mapping[str, float]:
    """Operators of a unit at work for one record: every operation of the graph."""
    return _add(*(_times(_floating_operators(unit, design.floating), len(unit.placed))
                  for unit in schedule(design).units))


def _walk_operators(design: GscoreDesign) -> tuple[Counts, Counts]:
    """Of the CCU, behind its arithmetic: per Gaussian, and per tile that is walked.

    Per Gaussian: side of the square and compensation, the box's four ends, five products on one
    multiplier and their sums. Per tile: position and both axes go on by a tile; two positions and
    four times two shadows of the regions; each within its limit on both sides.
    """
    ccu = design.ccu
    offset = ccu.position.width + 2
    total = offset + ccu.axis.width + 1
    gaussian = _sum([
        (f"add_{ccu.extent.width}", 6), (f"add_{ccu.logarithm.width}", 2), (f"add_{offset}", 6),
        (f"multiply_{offset}x{ccu.axis.width}", 5), (f"add_{total}", 6)])
    tile = _sum([(f"add_{offset}", 2 + 2 * 2 + 4 * 2), (f"add_{total}", 2 + 4 * 2 + 4 * 2 * 2)])
    return gaussian, tile


def _ccu_part(design: GscoreDesign) -> Part:
    """Folded arithmetic, its registers and buffer; camera; eight places that hold a Gaussian.

    Each of the eight places holds a feature, a depth, and some six sums of the walk.
    """
    ccu = design.ccu
    plan = ccu_schedule(ccu)
    gaussian, tile = _walk_operators(design)
    # One multiplier takes the five products of a Gaussian in turn.
    operators = _add(tile, {name: 1 if name.startswith("multiply") else number
                            for name, number in gaussian.items()})
    folded, registers = _folded(ccu_schedule, ccu)
    operators = _add(operators, folded)
    total = ccu.position.width + 2 + ccu.axis.width + 1
    place = ccu.feature.width + ccu.entry.depth_bits + 6 * total
    results = _results(plan, ccu.floating)
    registers += 8 * place + 3 * results.bits + BINARY32.width * len(CAMERA_WORDS)
    return _part(operators, registers, results=results,
                 buffer=Macro(ccu.buffer_beats, design.shell.data_bits))


def _reader_bits(lists: ListsDesign) -> int:
    """Flip-flops of a list reader: a pair behind its buffer, two at the output, what it asks for.

    And its bursts: whether each is full and the last of which tile.
    """
    return (6 * lists.entry.width + 4 * (lists.page_bits + lists.count_bits)
            + (TILE_TAG_BITS + 2) * lists.outstanding_pages)


def _reader_macro(lists: ListsDesign) -> Macro:
    """Its buffer of pairs; the last word is the output's register."""
    return Macro(lists.buffer_beats - 1, 2 * lists.entry.width + 1)


def _lists_part(design: GscoreDesign) -> Part:
    """What is known of each list; five stages, of which five hold that; beats that wait."""
    lists = design.lists
    entry = lists.entry
    record = lists.count_bits + 3 * lists.page_bits + entry.width
    known = record + 2 * entry.key_bits
    stage = entry.width + (lists.lists - 1).bit_length() + 4
    address = design.shell.address_bits - (design.shell.data_bytes - 1).bit_length()
    return Part(
        operators=_sum([(f"add_{entry.key_bits}", 4), (f"add_{lists.count_bits}", 1),
                          (f"add_{lists.page_bits}", 4)]),
        register_bits=5 * known + record + 5 * stage + 2 * entry.key_bits + 8 * lists.page_bits,
        memories={
            "tiles": Macro(lists.tiles, record), "slots": Macro(lists.slots, known),
            "addresses": Macro(lists.waiting_beats - 1, address),
            "beats": Macro(lists.waiting_beats - 1, 2 * entry.width + 1)})


def _qsu_part(design: GscoreDesign) -> Part:
    """A reader; a pair that waits, an entry and its distance; what is known of two lists; where.

    Where is the tile by number, column and row, the lists' numbers and the way back from a level.
    """
    lists = design.lists
    entry = lists.entry
    known = lists.page_bits + lists.count_bits + 2 * entry.key_bits
    return Part(
        operators=_sum([(f"add_{entry.key_bits}", 3), (f"shift_{entry.key_bits}", 1)]),
        register_bits=_reader_bits(lists) + 3 * entry.width + 2 * entry.key_bits + 2 * known
        + 12 * (lists.tiles - 1).bit_length(),
        memories={"reader": _reader_macro(lists)})


def _part(operators: Mapping[str, float], registers: float, **memories: Macro) -> Part:
    """A unit whose memories are macros where they are large enough, else flip-flops."""
    small = [macro for macro in memories.values() if macro.is_small]
    return Part(
        operators=operators,
        register_bits=int(registers + sum(macro.words * macro.bits for macro in small)),
        memories={name: macro for name, macro in memories.items() if not macro.is_small})


def _accesses(part: Part, **times: tuple[float, float]) -> Counts:
    """Events of those memories of a unit that are macros."""
    return part.accesses(**{name: times[name] for name in part.memories})


def _sorter_banks(bsu: BsuDesign) -> dict[str, Macro]:
    """Of each sorter the banks of its chunk."""
    return {f"bank_{number}": Macro(bsu.rows, bsu.entry.width, together=bsu.width)
            for number in range(bsu.units * bsu.width)}


def _exchange(bsu: BsuDesign) -> str:
    """Operator of a compare-exchange."""
    return f"add_{bsu.entry.width + 1}"


def _bsu_part(design: GscoreDesign) -> Part:
    """A reader; of each sorter the network with a register behind each stage, and the banks."""
    bsu, lists = design.bsu, design.lists
    network = bsu.stages * bsu.width // 2
    sorter = bsu.stages * bsu.width * (bsu.entry.width + 2)
    return _part(
        {_exchange(bsu): bsu.units * network},
        _reader_bits(lists) + 2 * bsu.entry.width + bsu.units * sorter,
        reader=_reader_macro(lists), **_sorter_banks(bsu))


def _setup_operators(setup: SetupDesign) -> Counts:
    """Of a splat: slopes in fixed point, the distance, three products, rounding."""
    slope, distance, splat = setup.slope.width, setup.distance.width, setup.splat
    return _sum([
        (f"shift_{slope}", 3), (f"add_{slope}", 3), (f"add_{distance}", 2),
        (f"multiply_{slope}x{distance}", 3), (f"add_{slope + distance + 1}", 1),
        *((f"add_{fmt.width + 1}", 1) for fmt in (splat.u0, splat.v0, splat.a, splat.b, splat.c))])


def _vru_part(design: GscoreDesign | LuminaDesign) -> Part:
    """Tags, records, queues, places of tiles; eight stages of setup, of them two for products."""
    vru = design.vru
    slope, distance = vru.slope.width, vru.setup.distance.width
    feature, entry = vru.feature.width, vru.entry
    passing = feature - 2 * vru.feature.mean.width - 3 * vru.feature.slope.width + 4
    waiting = vru.index_bits + entry.subtile_bits + 5
    return Part(
        operators=_setup_operators(vru.setup),
        register_bits=(24 << TILE_TAG_BITS) + 3 * feature + 8 * (passing + 4) + 6 * distance
        + 6 * 3 * slope + 2 * 3 * (slope + distance) + 3 * vru.splat.width
        + 2 * design.shell.data_bits + 5 * waiting,
        memories={
            "tags": Macro(vru.cache_features, 1 + entry.feature_bits - vru.index_bits),
            "features": Macro(vru.cache_features, feature),
            "waiting": Macro(vru.waiting - 1, waiting),
            "arrived": Macro(vru.outstanding_features, feature)})


def _logic_pj(events: Mapping[str, float], table: CostTable) -> float:
    """Energy of operators by the laws, at the node that they are given at; nothing else counts."""
    node_nm = table.entry("energy.add").node_nm
    assert node_nm is not None  # the loader of the committed table is tested for it
    return sum(table.energy_of(event, node_nm=node_nm).value * count
               for event, count in events.items() if event.startswith(OPERATORS))


def _measured_units(
    units: Mapping[str, Counts], of_default: Mapping[str, Counts],
    parts: Mapping[str, Part], default: Mapping[str, Part],
    actions: Mapping[str, Mapping[str, float]], run: Run, clock_hz: float, table: CostTable,
) -> dict[str, Counts]:
    """Units with what was measured in the place of operators and registers, where it was.

    Measured were the units of the default parameters. Others take as much more for the data as
    the laws say of the operators, and for clock and leakage of flip-flops and area: so designs of
    one comparison are priced alike.

    Parameters
    ----------
    units, of_default : mapping
        Events by operators of these parameters, and of the default ones in the same frame.
    parts, default : mapping
        What the units of both are made of.
    actions : mapping
        Unit -> action -> how often it happened.
    run, clock_hz, table
        As elsewhere.
    """
    found = dict(units)
    for unit, counts in actions.items():
        if not table.is_measured(unit):
            continue
        whole = _logic_pj(of_default[unit], table)
        data = _logic_pj(units[unit], table) / whole if whole else 1.0
        part, usual = parts[unit], default[unit]
        flip_flops_of = (table.measured(unit, "flip_flops").cost.value
                         * part.register_bits / usual.register_bits)
        area = _logic_um2(part.logic, table) / _logic_um2(usual.logic, table)
        found[unit] = {
            **{f"{unit}_{action}": data * count for action, count in counts.items()},
            f"{unit}_flip_flop_cycle": flip_flops_of * run.cycles,
            f"{unit}_leakage": 1e6 * run.cycles / clock_hz * area,
            **{event: count for event, count in units[unit].items()
               if event.startswith("sram_")}}
    return found


@cache
def gscore_parts(design: GscoreDesign) -> dict[str, Part]:
    """GSCore's own units by name."""
    return {"ccu": _ccu_part(design), "lists": _lists_part(design), "qsu": _qsu_part(design),
            "bsu": _bsu_part(design), "vru": _vru_part(design)}


def _of_parts(
    design: str, parts: Mapping[str, Part], default: Mapping[str, Part], table: CostTable
) -> dict[str, Counts]:
    """Units of a design with their macros."""
    logic = _synthesised(design, {name: part.logic for name, part in parts.items()},
                         {name: part.logic for name, part in default.items()}, table)
    return {name: {**items, **parts[name].macros} for name, items in logic.items()}


def _always(
    design: str, parts: Mapping[str, Part], default: Mapping[str, Part], run: Run, clock_hz: float,
    table: CostTable,
) -> dict[str, Counts]:
    """What the units of a design spend in every cycle: clock, and leakage of cells and macros.

    Cells leak as those of the default parameters (``energy.<design>_<unit>_leakage``), times what
    the laws say of the areas.
    """
    us = 1e6 * run.cycles / clock_hz
    units: dict[str, Counts] = {}
    for name, part in parts.items():
        units[name] = {"register_bit_clock": part.register_bits * run.cycles,
                       **_times(part.standby(), us)}
        if f"energy.{design}_{name}_leakage" in table.entries:
            units[name][f"{design}_{name}_leakage"] = (
                us * _logic_um2(part.logic, table) / _logic_um2(default[name].logic, table))
    return units


def gscore_inventory(design: GscoreDesign, table: CostTable) -> dict[str, Counts]:
    """GSCore by unit: macros, and operators and flip-flops by what was synthesised.

    That is for the default parameters (``area.gscore_<unit>``, ``area.voyager_<unit>``); others
    take as much more as the laws say. Without such an entry what the laws say.
    """
    default = type(design)()
    return {**_of_parts(default.name, gscore_parts(design), gscore_parts(default), table),
            **_shared_inventory(design, default, table)}


def _ccu_events(design: GscoreDesign, run: Run, walked: int) -> Counts:
    """Every operation of the graph for every Gaussian; the walk's for every tile."""
    ccu, counters = design.ccu, run.counters
    gaussian, tile = _walk_operators(design)
    arithmetic = _add(gaussian, _evaluated(ccu_schedule, ccu))
    events = _add(_times(arithmetic, counters["gaussians"]),
                  _times(tile, walked))
    beats = counters["ccu_busy"]
    done = counters["gaussians"]
    return {**events, **_accesses(
        gscore_parts(design)["ccu"], buffer=(beats, beats), results=(done, done))}


def _lists_events(design: GscoreDesign, run: Run) -> Counts:
    """An append looks its list up and puts it back; tiles' lists are cleared and flushed once.

    A partition's lists are cleared, flushed and queried, each tile's list is queried.
    """
    lists, counters = design.lists, run.counters
    pairs, tiles, beats = counters["pairs"], counters["tiles"], counters["lists_busy"]
    bucketed = run.actions["bucket_entries"]
    parts = counters["partitions"] * design.qsu.buckets
    events = _times(_sum([
        (f"add_{lists.entry.key_bits}", 2), (f"add_{lists.count_bits}", 1),
        (f"add_{lists.page_bits}", 1)]), pairs + bucketed)
    return {**events, **gscore_parts(design)["lists"].accesses(
        tiles=(pairs + 2 * tiles, pairs + tiles),
        slots=(bucketed + 2 * parts, bucketed + parts),
        addresses=(beats, beats), beats=(beats, beats))}


def _qsu_events(design: GscoreDesign, run: Run) -> Counts:
    """Every entry of a list that is partitioned: a difference and a shift."""
    key = design.lists.entry.key_bits
    events = _times({f"add_{key}": 1, f"shift_{key}": 1}, run.actions["bucket_entries"])
    beats = run.counters["partition_bytes"] // design.shell.data_bytes
    return {**events, **gscore_parts(design)["qsu"].accesses(reader=(beats, beats))}


def _bsu_events(design: GscoreDesign, run: Run) -> Counts:
    """Every row of a pass goes through all stages of the network."""
    bsu, rows = design.bsu, run.actions["rows_sorted"]
    beats = run.counters["chunk_bytes"] // design.shell.data_bytes
    part = gscore_parts(design)["bsu"]
    banks = dict.fromkeys(part.memories, (rows / bsu.units, rows / bsu.units))
    return {_exchange(bsu): rows * bsu.stages * bsu.width // 2,
            **part.accesses(**banks | {"reader": (beats, beats)})}


def _vru_events(design: GscoreDesign, run: Run) -> Counts:
    """Every entry looks its feature up and is set up; the tags are cleared before a frame."""
    misses = run.counters["feature_misses"]
    entries = run.counters["feature_hits"] + misses
    return {**_times(_setup_operators(design.vru.setup), entries),
            **gscore_parts(design)["vru"].accesses(
                tags=(entries, misses + design.vru.cache_features),
                features=(entries, misses), waiting=(entries, entries),
                arrived=(misses, misses))}


def _gscore_actions(run: Run) -> dict[str, Counts]:
    """Actions of the units that were measured, and how often each happened."""
    counters, bucketed = run.counters, run.actions["bucket_entries"]
    return {
        "ccu": {"gaussian": counters["gaussians"], "pair": counters["pairs"]},
        "lists": {"pair": counters["pairs"], "bucketed": bucketed},
        "qsu": {"entry": bucketed, "tile": counters["tiles"]},
        "bsu": {"entry": counters["entries_sorted"], "row": counters["bsu_busy"]},
        "vru": {"entry": counters["feature_hits"] + counters["feature_misses"]}}


def gscore_events(
    design: GscoreDesign, run: Run, *, pixels: int, significant: int, walked: int,
    clock_hz: float, table: CostTable,
) -> dict[str, Counts]:
    """Events of one frame by unit.

    Operators work where there is something to work on; every register is clocked in every cycle.
    Units whose gates were measured cost what those took, see :func:`_measured_units`.

    Parameters
    ----------
    design, run, clock_hz, table
        As :func:`raster_events` takes them.
    pixels, significant, walked : int
        Of the frame; its evaluations with alpha of at least 1/255; tiles that were tested for its
        Gaussians.
    """
    default = GscoreDesign()
    parts, usual = gscore_parts(design), gscore_parts(default)
    units, of_default = ({
        "ccu": _ccu_events(each, run, walked), "lists": _lists_events(each, run),
        "qsu": _qsu_events(each, run), "bsu": _bsu_events(each, run),
        "vru": _vru_events(each, run)} for each in (design, default))
    for name, events in _always("gscore", parts, usual, run, clock_hz, table).items():
        units[name] |= events
    units = _measured_units(
        units, of_default, parts, usual, _gscore_actions(run), run, clock_hz, table)
    return {**units, **_shared_events(design, run, pixels, significant, clock_hz, table),
            "memory": _memory_events(run)}


# ---- StreamingGS --------------------------------------------------------------------------------


def _voxel_bits(fmt: Floating) -> int:
    """What is kept of a voxel: three distances and the size, the count, the address."""
    return 4 * fmt.width + POPULATION_BITS + 32


def _visit_bits(fmt: Floating) -> int:
    """A voxel of a group with its prefix, or a group's end."""
    return _voxel_bits(fmt) + POPULATION_BITS + GROUP_TAG_BITS + 2 * GROUP_BITS + 1


def _prefixes(vsu: VsuDesign) -> int:
    """Prefixes beside a whole voxel."""
    return len(PREFIX_SHIFTS) if vsu.prefixes else 0


def _end_bits(vsu: VsuDesign) -> int:
    """An end of a rectangle in groups, before it is cut to the image."""
    return RECTANGLE.width + 2 - ((vsu.group_px << RECTANGLE.frac_bits).bit_length() - 1)


def _keep_operators(vsu: VsuDesign) -> Counts:
    """Of a voxel of the table, behind its arithmetic.

    Four sides of the rectangle of its means with the margin; of it and of each prefix, moved by
    what is reached and cut to the image; of each axis how far its cell is, and the product with the
    weight; in every level of the tree which child is nearest.
    """
    steps, rectangles = CELL_BITS + WEIGHT_BITS, 1 + _prefixes(vsu)
    return _sum([
        (f"add_{RECTANGLE.width + 1}", 4), (f"add_{RECTANGLE.width + 2}", 4 * rectangles),
        (f"add_{_end_bits(vsu)}", 4 * rectangles), (f"add_{CELL_BITS}", 3 * 2),
        (f"add_{CELL_BITS + OCTREE_LEVELS}", 3 * OCTREE_LEVELS),
        (f"add_{CHILD_WEIGHT_BITS}", 2 * OCTREE_LEVELS),
        (f"multiply_{CELL_BITS}x{WEIGHT_BITS}", 3), (f"add_{steps + 2}", 2)])


def _prefix_operators(design: StreaminggsDesign) -> Counts:
    """Of a voxel that is looked up: which prefix, and how many that are."""
    prefixes = _prefixes(design.vsu)
    return _sum([(f"add_{design.vsu.group_bits(design.shell)}", 4 * prefixes),
                 (f"add_{POPULATION_BITS}", prefixes)]) if prefixes else Counts()


def _vsu_part(design: StreaminggsDesign) -> Part:
    """Arithmetic; camera; voxels, keys, orders, counts and rows of the scan in memories.

    Five stages hold a voxel behind the arithmetic, four a row that is scanned, five what was found.
    """
    vsu, fmt = design.vsu, design.vsu.floating
    plan = vsu_schedule(vsu)
    folded, registers = _folded(vsu_schedule, vsu)
    index = vsu.voxels.bit_length() - 1
    rectangle, prefixes = 4 * vsu.group_bits(design.shell), _prefixes(vsu)
    voxel, place = _voxel_bits(fmt), GROUP_TAG_BITS + 2 * GROUP_BITS + 1
    row = place + vsu.scan_width * (1 + index)
    beats, results = voxels_under_way(vsu), _results(plan, fmt)
    side = fmt.width + 64 + 3 * CELL_BITS
    banks = {f"bank_{lane}": Macro(vsu.voxels // vsu.scan_width, index + rectangle)
             for lane in range(vsu.scan_width)}
    return _part(
        _add(folded, _keep_operators(vsu), _prefix_operators(design), _sum([
            # What a scanned row is compared by; counts of digits one more, and their sums.
            (f"add_{vsu.group_bits(design.shell)}", 4 * vsu.scan_width),
            (f"add_{index + 1}", 2 * DIGITS)])),
        registers + design.shell.data_bits + 3 * results.bits
        + BINARY32.width * len(STREAM_CAMERA_WORDS)
        + 2 * (3 * fmt.width + 4 * (RECTANGLE.width + 1) + 2 * BLUR.width) + side
        + (1 + prefixes) * (2 * BLUR.width + 4 * _end_bits(vsu) + 2 * rectangle)
        + 3 * voxel + 3 * CELL_BITS + 3 * (CELL_BITS + WEIGHT_BITS) + KEY_BITS
        + place + vsu.scan_width + 3 * row + vsu.scan_width * rectangle + 3 * voxel + 4 * place
        + prefixes * (1 + POPULATION_BITS + rectangle) + POPULATION_BITS
        + 8 * index + 4 * rectangle + KEY_BITS + DIGITS * (4 * (index + 1) + 3 * DIGIT_BITS)
        + 2 * GROUP_TAG_BITS + 8 * design.shell.address_bits,
        buffer=Macro(vsu.buffer_beats, design.shell.data_bits), results=results,
        side=Macro(1 << (beats - 1).bit_length(), side),
        even=Macro(vsu.voxels // 2, voxel + prefixes * rectangle),
        odd=Macro(vsu.voxels // 2, voxel + prefixes * rectangle),
        places=Macro(vsu.voxels, KEY_BITS + rectangle),
        **{f"order_{digit}": Macro(vsu.voxels, index) for digit in range(DIGITS - 1)},
        **{f"counts_{digit}": Macro(1 << DIGIT_BITS, index + 1) for digit in range(DIGITS)},
        waiting=Macro(vsu.waiting_rows + ROWS_UNDER_WAY - 1, row),
        tokens=Macro(TOKENS_UNDER_WAY - 1, place + voxel + POPULATION_BITS), **banks)


def _filter_operators() -> Counts:
    """Of a Gaussian in a coarse filter.

    Three forms of the place in the cube; the scale in the voxel's unit; how far it lies beyond the
    group, what it reaches at its depth, and the squares of both.
    """
    form = COEFFICIENT.width + PLACE_BITS
    offset = form + OFFSET_UP - FORM_DOWN
    point = DEPTH.width + DILATION_BITS - DILATED_DOWN + 1
    reach = SCALE.width + NORM.width - REACH_DOWN + 1
    return _sum([
        (f"multiply_{COEFFICIENT.width}x{PLACE_BITS}", 9), (f"add_{form + 1}", 9),
        (f"shift_{2 * SCALE.width}", 1), (f"add_{SCALE.width}", 1), ("add_8", 1),
        (f"add_{DEPTH.width + 1}", 2), (f"add_{offset}", 2),
        (f"multiply_{DEPTH.width}x{HALF.width}", 1),
        (f"multiply_{DEPTH.width}x{DILATION_BITS}", 1),
        (f"multiply_{SCALE.width}x{LARGE.width}", 1), (f"add_{DEPTH.width}", 1),
        (f"add_{offset + 2}", 2), (f"add_{point}", 1), (f"multiply_{point}x{point}", 1),
        (f"multiply_{SCALE.width}x{NORM.width}", 2), (f"add_{reach}", 2),
        (f"multiply_{reach}x{reach}", 2), (f"add_{2 * reach}", 4),
        (f"multiply_{DISTANCE.width}x{DISTANCE.width}", 2)])


def _cfu_part(design: StreaminggsDesign) -> Part:
    """Arithmetic of voxels; filters; voxels and Gaussians that wait.

    A filter's stages hold three words of each form, then some seven of a Gaussian; beside the
    filters go what they know of the voxel. A voxel stands where it is asked for, with its unit's
    exponent in front of and behind the first queue, behind the second, in one more place between
    them and in two in front of the arithmetic; a Gaussian twice behind its queue, a token once.
    """
    cfu, fmt = design.cfu, design.cfu.floating
    visit = _visit_bits(fmt)
    gaussian = INDEX_BITS + 3 * PLACE_BITS + 16
    number = cfu.voxels_ahead.bit_length() + 1
    operators, registers = Counts(), (
        5.0 * visit + fmt.exponent_bits + 1 + gaussian * cfu.units + 2 * (gaussian + number)
        + fmt.width * 8)
    memories = {
        **{f"beats_{bank}": Macro(cfu.buffer_beats // cfu.banks - 1, design.shell.data_bits)
           for bank in range(cfu.banks)},
        **{f"queue_{bank}": Macro(cfu.queue // cfu.units, gaussian + number)
           for bank in range(cfu.units)},
        # Beside a voxel its unit's exponent.
        "headers": Macro(cfu.voxels_ahead - 1, visit + fmt.exponent_bits + 1),
        "opened": Macro(cfu.voxels_ahead - 1, visit)}
    if cfu.filters:
        plan = cfu_schedule(cfu)
        operators, folded = _folded(cfu_schedule, cfu)
        operators = _add(operators, _times(_filter_operators(), cfu.units))
        form = COEFFICIENT.width + PLACE_BITS
        results = _results(plan, fmt)
        registers += (
            folded + 2 * visit + 2 * BINARY32.width * len(RECORD) + 5 * results.bits
            + 4 * (HALF.width + 2 * NORM.width + DEPTH.width)
            + cfu.units * (3 * (3 * form + 2 * (form + 1) + OFFSET_UP + DEPTH.width)
                           + 10 * 7 * DISTANCE.width))
        memories |= {
            "past": Macro(10, cfu.units * gaussian + number), "results": results,
            "buffer": Macro(cfu.voxels_ahead, BINARY32.width * len(RECORD))}
    return _part(operators, registers, **memories)


def _token_bits(design: StreaminggsDesign) -> dict[str, int]:
    """Widths of tokens of the fine filter: what comes, what is beside the arithmetic, what leaves.

    And ``kept``, what the sorters keep of the latter.
    """
    fields = {name: width for name, width, _ in design.ffu.token_fields()}
    head = 2 + GROUP_TAG_BITS
    voxel, gaussian = 4 * design.ffu.floating.width + 2 * GROUP_BITS, 3 * PLACE_BITS + 16
    return {"waiting": head + max(voxel, gaussian), "beside": head + 2 * GROUP_BITS,
            "out": sum(fields.values()),
            "kept": sum(fields.values()) - head - fields["depth"]}


def _finish_operators(design: StreaminggsDesign) -> Counts:
    """Of a Gaussian behind the fine filter's arithmetic: its box, opacity, tiles of the group."""
    ffu = design.ffu
    position, extent = ffu.position.width + 2, ffu.extent.width
    return _sum([
        (f"add_{extent}", 4), (f"add_{ffu.logarithm.width + 3}", 4),
        (f"add_{ffu.feature.mean.width}", 4), (f"add_{position}", 2 * (2 + 2 + 2))])


def _ffu_part(design: StreaminggsDesign) -> Part:
    """Arithmetic; codebooks; tokens that wait, indices that came.

    Of a Gaussian the entries stand in registers once, what waits for them twice, and four stages
    hold a token behind the arithmetic.
    """
    ffu, books = design.ffu, design.ffu.codebooks
    plan = ffu_schedule(ffu)
    folded, registers = _folded(ffu_schedule, ffu)
    bits = _token_bits(design)
    lanes = BINARY32.width * plan.lanes
    entries, results = books.codebooks(), _results(plan, ffu.floating)
    return _part(
        _add(folded, _finish_operators(design)),
        registers + lanes + 3 * results.bits
        + 16 * sum(len(names) for _, _, names in entries)
        + design.shell.data_bits * (max(entry_beats(len(names)) for *_, names in entries) - 1)
        + 2 * (4 * ffu.floating.width + 3 * PLACE_BITS + 16) + 3 * bits["waiting"]
        + 4 * (bits["out"] + bits["beside"]) + 4 * design.shell.address_bits,
        waiting=Macro(ffu.waiting - 1, bits["waiting"]),
        arrived=Macro(ffu.buffer_beats, books.index_bits),
        beside=Macro(records_under_way(ffu) - 1, bits["beside"]),
        buffer=Macro(decoded_beats(ffu), lanes), results=results,
        **{name: Macro(number, 16 * len(names)) for name, number, names in entries})


def _vsort_part(design: StreaminggsDesign) -> Part:
    """Tokens that wait; features; of each sorter network, registers behind stages, banks."""
    vsort, sorter = design.vsort, design.vsort.sorter
    bits = _token_bits(design)
    network = sorter.stages * sorter.width
    return _part(
        {_exchange(sorter): vsort.units * network // 2},
        4 * bits["out"]
        + vsort.units * network * (sorter.entry.width + 2) + 2 * sorter.entry.width
        + 2 * vsort.units * (1 + GROUP_TAG_BITS) + 8 * vsort.units * sorter.levels,
        waiting=Macro(vsort.waiting - 1, bits["out"]),
        features=Macro(vsort.units * vsort.capacity, bits["kept"]),
        **_sorter_banks(sorter))


def _subtile_operators(design: StreaminggsDesign) -> Counts:
    """Of a splat: ends of its box from the tile's corner, and eight centres on either axis."""
    bits = design.ffu.position.width + 2
    return {f"add_{bits}": 2 * (1 + 2 * 2) + 2 * 2 * 4}


def _setup_part(design: StreaminggsDesign) -> Part:
    """A token in front; eight stages, two of them for products; groups that wait, their places."""
    setup = design.setup
    slope, distance = setup.slope.width, setup.distance.width
    feature, splat = setup.feature, setup.splat
    token = _token_bits(design)["kept"] + 1 + GROUP_TAG_BITS
    passing = splat.log_opacity.width + 3 * splat.color.width
    tiles = design.array.side**2
    return _part(
        _add(_setup_operators(setup), _subtile_operators(design)),
        token + tiles + feature.width + 2 * 12 + 8 * (passing + 2 + GROUP_TAG_BITS)
        + 7 * 16 + 4 * (design.ffu.position.width + 2) + 6 * distance + 6 * 3 * slope
        + 2 * 3 * (slope + distance) + splat.width + QUEUED_GROUPS * 2 * (16 + GROUP_TAG_BITS)
        + 24 * (1 << GROUP_TAG_BITS))


@cache
def streaminggs_parts(design: StreaminggsDesign) -> dict[str, Part]:
    """StreamingGS's own units by name."""
    return {"vsu": _vsu_part(design), "cfu": _cfu_part(design), "ffu": _ffu_part(design),
            "vsort": _vsort_part(design), "setup": _setup_part(design)}


def streaminggs_inventory(design: StreaminggsDesign, table: CostTable) -> dict[str, Counts]:
    """StreamingGS by unit, as :func:`gscore_inventory`."""
    default = StreaminggsDesign()
    return {**_of_parts(design.name, streaminggs_parts(design), streaminggs_parts(default), table),
            **_shared_inventory(design, default, table)}


def _vsu_events(design: StreaminggsDesign, run: Run) -> Counts:
    """The graph for every voxel of the table; three passes over those that are visible.

    A pass reads a voxel's number but for the first, its key and the next place of its digit, counts
    that on and writes the number; the last writes it into its row, of which all are read where a
    row is scanned.
    """
    vsu, counters = design.vsu, run.counters
    part = streaminggs_parts(design)["vsu"]
    table, kept = counters["voxels"], counters["voxels_visible"]
    hits, rows = counters["voxels_loaded"], counters["vsu_busy"]
    index = vsu.voxels.bit_length() - 1
    sums = 1 << DIGIT_BITS
    events = _add(
        _times(_add(_evaluated(vsu_schedule, vsu), _keep_operators(vsu)), table),
        _times(_prefix_operators(design), hits),
        _times({f"add_{index + 1}": DIGITS}, 2 * kept + sums),
        _times({f"add_{vsu.group_bits(design.shell)}": 4 * vsu.scan_width}, rows))
    return {**events, **_accesses(
        part, buffer=(VOXEL_BEATS * table, VOXEL_BEATS * table), side=(table, table),
        results=(table, table),
        # Which of the two is read does not matter: they are of one size.
        even=(hits / 2, kept / 2), odd=(hits / 2, kept / 2), places=(DIGITS * kept, kept),
        **{f"order_{digit}": (kept, kept) for digit in range(DIGITS - 1)},
        **{f"counts_{digit}": (2 * kept + sums, 2 * kept + 2 * sums) for digit in range(DIGITS)},
        # At most a row for every hit, and for the end of every group; of these a token each.
        waiting=(hits + counters["groups"], hits + counters["groups"]),
        tokens=(hits + counters["groups"], hits + counters["groups"]),
        **{f"bank_{lane}": (rows, kept / vsu.scan_width) for lane in range(vsu.scan_width)})}


def _cfu_events(design: StreaminggsDesign, run: Run) -> Counts:
    """The graph for every voxel of a group, a filter for every Gaussian.

    What goes beside the filters is written and read in every cycle, since its place is the time.
    """
    cfu, counters = design.cfu, run.counters
    part = streaminggs_parts(design)["cfu"]
    loaded = counters["voxels_loaded"]
    voxels = loaded + counters["groups"]
    beats = counters["coarse_bytes"] // design.shell.data_bytes
    events = Counts()
    if cfu.filters:
        events = _add(
            _times(_evaluated(cfu_schedule, cfu), loaded),
            _times(_filter_operators(), counters["gaussians"]))
    passed = counters["gaussians_passed"] / cfu.units
    return {**events, **_accesses(
        part, past=(run.cycles, run.cycles), buffer=(voxels, voxels),
        results=(loaded, loaded),
        headers=(voxels, voxels), opened=(voxels, voxels),
        **{f"beats_{bank}": (beats / cfu.banks, beats / cfu.banks) for bank in range(cfu.banks)},
        **{f"queue_{bank}": (passed, passed) for bank in range(cfu.units)})}


def _ffu_events(design: StreaminggsDesign, run: Run) -> Counts:
    """The graph and an entry of every codebook for every Gaussian that is projected.

    Codebooks are written where they were read; of SH only those are, and are looked at, that the
    scene has. A token is at least one for every Gaussian that passed, and two for every voxel of
    which something is sorted.
    """
    ffu, counters = design.ffu, run.counters
    part = streaminggs_parts(design)["ffu"]
    done = counters["gaussians_projected"]
    beats = counters["fine_bytes"] // design.shell.data_bytes
    ends = counters["voxels_sorted"] + counters["groups"]
    tokens = counters["gaussians_passed"] + counters["voxels_sorted"] + ends
    records = len(ffu_schedule(ffu).reads) * done
    loads = counters["codebook_bytes"] > 0
    books = {
        name: (done, loads * number) if codebook_degree(name) <= run.actions["sh_degree"]
        else (0, 0) for name, number, _ in ffu.codebooks.codebooks()}
    events = _times(_add(
        _evaluated(ffu_schedule, ffu), _finish_operators(design)), done)
    return {**events, **_accesses(
        part, waiting=(tokens, tokens), arrived=(beats, beats), beside=(done + ends, done + ends),
        buffer=(records, records), results=(done, done), **books)}


def _vsort_events(design: StreaminggsDesign, run: Run) -> Counts:
    """Every row of a pass goes through all stages of the network; a feature waits in two memories.

    The first of them holds ends, too, of voxels and of groups.
    """
    vsort, sorter = design.vsort, design.vsort.sorter
    part = streaminggs_parts(design)["vsort"]
    rows, kept = run.actions["rows_sorted"], run.counters["gaussians_kept"]
    tokens = kept + run.counters["voxels_sorted"] + run.counters["groups"]
    banks = dict.fromkeys(part.memories, (rows / vsort.units, rows / vsort.units))
    return {_exchange(sorter): rows * sorter.stages * sorter.width // 2,
            **part.accesses(**banks | {
                "features": (kept, kept), "waiting": (tokens, tokens)})}


def _splat_events(design: StreaminggsDesign, run: Run) -> Counts:
    """Every splat is set up."""
    return _times(_add(_setup_operators(design.setup), _subtile_operators(design)),
                  run.counters["splats"])


def _streaminggs_actions(run: Run) -> dict[str, Counts]:
    """Actions of the units that were measured, and how often each happened."""
    counters = run.counters
    return {
        "vsu": {"voxel": counters["voxels"], "row": counters["vsu_busy"], "cycle": run.cycles},
        "cfu": {"gaussian": counters["gaussians"], "cycle": run.cycles},
        "ffu": {"gaussian": counters["gaussians_projected"]},
        "vsort": {"row": counters["vsort_busy"]},
        "setup": {"splat": counters["splats"]}}


def streaminggs_events(
    design: StreaminggsDesign, run: Run, *, pixels: int, significant: int, clock_hz: float,
    table: CostTable,
) -> dict[str, Counts]:
    """Events of one frame by unit.

    Operators work where there is something to work on; every register is clocked in every cycle.
    Units whose gates were measured cost what those took, see :func:`_measured_units`.

    Parameters
    ----------
    design, run, pixels, significant, clock_hz, table
        As :func:`gscore_events` takes them.
    """
    default = StreaminggsDesign()
    parts, usual = streaminggs_parts(design), streaminggs_parts(default)
    units, of_default = ({
        "vsu": _vsu_events(each, run), "cfu": _cfu_events(each, run),
        "ffu": _ffu_events(each, run), "vsort": _vsort_events(each, run),
        "setup": _splat_events(each, run)} for each in (design, default))
    for name, events in _always("streaminggs", parts, usual, run, clock_hz, table).items():
        units[name] |= events
    units = _measured_units(
        units, of_default, parts, usual, _streaminggs_actions(run), run, clock_hz, table)
    return {**units, **_shared_events(design, run, pixels, significant, clock_hz, table),
            "memory": _memory_events(run)}


# ---- Lumina -------------------------------------------------------------------------------------


def _tilelists_part(design: LuminaDesign) -> Part:
    """Beats of the table and of lists that wait; names of tiles; what is read, and where."""
    lists, bits = design.tilelists, design.shell.data_bits
    return _part(
        {f"add_{design.shell.address_bits}": 4},
        2 * bits + 8 * (TILE_TAG_BITS + 32) + 8 * design.shell.address_bits,
        table=Macro(2 * lists.burst_beats - 1, bits), lists=Macro(lists.buffer_beats - 1, bits))


def _form_operators(nru: NruDesign) -> Counts:
    """Of a splat in one of the generators: forms of all columns and rows, squares of v."""
    form, total = nru.alpha.form.width, nru.alpha.form_sum.width + 1
    pixels = nru.tile_px
    return _sum([
        (f"add_{total}", 2 + 3 * (pixels - 1) + 2 * pixels),
        (f"multiply_{form}x{form}", pixels), (f"add_{2 * form}", pixels)])


def _test_operators(nru: NruDesign) -> Counts:
    """Of a splat at a pixel, in a processing element: its form, its square, the comparison."""
    form = nru.alpha.form.width
    return _sum([
        (f"add_{nru.alpha.form_sum.width + 1}", 1), (f"multiply_{form}x{form}", 1),
        (f"add_{2 * form}", 1), (f"add_{nru.alpha.exponent.width}", 1)])


def _fragment_operators(nru: NruDesign) -> Counts:
    """Of a significant fragment in a back end: the exponential, and blending."""
    return _sum(lane_operators(nru.array)["blend"].items())


def _entry_bits(nru: NruDesign) -> int:
    """Of an entry between tests and back end: exponents, splats, their places, and the pixel."""
    splat = 3 * nru.blend.color.width + RECORD_ID_BITS
    return nru.unit_pixels * (nru.exponent_bits + splat + 1) + 1 + _pixel_bits(nru)


def _pixel_bits(nru: NruDesign) -> int:
    """Of the number of a pixel in its unit."""
    return (nru.unit_pixels - 1).bit_length()


def _nru_part(design: LuminaDesign) -> Part:
    """The buffer of chunks, generators of forms; of every unit as many elements, and a back end.

    Results stand in registers once, factors twice. A back end holds a colour and an id in twelve
    stages, for each of its pixels of two tiles colour, T twice, and the record.
    """
    nru, k, own = design.nru, design.radiance.record_ids, design.nru.unit_pixels
    form, total = nru.alpha.form.width, nru.alpha.form_sum.width + 1
    pixels = nru.tile_px
    splat = design.splat.width + RECORD_ID_BITS
    pixel = (2 * nru.blend.transmittance.width + 3 * nru.blend.accumulator.width
             + k * RECORD_ID_BITS + k.bit_length() + 1)
    passing = 3 * nru.blend.color.width + RECORD_ID_BITS + _pixel_bits(nru) + 2
    element = total + 4 * form + nru.alpha.exponent.width
    forms = total * (2 + 3 * (pixels - 1) + 3 * pixels) + 6 * pixels * form
    fragment = _fragment_operators(nru)
    back_end = sum(number * (sum(map(int, name.split("_")[1].split("x"))))
                   for name, number in fragment.items())
    rows = nru.chunk_splats // own
    return _part(
        _add(_times(_form_operators(nru), own),
             _times(_test_operators(nru), own * nru.units),
             _times(fragment, nru.units)),
        own * (splat + forms)
        + nru.units * (own * element + back_end + 12 * passing + 2 * own * pixel),
        **{f"splats_{place}": Macro(2 * rows, splat, together=own) for place in range(own)},
        cached=Macro(2 * own * nru.units, COLOR_BITS),
        **{f"queue_{unit}": Macro(nru.queue_entries, _entry_bits(nru))
           for unit in range(nru.units)})


def _radiance_part(design: LuminaDesign) -> Part:
    """Two banks; tags of a set compared; look-ups, a walk, and a set that is saved under way."""
    radiance = design.radiance
    entry = radiance.tag_bits + COLOR_BITS + 1
    record = 8 + radiance.record_ids * RECORD_ID_BITS
    return _part(
        {f"add_{radiance.tag_bits}": 2 * radiance.ways, f"add_{radiance.index_bits}": 4,
         f"add_{design.shell.address_bits}": 2},
        4 * record + 4 * (record + COLOR_BITS) + 3 * radiance.ways * entry
        + 4 * design.shell.address_bits + 2 * design.shell.data_bits,
        **{f"rows_{bank}": Macro(radiance.sets, radiance.ways * entry) for bank in range(2)},
        **({f"recency_{bank}": Macro(radiance.sets, radiance.ways - 1) for bank in range(2)}
           if radiance.ways > 1 else {}))


@cache
def lumina_parts(design: LuminaDesign) -> dict[str, Part]:
    """LuminCore's own units by name; the cache stands there whether frames use it or not."""
    return {"tilelists": _tilelists_part(design), "vru": _vru_part(design),
            "nru": _nru_part(design), "radiance": _radiance_part(design)}


def lumina_inventory(design: LuminaDesign, table: CostTable) -> dict[str, Counts]:
    """LuminCore by unit, as :func:`gscore_inventory`."""
    default = LuminaDesign()
    shared = _shared_inventory(design, default, table)
    return {**_of_parts(design.name, lumina_parts(design), lumina_parts(default), table),
            "resolve": shared["resolve"], "shell": shared["shell"]}


def _lumina_units(
    design: LuminaDesign, run: Run, pixels: int, fragments: int
) -> dict[str, Counts]:
    """What operators and memories of LuminCore's units do in a frame."""
    nru, radiance, counters = design.nru, design.radiance, run.counters
    own = nru.unit_pixels
    parts = lumina_parts(design)
    issued = run.actions["issued"]
    splats = run.actions["lockstep"] + own * run.actions["remapped"]
    entries, misses = run.actions["entries"], run.actions["feature_misses"]
    beats = counters["list_bytes"] // design.shell.data_bytes
    table_beats = counters["table_bytes"] // design.shell.data_bytes
    lookups = counters["lookups"]
    inserts = lookups - counters["hits"]
    set_bytes = radiance.image_bytes // radiance.sets
    loaded = counters["cache_read_bytes"] / set_bytes
    saved = counters["cache_written_bytes"] / set_bytes
    rows = {"reads": (2 * lookups + saved) / 2, "writes": (inserts + loaded) / 2}
    of_banks = dict.fromkeys(
        (name for name in parts["radiance"].memories if name.startswith("rows")),
        (rows["reads"], rows["writes"]))
    recency = dict.fromkeys(
        ("recency_0", "recency_1"), ((2 * lookups + saved) / 2, (lookups + loaded) / 2))
    return {
        "tilelists": _accesses(parts["tilelists"], table=(table_beats, table_beats),
                               lists=(beats, beats)),
        "vru": {**_times(_setup_operators(design.setup), entries),
                **parts["vru"].accesses(
                    tags=(entries, misses + design.vru.cache_features),
                    features=(entries, misses), waiting=(entries, entries),
                    arrived=(misses, misses))},
        "nru": {**_add(
            _times(_form_operators(nru), own * issued),
            _times(_test_operators(nru), own * nru.units * issued),
            _times(_fragment_operators(nru), fragments)),
            **_accesses(
                parts["nru"], cached=(pixels, counters["hits"]),
                **{f"splats_{place}": (splats / own, splats / own) for place in range(own)},
                **{f"queue_{unit}": (fragments / nru.units, fragments / nru.units)
                   for unit in range(nru.units)})},
        "radiance": {
            f"add_{radiance.tag_bits}": 2 * radiance.ways * lookups,
            **_accesses(parts["radiance"], **of_banks, **recency)}}


def _lumina_actions(design: LuminaDesign, run: Run) -> dict[str, Counts]:
    """Actions of the units that were measured, and how often each happened."""
    counters, actions = run.counters, run.actions
    return {
        "tilelists": {"tile": actions["tiles"],
                      "beat": counters["list_bytes"] // design.shell.data_bytes},
        "vru": {"entry": actions["entries"]},
        "nru": {"lockstep": actions["lockstep"], "remapped": actions["remapped"]},
        "radiance": {"walked": counters["lookups"] + actions["tiles"],
                     "saved": counters["cache_written_bytes"] // design.shell.data_bytes,
                     "cycle": run.cycles}}


def lumina_events(
    design: LuminaDesign, run: Run, *, pixels: int, fragments: int, clock_hz: float,
    table: CostTable,
) -> dict[str, Counts]:
    """Events of one frame of LuminCore by unit.

    Operators work where there is something to work on; every register is clocked in every cycle. A
    cycle in which the array issues, one splat or several, tests at all pixels. A fragment takes one
    write and one read of its unit's queue, an upper end: fragments of a splat share an entry. A set
    of the cache is read by a look-up and by the walk, which writes what was not there; and is read
    and written once where its bank is saved and loaded. Units whose gates were measured cost what
    those took, see :func:`_measured_units`; of `vru` that are GSCore's.

    Parameters
    ----------
    design, run, pixels, clock_hz, table
        As :func:`gscore_events` takes them.
    fragments : int
        Significant fragments of pixels that had not ended.
    """
    default = LuminaDesign()
    parts, usual = lumina_parts(design), lumina_parts(default)
    units, of_default = (_lumina_units(each, run, pixels, fragments) for each in (design, default))
    for name, events in _always("lumina", parts, usual, run, clock_hz, table).items():
        units[name] = _add(units[name], events)
    other = GscoreDesign()
    usual = {**usual, "vru": _vru_part(other)}
    of_default["vru"] = _times(_setup_operators(other.vru.setup), run.actions["entries"])
    units = _measured_units(
        units, of_default, parts, usual, _lumina_actions(design, run), run, clock_hz, table)
    measured = _output_events(
        design, run, pixels, clock_hz, table) if is_measured(design, table) else {}
    return {**units, **measured, "memory": _memory_events(run)}
