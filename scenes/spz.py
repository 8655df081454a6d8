"""The .spz file of Niantic: a gzip stream of a 16-byte header and planes of quantised values.

Planes in this order: positions (24-bit fixed point with a binary point from the header),
opacities, colours, log-scales (``byte / 16 - 10``), rotations (version 2: x, y, z in a byte each,
w >= 0 follows; version 3: the three smallest components with a sign and 9 bits each below the
2-bit index of the largest in the order x, y, z, w), SH coefficients (``(byte - 128) / 128``,
coefficient by coefficient). Source: github.com/nianticlabs/spz, load-spz.cc. Version 1, with
half-precision positions, is read as well; version 4 (zstd streams) is not.

Coordinates are kept as the file has them: +y is up in most .spz files, where INRIA PLY files
mostly have -y up.
"""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from splatforge.scenes.atomic_file import atomic_file
from splatforge.scenes.quaternions import insert_largest
from splatforge.scenes.scene import SH_COEFFICIENTS, Scene, SceneError
from splatforge.scenes.slots import Slots, check_gaussians, opacity_logits

_HEADER = struct.Struct("<4sIIBBBB")
_MAGIC = b"NGSP"
_ANTIALIASED, _EXTENSIONS = 1, 2
_COLOR_SCALE = 0.15
_READ = 1 << 20
# A header may declare many Gaussians in a few hundred bytes of zeros; beyond that many, a
# stream with less than a byte for each is a decompression bomb, not a capture.
_FREE_GAUSSIANS = 1 << 18
# Deflate cannot make more than this out of a byte.
_DEFLATE_RATIO = 1032


class SpzSource:
    """A .spz file; see :class:`splatforge.scenes.slots.Source`.

    Parameters
    ----------
    path : Path
        The file, or what the errors name when ``data`` is given.
    data : bytes, optional
        The contents, when they stand inside another file.
    """

    format = "spz"

    def __init__(self, path: Path, data: bytes | None = None) -> None:
        self.path = path
        self._data = data
        with self._open() as file:
            head = _inflate(path, file, _HEADER.size, whole=False)
        magic, version, gaussians, degree, fraction_bits, flags, _ = _HEADER.unpack(head)
        if magic != _MAGIC:
            raise SceneError(f"{path}: magic must be {_MAGIC!r}, not {magic!r}: no .spz file")
        if version not in (1, 2, 3):
            raise SceneError(
                f"{path}: version must be 1, 2 or 3, not {version}: convert it to version 3"
            )
        check_gaussians(path, "numPoints", gaussians)
        if degree > 3:
            raise SceneError(f"{path}: shDegree must be 0 to 3, not {degree}: convert it to 3")
        if fraction_bits > 23:
            raise SceneError(
                f"{path}: fractionalBits must be 0 to 23, not {fraction_bits}: the file is damaged"
            )
        size = len(data) if data is not None else path.stat().st_size
        needed = gaussians * (9 + 3 * SH_COEFFICIENTS[degree])
        if gaussians > max(size, _FREE_GAUSSIANS) or needed > size * _DEFLATE_RATIO:
            raise SceneError(
                f"{path}: numPoints must fit the file, not {gaussians} in {size} bytes: "
                "the header is damaged"
            )
        self.gaussians = gaussians
        self.sh_degree = degree
        self.antialiased = bool(flags & _ANTIALIASED)
        self._has_extensions = bool(flags & _EXTENSIONS)
        self._version = version
        self._fraction_bits = fraction_bits

    def read(self, slots: Slots) -> None:
        """Decode every Gaussian into ``slots``."""
        n, k = self.gaussians, SH_COEFFICIENTS[self.sh_degree] - 1
        position_bytes = 2 if self._version == 1 else 3
        widths = [3 * position_bytes, 1, 3, 3, 4 if self._version == 3 else 3, 3 * k]
        with self._open() as file:
            data = _inflate(
                self.path, file, _HEADER.size + n * sum(widths), whole=not self._has_extensions
            )
        planes, start = [], _HEADER.size
        for width in widths:
            planes.append(np.frombuffer(data, np.uint8, n * width, start).reshape(n, width))
            start += n * width
        positions, alphas, colors, scales, rotations, sh = planes
        if self._version == 1:
            slots.means[:] = positions.view("<f2")
        else:
            fixed = np.zeros((n, 3, 4), np.uint8)
            fixed[:, :, 1:] = positions.reshape(n, 3, 3)
            # In the upper three bytes of a word, the arithmetic shift extends the sign.
            slots.means[:] = (fixed.view("<i4")[:, :, 0] >> 8) / np.float64(
                1 << self._fraction_bits
            )
        slots.opacity_logits[:] = opacity_logits(np.arange(256) / 255)[alphas[:, 0]]
        slots.sh[:, 0] = ((np.arange(256) / 255 - 0.5) / _COLOR_SCALE).astype(np.float32)[colors]
        slots.log_scales[:] = (np.arange(256) / 16 - 10).astype(np.float32)[scales]
        slots.quats[:] = (_smallest_three if self._version == 3 else _first_three)(rotations)
        if k:
            table = ((np.arange(256) - 128) / 128).astype(np.float32)
            slots.sh[:, 1 : k + 1] = table[sh].reshape(n, k, 3)

    def _open(self) -> BinaryIO:
        return self.path.open("rb") if self._data is None else BytesIO(self._data)


def _inflate(path: Path, file: BinaryIO, size: int, *, whole: bool) -> bytes | bytearray:
    """Return the first ``size`` bytes of a gzip stream; with ``whole`` it must end there."""
    stream = zlib.decompressobj(31)
    # Grows with what really comes out: a header that lies never allocates what it declares.
    out = bytearray()
    pending = b""
    try:
        while len(out) < size + whole and not stream.eof:
            pending = stream.unconsumed_tail or file.read(_READ)
            if not pending:
                break
            out += stream.decompress(pending, min(_READ * 4, size + whole - len(out)))
        while whole and len(out) == size and not stream.eof:
            # The trailer with the checksum may stand in input that is not consumed yet.
            pending = stream.unconsumed_tail or file.read(_READ)
            if not pending:
                break
            out += stream.decompress(pending, 1)
    except zlib.error as error:
        if not out and pending[:4] == _MAGIC:
            raise SceneError(
                f"{path}: version must be 1, 2 or 3, which are gzip streams, not "
                f"{int.from_bytes(pending[4:8], 'little')}: convert it to version 3"
            ) from error
        raise SceneError(
            f"{path}: gzip stream is damaged ({error}): fetch the file again"
        ) from error
    if len(out) < size or (whole and not stream.eof and len(out) == size):
        raise SceneError(
            f"{path}: gzip stream must hold {size} bytes and end, not break off after {len(out)}: "
            "the file is truncated or numPoints is wrong"
        )
    if whole and len(out) > size:
        raise SceneError(
            f"{path}: gzip stream must end after {size} bytes, but goes on: "
            "numPoints or shDegree is wrong"
        )
    return out


def _first_three(rotations: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    small = rotations / 127.5 - 1
    quats = insert_largest(small, np.zeros(len(small), np.intp))
    # x, y, z in a byte each can be longer than a unit; w is zero then.
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


def _smallest_three(rotations: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    word = np.ascontiguousarray(rotations).view("<u4")[:, 0]
    fields = np.stack([word >> 20 & 1023, word >> 10 & 1023, word & 1023], axis=1)
    small = (fields & 511) / 511 * np.sqrt(0.5) * np.where(fields & 512, -1, 1)
    xyzw = insert_largest(small, (word >> 30).astype(np.intp))
    quats = xyzw[:, [3, 0, 1, 2]]
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


def write_spz(
    scene: Scene, path: Path, *, version: int = 3, sh_bits: tuple[int, int] = (8, 8)
) -> None:
    """Write ``scene`` as .spz.

    Parameters
    ----------
    scene : Scene
        At least one Gaussian.
    path : Path
        Where to.
    version : int
        2 or 3; 3 stores rotations in four bytes instead of three.
    sh_bits : tuple of int
        Bits, 1 to 8, kept of the coefficients of band 1 and of the bands above; zeros fill the
        byte. Niantic's own writer keeps 5 and 4, which compresses much better.

    Notes
    -----
    Positions get as many of 24 bits behind the binary point as the largest coordinate leaves, 12
    at most where that is enough for a quarter of a thousandth of a unit, more for small scenes.
    Everything else has one byte: log-scales in steps of 1/16 from -10 to 5.94, SH coefficients in
    [-1, 1). The same scene gives the same bytes always.

    Raises
    ------
    SceneError
        The version is not 2 or 3, the scene is empty or too wide for 24 bits, or the file cannot
        be written.
    """
    if version not in (2, 3):
        raise SceneError(f"{path}: version must be 2 or 3, not {version!r}")
    if not all(1 <= bits <= 8 for bits in sh_bits):
        raise SceneError(f"{path}: sh_bits must be 1 to 8, not {sh_bits!r}")
    if not scene.gaussians:
        raise SceneError(f"{path}: gaussians must be at least 1, not 0")
    widest = float(np.abs(scene.means).max())
    # The largest number of fraction bits that keeps the widest coordinate within 23 bits.
    fraction_bits = min(23, 22 - int(np.ceil(np.log2(max(widest, 2.0**-20) * (1 + 2.0**-22)))))
    if fraction_bits < 0:
        raise SceneError(
            f"{path}: means must be within 4194304 of the origin for .spz, not {widest:g} away: "
            "write a PLY"
        )
    fixed = np.rint(scene.means.astype(np.float64) * (1 << fraction_bits)).astype("<i4")
    positions = fixed.view(np.uint8).reshape(-1, 4)[:, :3]
    opacity = 1 / (1 + np.exp(-scene.opacity_logits.astype(np.float64)))
    planes = [
        positions,
        _to_byte(opacity * 255),
        _to_byte((scene.sh[:, 0].astype(np.float64) * _COLOR_SCALE + 0.5) * 255),
        _to_byte((scene.log_scales.astype(np.float64) + 10) * 16),
        _pack_rotation(scene.quats, version),
        _quantize_sh(scene.sh[:, 1:4], sh_bits[0]),
        _quantize_sh(scene.sh[:, 4:], sh_bits[1]),
    ]
    flags = _ANTIALIASED if scene.antialiased else 0
    head = _HEADER.pack(_MAGIC, version, scene.gaussians, scene.sh_degree, fraction_bits, flags, 0)
    # Not the gzip module: its header carries a time, and equal scenes should give equal files.
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    planes[-2:] = [np.concatenate(planes[-2:], axis=1)]  # one plane, Gaussian by Gaussian
    with atomic_file(path) as file:
        file.write(stream.compress(head))
        for plane in planes:
            file.write(stream.compress(plane.tobytes()))
        file.write(stream.flush())


def _to_byte(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _quantize_sh(sh: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.uint8]:
    step = 1 << (8 - bits)
    return _to_byte(np.rint(sh.astype(np.float64) * 128 / step) * step + 128)


def _pack_rotation(quats: npt.NDArray[np.float32], version: int) -> npt.NDArray[np.uint8]:
    unit = quats.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    xyzw = unit[:, [1, 2, 3, 0]]
    if version == 2:
        xyzw = np.where(xyzw[:, 3:] < 0, -xyzw, xyzw)
        return _to_byte(xyzw[:, :3] * 127.5 + 127.5)
    largest = np.abs(xyzw).argmax(axis=1)
    sign = np.take_along_axis(xyzw, largest[:, None], axis=1) < 0
    xyzw = np.where(sign, -xyzw, xyzw)
    kept = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    small = np.take_along_axis(xyzw, kept, axis=1)
    magnitude = np.minimum(np.rint(np.abs(small) / np.sqrt(0.5) * 511), 511).astype(np.uint32)
    field = magnitude | (small < 0).astype(np.uint32) << 9
    word = largest.astype(np.uint32) << 30 | field[:, 0] << 20 | field[:, 1] << 10 | field[:, 2]
    return word.astype("<u4").view(np.uint8).reshape(-1, 4)
