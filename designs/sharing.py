"""Sorting shared: how many frames take their lists from one sort, and how wide it looks.

Source: "Lumina: Real-Time Mobile Neural Rendering by Exploiting Computational Redundancy", ISCA
2025: windows of six frames, a margin of four pixels, the pose at the middle of a window predicted
from two frames as in Cicero, no sharing while the head turns fast. What it leaves open is chosen
here and in :mod:`splatforge.algos.lumina.sharing`.
"""

from dataclasses import dataclass

__all__ = ["SharingDesign"]


@dataclass(frozen=True, kw_only=True)
class SharingDesign:
    """The window, the margin, and when not to share.

    Parameters
    ----------
    window : int
        Frames that share a sort, 1 to 64; with 1 every frame is sorted at its own pose.
    margin_px : int
        Pixels by which every tile, and with the tiles at its edge the image, is widened on every
        side while Gaussians are listed, 0 to 64.
    lead_frames : int
        Frames between the last one whose pose is known when a sort begins and the first of its
        window, 0 to 64: the sort of a window goes on beside the rasterization of so many frames.
    rotation_limit_deg : float
        Largest turn from one frame to the next that a window goes on over, in degrees; a frame
        behind a larger one is sorted by itself. Positive; infinity shares always.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    window: int = 6
    margin_px: int = 4
    lead_frames: int = 1
    rotation_limit_deg: float = 2.0

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("Window", self.window, 1, 64), ("Margin", self.margin_px, 0, 64),
            ("Lead", self.lead_frames, 0, 64),
        ):
            unit = "pixels" if name == "Margin" else "frames"
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low} to {high} {unit}, not {value!r}")
        if not self.rotation_limit_deg > 0:
            raise ValueError(
                f"Rotation limit must be positive, not {self.rotation_limit_deg!r} degrees")
