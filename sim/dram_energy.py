"""Energy of a DRAM from datasheet currents, as Micron's power calculators and DRAMsim3 do it.

Every command costs what it draws above the standby current of its time; standby is paid in every
clock, more while a row is open. With supply V and currents of one device, summed over the rails:

=================================  ===========================================================
ACT                                V (IDD0 tRC - IDD3N tRAS - IDD2N (tRC - tRAS))
RD, WR                             V (IDD4R - IDD3N) tBL, V (IDD4W - IDD3N) tBL
REFab                              V (IDD5 - IDD2N) tRFC; REFpb an eighth, the rows being as many
a clock with a row open, closed    V IDD3N tCK, V IDD2N tCK
I/O                                VDDQ's part of RD and WR, or half a toggle's C V^2 a bit
=================================  ===========================================================

Left out: power-down (a controller with time to spare would save most of the standby), the
controller and its PHY, termination on the controller's side.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from splatforge.designs.dram import Dram
from splatforge.designs.memory import BankedMemory
from splatforge.sim.costs import Sourced, default_costs
from splatforge.sim.dram import REFRESH_STEPS, DramCounts

__all__ = ["PARTS", "DramPower", "dram_costs", "dram_events", "dram_power", "dram_record"]

#: Events of a part of the energy.
PARTS: Mapping[str, tuple[str, ...]] = {
    "background": ("dram_open_clock", "dram_closed_clock"),
    "activate": ("dram_activate",),
    "read": ("dram_read",),
    "write": ("dram_write",),
    "refresh": ("dram_refresh", "dram_bank_refresh"),
    "io": ("dram_io_read", "dram_io_write"),
}
CURRENTS = ("idd0", "idd2n", "idd3n", "idd4r", "idd4w", "idd5")
RAILS = ("VDD1", "VDD2", "VDDQ")


@dataclass(frozen=True, kw_only=True)
class DramPower:
    """What a device draws.

    Parameters
    ----------
    volts : tuple of Sourced
        Supplies VDD1, VDD2, VDDQ.
    currents : Mapping
        Name, such as ``idd4r`` -> currents from the three supplies.
    spread : Sourced
        Factor between what the currents give and what a device may need.
    io_capacitance : Sourced or None
        Load of a data pin, where the currents leave the pins out.
    cited : str
        Entry ``energy.<cited>`` of :mod:`splatforge.sim.costs` to stand beside the result.
    """

    volts: tuple[Sourced, ...]
    currents: Mapping[str, tuple[Sourced, ...]]
    spread: Sourced
    io_capacitance: Sourced | None
    cited: str


@cache
def dram_power(standard: str) -> DramPower:
    """The committed currents of a standard, ``lpddr3``, ``lpddr4`` or ``lpddr5``.

    Raises
    ------
    ValueError
        If there are none.
    """
    tree = tomllib.loads(files("splatforge.sim").joinpath("dram.toml").read_text())
    if standard not in tree:
        raise ValueError(f"DRAM currents must be of {', '.join(tree)}, not {standard!r}")
    table = tree[standard]
    source = table["source"]
    low, high = table["spread"]
    capacitance = table.get("io_capacitance_pf")
    return DramPower(
        volts=tuple(Sourced.exact(volts, "V", source) for volts in table["volts"]),
        currents={name: tuple(Sourced.exact(each, "mA", source)
                              for each in table["currents_ma"][name]) for name in CURRENTS},
        spread=Sourced(1.0, "1", table["spread_source"], low, high),
        # A farad is an ampere-second to the volt.
        io_capacitance=None if capacitance is None else Sourced(
            capacitance[0], "pA*s/V", table["io_source"], capacitance[1], capacitance[2]),
        cited=table["cited"])


def dram_costs(dram: Dram) -> dict[str, Sourced]:
    """Energy in pJ of every event of :func:`dram_events`.

    The band is the table's spread: the currents' errors point the same way.
    """
    power, t = dram_power(dram.standard), dram.timing
    clock_ns = float(t.clock_ns)
    volts = [each.value for each in power.volts]
    amps = {name: [each.to("A").value for each in row] for name, row in power.currents.items()}

    def cost(rails: range, charge: Mapping[str, float]) -> Sourced:
        """From clocks at each current, over some of the supplies."""
        energy_pj = 1e3 * clock_ns * sum(
            volts[rail] * sum(clocks * amps[name][rail] for name, clocks in charge.items())
            for rail in rails)
        source = power.volts[0].source
        value = Sourced.exact(energy_pj, "pJ", source) * power.spread
        return replace(value.to("pJ"), source=f"{source}; {power.spread.source}")

    core, pins, every = range(2), range(2, 3), range(3)
    refresh = cost(core, {"idd5": t.rfc_all, "idd2n": -t.rfc_all})
    costs = {
        "dram_open_clock": cost(every, {"idd3n": 1}),
        "dram_closed_clock": cost(every, {"idd2n": 1}),
        "dram_activate": cost(
            core, {"idd0": t.rc, "idd3n": -t.ras, "idd2n": -(t.rc - t.ras)}),
        "dram_read": cost(core, {"idd4r": t.bl, "idd3n": -t.bl}),
        "dram_write": cost(core, {"idd4w": t.bl, "idd3n": -t.bl}),
        "dram_refresh": refresh,
        "dram_bank_refresh": refresh * (
            1 / min(REFRESH_STEPS, dram.organization.banks_per_rank)),
    }
    if power.io_capacitance is None:
        return costs | {"dram_io_read": cost(pins, {"idd4r": t.bl, "idd3n": -t.bl}),
                        "dram_io_write": cost(pins, {"idd4w": t.bl, "idd3n": -t.bl})}
    # Every other bit differs from the one before; every other change is a rise, which draws C V^2.
    bits = 8 * dram.organization.access_bytes
    pin = (power.io_capacitance * power.volts[2] * power.volts[2]).to("pJ") * (bits / 4)
    return costs | {"dram_io_read": pin, "dram_io_write": pin}


def dram_events(counts: DramCounts) -> dict[str, float]:
    """How often each event happened."""
    return {
        "dram_open_clock": counts.open_clocks, "dram_closed_clock": counts.closed_clocks,
        "dram_activate": counts.activates, "dram_read": counts.reads, "dram_write": counts.writes,
        "dram_refresh": counts.refreshes, "dram_bank_refresh": counts.bank_refreshes,
        "dram_io_read": counts.reads, "dram_io_write": counts.writes,
    }


def dram_record(memory: BankedMemory, counts: DramCounts) -> dict[str, object]:
    """What a memory did, for ``--json``; keys carry their units."""
    dram = memory.dram
    costs, events = dram_costs(dram), dram_events(counts)
    energies = {name: (costs[name] * count).to("J") for name, count in events.items()}
    parts = {part: [sum(getattr(energies[name], end) for name in names)
                    for end in ("value", "low", "high")] for part, names in PARTS.items()}
    totals = [sum(part[end] for part in parts.values()) for end in range(3)]
    bits = 8 * counts.bytes_moved
    cited = default_costs().entry(f"energy.{dram_power(dram.standard).cited}").cost.to("pJ/bit")
    return {
        "name": dram.name, "clock_hz": float(dram.clock_hz), "channels": dram.organization.channels,
        "accelerator_clock_hz": memory.clock_hz,
        "clocks": counts.clocks, "reads": counts.reads, "writes": counts.writes,
        "activates": counts.activates, "precharges": counts.precharges,
        "refreshes": counts.refreshes, "bank_refreshes": counts.bank_refreshes,
        "row_hits": counts.row_hits, "row_misses": counts.row_misses,
        "row_conflicts": counts.row_conflicts, "row_hit_rate": counts.row_hit_rate,
        "bytes_moved": counts.bytes_moved, "bytes_per_s": counts.bytes_per_s(dram),
        "peak_bytes_per_s": dram.peak_bytes_per_s,
        "share_of_peak": counts.bytes_per_s(dram) / dram.peak_bytes_per_s,
        "energy_j": totals[0], "energy_band_j": totals[1:],
        "energy_parts_j": {name: part[0] for name, part in parts.items()},
        "energy_pj_per_bit": 1e12 * totals[0] / bits if bits else None,
        "cited_pj_per_bit": cited.value, "cited_band_pj_per_bit": [cited.low, cited.high],
        "cited_energy_j": 1e-12 * cited.value * bits,
        "cited_energy_band_j": [1e-12 * cited.low * bits, 1e-12 * cited.high * bits],
        "cited_source": cited.source, "energy_source": costs["dram_read"].source,
    }
