"""What a cloud streams: nodes of Gaussians by id, and a search for cuts of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from splatforge.algos.voyager.codec import Codec, fit_codec, ranges_of
from splatforge.algos.voyager.delta import ClientStream, CloudStream, Sent
from splatforge.algos.voyager.merge import SH_COLUMN
from splatforge.algos.voyager.search import Search
from splatforge.algos.voyager.session import Welcome
from splatforge.algos.voyager.table import Change
from splatforge.algos.voyager.tree import LodTree
from splatforge.algos.voyager.wire import Decoder, Kind
from splatforge.designs.lod import SearchDesign
from splatforge.designs.streaming import StreamingDesign
from splatforge.scenes import Camera, Scene, default_camera, extrapolate, guess_up

__all__ = ["City", "Drawn", "Searched", "TreeCity", "due", "search_begins", "search_pose",
           "stream_path"]

@dataclass(frozen=True, kw_only=True, eq=False)
class Searched(Change):
    """What a search has found.

    Parameters
    ----------
    visited : int
        Nodes looked at.
    time_s : float
        Processor time.
    """

    visited: int
    time_s: float


#: Finds the cut at a camera: what it changes of the one found before, at first all of it.
Finder = Callable[[Camera], Searched]


class City(Protocol):
    """A city in levels of detail."""

    @property
    def nodes(self) -> int:
        """Gaussians of all levels; ids are below."""
        ...

    def scene(self, ids: npt.NDArray[np.integer], /) -> Scene:
        """Gaussians of ids, in their order."""
        ...

    def finder(self) -> Finder:
        """A search of its own for one client."""
        ...


#: Nodes that a codec is fitted to, and leaves that a view is chosen by, at most.
_CODEC_NODES, _VIEW_LEAVES = 1 << 17, 1 << 15
#: Nodes whose ranges are looked for at once.
_CHUNK = 1 << 18


class TreeCity:
    """A city as a tree, with the search that the cloud makes in it.

    Parameters
    ----------
    tree : LodTree
        The tree, which may be a file larger than the memory.
    design : SearchDesign
        Which cuts, and how often.
    """

    def __init__(self, tree: LodTree, design: SearchDesign) -> None:
        self.tree, self.design = tree, design

    @property
    def nodes(self) -> int:
        """Gaussians of all levels."""
        return self.tree.nodes

    def scene(self, ids: npt.NDArray[np.integer], /) -> Scene:
        """Gaussians of ids, in their order."""
        return self.tree.scene(ids)

    def finder(self) -> Finder:
        """The search from the cut before, for one client."""
        search = Search(self.tree, self.design)

        def find(camera: Camera) -> Searched:
            moved = search.move(camera)
            return Searched(left=moved.removed.astype(np.int64),
                            entered=moved.added.astype(np.int64),
                            visited=moved.visited, time_s=moved.time_s)
        return find

    def codec(self, design: StreamingDesign) -> Codec:
        """Codec whose codebooks are fitted to nodes here and there, its ranges to all."""
        tree = self.tree
        step = -(-tree.nodes // _CODEC_NODES)
        parts = (tree.rows[start:start + _CHUNK] for start in range(0, tree.nodes, _CHUNK))
        return fit_codec(tree.scene(np.arange(0, tree.nodes, step)), design, ranges_of(
            (rows[:, 0:3], rows[:, 3:6], rows[:, SH_COLUMN:SH_COLUMN + 3]) for rows in parts))

    def welcome(self, codec: Codec) -> Welcome:
        """What a client is told: a view from above one side, and what lies in its middle."""
        some = self._some_leaves()
        view, up = self.view()
        return Welcome(
            resumed=False, nodes=self.tree.nodes, reuse_window=codec.design.reuse_window,
            window_frames=self.design.window_frames, tau_px=self.design.tau_px,
            codec=codec.digest(), view=view,
            target=np.median(some.means.astype(np.float64), axis=0), up=up)

    def view(self) -> tuple[Camera, npt.NDArray[np.float64]]:
        """A view from above one side, and the upward direction, shape [3]."""
        some = self._some_leaves()
        up = guess_up(some)
        return default_camera(some, 640, 480, up=up), up

    def _some_leaves(self) -> Scene:
        tree = self.tree
        ids = np.arange(0, tree.nodes, -(-tree.nodes // _VIEW_LEAVES))
        return tree.scene(ids[tree.first_child[ids] == tree.first_child[ids + 1]])


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A frame of a stream.

    Parameters
    ----------
    number : int
        From 0 upward.
    camera : Camera
        Its view.
    client : ClientStream
        The client when it draws; it goes on with the next frame.
    sent : Sent or None
        The delta of the search that was begun at this frame.
    change : Searched or None
        What it has found.
    """

    number: int
    camera: Camera
    client: ClientStream
    sent: Sent | None
    change: Searched | None


def search_pose(cameras: Sequence[Camera], number: int, window: int) -> Camera:
    """Pose that the search begun at a frame is for: so many frames ahead, if motion goes on."""
    if number == 0:
        return cameras[0]
    return extrapolate(cameras[number - 1], cameras[number], window)


def search_begins(number: int, window: int, frames: int) -> bool:
    """Whether a search begins at a frame: not for a cut that no frame would draw."""
    return number == 0 or (number % window == 0 and number + window < frames)


def due(number: int, window: int) -> int:
    """Frame of the search whose cut a frame draws: the one that had a whole window of time."""
    return max(0, number // window - 1) * window


def stream_path(city: City, codec: Codec, cameras: Sequence[Camera], window: int
                ) -> Iterator[Drawn]:
    """Stream a path within this process, without a network.

    Parameters
    ----------
    city : City
        What is streamed.
    codec : Codec
        Of its Gaussians.
    cameras : sequence of Camera
        A view each frame.
    window : int
        Frames from search to search.
    """
    find, decoder = city.finder(), Decoder(Kind.DELTA)
    cloud, client = CloudStream(codec, city.scene, 1), ClientStream(codec, city.nodes)
    waiting = []
    for number, camera in enumerate(cameras):
        sent = change = None
        if search_begins(number, window, len(cameras)):
            cloud.acknowledge(client.sequence)
            change = find(search_pose(cameras, number, window))
            sent = cloud.step(number, change)
            waiting += decoder.feed(sent.data)
        if number % window == 0:
            while client.table.frame < due(number, window):
                client.receive(waiting.pop(0))
        yield Drawn(number=number, camera=camera, client=client, sent=sent, change=change)
