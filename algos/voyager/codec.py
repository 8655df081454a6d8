"""Gaussians as they travel: fixed point, and indices into codebooks for SH.

Sources: Nebula (ASPLOS 2026): vector quantization of SH as in Compact3DGS, fixed point of 16 bits
for the rest. Ranges are those of the whole city, so that a code means the same all along. Of a
quaternion the largest component is left out and made positive; the others are within
``[-1/sqrt(2), 1/sqrt(2)]``. An opacity is sent as itself, colour of degree zero as its coefficient.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from splatforge.algos.streaminggs.quantize import fit_codebook, nearest_entries
from splatforge.algos.voyager.wire import PayloadReader, WireError
from splatforge.designs.streaming import StreamingDesign
from splatforge.scenes import Scene, SceneError
from splatforge.scenes.scene import SH_COEFFICIENTS

__all__ = ["Codec", "Ranges", "fit_codec", "ranges_of"]

Float64Array = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

#: Gaussians that codebooks are fitted to, at most.
_SAMPLE = 1 << 17
#: Lowest and highest of each axis or channel by name, float64 of shape [2, 3].
Ranges = Mapping[str, Float64Array]
_HALF_SQRT2 = 0.5**0.5
_RANGES = ("position", "scale", "color")
#: Beyond, a scene is refused (:mod:`splatforge.scenes.scene`).
_LIMITS = {"position": (-1e12, 1e12), "scale": (-1e4, 30.0), "color": (-1e6, 1e6)}
#: Log scale below which a Gaussian is a point anyway; of a flat one it may be minus infinity.
_SMALLEST = -30.0
_STATE = struct.Struct("<BB5BB")


@dataclass(frozen=True, kw_only=True, eq=False)
class Codec:
    """What both ends know to code and to decode Gaussians.

    Parameters
    ----------
    design : StreamingDesign
        Bits of every number.
    sh_degree : int
        Of the Gaussians, 0 to 3.
    antialiased : bool
        As in :class:`splatforge.scenes.Scene`.
    ranges : Mapping
        ``position``, ``scale``, ``color``: lowest and highest of each axis or channel, float64 of
        shape [2, 3].
    codebooks : Mapping
        ``sh1_0`` and so on: entries, binary16 of shape [2**bits, 3 * (2 * degree + 1)].
    """

    design: StreamingDesign
    sh_degree: int
    antialiased: bool
    ranges: Ranges
    codebooks: Mapping[str, npt.NDArray[np.float16]]

    def size_bytes(self, gaussians: int) -> int:
        """Bytes of coded Gaussians."""
        return sum(gaussians * (bits // 8) + -(-gaussians * (bits % 8) // 8)
                   for _, bits in self.design.fields(self.sh_degree))

    def encode(self, scene: Scene) -> bytes:
        """Bytes of Gaussians, number after number: alike stands beside alike."""
        design = self.design
        values: dict[str, Int64Array] = {}
        for kind, names, array, bits in (
            ("position", "xyz", scene.means, design.position_bits),
            ("scale", "xyz", np.maximum(scene.log_scales, _SMALLEST), design.scale_bits),
            ("color", ("red", "green", "blue"), scene.sh[:, 0], design.color_bits),
        ):
            low, high = self.ranges[kind]
            step = np.where(high > low, high - low, 1.0) / ((1 << bits) - 1)
            codes = np.rint((array.astype(np.float64) - low) / step)
            codes = np.clip(codes, 0, (1 << bits) - 1).astype(np.int64)
            values |= {f"{kind}_{name}": codes[:, k] for k, name in enumerate(names)}
        values["rotation_largest"], smaller = _smaller_three(scene.quats)
        top = (1 << design.rotation_bits) - 1
        codes = np.rint((smaller / _HALF_SQRT2 + 1) / 2 * top)
        for place in range(3):
            values[f"rotation_{place}"] = np.clip(codes[:, place], 0, top).astype(np.int64)
        opacity = 1 / (1 + np.exp(-scene.opacity_logits.astype(np.float64)))
        levels = 1 << design.opacity_bits
        values["opacity"] = np.clip(np.floor(opacity * levels), 0, levels - 1).astype(np.int64)
        for degree in range(1, self.sh_degree + 1):
            left = _band(scene.sh, degree).astype(np.float32)
            for stage in range(len(getattr(design, f"sh{degree}"))):
                book = self.codebooks[f"sh{degree}_{stage}"].astype(np.float32)
                values[f"sh{degree}_{stage}"] = index = nearest_entries(left, book)
                left = left - book[index]
        return b"".join(_pack(values[name], bits) for name, bits in design.fields(self.sh_degree))

    def decode(self, data: bytes, gaussians: int) -> Scene:
        """Gaussians of bytes; a Gaussian comes out alike in whatever company it travels.

        Raises
        ------
        WireError
            If the bytes are not so many.
        """
        reader = PayloadReader("Gaussians", data)
        values = {name: _unpack(reader, gaussians, bits)
                  for name, bits in self.design.fields(self.sh_degree)}
        reader.end()
        arrays: dict[str, Float64Array] = {}
        for kind, names, bits in (
            ("position", "xyz", self.design.position_bits),
            ("scale", "xyz", self.design.scale_bits),
            ("color", ("red", "green", "blue"), self.design.color_bits),
        ):
            low, high = self.ranges[kind]
            codes = np.stack([values[f"{kind}_{name}"] for name in names], axis=1)
            arrays[kind] = low + codes * ((high - low) / ((1 << bits) - 1))
        top = (1 << self.design.rotation_bits) - 1
        smaller = np.stack([values[f"rotation_{place}"] for place in range(3)], axis=1)
        quats = _whole(values["rotation_largest"], (smaller * (2 / top) - 1) * _HALF_SQRT2)
        opacity = (values["opacity"] + 0.5) / (1 << self.design.opacity_bits)
        sh = np.zeros((gaussians, SH_COEFFICIENTS[self.sh_degree], 3), np.float32)
        sh[:, 0] = arrays["color"]
        for degree in range(1, self.sh_degree + 1):
            band = np.zeros((gaussians, 3 * (2 * degree + 1)), np.float32)
            for stage in range(len(getattr(self.design, f"sh{degree}"))):
                name = f"sh{degree}_{stage}"
                band += self.codebooks[name].astype(np.float32)[values[name]]
            sh[:, degree**2:(degree + 1)**2] = band.reshape(
                gaussians, 2 * degree + 1, 3)
        try:
            return Scene(
                means=arrays["position"].astype(np.float32),
                log_scales=arrays["scale"].astype(np.float32), quats=quats.astype(np.float32),
                opacity_logits=_logits(opacity), sh=sh, antialiased=self.antialiased)
        except SceneError as error:
            raise WireError(f"Gaussians cannot be drawn: {error}") from None

    def to_bytes(self) -> bytes:
        """The codec itself, for the other end."""
        design = self.design
        parts = [_STATE.pack(
            self.sh_degree, self.antialiased, design.position_bits, design.scale_bits,
            design.rotation_bits, design.opacity_bits, design.color_bits, self.sh_degree)]
        for degree in range(1, 4):
            stages = getattr(design, f"sh{degree}")
            parts.append(bytes([len(stages), *stages]))
        parts += [np.asarray(self.ranges[name], "<f8").tobytes() for name in _RANGES]
        parts += [self.codebooks[name].astype("<f2").tobytes() for name in self._names()]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes, design: StreamingDesign) -> "Codec":
        """What :meth:`to_bytes` has made.

        Parameters
        ----------
        data : bytes
            All of it.
        design : StreamingDesign
            Parameters that have nothing to do with coding.

        Raises
        ------
        WireError
            If it is not that.
        """
        reader = PayloadReader("Codec", data)
        degree, antialiased, *bits, again = reader.numbers("BB5BB")
        if degree > 3 or again != degree or antialiased > 1:
            raise WireError(f"Codec must have an SH degree of 0 to 3 and a flag, "
                            f"not {degree}, {again}, {antialiased}")
        stages = [tuple(reader.take(reader.numbers("B")[0])) for _ in range(3)]
        try:
            design = _with_bits(design, bits, stages)
        except ValueError as error:
            raise WireError(f"Codec: {error}") from None
        ranges, codebooks = {}, {}
        for name in _RANGES:
            ranges[name] = span = reader.array("<f8", 6).reshape(2, 3)
            low, high = _LIMITS[name]
            if not ((span >= low) & (span <= high) & (span[0] <= span[1])).all():
                raise WireError(f"Codec must have a range of {name} within {low:g} and {high:g}")
        for band in range(1, degree + 1):
            for stage, width in enumerate(getattr(design, f"sh{band}")):
                entries = reader.array("<f2", (1 << width) * 3 * (2 * band + 1))
                if not np.isfinite(entries).all():
                    raise WireError(f"Codec must have finite entries in sh{band}_{stage}")
                codebooks[f"sh{band}_{stage}"] = entries.reshape(1 << width, -1)
        reader.end()
        return cls(design=design, sh_degree=degree, antialiased=bool(antialiased), ranges=ranges,
                   codebooks=codebooks)

    def digest(self) -> int:
        """64 bits that tell codecs apart."""
        return int.from_bytes(blake2b(self.to_bytes(), digest_size=8).digest(), "little")

    def _names(self) -> list[str]:
        return [f"sh{degree}_{stage}" for degree in range(1, self.sh_degree + 1)
                for stage in range(len(getattr(self.design, f"sh{degree}")))]


def ranges_of(parts: Iterable[tuple[Float32Array, Float32Array, Float32Array]]) -> Ranges:
    """Ranges of means, log scales and SH of degree zero, each of shape [N, 3], of all parts."""
    found = {name: [] for name in _RANGES}
    for means, log_scales, colors in parts:
        scales = np.clip(log_scales, _SMALLEST, 30.0)
        for name, array in zip(_RANGES, (means, scales, colors), strict=True):
            if len(array):
                found[name] += [array.min(axis=0), array.max(axis=0)]
    return {name: np.stack([np.min(ends, axis=0), np.max(ends, axis=0)]).astype(np.float64)
            if ends else np.zeros((2, 3)) for name, ends in found.items()}


def fit_codec(sample: Scene, design: StreamingDesign, ranges: Ranges | None = None) -> Codec:
    """Codec of a city. Deterministic.

    Gaussians count by their opacity: those of a cut are about as large as each other on screen.

    Parameters
    ----------
    sample : Scene
        Gaussians that codebooks are fitted to, 131,072 of them at most.
    design : StreamingDesign
        Bits of every number.
    ranges : Mapping, optional
        Of all Gaussians, where the sample does not hold them: see :func:`ranges_of`.
    """
    if ranges is None:
        ranges = ranges_of([(sample.means, sample.log_scales, sample.sh[:, 0])])
    stride = max(1, -(-sample.gaussians // _SAMPLE))
    sh, logits = sample.sh[::stride], sample.opacity_logits[::stride]
    weights = 1e-3 + 1 / (1 + np.exp(-logits.astype(np.float64)))
    codebooks = {}
    for degree in range(1, sample.sh_degree + 1):
        left = _band(sh, degree).astype(np.float64)
        for stage, bits in enumerate(getattr(design, f"sh{degree}")):
            book = fit_codebook(left, weights, 1 << bits)
            codebooks[f"sh{degree}_{stage}"] = book.astype(np.float16)
            left = left - book[nearest_entries(left.astype(np.float32), book.astype(np.float32))]
    return Codec(design=design, sh_degree=sample.sh_degree, antialiased=sample.antialiased,
                 ranges=ranges, codebooks=codebooks)


def _with_bits(design: StreamingDesign, bits: list[int], stages: list[tuple[int, ...]]
               ) -> StreamingDesign:
    names = ("position_bits", "scale_bits", "rotation_bits", "opacity_bits", "color_bits",
             "sh1", "sh2", "sh3")
    return replace(design, **dict(zip(names, [*bits, *stages], strict=True)))


def _band(sh: Float32Array, degree: int) -> Float32Array:
    """Coefficients of a degree, shape [N, 3 * (2 * degree + 1)]."""
    return sh[:, degree**2:(degree + 1)**2].reshape(len(sh), 3 * (2 * degree + 1))


def _smaller_three(quats: Float32Array) -> tuple[Int64Array, Float64Array]:
    """Which component is the largest, and the others of the quaternion that has it positive."""
    whole = quats.astype(np.float64)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    largest = np.abs(whole).argmax(axis=1)
    rows = np.arange(len(whole))
    whole *= np.where(whole[rows, largest] < 0, -1.0, 1.0)[:, None]
    return largest, whole[np.arange(4) != largest[:, None]].reshape(-1, 3)


def _whole(largest: Int64Array, smaller: Float64Array) -> Float64Array:
    """Quaternions of what :func:`_smaller_three` leaves."""
    rest = np.sqrt(np.maximum(1 - (smaller * smaller).sum(axis=1), 0.0))
    quats = np.empty((len(smaller), 4))
    others = np.arange(4) != largest[:, None]
    quats[others] = smaller.reshape(-1)
    quats[~others] = rest
    return quats


def _logits(opacity: Float64Array) -> Float32Array:
    return np.log(opacity / (1 - opacity)).astype(np.float32)


def _pack(values: Int64Array, bits: int) -> bytes:
    """Whole bytes from the highest down, a plane each, then the lowest bits close together."""
    planes = [((values >> (bits - 8 * (plane + 1))) & 255).astype(np.uint8).tobytes()
              for plane in range(bits // 8)]
    if few := bits % 8:
        rest = (values[:, None] >> np.arange(few - 1, -1, -1)) & 1
        planes.append(np.packbits(rest.astype(np.uint8)).tobytes())
    return b"".join(planes)


def _unpack(reader: PayloadReader, count: int, bits: int) -> Int64Array:
    """What :func:`_pack` has packed."""
    values = np.zeros(count, np.int64)
    for _ in range(bits // 8):
        values = values << 8 | np.frombuffer(reader.take(count), np.uint8)
    if few := bits % 8:
        packed = np.frombuffer(reader.take(-(-count * few // 8)), np.uint8)
        rest = np.unpackbits(packed, count=count * few).reshape(count, few).astype(np.int64)
        values = values << few | rest @ (1 << np.arange(few - 1, -1, -1))
    return values
