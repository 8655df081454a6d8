"""Level-of-detail trees of a city, and the search for the cut that a viewer needs.

Voyager's cloud: "Voyager: Real-Time Splatting City-Scale 3D Gaussians on Your Phone", arXiv
2506.02774, and its sibling Nebula (ASPLOS 2026). Where they are silent the docstrings say what was
chosen, and why.
"""

from dataclasses import dataclass

__all__ = ["EXTENT_SIGMAS", "SearchDesign", "TreeDesign"]

#: A Gaussian's box holds this many standard deviations either way, as the reference draws them.
EXTENT_SIGMAS = 3.0


def _check_whole(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class TreeDesign:
    """How a tree is built.

    Parameters
    ----------
    fan_out : int
        Children of a node that has as many Gaussians below it, 2 to 16. Four halve the size of what
        lies on a surface, as most of a city does, and make a third of a node per Gaussian.
    chunk_gaussians : int
        Gaussians of a chunk, which one task builds in memory, at most; the tree does not depend on
        it.
    median_level : int
        Level from which on splits are at the median instead of the middle, so that no crowd of
        nearly equal points makes the tree deep. The middle makes cells of equal size, which is
        what the cut asks for.
    subtree_nodes : int
        Nodes of a subtree of the search, at most. With 28 bytes a node, as many as fit into 16 KB
        of a GPU's shared memory.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    fan_out: int = 4
    chunk_gaussians: int = 1 << 20
    median_level: int = 24
    subtree_nodes: int = 512

    def __post_init__(self) -> None:
        _check_whole("Fan-out", self.fan_out, 2, 16)
        _check_whole("Chunk Gaussians", self.chunk_gaussians, 1, 1 << 27)
        _check_whole("Median level", self.median_level, 0, 64)
        _check_whole("Subtree nodes", self.subtree_nodes, 1, 1 << 20)


@dataclass(frozen=True, kw_only=True)
class SearchDesign:
    """Which cut is wanted, and how it is found.

    Parameters
    ----------
    tau_px : float
        A node is fine enough if it measures less than this on the image, in pixels.
    block_nodes : int
        Nodes of a block of the streaming traversal.
    safe_distance : bool
        Whether subtrees in which nothing can have changed are passed over: of each it is known how
        far the eye may go before a node in it changes. Without it every subtree that holds nodes
        of the cut is searched, as the paper does. The cut is the same.
    window_frames : int
        Frames from search to search, each made for the pose so many frames ahead (Nebula: 4,
        Voyager: 32).

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    tau_px: float = 6.0
    block_nodes: int = 1024
    safe_distance: bool = True
    window_frames: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.tau_px < 1e6:
            raise ValueError(f"Tau must be between 0 and 1e6 px, not {self.tau_px!r}")
        _check_whole("Block nodes", self.block_nodes, 1, 1 << 24)
        _check_whole("Window frames", self.window_frames, 1, 1 << 16)
