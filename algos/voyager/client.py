"""The client as a process: asks for cuts ahead of its path, and draws what it holds.

A frame draws the cut of the search that was asked for a window before the window of the frame
began, never a later one: so what is drawn does not depend on the network, and is bit for bit that
of :func:`splatforge.algos.voyager.city.stream_path`. Where that cut is not there in time, the
client waits, and says for how long.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from splatforge.algos.voyager.city import due, search_begins, search_pose
from splatforge.algos.voyager.codec import Codec
from splatforge.algos.voyager.delta import ClientStream, DivergedError
from splatforge.algos.voyager.link import ALIVE_S, STOOD_STILL_S, Link, Traffic
from splatforge.algos.voyager.session import Hello, Pose, Welcome, pack_position
from splatforge.algos.voyager.wire import Kind, Message, WireError, encode
from splatforge.designs.streaming import LinkDesign, StreamingDesign
from splatforge.scenes import Camera, Scene

__all__ = ["Client", "CloudError", "Seen"]

_FROM_CLOUD = (Kind.WELCOME, Kind.CODEC, Kind.DELTA, Kind.ERROR, Kind.ALIVE)
#: Seconds between two attempts to reach the cloud, at first and at last.
_RETRY_S, _RETRY_MOST_S = 0.05, 1.0
#: Share of the time to give up in behind which a silent connection is given up for a new one.
_SILENCE = 0.4
#: Connections without a delta of use behind which bytes that come no longer extend that time.
_FRUITLESS = 8
#: Messages that wait to be looked at; behind, the socket is left to fill.
_INBOX = 16


class CloudError(RuntimeError):
    """The cloud cannot be reached, does not answer, or has refused."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """A frame that may be drawn.

    Parameters
    ----------
    number : int
        From 0 upward.
    camera : Camera
        Its view.
    scene : Scene
        Gaussians of the cut, by id.
    held : int
        Gaussians that the client holds.
    waited_s : float
        Time for which its cut was waited for.
    """

    number: int
    camera: Camera
    scene: Scene
    held: int
    waited_s: float


class Client:
    """Follows a path through the city of a cloud.

    Parameters
    ----------
    host, port : str, int
        Where the cloud is.
    link : LinkDesign, optional
        How what is sent to the cloud is held back.
    timeout_s : float
        Seconds for which nothing of a delta that is waited for comes, reconnecting included, after
        which to give up.
    """

    def __init__(self, host: str, port: int, *, link: LinkDesign | None = None,
                 timeout_s: float = 10.0) -> None:
        self.host, self.port, self.link, self.timeout_s = host, port, link, timeout_s
        self.traffic = Traffic()
        #: Connections, of these such that went on with the stream, deltas that did not fit.
        self.connections = self.resumed = self.resyncs = 0
        self.waited_s = 0.0
        self.gaussians = self.deltas = 0
        self._codec: Codec | None = None
        self._stream: ClientStream | None = None
        self._number = 0
        self._open: Link | None = None
        self._pump: asyncio.Task[None] | None = None
        self._inbox: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self._outstanding: dict[int, Camera] = {}
        #: What the cloud has said of its city at first.
        self._city: Welcome | None = None
        #: Connections since the last delta that was of use, and what the last one ended with.
        self._fruitless, self._why = 0, "no answer"

    async def follow(self, path: Callable[[Welcome], Sequence[Camera]]) -> AsyncIterator[Seen]:
        """Yield every frame of a path when its cut is there.

        Parameters
        ----------
        path : callable
            Takes what the cloud says of its city, returns a view each frame.

        Raises
        ------
        CloudError
            The cloud cannot be reached, does not answer in time, or has refused.
        """
        try:
            welcome = await self._reach(self._deadline())
            cameras, window = path(welcome), welcome.window_frames
            scene, held = None, 0
            for number, camera in enumerate(cameras):
                waited_s = 0.0
                if number % window == 0:
                    start = perf_counter()
                    if search_begins(number, window, len(cameras)):
                        self._ask(number, search_pose(cameras, number, window))
                    changed = await self._apply(due(number, window))
                    waited_s = perf_counter() - start
                    self.waited_s += waited_s
                    if changed or scene is None:
                        assert self._stream is not None
                        scene, held = self._stream.scene(), self._stream.table.held
                assert scene is not None
                yield Seen(number=number, camera=camera, scene=scene, held=held,
                           waited_s=waited_s)
            if self._open is not None:
                self._open.send(encode(Kind.BYE, stream=self._number))
        finally:
            await self._close(self.timeout_s)

    def to_json(self) -> dict[str, Any]:
        """Figures by name."""
        return {**self.traffic.to_json(), "connections": self.connections,
                "resumed": self.resumed, "resyncs": self.resyncs, "waited_s": self.waited_s,
                "gaussians_received": self.gaussians, "deltas": self.deltas}

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.timeout_s

    def _ask(self, frame: int, pose: Camera) -> None:
        self._outstanding[frame] = pose
        if self._open is not None:
            self._send_pose(frame)

    def _send_pose(self, frame: int) -> None:
        assert self._open is not None
        assert self._stream is not None
        pose = Pose(frame=frame, sequence=self._stream.sequence, camera=self._outstanding[frame])
        self._open.send(encode(Kind.POSE, pose.pack(), stream=self._number))

    async def _apply(self, frame: int) -> bool:
        """Apply deltas until the table is that of a frame; tells whether there was one."""
        changed = await self._take(None, frame)
        # The connection on which what is missing has been asked for.
        asked = 0
        deadline = self._deadline()
        while self._stream is None or self._stream.table.frame < frame:
            message = await self._next(deadline)
            if message.stream != self._number or self._stream is None:
                continue
            if await self._take(message, frame):
                changed, asked = True, 0
                deadline = self._deadline()
            elif (self._stream is not None and self._stream.gap and self._open is not None
                  and asked != self.connections):
                asked = self.connections
                self.resyncs += 1
                self._open.send(encode(Kind.RESYNC, pack_position(self._stream.position),
                                       stream=self._number))
        return changed

    async def _take(self, message: Message | None, frame: int) -> bool:
        """Apply what has come, up to a frame; tells whether that was anything."""
        stream = self._stream
        if stream is None:
            return False
        deltas, gaussians = stream.deltas, stream.gaussians
        try:
            if message is None:
                stream.catch_up(frame)
            else:
                stream.receive(message, frame)
        except DivergedError as error:
            # A key would be of the cloud's last frame. A new stream begins with the poses that
            # are outstanding, the one of the frame that is wanted among them.
            self._why = str(error)
            self.resyncs += 1
            self._stream = None
            await self._close(0)
        except WireError as error:
            # As bytes that are damaged: the cloud is asked again, from what has been applied.
            self._why = str(error)
            await self._close(0)
        self.deltas += stream.deltas - deltas
        self.gaussians += stream.gaussians - gaussians
        self._outstanding = {number: pose for number, pose in self._outstanding.items()
                             if number > stream.table.frame}
        if stream.deltas == deltas:
            return False
        self._fruitless = 0
        return True

    async def _next(self, deadline: float) -> Message:
        """The next delta, of this connection or of another."""
        loop = asyncio.get_running_loop()
        while True:
            if self._open is None:
                await self._reach(deadline)
            assert self._open is not None
            link, begin_s, item = self._open, loop.time(), None
            while item is None:
                heard_s = max(begin_s, link.last_read_s)
                if self._fruitless <= _FRUITLESS:
                    # What is on its way is waited for, however long it takes.
                    deadline = max(deadline, link.last_read_s + self.timeout_s)
                silence_s = max(_SILENCE * self.timeout_s, 2.5 * ALIVE_S)
                until_s = max(min(heard_s + silence_s, deadline), loop.time() + 0.01)
                try:
                    async with asyncio.timeout(until_s - loop.time()):
                        item = await self._inbox.get()
                except TimeoutError:
                    late_s = loop.time() - until_s
                    if late_s > STOOD_STILL_S:
                        # What has come meanwhile has not been read yet.
                        begin_s, deadline = loop.time(), max(deadline, until_s) + late_s + 0.05
                        continue
                    if link.last_read_s > heard_s and self._fruitless <= _FRUITLESS:
                        continue
                    if loop.time() + 0.05 > deadline:
                        raise CloudError(f"{self.host}:{self.port}: cloud has not answered for "
                                         f"{self.timeout_s:g} s") from None
                    item = OSError("silent")
            if isinstance(item, Message):
                if item.kind == Kind.ERROR:
                    raise CloudError(self._refused(item))
                if item.kind == Kind.DELTA:
                    return item
                item = WireError(f"Message must be a delta, not {item.kind.name}")
            self._why = _line(item) or self._why
            await self._close(0)

    async def _reach(self, deadline: float) -> Welcome:
        """Connect, and say what is held; again until there is an answer."""
        loop, pause_s = asyncio.get_running_loop(), _RETRY_S
        if self._fruitless:
            # A cloud whose answers are of no use is not asked as fast as it can be reached.
            await asyncio.sleep(min(_RETRY_S * self._fruitless, _RETRY_MOST_S))
        while (left_s := deadline - loop.time()) > 0:
            try:
                return await self._connect(left_s)
            except (OSError, WireError) as error:  # a timeout among these
                self._why = _line(error) or self._why
                await self._close(0)
            await asyncio.sleep(min(pause_s, max(deadline - loop.time(), 0)))
            pause_s = min(2 * pause_s, _RETRY_MOST_S)
        raise CloudError(f"{self.host}:{self.port}: no cloud answers within {self.timeout_s:g} s "
                         f"({self._why}): start `splatforge cloud serve` there, or see --connect")

    async def _connect(self, left_s: float) -> Welcome:
        """Connect, and say what is held; the cloud may be silent for so long."""
        async with asyncio.timeout(left_s):
            reader, writer = await asyncio.open_connection(self.host, self.port)
        link = Link(reader, writer, self.link, self.traffic, _FROM_CLOUD)
        self._open = link
        self.connections += 1
        sequence, digest = (0, 0) if self._stream is None else self._stream.position
        link.send(encode(Kind.HELLO, Hello(
            sequence=sequence, digest=digest,
            codec=0 if self._codec is None else self._codec.digest()).pack(),
            stream=self._number))
        message = await self._expect(link, Kind.WELCOME, left_s)
        welcome = Welcome.parse(message.payload)
        self._check_city(welcome)
        if self._codec is None or self._codec.digest() != welcome.codec:
            payload = (await self._expect(link, Kind.CODEC, left_s)).payload
            self._codec = Codec.from_bytes(payload, StreamingDesign())
            if self._codec.digest() != welcome.codec:
                raise WireError("Codec must have the digest that the cloud states")
        # The table's rule is no part of the codec: a cloud that comes back may have another.
        self._codec = replace(self._codec, design=replace(
            self._codec.design, reuse_window=welcome.reuse_window))
        if self._stream is None or not welcome.resumed:
            self._stream = ClientStream(self._codec, welcome.nodes)
            self._number = message.stream
        self.resumed += welcome.resumed
        self._fruitless += 1
        self._inbox = asyncio.Queue(_INBOX)
        self._pump = asyncio.create_task(_pump(link, self._inbox))
        for frame in sorted(self._outstanding):
            self._send_pose(frame)
        return welcome

    def _check_city(self, welcome: Welcome) -> None:
        """A path that has begun goes on through the same city, at the same pace."""
        first = self._city = self._city or welcome
        for name in ("nodes", "window_frames"):
            was, now = getattr(first, name), getattr(welcome, name)
            if now != was:
                raise CloudError(f"{self.host}:{self.port}: cloud has come back with {name} "
                                 f"{now}, not {was}: view it anew")

    async def _expect(self, link: Link, kind: Kind, timeout_s: float) -> Message:
        message = await link.receive(timeout_s)
        if message is None:
            raise WireError("the connection closes")
        if message.kind == Kind.ERROR:
            raise CloudError(self._refused(message))
        if message.kind != kind:
            raise WireError(f"Message must be {kind.name}, not {message.kind.name}")
        return message

    def _refused(self, message: Message) -> str:
        text = " ".join(message.payload.decode("utf-8", "replace").split())
        return f"{self.host}:{self.port}: cloud refuses: {text}"

    async def _close(self, timeout_s: float) -> None:
        link, self._open = self._open, None
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        if link is not None:
            await link.close(timeout_s)


async def _pump(link: Link, inbox: asyncio.Queue[Message | Exception]) -> None:
    """Take messages from a socket as they come, whatever else is being done."""
    try:
        while (message := await link.receive(None)) is not None:
            # That it is alive has been noted by the link.
            if message.kind != Kind.ALIVE:
                await inbox.put(message)
        await inbox.put(OSError("the connection closes"))
    except (WireError, OSError) as error:
        await inbox.put(error)


def _line(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())
