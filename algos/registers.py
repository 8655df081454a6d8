"""What a driver sees of an accelerator's registers: the map of :mod:`splatforge.designs.shell`.

The accesses are those of AXI4-Lite (Arm IHI 0022, section B1): 32-bit words, byte strobes, and
SLVERR for what is not there or must not be written.
"""

from typing import NamedTuple

from splatforge.designs.shell import (
    CONTROL_ABORT,
    CONTROL_RESET,
    CONTROL_SNAPSHOT,
    CONTROL_START,
    COUNTER_BASE,
    DESCRIPTOR_VERSION,
    HEAD_REGISTERS,
    IDENTITY,
    IRQ_DONE,
    IRQ_ERROR,
    STATUS_BUSY,
    STATUS_DONE,
    STATUS_ERROR,
    ShellDesign,
)

__all__ = ["OKAY", "SLVERR", "RegisterFile", "Write"]

OKAY = 0
SLVERR = 2

_NAMES = {register.offset: register.name for register in HEAD_REGISTERS}


class Write(NamedTuple):
    """What a write did besides changing registers."""

    response: int
    """:data:`OKAY` or :data:`SLVERR`."""
    start: bool = False
    abort: bool = False
    reset: bool = False


class RegisterFile:
    """Registers of an accelerator, bit-true to :class:`splatforge.hw.registers.Registers`.

    Within one clock cycle call in this order what happens in it: :meth:`read`, which sees what
    was before; :meth:`write`; :meth:`finish`; :meth:`clear`. What comes later wins, as it does in
    the hardware: an interrupt that is raised while it is being cleared stays.

    Parameters
    ----------
    shell : ShellDesign
        Widths.
    number, lanes, counters : int
        Design number, contents of LANES, number of performance counters.

    Attributes
    ----------
    busy : bool
        A frame is running; set by whoever plays the accelerator.
    counter : list of int
        Running counters, likewise.
    """

    def __init__(self, shell: ShellDesign, *, number: int, lanes: int, counters: int) -> None:
        self.shell, self.number, self.lanes = shell, number, lanes
        self.busy = False
        self.counter = [0] * counters
        self._snapshot = [0] * counters
        self._status = self._error = 0
        self._irq_status = self._irq_enable = 0
        self._address = 0

    @property
    def irq(self) -> bool:
        """Whether an enabled interrupt is pending."""
        return bool(self._irq_status & self._irq_enable)

    @property
    def descriptor_address(self) -> int:
        """Address of the frame descriptor, cut to the bus's address bits."""
        return self._address & ((1 << self.shell.address_bits) - 1)

    def read(self, offset: int) -> tuple[int, int]:
        """Content of the register at byte `offset`, and the response; the low two bits are ignored.

        Outside of the map the content is zero and the response :data:`SLVERR`.
        """
        word = offset & ~3
        number, byte = divmod(word - COUNTER_BASE, 8)
        if 0 <= number < len(self._snapshot):
            return self._snapshot[number] >> 8 * byte & 0xFFFF_FFFF, OKAY
        name = _NAMES.get(word)
        if name is None:
            return 0, SLVERR
        return {
            "IDENTITY": IDENTITY,
            "VERSION": self.number << 16 | DESCRIPTOR_VERSION,
            "CONTROL": 0,
            "STATUS": self._status | (STATUS_BUSY if self.busy else 0),
            "ERROR": self._error,
            "IRQ_STATUS": self._irq_status,
            "IRQ_ENABLE": self._irq_enable,
            "DESCRIPTOR_LOW": self.descriptor_address & 0xFFFF_FFFF,
            "DESCRIPTOR_HIGH": self.descriptor_address >> 32,
            "LANES": self.lanes,
            "COUNTERS": len(self._snapshot),
        }[name], OKAY

    def write(self, offset: int, value: int, strobe: int = 0b1111) -> Write:
        """Write the bytes of `value` that `strobe` names; the low two bits of `offset` are ignored.

        Returns
        -------
        Write
            The response, and what the driver asked of the accelerator by it.
        """
        mask = sum(0xFF << 8 * byte for byte in range(4) if strobe >> byte & 1)
        value &= mask
        name = _NAMES.get(offset & ~3)
        if name == "CONTROL":
            start = bool(value & CONTROL_START) and not (
                self.busy or value & (CONTROL_ABORT | CONTROL_RESET))
            if start:
                self._status = self._error = 0
            if value & CONTROL_SNAPSHOT:
                self._snapshot = list(self.counter)
            return Write(OKAY, start, bool(value & CONTROL_ABORT), bool(value & CONTROL_RESET))
        if name == "IRQ_STATUS":
            self._irq_status &= ~value
        elif name == "IRQ_ENABLE":
            kept = self._irq_enable & ~mask | value
            self._irq_enable = kept & (IRQ_DONE | IRQ_ERROR)
        elif name == "DESCRIPTOR_LOW":
            self._address = self._address & ~mask | value
        elif name == "DESCRIPTOR_HIGH":
            self._address = self._address & ~(mask << 32) | value << 32
        else:
            return Write(SLVERR)
        return Write(OKAY)

    def finish(self, error: int) -> None:
        """End a frame with a :class:`splatforge.designs.shell.FrameError`; copies the counters."""
        self._status = STATUS_DONE | (STATUS_ERROR if error else 0)
        self._error = error
        self._irq_status |= IRQ_DONE | (IRQ_ERROR if error else 0)
        self._snapshot = list(self.counter)

    def clear(self) -> None:
        """End a soft reset: status, pending interrupts and the copy of the counters are zero."""
        self._status = self._error = self._irq_status = 0
        self._snapshot = [0] * len(self._snapshot)
