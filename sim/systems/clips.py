"""Short clips of a window that pans over photographs, and of things that move before a still one.

What the small video denoisers learn: in the one all tokens change from frame to frame, in the other
those alone that a thing touches.

The photographs are those that scikit-image ships in its package, so nothing is downloaded.
"""

from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["FRAMES", "PATCH", "PHOTOGRAPHS", "SIDE", "THING_PX", "TOKENS", "TOKEN_WIDTH",
           "clip_batch", "still_clip_batch"]

#: Files of ``skimage/data`` in its wheel, of many kinds of content.
PHOTOGRAPHS = ("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png",
               "coins.png", "grass.png", "gravel.png", "moon.png", "rocket.jpg")
#: Frames, pixels of a frame's side and of a patch's side; a patch is a token.
FRAMES, SIDE, PATCH = 4, 16, 4
TOKENS, TOKEN_WIDTH = FRAMES * (SIDE // PATCH) ** 2, PATCH**2
#: Side of what moves before a still background.
THING_PX = 6
_SHRINK = 4
_FASTEST_PX = 3
#: The view of the camera that stands still: photograph, and row and column of its corner.
_VIEW, _VIEW_CORNER = PHOTOGRAPHS.index("coffee.png"), (40, 60)


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


def still_clip_batch(generator: np.random.Generator, batch: int) -> npt.NDArray[np.float32]:
    """Clips of a camera that stands still before one view, in which one thing moves.

    The thing is a square of :data:`THING_PX` of a random photograph; it goes straight from one
    place within the frame to another. All else is the same in every frame and every clip.

    Returns
    -------
    array
        As :func:`clip_batch`.
    """
    photographs = _photographs()
    row, column = _VIEW_CORNER
    clips = np.broadcast_to(
        photographs[_VIEW][row:row + SIDE, column:column + SIDE], (batch, FRAMES, SIDE, SIDE)
    ).copy()
    for each in clips:
        image = photographs[generator.integers(len(photographs))]
        top, left = (int(generator.integers(0, length - THING_PX)) for length in image.shape)
        thing = image[top:top + THING_PX, left:left + THING_PX]
        ends = generator.integers(0, SIDE - THING_PX + 1, (2, 2))
        places = np.rint(np.linspace(ends[0], ends[1], FRAMES)).astype(int)
        for frame, (y, x) in zip(each, places, strict=True):
            frame[y:y + THING_PX, x:x + THING_PX] = thing
    return to_tokens(clips)
