"""What cloud and client say to each other besides deltas.

The client says HELLO with the stream that it was on and the delta that it has applied last; the
cloud WELCOMEs it, to the same stream where it still knows it, and sends its CODEC where the client
has another. Then the client sends a POSE for every search, and acknowledges deltas with it.
"""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splatforge.algos.voyager.wire import PayloadReader, WireError
from splatforge.scenes import Camera

__all__ = ["Hello", "Pose", "Welcome", "pack_position", "parse_position"]

_POSITION = struct.Struct("<IQ")
_HELLO = struct.Struct("<IQQ")
_CAMERA = struct.Struct("<II5d12d")
_POSE = struct.Struct("<II")
_WELCOME = struct.Struct("<BQIIdQ")


@dataclass(frozen=True, kw_only=True)
class Hello:
    """A client that begins, or goes on.

    Parameters
    ----------
    sequence, digest : int
        The delta applied last, and the table's digest behind it; 0 without one.
    codec : int
        Digest of the codec that it has; 0 without one.
    """

    sequence: int = 0
    digest: int = 0
    codec: int = 0

    def pack(self) -> bytes:
        """As a payload."""
        return _HELLO.pack(self.sequence, self.digest, self.codec)

    @classmethod
    def parse(cls, payload: bytes) -> "Hello":
        """Of a payload; :class:`WireError` if it is none."""
        sequence, digest, codec = _whole("Hello", _HELLO, payload)
        return cls(sequence=sequence, digest=digest, codec=codec)


@dataclass(frozen=True, kw_only=True, eq=False)
class Welcome:
    """What a client must know of a city.

    Parameters
    ----------
    resumed : bool
        The stream goes on; else it begins anew.
    nodes : int
        Gaussians of all levels: ids are below.
    reuse_window : int
        As in :class:`splatforge.designs.streaming.StreamingDesign`.
    window_frames : int
        Frames from search to search.
    tau_px : float
        Size that a node of a cut is below, in pixels.
    codec : int
        Digest of the cloud's codec.
    view : Camera
        A view of the city to begin at.
    target : ndarray
        A point in the middle of it, shape [3].
    up : ndarray
        Upward direction, shape [3].
    """

    resumed: bool
    nodes: int
    reuse_window: int
    window_frames: int
    tau_px: float
    codec: int
    view: Camera
    target: npt.NDArray[np.float64]
    up: npt.NDArray[np.float64]

    def pack(self) -> bytes:
        """As a payload."""
        return b"".join((
            _WELCOME.pack(self.resumed, self.nodes, self.reuse_window, self.window_frames,
                          self.tau_px, self.codec),
            _camera_bytes(self.view), np.asarray([self.target, self.up], "<f8").tobytes()))

    @classmethod
    def parse(cls, payload: bytes) -> "Welcome":
        """Of a payload; :class:`WireError` if it is none."""
        reader = PayloadReader("Welcome", payload)
        resumed, nodes, reuse, window, tau, codec = _WELCOME.unpack(reader.take(_WELCOME.size))
        if not (resumed <= 1 and nodes < 1 << 35 and reuse <= 65535 and window >= 1 and tau > 0):
            raise WireError(f"Welcome must have numbers in their ranges, not {resumed}, {nodes}, "
                            f"{reuse}, {window}, {tau}")
        view = _camera("Welcome", reader.take(_CAMERA.size))
        target, up = reader.array("<f8", 6).reshape(2, 3)
        reader.end()
        if not (np.isfinite(target).all() and np.isfinite(up).all() and up.any()):
            raise WireError("Welcome must have a target and an upward direction that are finite")
        return cls(resumed=bool(resumed), nodes=nodes, reuse_window=reuse, window_frames=window,
                   tau_px=tau, codec=codec, view=view, target=target, up=up)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pose:
    """A pose that the cloud is to search for.

    Parameters
    ----------
    frame : int
        Frame at which it is asked for; later ones are greater.
    sequence : int
        The delta applied last.
    camera : Camera
        Where the client expects to be.
    """

    frame: int
    sequence: int
    camera: Camera

    def pack(self) -> bytes:
        """As a payload."""
        return _POSE.pack(self.frame, self.sequence) + _camera_bytes(self.camera)

    @classmethod
    def parse(cls, payload: bytes) -> "Pose":
        """Of a payload; :class:`WireError` if it is none."""
        reader = PayloadReader("Pose", payload)
        frame, sequence = reader.numbers("II")
        camera = _camera("Pose", reader.take(_CAMERA.size))
        reader.end()
        return cls(frame=frame, sequence=sequence, camera=camera)


def pack_position(position: tuple[int, int]) -> bytes:
    """Payload of a RESYNC: the delta applied last and the digest behind it."""
    return _POSITION.pack(*position)


def parse_position(payload: bytes) -> tuple[int, int]:
    """What :func:`pack_position` has packed; :class:`WireError` if it is not that."""
    return _whole("Resync", _POSITION, payload)


def _whole(name: str, form: struct.Struct, payload: bytes) -> tuple:
    reader = PayloadReader(name, payload)
    values = form.unpack(reader.take(form.size))
    reader.end()
    return values


def _camera_bytes(camera: Camera) -> bytes:
    return _CAMERA.pack(camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy,
                        camera.near, *camera.w2c[:3].ravel())


def _camera(name: str, data: bytes) -> Camera:
    width, height, fx, fy, cx, cy, near, *rows = _CAMERA.unpack(data)
    w2c = np.eye(4)
    w2c[:3] = np.reshape(rows, (3, 4))
    try:
        return Camera(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy, w2c=w2c, near=near)
    except ValueError as error:
        raise WireError(f"{name}: {error}") from None
