"""Vector quantization of a scene: codebooks that fit the chip, and indices for every Gaussian.

Every vector of :data:`splatforge.designs.codebook.VECTORS` is clustered by k-means (Lloyd, "Least
Squares Quantization in PCM", IEEE Trans. Inf. Theory 28(2), 1982) from the cells of a median cut
(Heckbert, "Color Image Quantization for Frame Buffer Display", SIGGRAPH 1982), which needs no
random numbers; a further stage clusters what the stages before it leave (residual quantization).
Gaussians count by how much of a picture they can be.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from math import sqrt

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.ffu import Codebooks, encode_fine, fine_vectors, opacity_entries, sh_factors
from splatforge.algos.streaminggs.partition import Partition, ceil_half
from splatforge.algos.workers import Workers
from splatforge.designs.codebook import CodebookDesign
from splatforge.designs.feature import FeatureFormat
from splatforge.scenes import Scene

__all__ = ["Quantized", "assign", "canonical", "decode", "fit_codebook", "nearest_entries",
           "quantize", "straight_through"]

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
UInt16Array = npt.NDArray[np.uint16]
UInt32Array = npt.NDArray[np.uint32]

#: Gaussians that codebooks are fitted to, at most; and so many for each entry are enough.
_SAMPLE, _PER_ENTRY = 1 << 16, 12
#: Rounds of k-means behind the median cut.
_ROUNDS = 3
#: By how much the squared length of a quaternion may be off one to count as one.
_LENGTH_SLACK = 1e-3
#: Gaussians whose distances are computed at once: they stay in the processor's caches.
_CHUNK = 2048
#: Entries whose least distance is looked for at once.
_BLOCK = 128
#: Signs of a quaternion's conjugate.
_CONJUGATE = np.array([1.0, -1.0, -1.0, -1.0])


@njit(cache=True)
def _median_cut(points, weights, labels, leaves):
    """Label `points` by cells of equal spread: the cell of most is cut until there are `leaves`.

    A cell is cut at its mean along the axis of its largest variance. Returns the cells there are,
    fewer where too few points differ.
    """
    dims = points.shape[1]
    order = np.arange(len(points))
    starts, ends = np.zeros(leaves, np.int64), np.zeros(leaves, np.int64)
    spread, axes, means = np.zeros(leaves), np.zeros(leaves, np.int64), np.zeros(leaves)
    ends[0] = len(points)
    cells = 1
    fresh = np.zeros(2, np.int64)
    count = 1
    while True:
        for k in range(count):
            cell = fresh[k]
            spread[cell] = 0.0
            for axis in range(dims):
                total, first, second = 0.0, 0.0, 0.0
                offset = np.float64(points[order[starts[cell]], axis])
                for i in range(starts[cell], ends[cell]):
                    weight = weights[order[i]]
                    value = points[order[i], axis] - offset
                    total += weight
                    first += weight * value
                    second += weight * value * value
                error = second - first * first / total
                if error > spread[cell] * (1 + 1e-9):
                    spread[cell], axes[cell] = error, axis
                    means[cell] = offset + first / total
        if cells == leaves:
            break
        cell = np.argmax(spread[:cells])
        if spread[cell] <= 0.0:
            break
        low, high = starts[cell], ends[cell] - 1
        while low <= high:
            if points[order[low], axes[cell]] <= means[cell]:
                low += 1
            else:
                order[low], order[high] = order[high], order[low]
                high -= 1
        if low == starts[cell] or low == ends[cell]:
            # Rounding: all lie on one side of their mean.
            spread[cell] = 0.0
            count = 0
            continue
        starts[cells], ends[cells] = low, ends[cell]
        ends[cell] = low
        fresh[0], fresh[1] = cell, cells
        count = 2
        cells += 1
    for cell in range(cells):
        for i in range(starts[cell], ends[cell]):
            labels[order[i]] = cell
    return cells


@njit(cache=True)
def _centroids(points, weights, labels, entries):
    """Weighted means of the points of every label; entries without points stay as they are."""
    sums, totals = np.zeros(entries.shape), np.zeros(len(entries))
    for i in range(len(points)):
        totals[labels[i]] += weights[i]
        for axis in range(points.shape[1]):
            sums[labels[i], axis] += weights[i] * points[i, axis]
    for entry in range(len(entries)):
        if totals[entry] > 0:
            entries[entry] = sums[entry] / totals[entry]


@njit(cache=True, nogil=True, fastmath=True)
def _nearest_kernel(chunk, points, entries, half, labels):
    """Nearest entries of a chunk of points; `entries` has shape [dims, entries].

    Four dimensions at once, of which there is a multiple: what it takes is to load and store.
    """
    dims, count = entries.shape
    far = np.empty(count, np.float32)
    for i in range(chunk * _CHUNK, min(len(points), (chunk + 1) * _CHUNK)):
        far[:] = half
        for axis in range(0, dims, 4):
            a, b, c, d = points[i, axis:axis + 4]
            first, second = entries[axis], entries[axis + 1]
            third, fourth = entries[axis + 2], entries[axis + 3]
            for k in range(count):
                far[k] -= a * first[k] + b * second[k] + c * third[k] + d * fourth[k]
        least, label = far[0], 0
        for start in range(0, count, _BLOCK):
            nearest = far[start]
            for k in range(start, min(start + _BLOCK, count)):
                nearest = min(nearest, far[k])
            if nearest < least:
                least, label = nearest, start
        while far[label] != least:
            label += 1
        labels[i] = label


def nearest_entries(points: Float32Array, entries: Float32Array) -> Int64Array:
    """Index of the nearest entry of every point, shape [N]; of equally near ones the first."""
    labels = np.empty(len(points), np.int64)
    half = (entries.astype(np.float64) ** 2).sum(axis=1).astype(np.float32) / 2
    pad = ((0, 0), (0, -points.shape[1] % 4))
    with Workers() as workers:
        workers.run_chunks(
            _nearest_kernel, -(-len(points) // _CHUNK), np.pad(points, pad),
            np.ascontiguousarray(np.pad(entries, pad).T), half, labels)
    return labels


def _to_half(values: npt.ArrayLike) -> Float64Array:
    """Values as the codebooks hold them: binary16, denormals zero, saturated."""
    half = np.clip(np.asarray(values, np.float64), -65504, 65504).astype(np.float16)
    return np.where(np.abs(half) < 2.0**-14, 0.0, half.astype(np.float64))


def fit_codebook(points: Float64Array, weights: Float64Array, entries: int) -> Float64Array:
    """Codebook of at most so many entries for points, as binary16 holds them; the rest is zero."""
    book = np.zeros((entries, points.shape[1]))
    wanted = max(_PER_ENTRY * entries, 1 << 14)
    stride = max(1, -(-len(points) // min(_SAMPLE, wanted)))
    sample = np.ascontiguousarray(points[::stride], np.float32)
    weights = np.ascontiguousarray(weights[::stride])
    if not len(sample):
        return book
    labels = np.zeros(len(sample), np.int64)
    cells = _median_cut(sample, weights, labels, entries)
    centers = np.zeros((cells, points.shape[1]), np.float32)
    _centroids(sample, weights, labels, centers)
    if cells == entries:
        for _ in range(_ROUNDS):
            labels = nearest_entries(sample, centers)
            _centroids(sample, weights, labels, centers)
    book[:cells] = _to_half(centers)
    return book


def _matrices(quats: Float64Array) -> Float64Array:
    """Rotation matrices of quaternions of any length, shape [N, 3, 3]."""
    w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T
    return np.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ], axis=1).reshape(-1, 3, 3)


def _aligned(
    axes: Float64Array, sizes: Float64Array, rotations: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Axes of ellipsoids, with their sizes, in the order and sense that is nearest to rotations."""
    alike = axes.transpose(0, 2, 1) @ rotations
    orders = np.array(list(permutations(range(3))))
    likeness = np.abs(alike[:, orders, range(3)]).sum(axis=2)
    order = orders[likeness.argmax(axis=1)]
    axes = np.take_along_axis(axes, order[:, None], axis=2)
    cosines = (axes * rotations).sum(axis=1)
    axes = axes * np.where(cosines < 0, -1, 1)[:, None]
    # Where that mirrors it, the axis that is least alike turns round.
    mirrored = np.flatnonzero(np.linalg.det(axes) < 0)
    axes[mirrored, :, np.abs(cosines[mirrored]).argmin(axis=1)] *= -1
    return axes, np.take_along_axis(sizes, order, axis=1)


def _quaternions(matrices: Float64Array) -> Float64Array:
    """Unit quaternions of rotation matrices, shape [N, 4]."""
    m = matrices
    diagonal = np.stack([
        1 + m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2], 1 + m[:, 0, 0] - m[:, 1, 1] - m[:, 2, 2],
        1 - m[:, 0, 0] + m[:, 1, 1] - m[:, 2, 2], 1 - m[:, 0, 0] - m[:, 1, 1] + m[:, 2, 2]], axis=1)
    # Rows of four times the outer product of the quaternion with itself; the largest is taken.
    rows = np.empty((len(m), 4, 4))
    rows[:, range(4), range(4)] = diagonal
    for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        rows[:, 0, k + 1] = rows[:, k + 1, 0] = m[:, j, i] - m[:, i, j]
        rows[:, i + 1, j + 1] = rows[:, j + 1, i + 1] = m[:, j, i] + m[:, i, j]
    quats = rows[np.arange(len(m)), diagonal.argmax(axis=1)]
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


def _turns() -> dict[tuple[int, ...], Float64Array]:
    """For every order of the axes, quaternions that bring them into it, shape [4, 4].

    Column k of the rotation times such a turn is, up to its sign, column ``order[k]`` of the
    rotation.
    """
    values = [np.array(q, np.float64) for q in np.ndindex(3, 3, 3, 3)]
    turns: dict[tuple[int, ...], list[Float64Array]] = {}
    seen = set()
    for value in values:
        quat = value - 1
        if quat @ quat not in (1, 2, 4):
            continue
        quat /= np.linalg.norm(quat)
        first = quat[np.flatnonzero(quat)[0]]
        key = tuple(np.round(quat * np.sign(first), 6))
        if key in seen:
            continue
        seen.add(key)
        matrix = np.abs(_matrices(quat[None])[0])
        order = tuple(int(row) for row in matrix.argmax(axis=0))
        turns.setdefault(order, []).append(np.array(key))
    return {order: np.array(quats) for order, quats in turns.items()}


def _times(a: Float64Array, b: Float64Array) -> Float64Array:
    """Products of quaternions, of shape [..., 4]."""
    w, v, s, u = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    return np.concatenate([
        w * s - (v * u).sum(axis=-1, keepdims=True), w * u + s * v + np.cross(v, u)], axis=-1)


def canonical(scene: Scene) -> Scene:
    """The same Gaussians, each with its axes from the longest to the shortest and turned least.

    An ellipsoid does not change when it is turned by half a turn about one of its axes, or when two
    axes change places with their scales. Of the 24 rotations that describe it the one is taken that
    has its scales in order and is nearest to none, so that codebooks need to tell fewer apart.
    """
    quats = scene.quats.astype(np.float64)
    # No rotation where there is no quaternion, as in the reference.
    quats[np.linalg.norm(quats, axis=1) == 0] = (1, 0, 0, 0)
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    order = np.argsort(-scene.log_scales, axis=1, kind="stable")
    for axes, turns in _turns().items():
        of = np.flatnonzero((order == axes).all(axis=1))
        turned = _times(quats[of, None], turns[None])
        best = np.abs(turned[..., 0]).argmax(axis=1)
        chosen = turned[np.arange(len(of)), best]
        quats[of] = chosen * np.where(chosen[:, :1] < 0, -1, 1)
    return replace(
        scene, quats=quats.astype(np.float32),
        log_scales=np.take_along_axis(scene.log_scales, order, axis=1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """Codebooks, and what they stand for in a scene.

    Parameters
    ----------
    design : CodebookDesign
        Codebooks that there are.
    codebooks : Mapping
        Their entries by name, words of binary16 of shape [entries, numbers].
    indices : Mapping
        Index of every Gaussian in every codebook, shape [N].
    """

    design: CodebookDesign
    codebooks: Codebooks
    indices: Mapping[str, Int64Array]

    def beats(self) -> UInt32Array:
        """Fine halves as they stand in memory, shape [N, 4], of 32-bit words."""
        return np.ascontiguousarray(encode_fine(self.design, self.indices)).view(np.uint32)

    def vector(self, name: str) -> Float64Array:
        """What the codebooks say of a vector, shape [N, numbers]: the sum of its stages."""
        stages = next(stages for each, _, stages in self.design.vectors() if each == name)
        total = np.zeros((), np.float64)
        for stage in range(len(stages)):
            book = self.codebooks[f"{name}{stage}"].view(np.float16).astype(np.float64)
            total = total + book[self.indices[f"{name}{stage}"]]
        return total


def _importance(scene: Scene) -> Float64Array:
    """How much Gaussians count: their opacity times the geometric mean of their larger scales."""
    ordered = np.sort(scene.log_scales.astype(np.float64), axis=1)
    opacity = 1 / (1 + np.exp(-scene.opacity_logits.astype(np.float64)))
    size = ordered[:, 1:].mean(axis=1)
    weights = opacity * np.exp(size - size.max(initial=-np.inf)) if len(size) else opacity
    # Nobody counts for nothing.
    return np.maximum(weights, 1e-6 * weights.max(initial=1e-300))


def quantize(
    scene: Scene, design: CodebookDesign, feature: FeatureFormat | None = None
) -> Quantized:
    """Fit codebooks to a scene, and find every Gaussian's indices. Deterministic.

    Parameters
    ----------
    scene : Scene
        Gaussians; positions and largest scales do not matter.
    design : CodebookDesign
        Which codebooks there are. Those of SH that the scene does not have are zeros.
    feature : FeatureFormat, optional
        See :func:`splatforge.algos.ffu.reach_of`.
    """
    feature = feature or FeatureFormat()
    scene = canonical(scene)
    vectors, weights = fine_vectors(scene, feature), _importance(scene)
    codebooks: dict[str, UInt16Array] = {}
    indices: dict[str, Int64Array] = {}
    for name, numbers, stages in design.vectors():
        left = vectors.get(name, np.zeros((scene.gaussians, len(numbers))))
        if name == "opacity":
            # By the opacity itself: that is what blends. Its logarithm and reach follow.
            left = np.exp2(-left[:, :1])
        for stage, bits in enumerate(stages):
            key = f"{name}{stage}"
            of = weights * _rotation_counts(scene) if name == "rotation" else weights
            if name in vectors:
                book = fit_codebook(left, of, 1 << bits)
            else:
                book = np.zeros((1 << bits, left.shape[1]))
            if name == "opacity":
                codebooks[key] = opacity_entries(
                    -np.log2(np.clip(book[:, 0], 2.0**-14, 1.0)), feature)
            else:
                codebooks[key] = book.astype(np.float16).view(np.uint16)
            if name in vectors:
                indices[key] = nearest_entries(left.astype(np.float32), book.astype(np.float32))
                if name == "rotation" and stage == len(stages) - 1:
                    _shorten(vectors[name] - left, left, book, indices[key])
            else:
                indices[key] = np.zeros(scene.gaussians, np.int64)
            left = left - book[indices[key]]
    return Quantized(design=design, codebooks=codebooks, indices=indices)


def assign(
    scene: Scene, quantized: Quantized, feature: FeatureFormat | None = None
) -> Quantized:
    """The same codebooks with the indices of another scene, or of one that has changed.

    Parameters
    ----------
    scene : Scene
        Gaussians; positions and largest scales do not matter.
    quantized : Quantized
        Codebooks.
    feature : FeatureFormat, optional
        As they were fitted with.
    """
    vectors = fine_vectors(canonical(scene), feature or FeatureFormat())
    indices = {}
    for name, _, stages in quantized.design.vectors():
        if name not in vectors:
            indices |= {f"{name}{stage}": np.zeros(scene.gaussians, np.int64)
                        for stage in range(len(stages))}
            continue
        # As :func:`quantize` does: opacities by themselves, every stage what is left.
        left = np.exp2(-vectors[name][:, :1]) if name == "opacity" else vectors[name]
        for stage in range(len(stages)):
            key = f"{name}{stage}"
            book = quantized.codebooks[key].view(np.float16).astype(np.float64)
            if name == "opacity":
                book = np.exp2(-book[:, :1])
            indices[key] = nearest_entries(left.astype(np.float32), book.astype(np.float32))
            if name == "rotation" and stage == len(stages) - 1:
                _shorten(vectors[name] - left, left, book, indices[key])
            left = left - book[indices[key]]
    return replace(quantized, indices=indices)
def _shorten(
    before: Float64Array, left: Float64Array, book: Float64Array, indices: Int64Array
) -> None:
    """Choose other entries of the last stage for quaternions that come out longer than one.

    A shorter one squeezes a Gaussian, a longer one stretches it: a filter that goes by the largest
    scale could lose some of it. Of the entries that do not, the nearest is taken, where there is
    one. Changes `indices`.

    Parameters
    ----------
    before, left : ndarray
        What the stages before say, and what they leave, shape [N, 4].
    book : ndarray
        Entries of the last stage.
    indices : ndarray
        Those chosen, shape [N].
    """
    limit = 2 * (1 + _LENGTH_SLACK)
    long = np.flatnonzero(((before + book[indices]) ** 2).sum(axis=1) > limit)
    for first in range(0, len(long), 256):
        of = long[first:first + 256]
        length2 = ((before[of, None] + book) ** 2).sum(axis=2)
        far = ((left[of, None] - book) ** 2).sum(axis=2)
        indices[of] = np.where(length2 <= limit, far, 1e3 + length2).argmin(axis=1)


def _rotation_counts(scene: Scene) -> Float64Array:
    """How much a rotation matters to a Gaussian: not at all to a ball."""
    scales = np.exp(scene.log_scales.astype(np.float64))
    return 1e-3 + 1 - scales[:, 2] / scales[:, 0]


def decode(cut: Partition, quantized: Quantized) -> Scene:
    """The scene as the hardware sees it, voxel after voxel.

    The hardware takes quaternions as they are decoded; those of a length other than one turn and
    squeeze a Gaussian. What comes out is an ellipsoid again, whose axes are worked out here.

    Parameters
    ----------
    cut : Partition
        Means and largest scales.
    quantized : Quantized
        The rest, in the order of the voxels.
    """
    ratios = np.maximum(quantized.vector("ratios"), 1e-6)
    opacity = np.exp2(-np.maximum(quantized.vector("opacity")[:, 0], 0))
    degree = min(cut.scene.sh_degree, quantized.design.sh_degree)
    sh = np.zeros((cut.gaussians, (degree + 1) ** 2, 3))
    sh[:, 0] = quantized.vector("color") - 0.5
    for band in range(1, degree + 1):
        sh[:, band**2:(band + 1) ** 2] = quantized.vector(f"sh{band}").reshape(
            cut.gaussians, 2 * band + 1, 3)
    sh /= np.array(sh_factors())[:sh.shape[1], None]
    scales = cut.scales()[:, None] * np.concatenate([np.ones((cut.gaussians, 1)), ratios], axis=1)
    quats = quantized.vector("rotation") / sqrt(2)
    length2 = (quats * quats).sum(axis=1)
    odd = np.flatnonzero(np.abs(length2 - 1) > _LENGTH_SLACK)
    if len(odd):
        # The hardware's matrix is a mean of the rotation and the identity.
        share, turned = length2[odd, None, None], _matrices(quats[odd])
        factors = (share * turned + (1 - share) * np.eye(3)) * scales[odd, None]
        axes, sizes, _ = np.linalg.svd(factors)
        axes, scales[odd] = _aligned(axes, sizes, turned)
        quats[odd] = _quaternions(axes)
    logits = np.log(opacity) - np.log1p(-np.minimum(opacity, 1 - 1e-9))
    means, log_scales, quats, logits, sh = (
        array.astype(np.float32)
        for array in (cut.means(), np.log(scales), quats, logits, sh))
    return Scene(
        means=means, log_scales=log_scales, quats=quats, opacity_logits=logits, sh=sh,
        antialiased=cut.scene.antialiased)


def straight_through(
    cut: Partition, quantized: Quantized, feature: FeatureFormat | None = None
) -> Callable[[Scene], Scene]:
    """What the hardware keeps of a scene by codebooks that stay, for fine-tuning to look through.

    Parameters
    ----------
    cut : Partition
        Of the scene that is tuned; the largest scales that it stores follow the scene at hand.
    quantized : Quantized
        Codebooks; indices are found anew for every scene.
    feature : FeatureFormat, optional
        As the codebooks were fitted with.

    Returns
    -------
    callable
        Takes a scene; returns it quantized, in the same order, each Gaussian along the same axes,
        its quaternion of unit length and on the same side: so derivatives by what is kept stand
        for derivatives by what it is kept of.
    """
    place = np.empty(cut.gaussians, np.int64)
    place[cut.ids] = np.arange(cut.gaussians)

    def kept(scene: Scene) -> Scene:
        ordered = scene.select(cut.ids)
        largest = np.exp(ordered.log_scales.max(axis=1).astype(np.float64))
        stored = replace(cut, scene=scene, scale=ceil_half(np.ldexp(largest, cut.scale_log2)))
        decoded = decode(stored, assign(ordered, quantized, feature)).select(place)
        # Back onto the scene's own axes: those of the codes are in the order of their scales.
        own = scene.quats / np.linalg.norm(scene.quats.astype(np.float64), axis=1, keepdims=True)
        turn = _times(own * _CONJUGATE, canonical(scene).quats.astype(np.float64))
        quats = decoded.quats / np.linalg.norm(
            decoded.quats.astype(np.float64), axis=1, keepdims=True)
        quats = _times(quats, turn * _CONJUGATE)
        quats *= np.where((quats * own).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
        log_scales = np.empty_like(decoded.log_scales)
        axes = np.argsort(-scene.log_scales, axis=1, kind="stable")
        np.put_along_axis(log_scales, axes, decoded.log_scales, axis=1)
        return replace(decoded, quats=quats, log_scales=log_scales)

    return kept
