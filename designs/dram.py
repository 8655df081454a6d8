"""DRAM behind an accelerator: organisation, timing gates, address mapping, controller; presets.

All timings are whole clocks of the command clock CK, as the standards count them; where a source
prints nanoseconds, the preset shows them and rounds up. Every preset says field by field where its
numbers were read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction

__all__ = ["COMMANDS", "FIELDS", "PRESETS", "TIMINGS", "AddressMapping", "Controller", "Dram",
           "DramTiming", "Organization", "PagePolicy", "Refresh"]

#: Commands by their number in a log.
COMMANDS = ("ACT", "PRE", "PREab", "RD", "WR", "RDA", "WRA", "REFab", "REFpb")
#: What address bits may select, by number in the kernels.
FIELDS = ("channel", "rank", "bank_group", "bank", "row", "column")


class PagePolicy(Enum):
    """What happens to a row behind an access."""

    OPEN = "open"
    """It stays open until another row of the bank is wanted, or refresh."""
    CLOSED = "closed"
    """The access precharges it, unless one that waits in the same queue wants the row as well."""


class Refresh(Enum):
    """How rows are refreshed."""

    ALL_BANK = "all-bank"
    PER_BANK = "per-bank"
    NONE = "none"
    """Never: for tests of arithmetic, no real DRAM."""


def _power_of_two(value: int) -> bool:
    return value >= 1 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class Organization:
    """What a memory is made of; every count is a power of two.

    Parameters
    ----------
    channels : int
        Independent channels, each with its own commands and data, at most 16.
    ranks : int
        Devices that share a channel, at most 4.
    bank_groups : int
        Groups of banks of a rank; 1 where the standard has none.
    banks : int
        Banks of a group; at most 32 banks in a channel.
    rows, columns : int
        Of a bank; a column is as wide as the channel.
    width_bits : int
        Width of a channel.
    burst_length : int
        Columns of one access.

    Raises
    ------
    ValueError
        If a count is no power of two or too large.
    """

    channels: int
    ranks: int = 1
    bank_groups: int = 1
    banks: int
    rows: int
    columns: int
    width_bits: int
    burst_length: int

    def __post_init__(self) -> None:
        for name in ("channels", "ranks", "bank_groups", "banks", "rows", "columns", "width_bits",
                     "burst_length"):
            if not _power_of_two(getattr(self, name)):
                raise ValueError(f"DRAM {name} must be a power of two, not {getattr(self, name)!r}")
        if self.channels > 16:
            raise ValueError(f"DRAM channels must be at most 16, not {self.channels!r}")
        if self.ranks > 4:
            raise ValueError(f"DRAM ranks must be at most 4, not {self.ranks!r}")
        if self.banks_per_channel > 32:
            raise ValueError(
                f"Banks of a DRAM channel must be at most 32, not {self.banks_per_channel}")
        if not 16 <= self.access_bytes <= 256:
            raise ValueError(
                f"DRAM access must be 16 to 256 bytes, not {self.access_bytes}")
        if self.burst_length > self.columns:
            raise ValueError(
                f"DRAM burst must be at most a row of {self.columns} columns, "
                f"not {self.burst_length!r}")

    @property
    def access_bytes(self) -> int:
        """Bytes of one access."""
        return self.width_bits * self.burst_length // 8

    @property
    def banks_per_rank(self) -> int:
        """Banks of a rank."""
        return self.bank_groups * self.banks

    @property
    def banks_per_channel(self) -> int:
        """Banks of a channel."""
        return self.ranks * self.banks_per_rank

    @property
    def row_bytes(self) -> int:
        """Bytes of an open row."""
        return self.columns * self.width_bits // 8

    @property
    def size_bytes(self) -> int:
        """Bytes of all channels."""
        return self.channels * self.banks_per_channel * self.rows * self.row_bytes


@dataclass(frozen=True, kw_only=True)
class DramTiming:
    """Timing gates in clocks of CK, JEDEC names in lower case.

    Parameters
    ----------
    clock_ns : Fraction
        Period of CK in nanoseconds.
    bl : int
        Clocks of an access on the data bus.
    cl, cwl : int
        RD to the first data, WR to the first data.
    dqsck : int
        What the data of a read are later than `cl`.
    rcd, ras, rc : int
        ACT to RD or WR, to PRE, to the next ACT of the bank.
    rp, rp_all, ppd : int
        PRE to ACT, all-bank PRE to ACT, PRE to PRE.
    rrd_s, rrd_l, faw : int
        ACT to ACT of another and of the same bank group, and of four.
    ccd_s, ccd_l : int
        RD to RD and WR to WR of another and of the same bank group.
    wtr_s, wtr_l : int
        End of write data to RD of another and of the same bank group.
    rtw : int
        RD to WR beyond ``cl + bl - cwl``: the bus turns round.
    wr, rtp : int
        End of write data to PRE, RD to PRE.
    cs : int
        Gap on the data bus between ranks.
    rfc_all, rfc_bank, refi, pbr2pbr : int
        REFab to ACT, REFpb to ACT of the bank, interval of REFab, REFpb to REFpb.
    act_clocks, column_clocks, pre_clocks, ref_clocks : int
        Clocks that a command occupies the command bus.

    Raises
    ------
    ValueError
        If a number is negative, or two contradict each other.
    """

    clock_ns: Fraction
    bl: int
    cl: int
    cwl: int
    dqsck: int = 0
    rcd: int
    ras: int
    rc: int
    rp: int
    rp_all: int
    ppd: int = 1
    rrd_s: int
    rrd_l: int
    faw: int
    ccd_s: int
    ccd_l: int
    wtr_s: int
    wtr_l: int
    rtw: int
    wr: int
    rtp: int
    cs: int = 2
    rfc_all: int
    rfc_bank: int
    refi: int
    pbr2pbr: int
    act_clocks: int = 1
    column_clocks: int = 1
    pre_clocks: int = 1
    ref_clocks: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.clock_ns, Fraction) or self.clock_ns <= 0:
            raise ValueError(f"DRAM clock_ns must be a positive fraction, not {self.clock_ns!r}")
        for name in TIMINGS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1 << 20:
                raise ValueError(f"DRAM {name} must be 0 to {1 << 20} clocks, not {value!r}")
        for less, more in (("bl", "ccd_s"), ("ccd_s", "ccd_l"), ("rrd_s", "rrd_l"),
                           ("wtr_s", "wtr_l"), ("rp", "rp_all"), ("rcd", "ras"), ("ras", "rc"),
                           ("rfc_all", "refi")):
            if getattr(self, less) > getattr(self, more):
                raise ValueError(f"DRAM {more} must be at least {less}, {getattr(self, less)}, "
                                 f"not {getattr(self, more)}")
        for name in ("bl", "refi", "act_clocks", "column_clocks", "pre_clocks", "ref_clocks"):
            if not getattr(self, name):
                raise ValueError(f"DRAM {name} must be at least 1 clock, not 0")

    @property
    def read_to_write(self) -> int:
        """RD to WR of a rank."""
        return self.cl + self.bl - self.cwl + self.rtw


#: Timings that are counts of clocks, in the order of the kernels.
TIMINGS = tuple(name for name in DramTiming.__dataclass_fields__ if name != "clock_ns")


@dataclass(frozen=True, kw_only=True)
class AddressMapping:
    """Which address bits select what.

    Parameters
    ----------
    fields : tuple
        (name, bits) from the lowest bit above an access upward; names of :data:`FIELDS`. A name
        that comes again continues with its next higher bits.
    bank_hash : bool
        Whether bank and bank group are XORed with the lowest bits of the row, so that rows a power
        of two apart meet in different banks.

    Raises
    ------
    ValueError
        If a name is unknown or a number of bits negative.
    """

    fields: tuple[tuple[str, int], ...]
    bank_hash: bool = True

    def __post_init__(self) -> None:
        for name, bits in self.fields:
            if name not in FIELDS:
                raise ValueError(
                    f"Address field must be one of {', '.join(FIELDS)}, not {name!r}")
            if not 0 <= bits <= 24:
                raise ValueError(f"Bits of address field {name} must be 0 to 24, not {bits!r}")
        if len(self.fields) > 12:
            raise ValueError(f"Address mapping must have at most 12 fields, not {len(self.fields)}")

    def bits(self, name: str) -> int:
        """Bits of a field."""
        return sum(bits for each, bits in self.fields if each == name)


@dataclass(frozen=True, kw_only=True)
class Controller:
    """The memory controller.

    Parameters
    ----------
    queue_depth : int
        Reads, and as many writes, that wait in a channel, at most 64.
    window : int
        Oldest of them among which a row hit may overtake (FR-FCFS).
    write_high, write_low : int
        Waiting writes at which a channel turns to writing, and at which it turns back to reading.
    page_policy : PagePolicy
        What happens to a row behind an access.
    refresh : Refresh
        How rows are refreshed.
    frontend_ns, backend_ns : int
        From the accepted address to the queue, and from the end of the data to the bus.
    outstanding : int
        Read bursts, and as many write bursts, that the controller holds at a time.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    Depth and watermarks are Ramulator 2.1's defaults (32, 0.8, 0.2), the latencies gem5's
    (static_frontend_latency, static_backend_latency of MemCtrl, 10 ns each).
    """

    queue_depth: int = 32
    window: int = 32
    write_high: int = 25
    write_low: int = 6
    page_policy: PagePolicy = PagePolicy.OPEN
    refresh: Refresh = Refresh.ALL_BANK
    frontend_ns: int = 10
    backend_ns: int = 10
    outstanding: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.queue_depth <= 64:
            raise ValueError(f"Queue depth must be 1 to 64, not {self.queue_depth!r}")
        if not 1 <= self.window <= self.queue_depth:
            raise ValueError(f"Window must be 1 to {self.queue_depth}, not {self.window!r}")
        if not 0 <= self.write_low < self.write_high <= self.queue_depth:
            raise ValueError(
                "Write watermarks must be 0 <= low < high <= queue depth, not "
                f"{self.write_low!r}, {self.write_high!r}")
        for name in ("frontend_ns", "backend_ns"):
            if not 0 <= getattr(self, name) <= 1000:
                raise ValueError(
                    f"Controller {name} must be 0 to 1000 ns, not {getattr(self, name)!r}")
        if not 1 <= self.outstanding <= 1024:
            raise ValueError(f"Outstanding bursts must be 1 to 1024, not {self.outstanding!r}")


@dataclass(frozen=True, kw_only=True)
class Dram:
    """A memory of one standard.

    Parameters
    ----------
    name : str
        For the command line and for records.
    standard : str
        ``lpddr3``, ``lpddr4`` or ``lpddr5``: the table of currents, see
        :mod:`splatforge.sim.dram_energy`.
    organization, timing, mapping, controller : Organization, DramTiming, AddressMapping, Controller
        Parameters.
    sources : Mapping
        Names of parameters, separated by blanks -> where they were read.

    Raises
    ------
    ValueError
        If mapping and organisation disagree.
    """

    name: str
    standard: str
    organization: Organization
    timing: DramTiming
    mapping: AddressMapping
    controller: Controller = Controller()
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        org = self.organization
        counts = {"channel": org.channels, "rank": org.ranks, "bank_group": org.bank_groups,
                  "bank": org.banks, "row": org.rows,
                  "column": org.columns // org.burst_length}
        for name, count in counts.items():
            if 1 << self.mapping.bits(name) != count:
                raise ValueError(f"Address mapping must have {count.bit_length() - 1} {name} bits, "
                                 f"not {self.mapping.bits(name)}")

    @property
    def peak_bytes_per_s(self) -> float:
        """Bytes per second with every data bus always busy."""
        org = self.organization
        return float(org.channels * org.access_bytes / (self.timing.bl * self.timing.clock_ns)
                     * 10**9)

    @property
    def clock_hz(self) -> Fraction:
        """Frequency of CK."""
        return Fraction(10**9) / self.timing.clock_ns


def _clocks(time_ns: float, clock_ns: Fraction) -> int:
    """Whole clocks that last at least a time, as JEDEC rounds."""
    return math.ceil(Fraction(str(time_ns)) / clock_ns)


_GEM5_LPDDR3 = ("gem5 src/mem/DRAMInterface.py LPDDR3_1600_1x32 (Micron EDF8132A1MC, read at "
                "1db206b)")
_DRAMSIM_LPDDR3 = "DRAMsim3 configs/LPDDR3_8Gb_x32_1600.ini (read at 0eb6360)"
_DRAMSYS_LPDDR4 = ("DRAMSys JEDEC_8Gb_LPDDR4-3200_16bit.json (read at d227212), the same in "
                   "DRAMPower memspecs/MICRON_6Gb_LPDDR4-3200_32bit_A.json")
_RAMULATOR_LPDDR5 = "Ramulator 2.1 python/ramulator/dram/lpddr5.py, LPDDR5_6400 (read at 0aba192)"

_CK_LPDDR3 = Fraction(5, 4)

#: Lumina's memory: four channels of LPDDR3-1600, 25.6 GB/s.
LPDDR3_1600 = Dram(
    name="lpddr3-1600", standard="lpddr3",
    organization=Organization(channels=4, banks=8, rows=1 << 15, columns=1 << 10, width_bits=32,
                              burst_length=8),
    timing=DramTiming(
        clock_ns=_CK_LPDDR3, bl=4, cl=12, cwl=6, dqsck=2,
        rcd=_clocks(18, _CK_LPDDR3), ras=_clocks(42, _CK_LPDDR3),
        rc=_clocks(42, _CK_LPDDR3) + _clocks(18, _CK_LPDDR3),
        rp=_clocks(18, _CK_LPDDR3), rp_all=_clocks(21, _CK_LPDDR3),
        rrd_s=_clocks(10, _CK_LPDDR3), rrd_l=_clocks(10, _CK_LPDDR3), faw=_clocks(50, _CK_LPDDR3),
        ccd_s=4, ccd_l=4, wtr_s=_clocks(7.5, _CK_LPDDR3), wtr_l=_clocks(7.5, _CK_LPDDR3),
        rtw=_clocks(2.5, _CK_LPDDR3) + 2, wr=_clocks(15, _CK_LPDDR3), rtp=_clocks(7.5, _CK_LPDDR3),
        cs=_clocks(2.5, _CK_LPDDR3), rfc_all=168, rfc_bank=72, refi=3120, pbr2pbr=72),
    mapping=AddressMapping(fields=(("column", 3), ("channel", 2), ("column", 4), ("bank", 3),
                                   ("row", 15))),
    sources={
        "channels": "Lumina and its group: four channels of Micron 16 Gb LPDDR3-1600; x32 makes "
                    "25.6 GB/s",
        "ranks bank_groups banks width_bits burst_length columns clock_ns bl cl cwl rcd ras rp "
        "rp_all rrd_s rrd_l faw wr rtp wtr_s wtr_l cs": _GEM5_LPDDR3,
        "rows rfc_all rfc_bank refi ccd_s ccd_l":
            _DRAMSIM_LPDDR3 + ": the 8 Gb die, two of which make Micron's 16 Gb; gem5's tRFC of "
            "130 ns is the 4 Gb die's",
        "dqsck": "DRAMPower memspecs/MICRON_4Gb_LPDDR3-1600_32bit_A.json (read at 25b3a5d)",
        "rc": "ras + rp",
        "rtw": _GEM5_LPDDR3 + ": 2.5 ns, and dqsck",
        "pbr2pbr": "not found for LPDDR3: one bank at a time, rfc_bank",
        "ppd act_clocks column_clocks pre_clocks ref_clocks":
            "commands are double-data-rate on ten pins, one clock each (JESD209-3)",
        "mapping": "chosen: a 256-byte burst stays in one row of one channel",
    },
)

#: The 51.2 GB/s of LPDDR4 that GSCore, Neo and FLICKER state: eight channels x16 at 3200 MT/s.
LPDDR4_3200 = Dram(
    name="lpddr4-3200", standard="lpddr4",
    organization=Organization(channels=8, banks=8, rows=1 << 16, columns=1 << 10, width_bits=16,
                              burst_length=16),
    timing=DramTiming(
        clock_ns=Fraction(5, 8), bl=8, cl=28, cwl=14, dqsck=6, rcd=29, ras=68, rc=97, rp=29,
        rp_all=34, ppd=4, rrd_s=16, rrd_l=16, faw=64, ccd_s=8, ccd_l=8, wtr_s=17, wtr_l=17, rtw=8,
        wr=30, rtp=12, cs=1, rfc_all=448, rfc_bank=224, refi=6246, pbr2pbr=224,
        act_clocks=4, column_clocks=4, pre_clocks=2, ref_clocks=2),
    mapping=AddressMapping(fields=(("column", 3), ("channel", 3), ("column", 3), ("bank", 3),
                                   ("row", 16))),
    sources={
        "channels": "51.2 GB/s, stated by GSCore, Neo and FLICKER, over 6.4 GB/s of a channel",
        "ranks bank_groups banks rows columns width_bits burst_length clock_ns bl cl cwl dqsck rcd "
        "ras rc rp rp_all ppd rrd_s rrd_l faw ccd_s ccd_l rtp cs rfc_all rfc_bank refi":
            _DRAMSYS_LPDDR4,
        "wtr_s wtr_l wr": _DRAMSYS_LPDDR4 + ": tWTR 16 and tWR 29, and tDQSS 1",
        "rtw": _DRAMSYS_LPDDR4 + ": dqsck 6 and the write preamble 2",
        "pbr2pbr": "one bank at a time, rfc_bank (JESD209-4)",
        "act_clocks column_clocks pre_clocks ref_clocks":
            "ACT-1 and ACT-2, RD-1 and CAS-2 are two clocks each, PRE and REF two (JESD209-4)",
        "mapping": "chosen: a 256-byte burst stays in one row of one channel",
    },
)

#: Four channels x16 of LPDDR5-6400 in bank-group mode, 51.2 GB/s as the LPDDR4 above.
LPDDR5_6400 = Dram(
    name="lpddr5-6400", standard="lpddr5",
    organization=Organization(channels=4, bank_groups=4, banks=4, rows=1 << 15, columns=1 << 10,
                              width_bits=16, burst_length=16),
    timing=DramTiming(
        clock_ns=Fraction(5, 4), bl=2, cl=17, cwl=9, rcd=15, ras=34, rc=49, rp=15, rp_all=17,
        ppd=2, rrd_s=4, rrd_l=4, faw=16, ccd_s=2, ccd_l=4, wtr_s=5, wtr_l=10, rtw=2, wr=28, rtp=8,
        cs=2, rfc_all=168, rfc_bank=96, refi=3125, pbr2pbr=72, act_clocks=2),
    mapping=AddressMapping(fields=(("bank_group", 1), ("column", 2), ("channel", 2), ("column", 4),
                                   ("bank_group", 1), ("bank", 2), ("row", 15))),
    sources={
        "channels": "chosen: the bandwidth of the LPDDR4 memory; 12.8 GB/s of a channel",
        "ranks bank_groups banks rows columns width_bits burst_length clock_ns bl cl cwl dqsck rcd "
        "ras rc rp rp_all ppd rrd_s rrd_l faw ccd_s ccd_l wtr_s wtr_l rtw wr rtp cs rfc_all "
        "rfc_bank refi": _RAMULATOR_LPDDR5 + ", 8 Gb; without the command that syncs WCK",
        "pbr2pbr": "Ramulator 2.0 src/dram/impl/LPDDR5.cpp: 90 ns for 8 Gb (read at 0b89cad)",
        "act_clocks": _RAMULATOR_LPDDR5 + ": ACT1 and ACT2, here always one behind the other",
        "column_clocks pre_clocks ref_clocks": _RAMULATOR_LPDDR5 + ": one clock each",
        "mapping": "chosen: neighbouring accesses alternate between two bank groups, since within "
                   "one group only every second data slot can be used",
    },
)

#: Memories by name.
PRESETS = {dram.name: dram for dram in (LPDDR3_1600, LPDDR4_3200, LPDDR5_6400)}
