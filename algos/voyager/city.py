"""What a cloud streams: nodes of Gaussians by id, and a search for cuts of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from splatforge.algos.voyager.codec import Codec
from splatforge.algos.voyager.delta import ClientStream, CloudStream, Sent
from splatforge.algos.voyager.wire import Decoder, Kind
from splatforge.scenes import Camera, Scene, extrapolate

__all__ = ["City", "Drawn", "due", "search_begins", "search_pose", "stream_path"]

#: Finds the cut at a camera, from the cut before.
Finder = Callable[[Camera], npt.NDArray[np.integer]]


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
        The delta that was begun at this frame.
    """

    number: int
    camera: Camera
    client: ClientStream
    sent: Sent | None


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
        sent = None
        if search_begins(number, window, len(cameras)):
            cloud.acknowledge(client.sequence)
            sent = cloud.advance(number, find(search_pose(cameras, number, window)))
            waiting += decoder.feed(sent.data)
        if number % window == 0:
            while client.table.frame < due(number, window):
                client.receive(waiting.pop(0))
        yield Drawn(number=number, camera=camera, client=client, sent=sent)
