"""Banked DRAM in clocks: bank state machines, an FR-FCFS controller, an AXI4 port in front of it.

One channel issues at most one command in a clock. A refresh that is due stops its rank (or bank)
until it is done. Then the channel reads or, once enough writes wait, writes; of the oldest requests
of that queue, the first one whose row is open and whose column command may go now goes; if there
is none, the first ACT or PRE that may go now; a row that a request of the window still wants is
not closed. A command may go when its last gate has passed; nothing is fitted.

``verification/dram.h`` is the same machine in C++ behind the RTL, equal command by command.

The port counts the accelerator's cycles. Cycle ``n`` is its ``n``-th rising edge behind the start
of the frame, and a transfer "at n" has valid and ready before that edge. DRAM clock ``k`` comes at
``k / ratio`` cycles, ``ratio`` DRAM clocks to a cycle; at the start all banks are precharged and
the first refresh is due one interval later. An accepted read burst becomes requests of one DRAM
access each, in order, one a cycle, into the queues of their channels; its beats return in the order
of the addresses, one a cycle. Write data are taken while the queue of their channel has room, and
the response comes once the last request is in a queue: writes are posted.

Not modelled: forwarding of queued writes to reads, masked writes (they cost what full ones do),
power-down, temperature, training, LPDDR5's WCK synchronisation, data-bus inversion.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.dram import (
    COMMANDS,
    FIELDS,
    TIMINGS,
    Dram,
    PagePolicy,
    Refresh,
)
from splatforge.designs.memory import BankedMemory

__all__ = ["DramCounts", "Replay", "banked_constants", "new_banked", "replay"]

#: Later than any frame ends.
NEVER = np.int64(1) << 60
PAST = -(np.int64(1) << 40)
#: Bytes of a beat of the port, see :class:`splatforge.designs.shell.ShellDesign`.
BEAT_BYTES = 16
#: Most banks, groups and ranks of a channel, and most requests of a queue.
BANKS, GROUPS, RANKS, QUEUE = 32, 32, 4, 64
#: Per-bank refresh goes over a rank in this many steps.
REFRESH_STEPS = 8

# Places in the constants: the timings, then the rest.
(BL, CL, CWL, DQSCK, RCD, RAS, RC, RP, RP_ALL, PPD, RRD_S, RRD_L, FAW, CCD_S, CCD_L, WTR_S, WTR_L,
 RTW, WR, RTP, CS, RFC_ALL, RFC_BANK, REFI, PBR2PBR, ACT_CLOCKS, COLUMN_CLOCKS, PRE_CLOCKS,
 REF_CLOCKS) = range(len(TIMINGS))
(N_CHANNELS, N_RANKS, RANK_BITS, BANK_BITS, ACCESS_BITS, DEPTH, WINDOW, HIGH, LOW, CLOSED, REFRESH,
 FRONTEND, BACKEND, OUTSTANDING, NUM, DEN, HASH, N_FIELDS) = range(len(TIMINGS), len(TIMINGS) + 18)
FIELD = N_FIELDS + 1
CONSTANTS = FIELD + 24
# A memory is one array, since every array handed to a function in compiled code costs two atomic
# reference counts: the constants, then where its parts are, the port, the channels, the clocks at
# which read requests are done, and the logs of commands and of requests.
(DONE_AT, DONE_MASK, LOG_AT, LOG_ROOM, LOG_COUNT, TRACE_AT, TRACE_ROOM, TRACE_COUNT) = range(
    CONSTANTS, CONSTANTS + 8)
PORT = CONSTANTS + 8

# Places in the state of a channel: scalars, counts, then ranks, groups, banks and two queues.
BUS_OK, WAKE, DRAINING, READS, WRITES = range(5)
(ACTIVATES, PRECHARGES, READ_BURSTS, WRITE_BURSTS, REFRESHES, BANK_REFRESHES, HITS, MISSES,
 CONFLICTS) = COUNTS = range(5, 14)
RANK = 14
(RANK_RD, RANK_WR, RANK_ACT, RANK_PRE, FAW_PLACE, FAW_0, FAW_1, FAW_2, FAW_3, DUE, STEP,
 REFRESH_OK, OPEN, SINCE, OPEN_CLOCKS, RANK_SIZE) = range(16)
GROUP = RANK + RANKS * RANK_SIZE
GROUP_RD, GROUP_WR, GROUP_ACT, GROUP_SIZE = range(4)
BANK = GROUP + GROUPS * GROUP_SIZE
ROW, ACT_OK, PRE_OK, COLUMN_OK, BANK_SIZE = range(5)
# A queue is a list of entries, oldest first, and a list of free ones: places of their heads, then
# the entries, each with the place of the next. A place counts from the queue's begin.
READ_QUEUE = BANK + BANKS * BANK_SIZE
Q_HEAD, Q_TAIL, Q_FREE, Q_FIRST = range(4)
Q_BANK, Q_ROW, Q_KIND, Q_ID, Q_AT, Q_GROUP, Q_RANK, Q_NEXT, Q_SIZE = range(9)
WRITE_QUEUE = READ_QUEUE + Q_FIRST + QUEUE * Q_SIZE
CHANNEL = WRITE_QUEUE + Q_FIRST + QUEUE * Q_SIZE

# Places of the port: scalars, then rings of bursts; behind it the channels.
(R_COUNT, R_HEAD, R_NEXT, R_BLOCK, R_TAIL, R_BEAT, R_REQUEST, R_DUE, W_COUNT, W_HEAD, W_TAIL,
 W_BEAT, B_HEAD, CLOCK, NEXT) = range(PORT, PORT + 15)
BURSTS = 1024
R_ADDRESS = PORT + 15
R_BEATS = R_ADDRESS + BURSTS
R_ACCEPTED = R_BEATS + BURSTS
R_FIRST = R_ACCEPTED + BURSTS
W_ADDRESS = R_FIRST + BURSTS
W_BEATS = W_ADDRESS + BURSTS
B_TIME = W_BEATS + BURSTS
CHANNELS = B_TIME + BURSTS

(C_ACT, C_PRE, C_PRE_ALL, C_RD, C_WR, C_RDA, C_WRA, C_REF_ALL, C_REF_BANK) = range(len(COMMANDS))


def banked_constants(memory: BankedMemory) -> npt.NDArray[np.int64]:
    """What kernels and harness need of a memory.

    Parameters
    ----------
    memory : BankedMemory
        The memory; the accelerator's clock is kept to the kilohertz.

    Returns
    -------
    ndarray
        Of shape [CONSTANTS]; int64.
    """
    dram = memory.dram
    org, controller = dram.organization, dram.controller
    cycle_ns = Fraction(10**6, round(memory.clock_hz / 1000))
    ratio = cycle_ns / dram.timing.clock_ns
    values = [getattr(dram.timing, name) for name in TIMINGS]
    values += [
        org.channels, org.ranks, org.banks_per_rank.bit_length() - 1, org.banks.bit_length() - 1,
        org.access_bytes.bit_length() - 1,
        controller.queue_depth, controller.window, controller.write_high, controller.write_low,
        controller.page_policy is PagePolicy.CLOSED,
        (Refresh.NONE, Refresh.ALL_BANK, Refresh.PER_BANK).index(controller.refresh),
        -(-controller.frontend_ns // cycle_ns), -(-controller.backend_ns // cycle_ns),
        controller.outstanding, ratio.numerator, ratio.denominator, dram.mapping.bank_hash,
        len(dram.mapping.fields),
    ]
    for name, bits in dram.mapping.fields:
        values += [FIELDS.index(name), bits]
    constants = np.zeros(CONSTANTS, np.int64)
    constants[:len(values)] = values
    return constants


def new_banked(
    memory: BankedMemory, *, commands: int = 0, requests: int = 0
) -> npt.NDArray[np.int64]:
    """State of a memory at the start of a frame.

    Parameters
    ----------
    memory : BankedMemory
        The memory.
    commands, requests : int
        How many to log at most.

    Returns
    -------
    ndarray
        What the kernels of this module share; int64. See :func:`count`, :func:`logged_commands`
        and :func:`logged_requests`.
    """
    dram = memory.dram
    constants = banked_constants(memory)
    # 256 beats of a burst are at most 257 accesses.
    done = 1 << (257 * dram.controller.outstanding - 1).bit_length()
    done_at = CHANNELS + dram.organization.channels * CHANNEL
    log_at = done_at + done
    trace_at = log_at + 5 * commands
    m = np.zeros(trace_at + 3 * requests, np.int64)
    m[:CONSTANTS] = constants
    m[DONE_AT:TRACE_COUNT + 1] = (
        done_at, done - 1, log_at, commands, 0, trace_at, requests, 0)
    m[CLOCK] = 1
    m[R_DUE] = NEVER
    channels = _channels(dram, m)
    for rank in range(RANKS):
        place = RANK + rank * RANK_SIZE
        channels[:, place + FAW_0:place + FAW_3 + 1] = PAST
        channels[:, place + DUE] = (
            constants[REFI] // min(REFRESH_STEPS, dram.organization.banks_per_rank)
            if dram.controller.refresh is Refresh.PER_BANK else constants[REFI])
    channels[:, BANK + ROW:BANK + BANKS * BANK_SIZE:BANK_SIZE] = -1
    for queue in (READ_QUEUE, WRITE_QUEUE):
        channels[:, queue + Q_FREE] = Q_FIRST
        entries = Q_FIRST + np.arange(QUEUE) * Q_SIZE
        channels[:, queue + entries + Q_NEXT] = entries + Q_SIZE
    return m


def _channels(dram: Dram, m: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The channels of a memory, of shape [channels, CHANNEL]."""
    return m[CHANNELS:CHANNELS + dram.organization.channels * CHANNEL].reshape(-1, CHANNEL)


# Where an access goes ------------------------------------------------------------------------


@nb.njit(cache=True)
def locate(m, address):
    """Channel, bank of the channel, and row of an address."""
    block = address >> m[ACCESS_BITS]
    channel = rank = group = bank = row = np.int64(0)
    at_channel = at_rank = at_group = at_bank = at_row = np.int64(0)
    for k in range(m[N_FIELDS]):
        kind, bits = m[FIELD + 2 * k], m[FIELD + 2 * k + 1]
        value = block & ((np.int64(1) << bits) - 1)
        block >>= bits
        if kind == 0:
            channel |= value << at_channel
            at_channel += bits
        elif kind == 1:
            rank |= value << at_rank
            at_rank += bits
        elif kind == 2:
            group |= value << at_group
            at_group += bits
        elif kind == 3:
            bank |= value << at_bank
            at_bank += bits
        elif kind == 4:
            row |= value << at_row
            at_row += bits
    if m[HASH]:
        group ^= row & ((np.int64(1) << at_group) - 1)
        bank ^= (row >> at_group) & ((np.int64(1) << at_bank) - 1)
    return channel, (((rank << at_group) | group) << at_bank) | bank, row


@nb.njit
def turn(m, c):
    """Turn a channel to writing or back, as its queues say; whether it turned."""
    if m[c + DRAINING]:
        if m[c + WRITES] == 0 or (m[c + WRITES] <= m[LOW] and m[c + READS] > 0):
            m[c + DRAINING] = 0
            return True
    elif m[c + WRITES] >= m[HIGH] or (m[c + READS] == 0 and m[c + WRITES] > 0):
        m[c + DRAINING] = 1
        return True
    return False


@nb.njit
def enqueue(m, address, write, identity):
    """Put a request into the queue of its channel, if there is room.

    Returns the channel's next clock with something to do, or -1 if there was no room.
    """
    channel, bank, row = locate(m, address)
    c = CHANNELS + channel * CHANNEL
    queue, count = (WRITE_QUEUE, WRITES) if write else (READ_QUEUE, READS)
    waiting = m[c + count]
    if waiting >= m[DEPTH]:
        return np.int64(-1)
    at = BANK + bank * BANK_SIZE
    group_at = GROUP + (bank >> m[BANK_BITS]) * GROUP_SIZE
    rank_at = RANK + (bank >> m[RANK_BITS]) * RANK_SIZE
    place = m[c + queue + Q_FREE]
    entry = queue + place
    m[c + queue + Q_FREE] = m[c + entry + Q_NEXT]
    m[c + entry + Q_BANK] = bank
    m[c + entry + Q_ROW] = row
    m[c + entry + Q_KIND] = 0
    m[c + entry + Q_ID] = identity
    m[c + entry + Q_AT] = at
    m[c + entry + Q_GROUP] = group_at
    m[c + entry + Q_RANK] = rank_at
    if waiting:
        m[c + queue + m[c + queue + Q_TAIL] + Q_NEXT] = place
    else:
        m[c + queue + Q_HEAD] = place
    m[c + queue + Q_TAIL] = place
    m[c + count] = waiting + 1
    if turn(m, c):
        m[c + WAKE] = 0
    elif (m[c + DRAINING] == 1) == write and waiting < m[WINDOW]:
        # Nothing else has changed: the channel need not look before this one may do something.
        if m[c + at + ROW] == row:
            may = max(m[c + at + COLUMN_OK],
                      max(m[c + group_at + (GROUP_WR if write else GROUP_RD)],
                          m[c + rank_at + (RANK_WR if write else RANK_RD)]))
        elif m[c + at + ROW] < 0:
            may = max(m[c + at + ACT_OK],
                      max(m[c + group_at + GROUP_ACT], m[c + rank_at + RANK_ACT]))
        else:
            may = max(m[c + at + PRE_OK], m[c + rank_at + RANK_PRE])
        m[c + WAKE] = min(m[c + WAKE], may)
    return m[c + WAKE]


# One channel ---------------------------------------------------------------------------------


@nb.njit
def note(m, c, now, command, bank, row):
    """Append a command to the log while it has room."""
    count = m[LOG_COUNT]
    m[LOG_COUNT] = count + 1
    if count < m[LOG_ROOM]:
        at = m[LOG_AT] + 5 * count
        m[at] = now
        m[at + 1] = (c - CHANNELS) // CHANNEL
        m[at + 2] = command
        m[at + 3] = bank
        m[at + 4] = row


@nb.njit
def close(m, c, rank_at, now):
    """A bank of the rank is precharged."""
    m[c + PRECHARGES] += 1
    m[c + rank_at + OPEN] -= 1
    if m[c + rank_at + OPEN] == 0:
        m[c + rank_at + OPEN_CLOCKS] += now - m[c + rank_at + SINCE]


@nb.njit
def precharge(m, c, bank, now):
    """PRE of one bank."""
    at = BANK + bank * BANK_SIZE
    rank_at = RANK + (bank >> m[RANK_BITS]) * RANK_SIZE
    m[c + at + ROW] = -1
    m[c + at + ACT_OK] = max(m[c + at + ACT_OK], now + m[RP])
    m[c + rank_at + RANK_PRE] = now + m[PPD]
    m[c + BUS_OK] = now + m[PRE_CLOCKS]
    close(m, c, rank_at, now)
    note(m, c, now, C_PRE, bank, -1)


@nb.njit
def activate(m, c, bank, row, now):
    """ACT of a row."""
    at = BANK + bank * BANK_SIZE
    group_at = GROUP + (bank >> m[BANK_BITS]) * GROUP_SIZE
    rank_at = RANK + (bank >> m[RANK_BITS]) * RANK_SIZE
    m[c + at + ROW] = row
    m[c + at + COLUMN_OK] = now + m[RCD]
    m[c + at + PRE_OK] = now + m[RAS]
    m[c + at + ACT_OK] = now + m[RC]
    m[c + group_at + GROUP_ACT] = now + m[RRD_L]
    m[c + rank_at + RANK_ACT] = max(m[c + rank_at + RANK_ACT], now + m[RRD_S])
    m[c + rank_at + FAW_0 + m[c + rank_at + FAW_PLACE]] = now
    m[c + rank_at + FAW_PLACE] = (m[c + rank_at + FAW_PLACE] + 1) & 3
    if m[c + rank_at + OPEN] == 0:
        m[c + rank_at + SINCE] = now
    m[c + rank_at + OPEN] += 1
    m[c + ACTIVATES] += 1
    m[c + BUS_OK] = now + m[ACT_CLOCKS]
    note(m, c, now, C_ACT, bank, row)


@nb.njit
def column(m, c, bank, write, auto, now):
    """RD or WR of an open row, with or without auto-precharge."""
    at = BANK + bank * BANK_SIZE
    group_at = GROUP + (bank >> m[BANK_BITS]) * GROUP_SIZE
    rank = bank >> m[RANK_BITS]
    rank_at = RANK + rank * RANK_SIZE
    if write:
        end = now + m[CWL] + m[BL]
        m[c + at + PRE_OK] = max(m[c + at + PRE_OK], end + m[WR])
        m[c + group_at + GROUP_WR] = now + m[CCD_L]
        m[c + group_at + GROUP_RD] = max(m[c + group_at + GROUP_RD], end + m[WTR_L])
        m[c + rank_at + RANK_WR] = max(m[c + rank_at + RANK_WR], now + m[CCD_S])
        m[c + rank_at + RANK_RD] = max(m[c + rank_at + RANK_RD], end + m[WTR_S])
        m[c + WRITE_BURSTS] += 1
    else:
        m[c + at + PRE_OK] = max(m[c + at + PRE_OK], now + m[RTP])
        m[c + group_at + GROUP_RD] = max(m[c + group_at + GROUP_RD], now + m[CCD_L])
        m[c + rank_at + RANK_RD] = max(m[c + rank_at + RANK_RD], now + m[CCD_S])
        m[c + rank_at + RANK_WR] = max(
            m[c + rank_at + RANK_WR], now + m[CL] + m[BL] - m[CWL] + m[RTW])
        m[c + READ_BURSTS] += 1
    for other in range(m[N_RANKS]):
        if other != rank:
            # The data of two ranks, a gap between them.
            other_at = RANK + other * RANK_SIZE
            first = m[CWL] if write else m[CL]
            m[c + other_at + RANK_RD] = max(
                m[c + other_at + RANK_RD], now + first + m[BL] + m[CS] - m[CL])
            m[c + other_at + RANK_WR] = max(
                m[c + other_at + RANK_WR], now + first + m[BL] + m[CS] - m[CWL])
    m[c + BUS_OK] = now + m[COLUMN_CLOCKS]
    note(m, c, now, (C_WRA if auto else C_WR) if write else (C_RDA if auto else C_RD),
         bank, m[c + at + ROW])
    if auto:
        m[c + at + ROW] = -1
        m[c + at + ACT_OK] = max(m[c + at + ACT_OK], m[c + at + PRE_OK] + m[RP])
        close(m, c, rank_at, m[c + at + PRE_OK])


@nb.njit
def refresh_rank(m, c, rank, now):
    """Next step of an all-bank refresh that is due: (whether a command went, when one may)."""
    banks = np.int64(1) << m[RANK_BITS]
    rank_at = RANK + rank * RANK_SIZE
    if m[c + rank_at + OPEN] > 0:
        may = m[c + rank_at + RANK_PRE]
        for bank in range(rank * banks, (rank + 1) * banks):
            # Banks that precharge themselves are waited for.
            may = max(may, m[c + BANK + bank * BANK_SIZE + PRE_OK])
        if may > now:
            return False, may
        for bank in range(rank * banks, (rank + 1) * banks):
            at = BANK + bank * BANK_SIZE
            if m[c + at + ROW] >= 0:
                m[c + at + ROW] = -1
                close(m, c, rank_at, now)
            m[c + at + ACT_OK] = max(m[c + at + ACT_OK], now + m[RP_ALL])
        m[c + rank_at + RANK_PRE] = now + m[PPD]
        m[c + BUS_OK] = now + m[PRE_CLOCKS]
        note(m, c, now, C_PRE_ALL, rank * banks, -1)
        return True, now
    may = np.int64(0)
    for bank in range(rank * banks, (rank + 1) * banks):
        may = max(may, m[c + BANK + bank * BANK_SIZE + ACT_OK])
    if may > now:
        return False, may
    for bank in range(rank * banks, (rank + 1) * banks):
        m[c + BANK + bank * BANK_SIZE + ACT_OK] = now + m[RFC_ALL]
    m[c + rank_at + DUE] += m[REFI]
    m[c + REFRESHES] += 1
    m[c + BUS_OK] = now + m[REF_CLOCKS]
    note(m, c, now, C_REF_ALL, rank * banks, -1)
    return True, now


@nb.njit
def refresh_bank(m, c, rank, now):
    """Next step of a per-bank refresh that is due: (whether a command went, when one may)."""
    banks = np.int64(1) << m[RANK_BITS]
    steps = min(REFRESH_STEPS, banks)
    rank_at = RANK + rank * RANK_SIZE
    first = rank * banks + m[c + rank_at + STEP]
    may = max(m[c + rank_at + RANK_ACT], m[c + rank_at + REFRESH_OK])
    for bank in range(first, (rank + 1) * banks, steps):
        at = BANK + bank * BANK_SIZE
        if m[c + at + ROW] >= 0:
            may = max(m[c + at + PRE_OK], m[c + rank_at + RANK_PRE])
            if may > now:
                return False, may
            precharge(m, c, bank, now)
            return True, now
        may = max(may, m[c + at + ACT_OK])
    if may > now:
        return False, may
    for bank in range(first, (rank + 1) * banks, steps):
        m[c + BANK + bank * BANK_SIZE + ACT_OK] = now + m[RFC_BANK]
    m[c + rank_at + RANK_ACT] = max(m[c + rank_at + RANK_ACT], now + m[RRD_S])
    m[c + rank_at + REFRESH_OK] = now + m[PBR2PBR]
    m[c + rank_at + DUE] += m[REFI] // steps
    m[c + rank_at + STEP] = (m[c + rank_at + STEP] + 1) % steps
    m[c + BANK_REFRESHES] += 1
    m[c + BUS_OK] = now + m[REF_CLOCKS]
    note(m, c, now, C_REF_BANK, first, -1)
    return True, now


@nb.njit
def retire(m, c, queue, count, place, before):
    """Take an entry out of a queue; `before` is the one in front of it, -1 if there is none."""
    entry = queue + place
    if before < 0:
        m[c + queue + Q_HEAD] = m[c + entry + Q_NEXT]
    else:
        m[c + queue + before + Q_NEXT] = m[c + entry + Q_NEXT]
    if m[c + queue + Q_TAIL] == place:
        m[c + queue + Q_TAIL] = before
    m[c + entry + Q_NEXT] = m[c + queue + Q_FREE]
    m[c + queue + Q_FREE] = place
    m[c + count] -= 1
    turn(m, c)


@nb.njit
def tick(m, c, now):
    """Clock `now` of the channel at `c`: at most one command."""
    if m[c + BUS_OK] > now:
        m[c + WAKE] = m[c + BUS_OK]
        return
    banks = np.int64(1) << m[RANK_BITS]
    wake = NEVER
    blocked = np.int64(0)
    if m[REFRESH]:
        for rank in range(m[N_RANKS]):
            rank_at = RANK + rank * RANK_SIZE
            if m[c + rank_at + DUE] > now:
                wake = min(wake, m[c + rank_at + DUE])
                continue
            if m[REFRESH] == 1:
                blocked |= ((np.int64(1) << banks) - 1) << (rank * banks)
                went, may = refresh_rank(m, c, rank, now)
            else:
                for bank in range(
                        rank * banks + m[c + rank_at + STEP], (rank + 1) * banks,
                        min(REFRESH_STEPS, banks)):
                    blocked |= np.int64(1) << bank
                went, may = refresh_bank(m, c, rank, now)
            if went:
                m[c + WAKE] = m[c + BUS_OK]
                return
            wake = min(wake, may)
    write = m[c + DRAINING] == 1
    queue, count = (WRITE_QUEUE, WRITES) if write else (READ_QUEUE, READS)
    rank_gate, group_gate = (RANK_WR, GROUP_WR) if write else (RANK_RD, GROUP_RD)
    window = min(m[c + count], m[WINDOW])
    wanted = np.int64(0)
    before, place = np.int64(-1), np.int64(-1)
    follows = m[c + queue + Q_HEAD]
    for _ in range(window):
        before, place = place, follows
        entry = queue + place
        follows = m[c + entry + Q_NEXT]
        at = m[c + entry + Q_AT]
        if m[c + at + ROW] != m[c + entry + Q_ROW]:
            continue
        bank = m[c + entry + Q_BANK]
        if (blocked >> bank) & 1:
            continue
        group_at, rank_at = m[c + entry + Q_GROUP], m[c + entry + Q_RANK]
        may = max(m[c + at + COLUMN_OK],
                  max(m[c + group_at + group_gate], m[c + rank_at + rank_gate]))
        if may <= now:
            auto = m[CLOSED] == 1
            if auto:
                other = m[c + queue + Q_HEAD]
                for _ in range(m[c + count]):
                    each = queue + other
                    if (other != place and m[c + each + Q_BANK] == bank
                            and m[c + each + Q_ROW] == m[c + entry + Q_ROW]):
                        auto = False
                    other = m[c + each + Q_NEXT]
            m[c + HITS + m[c + entry + Q_KIND]] += 1
            if not write:
                ended = m[DONE_AT] + (m[c + entry + Q_ID] & m[DONE_MASK])
                m[ended] = now + m[CL] + m[DQSCK] + m[BL]
            column(m, c, bank, write, auto, now)
            retire(m, c, queue, count, place, before)
            m[c + WAKE] = m[c + BUS_OK]
            return
        wanted |= np.int64(1) << bank
        wake = min(wake, may)
    seen = blocked
    follows = m[c + queue + Q_HEAD]
    for _ in range(window):
        entry = queue + follows
        follows = m[c + entry + Q_NEXT]
        bank = m[c + entry + Q_BANK]
        if (seen >> bank) & 1:
            continue
        at, rank_at = m[c + entry + Q_AT], m[c + entry + Q_RANK]
        if m[c + at + ROW] < 0:
            seen |= np.int64(1) << bank
            may = max(max(m[c + at + ACT_OK], m[c + m[c + entry + Q_GROUP] + GROUP_ACT]),
                      max(m[c + rank_at + RANK_ACT],
                          m[c + rank_at + FAW_0 + m[c + rank_at + FAW_PLACE]] + m[FAW]))
            if may <= now:
                m[c + entry + Q_KIND] = max(m[c + entry + Q_KIND], 1)
                activate(m, c, bank, m[c + entry + Q_ROW], now)
                m[c + WAKE] = m[c + BUS_OK]
                return
            wake = min(wake, may)
        elif not (wanted >> bank) & 1:
            seen |= np.int64(1) << bank
            may = max(m[c + at + PRE_OK], m[c + rank_at + RANK_PRE])
            if may <= now:
                m[c + entry + Q_KIND] = 2
                precharge(m, c, bank, now)
                m[c + WAKE] = m[c + BUS_OK]
                return
            wake = min(wake, may)
    m[c + WAKE] = wake


@nb.njit
def clock(m, now):
    """Clock `now` of all channels."""
    for c in range(CHANNELS, CHANNELS + m[N_CHANNELS] * CHANNEL, CHANNEL):
        if m[c + WAKE] <= now:
            tick(m, c, now)


# The port ------------------------------------------------------------------------------------


@nb.njit
def read(m, cycle, address, beats):
    """Take a read address."""
    burst = m[R_TAIL] & (BURSTS - 1)
    shift = m[ACCESS_BITS]
    blocks = ((address + BEAT_BYTES * beats - 1) >> shift) - (address >> shift) + 1
    m[R_ADDRESS + burst] = address
    m[R_BEATS + burst] = beats
    m[R_ACCEPTED + burst] = cycle
    m[R_FIRST + burst] = m[R_REQUEST]
    for k in range(blocks):
        m[m[DONE_AT] + ((m[R_REQUEST] + k) & m[DONE_MASK])] = NEVER
    m[R_REQUEST] += blocks
    m[R_TAIL] += 1
    m[R_COUNT] += 1


@nb.njit
def beat_due(m):
    """Cycle from which the next beat of read data is there; NEVER if that is not known yet."""
    if m[R_COUNT] == 0:
        return NEVER
    burst = m[R_HEAD] & (BURSTS - 1)
    address, shift = m[R_ADDRESS + burst], m[ACCESS_BITS]
    block = ((address + BEAT_BYTES * m[R_BEAT]) >> shift) - (address >> shift)
    ended = m[m[DONE_AT] + ((m[R_FIRST + burst] + block) & m[DONE_MASK])]
    return NEVER if ended == NEVER else -(-ended * m[DEN] // m[NUM]) + m[BACKEND]


@nb.njit
def take_beat(m):
    """Take a beat of read data; whether it is the last of its burst."""
    m[R_BEAT] += 1
    last = m[R_BEAT] == m[R_BEATS + (m[R_HEAD] & (BURSTS - 1))]
    if last:
        m[R_BEAT] = 0
        m[R_HEAD] += 1
        m[R_COUNT] -= 1
    m[R_DUE] = beat_due(m)
    return last


@nb.njit
def write(m, address, beats):
    """Take a write address."""
    burst = m[W_TAIL] & (BURSTS - 1)
    m[W_ADDRESS + burst] = address
    m[W_BEATS + burst] = beats
    m[W_TAIL] += 1
    m[W_COUNT] += 1


@nb.njit
def may_write_beat(m):
    """Whether the next beat of write data is taken."""
    if m[W_HEAD] == m[W_TAIL]:
        return False
    address = m[W_ADDRESS + (m[W_HEAD] & (BURSTS - 1))] + BEAT_BYTES * m[W_BEAT]
    return m[CHANNELS + locate(m, address)[0] * CHANNEL + WRITES] < m[DEPTH]


@nb.njit
def write_beat(m, cycle):
    """Take a beat of write data."""
    burst = m[W_HEAD] & (BURSTS - 1)
    address = m[W_ADDRESS + burst] + BEAT_BYTES * m[W_BEAT]
    m[W_BEAT] += 1
    last = m[W_BEAT] == m[W_BEATS + burst]
    if last or (address + BEAT_BYTES) >> m[ACCESS_BITS] != address >> m[ACCESS_BITS]:
        m[NEXT] = min(m[NEXT], enqueue(m, address, True, 0))
        trace_request(m, cycle * m[NUM] // m[DEN] + 1,
                      address >> m[ACCESS_BITS] << m[ACCESS_BITS], 1)
    if last:
        m[W_BEAT] = 0
        m[W_HEAD] += 1
        m[B_TIME + burst] = cycle + max(1, m[FRONTEND])


@nb.njit
def trace_request(m, now, address, write):
    """Append a request to the trace while it has room."""
    count = m[TRACE_COUNT]
    m[TRACE_COUNT] = count + 1
    if count < m[TRACE_ROOM]:
        at = m[TRACE_AT] + 3 * count
        m[at] = now
        m[at + 1] = address
        m[at + 2] = write


@nb.njit
def advance(m, cycle):
    """Behind edge `cycle`: hand on a read request, then clock the channels up to the next edge.

    Nothing happens, and the call may be left out, unless a request waits (R_NEXT is not R_TAIL) or
    the clock of NEXT comes before the next edge.
    """
    # Clocks that were left out have nothing to do.
    m[CLOCK] = max(m[CLOCK], cycle * m[NUM] // m[DEN] + 1)
    if m[R_NEXT] < m[R_TAIL]:
        burst = m[R_NEXT] & (BURSTS - 1)
        if cycle >= m[R_ACCEPTED + burst] + m[FRONTEND]:
            shift = m[ACCESS_BITS]
            address = ((m[R_ADDRESS + burst] >> shift) + m[R_BLOCK]) << shift
            wake = enqueue(m, address, False, m[R_FIRST + burst] + m[R_BLOCK])
            if wake >= 0:
                m[NEXT] = min(m[NEXT], wake)
                trace_request(m, m[CLOCK], address, 0)
                m[R_BLOCK] += 1
                end = m[R_ADDRESS + burst] + BEAT_BYTES * m[R_BEATS + burst]
                if address + (np.int64(1) << shift) >= end:
                    m[R_BLOCK] = 0
                    m[R_NEXT] += 1
    until = (cycle + 1) * m[NUM] // m[DEN]
    if m[NEXT] <= until:
        next_clock = NEVER
        while m[CLOCK] <= until:
            clock(m, m[CLOCK])
            m[CLOCK] += 1
        for c in range(CHANNELS, CHANNELS + m[N_CHANNELS] * CHANNEL, CHANNEL):
            next_clock = min(next_clock, m[c + WAKE])
        m[NEXT] = next_clock
        if m[R_DUE] == NEVER:
            m[R_DUE] = beat_due(m)
    m[CLOCK] = until + 1


@nb.njit
def idle(m):
    """Whether nothing is on the bus or waits in a queue."""
    if m[R_COUNT] or m[W_COUNT]:
        return False
    for c in range(CHANNELS, CHANNELS + m[N_CHANNELS] * CHANNEL, CHANNEL):
        if m[c + READS] or m[c + WRITES]:
            return False
    return True


# What happened -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DramCounts:
    """Commands of a run over all channels, and how long rows were open.

    Parameters
    ----------
    clocks : int
        Clocks of the run.
    activates, precharges, reads, writes, refreshes, bank_refreshes : int
        ACT, banks precharged, RD, WR, REFab and REFpb.
    row_hits, row_misses, row_conflicts : int
        Accesses that found their row open, the bank closed, another row open.
    open_clocks, closed_clocks : int
        Clocks with a row open and with none, summed over the ranks of all channels.
    access_bytes : int
        Bytes of one access.
    """

    clocks: int
    activates: int
    precharges: int
    reads: int
    writes: int
    refreshes: int
    bank_refreshes: int
    row_hits: int
    row_misses: int
    row_conflicts: int
    open_clocks: int
    closed_clocks: int
    access_bytes: int

    @property
    def row_hit_rate(self) -> float:
        """Share of the accesses that found their row open; 0 without any."""
        accesses = self.row_hits + self.row_misses + self.row_conflicts
        return self.row_hits / accesses if accesses else 0.0

    @property
    def bytes_moved(self) -> int:
        """Bytes over the data buses, whole accesses."""
        return (self.reads + self.writes) * self.access_bytes

    def bytes_per_s(self, dram: Dram) -> float:
        """Achieved bandwidth."""
        time_s = self.clocks * float(dram.timing.clock_ns) * 1e-9
        return self.bytes_moved / time_s if time_s else 0.0

    def __add__(self, other: "DramCounts") -> "DramCounts":
        return replace(self, **{
            name: getattr(self, name) + getattr(other, name)
            for name in self.__dataclass_fields__ if name != "access_bytes"})


def count(dram: Dram, m: npt.NDArray[np.int64], clocks: int | None = None) -> DramCounts:
    """Counts of a memory's state behind `clocks` clocks, by default those of its port."""
    channels = _channels(dram, m)
    if clocks is None:
        clocks = int(m[CLOCK]) - 1
    totals = [int(channels[:, place].sum()) for place in COUNTS]
    opened = 0
    for rank in range(dram.organization.ranks):
        place = RANK + rank * RANK_SIZE
        opened += int(channels[:, place + OPEN_CLOCKS].sum())
        still = channels[channels[:, place + OPEN] > 0]
        opened += int(np.maximum(clocks - still[:, place + SINCE], 0).sum())
    ranks = dram.organization.channels * dram.organization.ranks
    opened = min(opened, ranks * clocks)
    return DramCounts(
        clocks=clocks, activates=totals[0], precharges=totals[1], reads=totals[2],
        writes=totals[3], refreshes=totals[4], bank_refreshes=totals[5], row_hits=totals[6],
        row_misses=totals[7], row_conflicts=totals[8], open_clocks=opened,
        closed_clocks=ranks * clocks - opened, access_bytes=dram.organization.access_bytes)


@nb.njit(cache=True)
def _replay(m, addresses, writes, per_clock, gap):
    """Feed requests in order, at most `per_clock` a clock; the clock behind the last data."""
    total = len(addresses)
    fed = np.int64(0)
    now = np.int64(0)
    end = np.int64(0)
    left = total
    due = np.int64(1)
    while left > 0:
        now += 1
        for _ in range(per_clock):
            if fed < total and now >= due and enqueue(
                    m, addresses[fed], writes[fed], fed) >= 0:
                fed += 1
                due = now + gap
        clock(m, now)
        left = total
        for c in range(CHANNELS, CHANNELS + m[N_CHANNELS] * CHANNEL, CHANNEL):
            left -= m[c + READ_BURSTS] + m[c + WRITE_BURSTS]
        end = now + max(m[CL] + m[DQSCK], m[CWL]) + m[BL]
    return end


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """A stream of requests through a memory.

    Parameters
    ----------
    counts : DramCounts
        What it took.
    log : ndarray
        Commands of shape [n, 5]: clock, channel, command, bank of the channel, row or -1; none
        unless they were asked for.
    """

    counts: DramCounts
    log: npt.NDArray[np.int64]


def replay(
    dram: Dram,
    addresses: npt.NDArray[np.int64],
    writes: npt.NDArray[np.bool_] | None = None,
    *,
    per_clock: int = 1,
    gap_clocks: int = 0,
    commands: int = 0,
) -> Replay:
    """Run a stream of accesses through the channels as fast as their queues take it.

    Parameters
    ----------
    dram : Dram
        The memory.
    addresses : ndarray
        Byte addresses of shape [requests], each one access; int64.
    writes : ndarray, optional
        Which of them write, of shape [requests]; none by default.
    per_clock : int
        Requests that are handed over in a clock at most.
    gap_clocks : int
        Clocks from one request to the next at least.
    commands : int
        How many commands to log at most.

    Returns
    -------
    Replay
        Counts, and the log.

    Raises
    ------
    ValueError
        If the arrays do not fit each other, or the log is too short.
    """
    addresses = np.ascontiguousarray(addresses, np.int64)
    if writes is None:
        writes = np.zeros(len(addresses), np.bool_)
    if writes.shape != addresses.shape:
        raise ValueError(f"Writes must be of shape {addresses.shape}, not {writes.shape}")
    # The accelerator's clock plays no part.
    memory = BankedMemory(dram=dram, clock_hz=1e9)
    m = new_banked(memory, commands=commands)
    end = _replay(m, addresses, writes, per_clock, gap_clocks)
    return Replay(counts=count(dram, m, int(end)), log=logged_commands(m))


def logged_commands(m: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Commands of shape [n, 5], see :class:`Replay`; none unless room was asked for.

    Raises
    ------
    ValueError
        If more were issued than there was room for.
    """
    return _logged(m, "commands", m[LOG_AT], m[LOG_ROOM], m[LOG_COUNT], 5)


def logged_requests(m: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Requests of shape [n, 3]: clock of entering the queue, byte address, 1 for a write.

    Raises
    ------
    ValueError
        If there were more than there was room for.
    """
    return _logged(m, "requests", m[TRACE_AT], m[TRACE_ROOM], m[TRACE_COUNT], 3)


def _logged(
    m: npt.NDArray[np.int64], what: str, at: int, room: int, length: int, columns: int
) -> npt.NDArray[np.int64]:
    if 0 < room < length:
        raise ValueError(f"Log must have room for {length} {what}, not {room}")
    return m[at:at + columns * min(room, length)].reshape(-1, columns)
