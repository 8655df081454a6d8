"""Streaming of a city over a network: bytes, times, energy, and what is missing when it stalls.

:func:`measure` counts the bytes of a path by the code that cloud and client run, and beside them
what else could be sent. :func:`simulate_loop` takes these counts through a network in time. Bytes
of the program (headers of messages included) are counted exactly; what TCP and IP add follows from
packet sizes, what is sent again from a share of loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from splatforge.algos.quality import psnr_db
from splatforge.algos.reference import render
from splatforge.algos.voyager.city import (
    City,
    Drawn,
    Searched,
    due,
    search_begins,
    search_pose,
    stream_path,
)
from splatforge.algos.voyager.codec import Codec
from splatforge.algos.voyager.session import Pose
from splatforge.algos.voyager.table import ManagementTable
from splatforge.algos.voyager.wire import HEADER_BYTES
from splatforge.designs.streaming import LinkDesign, LoopDesign
from splatforge.scenes import Camera, Scene

__all__ = ["POSE_BYTES", "Loop", "Measured", "OnAir", "Painter", "Pictures", "Search", "SpeedPoint",
           "artefacts", "gaussian_bytes", "measure", "on_air", "remote_latencies_s",
           "simulate_loop", "speed_point", "spread"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """A search of the cloud, and the delta that came of it.

    Parameters
    ----------
    frame : int
        At which it begins.
    change : Searched
        What it has found, and what that took.
    cut : int
        Gaussians of the cut.
    gaussians : int
        Gaussians that the delta holds.
    size_bytes : int
        Of the delta, with its header.
    held : int
        Gaussians that the table has behind it, and the client once it has the delta.
    """

    frame: int
    change: Searched
    cut: int
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
        cuts = [each.cut for each in self.searches]
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
        shares = [1 - len(b.change.left) / max(a.cut, 1)
                  for a, b in zip(self.searches, self.searches[1:], strict=False)]
        return float(np.mean(shares)) if shares else 1.0

    def cut(self, frame: int) -> Int64Array:
        """Ids of the cut of the search that began at a frame, ascending."""
        ids = np.empty(0, np.int64)
        for each in self.searches:
            if each.frame > frame:
                break
            ids = np.union1d(np.setdiff1d(ids, each.change.left, assume_unique=True),
                             each.change.entered)
        return ids

    def lacking(self, wanted: int, there: int) -> float:
        """Share of the cut of one search that the cut of an earlier one does not have.

        Parameters
        ----------
        wanted, there : int
            Frames at which they began; -1 is before any.
        """
        # Of the later one what the earlier one has not, and the other way round.
        more = less = np.empty(0, np.int64)
        cut = 0
        for each in self.searches:
            if there < each.frame <= wanted:
                left, entered = each.change.left, each.change.entered
                more, less = (
                    np.union1d(np.setdiff1d(more, left), np.setdiff1d(entered, less)),
                    np.union1d(np.setdiff1d(less, entered), np.setdiff1d(left, more)))
                cut = each.cut
        return len(more) / cut if cut else float(there < 0)

    def _per_s(self, counts) -> float:
        return sum(counts) / self.duration_s if self.duration_s else 0.0


#: Of a pose on its way to the cloud.
POSE_BYTES = HEADER_BYTES + len(Pose(frame=0, sequence=0, camera=Camera.look_at(
    (0, 0, 0), (0, 0, 1), (0, -1, 0), width=1, height=1)).pack())


def gaussian_bytes(sh_degree: int) -> int:
    """Bytes of a Gaussian in float32: place, scales, rotation, opacity and SH."""
    return 4 * (11 + 3 * (sh_degree + 1) ** 2)


def measure(city: City, codec: Codec, cameras: Sequence[Camera], *, window: int, rate_hz: float,
            seen: Callable[[Drawn], None] = lambda drawn: None) -> Measured:
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
    seen : callable, optional
        Takes every frame before the next: a :class:`Painter`, say.
    """
    searches, cut = [], 0
    # So many frames more, that the search begun in the last window is made too.
    for drawn in stream_path(city, codec, [*cameras, *[cameras[-1]] * window], window):
        if drawn.number < len(cameras):
            seen(drawn)
        if drawn.sent is not None and drawn.change is not None and drawn.number < len(cameras):
            cut += len(drawn.change.entered) - len(drawn.change.left)
            searches.append(Search(
                frame=drawn.number, change=drawn.change, cut=cut, gaussians=drawn.sent.gaussians,
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
    search_s : ndarray
        Time of the cloud for each search, its coding apart, shape [searches].
    motion_to_photon_s : ndarray
        From a pose to the light of the frame that it is drawn for: the client draws by itself.
        Shape [frames].
    search_age_s : float
        Longest time from a search's pose until its delta is there, the first apart.
    cut_age_s : ndarray
        Time since the pose of the search whose cut a frame draws, shape [frames]; infinite before
        there is any.
    """

    used: Int64Array
    due: Int64Array
    arrived_s: npt.NDArray[np.float64]
    start_s: float
    missing: npt.NDArray[np.float64]
    on_air_bytes: float
    network_j: float
    search_s: npt.NDArray[np.float64]
    motion_to_photon_s: npt.NDArray[np.float64]
    search_age_s: float
    cut_age_s: npt.NDArray[np.float64]

    @property
    def stale(self) -> npt.NDArray[np.bool_]:
        """Frames that draw an older cut than is due, shape [frames]."""
        return self.used < self.due


def simulate_loop(
    measured: Measured, design: LoopDesign, render_s: npt.ArrayLike, *,
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
    render_s : array_like
        Time of the client for a frame, seconds, of all frames or of each, shape [frames].
    outages : sequence of (float, float)
        Seconds from and to which nothing goes over the network.
    """
    seconds, searches = 1 / measured.rate_hz, measured.searches
    up_bytes = design.on_air_bytes(POSE_BYTES)
    search_s = 1e-9 * design.search_ns_per_node * np.array(
        [each.change.visited for each in searches], np.float64)
    arrived = np.zeros(len(searches))
    cloud_s = line_s = start_s = air_down = 0.0
    for place, each in enumerate(searches):
        size = design.on_air_bytes(each.size_bytes + (0 if place else measured.setup_bytes))
        air_down += size
        # The clock of the frames begins when the first cut is there.
        stops = outages if place else ()
        asked_s = _through(each.frame * seconds, up_bytes, design.up, stops)
        cloud_s = max(cloud_s, asked_s) + search_s[place] + (
            1e-6 * each.gaussians * design.encode_us_per_gaussian)
        line_s = _through(max(line_s, cloud_s), size, design.down, stops, latency=False)
        there_s = line_s + 1e-3 * design.down.latency_ms
        if place:
            arrived[place] = there_s
        else:
            start_s, cloud_s, line_s = there_s, 0.0, 0.0
    used, wanted = np.full(measured.frames, -1), np.empty(measured.frames, np.int64)
    missing, age_s = np.zeros(measured.frames), np.full(measured.frames, inf)
    lacking: dict[tuple[int, int], float] = {}
    for number in range(measured.frames):
        wanted[number] = due(number, measured.window)
        begin_s = number // measured.window * measured.window * seconds
        there = [each.frame for each, at in zip(searches, arrived, strict=True)
                 if at <= begin_s and each.frame <= wanted[number]]
        if there:
            used[number] = there[-1]
            age_s[number] = (number - there[-1]) * seconds
        key = int(wanted[number]), int(used[number])
        if key not in lacking:
            lacking[key] = measured.lacking(*key)
        missing[number] = lacking[key]
    air_up = len(searches) * up_bytes
    return Loop(
        used=used, due=wanted, arrived_s=arrived, start_s=start_s,
        missing=missing, on_air_bytes=air_down + air_up,
        network_j=1e-9 * (air_down * design.down.energy_nj_per_byte
                          + air_up * design.up.energy_nj_per_byte),
        search_s=search_s,
        motion_to_photon_s=np.broadcast_to(
            np.asarray(render_s, np.float64) + 1e-3 * design.display_ms, measured.frames),
        search_age_s=max((float(at - each.frame * seconds) for at, each in zip(
            arrived[1:], searches[1:], strict=True)), default=start_s), cut_age_s=age_s)


def remote_latencies_s(frame_bytes: Sequence[float], rate_hz: float, design: LoopDesign,
                       render_s: float, *, outages: Sequence[tuple[float, float]] = ()
                       ) -> npt.NDArray[np.float64]:
    """Motion to photon where the cloud draws and sends a video: every frame goes over the network.

    Parameters
    ----------
    frame_bytes : sequence of float
        Of the video's frames.
    rate_hz : float
        Frames a second.
    design : LoopDesign
        What stands around it.
    render_s : float
        Time of the cloud for a frame, which it draws one beside the other.
    outages : sequence of (float, float)
        Seconds from and to which nothing goes over the network; no frame is left out behind them.

    Returns
    -------
    ndarray
        Seconds, shape [frames].
    """
    up_bytes, line_s, found = design.on_air_bytes(POSE_BYTES), 0.0, []
    for number, size in enumerate(frame_bytes):
        posed_s = number / rate_hz
        drawn_s = (_through(posed_s, up_bytes, design.up, outages) + render_s
                   + 1e-3 * design.encode_ms)
        line_s = _through(max(line_s, drawn_s), design.on_air_bytes(size), design.down, outages,
                          latency=False)
        found.append(line_s + 1e-3 * (design.down.latency_ms + design.decode_ms
                                      + design.display_ms) - posed_s)
    return np.array(found)


def spread(frames: int, most: int) -> list[int]:
    """Some frames of a path, as far apart as they can be, its last among them."""
    count = min(most, frames)
    return sorted(frames - 1 - round(each * (frames - 1) / max(count - 1, 1))
                  for each in range(count))


def artefacts(city: City, cameras: Sequence[Camera], measured: Measured, loop: Loop, *,
              most: int = 16) -> list[tuple[int, float]]:
    """PSNR of stale frames against the same with the cut that was due; (frame, dB).

    Parameters
    ----------
    city, cameras, measured, loop : City, sequence of Camera, Measured, Loop
        What was streamed, and how. Gaussians are drawn uncoded: what differs is what is missing.
    most : int
        Frames that are drawn, evenly spread among those that are stale.
    """
    stale = [int(number) for number in np.flatnonzero(loop.stale) if loop.used[number] >= 0]
    found = []
    for number in (stale[each] for each in spread(len(stale), most)) if stale else ():
        images = [render(city.scene(measured.cut(int(each[number]))), cameras[number]).image
                  for each in (loop.used, loop.due)]
        found.append((number, psnr_db(*images)))
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Some frames of a path, each drawn of four scenes; shapes [N, height, width, 3].

    Parameters
    ----------
    numbers : list of int
        Which frames.
    coded : ndarray
        As the client draws them.
    exact : ndarray
        Of the same cuts before coding.
    full : ndarray
        Of the cut at the frame's own pose, not coded: as one that has the whole city would draw it.
    """

    numbers: list[int]
    coded: npt.NDArray[np.float32]
    exact: npt.NDArray[np.float32]
    full: npt.NDArray[np.float32]

    def worst_db(self, name: str, against: str) -> float:
        """Lowest PSNR of a frame of one kind against that of another."""
        return min(psnr_db(*pair) for pair in zip(
            getattr(self, name), getattr(self, against), strict=True))


class Painter:
    """Draws frames of a stream as it goes.

    Parameters
    ----------
    city : City
        What is streamed.
    numbers : sequence of int
        Frames to draw.
    seen : callable, optional
        Takes each of their numbers, what the client draws, and the view.
    """

    def __init__(self, city: City, numbers: Sequence[int],
                 seen: Callable[[int, Scene, Camera], None] | None = None) -> None:
        self._city, self._numbers, self._seen = city, sorted(set(numbers)), seen
        self._find, self._own = city.finder(), np.empty(0, np.int64)
        self._images: dict[str, list[npt.NDArray[np.float32]]] = {
            "coded": [], "exact": [], "full": []}

    def take(self, drawn: Drawn) -> None:
        """The next frame of the stream."""
        if drawn.number not in self._numbers:
            return
        camera, images = drawn.camera, self._images
        change = self._find(camera)
        self._own = np.union1d(np.setdiff1d(self._own, change.left, assume_unique=True),
                               change.entered)
        scene = drawn.client.scene()
        if self._seen is not None:
            self._seen(drawn.number, scene, camera)
        images["coded"].append(render(scene, camera).image)
        del scene
        cut = drawn.client.table.cut
        images["exact"].append(render(self._city.scene(cut), camera).image)
        images["full"].append(images["exact"][-1] if np.array_equal(cut, self._own)
                              else render(self._city.scene(self._own), camera).image)

    def pictures(self) -> Pictures:
        """What has been drawn; at least one frame."""
        return Pictures(numbers=self._numbers,
                        **{name: np.stack(each) for name, each in self._images.items()})


@dataclass(frozen=True, kw_only=True)
class SpeedPoint:
    """What a speed asks for.

    Parameters
    ----------
    speed : float
        Of the eye, scene units a second.
    searches : int
        Behind the first.
    gaussians_per_s, gaussians_per_unit, gaussians_per_frame : float
        Gaussians that are sent: of a second, of a unit of the way, of a frame.
    unchanged : float
        Mean share of a cut that is in that of the next search.
    cut : int
        Gaussians of the last cut.
    """

    speed: float
    searches: int
    gaussians_per_s: float
    gaussians_per_unit: float | None
    gaussians_per_frame: float
    unchanged: float
    cut: int


def speed_point(city: City, cameras: Sequence[Camera], *, window: int, rate_hz: float,
                reuse_window: int) -> SpeedPoint:
    """New Gaussians of a path, as the cloud's table has it; nothing is coded.

    Parameters
    ----------
    city : City
        What is streamed.
    cameras : sequence of Camera
        A view each frame, of at least two windows.
    window : int
        Frames from search to search.
    rate_hz : float
        Frames a second.
    reuse_window : int
        As in :class:`splatforge.designs.streaming.StreamingDesign`.
    """
    if len(cameras) < 2 * window + 1:
        raise ValueError(f"Frames must be at least two windows and one, {2 * window + 1}, not "
                         f"{len(cameras)}")
    find, table = city.finder(), ManagementTable(reuse_window)
    new, shares, cut = [], [], 0
    for number in range(0, len(cameras), window):
        if not search_begins(number, window, len(cameras)):
            continue
        step = table.plan(number, find(search_pose(cameras, number, window)))
        table.commit(step)
        if number:
            new.append(len(step.new))
            shares.append(1 - len(step.left) / max(cut, 1))
        cut += len(step.entered) - len(step.left)
    eyes = np.array([camera.position for camera in cameras])
    way = float(np.linalg.norm(np.diff(eyes, axis=0), axis=1).sum())
    speed = way * rate_hz / (len(cameras) - 1)
    per_frame = sum(new) / (len(new) * window)
    return SpeedPoint(
        speed=speed, searches=len(new), gaussians_per_s=per_frame * rate_hz,
        gaussians_per_unit=per_frame * rate_hz / speed if speed else None,
        gaussians_per_frame=per_frame, unchanged=float(np.mean(shares)), cut=cut)


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
