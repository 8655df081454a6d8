import math
import re
from fractions import Fraction

import pytest

from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.array import ArrayDesign
from splatforge.designs.blend import BlendDesign
from splatforge.designs.feature import FEATURE_BYTES, FeatureFormat
from splatforge.designs.fetch import SUBTILE_PX, SUBTILES, TILE_PX, FetchDesign, SplatFormat
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import Floating
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.raster import COUNTERS, DESCRIPTOR_FIELDS, PRESETS, RasterDesign
from splatforge.designs.resolve import PixelFormat, ResolveDesign
from splatforge.designs.shell import (
    CONTROL_ABORT,
    CONTROL_RESET,
    CONTROL_SNAPSHOT,
    CONTROL_START,
    COUNTER_BASE,
    DESCRIPTOR_BYTES,
    HEAD_REGISTERS,
    IDENTITY,
    FrameError,
    ShellDesign,
    counter_registers,
)


def uq(int_bits, frac_bits):
    return Fixed(int_bits=int_bits, frac_bits=frac_bits)


def sq(int_bits, frac_bits):
    return Fixed(int_bits=int_bits, frac_bits=frac_bits, signed=True)


WRONG = [
    (AlphaDesign, {"table_entries": 48},
     "Table entries must be a power of two from 2 to 512, not 48"),
    (AlphaDesign, {"table_entries": 1},
     "Table entries must be a power of two from 2 to 512, not 1"),
    (AlphaDesign, {"table_entries": 1024},
     "Table entries must be a power of two from 2 to 512, not 1024"),
    (AlphaDesign, {"form": uq(3, 10)}, "Form must be signed and reach beyond 2.83, not UQ(3,10)"),
    (AlphaDesign, {"form": sq(2, 10)}, "Form must be signed and reach beyond 2.83, not SQ(2,10)"),
    (AlphaDesign, {"form_sum": sq(8, 9)},
     "Form sum must be at least as fine as the form, not SQ(8,9)"),
    (AlphaDesign, {"log_opacity": uq(3, 11)},
     "Exponent must be at least as fine as the log opacity, not UQ(6,10)"),
    (AlphaDesign, {"form": sq(3, 4)}, "Squared form must be as fine as the exponent, not SQ(3,4)"),
    (AlphaDesign, {"exponent": uq(5, 10)}, "Exponent must hold 40, not UQ(5,10)"),
    (AlphaDesign, {"alpha": uq(1, 14)},
     "Alpha must be below one and the table must hold one, not UQ(1,14) and UQ(1,16)"),
    (AlphaDesign, {"table": uq(0, 16)},
     "Alpha must be below one and the table must hold one, not UQ(0,14) and UQ(0,16)"),
    (AlphaDesign, {"alpha": uq(0, 17)}, "Alpha must not be finer than the table, not UQ(0,17)"),
    (ArrayDesign, {"lanes": 48}, "Lanes must be 16, 32, 64, 128 or 256, not 48"),
    (BlendDesign, {"transmittance": uq(1, 15)},
     "Transmittance must be UQ(1,16) or finer, not UQ(1,15)"),
    (BlendDesign, {"transmittance": uq(2, 17)},
     "Transmittance must be UQ(1,16) or finer, not UQ(2,17)"),
    (BlendDesign, {"accumulator": uq(2, 18)}, "Accumulator must hold 4.25, not UQ(2,18)"),
    (BlendDesign, {"accumulator": uq(14, 18)},
     "Transmittance and accumulator must fit 31 bits, not UQ(1,17) and UQ(14,18)"),
    (BlendDesign, {"accumulator": uq(3, 26)},
     "Accumulator must not be finer than weight times colour, not UQ(3,26)"),
    (SplatFormat, {"u0": sq(7, 17)}, "Splat must fit 128 bits, not 134"),
    (FeatureFormat, {"mean": uq(15, 12)}, "Mean of a feature must be signed, not UQ(15,12)"),
    (FeatureFormat, {"mean": sq(31, 31), "slope": Floating(fraction_bits=23)},
     "Feature must fit 256 bits, not 260"),
    (FetchDesign, {"burst_beats": 32}, "Burst must be 4, 8 or 16 beats, not 32"),
    (FetchDesign, {"buffer_splats": 192},
     "Splat buffer must be a power of two from 32 to 4096, not 192"),
    (FetchDesign, {"buffer_splats": 16},
     "Splat buffer must be a power of two from 32 to 4096, not 16"),
    (FetchDesign, {"buffer_splats": 8192},
     "Splat buffer must be a power of two from 32 to 4096, not 8192"),
    (FetchDesign, {"outstanding_bursts": 0}, "Outstanding bursts must be 1 to 256, not 0"),
    (FetchDesign, {"outstanding_bursts": 257}, "Outstanding bursts must be 1 to 256, not 257"),
    (MemoryTiming, {"latency_cycles": 0}, "Latency must be 1 to 10000 cycles, not 0"),
    (MemoryTiming, {"latency_cycles": 10_001}, "Latency must be 1 to 10000 cycles, not 10001"),
    *((MemoryTiming, {f"{way}_beats_per_cycle": rate},
       ("Beats per cycle must be a fraction above 0, at most 1, with a denominator of at most "
        f"1024, not {rate!r}"))
      for way in ("read", "write")
      for rate in (Fraction(0), Fraction(3, 2), Fraction(1, 1025), 0.5)),
    (MemoryTiming, {"outstanding": 0}, "Outstanding bursts must be 1 to 1024, not 0"),
    (MemoryTiming, {"outstanding": 1025}, "Outstanding bursts must be 1 to 1024, not 1025"),
    (ResolveDesign, {"background": uq(2, 8)},
     "Background must be UQ(1,0) to UQ(1,15), not UQ(2,8)"),
    (ResolveDesign, {"background": sq(1, 8)},
     "Background must be UQ(1,0) to UQ(1,15), not SQ(1,8)"),
    (ResolveDesign, {"background": uq(1, 16)},
     "Background must be UQ(1,0) to UQ(1,15), not UQ(1,16)"),
    (ResolveDesign, {"outstanding_bursts": 0}, "Outstanding bursts must be 1 to 256, not 0"),
    (ShellDesign, {"data_bits": 64}, "Data bus must be 128 bits, one splat a beat, not 64"),
    (ShellDesign, {"address_bits": 31}, "Addresses must be 32 to 64 bits, not 31"),
    (ShellDesign, {"register_address_bits": 9}, "Register addresses must be 10 to 32 bits, not 9"),
    (ShellDesign, {"counter_bits": 32}, "Counters must be 33 to 64 bits, not 32"),
    (ShellDesign, {"max_side": 15}, "Largest side must be 16 to 65520 pixels, not 15"),
    (ShellDesign, {"max_side": 65521}, "Largest side must be 16 to 65520 pixels, not 65521"),
    (RasterDesign, {"array": ArrayDesign(alpha=AlphaDesign(log_opacity=uq(3, 8)))},
     "Splat records must hold opacity and colour in the array's formats"),
    (RasterDesign, {"array": ArrayDesign(blend=BlendDesign(color=uq(2, 7)))},
     "Splat records must hold opacity and colour in the array's formats"),
    (RasterDesign, {"array": ArrayDesign(alpha=AlphaDesign(form_sum=sq(8, 10)))},
     "Form sum must be at least as fine as the splat's u0"),
    (RasterDesign, {"array": ArrayDesign(alpha=AlphaDesign(form_sum=sq(7, 12)))},
     "Form sum must be signed and hold 124, not SQ(7,12)"),
    (RasterDesign, {"array": ArrayDesign(alpha=AlphaDesign(form_sum=uq(8, 12)))},
     "Form sum must be signed and hold 124, not UQ(8,12)"),
    (RasterDesign, {"resolve": ResolveDesign(background=uq(1, 0))},
     "Transmittance times background must be as fine as the accumulator, not UQ(1,0)"),
]


@pytest.mark.parametrize(("design", "values", "message"), WRONG,
                         ids=[f"{w[0].__name__}-{n}" for n, w in enumerate(WRONG)])
def test_wrong_parameters_are_named(design, values, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        design(**values)


@pytest.mark.parametrize("values", [
    {"latency_cycles": 1, "outstanding": 1}, {"latency_cycles": 10_000, "outstanding": 1024},
    {"read_beats_per_cycle": Fraction(1, 1024), "write_beats_per_cycle": Fraction(1023, 1024)},
])
def test_limits_are_inside(values):
    assert MemoryTiming(**values).outstanding >= 1
    FetchDesign(buffer_splats=32, outstanding_bursts=1)
    FetchDesign(buffer_splats=4096, outstanding_bursts=256)
    ShellDesign(max_side=65520, address_bits=64, counter_bits=64, register_address_bits=32)


def test_alpha_properties():
    design = AlphaDesign()
    step = design.exponent.resolution
    assert 2.0 ** -(design.cutoff * step) >= 1 / 255 > 2.0 ** -((design.cutoff + 1) * step)
    cap = design.alpha.to_float(design.alpha_cap)
    assert cap <= 0.99 < cap + design.alpha.resolution
    assert (design.index_bits, design.slope_bits, design.octaves) == (6, 4, 8)
    assert design.index_bits + design.slope_bits == design.exponent.frac_bits
    for entries in (2, 16, 512):
        other = AlphaDesign(table_entries=entries)
        # The steepest step of the table, as it is stored, fits the bits that the ROM gives it.
        steps = other.table.quantize([2 ** (-k / entries) for k in range(entries + 1)])
        assert max(steps[:-1] - steps[1:]) < 1 << other.delta_width


def test_blend_properties():
    design = BlendDesign()
    assert design.transmittance.to_float(design.one) == 1.0
    assert design.stop * design.transmittance.resolution >= 1e-4
    assert (design.stop - 1) * design.transmittance.resolution < 1e-4
    assert BlendDesign(transmittance=uq(1, 20)).stop == math.ceil(1e-4 * 2**20)


@pytest.mark.parametrize(("lanes", "width", "height"),
                         [(16, 4, 4), (32, 8, 4), (64, 8, 8), (128, 16, 8), (256, 16, 16)])
def test_blocks_cover_the_tile_once(lanes, width, height):
    design = ArrayDesign(lanes=lanes)
    assert (design.block_width, design.block_height) == (width, height)
    assert design.blocks * design.lanes == TILE_PX**2
    masks = design.block_subtiles()
    assert len(masks) == design.blocks
    assert sum(masks) == (1 << SUBTILES) - 1
    # Each pixel's subtile belongs to the pixel's block.
    for y in range(TILE_PX):
        for x in range(TILE_PX):
            block = y // height * design.blocks_x + x // width
            subtile = y // SUBTILE_PX * (TILE_PX // SUBTILE_PX) + x // SUBTILE_PX
            assert masks[block] >> subtile & 1


def test_record_fills_its_bits_in_order():
    splat = SplatFormat()
    assert [name for name, _, _ in splat.fields()] == [
        "u0", "v0", "a", "b", "c", "log_opacity", "red", "green", "blue", "subtiles"]
    assert splat.width == 128
    for name, width, signed in splat.fields()[:5]:
        field = getattr(splat, name)
        assert (width, signed) == (field.width, field.signed)
    # A format of the other sign must be read as such.
    other = SplatFormat(a=sq(1, 11), b=uq(2, 11))
    assert [signed for _, _, signed in other.fields()[2:4]] == [True, False]


def test_splat_ranges_hold_what_a_visible_splat_needs():
    """The ranges claimed by `SplatFormat`: dilation bounds slopes, significance bounds forms."""
    splat = SplatFormat()
    slope = math.sqrt(math.log2(math.e) / 2 / 0.3)
    seen = math.sqrt(math.log2(255))
    assert splat.a.to_float(splat.a.raw_max) >= slope
    assert splat.b.to_float(splat.b.raw_max) >= slope
    assert splat.c.to_float(splat.c.raw_max) >= slope
    assert splat.u0.to_float(splat.u0.raw_max) >= seen + 15 * 2 * slope
    assert splat.v0.to_float(splat.v0.raw_max) >= seen + 15 * slope


def test_features_fill_two_beats_in_order():
    feature = FeatureFormat()
    assert [field[:2] for field in feature.fields()] == [
        ("mean_x", 27), ("mean_y", 27), ("a", 26), ("b", 26), ("c", 26), ("log_opacity", 10),
        ("red", 10), ("green", 10), ("blue", 10)]
    assert [signed for _, _, signed in feature.fields()] == [True, True, *[False] * 7]
    assert feature.width == 172 <= 8 * FEATURE_BYTES == 2 * ShellDesign().data_bits


def test_pixel_formats():
    assert [kind.size_bytes for kind in PixelFormat] == [4, 8, 16]
    # A row of a tile stays within one 4 KiB page if it starts at a multiple of its size.
    assert all(4096 % (TILE_PX * kind.size_bytes) == 0 for kind in PixelFormat)


def test_register_map_is_dense_and_unique():
    registers = [*HEAD_REGISTERS, *counter_registers(COUNTERS)]
    assert len({register.name for register in registers}) == len(registers)
    assert [r.offset for r in HEAD_REGISTERS] == [4 * n for n in range(len(HEAD_REGISTERS))]
    assert [r.offset for r in counter_registers(COUNTERS)] == [
        COUNTER_BASE + 4 * n for n in range(2 * len(COUNTERS))]
    assert HEAD_REGISTERS[-1].offset < COUNTER_BASE
    assert {register.access for register in registers} == {"ro", "rw", "wo", "w1c"}
    assert IDENTITY.to_bytes(4, "little") == b"SPFG"
    assert [CONTROL_START, CONTROL_ABORT, CONTROL_RESET, CONTROL_SNAPSHOT] == [1, 2, 4, 8]
    assert [int(error) for error in FrameError] == list(range(10))


def test_descriptor_fields_do_not_overlap_or_cross_beats():
    used = set()
    for name, offset, size in DESCRIPTOR_FIELDS:
        here = set(range(offset, offset + size))
        assert not used & here, name
        assert offset % size == 0, name
        assert offset // 16 == (offset + size - 1) // 16, name
        used |= here
    assert max(used) < DESCRIPTOR_BYTES


def test_presets_are_the_lane_counts():
    assert {name: design.array.lanes for name, design in PRESETS.items()} == {
        "16-lane": 16, "32-lane": 32, "64-lane": 64, "128-lane": 128, "256-lane": 256}
    assert ShellDesign().data_bytes == 16
