"""The memory behind an accelerator's AXI4 port: a fixed latency, or banks of DRAM."""

from dataclasses import dataclass
from fractions import Fraction

from splatforge.designs.dram import Dram

__all__ = ["BankedMemory", "Memory", "MemoryTiming"]


@dataclass(frozen=True, kw_only=True)
class MemoryTiming:
    """A memory of fixed latency behind the AXI4 port.

    Parameters
    ----------
    latency_cycles : int
        From the accepted read address to the first beat that may be taken, and from the last
        accepted write beat to its response, with nothing else in flight.
    read_beats_per_cycle, write_beats_per_cycle : Fraction
        Sustained rates, above 0 and at most 1. Reads and writes do not disturb each other.
    outstanding : int
        Read bursts, and as many write bursts, that the memory holds at a time.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    latency_cycles: int = 100
    read_beats_per_cycle: Fraction = Fraction(1)
    write_beats_per_cycle: Fraction = Fraction(1)
    outstanding: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.latency_cycles <= 10_000:
            raise ValueError(f"Latency must be 1 to 10000 cycles, not {self.latency_cycles!r}")
        for rate in (self.read_beats_per_cycle, self.write_beats_per_cycle):
            if not (isinstance(rate, Fraction) and 0 < rate <= 1 and rate.denominator <= 1024):
                raise ValueError(
                    "Beats per cycle must be a fraction above 0, at most 1, with a denominator of "
                    f"at most 1024, not {rate!r}"
                )
        if not 1 <= self.outstanding <= 1024:
            raise ValueError(f"Outstanding bursts must be 1 to 1024, not {self.outstanding!r}")


@dataclass(frozen=True, kw_only=True)
class BankedMemory:
    """DRAM with banks behind the AXI4 port.

    Parameters
    ----------
    dram : Dram
        The memory; :data:`splatforge.designs.dram.PRESETS` holds some.
    clock_hz : float
        The accelerator's clock, against which the DRAM's runs.

    Raises
    ------
    ValueError
        If the clock is not 1 MHz to 10 GHz.
    """

    dram: Dram
    clock_hz: float

    def __post_init__(self) -> None:
        if not 1e6 <= self.clock_hz <= 1e10:
            raise ValueError(f"Clock must be 1 MHz to 10 GHz, not {self.clock_hz!r} Hz")


#: Either memory.
Memory = MemoryTiming | BankedMemory
