"""Cycle model of :class:`splatforge.hw.registers.Registers`."""

__all__ = ["INTERVAL", "LATENCY", "cycles"]

#: Cycles from an accepted access to its answer.
LATENCY = 1
#: Cycles between two accepted reads, and between two accepted writes, when nothing stalls.
INTERVAL = 2


def cycles(accesses: int) -> int:
    """Cycles from the first accepted access to the last answer, both counted, no stalls.

    For reads alone or for writes alone; the two do not disturb each other.

    Raises
    ------
    ValueError
        If the number of accesses is negative.
    """
    if accesses < 0:
        raise ValueError(f"Number of accesses must be non-negative, not {accesses}")
    return 0 if accesses == 0 else LATENCY + (accesses - 1) * INTERVAL + 1
