"""Cycle model of :class:`splatforge.hw.alpha.Alpha`."""

__all__ = ["INTERVAL", "LATENCY", "cycles"]

#: Cycles from a block's splat to its alphas: four for the forms, nine in the lane.
LATENCY = 14
#: Cycles between two blocks.
INTERVAL = 1


def cycles(blocks: int) -> int:
    """Cycles from the first input transfer to the last output transfer, both counted, no stalls.

    Raises
    ------
    ValueError
        If the number of blocks is negative.
    """
    if blocks < 0:
        raise ValueError(f"Number of blocks must be non-negative, not {blocks}")
    return 0 if blocks == 0 else LATENCY + (blocks - 1) * INTERVAL + 1
