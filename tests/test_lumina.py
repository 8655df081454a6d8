"""Frames of Lumina: in integers against floating point, the cache over frames, memory."""

import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Fragment

from splatforge.algos import lumina
from splatforge.algos.alpha import alpha_fixed, forms_fixed
from splatforge.algos.fetch import encode_splats
from splatforge.algos.lumina.frame import from_tiles, look_up, render_float, to_tiles
from splatforge.algos.lumina.render import (
    absent_record,
    cached_state,
    feature_records,
    lay_out,
    pack,
    prepare_sequence,
    render,
    render_sequence,
)
from splatforge.algos.lumina.sharing import gaussians_at, render_shared, share
from splatforge.algos.quality import psnr_db
from splatforge.algos.radiance import Banks
from splatforge.algos.records import decode_record
from splatforge.algos.resolve import resolve_fixed
from splatforge.algos.splat_setup import slope_fixed, splat_fields
from splatforge.designs.blend import BlendDesign
from splatforge.designs.fixed import Fixed
from splatforge.designs.lumina import FLAG_CACHE, FLAG_FLUSH, FLAG_REMAP, PRESETS, LuminaDesign
from splatforge.designs.nru import NruDesign
from splatforge.designs.radiance import RadianceDesign
from splatforge.designs.resolve import PixelFormat, ResolveDesign
from splatforge.designs.sharing import SharingDesign
from splatforge.designs.vru import VruDesign
from splatforge.hw.lumina import Lumina
from splatforge.scenes import head_jitter
from splatforge.sim.lumina import simulate
from splatforge.sim.reading import watch

sys.path.insert(0, str(Path(__file__).parent))
from gaussians import camera, random_scene

SCENE = random_scene(300, 11, sh_degree=1)
VIEW = camera(70, 83)
#: Two of its windows share lists; small banks replace.
DESIGN = LuminaDesign(sharing=SharingDesign(window=3, margin_px=2),
                      radiance=RadianceDesign(record_ids=2, sets=16, ways=2))
FRAMES = 5
BACKGROUND = (0.25, 0.5, 1.0)


def path(frames=FRAMES):
    return head_jitter(VIEW, frames=frames, seed=3, median_turn_deg=0.1).cameras


@pytest.fixture(scope="module")
def sequence():
    return list(render_sequence(SCENE, path(), DESIGN, BACKGROUND))


def test_errors():
    with pytest.raises(ValueError, match=re.escape(
            "Accumulator must hold 8-bit colours, with 8 fraction bits or more, not UQ(14,7)")):
        LuminaDesign(nru=NruDesign(blend=BlendDesign(accumulator=Fixed(
            int_bits=14, frac_bits=7))))
    with pytest.raises(ValueError, match=r"^Lists and the cache of features must agree on entries"):
        LuminaDesign(vru=VruDesign())
    with pytest.raises(ValueError, match=r"^Frame must be 1x1 to 64x64 pixels, not 70x83$"):
        lumina.prepare(SCENE, VIEW, replace(DESIGN, shell=replace(DESIGN.shell, max_side=64)))
    with pytest.raises(ValueError, match=r"^Frames must be of one size, 70x83, not 70x84$"):
        list(prepare_sequence(SCENE, [VIEW, VIEW.resized(70, 84)], DESIGN))
    later = list(prepare_sequence(SCENE, path(2), DESIGN))[1]
    with pytest.raises(ValueError, match=r"^Frame must come with the cache's contents"):
        render(later, DESIGN)


def test_frames_are_those_of_the_float_form(sequence):
    """Without the cache to rounding. With it, where rounding decides whether a Gaussian reaches
    1/255, records differ, and so may what is found: little where the cache loses nothing."""
    floats = lumina.render_sequence_float(SCENE, path(), DESIGN, BACKGROUND)
    for fixed, exact in zip(sequence, floats, strict=True):
        assert psnr_db(fixed.uncached.image, exact.uncached) > 60
        work = fixed.workload
        assert (work.hit != exact.visits.hit).mean() < 0.02
        assert work.evaluations_uncached == pytest.approx(exact.evaluations, rel=0.01)
        assert work.significant_uncached == pytest.approx(exact.significant, rel=0.01)
        assert work.blended_uncached == pytest.approx(exact.blended, rel=0.01)
        assert work.blended == pytest.approx(exact.blended_cached, rel=0.02)
    # With the same records they find the same, and arithmetic is all that is left.
    banks = None
    floats = lumina.render_sequence_float(SCENE, path(), DESIGN, BACKGROUND)
    for fixed, exact in zip(sequence, floats, strict=True):
        nru = fixed.workload.nru
        same = look_up(exact, DESIGN.radiance, nru.ids, nru.complete >= 0, banks)
        banks = same.banks
        np.testing.assert_array_equal(same.visits.hit, fixed.workload.hit)
        np.testing.assert_array_equal(banks.tags, fixed.banks.tags)
        assert psnr_db(fixed.image, same.image) > 55
        assert not same.transmittance[from_tiles(
            same.visits.hit, fixed.workload.tiles, VIEW.width, VIEW.height)].any()
        np.testing.assert_array_equal(same.uncached, exact.uncached)
    roomy = replace(DESIGN, radiance=RadianceDesign())
    scene = random_scene(200, 11, sh_degree=1)
    for fixed, exact in zip(render_sequence(scene, path(), roomy, BACKGROUND),
                            lumina.render_sequence_float(scene, path(), roomy, BACKGROUND),
                            strict=True):
        assert psnr_db(fixed.image, exact.image) > 45
    assert fixed.workload.hits > 0.9 * fixed.workload.lookups > 300


def test_float_form_without_cache_is_the_fast_one():
    lists = share(SCENE, path()[0], 3)
    for view in path(2):
        got = render_float(lists, gaussians_at(SCENE, lists.listed, view), PRESETS["sharing"],
                           BACKGROUND)
        want = render_shared(SCENE, view, lists, BACKGROUND)
        assert psnr_db(got.image, want.image) > 90
        assert got.image is got.uncached
        assert got.banks is None


def test_cache_off_is_no_cache(sequence):
    plain = replace(DESIGN, caching=False)
    for fixed, other in zip(sequence, render_sequence(SCENE, path(), plain, BACKGROUND),
                            strict=True):
        np.testing.assert_array_equal(fixed.uncached.state, other.state)
        assert other.banks is None
        assert other.workload.lookups == other.workload.hits == other.workload.false_hits == 0
        assert other.workload.blended == other.workload.blended_uncached
        assert other.workload.evaluations == other.workload.evaluations_uncached


def test_hits_take_the_bytes_of_the_cache(sequence):
    """And everybody else the pixel that blending gives; some of both, and replacements."""
    outcomes = set()
    for fixed in sequence:
        work = fixed.workload
        pixels = to_tiles(fixed.pixels(PixelFormat.RGBA8), work.tiles)
        plain = to_tiles(fixed.uncached.pixels(PixelFormat.RGBA8), work.tiles)
        np.testing.assert_array_equal(pixels[work.hit][:, :3], work.visits.colors[work.hit])
        np.testing.assert_array_equal(pixels[~work.hit], plain[~work.hit])
        outcomes |= set(work.visits.outcome.reshape(-1).tolist())
    assert outcomes == {0, 1, 2, 3, 4}
    assert 0.05 < work.hits / work.pixels < 0.9
    assert work.hits < work.lookups < work.pixels


def test_cache_goes_on_through_memory(sequence):
    """Frames whose contents come back from saved bytes: the same pixels, hits and bytes."""
    images = None
    for frame, want in zip(prepare_sequence(SCENE, path(), DESIGN), sequence, strict=True):
        banks = None if frame.flush else Banks.from_images(DESIGN.radiance, images)
        got = render(frame, DESIGN, BACKGROUND, banks)
        images = got.banks.images(DESIGN.radiance)
        np.testing.assert_array_equal(got.state, want.state)
        np.testing.assert_array_equal(got.workload.hit, want.workload.hit)
        np.testing.assert_array_equal(images, want.banks.images(DESIGN.radiance))
    assert frame.number == 1


@pytest.mark.parametrize("frac_bits", [8, 9, 18])
def test_cached_colours_come_back_from_the_accumulator(frac_bits):
    """Every byte, whatever the background: resolve's rounding gives back what was put in."""
    blend = BlendDesign(accumulator=Fixed(int_bits=12, frac_bits=frac_bits))
    colors = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 7)], axis=1)
    state = cached_state(blend, colors)
    pixels = resolve_fixed(blend, ResolveDesign(), state, (256, 0, 128), PixelFormat.RGBA8)
    np.testing.assert_array_equal(pixels[:, :3], colors)
    if frac_bits == 18:
        wide = resolve_fixed(blend, ResolveDesign(), state, (256, 0, 9), PixelFormat.RGBA16)
        assert np.abs(wide[:, :3].astype(int) - 257 * colors).max() <= 1


def significance(setup, alpha, fields, tile_x, tile_y):
    """Significance of features on the 256 pixels of a tile, by their splats."""
    made = splat_fields(setup, fields, tile_x, tile_y)
    encode_splats(setup.splat, {**made, "subtiles": np.zeros_like(made["a"])})
    y, x = np.divmod(np.arange(256), 16)
    u, v = forms_fixed(alpha, setup.splat, {k: n[:, None] for k, n in made.items()}, x, y)
    return alpha_fixed(alpha, u, v, made["log_opacity"][:, None]).significant


def test_absent_records_are_significant_nowhere():
    setup, alpha = DESIGN.setup, DESIGN.array.alpha
    fields = {name: np.full(1, value) for name, value in absent_record(setup.feature).items()}
    last = 65520 // 16 - 1
    for tile_x in (0, 1, 1023, 1024, last):
        for tile_y in (0, 1, 1023, 1024, last):
            assert not significance(setup, alpha, fields, tile_x, tile_y).any()


def test_forms_out_of_range_are_significant_nowhere():
    """Wherever a splat saturates, none of its exact forms is near enough on the tile."""
    rng = np.random.default_rng(2)
    setup, alpha, count = DESIGN.setup, DESIGN.array.alpha, 4000
    feature = setup.feature
    # Near and far from the tile at (640, 320); slopes up to what the dilation leaves, and tiny.
    spread = 10.0 ** rng.uniform(0, 4, (2, count)) * rng.choice((-1, 1), (2, count))
    slopes = np.minimum(1.551, 2.0 ** rng.uniform(-8, 1, (3, count)))
    fields = {
        "mean_x": feature.mean.quantize(640 + spread[0]),
        "mean_y": feature.mean.quantize(320 + spread[1]),
        "a": feature.slope.quantize(slopes[0]),
        "b": feature.slope.quantize(slopes[1] * rng.choice((-1, 1), count)),
        "c": feature.slope.quantize(slopes[2]), "log_opacity": np.zeros(count, np.int64),
        "red": np.zeros(count, np.int64), "green": np.zeros(count, np.int64),
        "blue": np.zeros(count, np.int64)}
    got = significance(setup, alpha, fields, 40, 20)
    y, x = np.divmod(np.arange(256), 16)
    a, b, c = (slope_fixed(setup, fields[name])[:, None] * setup.slope.resolution
               for name in "abc")
    dx = 640.5 + x - feature.mean.to_float(fields["mean_x"])[:, None]
    dy = 320.5 + y - feature.mean.to_float(fields["mean_y"])[:, None]
    exact = (a * dx + b * dy) ** 2 + (c * dy) ** 2
    made = splat_fields(setup, fields, 40, 20)
    saturated = np.zeros(count, bool)
    for name in ("u0", "v0"):
        field = getattr(setup.splat, name)
        saturated |= (made[name] == field.raw_max) | (made[name] == field.raw_min)
    assert 500 < saturated.sum() < 3500
    assert not got[saturated].any()
    assert not got[exact > 8.5].any()
    assert got[exact < 7.5].all()
    assert got.any()


def test_records_hold_what_is_visible():
    lists = share(SCENE, VIEW, 16)
    view = path(4)[3]
    seen = gaussians_at(SCENE, lists.listed, view)
    feature = DESIGN.setup.feature
    fields = decode_record(feature.fields(), feature_records(feature, seen))
    present = seen.visible & (seen.opacity >= 1 / 255)
    assert 0 < (~present).sum() < len(present)
    assert (present & ~seen.visible).sum() == 0
    for name, value in absent_record(feature).items():
        assert (fields[name][~present] == value).all()
    conic = seen.conic[present].astype(np.float64)
    a, b, c = (feature.slope.to_float(fields[name][present]) for name in "abc")
    want = conic * (np.log2(np.e) / 2)
    np.testing.assert_allclose(a * a, want[:, 0], rtol=2e-5)
    np.testing.assert_allclose(a * b, want[:, 1], atol=2e-5)
    np.testing.assert_allclose(b * b + c * c, want[:, 2], rtol=2e-5)
    np.testing.assert_allclose(
        feature.mean.to_float(fields["mean_x"][present]), seen.mean_px[present, 0], atol=2**-13)
    np.testing.assert_allclose(
        2.0 ** -feature.log_opacity.to_float(fields["log_opacity"][present]),
        seen.opacity[present], rtol=0.003)


def read(image, address, count):
    """Bytes of a packed frame."""
    for start, part in image.segments:
        if start <= address and address + count <= start + len(part):
            return part[address - start:address - start + count]
    raise AssertionError(f"nothing at {address:#x}")


def test_memory_holds_the_frame(sequence):
    """A plain reader finds, by the descriptor alone, every tile's ids and their features."""
    before = None
    shared = []
    for frame, want in zip(prepare_sequence(SCENE, path(), DESIGN), sequence, strict=True):
        image = pack(frame, DESIGN, background=BACKGROUND, banks=before)
        word = {name: int.from_bytes(read(image, image.descriptor_address + at, size), "little")
                for name, at, size in DESIGN.descriptor_fields}
        assert (word["width"], word["height"]) == (VIEW.width, VIEW.height)
        assert word["flags"] == FLAG_CACHE | FLAG_REMAP | (FLAG_FLUSH if before is None else 0)
        work, at = want.workload, 0
        for tile in range(len(work.tiles)):
            first, count = read(image, word["table_address"] + 8 * tile, 8).view("<u4").tolist()
            assert first % 16 == 0
            assert first >= at
            at = first + -(-count // 4)
            ids = read(image, word["list_address"] + 16 * first, 4 * count).view("<u4")
            np.testing.assert_array_equal(ids, work.ids[work.starts[tile]:work.starts[tile + 1]])
            for one in ids[:5].tolist():
                record = read(image, word["feature_address"] + 32 * one, 32).view("<u8")
                place = np.searchsorted(frame.lists.listed, one)
                np.testing.assert_array_equal(record, frame.features[place])
        assert at <= word["list_beats"]
        if before is not None:
            bank = read(image, word["cache_address"], DESIGN.radiance.image_bytes)
            np.testing.assert_array_equal(bank, before.images(DESIGN.radiance)[0])
        place = lay_out(DESIGN, VIEW.width, VIEW.height, SCENE.gaussians)
        assert image.workspace_address == place.cache_address == word["cache_address"]
        spans = sorted([(start, len(part)) for start, part in image.segments]
                       + [(image.frame_address, image.frame_bytes)]
                       + [(image.workspace_address, image.workspace_bytes)] * (before is None))
        assert all(a + size <= b for (a, size), (b, _) in pairwise(spans))
        shared.append((frame.lists, [part.tobytes() for start, part in image.segments
                                     if start >= place.list_address
                                     or start == place.table_address]))
        before = want.banks
    for (lists, memory), (other, more) in pairwise(shared[:3]):
        assert lists is other
        assert memory == more
    assert shared[3][1] != shared[2][1]
    for wrong, message in (({"base_address": 256}, "Base address must be a multiple of 4096"),
                           ({"background": (0, 0, 2)}, "Background must be in")):
        with pytest.raises(ValueError, match=message):
            pack(frame, DESIGN, **wrong)


def test_tiles_and_back():
    picture = np.random.default_rng(1).random((37, 50, 3))
    tiles = np.random.default_rng(2).permutation(12)
    np.testing.assert_array_equal(from_tiles(to_tiles(picture, tiles), tiles, 50, 37), picture)


def test_an_empty_scene_is_the_background():
    nothing = SCENE.select(slice(0, 0))
    for frame in render_sequence(nothing, path(2), DESIGN, BACKGROUND):
        pixels = frame.pixels(PixelFormat.RGBA8)
        assert (pixels == [64, 128, 255, 255]).all()
        assert frame.workload.lookups == 0
    pack(lumina.prepare(nothing, VIEW, DESIGN), DESIGN)


def test_frames_have_whole_tiles():
    """What cannot be built has no frame, and so no cycles."""
    message = ("^Units must cover a tile of 16 pixels a side in whole frames, with nru.side 8, "
               "not of 4, with 2$")
    small = LuminaDesign(nru=NruDesign(side=2))
    with pytest.raises(ValueError, match=message):
        Fragment.get(Lumina(small), None)
    with pytest.raises(ValueError, match=message):
        lumina.prepare(SCENE, VIEW, small)


def test_pixels_of_a_unit_change_no_picture():
    """What is drawn does not even look at them; cycles do, behind short queues."""
    frame, cycles = lumina.prepare(SCENE, VIEW, DESIGN), []
    watched, reads = watch(DESIGN)
    workload = lumina.render(frame, watched).workload
    assert any(name.startswith("nru.blend") for name in reads)
    assert "nru.unit_pixels" not in reads
    for pixels in (2, 4, 8):
        design = replace(DESIGN, nru=NruDesign(unit_pixels=pixels, queue_entries=2))
        run = simulate(frame, workload, design)
        assert run.counters["hits"] == workload.hits
        assert run.counters["pixel_bytes"] == 4 * VIEW.width * VIEW.height
        cycles.append(run.cycles)
    assert cycles[0] < cycles[1] < cycles[2]


@pytest.mark.rtl
@pytest.mark.matrix
def test_verilog_against_fixed(run_testbench):
    run_testbench("lumina", seed=13)
