"""One frame by the float reference, or as an accelerator draws it, by the same call."""

from importlib import import_module
from typing import Protocol

import numpy as np
import numpy.typing as npt

from splatforge.algos import reference
from splatforge.designs.shell import AcceleratorDesign
from splatforge.scenes import Camera, Scene

__all__ = ["Picture", "render"]


class Picture(Protocol):
    """What every renderer gives: ``image`` of shape [height, width, 3], linear, float32."""

    @property
    def image(self) -> npt.NDArray[np.float32]: ...


def render(
    scene: Scene, camera: Camera, design: AcceleratorDesign | None = None,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Picture:
    """Draw a frame.

    Parameters
    ----------
    scene : Scene
        What is drawn.
    camera : Camera
        From where, and how large.
    design : AcceleratorDesign, optional
        The accelerator whose bit-true model draws it; the float reference without one. Lumina's
        cache is empty before the frame: a path of cameras is ``render_sequence`` of
        :mod:`splatforge.algos.lumina`.
    background : tuple of float
        Linear red, green, blue in [0, 1].

    Returns
    -------
    Picture
        The frame, with ``image`` of shape [height, width, 3] and what else its renderer tells.
    """
    if design is None:
        return reference.render(scene, camera, background=background)
    model = import_module(f"splatforge.algos.{design.name}")
    if hasattr(model, "render_sequence"):
        return next(iter(model.render_sequence(scene, [camera], design, background)))
    stored = model.store(scene, design) if hasattr(model, "store") else scene
    return model.render(model.prepare(stored, camera, design), design, background)
