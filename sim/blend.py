"""Cycle model of :class:`splatforge.hw.blend.Blend`."""

__all__ = ["DEAD_LATENCY", "INTERVAL", "LATENCY", "cycles"]

#: Cycles from a block's alphas until they show in the colours.
LATENCY = 9
#: Cycles from a block's alphas until they show in T, and to the word whether all its pixels have
#: ended.
DEAD_LATENCY = 6
#: Cycles between two blocks, the same block twice included.
INTERVAL = 1


def cycles(blocks: int) -> int:
    """Cycles from the first input transfer to the last word on ``o``, both counted, no stalls.

    Raises
    ------
    ValueError
        If the number of blocks is negative.
    """
    if blocks < 0:
        raise ValueError(f"Number of blocks must be non-negative, not {blocks}")
    return 0 if blocks == 0 else DEAD_LATENCY + (blocks - 1) * INTERVAL + 1
