"""Coarse filters of StreamingGS: of a voxel's Gaussians those that may reach a group of tiles."""

from dataclasses import dataclass

from splatforge.designs.fetch import TILE_PX
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import Floating

__all__ = [
    "COEFFICIENT", "DEPTH", "DILATION", "DILATION_BITS", "DISTANCE", "HALF", "LARGE", "NORM",
    "OFFSET", "PLACE_BITS", "SCALE", "CfuDesign"]

# Formats of the filters. Lengths are in units of the voxel's: a power of two above its distance
# from the eye along every axis and above twice its edge. Lengths on the image are in the camera's,
# a number of pixels, see splatforge.designs.voxel.COARSE_WORDS.

#: How a linear form grows from end to end of the voxel's cube, and its value at the near corner.
COEFFICIENT = Fixed(int_bits=1, frac_bits=17, signed=True)
OFFSET = Fixed(int_bits=4, frac_bits=18, signed=True)
#: Depth, where it is positive; distances from a group's sides have as many fraction bits.
DEPTH = Fixed(int_bits=2, frac_bits=16)
#: Distance beyond a group's sides, and what a Gaussian reaches.
DISTANCE = Fixed(int_bits=3, frac_bits=15)
#: Scale of a Gaussian.
SCALE = Fixed(int_bits=0, frac_bits=18)
#: Norm of a row of the Jacobian times the depth, times standard deviations.
NORM = Fixed(int_bits=3, frac_bits=15)
#: Half a side of a group, from the first to the last centre of a pixel.
HALF = Fixed(int_bits=0, frac_bits=18)
#: What a Gaussian without scale reaches, per depth; less than 1/64, so that these bits hold it.
DILATION = Fixed(int_bits=0, frac_bits=18)
DILATION_BITS = DILATION.width - 6
#: Depth over scale of a Gaussian that reaches a certain number of pixels.
LARGE = Fixed(int_bits=12, frac_bits=6)

#: Bits of a place in the voxel's cube along an axis.
PLACE_BITS = 16


@dataclass(frozen=True, kw_only=True)
class CfuDesign:
    """How many filters, how far the reader is ahead, what waits between.

    Parameters
    ----------
    units : int
        Gaussians that are looked at in a cycle: 1, 2 or 4. A beat of the bus brings two: four units
        only catch up with what has waited.
    filters : bool
        Whether Gaussians are looked at at all; if not, everything passes, which is the paper's
        pipeline without hierarchical filtering.
    group_tiles : int
        Tiles on a side of a group, 1, 2 or 4.
    interval : int
        Cycles from one voxel to the next in the arithmetic that prepares the filters, 2 to 64.
    floating : Floating
        Format of the voxels' words; 8 bits of exponent.
    voxels_ahead : int
        Voxels whose Gaussians may have been asked for before those of the first are looked at,
        4 to 64, a power of two.
    buffer_beats : int
        Beats of Gaussians that may wait, 64 to 4096, a power of two.
    burst_beats : int
        Beats of a burst, 4 to 256, a power of two, at most half of the buffer.
    outstanding_bursts : int
        Bursts that may be in flight, 1 to 64.
    queue : int
        Gaussians that passed or may pass and wait for the fine filter, 32 to 4096, a power of two.
        With fewer than the filters hold in their stages they cannot all be at work.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    units: int = 2
    filters: bool = True
    group_tiles: int = 2
    interval: int = 8
    floating: Floating = Floating()
    voxels_ahead: int = 64
    buffer_beats: int = 256
    burst_beats: int = 64
    outstanding_bursts: int = 16
    queue: int = 512

    def __post_init__(self) -> None:
        if self.units not in (1, 2, 4):
            raise ValueError(f"Units must be 1, 2 or 4, not {self.units!r}")
        if self.group_tiles not in (1, 2, 4):
            raise ValueError(f"Group must have 1, 2 or 4 tiles a side, not {self.group_tiles!r}")
        if not 2 <= self.interval <= 64:
            raise ValueError(f"Interval must be 2 to 64 cycles, not {self.interval!r}")
        if self.floating.exponent_bits != 8:
            raise ValueError(
                f"Arithmetic must have the 8 exponent bits of binary32, not {self.floating}")
        for name, value, low, high, unit in (
            ("Voxels ahead", self.voxels_ahead, 4, 64, ""),
            ("Buffer", self.buffer_beats, 64, 4096, " beats"),
            ("Burst", self.burst_beats, 4, 256, " beats"),
            ("Queue", self.queue, 32, 4096, " Gaussians"),
        ):
            if value & (value - 1) or not low <= value <= high:
                raise ValueError(
                    f"{name} must be a power of two from {low} to {high}{unit}, not {value!r}")
        if 2 * self.burst_beats > self.buffer_beats:
            raise ValueError(
                f"Burst must be at most half of the buffer's {self.buffer_beats} beats, "
                f"not {self.burst_beats!r}")
        if not 1 <= self.outstanding_bursts <= 64:
            raise ValueError(f"Outstanding bursts must be 1 to 64, not {self.outstanding_bursts!r}")

    @property
    def group_px(self) -> int:
        """Pixels on a side of a group."""
        return self.group_tiles * TILE_PX

    @property
    def banks(self) -> int:
        """Beats of Gaussians that are looked at in a cycle."""
        return max(1, self.units // 2)
