"""Voyager's client: a scene or a cut of one to a frame, exponentials out of a table."""

from splatforge.algos import gscore
from splatforge.algos.gscore import GscoreFrame, GscoreInput, pack, prepare
from splatforge.algos.reference import Frame
from splatforge.designs.voyager import VoyagerDesign
from splatforge.scenes import Camera, Scene

__all__ = ["pack", "prepare", "render", "render_float"]


def render(
    frame: GscoreInput, design: VoyagerDesign,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> GscoreFrame:
    """Render a prepared frame, bit-true to :class:`splatforge.hw.voyager.Voyager`.

    Parameters
    ----------
    frame : GscoreInput
        From :func:`prepare`.
    design : VoyagerDesign
        Number formats and the table of exponentials.
    background : tuple of float
        Linear red, green, blue in [0, 1].

    Returns
    -------
    GscoreFrame
        The frame and its workload.
    """
    return gscore.render(frame, design, background)


def render_float(
    scene: Scene, camera: Camera, design: VoyagerDesign,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Frame:
    """Render a scene by the client's rules in float64: what :func:`render` is measured against.

    A fragment is skipped unless ``0 <= E <= ln(255 o)``; what is left is ``o`` times what a table
    of real numbers, as long as the design's, holds for ``exp(-E)``.

    Parameters
    ----------
    scene, camera : Scene, Camera
        What is seen from where.
    design : VoyagerDesign
        Its tests and the size of its table; formats do not matter.
    background : tuple of float
        Linear red, green, blue.

    Returns
    -------
    Frame
        Image and transmittance.
    """
    return gscore.render_float(scene, camera, design, background)
