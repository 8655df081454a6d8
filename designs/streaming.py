"""Streaming of a city: what both ends keep, and how Gaussians are coded.

Sources: Voyager, arXiv 2506.02774 v1, and its sibling Nebula, ASPLOS 2026: a reuse window of 32
frames; codebooks for SH, fixed point of 16 bits for the rest; 100 Mbps at 100 nJ a byte. Lengths of
codebooks, and how a message is laid out, are not told there.
"""

from dataclasses import dataclass

__all__ = ["ENTROPY_CODERS", "NETWORKS", "LinkDesign", "LoopDesign", "StreamingDesign"]

#: How the body of a message may be packed further.
ENTROPY_CODERS = ("none", "zlib")


@dataclass(frozen=True, kw_only=True)
class StreamingDesign:
    """Table and code of a stream.

    Parameters
    ----------
    reuse_window : int
        Frames since a Gaussian was last in a cut, beyond which both ends drop it; 0 to 65535.
    position_bits, scale_bits, rotation_bits, opacity_bits, color_bits : int
        Of a coordinate, a log scale, each of the three smaller components of a quaternion, an
        opacity, and a channel of the SH of degree zero; 8 to 24. By default 16 all; of a rotation
        15, with which two bits tell which component is not sent.
    sh1, sh2, sh3 : tuple of int
        Bits of the index into each codebook of the SH of a degree, 1 to 14. The value is the sum of
        the entries. Default: as in :class:`splatforge.designs.codebook.CodebookDesign`.
    entropy : str
        ``zlib`` or ``none``.
    log_messages : int
        Messages that the cloud keeps to send again, 1 to 4096; beyond, a client that has lost one
        is sent its whole cut.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    reuse_window: int = 32
    position_bits: int = 16
    scale_bits: int = 16
    rotation_bits: int = 15
    opacity_bits: int = 16
    color_bits: int = 16
    sh1: tuple[int, ...] = (10, 10)
    sh2: tuple[int, ...] = (10, 10)
    sh3: tuple[int, ...] = (10, 10)
    entropy: str = "zlib"
    log_messages: int = 64

    def __post_init__(self) -> None:
        for name, low, high in (
            ("reuse_window", 0, 65535), ("position_bits", 8, 24), ("scale_bits", 8, 24),
            ("rotation_bits", 8, 24), ("opacity_bits", 8, 24), ("color_bits", 8, 24),
            ("log_messages", 1, 4096),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(
                    f"Streaming {name} must be {low} to {high}, not {value!r}")
        for name in ("sh1", "sh2", "sh3"):
            stages = getattr(self, name)
            if not 1 <= len(stages) <= 4 or not all(1 <= bits <= 14 for bits in stages):
                raise ValueError(f"Streaming {name} must be one to four of 1 to 14 bits, "
                                 f"not {stages!r}")
        if self.entropy not in ENTROPY_CODERS:
            raise ValueError(f"Streaming entropy must be one of {', '.join(ENTROPY_CODERS)}, "
                             f"not {self.entropy!r}")

    def fields(self, sh_degree: int) -> tuple[tuple[str, int], ...]:
        """(name, bits) of every number of a Gaussian, in the order of the message."""
        return (
            *((f"position_{axis}", self.position_bits) for axis in "xyz"),
            *((f"scale_{axis}", self.scale_bits) for axis in "xyz"),
            ("rotation_largest", 2),
            *((f"rotation_{place}", self.rotation_bits) for place in range(3)),
            ("opacity", self.opacity_bits),
            *((f"color_{channel}", self.color_bits) for channel in ("red", "green", "blue")),
            *((f"sh{degree}_{stage}", bits) for degree in range(1, sh_degree + 1)
              for stage, bits in enumerate(getattr(self, f"sh{degree}"))),
        )

    def gaussian_bits(self, sh_degree: int) -> int:
        """Bits of a Gaussian before entropy coding, its id apart."""
        return sum(bits for _, bits in self.fields(sh_degree))


@dataclass(frozen=True, kw_only=True)
class LinkDesign:
    """A direction of a network.

    Parameters
    ----------
    bandwidth_mbps : float
        Rate of the token bucket, positive, 10^6 bits a second; infinity does not hold back.
    latency_ms : float
        One way, non-negative, at most 10 s.
    burst_bytes : int
        Size of the bucket, 1024 to 2^30.
    energy_nj_per_byte : float
        Of a byte on air, non-negative.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    bandwidth_mbps: float = 100.0
    latency_ms: float = 0.0
    burst_bytes: int = 65536
    energy_nj_per_byte: float = 100.0

    def __post_init__(self) -> None:
        if not self.bandwidth_mbps > 0:
            raise ValueError(f"Link bandwidth_mbps must be positive, not {self.bandwidth_mbps!r}")
        for name, low, high in (("latency_ms", 0, 10_000), ("burst_bytes", 1024, 1 << 30),
                                ("energy_nj_per_byte", 0, 1e6)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"Link {name} must be {low} to {high}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class LoopDesign:
    """What stands around a stream in the loop from a pose to what is seen.

    Parameters
    ----------
    down, up : LinkDesign
        To the client, and to the cloud. Default: Nebula's 100 Mbps at 100 nJ a byte; its latency is
        not told: 10 ms, a wireless hop and a cloud nearby.
    loss : float
        Share of packets that are sent again, 0 to 0.9.
    packet_bytes, packet_header_bytes : int
        Payload of a packet of TCP over IPv4 over Ethernet, and what the two put in front of it.
    search_ns_per_node, encode_us_per_gaussian : float
        Time of the cloud for a node that its search looks at, and for a Gaussian that it codes;
        non-negative. On one core of a server our encoder took 20 us, and a search from the last cut
        16 ms for 243,325 nodes, its cut of 1.6 million written: 50 ns for a node itself.
    display_ms : float
        From a frame to half of its pixels' light; non-negative.
    encode_ms, decode_ms : float
        Of a frame of a video that the cloud would send in place of Gaussians; non-negative.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    down: LinkDesign = LinkDesign(latency_ms=10.0)
    up: LinkDesign = LinkDesign(latency_ms=10.0)
    loss: float = 0.0
    packet_bytes: int = 1448
    packet_header_bytes: int = 52
    search_ns_per_node: float = 50.0
    encode_us_per_gaussian: float = 20.0
    display_ms: float = 5.6
    encode_ms: float = 5.0
    decode_ms: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.loss <= 0.9:
            raise ValueError(f"Loop loss must be 0 to 0.9, not {self.loss!r}")
        if not (1 <= self.packet_bytes <= 65535 and 0 <= self.packet_header_bytes <= 1000):
            raise ValueError(f"Loop packets must have 1 to 65535 bytes behind at most 1000, not "
                             f"{self.packet_bytes!r} behind {self.packet_header_bytes!r}")
        for name in ("search_ns_per_node", "encode_us_per_gaussian", "display_ms", "encode_ms",
                     "decode_ms"):
            value = getattr(self, name)
            if not 0 <= value <= 1e9:
                raise ValueError(f"Loop {name} must be 0 to 1e9, not {value!r}")

    def on_air_bytes(self, payload_bytes: float) -> float:
        """Bytes on the wire for bytes of the program: packet headers, and what is sent again."""
        packets = -(-payload_bytes // self.packet_bytes)
        return (payload_bytes + packets * self.packet_header_bytes) / (1 - self.loss)


#: Networks by name: Nebula's wireless, 100 Mbps and 100 nJ a byte.
NETWORKS = {"nebula": LinkDesign(latency_ms=10.0)}
