"""Messages between cloud and client as bytes.

A message is a header of 24 bytes and a payload; all numbers are little-endian:

======  =====  =================================================================================
offset  bytes  what
======  =====  =================================================================================
0       4      ``SFVS``
4       1      version, 2
5       1      kind, a :class:`Kind`
6       2      zero
8       4      stream: what the cloud has called it; 0 before it has
12      4      sequence: of a delta its number from 1 upward; else 0
16      4      length of the payload
20      4      CRC-32 (zlib's) of the header without these four bytes, and of the payload
======  =====  =================================================================================

The CRC finds every change of up to 32 bits in a row, and others but for one in 2^32. Nothing of a
message is used before it has been found right.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

__all__ = ["HEADER_BYTES", "ID_BYTES", "VERSION", "Decoder", "Kind", "Message", "PayloadReader",
           "WireError", "encode", "pack_ids", "unpack_ids"]

MAGIC = b"SFVS"
VERSION = 2
_HEADER = struct.Struct("<4sBBHIII")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
#: An id and the gaps between ids are below; five bytes of seven bits hold them.
_ID_BITS = 35
ID_BYTES = _ID_BITS // 7


class WireError(ValueError):
    """Bytes are no message that this program sends; the message says what is wrong."""


class Kind(IntEnum):
    """What a message is; from the client HELLO, POSE, RESYNC and BYE.

    ALIVE says that the cloud is at work on an answer.
    """

    HELLO = 1
    WELCOME = 2
    CODEC = 3
    POSE = 4
    DELTA = 5
    RESYNC = 6
    ERROR = 7
    BYE = 8
    ALIVE = 9


#: Longest payload of each kind: a length that is damaged must not fill the memory.
_LONGEST = {Kind.HELLO: 64, Kind.WELCOME: 1 << 16, Kind.CODEC: 1 << 26, Kind.POSE: 256,
            Kind.DELTA: 1 << 30, Kind.RESYNC: 16, Kind.ERROR: 1024, Kind.BYE: 16,
            Kind.ALIVE: 0}


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message that has come whole."""

    kind: Kind
    stream: int
    sequence: int
    payload: bytes

    @property
    def size_bytes(self) -> int:
        """Bytes on the wire, with the header."""
        return HEADER_BYTES + len(self.payload)


def encode(kind: Kind, payload: bytes = b"", *, stream: int = 0, sequence: int = 0) -> bytes:
    """Bytes of a message.

    Raises
    ------
    WireError
        If the payload is longer than its kind may have.
    """
    if len(payload) > _LONGEST[kind]:
        raise WireError(f"{kind.name} must have at most {_LONGEST[kind]} bytes, "
                        f"not {len(payload)}")
    header = _HEADER.pack(MAGIC, VERSION, kind, 0, stream, sequence, len(payload))
    return header + _CRC.pack(zlib.crc32(payload, zlib.crc32(header))) + payload


class Decoder:
    """Finds the messages in a stream of bytes, in whatever pieces it comes.

    Parameters
    ----------
    *kinds : Kind
        Those that may come; all without any. What the other end never sends need not be held.
    """

    def __init__(self, *kinds: Kind) -> None:
        self._kinds = frozenset(kinds or Kind)
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Messages that are whole now.

        Raises
        ------
        WireError
            If the bytes are damaged. What comes behind cannot be told apart then: the connection
            is to be closed.
        """
        self._bytes += data
        found = []
        while len(self._bytes) >= HEADER_BYTES:
            magic, version, number, zero, stream, sequence, length = _HEADER.unpack_from(
                self._bytes)
            if magic != MAGIC:
                raise WireError(f"Message must begin with {MAGIC!r}, not {bytes(magic)!r}")
            if version != VERSION:
                raise WireError(f"Message must be of version {VERSION}, not {version}")
            if number not in self._kinds:
                raise WireError(f"Message must be of a kind that is due here, not {number}")
            kind = Kind(number)
            if zero:
                raise WireError(f"Message must have zero behind its kind, not {zero}")
            if length > _LONGEST[kind]:
                raise WireError(f"{kind.name} must have at most {_LONGEST[kind]} bytes, "
                                f"not {length}")
            end = HEADER_BYTES + length
            if len(self._bytes) < end:
                break
            payload = bytes(memoryview(self._bytes)[HEADER_BYTES:end])
            wanted, = _CRC.unpack_from(self._bytes, _HEADER.size)
            header = bytes(memoryview(self._bytes)[:_HEADER.size])
            if zlib.crc32(payload, zlib.crc32(header)) != wanted:
                raise WireError(f"{kind.name} must have the CRC that it states: bytes are damaged")
            del self._bytes[:end]
            found.append(Message(kind=kind, stream=stream, sequence=sequence, payload=payload))
        return found

    def end(self) -> None:
        """The stream is over.

        Raises
        ------
        WireError
            If it ends within a message.
        """
        if self._bytes:
            raise WireError(f"Message must not end after {len(self._bytes)} bytes of it")


class PayloadReader:
    """Takes a payload apart from its front.

    Parameters
    ----------
    name : str
        What it is, for errors.
    payload : bytes
        All of it.
    """

    def __init__(self, name: str, payload: bytes) -> None:
        self.name, self._payload, self._at = name, payload, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > len(self._payload) - self._at:
            raise WireError(f"{self.name} must have {count} more bytes at {self._at}, "
                            f"not {len(self._payload) - self._at}")
        self._at += count
        return self._payload[self._at - count:self._at]

    def numbers(self, layout: str) -> tuple:
        """The next numbers, as `struct` lays them out."""
        form = struct.Struct("<" + layout)
        return form.unpack(self.take(form.size))

    def array(self, dtype: str, count: int) -> npt.NDArray:
        """The next numbers of one kind, such as ``<f4``, as an array of this machine's."""
        form = np.dtype(dtype)
        return np.frombuffer(self.take(form.itemsize * count), form).astype(form.newbyteorder("="))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._payload) - self._at)

    def end(self) -> None:
        """Raise unless all has been taken."""
        if self._at != len(self._payload):
            raise WireError(f"{self.name} must end at {self._at} bytes, "
                            f"not at {len(self._payload)}")


def pack_ids(ids: npt.NDArray[np.int64]) -> bytes:
    """Ascending ids as the gaps between them, seven bits a byte, the lowest first (LEB128)."""
    gaps = np.diff(ids, prepend=-1) - 1
    if not len(gaps):
        return b""
    if gaps.min() < 0 or ids[-1] >= 1 << _ID_BITS:
        raise WireError(f"Ids must ascend from 0 upward below 2^{_ID_BITS}")
    shifts = np.arange(0, _ID_BITS, 7)
    parts = gaps[:, None] >> shifts
    there = parts > 0
    there[:, 0] = True
    more = parts > 127
    return ((parts & 127) | (more << 7)).astype(np.uint8)[there].tobytes()


def unpack_ids(data: bytes, count: int) -> npt.NDArray[np.int64]:
    """What :func:`pack_ids` has packed.

    Raises
    ------
    WireError
        If the bytes are not those of so many ids.
    """
    digits = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(digits < 128)
    if len(ends) != count or (len(digits) and digits[-1] > 127):
        raise WireError(f"Ids must be {count}, not {len(ends)}")
    lengths = np.diff(ends, prepend=-1)
    if count and lengths.max() > ID_BYTES:
        raise WireError(f"Ids must have at most {ID_BYTES} bytes, not {lengths.max()}")
    gaps = np.zeros(count, np.int64)
    for place in range(ID_BYTES):
        has = np.flatnonzero(lengths > place)
        at = ends[has] - lengths[has] + 1 + place
        gaps[has] |= (digits[at].astype(np.int64) & 127) << (7 * place)
    if gaps.sum(dtype=np.float64) + count > 1 << _ID_BITS:
        raise WireError(f"Ids must be below 2^{_ID_BITS}")
    return np.cumsum(gaps + 1) - 1
