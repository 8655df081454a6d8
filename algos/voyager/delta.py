"""Cuts as differences: what the cloud says, what the client makes of it, and what if it is lost.

The cloud's end (:class:`CloudStream`) and the client's (:class:`ClientStream`) hold one table each.
A delta takes both from the table of the number before to that of its own number; the client applies
them in order alone. It names the ids that leave the cut and those that enter it, holds the
Gaussians of the latter that the table does not hold, and a digest of the table that must come of
it. So whatever a network loses, doubles or brings in another order, the client's table is one that
the cloud's has been, of the number that it says. A client that misses one asks for all behind the
last that it has; the cloud sends those again, or, where it does not keep them or the digests
differ, a whole cut (a key), with which both tables begin anew.
"""

import struct
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from splatforge.algos.voyager.codec import Codec
from splatforge.algos.voyager.slots import Slots
from splatforge.algos.voyager.table import Change, ManagementTable, Step, check_cut
from splatforge.algos.voyager.wire import (
    ID_BYTES,
    Kind,
    Message,
    PayloadReader,
    WireError,
    encode,
    pack_ids,
    unpack_ids,
)
from splatforge.scenes import Scene

__all__ = ["ClientStream", "CloudStream", "DivergedError", "Sent"]

Int64Array = npt.NDArray[np.int64]

#: frame, ids that leave, that enter, Gaussians, bytes of the ids of both, of the body; is it a key,
#: is the body packed; the digest.
_HEAD = struct.Struct("<IIIIIIIBBQ")
_LEVEL = 6
#: Deltas that wait for one before them, and bytes of these, at most.
_WAITING, _WAITING_BYTES = 16, 1 << 26
#: Bytes of messages that are kept to be sent again, at most.
_LOG_BYTES = 1 << 28


class DivergedError(ValueError):
    """The client's table is not the one that a delta stands on."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A delta that the cloud keeps, with what the table holds behind it, and its digest."""

    sequence: int
    digest: int
    key: bool
    frame: int
    gaussians: int
    held: int
    data: bytes


class CloudStream:
    """The cloud's end: makes deltas of cuts, and keeps them until they are acknowledged.

    Parameters
    ----------
    codec : Codec
        Codes of the city's Gaussians.
    attributes : callable
        Takes ids, returns their Gaussians as a scene.
    stream : int
        Number that messages carry.
    """

    def __init__(self, codec: Codec, attributes: Callable[[Int64Array], Scene], stream: int
                 ) -> None:
        self.codec, self.stream, self._attributes = codec, stream, attributes
        self.table = ManagementTable(codec.design.reuse_window)
        self.sequence = 0
        self._log: deque[Sent] = deque()
        self._log_bytes = 0
        # Behind which the log goes on.
        self._base: tuple[int, int] | None = (0, self.table.digest())

    def advance(self, frame: int, cut: npt.ArrayLike) -> Sent:
        """The delta that takes the client to the cut of a later frame."""
        return self.step(frame, self.table.difference(check_cut(cut)))

    def step(self, frame: int, change: Change) -> Sent:
        """The same, by what it changes of the last cut."""
        step = self.table.plan(frame, change)
        # Nothing has changed yet: Gaussians may not be had.
        sent = self._made(step, key=not self.sequence)
        self.table.commit(step)
        self._keep(sent)
        return sent

    def acknowledge(self, sequence: int) -> None:
        """The client has applied all deltas up to this one."""
        while self._log and self._log[0].sequence <= sequence:
            self._forget()

    def resync(self, sequence: int, digest: int) -> list[Sent]:
        """Deltas for a client that has applied up to one, and what its table is then."""
        if self._base == (sequence, digest):
            return list(self._log)
        for place, sent in enumerate(self._log):
            if (sent.sequence, sent.digest) == (sequence, digest):
                return list(self._log)[place + 1:]
        if not self.sequence:
            return []
        if self._log and self._log[-1].key:
            # It has asked twice.
            return [self._log[-1]]
        cut, table = self.table.cut, ManagementTable(self.table.reuse_window)
        step = table.plan(self.table.frame, Change(left=cut[:0], entered=cut))
        sent = self._made(step, key=True)
        table.commit(step)
        self.table = table
        while self._log:
            self._forget()
        self._base = None
        self._keep(sent)
        return [sent]

    def _forget(self) -> None:
        gone = self._log.popleft()
        self._log_bytes -= len(gone.data)
        self._base = (gone.sequence, gone.digest)

    def _made(self, step: Step, *, key: bool) -> Sent:
        """The delta of a step."""
        sequence, digest, new = self.sequence + 1, step.digest(), step.new
        gaussians = self.codec.encode(self._attributes(new)) if len(new) else b""
        ids = pack_ids(step.left), pack_ids(step.entered)
        body = b"".join((*ids, gaussians))
        packed = self.codec.design.entropy == "zlib"
        payload = _HEAD.pack(step.frame, len(step.left), len(step.entered), len(new),
                             *map(len, ids), len(body), key, packed, digest)
        payload += zlib.compress(body, _LEVEL) if packed else body
        return Sent(
            sequence=sequence, digest=digest, key=key, frame=step.frame, gaussians=len(new),
            held=step.held,
            data=encode(Kind.DELTA, payload, stream=self.stream, sequence=sequence))

    def _keep(self, sent: Sent) -> None:
        self.sequence = sent.sequence
        self._log.append(sent)
        self._log_bytes += len(sent.data)
        while len(self._log) > 1 and (len(self._log) > self.codec.design.log_messages
                                      or self._log_bytes > _LOG_BYTES):
            self._forget()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Delta:
    """A delta, taken apart but for its body."""

    frame: int
    left: int
    entered: int
    gaussians: int
    left_bytes: int
    entered_bytes: int
    body_bytes: int
    key: bool
    digest: int
    packed: bool
    data: bytes

    @classmethod
    def parse(cls, payload: bytes) -> "_Delta":
        reader = PayloadReader("Delta", payload)
        *numbers, key, packed, digest = _HEAD.unpack(reader.take(_HEAD.size))
        if key > 1 or packed > 1:
            raise WireError(f"Delta must have flags of 0 or 1, not {key} and {packed}")
        names = [each.name for each in fields(cls)][:7]
        return cls(**dict(zip(names, numbers, strict=True)), key=bool(key), packed=bool(packed),
                   digest=digest, data=reader.rest())

    def check(self, codec: Codec, nodes: int) -> None:
        """Raise unless the numbers fit each other: a body is unpacked to what they allow."""
        for name in ("left", "entered"):
            ids, size_bytes = getattr(self, name), getattr(self, f"{name}_bytes")
            if ids > nodes:
                raise WireError(f"Delta must have at most {nodes} ids that have {name}, not {ids}")
            if not ids <= size_bytes <= ID_BYTES * ids:
                raise WireError(f"Delta must have {ids} to {ID_BYTES * ids} bytes of ids that "
                                f"have {name}, not {size_bytes}")
        if self.gaussians > self.entered:
            raise WireError(f"Delta must have at most {self.entered} Gaussians, as ids that "
                            f"enter, not {self.gaussians}")
        body_bytes = self.left_bytes + self.entered_bytes + codec.size_bytes(self.gaussians)
        if self.body_bytes != body_bytes:
            raise WireError(f"Delta must have a body of the {body_bytes} bytes that its counts "
                            f"make, not {self.body_bytes}")

    def body(self) -> bytes:
        """Ids and Gaussians, unpacked."""
        data = self.data
        if self.packed:
            unpacker = zlib.decompressobj()
            try:
                data = unpacker.decompress(data, self.body_bytes + 1)
            except zlib.error as error:
                raise WireError(f"Delta cannot be unpacked: {error}") from None
            if not unpacker.eof or unpacker.unused_data:
                raise WireError(f"Delta must be unpacked to {self.body_bytes} bytes")
        if len(data) != self.body_bytes:
            raise WireError(f"Delta must have a body of {self.body_bytes} bytes, not {len(data)}")
        return data


class ClientStream:
    """The client's end: applies deltas, holds the Gaussians that the table says it holds.

    Parameters
    ----------
    codec : Codec
        As the cloud has sent it.
    nodes : int
        Gaussians of the city: ids are below.
    """

    def __init__(self, codec: Codec, nodes: int) -> None:
        self.codec, self.nodes = codec, nodes
        self.table = ManagementTable(codec.design.reuse_window)
        #: The delta applied last.
        self.sequence = 0
        #: Deltas applied, and Gaussians that have come with them.
        self.deltas = self.gaussians = 0
        #: The table cannot be gone on from: a key alone helps.
        self.lost = False
        self._slots = Slots(codec.decode(b"", 0))
        self._waiting: dict[int, _Delta] = {}

    @property
    def gap(self) -> bool:
        """A delta has come, and one before it has not."""
        return self.lost or min(self._waiting, default=0) > self.sequence + 1

    @property
    def position(self) -> tuple[int, int]:
        """What to ask the cloud with: the delta applied last, and the digest behind it."""
        return (0, 0) if self.lost else (self.sequence, self.table.digest())

    def receive(self, message: Message, until: int | None = None) -> int:
        """Take a delta; returns how many are applied with it, none if one before it is missing.

        Parameters
        ----------
        message : Message
            The delta.
        until : int, optional
            As of :meth:`catch_up`.

        Raises
        ------
        DivergedError
            It does not fit the table, and a key is needed; or as :meth:`catch_up`.
        WireError
            It is none that the cloud makes. Nothing has changed.
        """
        if message.kind != Kind.DELTA:
            raise WireError(f"Message must be a delta, not {message.kind.name}")
        delta = _Delta.parse(message.payload)
        delta.check(self.codec, self.nodes)
        # A key helps who is lost whatever its number.
        if message.sequence <= self.sequence and not (self.lost and delta.key):
            return 0
        if delta.key or message.sequence == self.sequence + 1 or self._has_room(delta):
            self._waiting[message.sequence] = delta
        return self.catch_up(until)

    def catch_up(self, until: int | None = None) -> int:
        """Apply what waits and can be applied; returns how many that are.

        Parameters
        ----------
        until : int, optional
            Frame that the table is to come to and not to pass: what is behind it waits on.

        Raises
        ------
        DivergedError
            What comes next passes that frame or does not fit the table.
        WireError
            What comes next is no delta that the cloud makes.
        """
        applied = 0
        while until is None or self.table.frame < until:
            number = self._next()
            if number is None:
                break
            delta = self._waiting.pop(number)
            if until is not None and delta.frame > until:
                raise DivergedError(f"Delta {number} must not be of frame {delta.frame} where "
                                    f"{until} is wanted")
            self._apply(delta, number)
            applied += 1
            self._waiting = {later: each for later, each in self._waiting.items()
                             if later > self.sequence}
        return applied

    def _next(self) -> int | None:
        """Number of what waits and can be applied: what follows the table, else a key."""
        if not self.lost and self.sequence + 1 in self._waiting:
            return self.sequence + 1
        return min((number for number, each in self._waiting.items() if each.key), default=None)

    def _has_room(self, delta: _Delta) -> bool:
        size_bytes = sum(len(each.data) for each in self._waiting.values()) + len(delta.data)
        return len(self._waiting) < _WAITING and size_bytes <= _WAITING_BYTES

    def scene(self) -> Scene:
        """The Gaussians of the cut, by id."""
        return self._slots.scene(self.table.cut)

    def _apply(self, delta: _Delta, sequence: int) -> None:
        body = PayloadReader("Delta", delta.body())
        left = unpack_ids(body.take(delta.left_bytes), delta.left)
        entered = unpack_ids(body.take(delta.entered_bytes), delta.entered)
        if len(entered) and entered[-1] >= self.nodes:
            raise WireError(f"Delta must have ids below {self.nodes}, not {entered[-1]}")
        gaussians = self.codec.decode(body.rest(), delta.gaussians)
        table = ManagementTable(self.table.reuse_window) if delta.key else self.table
        try:
            step = table.plan(delta.frame, Change(left=left, entered=entered))
            if len(step.new) != delta.gaussians:
                raise ValueError(f"it brings {delta.gaussians} Gaussians, not {len(step.new)}")
            if step.digest() != delta.digest:
                raise ValueError("the digests differ")
        except ValueError as error:
            self.lost = True
            self._waiting.clear()
            raise DivergedError(f"Delta {sequence} does not fit the table: {error}") from None
        if delta.key:
            self._slots = Slots(self.codec.decode(b"", 0))
        self._slots.drop(step.dropped)
        self._slots.put(step.new, gaussians)
        table.commit(step)
        self.table, self.sequence, self.lost = table, sequence, False
        self.deltas += 1
        self.gaussians += delta.gaussians
