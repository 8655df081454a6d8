"""The .sog file of PlayCanvas: a zip (or a folder) of ``meta.json`` and lossless WebP planes.

Every plane has one pixel per Gaussian, row by row: positions in two planes of low and high bytes
(16-bit fractions of bounds in a signed logarithmic domain), quaternions as the three smallest
components and a tag in alpha, scales and colours as indices into codebooks of 256, opacity in the
alpha of the colour plane. Higher SH bands are a palette: a plane of 16-bit labels and a plane of
centroids, 64 to a row. Version 1 has linear ranges where version 2 has codebooks, and logits in
the alpha of the colour plane. Source: the SOG specification in the PlayCanvas developer site and
the readers of splat-transform.
"""

import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from splatforge.scenes.json_fields import Fields
from splatforge.scenes.quaternions import insert_largest
from splatforge.scenes.regular_file import check_regular_file
from splatforge.scenes.scene import SH_COEFFICIENTS, SceneError
from splatforge.scenes.slots import Slots, check_gaussians, opacity_logits

Uint8Array = npt.NDArray[np.uint8]

_META = "meta.json"
_META_LIMIT = 1 << 20
_PALETTE_LIMIT = 1 << 16
_PER_ROW = 64
# Constant WebP planes compress a million to one; beyond this many Gaussians, a file with less
# than a byte for each is a decompression bomb, not a capture.
_FREE_GAUSSIANS = 1 << 18


class SogSource:
    """A .sog file, or the ``meta.json`` of an unbundled one.

    See :class:`splatforge.scenes.slots.Source`.
    """

    format = "sog"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bundled = path.suffix.lower() != ".json"
        meta = Fields.parse(path, self._member(_META, _META_LIMIT), _META)
        self._version = meta.integer("version", 1, 2) if "version" in meta else 1
        if self._version == 2:
            self.gaussians = meta.integer("count")
            field = "count"
        else:
            shape = meta.object("means").array("shape")
            if not shape or not isinstance(shape[0], int) or isinstance(shape[0], bool):
                raise SceneError(
                    f"{path}: means.shape must begin with a whole number: the file is damaged"
                )
            self.gaussians = shape[0]
            field = "means.shape"
        check_gaussians(path, field, self.gaussians)
        size = path.stat().st_size
        if self._bundled and self.gaussians > max(size, _FREE_GAUSSIANS):
            raise SceneError(
                f"{path}: {field} must fit the file, not {self.gaussians} in {size} bytes: "
                "the header is damaged"
            )
        self._meta = meta
        self.antialiased = meta.boolean("antialias")
        self.sh_degree = self._read_sh_degree() if "shN" in meta else 0

    def read(self, slots: Slots) -> None:
        """Decode every Gaussian into ``slots``."""
        self._read_means(slots)
        quats = self._plane("quats", 0)
        tags = quats[:, 3].astype(np.intp) - 252
        if tags.min() < 0:
            first = int(np.argmax(tags < 0))
            raise SceneError(
                f"{self.path}: quats tag must be 252 to 255, not {quats[first, 3]} at Gaussian "
                f"{first}: the plane is damaged or was compressed with loss"
            )
        slots.quats[:] = insert_largest((quats[:, :3] / 255 - 0.5) * np.sqrt(2), tags)
        scales = self._plane("scales", 0)[:, :3]
        colors = self._plane("sh0", 0)
        if self._version == 2:
            slots.log_scales[:] = self._codebook("scales")[scales]
            slots.sh[:, 0] = self._codebook("sh0")[colors[:, :3]]
            slots.opacity_logits[:] = opacity_logits(np.arange(256) / 255)[colors[:, 3]]
        else:
            slots.log_scales[:] = self._range("scales", 3, scales)
            color = self._range("sh0", 4, colors)
            slots.sh[:, 0] = color[:, :3]
            slots.opacity_logits[:] = color[:, 3]
        if self.sh_degree:
            self._read_sh(slots)

    def _read_sh_degree(self) -> int:
        bands = self._meta.object("shN")
        if self._version == 2:
            return bands.integer("bands", 1, 3)
        name = bands.texts("files", 2)[0]
        width, _ = webp_size(self.path, name, self._member(name, 1 << 26))
        degrees = {_PER_ROW * (SH_COEFFICIENTS[degree] - 1): degree for degree in (1, 2, 3)}
        if width not in degrees:
            raise SceneError(
                f"{self.path}: {name} width must be one of {sorted(degrees)}, not {width}: "
                "the file is damaged"
            )
        return degrees[width]

    def _read_means(self, slots: Slots) -> None:
        means = self._meta.object("means")
        low, high = means.numbers("mins", (3,)), means.numbers("maxs", (3,))
        lower, upper = self._plane("means", 0), self._plane("means", 1)
        for axis in range(3):
            t = (lower[:, axis] | upper[:, axis].astype(np.uint16) << 8) / 65535
            logarithm = low[axis] + (high[axis] - low[axis]) * t
            with np.errstate(over="ignore"):  # hostile bounds: the scene checks what comes out
                slots.means[:, axis] = np.copysign(np.expm1(np.abs(logarithm)), logarithm)

    def _read_sh(self, slots: Slots) -> None:
        bands = self._meta.object("shN")
        k = SH_COEFFICIENTS[self.sh_degree] - 1
        name = bands.texts("files", 2)[0]
        encoded = self._member(name, self._plane_limit(_PALETTE_LIMIT * k))
        width, height = webp_size(self.path, name, encoded)
        if width != _PER_ROW * k or not 1 <= height <= _PALETTE_LIMIT // _PER_ROW:
            raise SceneError(
                f"{self.path}: {name} must be {_PER_ROW * k} x 1 to "
                f"{_PALETTE_LIMIT // _PER_ROW} pixels, not {width} x {height}: "
                "the file is damaged"
            )
        pixels = _decode_webp(self.path, name, encoded)[:, :, :3].reshape(-1, k, 3)
        entries = len(pixels)
        if self._version == 2:
            entries = min(entries, bands.integer("count", 1, _PALETTE_LIMIT))
            palette = self._codebook("shN")[pixels]
        else:
            low, high = bands.number("mins"), bands.number("maxs")
            palette = (low + (high - low) * np.arange(256) / 255).astype(np.float32)[pixels]
        labels = self._plane("shN", 1)
        label = labels[:, 0] | labels[:, 1].astype(np.uint16) << 8
        if label.max() >= entries:
            first = int(np.argmax(label >= entries))
            raise SceneError(
                f"{self.path}: shN label must be below {entries}, not {label[first]} at Gaussian "
                f"{first}: the file is damaged"
            )
        slots.sh[:, 1 : k + 1] = palette[label]

    def _codebook(self, key: str) -> npt.NDArray[np.float32]:
        section = self._meta.object(key)
        values = section.array("codebook")
        if len(values) == 256 and values[0] is None and isinstance(values[1], int | float):
            # Early splat-transform wrote NaN, hence null, for the first entry; this is how the
            # PlayCanvas engine fills it in.
            last = values[255] if isinstance(values[255], int | float) else values[1]
            section.values["codebook"] = [
                values[1] + (values[1] - last) / 255,
                *values[1:],
            ]
        numbers = section.numbers("codebook", (256,))
        with np.errstate(over="ignore"):  # beyond float32: the scene checks what comes out
            return numbers.astype(np.float32)

    def _range(self, key: str, channels: int, pixels: Uint8Array) -> npt.NDArray[np.float64]:
        section = self._meta.object(key)
        low, high = section.numbers("mins", (channels,)), section.numbers("maxs", (channels,))
        return low + (high - low) * (pixels[:, :channels] / 255)

    def _plane(self, key: str, index: int) -> Uint8Array:
        """Return the pixels of a plane with one pixel per Gaussian, shape [N, 4]."""
        section = self._meta.object(key)
        name = section.texts("files", 2 if key in ("means", "shN") else 1)[index]
        encoded = self._member(name, self._plane_limit(self.gaussians))
        width, height = webp_size(self.path, name, encoded)
        if not self.gaussians <= width * height <= 4 * self.gaussians + 65536:
            raise SceneError(
                f"{self.path}: {name} must have a pixel for each of {self.gaussians} Gaussians, "
                f"not {width} x {height}: the file is damaged"
            )
        return _decode_webp(self.path, name, encoded).reshape(-1, 4)[: self.gaussians]

    @staticmethod
    def _plane_limit(pixels: int) -> int:
        # Lossless WebP hardly exceeds four bytes a pixel, whatever the pixels are.
        return 5 * (4 * pixels + 65536)

    def _member(self, name: str, limit: int) -> bytes:
        """Return the contents of a member, refused above ``limit`` bytes."""
        if not self._bundled:
            if name != Path(name).name or name in ("", ".", ".."):
                raise SceneError(
                    f"{self.path}: file name must be a plain name, not {name[:60]!r}: "
                    "the file is damaged or hostile"
                )
            member = self.path if name == _META else self.path.parent / name
            try:
                check_regular_file(member, "plane")
                with member.open("rb") as file:
                    data = file.read(limit + 1)
            except (OSError, ValueError) as error:
                raise SceneError(
                    f"{self.path}: {name[:60]!r} cannot be read ({error}): fetch the scene again"
                ) from error
        else:
            data = self._zip_member(name, limit)
        if len(data) > limit:
            raise SceneError(
                f"{self.path}: {name[:60]!r} must be at most {limit} bytes: the file is hostile"
            )
        return data

    def _zip_member(self, name: str, limit: int) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive:
                info = archive.getinfo(name)
                # Others, of which zipfile cannot bound the output, are not in the specification.
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise SceneError(
                        f"{self.path}: {name[:60]!r} must be stored or deflated, not compressed "
                        f"by method {info.compress_type}: zip the scene again"
                    )
                with archive.open(info) as file:
                    return file.read(limit + 1)
        except KeyError as error:
            raise SceneError(
                f"{self.path}: {name[:60]!r} is missing in the zip: this is no .sog file, or it "
                "is incomplete"
            ) from error
        except SceneError:
            raise
        except (
            zipfile.BadZipFile,
            zlib.error,
            struct.error,
            EOFError,
            RuntimeError,  # an encrypted member
            NotImplementedError,
            UnicodeError,
            ValueError,  # a seek before the file
            IndexError,
        ) as error:
            raise SceneError(
                f"{self.path}: zip archive is damaged ({str(error)[:100]}): fetch the file again"
            ) from error


def webp_size(path: Path, name: str, encoded: bytes) -> tuple[int, int]:
    """Return width and height of a WebP image from its header, before anything is decoded.

    Raises
    ------
    SceneError
        ``encoded`` is not a WebP image; the message names ``path`` and ``name``.
    """
    kind, body = encoded[12:16], encoded[20:30]
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP" and len(body) == 10:
        if kind == b"VP8L" and body[0] == 0x2F:
            bits = int.from_bytes(body[1:5], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if kind == b"VP8X":
            return (
                int.from_bytes(body[4:7], "little") + 1,
                int.from_bytes(body[7:10], "little") + 1,
            )
        if kind == b"VP8 ":
            return (
                int.from_bytes(body[6:8], "little") & 0x3FFF,
                int.from_bytes(body[8:10], "little") & 0x3FFF,
            )
    raise SceneError(f"{path}: {name[:60]!r} is not a WebP image: the file is damaged")


def _decode_webp(path: Path, name: str, encoded: bytes) -> Uint8Array:
    """Return the pixels of an image whose size has been checked, shape [height, width, 4]."""
    expected = webp_size(path, name, encoded)
    try:
        with Image.open(BytesIO(encoded), formats=["WEBP"]) as image:
            frames = getattr(image, "n_frames", 1)
            if image.size == expected and frames == 1:
                return np.asarray(image.convert("RGBA"))
            reason = f"{image.size[0]} x {image.size[1]} pixels in {frames} frames"
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error)[:100]
    raise SceneError(f"{path}: {name[:60]!r} cannot be decoded ({reason}): the file is damaged")
