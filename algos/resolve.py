"""From a pixel's state to the framebuffer: background, clip, pixel format."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splatforge.algos.fixed import round_shift
from splatforge.designs.blend import BlendDesign
from splatforge.designs.resolve import PixelFormat, ResolveDesign
from splatforge.designs.shell import AcceleratorDesign

__all__ = ["FixedFrame", "resolve_fixed", "resolve_float"]


def resolve_float(
    accumulator: npt.ArrayLike, transmittance: npt.ArrayLike, background: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Colour over the background, clipped to [0, 1], of shape [..., 3]."""
    transmittance = np.asarray(transmittance, np.float64)[..., None]
    color = np.asarray(accumulator, np.float64) + transmittance * np.asarray(background)
    return np.clip(color, 0.0, 1.0)


def resolve_fixed(
    blend: BlendDesign,
    resolve: ResolveDesign,
    state: npt.NDArray[np.integer],
    background: tuple[int, int, int],
    pixel_format: PixelFormat,
) -> npt.NDArray[np.unsignedinteger]:
    """Pixels as they stand in the framebuffer, bit-true to :class:`splatforge.hw.resolve.Resolve`.

    ``acc + T * background`` is kept in full and rounded once, half up, to the pixel's integers;
    above one it saturates. Error against :func:`resolve_float`: half a unit of the pixel.

    Parameters
    ----------
    blend, resolve : BlendDesign, ResolveDesign
        Formats.
    state : ndarray
        Raw red, green, blue and T, of shape [..., 4].
    background : tuple of int
        Raw red, green, blue in ``resolve.background``.
    pixel_format : PixelFormat
        RGBA8 and RGBA16 have a full alpha channel; STATE returns the state itself.

    Returns
    -------
    ndarray
        Of shape [..., 4]: uint8, uint16 or uint32.
    """
    state = np.asarray(state, np.int64)
    if pixel_format is PixelFormat.STATE:
        return state.astype(np.uint32)
    top = 255 if pixel_format is PixelFormat.RGBA8 else 65535
    frac_bits = blend.transmittance.frac_bits + resolve.background.frac_bits
    up = frac_bits - blend.accumulator.frac_bits
    color = (state[..., :3] << up) + state[..., 3:] * np.asarray(background, np.int64)
    pixels = np.full(state.shape, top, np.int64)
    pixels[..., :3] = np.minimum(round_shift(color * top, frac_bits), top)
    return pixels.astype(np.uint8 if top == 255 else np.uint16)


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedFrame:
    """A frame of a bit-true model.

    Parameters
    ----------
    design : AcceleratorDesign
        Its formats.
    state : ndarray
        Raw red, green, blue and T of every pixel of shape [height, width, 4]; int32.
    background : tuple of int
        Raw red, green and blue.
    """

    design: AcceleratorDesign
    state: npt.NDArray[np.int32]
    background: tuple[int, int, int]

    def pixels(self, pixel_format: PixelFormat) -> npt.NDArray[np.unsignedinteger]:
        """Framebuffer of shape [height, width, 4] in `pixel_format`."""
        return resolve_fixed(
            self.design.array.blend, self.design.resolve, self.state, self.background, pixel_format
        )

    @property
    def image(self) -> npt.NDArray[np.float32]:
        """Colour over the background at the accumulator's precision, of shape [h, w, 3]."""
        blend, resolve = self.design.array.blend, self.design.resolve
        color = blend.accumulator.to_float(self.state[..., :3])
        transmittance = blend.transmittance.to_float(self.state[..., 3:])
        over = color + transmittance * resolve.background.to_float(self.background)
        return over.astype(np.float32)
