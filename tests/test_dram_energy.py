"""Energy of a DRAM from datasheet currents: recomputed by hand, in parts, beside cited figures."""

from dataclasses import replace

import numpy as np
import pytest

from splatforge.algos import raster
from splatforge.designs.dram import PRESETS
from splatforge.designs.memory import BankedMemory
from splatforge.designs.raster import PRESETS as RASTERS
from splatforge.scenes import default_camera, resolve
from splatforge.sim.costs import default_costs
from splatforge.sim.dram import replay
from splatforge.sim.dram_energy import (
    PARTS,
    dram_costs,
    dram_events,
    dram_power,
    dram_record,
)
from splatforge.sim.energy import NOT_MODELLED, energy_of_units
from splatforge.sim.parts import raster_events
from splatforge.sim.raster import simulate

NAMES = list(PRESETS)


def test_lpddr3_by_hand():
    """gem5's currents of Micron EDF8132A1MC in the equations of Micron's power calculators."""
    costs = dram_costs(PRESETS["lpddr3-1600"])
    ck = 1.25
    # mA V ns is pJ; VDD1 1.8 V and VDD2 1.2 V.
    assert costs["dram_activate"].value == pytest.approx(
        1.8 * (8 * 49 - 2 * 34 - 0.8 * 15) * ck + 1.2 * (60 * 49 - 34 * 34 - 26 * 15) * ck)
    assert costs["dram_read"].value == pytest.approx(1.2 * (230 - 34) * 4 * ck)
    assert costs["dram_write"].value == pytest.approx(1.2 * (190 - 34) * 4 * ck)
    assert costs["dram_refresh"].value == pytest.approx(
        (1.8 * (28 - 0.8) + 1.2 * (150 - 26)) * 168 * ck)
    assert costs["dram_bank_refresh"].value == pytest.approx(costs["dram_refresh"].value / 8)
    assert costs["dram_open_clock"].value == pytest.approx((1.8 * 2 + 1.2 * 34) * ck)
    assert costs["dram_closed_clock"].value == pytest.approx((1.8 * 0.8 + 1.2 * 26) * ck)
    # 256 bits, a rise every fourth, 5 pF at 1.2 V.
    assert costs["dram_io_read"].value == pytest.approx(256 / 4 * 5 * 1.2**2)
    assert costs["dram_read"].high == pytest.approx(1.5 * costs["dram_read"].value)
    assert costs["dram_io_read"].high == pytest.approx(2 * costs["dram_io_read"].value)


def test_lpddr4_by_hand():
    costs = dram_costs(PRESETS["lpddr4-3200"])
    ck = 0.625
    assert costs["dram_read"].value == pytest.approx(1.1 * (275 - 30) * 8 * ck)
    assert costs["dram_io_read"].value == pytest.approx(1.1 * (150 - 0.75) * 8 * ck)
    assert costs["dram_io_write"].value == pytest.approx(1.1 * (55 - 0.75) * 8 * ck)
    assert costs["dram_open_clock"].value == pytest.approx(
        (1.8 * 2.25 + 1.1 * 30 + 1.1 * 0.75) * ck)
    assert costs["dram_closed_clock"].value == pytest.approx(
        (1.8 * 2 + 1.1 * 27 + 1.1 * 0.75) * ck)
    assert costs["dram_write"].value == pytest.approx(1.1 * (210 - 30) * 8 * ck)
    assert costs["dram_activate"].value == pytest.approx(
        (1.8 * (3.5 * 97 - 2.25 * 68 - 2 * 29) + 1.1 * (45 * 97 - 30 * 68 - 27 * 29)) * ck)
    assert costs["dram_refresh"].value == pytest.approx(
        (1.8 * (10 - 2) + 1.1 * (90 - 27)) * 448 * ck)
    assert costs["dram_read"].low == pytest.approx(costs["dram_read"].value / 2)


def test_lpddr5_by_hand():
    """Table 18 of Micron's Y52P at 7500 Mb/s; bursts carry the same charge a bit at 6400."""
    costs = dram_costs(PRESETS["lpddr5-6400"])
    clocks, ck, slower = 2, 1.25, 6400 / 7500
    assert costs["dram_read"].value == pytest.approx(
        (1.8 * (18.0 - 2.8) + 1.05 * (390 - 40)) * slower * clocks * ck, rel=1e-3)
    assert costs["dram_write"].value == pytest.approx(
        (1.8 * (16.5 - 2.8) + 1.05 * (265 - 40)) * slower * clocks * ck, rel=1e-3)
    assert costs["dram_io_read"].value == pytest.approx(0.5 * (111.9 - 0.6) * clocks * ck)
    assert costs["dram_io_write"].value == 0
    assert costs["dram_activate"].value == pytest.approx(
        (1.8 * (3.8 * 49 - 2.8 * 34 - 1.5 * 15) + 1.05 * (53 * 49 - 40 * 34 - 32.5 * 15)) * ck)
    assert costs["dram_refresh"].value == pytest.approx(
        (1.8 * (10 - 1.5) + 1.05 * (205 - 32.5)) * 168 * ck)
    assert costs["dram_open_clock"].value == pytest.approx((1.8 * 2.8 + 1.05 * 40 + 0.3) * ck)
    assert costs["dram_closed_clock"].value == pytest.approx((1.8 * 1.5 + 1.05 * 32.5 + 0.3) * ck)


def test_spreads_are_what_their_sources_print():
    """LPDDR5: VDD2H of an 8 Gb part, whose bursts, rows and refresh bound those of the table."""
    ours = {name: row[1].value for name, row in dram_power("lpddr5").currents.items()}
    other = {"idd0": 45, "idd2n": 30, "idd3n": 39, "idd4r": 372, "idd4w": 310, "idd5": 170}

    def parts(idd):
        return np.array([idd["idd0"] * 49 - idd["idd3n"] * 34 - idd["idd2n"] * 15,
                         idd["idd5"] - idd["idd2n"], idd["idd4r"] - idd["idd3n"],
                         idd["idd4w"] - idd["idd3n"], idd["idd3n"], idd["idd2n"]])

    ratios = parts(other) / parts(ours)
    five = dram_power("lpddr5").spread
    assert (ratios.min(), ratios.max()) == pytest.approx((five.low, five.high), rel=5e-3)
    # LPDDR3: IDD4W less IDD3N in DRAMPower's file over gem5's; Chandrasekar's 28 %.
    three = dram_power("lpddr3").spread
    assert (three.low, three.high) == pytest.approx((1 - 0.28, (284 - 45) / (190 - 34)), rel=0.03)
    four = dram_power("lpddr4").spread
    assert (four.low, four.high) == (0.5, 1.0)


def test_unknown_standard():
    with pytest.raises(ValueError, match=r"^DRAM currents must be of lpddr3, .*, not 'ddr9'$"):
        dram_power("ddr9")


@pytest.mark.parametrize("name", NAMES)
def test_every_cost_has_a_source_and_every_event_a_part(name):
    dram = PRESETS[name]
    costs = dram_costs(dram)
    counts = replay(dram, np.arange(100) * 32).counts
    assert set(costs) == set(dram_events(counts)) == {
        event for events in PARTS.values() for event in events}
    for cost in costs.values():
        assert cost.unit == "pJ"
        assert 0 <= cost.low <= cost.value <= cost.high
        assert len(cost.source) > 40


def test_a_step_of_per_bank_refresh_is_an_eighth_of_all_banks():
    """Also where a step takes two of sixteen banks: LPDDR5 in bank-group mode."""
    assert PRESETS["lpddr5-6400"].organization.banks_per_rank == 16
    for name in NAMES:
        costs = dram_costs(PRESETS[name])
        assert costs["dram_bank_refresh"].value == pytest.approx(costs["dram_refresh"].value / 8)


@pytest.mark.parametrize("name", NAMES)
def test_streams_and_random_reads_stand_beside_the_cited_figure(name):
    """Both bands meet for a stream; random accesses cost more, most of it for rows."""
    dram = PRESETS[name]
    memory = BankedMemory(dram=dram, clock_hz=1e9)
    stream = dram_record(memory, replay(dram, np.arange(40_000) * 32, per_clock=4).counts)
    rng = np.random.default_rng(1)
    far = rng.integers(0, dram.organization.size_bytes // 32, 40_000) * 32
    random = dram_record(memory, replay(dram, far, per_clock=4).counts)
    low, high = stream["energy_band_j"]
    cited_low, cited_high = stream["cited_energy_band_j"]
    assert low < cited_high
    assert cited_low < high
    for joules, pj in ((stream["cited_energy_j"], stream["cited_pj_per_bit"]), *zip(
            stream["cited_energy_band_j"], stream["cited_band_pj_per_bit"], strict=True)):
        assert joules == pytest.approx(40_000 * 32 * 8 * pj * 1e-12)
    assert stream["energy_pj_per_bit"] * 1.5 < random["energy_pj_per_bit"]
    assert random["energy_parts_j"]["activate"] > 20 * stream["energy_parts_j"]["activate"]
    for record in (stream, random):
        assert sum(record["energy_parts_j"].values()) == pytest.approx(record["energy_j"])
        assert record["energy_j"] == pytest.approx(
            1e-12 * record["energy_pj_per_bit"] * 8 * record["bytes_moved"])


def test_dramsim3_streams_lpddr4_alike():
    """DRAMsim3's LPDDR4-2400 streams at 9.7 pJ/bit, run elsewhere; the interval in costs.toml."""
    dram = PRESETS["lpddr4-3200"]
    run = replay(dram, np.arange(40_000) * 32, per_clock=4).counts
    record = dram_record(BankedMemory(dram=dram, clock_hz=1e9), run)
    assert "9.7 pJ/bit" in default_costs().entry("energy.lpddr4").interval
    assert record["energy_pj_per_bit"] == pytest.approx(9.7, rel=0.1)


def test_an_idle_memory_pays_standby_and_refresh_alone():
    dram = PRESETS["lpddr3-1600"]
    counts = replay(dram, np.zeros(1, np.int64)).counts
    idle = replace(counts, clocks=10_000, reads=0, activates=0, open_clocks=0,
                   closed_clocks=40_000, refreshes=12, row_misses=0)
    record = dram_record(BankedMemory(dram=dram, clock_hz=1e9), idle)
    costs = dram_costs(dram)
    assert record["energy_j"] == pytest.approx(
        1e-12 * (40_000 * costs["dram_closed_clock"].value + 12 * costs["dram_refresh"].value))
    assert record["energy_pj_per_bit"] is None
    assert record["row_hit_rate"] == 0


def test_the_total_of_a_frame_holds_the_dram_by_its_commands():
    """Counts times costs once more by hand; the pJ/bit constant has no part in it."""
    scene, design = resolve("default"), RASTERS["64-lane"]
    camera = default_camera(scene, 64, 48)
    workload = raster.render(raster.prepare(scene, camera, design), design).workload
    memory = BankedMemory(dram=PRESETS["lpddr4-3200"], clock_hz=1e9)
    run = simulate(workload, design, memory)
    costs = dram_costs(memory.dram)
    events = raster_events(
        workload, design, run, clock_hz=memory.clock_hz, table=default_costs())
    assert "dram_read_byte" not in events["memory"]
    report = energy_of_units(events, node_nm=28, dram=memory.dram.name, costs=costs)
    counts = run.dram
    by_hand_pj = (
        counts.activates * costs["dram_activate"].value
        + counts.reads * (costs["dram_read"].value + costs["dram_io_read"].value)
        + counts.writes * (costs["dram_write"].value + costs["dram_io_write"].value)
        + counts.refreshes * costs["dram_refresh"].value
        + counts.open_clocks * costs["dram_open_clock"].value
        + counts.closed_clocks * costs["dram_closed_clock"].value)
    value, low, high = report.components["dram"]
    assert value == pytest.approx(1e-12 * by_hand_pj)
    assert low < value <= high
    assert value == pytest.approx(dram_record(memory, counts)["energy_j"])
    assert "power-down" in report.not_modelled[-1]
    assert NOT_MODELLED[-1] not in report.not_modelled
