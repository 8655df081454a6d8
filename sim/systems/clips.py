"""Short clips of a window that pans over photographs: what the small video denoiser learns.

The photographs are those that scikit-image ships in its package, so nothing is downloaded.
"""

from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["FRAMES", "PATCH", "PHOTOGRAPHS", "SIDE", "TOKENS", "TOKEN_WIDTH", "clip_batch"]

#: Files of ``skimage/data`` in its wheel, of many kinds of content.
PHOTOGRAPHS = ("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png",
               "coins.png", "grass.png", "gravel.png", "moon.png", "rocket.jpg")
#: Frames, pixels of a frame's side and of a patch's side; a patch is a token.
FRAMES, SIDE, PATCH = 4, 16, 4
TOKENS, TOKEN_WIDTH = FRAMES * (SIDE // PATCH) ** 2, PATCH**2
_SHRINK = 4
_FASTEST_PX = 3


@cache
def _photographs() -> tuple[npt.NDArray[np.float32], ...]:
    """Grey, smaller by four in each direction, each of mean 0 and variance 1."""
    images = []
    for name in PHOTOGRAPHS:
        with files("skimage").joinpath("data", name).open("rb") as file, Image.open(file) as image:
            grey = image.convert("L")
            small = grey.resize((grey.width // _SHRINK, grey.height // _SHRINK),
                                Image.Resampling.BOX)
        values = np.asarray(small, np.float32)
        images.append((values - values.mean()) / values.std())
    return tuple(images)


def to_tokens(clips: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[batch, frames, side, side] as [batch, tokens, token width]: frame, row, column."""
    batch, cells = len(clips), SIDE // PATCH
    split = clips.reshape(batch, FRAMES, cells, PATCH, cells, PATCH)
    return split.transpose(0, 1, 2, 4, 3, 5).reshape(batch, TOKENS, TOKEN_WIDTH)


def clip_batch(generator: np.random.Generator, batch: int) -> npt.NDArray[np.float32]:
    """Clips of random photographs, places and velocities.

    Returns
    -------
    array
        [batch, :data:`TOKENS`, :data:`TOKEN_WIDTH`], of mean about 0 and variance about 1.
    """
    reach = _FASTEST_PX * (FRAMES - 1)
    clips = np.empty((batch, FRAMES, SIDE, SIDE), np.float32)
    photographs = _photographs()
    for each in clips:
        image = photographs[generator.integers(len(photographs))]
        row = int(generator.integers(reach, image.shape[0] - SIDE - reach))
        column = int(generator.integers(reach, image.shape[1] - SIDE - reach))
        down, right = generator.integers(-_FASTEST_PX, _FASTEST_PX + 1, 2)
        for frame in range(FRAMES):
            y, x = row + frame * int(down), column + frame * int(right)
            each[frame] = image[y:y + SIDE, x:x + SIDE]
    return to_tokens(clips)
