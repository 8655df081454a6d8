"""The common shell of every accelerator: bus widths, register map, frame descriptor, error codes.

The numbers here are the contract between the hardware, the packed frame and the driver; all three
read them from this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from splatforge.designs.array import ArrayDesign
    from splatforge.designs.fetch import SplatFormat
    from splatforge.designs.resolve import ResolveDesign

__all__ = [
    "CONTROL_ABORT",
    "CONTROL_RESET",
    "CONTROL_SNAPSHOT",
    "CONTROL_START",
    "COUNTER_BASE",
    "DESCRIPTOR_BYTES",
    "DESCRIPTOR_HEAD",
    "DESCRIPTOR_VERSION",
    "HEAD_REGISTERS",
    "IDENTITY",
    "IRQ_DONE",
    "IRQ_ERROR",
    "STATUS_BUSY",
    "STATUS_DONE",
    "STATUS_ERROR",
    "AcceleratorDesign",
    "FrameError",
    "Register",
    "ShellDesign",
    "counter_registers",
]

#: First word of every register map: "SPFG" in ASCII, little-endian.
IDENTITY = 0x47465053
#: Version of the frame descriptor that this hardware understands.
DESCRIPTOR_VERSION = 1
#: Size and alignment of the frame descriptor.
DESCRIPTOR_BYTES = 64

CONTROL_START = 1 << 0
"""Start the frame at the descriptor address; ignored while busy, and beside ABORT or RESET."""
CONTROL_ABORT = 1 << 1
"""Drain what is outstanding and end the frame with :attr:`FrameError.ABORTED`."""
CONTROL_RESET = 1 << 2
"""Drain what is outstanding, then return to idle with status, interrupts and counters cleared."""
CONTROL_SNAPSHOT = 1 << 3
"""Copy the running counters to the readable ones; the end of a frame does the same."""

STATUS_BUSY = 1 << 0
STATUS_DONE = 1 << 1
STATUS_ERROR = 1 << 2

IRQ_DONE = 1 << 0
IRQ_ERROR = 1 << 1


class FrameError(IntEnum):
    """Why a frame ended early; the value of the ERROR register."""

    NONE = 0
    VERSION = 1
    """The descriptor's version is not :data:`DESCRIPTOR_VERSION`."""
    SIZE = 2
    """Width or height is zero or above :attr:`ShellDesign.max_side`, or the pitch of the
    framebuffer is less than the bytes of a row."""
    FORMAT = 3
    """The pixel format is unknown."""
    ALIGNMENT = 4
    """An address or the pitch is not a multiple of what it must be."""
    LIST = 5
    """A tile's list reaches beyond the descriptor's number of splats."""
    READ = 6
    """A read came back with SLVERR or DECERR."""
    WRITE = 7
    """A write came back with SLVERR or DECERR."""
    ABORTED = 8
    """The driver wrote ABORT."""
    WORKSPACE = 9
    """The workspace cannot hold what the frame keeps in it."""


@dataclass(frozen=True, kw_only=True)
class Register:
    """One 32-bit register.

    Parameters
    ----------
    name : str
        Upper-case name.
    offset : int
        Byte offset in the register space.
    access : str
        ``ro`` read only, ``rw`` read and write, ``wo`` write only (reads zero), ``w1c`` write one
        to clear.
    text : str
        What it holds.
    """

    name: str
    offset: int
    access: str
    text: str


#: The head of the register map, the same for every accelerator. Counters follow at 0x100.
HEAD_REGISTERS = (
    Register(name="IDENTITY", offset=0x00, access="ro", text='"SPFG", 0x47465053'),
    Register(name="VERSION", offset=0x04, access="ro",
             text="design number << 16 | descriptor version"),
    Register(name="CONTROL", offset=0x08, access="wo",
             text="bit 0 START, 1 ABORT, 2 RESET, 3 SNAPSHOT"),
    Register(name="STATUS", offset=0x0C, access="ro", text="bit 0 BUSY, 1 DONE, 2 ERROR"),
    Register(name="ERROR", offset=0x10, access="ro", text="FrameError of the last frame"),
    Register(name="IRQ_STATUS", offset=0x14, access="w1c", text="bit 0 DONE, 1 ERROR"),
    Register(name="IRQ_ENABLE", offset=0x18, access="rw",
             text="bits of IRQ_STATUS that drive the interrupt line"),
    Register(name="DESCRIPTOR_LOW", offset=0x1C, access="rw",
             text="address of the frame descriptor, bits 31:0, a multiple of 64"),
    Register(name="DESCRIPTOR_HIGH", offset=0x20, access="rw",
             text="address of the frame descriptor, bits 39:32"),
    Register(name="LANES", offset=0x24, access="ro", text="lanes of the rendering array"),
    Register(name="COUNTERS", offset=0x28, access="ro", text="number of counters behind 0x100"),
)
#: Byte offset of the first performance counter.
COUNTER_BASE = 0x100

#: Head of the frame descriptor, the same for every accelerator: (name, byte offset, bytes).
#: Unnamed bytes are reserved and ignored.
DESCRIPTOR_HEAD = (
    ("version", 0, 4),
    ("width", 4, 2),
    ("height", 6, 2),
    ("pixel_format", 8, 1),
    ("background_red", 10, 2),
    ("background_green", 12, 2),
    ("background_blue", 14, 2),
)


def counter_registers(counters: Sequence[tuple[str, str, str]]) -> tuple[Register, ...]:
    """Registers of performance counters: low word, then high word, from 0x100 up.

    Parameters
    ----------
    counters : sequence of tuple
        (name, unit, what it counts) in register order.
    """
    registers = []
    for number, (name, unit, text) in enumerate(counters):
        for half, suffix in enumerate(("LOW", "HIGH")):
            registers.append(Register(
                name=f"{name.upper()}_{suffix}", offset=COUNTER_BASE + 8 * number + 4 * half,
                access="ro", text=f"{text} ({unit}), {'bits 31:0' if half == 0 else 'the rest'}",
            ))
    return tuple(registers)


@dataclass(frozen=True, kw_only=True)
class ShellDesign:
    """Bus and counters around an accelerator.

    Parameters
    ----------
    data_bits : int
        Width of the AXI4 data bus. One splat record is one beat, hence 128.
    address_bits : int
        Width of AXI4 addresses.
    register_address_bits : int
        Width of AXI4-Lite addresses.
    counter_bits : int
        Width of a performance counter, read as two registers, low word first.
    max_side : int
        Largest width and height of a frame in pixels.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    data_bits: int = 128
    address_bits: int = 40
    register_address_bits: int = 12
    counter_bits: int = 40
    max_side: int = 8192

    def __post_init__(self) -> None:
        if self.data_bits != 128:
            raise ValueError(f"Data bus must be 128 bits, one splat a beat, not {self.data_bits!r}")
        if not 32 <= self.address_bits <= 64:
            raise ValueError(f"Addresses must be 32 to 64 bits, not {self.address_bits!r}")
        if not 10 <= self.register_address_bits <= 32:
            raise ValueError(
                f"Register addresses must be 10 to 32 bits, not {self.register_address_bits!r}"
            )
        if not 33 <= self.counter_bits <= 64:
            raise ValueError(f"Counters must be 33 to 64 bits, not {self.counter_bits!r}")
        # 4095 tiles of 16 pixels: the hardware counts them in 12 bits.
        if not 16 <= self.max_side <= 65520:
            raise ValueError(f"Largest side must be 16 to 65520 pixels, not {self.max_side!r}")

    @property
    def data_bytes(self) -> int:
        """Bytes of one beat."""
        return self.data_bits // 8


class AcceleratorDesign(Protocol):
    """What the parameters of every accelerator in the common shell have.

    Attributes
    ----------
    name : str
        Of the accelerator, and of the top module of its Verilog.
    number : int
        In the VERSION register.
    counters : tuple of (str, str, str)
        Performance counters in register order: name, unit, what each counts.
    read_counters, write_counters : tuple of str
        Those whose sum is what went over the bus, in bytes.
    descriptor_fields : tuple of (str, int, int)
        The frame descriptor: name, byte offset, bytes.
    array, resolve, shell : ArrayDesign, ResolveDesign, ShellDesign
        Parameters of the units that every accelerator has.
    splat : SplatFormat
        What the rendering array takes.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    number: ClassVar[int]
    counters: ClassVar[tuple[tuple[str, str, str], ...]]
    read_counters: ClassVar[tuple[str, ...]]
    write_counters: ClassVar[tuple[str, ...]]
    descriptor_fields: ClassVar[tuple[tuple[str, int, int], ...]]

    @property
    def array(self) -> "ArrayDesign": ...
    @property
    def resolve(self) -> "ResolveDesign": ...
    @property
    def shell(self) -> ShellDesign: ...
    @property
    def splat(self) -> "SplatFormat": ...
