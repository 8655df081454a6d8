"""StreamingGS: a raw scene in memory in, pixels in memory out, nothing in between leaves the chip.

The accelerator of "StreamingGS: Voxel-Based Streaming 3D Gaussian Splatting with Memory
Optimization and Architectural Support", DAC 2025. The scene lies in memory voxel after voxel. A
group of tiles is rendered at a time: its voxels from front to back, and of every voxel the
Gaussians that pass a coarse filter, then a fine one, in the order of their depth.
"""

from dataclasses import dataclass

__all__ = ["PartitionDesign"]


@dataclass(frozen=True, kw_only=True)
class PartitionDesign:
    """How a scene is cut into voxels; offline, once a scene.

    Parameters
    ----------
    voxel_size : float
        Edge of a base cell in the scene's units; 0 chooses one, the largest of eight in an octave
        with which enough base cells are occupied.
    occupied_cells : int
        Base cells that are to be occupied where the edge is chosen, or as many as there are
        Gaussians for ``sparsest`` in each on average, whichever is less.
    sparsest : int
        Gaussians of a base cell on average, at least, where the edge is chosen.
    capacity : int
        Gaussians of a voxel at most: what is sorted at once. A cell of more is halved on every
        axis, up to three times, and what is still too many is cut into parts.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    voxel_size: float = 0.0
    occupied_cells: int = 1000
    sparsest: int = 8
    capacity: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.voxel_size < float("inf"):
            raise ValueError(
                f"Voxel size must be positive, or 0 to choose one, not {self.voxel_size!r}")
        for name, value in (("Occupied cells", self.occupied_cells), ("Sparsest", self.sparsest)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value!r}")
        if not 1 <= self.capacity <= 65535:
            raise ValueError(f"Capacity must be 1 to 65535 Gaussians, not {self.capacity!r}")
