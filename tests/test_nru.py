"""Blending of the array of neural rendering units against a plain walk over pixels."""

import numpy as np
import pytest

from splatforge.algos.alpha import alpha_fixed, forms_fixed
from splatforge.algos.blend import blend_fixed, start_raw
from splatforge.algos.nru import OUTSIDE, SPLAT_FIELDS, nru_fixed
from splatforge.designs.fetch import SplatFormat
from splatforge.designs.nru import NruDesign

DESIGN, SPLAT = NruDesign(), SplatFormat()


def splats(rng, count):
    """Random splats about a tile, most of them seen somewhere on it."""
    def uniform(field, low, high):
        return field.quantize(rng.uniform(low, high, count))

    raw = {
        "u0": uniform(SPLAT.u0, -6, 3), "v0": uniform(SPLAT.v0, -6, 3),
        "a": uniform(SPLAT.a, 0.05, 0.5), "b": uniform(SPLAT.b, -0.2, 0.2),
        "c": uniform(SPLAT.c, 0.05, 0.5), "log_opacity": uniform(SPLAT.log_opacity, 0, 5),
        **{name: uniform(SPLAT.color, 0, 1) for name in ("red", "green", "blue")}}
    return np.stack([raw[name] for name in SPLAT_FIELDS], axis=1).astype(np.int32)


@pytest.mark.parametrize("record_ids", [1, 5, 8])
def test_blends_as_a_plain_walk(record_ids):
    """Three tiles of a frame of 28x23 pixels: whole, cut on the right, cut on both sides."""
    rng = np.random.default_rng(record_ids)
    tile_x, tile_y, width, height = np.array([0, 1, 1]), np.array([0, 0, 1]), 28, 23
    starts = np.array([0, 60, 60, 260])
    rows = splats(rng, 260)
    # What is opaque ends pixels.
    rows[100:, 5] //= 8
    ids = rng.integers(0, 1 << 20, 260).astype(np.int32)
    frame = nru_fixed(DESIGN, SPLAT, record_ids, width, height, tile_x, tile_y, starts, ids, rows)
    y, x = np.divmod(np.arange(256), 16)
    for tile in range(3):
        inside = (16 * tile_x[tile] + x < width) & (16 * tile_y[tile] + y < height)
        state = start_raw(DESIGN.blend, 256)
        length = starts[tile + 1] - starts[tile]
        live, ends = inside.copy(), np.where(inside, length, OUTSIDE)
        records, complete = [[] for _ in range(256)], np.full(256, -1)
        for place, at in enumerate(range(starts[tile], starts[tile + 1])):
            fields = dict(zip(SPLAT_FIELDS, rows[at].tolist(), strict=True))
            u, v = forms_fixed(DESIGN.alpha, SPLAT, fields, x, y)
            alpha = alpha_fixed(DESIGN.alpha, u, v, np.full(256, fields["log_opacity"]))
            bits = np.unpackbits(frame.significant[at].view(np.uint8), bitorder="little")
            np.testing.assert_array_equal(bits, alpha.significant & live)
            color = np.array([fields[name] for name in SPLAT_FIELDS[6:]])
            behind = blend_fixed(DESIGN.alpha, DESIGN.blend, state,
                                 np.where(live & alpha.significant, alpha.alpha, 0),
                                 np.broadcast_to(color, (256, 3)))
            ended = live & (behind.product < DESIGN.blend.stop)
            ends[ended] = place
            for pixel in np.flatnonzero(live & alpha.significant & ~ended):
                records[pixel].append(ids[at])
                if len(records[pixel]) == record_ids:
                    complete[pixel] = place
            live &= ~ended
            state = behind
        np.testing.assert_array_equal(frame.ends[tile], ends)
        np.testing.assert_array_equal(frame.complete[tile], complete)
        assert frame.blended[tile].tolist() == [len(record) for record in records]
        for pixel, record in enumerate(records):
            want = (record + [0] * record_ids)[:record_ids]
            assert frame.ids[tile, pixel].tolist() == want
        np.testing.assert_array_equal(frame.state[tile, inside, :3], state.accumulator[inside])
        np.testing.assert_array_equal(frame.state[tile, :, 3], state.transmittance)
        assert not frame.state[tile, ~inside, :3].any()
    assert ((frame.ends[2] >= 0) & (frame.ends[2] < 200)).sum() > 20
    assert (frame.ends[1, :12] == 0).all()


def test_an_element_for_every_pixel():
    assert DESIGN.units == 64
    assert DESIGN.array.lanes == 256
    assert DESIGN.array.blocks == 1
