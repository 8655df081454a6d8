"""Streaming of a city over a network: bytes, times, energy, and what is missing when it stalls.

:func:`measure` counts the bytes of a path by the code that cloud and client run, and beside them
what else could be sent. :func:`simulate_loop` takes these counts through a network in time. Bytes
of the program (headers of messages included) are counted exactly; what TCP and IP add follows from
packet sizes, what is sent again from a share of loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from splatforge.algos.quality import psnr_db
from splatforge.algos.reference import render
from splatforge.algos.voyager.city import City, due, stream_path
from splatforge.algos.voyager.codec import Codec
from splatforge.algos.voyager.session import Pose
from splatforge.algos.voyager.wire import HEADER_BYTES
from splatforge.designs.streaming import LinkDesign, LoopDesign
from splatforge.scenes import Camera, Scene

__all__ = ["POSE_BYTES", "Loop", "Measured", "OnAir", "Search", "artefacts", "gaussian_bytes",
           "measure", "on_air", "pictures", "remote_latency_s", "simulate_loop"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """A search of the cloud, and the delta that came of it.

    Parameters
    ----------
    frame : int
        At which it begins.
    cut : ndarray
        Ids that it has found, ascending.
    gaussians : int
        Gaussians that the delta holds.
    size_bytes : int
        Of the delta, with its header.
    held : int
        Gaussians that the table has behind it, and the client once it has the delta.
    """

    frame: int
    cut: Int64Array
    gaussians: int
    size_bytes: int
    held: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A path that has been streamed.

    Parameters
    ----------
    rate_hz : float
        Frames a second.
    window : int
        Frames from search to search.
    frames : int
        Frames of the path.
    speed : float
        Mean speed of the eye, scene units a second.
    setup_bytes : int
        What goes to a client before the first delta: the codec.
    raw_gaussian_bytes : int
        Of a Gaussian in float32.
    coded_gaussian_bits : int
        Of a Gaussian as it is coded, before packing.
    searches : tuple of Search
        All of them, the first of which brings the whole cut.
    """

    rate_hz: float
    window: int
    frames: int
    speed: float
    setup_bytes: int
    raw_gaussian_bytes: int
    coded_gaussian_bits: int
    searches: tuple[Search, ...]

    @property
    def duration_s(self) -> float:
        """Of the searches behind the first: so long their deltas have to last."""
        return (len(self.searches) - 1) * self.window / self.rate_hz

    @property
    def start_bytes(self) -> int:
        """Codec and first delta."""
        return self.setup_bytes + self.searches[0].size_bytes

    @property
    def bytes_per_s(self) -> float:
        """Of the deltas behind the first, with their headers."""
        return self._per_s(each.size_bytes for each in self.searches[1:])

    @property
    def up_bytes_per_s(self) -> float:
        """Of the poses."""
        return self._per_s(POSE_BYTES for _ in self.searches[1:])

    @property
    def gaussians_per_s(self) -> float:
        """New Gaussians."""
        return self._per_s(each.gaussians for each in self.searches[1:])

    def messages(self) -> dict[str, list[int]]:
        """Bytes of what goes to the client, a search each, with headers of messages.

        ``streaming`` is what the program sends; ``cuts`` are whole cuts in float32, ``cuts_coded``
        such coded, before zlib. A codec goes before the first.
        """
        cuts = [len(each.cut) for each in self.searches]
        found = {
            "streaming": [each.size_bytes for each in self.searches],
            "cuts": [HEADER_BYTES + count * self.raw_gaussian_bytes for count in cuts],
            "cuts_coded": [HEADER_BYTES + -(-count * self.coded_gaussian_bits // 8)
                           for count in cuts]}
        for name in ("streaming", "cuts_coded"):
            found[name][0] += self.setup_bytes
        return found

    @property
    def unchanged(self) -> float:
        """Mean share of a cut that is in the next."""
        shares = [len(np.intersect1d(a.cut, b.cut, assume_unique=True)) / max(len(a.cut), 1)
                  for a, b in zip(self.searches, self.searches[1:], strict=False)]
        return float(np.mean(shares)) if shares else 1.0

    def _per_s(self, counts) -> float:
        return sum(counts) / self.duration_s if self.duration_s else 0.0


#: Of a pose on its way to the cloud.
POSE_BYTES = HEADER_BYTES + len(Pose(frame=0, sequence=0, camera=Camera.look_at(
    (0, 0, 0), (0, 0, 1), (0, -1, 0), width=1, height=1)).pack())


def gaussian_bytes(sh_degree: int) -> int:
    """Bytes of a Gaussian in float32: place, scales, rotation, opacity and SH."""
    return 4 * (11 + 3 * (sh_degree + 1) ** 2)


def measure(city: City, codec: Codec, cameras: Sequence[Camera], *, window: int, rate_hz: float
            ) -> Measured:
    """Stream a path within this process and count.

    Parameters
    ----------
    city, codec : City, Codec
        What is streamed.
    cameras : sequence of Camera
        A view each frame.
    window : int
        Frames from search to search.
    rate_hz : float
        Frames a second.
    """
    searches = []
    # So many frames more, that the search begun in the last window is made too.
    for drawn in stream_path(city, codec, [*cameras, *[cameras[-1]] * window], window):
        if drawn.sent is not None and drawn.cut is not None and drawn.number < len(cameras):
            searches.append(Search(
                frame=drawn.number, cut=drawn.cut, gaussians=drawn.sent.gaussians,
                size_bytes=len(drawn.sent.data), held=drawn.sent.held))
    eyes = np.array([camera.position for camera in cameras])
    way = float(np.linalg.norm(np.diff(eyes, axis=0), axis=1).sum())
    return Measured(
        rate_hz=rate_hz, window=window, frames=len(cameras),
        speed=way * rate_hz / max(len(cameras) - 1, 1),
        setup_bytes=HEADER_BYTES + len(codec.to_bytes()),
        raw_gaussian_bytes=gaussian_bytes(codec.sh_degree),
        coded_gaussian_bits=codec.design.gaussian_bits(codec.sh_degree), searches=tuple(searches))


@dataclass(frozen=True, kw_only=True)
class OnAir:
    """What a path takes down the network, with packet headers and what is sent again.

    Parameters
    ----------
    start_bytes : float
        Of the first message: nothing can be drawn before.
    total_bytes : float
        Of all of them.
    bytes_per_s : float or None
        Of those behind the first, while they last; none where there are none.
    """

    start_bytes: float
    total_bytes: float
    bytes_per_s: float | None


def on_air(sizes: Sequence[float], duration_s: float, design: LoopDesign) -> OnAir:
    """Take messages through a network, each in packets of its own.

    Parameters
    ----------
    sizes : sequence of float
        Bytes of each message, the first of which is the start; at least one.
    duration_s : float
        For which those behind the first last.
    design : LoopDesign
        Of the network.
    """
    air = [design.on_air_bytes(size) for size in sizes]
    late = sum(air[1:])
    return OnAir(start_bytes=air[0], total_bytes=air[0] + late,
                 bytes_per_s=late / duration_s if len(air) > 1 else None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Loop:
    """A path through a network in time.

    Parameters
    ----------
    used : ndarray
        Frame of the search whose cut each frame draws, shape [frames]; -1 before there is any.
    due : ndarray
        The same where the network takes no time.
    arrived_s : ndarray
        When the delta of each search is there, from the first frame on, shape [searches].
    start_s : float
        From the first pose until the first cut is there, the codec before it.
    missing : ndarray
        Share of the cut due that the one drawn does not have, shape [frames].
    on_air_bytes : float
        Down and up, with packet headers and what is sent again.
    network_j : float
        Energy of these.
    motion_to_photon_s : float
        From a pose to the light of the frame that it is drawn for: the client draws by itself.
    search_age_s : float
        Longest time from a search's pose until its delta is there, the first apart.
    """

    used: Int64Array
    due: Int64Array
    arrived_s: npt.NDArray[np.float64]
    start_s: float
    missing: npt.NDArray[np.float64]
    on_air_bytes: float
    network_j: float
    motion_to_photon_s: float
    search_age_s: float

    @property
    def stale(self) -> npt.NDArray[np.bool_]:
        """Frames that draw an older cut than is due, shape [frames]."""
        return self.used < self.due


def simulate_loop(
    measured: Measured, design: LoopDesign, *, visited: Sequence[int] | None = None,
    outages: Sequence[tuple[float, float]] = (),
) -> Loop:
    """Take a stream through a network: who waits for whom, and what is drawn meanwhile.

    The client does not wait: a window for whose cut the delta is not there draws the newest that
    is. The cloud works on one search at a time, and the network on one delta.

    Parameters
    ----------
    measured : Measured
        The stream.
    design : LoopDesign
        What stands around it.
    visited : sequence of int, optional
        Nodes that each search looks at. Default: those of its cut.
    outages : sequence of (float, float)
        Seconds from and to which nothing goes over the network.
    """
    seconds, searches = 1 / measured.rate_hz, measured.searches
    nodes = [len(each.cut) for each in searches] if visited is None else list(visited)
    if len(nodes) != len(searches):
        raise ValueError(f"Visited must hold {len(searches)} counts, not {len(nodes)}")
    up_bytes = design.on_air_bytes(POSE_BYTES)
    arrived = np.zeros(len(searches))
    cloud_s = line_s = start_s = air_down = 0.0
    for place, (each, looked_at) in enumerate(zip(searches, nodes, strict=True)):
        size = design.on_air_bytes(each.size_bytes + (0 if place else measured.setup_bytes))
        air_down += size
        # The clock of the frames begins when the first cut is there.
        stops = outages if place else ()
        asked_s = _through(each.frame * seconds, up_bytes, design.up, stops)
        cloud_s = max(cloud_s, asked_s) + 1e-9 * looked_at * design.search_ns_per_node + (
            1e-6 * each.gaussians * design.encode_us_per_gaussian)
        line_s = _through(max(line_s, cloud_s), size, design.down, stops, latency=False)
        there_s = line_s + 1e-3 * design.down.latency_ms
        if place:
            arrived[place] = there_s
        else:
            start_s, cloud_s, line_s = there_s, 0.0, 0.0
    used, wanted = np.full(measured.frames, -1), np.empty(measured.frames, np.int64)
    missing = np.zeros(measured.frames)
    by_frame = {each.frame: each for each in searches}
    lacking: dict[tuple[int, int], float] = {}
    for number in range(measured.frames):
        wanted[number] = due(number, measured.window)
        begin_s = number // measured.window * measured.window * seconds
        there = [each.frame for each, at in zip(searches, arrived, strict=True)
                 if at <= begin_s and each.frame <= wanted[number]]
        used[number] = there[-1] if there else -1
        key = (int(used[number]), int(wanted[number]))
        if key not in lacking:
            lacking[key] = _lacking(by_frame[key[1]].cut, None if key[0] < 0 else
                                    by_frame[key[0]].cut)
        missing[number] = lacking[key]
    air_up = len(searches) * up_bytes
    return Loop(
        used=used, due=wanted, arrived_s=arrived, start_s=start_s,
        missing=missing, on_air_bytes=air_down + air_up,
        network_j=1e-9 * (air_down * design.down.energy_nj_per_byte
                          + air_up * design.up.energy_nj_per_byte),
        motion_to_photon_s=1e-3 * (design.render_ms + design.display_ms),
        search_age_s=max((float(at - each.frame * seconds) for at, each in zip(
            arrived[1:], searches[1:], strict=True)), default=start_s))


def remote_latency_s(frame_bytes: float, design: LoopDesign) -> float:
    """Motion to photon where the cloud draws and sends a video, at the client's time per frame."""
    up_s = _through(0.0, design.on_air_bytes(POSE_BYTES), design.up, ())
    down_s = _through(0.0, design.on_air_bytes(frame_bytes), design.down, ())
    return up_s + down_s + 1e-3 * (
        design.render_ms + design.encode_ms + design.decode_ms + design.display_ms)


def artefacts(city: City, codec: Codec, cameras: Sequence[Camera], measured: Measured, loop: Loop
              ) -> list[tuple[int, float]]:
    """PSNR of every stale frame against the same with the cut that was due; (frame, dB)."""
    by_frame = {each.frame: each for each in measured.searches}
    found = []
    for number in map(int, np.flatnonzero(loop.stale)):
        if loop.used[number] < 0:
            continue
        images = [render(_coded(city, codec, by_frame[int(each[number])].cut),
                         cameras[number]).image for each in (loop.used, loop.due)]
        found.append((number, psnr_db(*images)))
    return found


def pictures(city: City, codec: Codec, cameras: Sequence[Camera], window: int
             ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Frames as a client draws them, and of the same cuts before coding: [N, height, width, 3]."""
    coded, exact = [], []
    for drawn in stream_path(city, codec, cameras, window):
        coded.append(render(drawn.client.scene(), drawn.camera).image)
        exact.append(render(city.scene(drawn.client.table.cut), drawn.camera).image)
    return np.stack(coded), np.stack(exact)


def _coded(city: City, codec: Codec, cut: Int64Array) -> Scene:
    return codec.decode(codec.encode(city.scene(cut)), len(cut))


def _lacking(wanted: Int64Array, there: Int64Array | None) -> float:
    if there is None or not len(wanted):
        return float(there is None)
    return 1 - len(np.intersect1d(wanted, there, assume_unique=True)) / len(wanted)


def _through(at_s: float, size_bytes: float, link: LinkDesign,
             outages: Sequence[tuple[float, float]], *, latency: bool = True) -> float:
    """When bytes that leave at a time are through, outages stopping them."""
    left_s = 0.0 if link.bandwidth_mbps == inf else size_bytes * 8e-6 / link.bandwidth_mbps
    for begin_s, end_s in sorted(outages):
        if end_s <= at_s:
            continue
        if at_s + left_s <= begin_s:
            break
        left_s -= max(begin_s - at_s, 0.0)
        at_s = end_s
    return at_s + left_s + (1e-3 * link.latency_ms if latency else 0.0)
