"""What stands in the units of an accelerator, and what happens there in a frame.

Units are priced one by one: :func:`raster_events` and :func:`gscore_events` say what happened, in
the vocabulary of :mod:`splatforge.sim.costs`, and :func:`raster_inventory` and
:func:`gscore_inventory` what stands there. The units that the accelerators share take the measured
blocks where their formats are those of the measurement, else the operators that the formats imply;
GSCore's other units are :class:`Part`, from their parameters.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from splatforge.algos.array import Workload
from splatforge.algos.ccu import ccu_schedule
from splatforge.algos.floating import log2_table, reciprocal_table
from splatforge.algos.schedule import LATENCY, Unit
from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.blend import BlendDesign
from splatforge.designs.ccu import CAMERA_WORDS
from splatforge.designs.entry import TILE_TAG_BITS
from splatforge.designs.fetch import TILE_PX, SplatFormat
from splatforge.designs.floating import BINARY32, Floating
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lists import ListsDesign
from splatforge.designs.raster import COUNTERS, RasterDesign
from splatforge.designs.resolve import ResolveDesign
from splatforge.designs.shell import DESCRIPTOR_BYTES, AcceleratorDesign
from splatforge.sim.area import array_inventory, lane_operators
from splatforge.sim.costs import CostTable
from splatforge.sim.dram_energy import dram_events
from splatforge.sim.run import Run

__all__ = ["MACRO_BITS", "Macro", "Part", "flip_flops", "gscore_events", "gscore_inventory",
           "gscore_parts", "is_measured", "raster_events", "raster_inventory"]

#: Events or items by name, and how many.
Counts = dict[str, float]

#: Blocks whose energies are measured (:mod:`splatforge.sim.costs`), by the unit that they are in.
MEASURED_BLOCKS = {
    "array": ("alpha", "blend", "array"), "fetch": ("fetch",), "resolve": ("resolve",),
    "shell": ("registers",)}
#: Blocks that a design has once a lane.
LANE_BLOCKS = ("alpha", "blend")
#: A memory with more bits is a macro, a smaller one flip-flops; as synthesis has it.
MACRO_BITS = 1024
#: Narrowest macro of the SRAM table, and the fewest words that each of its widths has.
MACRO_WIDTH, MACRO_WORDS = 32, 32


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


def is_measured(design: AcceleratorDesign) -> bool:
    """Whether the measured energies are of the formats of `design`."""
    return (design.array.alpha, design.array.blend, design.splat, design.resolve.background) \
        == (AlphaDesign(), BlendDesign(), SplatFormat(), ResolveDesign().background)


def flip_flops(design: AcceleratorDesign, table: CostTable) -> Counts:
    """Flip-flops of each measured block, for any number of lanes.

    The counts are those of the mapped netlists. Lanes multiply `alpha` and `blend`; a lane of
    `blend` holds a colour and twice a T for each of its pixels of two tiles. Counters and the frame
    descriptor of the core's top level count as registers; those of the raster core's counters that
    can be read were measured with it.
    """
    array = design.array
    pixel = 2 * array.blend.transmittance.width + 3 * array.blend.accumulator.width
    counts: Counts = {}
    for block in (each for blocks in MEASURED_BLOCKS.values() for each in blocks):
        counts[block] = table.measured(block, "flip_flops").cost.value
        if block in LANE_BLOCKS:
            measured_lanes = table.measured(block, "instances").cost.value
            counts[block] *= array.lanes / measured_lanes
            if block == "blend":
                pixels = 2 * TILE_PX**2 * (1 / array.lanes - 1 / measured_lanes)
                counts[block] += array.lanes * pixels * pixel
    counters = 2 * len(design.counters) - len(COUNTERS)
    counts["registers"] += design.shell.counter_bits * counters + 8 * DESCRIPTOR_BYTES
    return counts


def _shared_events(
    design: AcceleratorDesign, run: Run, pixels: int, significant: int, clock_hz: float,
    table: CostTable,
) -> dict[str, Counts]:
    """Events of array, resolve and shell, measured or by their operators."""
    busy = run.counters["array_busy"]
    issued = busy * design.array.lanes
    if not is_measured(design):
        operators = lane_operators(design.array)
        events = _add(
            _times(operators["evaluate"], issued), _times(operators["blend"], significant))
        events["register_bit_clock"] = array_inventory(design.array)["register_bit"] * run.cycles
        return {"array": events}
    units: dict[str, Counts] = {
        "array": {"alpha_evaluation": issued, "alpha_significant": significant,
                  "blend_evaluation": issued, "blend_significant": significant,
                  "array_block": busy},
        "resolve": {"resolve_pixel": pixels},
        "shell": {"registers_cycle": run.cycles},
    }
    for unit, events in units.items():
        events |= _clocked(unit, design, run, clock_hz, table)
    return units


def _clocked(unit: str, design: AcceleratorDesign, run: Run, clock_hz: float, table: CostTable
             ) -> Counts:
    """Clock and leakage of the measured blocks of a unit; nothing is gated."""
    clocked, events = flip_flops(design, table), Counts()
    for block in MEASURED_BLOCKS[unit]:
        lanes = design.array.lanes if block in LANE_BLOCKS else 1
        events[f"{block}_flip_flop_cycle"] = clocked[block] * run.cycles
        events[f"{block}_leakage"] = (
            1e6 * run.cycles / clock_hz * lanes / table.measured(block, "instances").cost.value)
    return events


def _shared_inventory(design: AcceleratorDesign, table: CostTable) -> dict[str, Counts]:
    """Array, resolve and shell; of the latter two only the flip-flops are counted."""
    clocked = flip_flops(design, table)
    return {"array": dict(array_inventory(design.array)),
            "resolve": {"register_bit": clocked["resolve"]},
            "shell": {"register_bit": clocked["registers"]}}


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
    splats = run.counters["fetch_busy"]
    dropped = run.counters["overfetch_bytes"] // design.shell.data_bytes
    buffer = _splat_buffer(design)
    fetch: Counts = {}
    if is_measured(design):
        fetch = {"fetch_splat": splats, **_clocked("fetch", design, run, clock_hz, table)}
    return {
        **_shared_events(design, run, workload.width * workload.height,
                         int(workload.significant.sum()), clock_hz, table),
        "fetch": {**fetch, buffer.write: splats, buffer.read: splats - dropped},
        "memory": _memory_events(run)}


def raster_inventory(design: RasterDesign, table: CostTable) -> dict[str, Counts]:
    """The raster core by unit; of `fetch` its flip-flops and the splat buffer."""
    return {**_shared_inventory(design, table), "fetch": {
        "register_bit": flip_flops(design, table)["fetch"], _splat_buffer(design).item: 1}}


def _splat_buffer(design: RasterDesign) -> "Macro":
    return Macro(design.fetch.buffer_splats, design.shell.data_bits)


# ---- GSCore -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Macro:
    """An SRAM, one read or write a cycle.

    Parameters
    ----------
    words, bits : int
        Depth and width.
    """

    words: int
    bits: int

    @property
    def item(self) -> str:
        """Name in the vocabulary of areas; what is smaller than the table costs its smallest."""
        width = max(self.bits, MACRO_WIDTH)
        least = MACRO_WORDS * (1 << (width - 1).bit_length())
        return f"sram_{width}b_{max(-(-self.words * self.bits // 8), least // 8)}B"

    @property
    def read(self) -> str:
        """Event of a read."""
        return self.item.replace("sram_", "sram_read_")

    @property
    def write(self) -> str:
        """Event of a write."""
        return self.item.replace("sram_", "sram_write_")


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

    def inventory(self) -> Counts:
        """Instances by item."""
        items = _sum((macro.item, 1) for macro in self.memories.values())
        return {**self.operators, "register_bit": self.register_bits, **items}

    def accesses(self, **times: tuple[float, float]) -> Counts:
        """Events of its memories, from (reads, writes) of each that is not all flip-flops."""
        return _sum(each for name, macro in self.memories.items()
                    for each in zip((macro.read, macro.write), times[name], strict=True))


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

    A unit's pipeline holds one and a half words a cycle: the word, its sign and exponent apart, and
    guard bits. Each of the eight places holds a feature, a depth, and some six sums of the walk.
    """
    ccu = design.ccu
    plan = ccu_schedule(ccu)
    gaussian, tile = _walk_operators(design)
    # One multiplier takes the five products of a Gaussian in turn.
    operators = _add(tile, {name: 1 if name.startswith("multiply") else number
                            for name, number in gaussian.items()})
    registers = plan.register_bits
    for unit in plan.units:
        width = (BINARY32 if unit.kind.startswith("wide_") else ccu.floating).width
        registers += 2 * width + 3 * LATENCY[unit.kind] * width // 2
        operators = _add(operators, _floating_operators(unit, ccu.floating))
    total = ccu.position.width + 2 + ccu.axis.width + 1
    place = ccu.feature.width + ccu.entry.depth_bits + 6 * total
    registers += 8 * place + BINARY32.width * len(CAMERA_WORDS)
    return Part(
        operators=operators, register_bits=registers,
        memories={"buffer": Macro(ccu.buffer_beats, design.shell.data_bits)})


def _reader_bits(lists: ListsDesign) -> int:
    """Flip-flops of a list reader: a pair behind its buffer, one at the output, what it asks for.

    And its bursts: whether each is full and the last of which tile.
    """
    return (4 * lists.entry.width + 4 * (lists.page_bits + lists.count_bits)
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


def _exchange(design: GscoreDesign) -> str:
    """Operator of a compare-exchange."""
    return f"add_{design.bsu.entry.width + 1}"


def _bsu_part(design: GscoreDesign) -> Part:
    """A reader; of each sorter the network with a register behind each stage, and the banks."""
    bsu, lists = design.bsu, design.lists
    network = bsu.stages * bsu.width // 2
    bank = Macro(bsu.rows, bsu.entry.width)
    small = bank.words * bank.bits <= MACRO_BITS
    sorter = bsu.stages * bsu.width * (bsu.entry.width + 2)
    registers = _reader_bits(lists) + 2 * bsu.entry.width + bsu.units * sorter
    memories = {"reader": _reader_macro(lists)}
    if small:
        registers += bsu.units * bsu.width * bank.words * bank.bits
    else:
        memories |= {f"bank_{number}": bank for number in range(bsu.units * bsu.width)}
    return Part(operators={_exchange(design): bsu.units * network}, register_bits=registers,
                memories=memories)


def _setup_operators(design: GscoreDesign) -> Counts:
    """Of a splat: slopes in fixed point, the distance, three products, rounding."""
    vru = design.vru
    slope, distance, splat = vru.slope.width, vru.setup.distance.width, vru.splat
    return _sum([
        (f"shift_{slope}", 3), (f"add_{slope}", 3), (f"add_{distance}", 2),
        (f"multiply_{slope}x{distance}", 3), (f"add_{slope + distance + 1}", 1),
        *((f"add_{fmt.width + 1}", 1) for fmt in (splat.u0, splat.v0, splat.a, splat.b, splat.c))])


def _vru_part(design: GscoreDesign) -> Part:
    """Tags, records, queues, places of tiles; six stages of setup, of them two for products."""
    vru = design.vru
    slope, distance = vru.slope.width, vru.setup.distance.width
    feature, entry = vru.feature.width, vru.entry
    passing = feature - 2 * vru.feature.mean.width - 3 * vru.feature.slope.width + 4
    waiting = vru.index_bits + entry.subtile_bits + 5
    return Part(
        operators=_setup_operators(design),
        register_bits=(24 << TILE_TAG_BITS) + 3 * feature + 6 * (passing + 4) + 2 * distance
        + 4 * 3 * slope + 2 * 3 * (slope + distance) + vru.splat.width
        + 2 * design.shell.data_bits + waiting,
        memories={
            "tags": Macro(vru.cache_features, 1 + entry.feature_bits - vru.index_bits),
            "features": Macro(vru.cache_features, feature),
            "waiting": Macro(vru.waiting - 1, waiting),
            "arrived": Macro(vru.outstanding_features, feature)})


@cache
def gscore_parts(design: GscoreDesign) -> dict[str, Part]:
    """GSCore's own units by name."""
    return {"ccu": _ccu_part(design), "lists": _lists_part(design), "qsu": _qsu_part(design),
            "bsu": _bsu_part(design), "vru": _vru_part(design)}


def _logic_um2(part: Part, table: CostTable) -> float:
    """Area of a unit's operators and flip-flops by the laws, at the node that they are given at."""
    node_nm = table.entry("area.add").node_nm
    assert node_nm is not None  # the loader of the committed table is tested for it
    return sum(table.area_of(item, node_nm=node_nm).value * count
               for item, count in {**part.operators, "register_bit": part.register_bits}.items())


def gscore_inventory(design: GscoreDesign, table: CostTable) -> dict[str, Counts]:
    """GSCore by unit.

    Operators and flip-flops of a unit are what synthesis gave for the default parameters
    (``area.gscore_<unit>``), times what the laws say of these parameters over the default ones;
    without such an entry what the laws say.
    """
    default = gscore_parts(GscoreDesign())
    units: dict[str, Counts] = {}
    for name, part in gscore_parts(design).items():
        items = part.inventory()
        if f"area.gscore_{name}" in table.entries:
            for item in (*part.operators, "register_bit"):
                del items[item]
            items[f"gscore_{name}"] = _logic_um2(part, table) / _logic_um2(default[name], table)
        units[name] = items
    return {**units, **_shared_inventory(design, table)}


def _ccu_events(design: GscoreDesign, run: Run, walked: int) -> Counts:
    """Every operation of the graph for every Gaussian; the walk's for every tile."""
    ccu, counters = design.ccu, run.counters
    gaussian, tile = _walk_operators(design)
    arithmetic = _add(gaussian, *(
        _times(_floating_operators(unit, ccu.floating), len(unit.placed))
        for unit in ccu_schedule(ccu).units))
    events = _add(_times(arithmetic, counters["gaussians"]),
                  _times(tile, walked))
    beats = counters["ccu_busy"]
    return {**events, **gscore_parts(design)["ccu"].accesses(buffer=(beats, beats))}


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
    return {_exchange(design): rows * bsu.stages * bsu.width // 2,
            **part.accesses(**banks | {"reader": (beats, beats)})}


def _vru_events(design: GscoreDesign, run: Run) -> Counts:
    """Every entry looks its feature up and is set up; the tags are cleared before a frame."""
    misses = run.counters["feature_misses"]
    entries = run.counters["feature_hits"] + misses
    return {**_times(_setup_operators(design), entries),
            **gscore_parts(design)["vru"].accesses(
                tags=(entries, misses + design.vru.cache_features),
                features=(entries, misses), waiting=(entries, entries),
                arrived=(misses, misses))}


def gscore_events(
    design: GscoreDesign, run: Run, *, pixels: int, significant: int, walked: int,
    clock_hz: float, table: CostTable,
) -> dict[str, Counts]:
    """Events of one frame by unit.

    Operators work where there is something to work on; every register is clocked in every cycle.

    Parameters
    ----------
    design, run, clock_hz, table
        As :func:`raster_events` takes them.
    pixels, significant, walked : int
        Of the frame; its evaluations with alpha of at least 1/255; tiles that were tested for its
        Gaussians.
    """
    units = {
        "ccu": _ccu_events(design, run, walked), "lists": _lists_events(design, run),
        "qsu": _qsu_events(design, run), "bsu": _bsu_events(design, run),
        "vru": _vru_events(design, run)}
    for name, events in units.items():
        events["register_bit_clock"] = gscore_parts(design)[name].register_bits * run.cycles
    return {**units, **_shared_events(design, run, pixels, significant, clock_hz, table),
            "memory": _memory_events(run)}
