"""Random voxels before a camera, with codebooks and what a coarse filter leaves of them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from splatforge.algos.ffu import FfuFrame, ffu_fixed, opacity_entries, pack_codebooks
from splatforge.algos.vsu import pack_stream_camera
from splatforge.designs.codebook import CodebookDesign
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.tokens import INDEX_BITS, SurvivorKind
from splatforge.scenes import Camera

__all__ = ["Survivors", "random_codebooks", "survivor_fields"]

Int64Array = npt.NDArray[np.int64]

#: Fields of tokens by kind, beside kind and tag.
_VOXEL = ("d_x", "d_y", "d_z", "size", "address", "column", "row")
_GAUSSIAN = ("index", "q_x", "q_y", "q_z", "scale")


def random_codebooks(
    design: CodebookDesign, rng: np.random.Generator
) -> dict[str, npt.NDArray[np.uint16]]:
    """Entries such that Gaussians are ones: quaternions near their length, ratios up to one."""
    books = {}
    for name, entries, names in design.codebooks():
        shape = (entries, len(names))
        numbers = rng.normal(0, 0.02 if name[-1] != "0" else 0.3, shape)
        match name:
            case "rotation0":
                numbers *= np.sqrt(2) / np.linalg.norm(numbers, axis=1, keepdims=True)
            case "ratios0":
                numbers = rng.uniform(0.02, 1, shape)
            case "color0":
                numbers = rng.uniform(-0.5, 1.5, shape)
        books[name] = numbers.astype(np.float16).view(np.uint16)
        if name == "opacity0":
            books[name] = opacity_entries(rng.uniform(0, 9, entries), FfuDesign().feature)
    return books


class Survivors:
    """Tokens of a few groups of a frame, what they are read from, and what must come of them.

    Parameters
    ----------
    design : FfuDesign
        The unit.
    seed : int
        Draws everything.
    groups : int
        Groups, of those of a frame so many in raster order; some may be without a voxel.
    voxels, population : int
        Voxels of the scene, and Gaussians of each, at most.
    codebooks : dict, optional
        Those of another frame.
    sh_degree : int
        Of the scene.

    Attributes
    ----------
    tokens : dict
        Fields by name, see :func:`splatforge.algos.ffu.ffu_fixed`; tags are the groups' numbers.
    fine : ndarray
        Beats of the scene, most of them of random bits.
    """

    width, height = 149, 101

    def __init__(
        self, design: FfuDesign, seed: int, *, groups: int = 5, voxels: int = 6,
        population: int = 12, codebooks: dict[str, npt.NDArray[np.uint16]] | None = None,
        sh_degree: int = 3,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.design, self.sh_degree = design, sh_degree
        view = Camera.look_at((0.1, -0.2, -0.4), (0.1, 0.1, 3), (0.1, -1, 0.2), width=self.width,
                              height=self.height, fov_x_deg=60)
        self.camera = pack_stream_camera(
            design.floating, view, (0, 0, 0), antialiased=seed % 2 == 1)
        self.codebooks = codebooks or random_codebooks(design.codebooks, rng)
        self.packed = pack_codebooks(design.codebooks, self.codebooks)
        # Voxels in front of the camera, some of them around it; in memory one behind the other.
        size = 2.0 ** rng.uniform(-2, 0.5, voxels)
        depth = rng.uniform(-0.3, 5, voxels)
        center = np.stack([*(rng.uniform(-0.7, 0.7, (2, voxels)) * depth), depth], axis=1)
        corner = center - 1.5 * size[:, None] - view.position
        counts = rng.integers(1, min(population, 1 << INDEX_BITS) + 1, voxels)
        ends = np.cumsum(counts + rng.integers(1, 3, voxels))
        addresses = ends - counts
        self.fine = rng.integers(0, 1 << 64, (int(ends[-1]), 2), dtype=np.uint64)
        columns, lines = (
            -(-side // (TILE_PX * design.group_tiles)) for side in (self.width, self.height))
        self.tokens: dict[str, Int64Array] = {}
        rows: list[dict[str, int]] = []
        for group in range(groups):
            row, column = divmod(group * columns * lines // groups, columns)
            some = rng.permutation(voxels)[:rng.integers(0, voxels + 1) if group else voxels]
            for voxel in some.tolist():
                rows.append({
                    "kind": SurvivorKind.VOXEL, "tag": group, "column": column, "row": row,
                    "address": int(addresses[voxel]),
                    "size": int(design.floating.quantize(size[voxel])),
                    **{f"d_{axis}": int(design.floating.quantize(corner[voxel, k]))
                       for k, axis in enumerate("xyz")}})
                # Runs, and single ones.
                keep = rng.random(int(counts[voxel])) < rng.choice([0.2, 0.6, 1.0])
                for index in np.flatnonzero(keep).tolist():
                    rows.append({
                        "kind": SurvivorKind.GAUSSIAN, "tag": group, "index": index,
                        "scale": int(np.float16(size[voxel] * 2 ** rng.uniform(-5, 0)).view(
                            np.uint16)),
                        **{f"q_{axis}": int(rng.integers(1 << 16)) for axis in "xyz"}})
                rows.append({"kind": SurvivorKind.VOXEL_END, "tag": group})
            rows.append({"kind": SurvivorKind.GROUP_END, "tag": group})
        for name in ("kind", "tag", *_VOXEL, *_GAUSSIAN):
            self.tokens[name] = np.array([row.get(name, 0) for row in rows], np.int64)
        self.expected: FfuFrame = ffu_fixed(
            design, self.tokens, self.fine, self.codebooks, self.camera, self.width, self.height,
            sh_degree)
        #: Number of every token that leaves the unit, and what it then is.
        self.leaving = {
            int(number): sum(int(word) << 64 * k for k, word in enumerate(token))
            for number, token in zip(
                np.flatnonzero(self.expected.kept), self.expected.tokens, strict=True)}

    def memory(self, codebook_address: int, scene_address: int) -> dict[int, int]:
        """Beats by address."""
        beats = self.packed.astype("<u2").view("<u8").astype(np.uint64)
        return {base + 16 * n: int(low) | int(high) << 64
                for base, block in ((codebook_address, beats), (scene_address, self.fine))
                for n, (low, high) in enumerate(block)}


def survivor_fields(tokens: Mapping[str, Int64Array], number: int) -> dict:
    """Token `number` as :func:`splatforge.hw.lib.tokens.survivor_layout` takes it."""
    token = {name: int(values[number]) for name, values in tokens.items()}
    kind = token["kind"]
    body = {}
    if kind == SurvivorKind.VOXEL:
        body = {"voxel": {name: token[name] for name in _VOXEL}}
    elif kind == SurvivorKind.GAUSSIAN:
        body = {"gaussian": {name: token[name] for name in _GAUSSIAN}}
    return {"kind": kind, "tag": token["tag"] % 32, "body": body}
