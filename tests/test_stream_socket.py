"""Cloud and client over real sockets: the same frames, whatever breaks, and every byte counted."""

import asyncio
import socket
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.voyager import cloud as cloud_module
from splatforge.algos.voyager.city import due, search_begins, search_pose, stream_path
from splatforge.algos.voyager.client import Client, CloudError
from splatforge.algos.voyager.cloud import Cloud, _Session
from splatforge.algos.voyager.codec import fit_codec
from splatforge.algos.voyager.session import Hello, Pose, Welcome, pack_position
from splatforge.algos.voyager.table import ManagementTable
from splatforge.algos.voyager.wire import Decoder, Kind, WireError, encode
from splatforge.designs.streaming import LinkDesign, StreamingDesign

sys.path.insert(0, str(Path(__file__).parent))
from toy_city import ToyCity, street

CITY = ToyCity()
WINDOW = 4
PATH = street(60)
CODEC = fit_codec(CITY.all, StreamingDesign(reuse_window=12, sh1=(4,), sh2=(4,), sh3=(4,)))
WELCOME = Welcome(resumed=False, nodes=CITY.nodes, reuse_window=12, window_frames=WINDOW,
                  tau_px=6.0, codec=CODEC.digest(), view=PATH[0], target=np.zeros(3),
                  up=np.array([0.0, -1, 0]))
#: From the cloud until the second delta.
FIRST_BYTES = sum(map(len, (
    encode(Kind.WELCOME, WELCOME.pack()), encode(Kind.CODEC, CODEC.to_bytes()),
    next(stream_path(CITY, CODEC, PATH, WINDOW)).sent.data)))
NAMES = ("means", "log_scales", "quats", "opacity_logits", "sh")


def cloud_of(**options):
    return Cloud(CITY, CODEC, WELCOME, **options)


@pytest.fixture(scope="module")
def drawn():
    """Gaussians of every frame of the run within a process."""
    return [frame.client.scene() for frame in stream_path(CITY, CODEC, PATH, WINDOW)]


def same(scenes, drawn):
    assert len(scenes) == len(drawn)
    for got, want in zip(scenes, drawn, strict=True):
        for name in NAMES:
            assert np.array_equal(getattr(got, name), getattr(want, name))


@asynccontextmanager
async def serving(cloud, port=0, **options):
    """The cloud at a port, killed at the end: connections break off."""
    ready = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(cloud.serve("127.0.0.1", port, ready=ready.set_result, **options))
    done, _ = await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    assert task not in done, task.result()
    try:
        yield ready.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Proxy:
    """Counts what goes through; breaks the first connections, or damages a byte in them."""

    def __init__(self, port, *, breaks=(), damage=None):
        self.port, self.breaks, self.damage = port, list(breaks), damage
        self.up = self.down = self.connections = 0
        self.tasks = set()

    @asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self.connect, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            # The client is gone; a connection that the cloud still holds is not closed by it.
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def connect(self, reader, writer):
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.port)
        limit = self.breaks.pop(0) if self.breaks else None

        async def pass_on(source, target, down):
            passed = 0
            while data := await source.read(4096):
                broken = down and limit is not None and passed + len(data) > limit
                if broken:
                    data = data[:limit - passed]
                elif down and self.damage is not None and passed <= self.damage < (
                        passed + len(data)):
                    data = bytearray(data)
                    data[self.damage - passed] ^= 4
                    self.damage = None
                passed += len(data)
                if down:
                    self.down += len(data)
                else:
                    self.up += len(data)
                with suppress(OSError):
                    target.write(data)
                    await target.drain()
                if broken:
                    # What has been passed on arrives; the cloud's end breaks off.
                    other_writer.transport.abort()
                    break
            with suppress(OSError):
                target.write_eof()

        try:
            await asyncio.gather(
                pass_on(reader, other_writer, False), pass_on(other_reader, writer, True),
                return_exceptions=True)
        finally:
            for each in (writer, other_writer):
                each.close()
                with suppress(OSError):
                    await each.wait_closed()


class Tamper:
    """Passes whole messages on; what becomes of each delta from the cloud, a function says."""

    def __init__(self, port, change):
        self.port, self.change, self.deltas, self.tasks = port, change, 0, set()

    @asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self.connect, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await asyncio.gather(*self.tasks)

    async def connect(self, reader, writer):
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def up():
            while data := await reader.read(4096):
                other_writer.write(data)

        async def down():
            decoder = Decoder()
            while data := await other_reader.read(4096):
                for each in decoder.feed(data):
                    passed = [each]
                    if each.kind == Kind.DELTA:
                        self.deltas += 1
                        passed = self.change(self.deltas, each)
                    for one in passed:
                        writer.write(encode(one.kind, one.payload, stream=one.stream,
                                            sequence=one.sequence))

        ways = [asyncio.create_task(way()) for way in (up, down)]
        self.tasks.add(asyncio.current_task())
        # Whichever end breaks off, the other hears of it behind what has come.
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for each in ways:
            each.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for each in (writer, other_writer):
            each.close()
            with suppress(OSError):
                await each.wait_closed()


async def seen(client, path=PATH, at=None, pause_s=0.0):
    """Scenes of all frames; `at` maps frames to what is awaited before them."""
    scenes = []
    async for frame in client.follow(lambda welcome: path):
        if at and frame.number in at:
            await at[frame.number]()
        scenes.append(frame.scene)
        if pause_s:
            await asyncio.sleep(pause_s)
    return scenes


def run(coroutine, limit_s=60):
    async def limited():
        async with asyncio.timeout(limit_s):
            return await coroutine
    return asyncio.run(limited())


def test_searches_have_a_window_of_time():
    assert [due(number, 4) for number in (0, 3, 4, 7, 8, 11, 12)] == [0, 0, 0, 0, 4, 4, 8]
    # The cut of a frame is not later than that, and the first is waited for.
    for frame in stream_path(CITY, CODEC, PATH, WINDOW):
        assert frame.client.table.frame == due(frame.number, WINDOW)


def test_the_same_frames_and_every_byte(drawn):
    async def scenario():
        cloud = cloud_of()
        async with serving(cloud) as port:
            proxy = Proxy(port)
            async with proxy.running() as through:
                client = Client("127.0.0.1", through, timeout_s=60)
                same(await seen(client), drawn)
                while not cloud.finished:
                    await asyncio.sleep(0.01)
        return cloud, proxy, client
    cloud, proxy, client = run(scenario())
    assert proxy.down == client.traffic.received_bytes == cloud.traffic.sent_bytes
    assert proxy.up == client.traffic.sent_bytes == cloud.traffic.received_bytes
    for traffic in (client.traffic, cloud.traffic):
        assert sum(traffic.sent_kinds.values()) == traffic.sent_bytes
        assert sum(traffic.received_kinds.values()) == traffic.received_bytes
    assert (client.connections, client.resumed, cloud.finished) == (1, 0, 1)
    assert client.gaussians > CITY.groups
    # A byte more or less would be seen.
    assert client.traffic.received_kinds["codec"] == 24 + len(CODEC.to_bytes())


def test_a_broken_connection_is_gone_on_with(drawn):
    first = FIRST_BYTES + 500

    async def scenario():
        cloud = cloud_of()
        async with serving(cloud) as port:
            # The last within a message, the first before any delta.
            proxy = Proxy(port, breaks=[100, first, 900, 900])
            async with proxy.running() as through:
                client = Client("127.0.0.1", through, timeout_s=60)
                same(await seen(client), drawn)
        return cloud, proxy, client
    cloud, proxy, client = run(scenario())
    assert proxy.connections == client.connections == 5
    assert client.resumed == cloud.resumed >= 2
    assert cloud.again_bytes > 0
    assert proxy.down == client.traffic.received_bytes


def test_a_damaged_byte_is_gone_on_from(drawn):
    async def scenario():
        async with serving(cloud_of()) as port:
            proxy = Proxy(port, damage=FIRST_BYTES + 700)
            async with proxy.running() as through:
                client = Client("127.0.0.1", through, timeout_s=60)
                same(await seen(client), drawn)
        return proxy, client
    proxy, client = run(scenario())
    assert proxy.damage is None
    assert (client.connections, client.resumed) == (2, 1)


def drop(number, each):
    return [] if number == 3 else [each]


def swap(number, each, held=[]):  # noqa: B006 - what is held back outlives the call
    """Brings a delta behind the one that follows it."""
    if number in (3, 8):
        held[:] = [each]
        return []
    passed = [each, *held]
    held.clear()
    return passed


def break_digest(number, each):
    """The table does not come to be that of a delta."""
    if number != 5:
        return [each]
    payload = bytearray(each.payload)
    payload[30] ^= 1
    return [replace(each, payload=bytes(payload))]


def break_counts(number, each):
    """Well-formed, and not what a cloud says."""
    return [replace(each, payload=each.payload[:-3]) if number == 5 else each]


@pytest.mark.parametrize(("change", "connections", "resyncs"), [
    (drop, 1, 1), (swap, 1, 1), (break_digest, 2, 1), (break_counts, 2, 0)])
@pytest.mark.parametrize("ahead", [0, 12])
def test_deltas_that_are_missing_or_wrong_change_no_frame(drawn, change, connections, resyncs,
                                                          ahead):
    """Whatever comes together behind a gap, a frame draws the cut that is due."""
    async def scenario():
        async with serving(cloud_of()) as port:
            tamper = Tamper(port, change)
            async with tamper.running() as through:
                client = Client("127.0.0.1", through, timeout_s=60)
                # Poses far ahead: deltas beyond the one that is due wait while it is missing.
                with pytest.MonkeyPatch.context() as patch:
                    if ahead:
                        patch.setattr(client, "_ask", eager(client, ahead))
                    same(await seen(client), drawn)
        return client, tamper
    client, tamper = run(scenario())
    assert tamper.deltas > 8
    assert client.connections == connections
    assert client.resyncs >= resyncs


def eager(client, ahead):
    """Asks for what is to be asked for in the next frames at once."""
    ask, asked = client._ask, set()

    def together(frame, pose):
        for number in range(frame, frame + ahead + 1, WINDOW):
            if number not in asked and search_begins(number, WINDOW, len(PATH)):
                asked.add(number)
                ask(number, search_pose(PATH, number, WINDOW))
    return together


def test_a_key_of_a_later_frame_is_not_drawn(drawn, monkeypatch):
    """A cloud that keeps one delta alone answers with its last cut, for which it is too early."""
    design = replace(CODEC.design, log_messages=1)

    async def scenario():
        cloud = Cloud(CITY, replace(CODEC, design=design), WELCOME)
        async with serving(cloud) as port:
            tamper = Tamper(port, drop)
            async with tamper.running() as through:
                client = Client("127.0.0.1", through, timeout_s=60)
                monkeypatch.setattr(client, "_ask", eager(client, 12))
                same(await seen(client), drawn)
        return client
    client = run(scenario())
    assert client.resyncs >= 2
    assert client.connections == 2
    assert client.resumed == 0


def test_a_slow_link_is_waited_for(drawn):
    """The first cut takes several times what a silent cloud is waited for, and as a client may be
    silent."""
    link = LinkDesign(bandwidth_mbps=0.1, burst_bytes=1024)

    async def scenario():
        async with serving(cloud_of(link=link, idle_s=0.4)) as port:
            client = Client("127.0.0.1", port, timeout_s=0.5)
            start = time.perf_counter()
            same(await seen(client, PATH[:8]), drawn[:8])
            return client, time.perf_counter() - start
    client, took_s = run(scenario())
    assert took_s > 2 * 0.5
    assert client.connections == 1


def test_a_slow_search_is_waited_for(drawn, monkeypatch):
    """A cloud that is at work says so."""
    answer = _Session.answer

    def slow(session, pose):
        if pose.frame == 4:
            time.sleep(1.6)
        return answer(session, pose)
    monkeypatch.setattr(_Session, "answer", slow)

    async def scenario():
        async with serving(cloud_of()) as port:
            client = Client("127.0.0.1", port, timeout_s=0.8)
            same(await seen(client, PATH[:16]), drawn[:16])
            return client
    client = run(scenario())
    assert client.connections == 1
    assert client.traffic.received_kinds["alive"] % 24 == 0
    assert client.traffic.received_kinds["alive"] > 0


def test_a_client_that_stood_still_does_not_blame_the_cloud(drawn):
    """Other work of its loop goes on beyond the time for an answer, which has come meanwhile."""
    async def scenario():
        async with serving(cloud_of(link=LinkDesign(latency_ms=300))) as port:
            client = Client("127.0.0.1", port, timeout_s=0.7)

            def path(welcome):
                asyncio.get_running_loop().call_later(0.1, time.sleep, 1.2)
                return PATH[:8]
            same([frame.scene async for frame in client.follow(path)], drawn[:8])
            return client
    assert run(scenario()).connections == 1


def test_a_cloud_whose_answers_are_of_no_use_is_given_up():
    def never(number, each):
        return [replace(each, payload=each.payload[:-3])]

    async def scenario():
        async with serving(cloud_of()) as port:
            tamper = Tamper(port, never)
            async with tamper.running() as through:
                with pytest.raises(CloudError, match=r"Delta (must|cannot)"):
                    await seen(Client("127.0.0.1", through, timeout_s=0.5))
    run(scenario(), 20)


def test_a_cloud_that_comes_back_with_another_table(drawn):
    """Its rule for what is held is the client's then; another city is refused."""
    async def scenario(**changes):
        first = serving(cloud_of())
        port = await first.__aenter__()
        codec = CODEC
        if "reuse_window" in changes:
            codec = replace(CODEC, design=replace(CODEC.design, **changes))
        second = serving(Cloud(CITY, codec, replace(WELCOME, **changes)), port)

        async def kill():
            await first.__aexit__(None, None, None)
            await second.__aenter__()
        try:
            client = Client("127.0.0.1", port, timeout_s=5)
            return client, await seen(client, at={21: kill})
        finally:
            await second.__aexit__(None, None, None)
    client, scenes = run(scenario(reuse_window=1))
    same(scenes, drawn)
    assert (client.connections, client.resyncs) == (2, 0)
    for changes, text in (({"nodes": CITY.nodes + 1}, f"nodes {CITY.nodes + 1}, not {CITY.nodes}"),
                          ({"window_frames": 5}, "window_frames 5, not 4")):
        with pytest.raises(CloudError, match=f"come back with {text}"):
            run(scenario(**changes))


def test_a_cloud_that_fails_says_so(drawn):
    """One client's search breaks: it is told, it is forgotten, and others are served."""
    class Broken:
        nodes, scene = CITY.nodes, CITY.scene
        broken = True

        def finder(self):
            find = CITY.finder()

            def finds(camera):
                if self.broken:
                    raise ZeroDivisionError("no such\nnumber")
                return find(camera)
            return finds

    async def scenario():
        lines, city = [], Broken()
        cloud = Cloud(city, CODEC, WELCOME, log=lines.append)
        async with serving(cloud) as port:
            with pytest.raises(CloudError, match="refuses: the cloud has failed"):
                await seen(Client("127.0.0.1", port))
            while not lines:
                await asyncio.sleep(0.01)
            assert not cloud._sessions
            assert len(cloud._tasks) == 0
            assert "the cloud has failed: ZeroDivisionError: no such number" in lines[0]
            city.broken = False
            same(await seen(Client("127.0.0.1", port)), drawn)
    run(scenario())


@asynccontextmanager
async def greeted(cloud, port):
    """A client by hand: what it says goes to a function, what it hears is left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(encode(Kind.HELLO, Hello().pack()))
    while not cloud._sessions:
        await asyncio.sleep(0.01)
    stream, = cloud._sessions
    reader._transport.pause_reading()
    try:
        yield cloud._sessions[stream], lambda kind, payload: writer.write(
            encode(kind, payload, stream=stream))
    finally:
        writer.close()


def pose(frame):
    return Pose(frame=frame, sequence=0, camera=PATH[frame]).pack()


SLOW = LinkDesign(bandwidth_mbps=0.01, burst_bytes=1024)


def test_what_is_on_its_way_is_not_sent_again():
    async def scenario():
        cloud = cloud_of(link=SLOW)
        async with serving(cloud) as port, greeted(cloud, port) as (session, say):
            say(Kind.POSE, pose(0))
            for _ in range(50):
                say(Kind.RESYNC, pack_position((0, ManagementTable(12).digest())))
            say(Kind.POSE, pose(4))
            while session.stream.sequence < 2:
                await asyncio.sleep(0.01)
            assert cloud.again_bytes == len(session.stream._log[0].data)
    run(scenario())


def test_a_client_that_takes_nothing_is_not_heard(monkeypatch):
    monkeypatch.setattr(cloud_module, "_QUEUE_BYTES", 2000)

    async def scenario():
        cloud = cloud_of(link=SLOW)
        async with serving(cloud) as port, greeted(cloud, port) as (session, say):
            for frame in range(0, 60, 4):
                say(Kind.POSE, pose(frame))
            await asyncio.sleep(0.5)
            assert session.stream.sequence <= 1
            assert session.link.queued_bytes > 2000
    run(scenario())


def test_a_client_that_reads_nothing_is_let_go(monkeypatch):
    """It talks on and on, so that it is not silent."""
    monkeypatch.setattr(cloud_module, "_PATIENCE_S", 0.2)

    async def scenario():
        lines = []
        cloud = cloud_of(idle_s=0.4, log=lines.append)
        async with serving(cloud) as port, greeted(cloud, port) as (session, say):
            # More than the sockets' buffers hold.
            for _ in range(400):
                session.link.send(encode(Kind.DELTA, bytes(1 << 16)))
            while not lines:
                say(Kind.POSE, pose(0))
                await asyncio.sleep(0.02)
            assert "it is silent" in lines[0]
    run(scenario(), 10)


def test_a_cloud_that_is_killed_and_comes_back(drawn):
    async def scenario():
        first = serving(cloud_of())
        port = await first.__aenter__()
        second = serving(cloud_of(), port)

        async def kill():
            await first.__aexit__(None, None, None)

        async def revive():
            await second.__aenter__()
        client = Client("127.0.0.1", port, timeout_s=60)
        # Between the two, the frames that it has Gaussians for go on.
        same(await seen(client, at={21: kill, 23: revive}), drawn)
        await second.__aexit__(None, None, None)
        return client
    client = run(scenario())
    assert client.connections == 2
    assert client.resumed == 0


def test_a_client_that_is_killed_does_not_matter_to_others(drawn):
    async def scenario():
        cloud = cloud_of()
        async with serving(cloud, clients=1) as port:
            task = asyncio.create_task(seen(Client("127.0.0.1", port), pause_s=0.01))
            other = asyncio.create_task(seen(Client("127.0.0.1", port)))
            await asyncio.sleep(0.1)
            task.cancel()
            same(await other, drawn)
            while not cloud.finished:
                await asyncio.sleep(0.01)
    run(scenario())


def test_bandwidth_and_latency_take_their_time():
    design = LinkDesign(bandwidth_mbps=2, latency_ms=60, burst_bytes=4096)

    async def scenario(link):
        async with serving(cloud_of(link=link)) as port:
            client = Client("127.0.0.1", port)
            start = time.perf_counter()
            await seen(client, PATH[:12])
            return client, time.perf_counter() - start
    client, took_s = run(scenario(design))
    least_s = (client.traffic.received_bytes - 4096) * 8 / 2e6 + 0.06
    assert least_s > 0.1
    assert took_s > least_s
    assert client.waited_s > 0.06
    free, _ = run(scenario(None))
    assert free.traffic.received_bytes == client.traffic.received_bytes


def test_time_between_searches_hides_the_latency():
    """A client that draws meanwhile does not wait: deltas come while it does."""
    async def scenario():
        async with serving(cloud_of(link=LinkDesign(latency_ms=200))) as port:
            waits = []
            client = Client("127.0.0.1", port, timeout_s=60)
            async for frame in client.follow(lambda welcome: PATH[:16]):
                waits.append(frame.waited_s)
                # The delta of the window comes before the next begins, without being asked for.
                while frame.number in (7, 11) and client._inbox.empty():
                    await asyncio.sleep(0.01)
            return waits
    waits = run(scenario())
    assert waits[0] > 0.2


@pytest.mark.parametrize("silent", [False, True])
def test_no_cloud_is_said_in_time(silent):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        if silent:
            held.listen()
        port = held.getsockname()[1]
        start = time.perf_counter()
        with pytest.raises(CloudError, match=f"127.0.0.1:{port}: .*within 0.6 s") as caught:
            run(seen(Client("127.0.0.1", port, timeout_s=0.6)))
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 3


def test_a_cloud_that_dies_for_good_is_said_in_time():
    async def scenario():
        server = serving(cloud_of())
        port = await server.__aenter__()

        async def kill():
            await server.__aexit__(None, None, None)
        with pytest.raises(CloudError, match=r"no cloud answers within 0\.7 s"):
            await seen(Client("127.0.0.1", port, timeout_s=0.7), at={10: kill})
    run(scenario(), 10)


@pytest.mark.parametrize(("data", "said"), [
    (b"GET / HTTP/1.1\r\n\r\n" + bytes(24), "begin with"),
    (encode(Kind.POSE, bytes(152)), "First message must be HELLO, not POSE"),
    (encode(Kind.HELLO, bytes(3)), "Hello must have"),
    (encode(Kind.HELLO, Hello().pack()) + encode(Kind.POSE, bytes(160), stream=1), "of stream"),
    (encode(Kind.DELTA), "due here")])
def test_nonsense_gets_one_line_and_hurts_nobody(data, said, drawn):
    async def scenario():
        lines = []
        async with serving(cloud_of(log=lines.append)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            found = Decoder().feed(await reader.read())
            writer.close()
            assert found[-1].kind == Kind.ERROR
            assert said in found[-1].payload.decode()
            same(await seen(Client("127.0.0.1", port)), drawn)
        assert said in lines[0]
    run(scenario())


def test_a_full_cloud_says_so():
    async def scenario():
        cloud = cloud_of(most_clients=1)
        async with serving(cloud) as port:
            first = Client("127.0.0.1", port).follow(lambda welcome: PATH)
            await anext(first)
            with pytest.raises(CloudError, match="as many clients as it may"):
                await seen(Client("127.0.0.1", port))
            await first.aclose()
            while any(each.link for each in cloud._sessions.values()):
                await asyncio.sleep(0.01)
            await seen(Client("127.0.0.1", port), PATH[:4])
    run(scenario())


def test_a_port_in_use_is_an_error():
    async def scenario():
        async with serving(cloud_of()) as port:
            with pytest.raises(OSError, match=f"127.0.0.1:{port}: cannot be listened at"):
                await cloud_of().serve("127.0.0.1", port)
    run(scenario())


def test_a_silent_client_is_let_go():
    async def scenario():
        lines = []
        async with serving(cloud_of(idle_s=0.1, log=lines.append)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(encode(Kind.HELLO, Hello().pack()))
            await reader.read()
            writer.close()
        assert "it is silent" in lines[0]
    run(scenario(), 5)


def test_what_is_said_at_first_is_checked():
    for kind, value in ((Welcome, WELCOME), (Hello, Hello(sequence=3, digest=5, codec=7)),
                        (Pose, Pose(frame=3, sequence=2, camera=PATH[3]))):
        data = value.pack()
        assert kind.parse(data).pack() == data
        for end in (0, 7, len(data) - 1):
            with pytest.raises(WireError, match="must have"):
                kind.parse(data[:end])
        with pytest.raises(WireError, match="must end"):
            kind.parse(data + b"x")
    broken = bytearray(Pose(frame=1, sequence=0, camera=PATH[0]).pack())
    broken[16:24] = np.float64(np.nan).tobytes()
    with pytest.raises(WireError, match="Pose: Camera fx must be positive and finite"):
        Pose.parse(bytes(broken))
    for place, value in ((0, 2), (9, 0xff)):
        data = bytearray(WELCOME.pack())
        data[place:place + 4] = bytes([value] * 4)
        with pytest.raises(WireError, match="Welcome must have"):
            Welcome.parse(bytes(data))
