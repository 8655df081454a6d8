"""GSCore's culling and conversion: Gaussians and a camera in memory, features and entries out."""

from dataclasses import dataclass

from splatforge.designs.entry import EntryFormat
from splatforge.designs.feature import FeatureFormat
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import BINARY32, Floating

__all__ = ["BEAT_WORDS", "CAMERA_BEATS", "CAMERA_WORDS", "FLAG_ANTIALIASED", "GAUSSIAN_WORDS",
           "WIDE_WORDS", "CcuDesign", "check_formats", "gaussian_beats", "gaussian_words"]

#: 32-bit words of a beat of the bus.
BEAT_WORDS = 4

#: What a Gaussian's record starts with, one word of binary32 each: its mean; -log2 of its opacity;
#: the lower Cholesky factor of its covariance, row after row. Colour follows, see
#: :func:`gaussian_words`.
GAUSSIAN_WORDS = ("mean_x", "mean_y", "mean_z", "log_opacity",
                  "l00", "l10", "l11", "l20", "l21", "l22")

#: The camera's record, one word each, of binary32 but for the flags: where it stands; the rows of
#: its rotation, those of right and down in pixels (times the focal lengths), each with the
#: principal point; between which points on the image, from the principal point in pixels, the
#: Jacobian is taken; and once more the last row of the rotation, for depths.
CAMERA_WORDS = (
    "eye_x", "eye_y", "eye_z", "near",
    "right_x", "right_y", "right_z", "center_x",
    "down_x", "down_y", "down_z", "center_y",
    "ahead_x", "ahead_y", "ahead_z", "flags",
    "clamp_left", "clamp_right", "clamp_top", "clamp_bottom",
    "depth_x", "depth_y", "depth_z", "reserved",
)
CAMERA_BEATS = len(CAMERA_WORDS) // BEAT_WORDS
#: Words that are used to all their bits; the others are rounded to the unit's format.
WIDE_WORDS = ("mean_x", "mean_y", "mean_z", "eye_x", "eye_y", "eye_z", "near", "depth_x", "depth_y",
              "depth_z")
#: Bit of the camera's flags: the opacity is compensated for the dilation (mip filter).
FLAG_ANTIALIASED = 1


def gaussian_words(sh_degree: int) -> tuple[str, ...]:
    """Names of the words of a Gaussian's record for SH of `sh_degree`, 0 to 3."""
    return (*GAUSSIAN_WORDS, *(f"sh{k}_{channel}" for k in range((sh_degree + 1) ** 2)
                               for channel in ("red", "green", "blue")))


def gaussian_beats(sh_degree: int) -> int:
    """Beats of a Gaussian's record: 4, 6, 10, 15 for degrees 0 to 3; the rest of the last is 0."""
    return -(-len(gaussian_words(sh_degree)) // BEAT_WORDS)


def check_formats(
    arithmetic: Floating, feature: FeatureFormat, extent: Fixed, logarithm: Fixed
) -> None:
    """Refuse formats of a projection that do not go together.

    Raises
    ------
    ValueError
        If one cannot hold what it must.
    """
    if arithmetic.exponent_bits != 8:
        raise ValueError(
            f"Arithmetic must have the 8 exponent bits of binary32, not {arithmetic}")
    if feature.slope != arithmetic:
        raise ValueError(f"Slopes of features must be {arithmetic}, not {feature.slope}")
    if extent.signed or extent.int_bits < feature.mean.int_bits or (
            extent.frac_bits > feature.mean.frac_bits):
        raise ValueError(
            f"Extent must be unsigned, as far as the mean and no finer, not {extent}")
    if not logarithm.signed or logarithm.int_bits != 9 or (
            logarithm.frac_bits < feature.log_opacity.frac_bits):
        raise ValueError(
            "Logarithm must be signed, hold 255 and be as fine as the opacity's, "
            f"not {logarithm}")


@dataclass(frozen=True, kw_only=True)
class CcuDesign:
    """Speed, formats, and what the intersection test knows of a Gaussian's shape.

    Parameters
    ----------
    interval : int
        Cycles from one Gaussian to the next. GSCore has four units (accelerators.md, 4.1); they are
        one here, with the operators of four units that take 64 cycles each.
    floating : Floating
        Format of the arithmetic; 8 bits of exponent, as the words in memory.
    feature : FeatureFormat
        What is written of a visible Gaussian.
    entry : EntryFormat
        What is listed in a tile.
    depth_octaves : int
        Range of the entries' depth, from the near plane on; what is beyond is equally deep. A power
        of two up to 128. The depth is the difference of the words of binary32 without their last
        bits; with 16 octaves in 25 bits it keeps 21 bits of the fraction. That many are needed:
        17 bits, with the errors of narrow arithmetic, take a float frame of a city from 57 to 48 dB
        by what changes places (semarang_city_8, 640x480).
    extent : Fixed
        Half sides of boxes, and positions of the intersection test with one integer bit more, in
        pixels.
    axis : Fixed
        Unit vector along the longer axis of an oriented box.
    logarithm : Fixed
        Logarithms of determinants, for the compensation of the opacity.
    obb_ratio : float
        A Gaussian whose longer axis is more than so many times its shorter one is bounded by an
        oriented box, all others by a square. 0: all by squares.
    subtiles : bool
        Whether a tile's 8x8 regions are tested one by one. If not, all are reached or none.
    buffer_beats : int
        Beats of Gaussians that may be on their way to the arithmetic, 64 to 4096, a power of two:
        those of the degree 3 wait there for some ten intervals. GSCore has 8 KB (accelerators.md,
        4.1).
    burst_beats : int
        Beats of a burst, 4 to 256, a power of two, at most half of the buffer.
    outstanding_bursts : int
        Bursts that may be in flight.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or a format cannot hold what it must.
    """

    interval: int = 16
    floating: Floating = Floating()
    feature: FeatureFormat = FeatureFormat()
    entry: EntryFormat = EntryFormat()
    depth_octaves: int = 16
    extent: Fixed = Fixed(int_bits=15, frac_bits=3)
    axis: Fixed = Fixed(int_bits=2, frac_bits=12, signed=True)
    logarithm: Fixed = Fixed(int_bits=9, frac_bits=10, signed=True)
    obb_ratio: float = 2.0
    subtiles: bool = True
    buffer_beats: int = 512
    burst_beats: int = 32
    outstanding_bursts: int = 8

    def __post_init__(self) -> None:
        longest = gaussian_beats(3)
        if not longest <= self.interval <= 256:
            raise ValueError(
                f"Interval must be {longest} to 256 cycles, not {self.interval!r}: a Gaussian of "
                f"degree 3 is {longest} beats, which come through one port, one in a cycle")
        for name, value, low, high in (
            ("Buffer", self.buffer_beats, 64, 4096), ("Burst", self.burst_beats, 4, 256)):
            if value & (value - 1) or not low <= value <= high:
                raise ValueError(
                    f"{name} must have a power of two from {low} to {high} beats, not {value!r}")
        if 2 * self.burst_beats > self.buffer_beats:
            raise ValueError(
                f"Burst must be at most half of the buffer's {self.buffer_beats} beats, "
                f"not {self.burst_beats!r}")
        if not 1 <= self.outstanding_bursts <= 64:
            raise ValueError(f"Outstanding bursts must be 1 to 64, not {self.outstanding_bursts!r}")
        check_formats(self.floating, self.feature, self.extent, self.logarithm)
        if self.depth_octaves & (self.depth_octaves - 1) or not 1 <= self.depth_octaves <= 128:
            raise ValueError(
                f"Octaves of depth must be a power of two up to 128, not {self.depth_octaves!r}")
        if self.depth_drop < 0:
            raise ValueError(
                f"Depth of entries must have at most {self.entry.depth_bits + self.depth_drop} "
                f"bits, not {self.entry.depth_bits}")
        if self.entry.subtile_bits != 4:
            raise ValueError(
                f"Entries must tell the four 8x8 regions of a tile, not {self.entry.subtile_bits}")
        if not self.axis.signed or self.axis.int_bits != 2:
            raise ValueError(f"Axis must be signed and hold one, SQ(2,f), not {self.axis}")
        if self.obb_ratio != 0 and self.obb_ratio < 1:
            raise ValueError(f"OBB ratio must be 0, or 1 or more, not {self.obb_ratio!r}")

    @property
    def depth_drop(self) -> int:
        """Last bits of a word of binary32 that are no part of a depth."""
        octave_bits = self.depth_octaves.bit_length() - 1
        return BINARY32.fraction_bits + octave_bits - self.entry.depth_bits

    @property
    def position(self) -> Fixed:
        """Means and centres of regions in the intersection test."""
        extent = self.extent
        return Fixed(int_bits=extent.int_bits + 1, frac_bits=extent.frac_bits, signed=True)
