"""A socket with a bandwidth, a latency, and a count of its bytes."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from math import isfinite
from typing import TypeVar

from splatforge.algos.voyager.wire import HEADER_BYTES, Decoder, Kind, Message
from splatforge.designs.streaming import LinkDesign

__all__ = ["ALIVE_S", "STOOD_STILL_S", "Link", "Traffic"]

_Awaited = TypeVar("_Awaited")
#: Seconds between two signs of life of a cloud that is at work on an answer.
ALIVE_S = 0.4
#: Seconds by which an alarm is late where the loop had other work, so that it has read nothing.
STOOD_STILL_S = 0.1
#: Bytes that leave at once, at most, and are read; and at a low rate the seconds that they take.
_PIECE, _PIECE_S = 16384, 0.05


@dataclass
class Traffic:
    """Bytes that went through sockets, with everything that the program has put in front of them.

    What TCP and IP add is not known here. Counted are the bytes handed to the socket and those
    taken from it.
    """

    sent_bytes: int = 0
    received_bytes: int = 0
    sent_kinds: Counter[str] = field(default_factory=Counter)
    received_kinds: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, object]:
        """Figures by name."""
        return {"sent_bytes": self.sent_bytes, "received_bytes": self.received_bytes,
                "sent_kinds_bytes": dict(self.sent_kinds),
                "received_kinds_bytes": dict(self.received_kinds)}


class Link:
    """One end of a connection; what it sends goes through a token bucket, then takes its time.

    Parameters
    ----------
    reader, writer :
        The socket.
    design : LinkDesign or None
        How what is sent is held back; not at all without one.
    traffic : Traffic
        Where bytes are counted.
    kinds : tuple of Kind
        Messages that may come.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
                 design: LinkDesign | None, traffic: Traffic, kinds: tuple[Kind, ...]) -> None:
        self._reader, self._writer, self._traffic = reader, writer, traffic
        self._decoder = Decoder(*kinds)
        self._found: deque[Message] = deque()
        self._rate = self._burst_s = self._latency_s = 0.0
        if design is not None and isfinite(design.bandwidth_mbps):
            self._rate = design.bandwidth_mbps * 1e6 / 8
            self._burst_s = design.burst_bytes / self._rate
        if design is not None:
            self._latency_s = design.latency_ms / 1e3
        self._piece = _PIECE
        if self._rate:
            self._piece = int(min(max(self._rate * _PIECE_S, 256), _PIECE))
        self._free = float("-inf")
        #: Bytes put on their way, and of these such that are so no more.
        self.queued_bytes = self.gone_bytes = 0
        #: When bytes have come last, and when they have gone.
        self.last_read_s = self.last_write_s = float("-inf")
        self._held_back = False
        self._moved = asyncio.Event()
        self._queue: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
        self._sender = asyncio.create_task(self._send_all())

    def send(self, data: bytes) -> None:
        """Put a message on its way, if the connection stands."""
        if self._sender.done():
            return
        self._traffic.sent_kinds[Kind(data[5]).name.lower()] += len(data)
        now = asyncio.get_running_loop().time()
        self.queued_bytes += len(data)
        for start in range(0, len(data), self._piece):
            piece = data[start:start + self._piece]
            leaves = now
            if self._rate:
                # The bucket is full when it has been left alone for as long as it takes to fill.
                self._free = max(self._free, now - self._burst_s) + len(piece) / self._rate
                leaves = max(now, self._free)
            self._queue.put_nowait((leaves + self._latency_s, piece))

    async def receive(self, timeout_s: float | None) -> Message | None:
        """The next message; ``None`` at the end of the connection.

        Raises
        ------
        WireError
            What has come is no message, or ends within one.
        TimeoutError
            Nothing has come or gone for that time, if there is a limit to it.
        OSError
            The connection has broken.
        """
        while not self._found:
            data = await self._unless_idle(timeout_s, lambda: self._reader.read(_PIECE))
            self.last_read_s = asyncio.get_running_loop().time()
            self._traffic.received_bytes += len(data)
            if not data:
                self._decoder.end()
                return None
            self._found += self._decoder.feed(data)
        message = self._found.popleft()
        self._traffic.received_kinds[message.kind.name.lower()] += (
            HEADER_BYTES + len(message.payload))
        return message

    async def room(self, most_bytes: int, timeout_s: float) -> None:
        """Wait until no more bytes than these are on their way.

        Raises
        ------
        TimeoutError
            Nothing has come or gone for that time.
        """
        while self.queued_bytes > most_bytes:
            self._moved.clear()
            await self._unless_idle(timeout_s, self._moved.wait)

    async def _unless_idle(self, timeout_s: float | None,
                           wait: Callable[[], Coroutine[None, None, _Awaited]]) -> _Awaited:
        """Wait for something that may be begun again, unless the connection is idle for so long."""
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        while True:
            last_s = max(begin_s, self.last_read_s, self.last_write_s)
            left_s = None if timeout_s is None else max(last_s + timeout_s - loop.time(), 0.001)
            until_s, limit = loop.time() + (left_s or 0), asyncio.timeout(left_s)
            try:
                async with limit:
                    return await wait()
            except TimeoutError:
                if not limit.expired():
                    # The socket's own.
                    raise
                if self._held_back or loop.time() > until_s + STOOD_STILL_S:
                    # By this end's own bucket, or by other work of its loop.
                    begin_s = loop.time()
                elif max(self.last_read_s, self.last_write_s) <= last_s:
                    raise

    async def close(self, timeout_s: float) -> None:
        """Send what is on its way, then close; whatever stands against it, in that time."""
        self._queue.put_nowait(None)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait([self._sender])
                self._writer.close()
                await self._writer.wait_closed()
        except (TimeoutError, OSError):
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        self._sender.cancel()
        self._writer.transport.abort()

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        while (item := await self._queue.get()) is not None:
            at, piece = item
            if (wait_s := at - loop.time()) > 0:
                self._held_back = True
                await asyncio.sleep(wait_s)
                self._held_back = False
            try:
                self._writer.write(piece)
                self._traffic.sent_bytes += len(piece)
                await self._writer.drain()
            except OSError:
                # The reading side hears of it too.
                self._writer.transport.abort()
                self.gone_bytes += self.queued_bytes
                self.queued_bytes = 0
                self._moved.set()
                return
            self.last_write_s = loop.time()
            self.queued_bytes -= len(piece)
            self.gone_bytes += len(piece)
            self._moved.set()
