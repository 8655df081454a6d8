"""The memory behind an accelerator's port a cycle at a time, of fixed latency or banked.

The same memories as :mod:`splatforge.sim.memory` and :mod:`splatforge.sim.dram`, behind one set of
functions. In a cycle first ask :func:`may_read`, :func:`may_write` and :func:`may_write_beat`, then
tell what was taken, and last :func:`advance`. The accelerator takes every beat of read data and
every response as it comes.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.memory import BankedMemory, Memory
from splatforge.sim import dram
from splatforge.sim.memory import memory_constants

__all__ = ["advance", "idle", "may_read", "may_write", "may_write_beat", "new_bus", "read",
           "read_beat", "respond", "settle", "write", "write_beat"]

# Scalars of a memory of fixed latency: its constants; bursts outstanding, heads and tails of the
# rings, beats of the oldest burst; time of the last beat in units of 1/num; the cycle since which a
# beat of write data waits.
(LATENCY, READ_NUM, READ_DEN, WRITE_NUM, WRITE_DEN, LIMIT, READS, READ_HEAD, READ_TAIL, READ_DONE,
 READ_TIME, WRITES, WRITE_HEAD, WRITE_TAIL, WRITE_DONE, WRITE_TIME, WAITS_SINCE, ANSWERED,
 SCALARS) = range(19)
#: Bursts that a ring holds, more than may be outstanding.
BURSTS = 1024
READ_ACCEPTED = SCALARS
READ_BEATS = READ_ACCEPTED + BURSTS
WRITE_BEATS = READ_BEATS + BURSTS
ANSWER = WRITE_BEATS + BURSTS
SIZE = ANSWER + BURSTS


def new_bus(
    memory: Memory, *, commands: int = 0, requests: int = 0
) -> tuple[npt.NDArray[np.int64], bool]:
    """State of a memory at the start of a frame, and whether it is banked.

    Parameters
    ----------
    memory : MemoryTiming or BankedMemory
        The memory.
    commands, requests : int
        How many to log at most, of a banked one.

    Raises
    ------
    ValueError
        If more bursts may be outstanding than this model follows.
    """
    if isinstance(memory, BankedMemory):
        return dram.new_banked(memory, commands=commands, requests=requests), True
    if memory.outstanding >= BURSTS:
        raise ValueError(
            f"Outstanding bursts must be fewer than {BURSTS}, not {memory.outstanding}")
    m = np.zeros(SIZE, np.int64)
    m[:READS] = memory_constants(memory)
    m[READ_TIME] = m[WRITE_TIME] = np.int64(-1) << 40
    m[WAITS_SINCE] = -1
    return m, False


@nb.njit
def may_read(m, banked):
    """Whether a read address is taken in this cycle."""
    if banked:
        return m[dram.R_COUNT] < m[dram.OUTSTANDING]
    return m[READS] < m[LIMIT]


@nb.njit
def may_write(m, banked):
    """Whether a write address is taken in this cycle."""
    if banked:
        return m[dram.W_COUNT] < m[dram.OUTSTANDING]
    return m[WRITES] < m[LIMIT]


@nb.njit
def may_write_beat(m, banked, now, valid):
    """Whether a beat of write data that is `valid` is taken in cycle `now`; ask in every cycle."""
    if banked:
        return valid and dram.may_write_beat(m)
    if not valid or m[WRITE_HEAD] == m[WRITE_TAIL]:
        return False
    if m[WAITS_SINCE] < 0:
        m[WAITS_SINCE] = now
    return now * m[WRITE_NUM] >= m[WRITE_TIME] + m[WRITE_DEN]


@nb.njit
def read(m, banked, now, address, beats):
    """Take a read address."""
    if banked:
        dram.read(m, now, address, beats)
        return
    at = m[READ_TAIL] & (BURSTS - 1)
    m[READ_ACCEPTED + at] = now
    m[READ_BEATS + at] = beats
    m[READ_TAIL] += 1
    m[READS] += 1


@nb.njit
def read_beat(m, banked, now):
    """Give a beat of read data: -1 if none is there, 1 if it is the last of its burst, else 0."""
    if banked:
        if m[dram.R_DUE] > now:
            return -1
        return 1 if dram.take_beat(m) else 0
    if m[READ_HEAD] == m[READ_TAIL]:
        return -1
    at = m[READ_HEAD] & (BURSTS - 1)
    due = max((m[READ_ACCEPTED + at] + m[LATENCY]) * m[READ_NUM], m[READ_TIME] + m[READ_DEN])
    if now * m[READ_NUM] < due:
        return -1
    m[READ_TIME] = due
    m[READ_DONE] += 1
    if m[READ_DONE] < m[READ_BEATS + at]:
        return 0
    m[READ_DONE] = 0
    m[READ_HEAD] += 1
    m[READS] -= 1
    return 1


@nb.njit
def write(m, banked, address, beats):
    """Take a write address."""
    if banked:
        dram.write(m, address, beats)
        return
    m[WRITE_BEATS + (m[WRITE_TAIL] & (BURSTS - 1))] = beats
    m[WRITE_TAIL] += 1
    m[WRITES] += 1


@nb.njit
def write_beat(m, banked, now):
    """Take a beat of write data."""
    if banked:
        dram.write_beat(m, now)
        return
    m[WRITE_TIME] = max(m[WAITS_SINCE] * m[WRITE_NUM], m[WRITE_TIME] + m[WRITE_DEN])
    m[WAITS_SINCE] = -1
    m[WRITE_DONE] += 1
    at = m[WRITE_HEAD] & (BURSTS - 1)
    if m[WRITE_DONE] == m[WRITE_BEATS + at]:
        m[WRITE_DONE] = 0
        m[ANSWER + at] = now + m[LATENCY]
        m[WRITE_HEAD] += 1


@nb.njit
def respond(m, banked, now):
    """Give a write response if there is one."""
    if banked:
        head = m[dram.B_HEAD]
        if head == m[dram.W_HEAD] or m[dram.B_TIME + (head & (dram.BURSTS - 1))] > now:
            return False
        m[dram.B_HEAD] += 1
        m[dram.W_COUNT] -= 1
        return True
    if m[ANSWERED] == m[WRITE_HEAD] or m[ANSWER + (m[ANSWERED] & (BURSTS - 1))] > now:
        return False
    m[ANSWERED] += 1
    m[WRITES] -= 1
    return True


@nb.njit
def advance(m, banked, now):
    """End cycle `now`."""
    if banked and (m[dram.R_NEXT] < m[dram.R_TAIL]
                   or m[dram.NEXT] * m[dram.DEN] <= (now + 1) * m[dram.NUM]):
        dram.advance(m, now)


@nb.njit
def idle(m, banked):
    """Whether nothing is left to do behind a frame."""
    return not banked or dram.idle(m)


@nb.njit
def settle(m, banked, now):
    """Behind a frame that ended in the cycle before `now`: posted writes find their way."""
    if banked:
        while not dram.idle(m):
            dram.advance(m, now)
            now += 1
        m[dram.CLOCK] = now * m[dram.NUM] // m[dram.DEN] + 1
