"""What the searches of a tree do along a path, side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from splatforge.algos.voyager.search import Found, Search, follow_ahead, unchanged
from splatforge.algos.voyager.tree import LodTree
from splatforge.designs.lod import SearchDesign
from splatforge.scenes import Camera

__all__ = ["PathFigures", "Work", "search_path"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a search takes, mean of a path's frames from the third on.

    The first frame is streamed by all, and the second is the first that a search from the last cut
    sees: it learns then how far is safe.

    Parameters
    ----------
    visited, tested, pieces, time_s : float
        As in :class:`splatforge.algos.voyager.search.Found`.
    """

    visited: float
    tested: float
    pieces: float
    time_s: float

    @classmethod
    def mean(cls, found: Sequence[Found]) -> "Work":
        """Mean of some searches."""
        return cls(**{name: float(np.mean([getattr(each, name) for each in found]))
                      for name in ("visited", "tested", "pieces", "time_s")})


@dataclass(frozen=True, kw_only=True)
class PathFigures:
    """What happened along a path.

    Parameters
    ----------
    frames : int
        Number of frames.
    cut_nodes : float
        Nodes of the cut, mean of all frames.
    streaming, temporal, temporal_all : Work
        The full search; that from the last cut; and that without safe distances, as the paper has
        it.
    identical : bool
        Whether all found the same cuts.
    unchanged : dict
        By gap in frames, the share of a cut that the cut so many frames later has, mean over the
        path; of gaps that the path is long enough for.
    unchanged_worst : dict
        The lowest of the same.
    added_nodes : float
        New nodes of a frame, mean of all but the first.
    ahead_present, ahead_present_worst : float
        Share of a frame's cut that is there where the search runs ahead of the frames, mean and
        lowest.
    """

    frames: int
    cut_nodes: float
    streaming: Work
    temporal: Work
    temporal_all: Work
    identical: bool
    unchanged: dict[int, float]
    unchanged_worst: dict[int, float]
    added_nodes: float
    ahead_present: float
    ahead_present_worst: float


def search_path(tree: LodTree, cameras: Sequence[Camera], design: SearchDesign, *,
                gaps: Sequence[int] = (1, 64),
                progress: Callable[[float, float], None] | None = None) -> PathFigures:
    """Search along a path with every search.

    Parameters
    ----------
    tree : LodTree
        The tree.
    cameras : sequence of Camera
        At least three.
    design : SearchDesign
        Which cut; the window of the search that runs ahead.
    gaps : sequence of int
        Frames between cuts that are compared.
    progress : callable, optional
        Called with frames done and all of them.

    Raises
    ------
    ValueError
        There are fewer than three cameras.
    """
    if len(cameras) < 3:
        raise ValueError(f"Frames must be at least 3, not {len(cameras)}")
    whole = Search(tree, design)
    searches = (Search(tree, replace(design, safe_distance=True)),
                Search(tree, replace(design, safe_distance=False)))
    ahead = follow_ahead(Search(tree, design), cameras)
    full, steps = list[Found](), list[tuple[Found, ...]]()
    present, identical = list[float](), True
    for number, camera in enumerate(cameras):
        full.append(whole.full(camera))
        steps.append(tuple(search.step(camera) for search in searches))
        identical &= all(np.array_equal(full[-1].ids, step.ids) for step in steps[-1])
        present.append(unchanged(full[-1].ids, next(ahead).used))
        if progress is not None:
            progress(number + 1, len(cameras))
    shares: dict[int, npt.NDArray[np.float64]] = {
        gap: np.array([unchanged(before.ids, now.ids)
                       for before, now in zip(full, full[gap:], strict=False)])
        for gap in gaps if gap < len(cameras)}
    return PathFigures(
        frames=len(cameras), cut_nodes=float(np.mean([len(each.ids) for each in full])),
        streaming=Work.mean(full[2:]), temporal=Work.mean([step[0] for step in steps[2:]]),
        temporal_all=Work.mean([step[1] for step in steps[2:]]), identical=identical,
        unchanged={gap: float(share.mean()) for gap, share in shares.items()},
        unchanged_worst={gap: float(share.min()) for gap, share in shares.items()},
        added_nodes=float(np.mean([len(step[0].added) for step in steps[1:]])),
        ahead_present=float(np.mean(present)), ahead_present_worst=float(np.min(present)))
