import sys
import threading
import time
from pathlib import Path

import numba
import numpy as np
import pytest

from splatforge.algos.bin_tiles import bin_tiles
from splatforge.algos.project import Projected, project
from splatforge.algos.sort import depth_order
from splatforge.algos.workers import Workers

sys.path.insert(0, str(Path(__file__).parent))
import naive


def splats_at(mean_px, radius_px, depth=None) -> Projected:
    m = len(mean_px)
    return Projected(
        ids=np.arange(m, dtype=np.int32),
        mean_px=np.array(mean_px, np.float32).reshape(m, 2),
        conic=np.ones((m, 3), np.float32),
        depth=np.ones(m, np.float32) if depth is None else np.array(depth, np.float32),
        opacity=np.ones(m, np.float32),
        color=np.ones((m, 3), np.float32),
        radius_px=np.array(radius_px, np.int32),
    )


def tiles_listing(projected: Projected, width: int, height: int) -> list[int]:
    lists = bin_tiles(projected, width, height)
    return [tile for tile in range(lists.tiles) if len(naive.entries_of(lists, tile))]


@pytest.mark.parametrize("size", [(333, 217), (320, 240), (16, 16), (1, 1), (17, 3)])
def test_against_naive(size):
    scene = naive.random_scene(11, 250, spread=1.5)
    camera = naive.front_camera(*size)
    lists = bin_tiles(project(scene, camera), *size)
    expected = naive.bin_tiles(naive.project(scene, camera), *size)
    assert lists.tiles == lists.tiles_x * lists.tiles_y == len(expected)
    assert lists.starts[0] == 0
    assert lists.starts[-1] == len(lists.entries) > 0
    for (x, y), entries in expected.items():
        assert naive.entries_of(lists, y * lists.tiles_x + x).tolist() == entries


@pytest.mark.parametrize(
    ("center", "radius", "tiles"),
    [
        # A 4 x 2 grid; an edge that only touches a tile does not meet it.
        ((8, 8), 3, [0]),
        ((8, 8), 8, [0]),
        ((8, 8), 9, [0, 1, 4, 5]),
        ((19, 8), 3, [1]),
        ((18.75, 8), 3, [0, 1]),
        ((-3, 8), 3, []),
        ((-2.75, 8), 3, [0]),
        ((67, 8), 3, []),
        ((66.75, 8), 3, [3]),
        ((32, 35), 3, []),
        ((32, 16), 1 << 24, list(range(8))),
        ((-1e9, 8), 1 << 24, []),
    ],
)
def test_square_rule(center, radius, tiles):
    assert tiles_listing(splats_at([center], [radius]), 64, 32) == tiles


def test_padding_of_the_last_tile_counts():
    """The grid of a 17 px wide image is 32 px wide: what meets only the padding is listed."""
    assert tiles_listing(splats_at([(28, 8)], [3]), 17, 16) == [1]


def test_equal_depths_keep_the_order_of_ids():
    rng = np.random.default_rng(5)
    m = 5000
    depth = rng.integers(1, 20, m).astype(np.float32)
    lists = bin_tiles(splats_at([(8, 8)] * m, [3] * m, depth), 16, 16)
    assert lists.entries.tolist() == sorted(range(m), key=lambda i: (depth[i], i))


@pytest.mark.parametrize("m", [0, 1, 2, 3, 1000, 300_003])
def test_depth_order(m):
    rng = np.random.default_rng(m)
    depth = rng.lognormal(0, 10, m).astype(np.float32)
    depth[m // 2 :] = depth[: m - m // 2]  # ties
    depth[:2] = [np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal][: min(m, 2)]
    np.testing.assert_array_equal(depth_order(depth), np.argsort(depth, kind="stable"))


def test_depths_are_checked():
    with pytest.raises(ValueError, match=r"^Depths must have shape \[M\], not \(2, 2\)$"):
        depth_order(np.ones((2, 2)))
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match=rf"^Depths must be positive, not {bad}$"):
            depth_order([1.0, bad])


def test_size_is_checked():
    with pytest.raises(ValueError, match=r"^Image size must be at least 1 x 1, not 0 x 5$"):
        bin_tiles(splats_at([], []), 0, 5)


def test_no_splats():
    lists = bin_tiles(splats_at([], []), 40, 40)
    assert lists.starts.tolist() == [0] * 10
    assert len(lists.entries) == 0


def test_threads_do_not_change_the_lists():
    projected = project(naive.random_scene(2, 3000), naive.front_camera(200, 100))
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = bin_tiles(projected, 200, 100)
    finally:
        numba.set_num_threads(threads)
    together = bin_tiles(projected, 200, 100)
    np.testing.assert_array_equal(alone.entries, together.entries)
    np.testing.assert_array_equal(alone.starts, together.starts)


def test_workers_share_chunks_and_pass_errors_on():
    done = []
    with Workers(3) as workers:
        workers.run_chunks(lambda chunk: done.append(chunk), 50)
    assert sorted(done) == list(range(50))

    def fail(worker: int, workers: int) -> None:
        if worker == workers - 1:
            raise ArithmeticError("of the last worker")

    for count in (1, 2):
        with pytest.raises(ArithmeticError, match="of the last worker"), Workers(count) as workers:
            workers.run(fail)


def test_workers_do_not_wait_for_each_other_behind_an_error():
    """The chunk that another thread is in goes on; those that nobody has begun are left."""
    begun, go_on = [], threading.Event()

    def work(chunk: int) -> None:
        begun.append(chunk)
        if threading.current_thread() is not threading.main_thread():
            go_on.wait(60)
            return
        while len(begun) < 2:
            time.sleep(0.001)
        raise KeyboardInterrupt

    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Workers(2) as workers:
        workers.run_chunks(work, 1000)
    assert time.monotonic() - before < 30
    assert sorted(begun) == [0, 1]
    go_on.set()
    time.sleep(0.05)
    assert sorted(begun) == [0, 1]


def test_workers_are_counted():
    with pytest.raises(ValueError, match=r"^Number of workers must be at least 1, not 0$"):
        Workers(0)
    assert Workers().count == numba.get_num_threads()


def test_workers_are_entered_before_they_run():
    with pytest.raises(RuntimeError, match=r"^Workers must be entered by `with` before"):
        Workers(2).run(lambda worker, workers: None)
