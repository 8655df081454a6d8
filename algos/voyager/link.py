"""A socket with a bandwidth, a latency, and a count of its bytes."""

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from math import isfinite

from splatforge.algos.voyager.wire import HEADER_BYTES, Decoder, Kind, Message
from splatforge.designs.streaming import LinkDesign

__all__ = ["Link", "Traffic"]

#: Bytes that leave at once, at most; and are read.
_PIECE = 16384


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
        self._free = float("-inf")
        self._queue: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
        self._sender = asyncio.create_task(self._send_all())

    def send(self, data: bytes) -> None:
        """Put a message on its way."""
        self._traffic.sent_kinds[Kind(data[5]).name.lower()] += len(data)
        now = asyncio.get_running_loop().time()
        for start in range(0, len(data), _PIECE):
            piece = data[start:start + _PIECE]
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
            None has come whole in that time, if there is a limit to it.
        OSError
            The connection has broken.
        """
        async with asyncio.timeout(timeout_s):
            while not self._found:
                data = await self._reader.read(_PIECE)
                self._traffic.received_bytes += len(data)
                if not data:
                    self._decoder.end()
                    return None
                self._found += self._decoder.feed(data)
        message = self._found.popleft()
        self._traffic.received_kinds[message.kind.name.lower()] += (
            HEADER_BYTES + len(message.payload))
        return message

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
                await asyncio.sleep(wait_s)
            try:
                self._writer.write(piece)
                self._traffic.sent_bytes += len(piece)
                await self._writer.drain()
            except OSError:
                # The reading side hears of it too.
                self._writer.transport.abort()
                return
