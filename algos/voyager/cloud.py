"""The cloud as a process: searches cuts for its clients, and sends them what these change.

Network code stands with the algorithm: it takes scenes, designs and algos alone, and no model of
time or energy has a part in it. What goes over the socket is made by
:mod:`splatforge.algos.voyager.delta` and the modules that it stands on, which know nothing of
sockets.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from splatforge.algos.voyager.city import City, Finder
from splatforge.algos.voyager.codec import Codec
from splatforge.algos.voyager.delta import CloudStream, Sent
from splatforge.algos.voyager.link import ALIVE_S, Link, Traffic
from splatforge.algos.voyager.session import Hello, Pose, Welcome, parse_position
from splatforge.algos.voyager.wire import Kind, WireError, encode
from splatforge.designs.streaming import LinkDesign

__all__ = ["Cloud"]

_Asked = TypeVar("_Asked")
#: Bytes on their way to a client beyond which it is not heard.
_QUEUE_BYTES = 1 << 22
#: Seconds that a client has to say HELLO in, and that a closing connection has.
_PATIENCE_S = 5.0
_FROM_CLIENT = (Kind.HELLO, Kind.POSE, Kind.RESYNC, Kind.BYE)


@dataclass(eq=False)
class _Session:
    """A client's stream; it outlives its connections."""

    stream: CloudStream
    begin: Callable[[], Finder]
    #: None where the search does not stand at the table's cut.
    find: Finder | None = None
    link: Link | None = None
    left_s: float = 0.0
    #: Held while the table changes, in whatever thread.
    lock: threading.Lock = field(default_factory=threading.Lock)
    #: Number of the last delta that went out: what does not exceed it goes out again.
    sent: int = 0

    def answer(self, pose: Pose) -> list[Sent]:
        """The delta of a pose; none if it has been answered."""
        with self.lock:
            self.stream.acknowledge(pose.sequence)
            if pose.frame <= self.stream.table.frame:
                return []
            find, self.find = self.find, None
            if find is not None:
                change = find(pose.camera)
            else:
                find = self.begin()
                change = self.stream.table.difference(find(pose.camera).entered)
            sent = self.stream.step(pose.frame, change)
            # Whatever has failed until here, the next search begins anew.
            self.find = find
            return [sent]

    def resync(self, position: tuple[int, int]) -> list[Sent]:
        """Deltas that a client at a position is to have."""
        with self.lock:
            return self.stream.resync(*position)


class Cloud:
    """Serves a city.

    Parameters
    ----------
    city : City
        What is streamed.
    codec : Codec
        Of its Gaussians.
    welcome : Welcome
        What clients are told of it.
    link : LinkDesign, optional
        How what is sent to each client is held back.
    most_clients : int
        Clients at a time; a further one is told so.
    idle_s : float
        Seconds for which nothing comes or goes after which a connection is closed.
    keep_s : float
        Seconds for which a client that is gone is remembered.
    log : callable, optional
        Takes a line for every client that comes or goes.
    """

    def __init__(self, city: City, codec: Codec, welcome: Welcome, *,
                 link: LinkDesign | None = None, most_clients: int = 16, idle_s: float = 60.0,
                 keep_s: float = 300.0, log: Callable[[str], None] = lambda line: None) -> None:
        self.city, self.codec, self.welcome, self.link = city, codec, welcome, link
        self.most_clients, self.idle_s, self.keep_s, self.log = most_clients, idle_s, keep_s, log
        self.traffic = Traffic()
        #: Connections, of these such that went on with a stream; bytes of deltas sent again.
        self.connections = self.resumed = self.again_bytes = 0
        #: Clients that have said BYE.
        self.finished = 0
        self._sessions: dict[int, _Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._done = asyncio.Event()

    async def serve(self, host: str, port: int, *, clients: int | None = None,
                    ready: Callable[[int], None] = lambda port: None) -> None:
        """Serve until cancelled, or until so many clients have said BYE.

        Parameters
        ----------
        host, port : str, int
            Where to listen; port 0 takes one that is free.
        clients : int, optional
            Clients after which to end.
        ready : callable
            Is given the port once connections are taken.

        Raises
        ------
        OSError
            The port cannot be had.
        """
        try:
            server = await asyncio.start_server(self._connected, host, port)
        except OSError as error:
            raise OSError(f"{host}:{port}: cannot be listened at: {error.strerror}") from None
        try:
            ready(server.sockets[0].getsockname()[1])
            while clients is None or self.finished < clients:
                self._done.clear()
                await self._done.wait()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def to_json(self) -> dict[str, Any]:
        """Figures by name."""
        return {**self.traffic.to_json(), "connections": self.connections,
                "resumed": self.resumed, "clients_finished": self.finished,
                "sent_again_bytes": self.again_bytes}

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        link = Link(reader, writer, self.link, self.traffic, _FROM_CLIENT)
        host, port = (writer.get_extra_info("peername") or ("?", 0))[:2]
        why = "the cloud ends"
        try:
            try:
                why = await self._talk(link)
            except (WireError, OSError) as error:  # a timeout among these
                why = " ".join(str(error).split()) or "it is silent"
                if isinstance(error, WireError):
                    link.send(encode(Kind.ERROR, why.encode()[:1024]))
            except Exception as error:
                # Whatever it is, it ends this client alone, who need not know what it is.
                why = " ".join(f"the cloud has failed: {type(error).__name__}: {error}".split())
                link.send(encode(Kind.ERROR, b"the cloud has failed"))
            await link.close(_PATIENCE_S)
        except asyncio.CancelledError:
            # A client hears of the end by the connection that breaks. Whoever waits for this task
            # has cancelled it, and asyncio logs those of a server that end so.
            pass
        finally:
            link.abort()
            self._tasks.discard(task)
            self.log(f"client {host}:{port} is gone: {why}")
            self._done.set()

    async def _talk(self, link: Link) -> str:
        """Serve a connection to its end; says why it ended."""
        first = await link.receive(_PATIENCE_S)
        if first is None:
            return "it said nothing"
        if first.kind != Kind.HELLO:
            raise WireError(f"First message must be HELLO, not {first.kind.name}")
        hello = Hello.parse(first.payload)
        session = self._greet(link, hello, first.stream)
        if session is None:
            return "there are too many clients"
        stream = session.stream.stream
        # Bytes of the link behind which the last deltas that were asked for again are gone.
        again = 0
        try:
            if hello.sequence:
                self._send(session, link, await _at_work(
                    link, session.resync, (hello.sequence, hello.digest)))
            while True:
                # Who does not take what it has asked for is not heard further.
                await link.room(_QUEUE_BYTES, self.idle_s)
                if (message := await link.receive(self.idle_s)) is None:
                    return "it has closed the connection"
                if message.stream != stream:
                    raise WireError(f"Message must be of stream {stream}, not {message.stream}")
                if message.kind == Kind.BYE:
                    self.finished += 1
                    self._sessions.pop(stream, None)
                    return "it has seen all"
                if message.kind == Kind.HELLO:
                    raise WireError("HELLO must come once")
                if message.kind == Kind.POSE:
                    self._send(session, link, await _at_work(
                        link, session.answer, Pose.parse(message.payload)))
                elif link.gone_bytes >= again:
                    self._send(session, link, await _at_work(
                        link, session.resync, parse_position(message.payload)))
                    again = link.gone_bytes + link.queued_bytes
        except (WireError, OSError):
            raise
        except Exception:
            # Whether its tables are whole is not known.
            self._sessions.pop(stream, None)
            raise
        finally:
            if session.link is link:
                session.link, session.left_s = None, time.monotonic()

    def _greet(self, link: Link, hello: Hello, stream: int) -> _Session | None:
        """The session of a client, which is told of it; ``None`` if there is no room."""
        self._expire()
        session = self._sessions.get(stream)
        resumed = session is not None and hello.sequence > 0 and hello.codec == self.welcome.codec
        if session is not None and session.link is not None:
            # It comes back before its old connection is known to be dead.
            session.link.abort()
        if session is None or not resumed:
            if session is not None:
                del self._sessions[stream]
            if sum(each.link is not None for each in self._sessions.values()) >= self.most_clients:
                link.send(encode(Kind.ERROR, b"the cloud has as many clients as it may"))
                return None
            while (stream := secrets.randbits(32)) in (0, *self._sessions):
                pass
            session = _Session(CloudStream(self.codec, self.city.scene, stream),
                               self.city.finder)
            self._sessions[stream] = session
        self.resumed += resumed
        session.link = link
        link.send(encode(Kind.WELCOME, replace(self.welcome, resumed=resumed).pack(),
                         stream=stream))
        if hello.codec != self.welcome.codec:
            link.send(encode(Kind.CODEC, self.codec.to_bytes(), stream=stream))
        return session

    def _send(self, session: _Session, link: Link, sents: list[Sent]) -> None:
        for sent in sents:
            if sent.sequence <= session.sent:
                self.again_bytes += len(sent.data)
            session.sent = max(session.sent, sent.sequence)
            link.send(sent.data)

    def _expire(self) -> None:
        """Forget clients that have been gone for long, and of more than may come the longest."""
        gone = sorted((session.left_s, stream) for stream, session in self._sessions.items()
                      if session.link is None)
        limit = time.monotonic() - self.keep_s
        for place, (left_s, stream) in enumerate(gone):
            if left_s < limit or len(gone) - place > self.most_clients:
                del self._sessions[stream]


async def _at_work(link: Link, work: Callable[[_Asked], list[Sent]], asked: _Asked) -> list[Sent]:
    """Answer in a thread; the client is told that it is worked on while nothing else goes to it."""
    task = asyncio.ensure_future(asyncio.to_thread(work, asked))
    try:
        while not (await asyncio.wait([task], timeout=ALIVE_S))[0]:
            if not link.queued_bytes:
                link.send(encode(Kind.ALIVE))
        return task.result()
    finally:
        task.cancel()
