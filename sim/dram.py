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
READ_QUEUE = BANK + BANKS * BANK_SIZE
Q_BANK, Q_ROW, Q_KIND, Q_ID, Q_AT, Q_GROUP, Q_RANK, Q_SIZE = range(8)
WRITE_QUEUE = READ_QUEUE + QUEUE * Q_SIZE
CHANNEL = WRITE_QUEUE + QUEUE * Q_SIZE

# Places in the state of the port: scalars, then rings of bursts.
(R_COUNT, R_HEAD, R_NEXT, R_BLOCK, R_TAIL, R_BEAT, R_REQUEST, W_COUNT, W_HEAD, W_TAIL, W_BEAT,
 B_HEAD, CLOCK) = range(13)
BURSTS = 1024
R_ADDRESS = 16
R_BEATS = R_ADDRESS + BURSTS
R_ACCEPTED = R_BEATS + BURSTS
R_FIRST = R_ACCEPTED + BURSTS
W_ADDRESS = R_FIRST + BURSTS
W_BEATS = W_ADDRESS + BURSTS
B_TIME = W_BEATS + BURSTS
PORT = B_TIME + BURSTS

(C_ACT, C_PRE, C_PRE_ALL, C_RD, C_WR, C_RDA, C_WRA, C_REF_ALL, C_REF_BANK) = range(len(COMMANDS))


def banked_constants(dram: Dram, clock_hz: float) -> npt.NDArray[np.int64]:
    """What kernels and harness need of a memory.

    Parameters
    ----------
    dram : Dram
        The memory.
    clock_hz : float
        The accelerator's clock, kept to the kilohertz.

    Returns
    -------
    ndarray
        Of shape [CONSTANTS]; int64.

    Raises
    ------
    ValueError
        If the clock is not 1 MHz to 10 GHz.
    """
    if not 1e6 <= clock_hz <= 1e10:
        raise ValueError(f"Clock must be 1 MHz to 10 GHz, not {clock_hz!r} Hz")
    org, controller = dram.organization, dram.controller
    cycle_ns = Fraction(10**6, round(clock_hz / 1000))
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


#: Constants, channels, port, clocks at which requests are done, log of commands, of requests.
Banked = tuple[npt.NDArray[np.int64], ...]


def new_banked(
    dram: Dram, clock_hz: float, *, commands: int = 0, requests: int = 0
) -> Banked:
    """State of a memory at the start of a frame.

    Parameters
    ----------
    dram : Dram
        The memory.
    clock_hz : float
        The accelerator's clock.
    commands, requests : int
        How many to log at most.

    Returns
    -------
    tuple of ndarray
        What the kernels of this module share. The logs have their length at [0, 0].
    """
    constants = banked_constants(dram, clock_hz)
    channels = np.zeros((dram.organization.channels, CHANNEL), np.int64)
    for rank in range(RANKS):
        place = RANK + rank * RANK_SIZE
        channels[:, place + FAW_0:place + FAW_3 + 1] = PAST
        steps = _refresh_steps(dram)
        channels[:, place + DUE] = (
            constants[REFI] // steps if dram.controller.refresh is Refresh.PER_BANK
            else constants[REFI])
    channels[:, BANK + ROW:BANK + BANKS * BANK_SIZE:BANK_SIZE] = -1
    port = np.zeros(PORT, np.int64)
    port[CLOCK] = 1
    # 256 beats of a burst are at most 257 accesses.
    done = np.zeros(1 << (257 * dram.controller.outstanding - 1).bit_length(), np.int64)
    return (constants, channels, port, done, np.zeros((commands + 1, 5), np.int64),
            np.zeros((requests + 1, 3), np.int64))


def _refresh_steps(dram: Dram) -> int:
    """Steps in which per-bank refresh goes over a rank: eight, or one a bank."""
    return min(REFRESH_STEPS, dram.organization.banks_per_rank)


# Where an access goes ------------------------------------------------------------------------


@nb.njit(cache=True)
def locate(p, address):
    """Channel, bank of the channel, and row of an address."""
    block = address >> p[ACCESS_BITS]
    channel = rank = group = bank = row = np.int64(0)
    at_channel = at_rank = at_group = at_bank = at_row = np.int64(0)
    for k in range(p[N_FIELDS]):
        kind, bits = p[FIELD + 2 * k], p[FIELD + 2 * k + 1]
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
    if p[HASH]:
        group ^= row & ((np.int64(1) << at_group) - 1)
        bank ^= (row >> at_group) & ((np.int64(1) << at_bank) - 1)
    return channel, (((rank << at_group) | group) << at_bank) | bank, row


@nb.njit
def enqueue(p, channels, address, write, identity):
    """Put a request into the queue of its channel, if there is room; whether there was."""
    channel, bank, row = locate(p, address)
    count = WRITES if write else READS
    place = channels[channel, count]
    if place >= p[DEPTH]:
        return False
    at = (WRITE_QUEUE if write else READ_QUEUE) + place * Q_SIZE
    channels[channel, at + Q_BANK] = bank
    channels[channel, at + Q_ROW] = row
    channels[channel, at + Q_KIND] = 0
    channels[channel, at + Q_ID] = identity
    channels[channel, at + Q_AT] = BANK + bank * BANK_SIZE
    channels[channel, at + Q_GROUP] = GROUP + (bank >> p[BANK_BITS]) * GROUP_SIZE
    channels[channel, at + Q_RANK] = RANK + (bank >> p[RANK_BITS]) * RANK_SIZE
    channels[channel, count] = place + 1
    channels[channel, WAKE] = 0
    return True


# One channel ---------------------------------------------------------------------------------


@nb.njit
def note(log, now, channel, command, bank, row):
    """Append a command to the log while it has room."""
    count = log[0, 0] + 1
    log[0, 0] = count
    if count < len(log):
        log[count, 0] = now
        log[count, 1] = channel
        log[count, 2] = command
        log[count, 3] = bank
        log[count, 4] = row


@nb.njit
def close(s, rank_at, now):
    """A bank of the rank is precharged."""
    s[PRECHARGES] += 1
    s[rank_at + OPEN] -= 1
    if s[rank_at + OPEN] == 0:
        s[rank_at + OPEN_CLOCKS] += now - s[rank_at + SINCE]


@nb.njit
def precharge(p, s, channel, bank, now, log):
    """PRE of one bank."""
    at = BANK + bank * BANK_SIZE
    rank_at = RANK + (bank >> p[RANK_BITS]) * RANK_SIZE
    s[at + ROW] = -1
    s[at + ACT_OK] = max(s[at + ACT_OK], now + p[RP])
    s[rank_at + RANK_PRE] = now + p[PPD]
    s[BUS_OK] = now + p[PRE_CLOCKS]
    close(s, rank_at, now)
    note(log, now, channel, C_PRE, bank, -1)


@nb.njit
def activate(p, s, channel, bank, row, now, log):
    """ACT of a row."""
    at = BANK + bank * BANK_SIZE
    group_at = GROUP + (bank >> p[BANK_BITS]) * GROUP_SIZE
    rank_at = RANK + (bank >> p[RANK_BITS]) * RANK_SIZE
    s[at + ROW] = row
    s[at + COLUMN_OK] = now + p[RCD]
    s[at + PRE_OK] = now + p[RAS]
    s[at + ACT_OK] = now + p[RC]
    s[group_at + GROUP_ACT] = now + p[RRD_L]
    s[rank_at + RANK_ACT] = max(s[rank_at + RANK_ACT], now + p[RRD_S])
    s[rank_at + FAW_0 + s[rank_at + FAW_PLACE]] = now
    s[rank_at + FAW_PLACE] = (s[rank_at + FAW_PLACE] + 1) & 3
    if s[rank_at + OPEN] == 0:
        s[rank_at + SINCE] = now
    s[rank_at + OPEN] += 1
    s[ACTIVATES] += 1
    s[BUS_OK] = now + p[ACT_CLOCKS]
    note(log, now, channel, C_ACT, bank, row)


@nb.njit
def column(p, s, channel, bank, write, auto, now, log):
    """RD or WR of an open row, with or without auto-precharge."""
    at = BANK + bank * BANK_SIZE
    group_at = GROUP + (bank >> p[BANK_BITS]) * GROUP_SIZE
    rank = bank >> p[RANK_BITS]
    rank_at = RANK + rank * RANK_SIZE
    if write:
        end = now + p[CWL] + p[BL]
        s[at + PRE_OK] = max(s[at + PRE_OK], end + p[WR])
        s[group_at + GROUP_WR] = now + p[CCD_L]
        s[group_at + GROUP_RD] = max(s[group_at + GROUP_RD], end + p[WTR_L])
        s[rank_at + RANK_WR] = max(s[rank_at + RANK_WR], now + p[CCD_S])
        s[rank_at + RANK_RD] = max(s[rank_at + RANK_RD], end + p[WTR_S])
        s[WRITE_BURSTS] += 1
    else:
        s[at + PRE_OK] = max(s[at + PRE_OK], now + p[RTP])
        s[group_at + GROUP_RD] = max(s[group_at + GROUP_RD], now + p[CCD_L])
        s[rank_at + RANK_RD] = max(s[rank_at + RANK_RD], now + p[CCD_S])
        s[rank_at + RANK_WR] = max(
            s[rank_at + RANK_WR], now + p[CL] + p[BL] - p[CWL] + p[RTW])
        s[READ_BURSTS] += 1
    for other in range(p[N_RANKS]):
        if other != rank:
            # The data of two ranks, a gap between them.
            other_at = RANK + other * RANK_SIZE
            first = p[CWL] if write else p[CL]
            s[other_at + RANK_RD] = max(
                s[other_at + RANK_RD], now + first + p[BL] + p[CS] - p[CL])
            s[other_at + RANK_WR] = max(
                s[other_at + RANK_WR], now + first + p[BL] + p[CS] - p[CWL])
    s[BUS_OK] = now + p[COLUMN_CLOCKS]
    note(log, now, channel, (C_WRA if auto else C_WR) if write else (C_RDA if auto else C_RD),
         bank, s[at + ROW])
    if auto:
        s[at + ROW] = -1
        s[at + ACT_OK] = max(s[at + ACT_OK], s[at + PRE_OK] + p[RP])
        close(s, rank_at, s[at + PRE_OK])


@nb.njit
def refresh_rank(p, s, channel, rank, now, log):
    """Next step of an all-bank refresh that is due: (whether a command went, when one may)."""
    banks = np.int64(1) << p[RANK_BITS]
    rank_at = RANK + rank * RANK_SIZE
    if s[rank_at + OPEN] > 0:
        may = s[rank_at + RANK_PRE]
        for bank in range(rank * banks, (rank + 1) * banks):
            # Banks that precharge themselves are waited for.
            may = max(may, s[BANK + bank * BANK_SIZE + PRE_OK])
        if may > now:
            return False, may
        for bank in range(rank * banks, (rank + 1) * banks):
            at = BANK + bank * BANK_SIZE
            if s[at + ROW] >= 0:
                s[at + ROW] = -1
                close(s, rank_at, now)
            s[at + ACT_OK] = max(s[at + ACT_OK], now + p[RP_ALL])
        s[rank_at + RANK_PRE] = now + p[PPD]
        s[BUS_OK] = now + p[PRE_CLOCKS]
        note(log, now, channel, C_PRE_ALL, rank * banks, -1)
        return True, now
    may = np.int64(0)
    for bank in range(rank * banks, (rank + 1) * banks):
        may = max(may, s[BANK + bank * BANK_SIZE + ACT_OK])
    if may > now:
        return False, may
    for bank in range(rank * banks, (rank + 1) * banks):
        s[BANK + bank * BANK_SIZE + ACT_OK] = now + p[RFC_ALL]
    s[rank_at + DUE] += p[REFI]
    s[REFRESHES] += 1
    s[BUS_OK] = now + p[REF_CLOCKS]
    note(log, now, channel, C_REF_ALL, rank * banks, -1)
    return True, now


@nb.njit
def refresh_bank(p, s, channel, rank, now, log):
    """Next step of a per-bank refresh that is due: (whether a command went, when one may)."""
    banks = np.int64(1) << p[RANK_BITS]
    steps = min(REFRESH_STEPS, banks)
    rank_at = RANK + rank * RANK_SIZE
    first = rank * banks + s[rank_at + STEP]
    may = max(s[rank_at + RANK_ACT], s[rank_at + REFRESH_OK])
    for bank in range(first, (rank + 1) * banks, steps):
        at = BANK + bank * BANK_SIZE
        if s[at + ROW] >= 0:
            may = max(s[at + PRE_OK], s[rank_at + RANK_PRE])
            if may > now:
                return False, may
            precharge(p, s, channel, bank, now, log)
            return True, now
        may = max(may, s[at + ACT_OK])
    if may > now:
        return False, may
    for bank in range(first, (rank + 1) * banks, steps):
        s[BANK + bank * BANK_SIZE + ACT_OK] = now + p[RFC_BANK]
    s[rank_at + RANK_ACT] = max(s[rank_at + RANK_ACT], now + p[RRD_S])
    s[rank_at + REFRESH_OK] = now + p[PBR2PBR]
    s[rank_at + DUE] += p[REFI] // steps
    s[rank_at + STEP] = (s[rank_at + STEP] + 1) % steps
    s[BANK_REFRESHES] += 1
    s[BUS_OK] = now + p[REF_CLOCKS]
    note(log, now, channel, C_REF_BANK, first, -1)
    return True, now


@nb.njit
def retire(s, queue, count, place):
    """Take a request out of a queue; the younger ones move up."""
    last = queue + (s[count] - 1) * Q_SIZE
    for k in range(queue + place * Q_SIZE, last):
        s[k] = s[k + Q_SIZE]
    s[count] -= 1


@nb.njit
def tick(p, s, channel, now, done, log):
    """Clock `now` of a channel with state `s`: at most one command."""
    if s[BUS_OK] > now:
        s[WAKE] = s[BUS_OK]
        return
    banks = np.int64(1) << p[RANK_BITS]
    wake = NEVER
    blocked = np.int64(0)
    if p[REFRESH]:
        for rank in range(p[N_RANKS]):
            rank_at = RANK + rank * RANK_SIZE
            if s[rank_at + DUE] > now:
                wake = min(wake, s[rank_at + DUE])
                continue
            if p[REFRESH] == 1:
                blocked |= ((np.int64(1) << banks) - 1) << (rank * banks)
                went, may = refresh_rank(p, s, channel, rank, now, log)
            else:
                for bank in range(
                        rank * banks + s[rank_at + STEP], (rank + 1) * banks,
                        min(REFRESH_STEPS, banks)):
                    blocked |= np.int64(1) << bank
                went, may = refresh_bank(p, s, channel, rank, now, log)
            if went:
                s[WAKE] = now + 1
                return
            wake = min(wake, may)
    if s[DRAINING]:
        if s[WRITES] == 0 or (s[WRITES] <= p[LOW] and s[READS] > 0):
            s[DRAINING] = 0
    elif s[WRITES] >= p[HIGH] or (s[READS] == 0 and s[WRITES] > 0):
        s[DRAINING] = 1
    write = s[DRAINING] == 1
    queue, count = (WRITE_QUEUE, WRITES) if write else (READ_QUEUE, READS)
    rank_gate, group_gate = (RANK_WR, GROUP_WR) if write else (RANK_RD, GROUP_RD)
    window = min(s[count], p[WINDOW])
    wanted = np.int64(0)
    for place in range(window):
        entry = queue + place * Q_SIZE
        at = s[entry + Q_AT]
        if s[at + ROW] != s[entry + Q_ROW]:
            continue
        bank = s[entry + Q_BANK]
        if (blocked >> bank) & 1:
            continue
        may = max(s[at + COLUMN_OK],
                  max(s[s[entry + Q_GROUP] + group_gate], s[s[entry + Q_RANK] + rank_gate]))
        if may <= now:
            auto = p[CLOSED] == 1
            if auto:
                for other in range(s[count]):
                    each = queue + other * Q_SIZE
                    if (other != place and s[each + Q_BANK] == bank
                            and s[each + Q_ROW] == s[entry + Q_ROW]):
                        auto = False
            s[HITS + s[entry + Q_KIND]] += 1
            if not write:
                done[s[entry + Q_ID] & (len(done) - 1)] = now + p[CL] + p[DQSCK] + p[BL]
            column(p, s, channel, bank, write, auto, now, log)
            retire(s, queue, count, place)
            s[WAKE] = now + 1
            return
        wanted |= np.int64(1) << bank
        wake = min(wake, may)
    seen = blocked
    for place in range(window):
        entry = queue + place * Q_SIZE
        bank = s[entry + Q_BANK]
        if (seen >> bank) & 1:
            continue
        at, rank_at = s[entry + Q_AT], s[entry + Q_RANK]
        if s[at + ROW] < 0:
            seen |= np.int64(1) << bank
            may = max(max(s[at + ACT_OK], s[s[entry + Q_GROUP] + GROUP_ACT]),
                      max(s[rank_at + RANK_ACT],
                          s[rank_at + FAW_0 + s[rank_at + FAW_PLACE]] + p[FAW]))
            if may <= now:
                s[entry + Q_KIND] = max(s[entry + Q_KIND], 1)
                activate(p, s, channel, bank, s[entry + Q_ROW], now, log)
                s[WAKE] = now + 1
                return
            wake = min(wake, may)
        elif not (wanted >> bank) & 1:
            seen |= np.int64(1) << bank
            may = max(s[at + PRE_OK], s[rank_at + RANK_PRE])
            if may <= now:
                s[entry + Q_KIND] = 2
                precharge(p, s, channel, bank, now, log)
                s[WAKE] = now + 1
                return
            wake = min(wake, may)
    s[WAKE] = wake


@nb.njit
def clock(p, channels, now, done, log):
    """Clock `now` of all channels."""
    for channel in range(p[N_CHANNELS]):
        if channels[channel, WAKE] <= now:
            tick(p, channels[channel], channel, now, done, log)


# The port ------------------------------------------------------------------------------------


@nb.njit
def may_read(p, port):
    """Whether a read address is taken."""
    return port[R_COUNT] < p[OUTSTANDING]


@nb.njit
def read(p, port, done, cycle, address, beats):
    """Take a read address."""
    burst = port[R_TAIL] & (BURSTS - 1)
    shift = p[ACCESS_BITS]
    blocks = ((address + BEAT_BYTES * beats - 1) >> shift) - (address >> shift) + 1
    port[R_ADDRESS + burst] = address
    port[R_BEATS + burst] = beats
    port[R_ACCEPTED + burst] = cycle
    port[R_FIRST + burst] = port[R_REQUEST]
    for k in range(blocks):
        done[(port[R_REQUEST] + k) & (len(done) - 1)] = NEVER
    port[R_REQUEST] += blocks
    port[R_TAIL] += 1
    port[R_COUNT] += 1


@nb.njit
def beat_due(p, port, done):
    """Cycle from which the next beat of read data is there; NEVER if that is not known yet."""
    if port[R_COUNT] == 0:
        return NEVER
    burst = port[R_HEAD] & (BURSTS - 1)
    address, shift = port[R_ADDRESS + burst], p[ACCESS_BITS]
    block = ((address + BEAT_BYTES * port[R_BEAT]) >> shift) - (address >> shift)
    ended = done[(port[R_FIRST + burst] + block) & (len(done) - 1)]
    return NEVER if ended == NEVER else -(-ended * p[DEN] // p[NUM]) + p[BACKEND]


@nb.njit
def take_beat(port):
    """Take a beat of read data; whether it is the last of its burst."""
    port[R_BEAT] += 1
    if port[R_BEAT] < port[R_BEATS + (port[R_HEAD] & (BURSTS - 1))]:
        return False
    port[R_BEAT] = 0
    port[R_HEAD] += 1
    port[R_COUNT] -= 1
    return True


@nb.njit
def may_write(p, port):
    """Whether a write address is taken."""
    return port[W_COUNT] < p[OUTSTANDING]


@nb.njit
def write(port, address, beats):
    """Take a write address."""
    burst = port[W_TAIL] & (BURSTS - 1)
    port[W_ADDRESS + burst] = address
    port[W_BEATS + burst] = beats
    port[W_TAIL] += 1
    port[W_COUNT] += 1


@nb.njit
def may_write_beat(p, port, channels):
    """Whether the next beat of write data is taken."""
    if port[W_HEAD] == port[W_TAIL]:
        return False
    address = port[W_ADDRESS + (port[W_HEAD] & (BURSTS - 1))] + BEAT_BYTES * port[W_BEAT]
    return channels[locate(p, address)[0], WRITES] < p[DEPTH]


@nb.njit
def write_beat(p, port, channels, cycle, trace):
    """Take a beat of write data."""
    burst = port[W_HEAD] & (BURSTS - 1)
    address = port[W_ADDRESS + burst] + BEAT_BYTES * port[W_BEAT]
    port[W_BEAT] += 1
    last = port[W_BEAT] == port[W_BEATS + burst]
    if last or (address + BEAT_BYTES) >> p[ACCESS_BITS] != address >> p[ACCESS_BITS]:
        enqueue(p, channels, address, True, 0)
        trace_request(trace, port[CLOCK], address >> p[ACCESS_BITS] << p[ACCESS_BITS], 1)
    if last:
        port[W_BEAT] = 0
        port[W_HEAD] += 1
        port[B_TIME + burst] = cycle + max(1, p[FRONTEND])


@nb.njit
def response_due(port):
    """Cycle from which the next write response is there; NEVER if that is not known yet."""
    if port[B_HEAD] == port[W_HEAD]:
        return NEVER
    return port[B_TIME + (port[B_HEAD] & (BURSTS - 1))]


@nb.njit
def take_response(port):
    """Take a write response."""
    port[B_HEAD] += 1
    port[W_COUNT] -= 1


@nb.njit
def trace_request(trace, now, address, write):
    """Append a request to the trace while it has room."""
    count = trace[0, 0] + 1
    trace[0, 0] = count
    if count < len(trace):
        trace[count, 0] = now
        trace[count, 1] = address
        trace[count, 2] = write


@nb.njit
def advance(p, channels, port, done, log, trace, cycle):
    """Behind edge `cycle`: hand on a read request, then clock the channels up to the next edge."""
    if port[R_NEXT] < port[R_TAIL]:
        burst = port[R_NEXT] & (BURSTS - 1)
        if cycle >= port[R_ACCEPTED + burst] + p[FRONTEND]:
            shift = p[ACCESS_BITS]
            address = ((port[R_ADDRESS + burst] >> shift) + port[R_BLOCK]) << shift
            if enqueue(p, channels, address, False, port[R_FIRST + burst] + port[R_BLOCK]):
                trace_request(trace, port[CLOCK], address, 0)
                port[R_BLOCK] += 1
                end = port[R_ADDRESS + burst] + BEAT_BYTES * port[R_BEATS + burst]
                if address + (np.int64(1) << shift) >= end:
                    port[R_BLOCK] = 0
                    port[R_NEXT] += 1
    while port[CLOCK] * p[DEN] <= (cycle + 1) * p[NUM]:
        clock(p, channels, port[CLOCK], done, log)
        port[CLOCK] += 1


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


def count(dram: Dram, channels: npt.NDArray[np.int64], clocks: int) -> DramCounts:
    """Counts of a state behind `clocks` clocks."""
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
def _replay(p, channels, done, log, addresses, writes, per_clock, gap):
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
                    p, channels, addresses[fed], writes[fed], fed):
                fed += 1
                due = now + gap
        clock(p, channels, now, done, log)
        left = total
        for channel in range(p[N_CHANNELS]):
            left -= channels[channel, READ_BURSTS] + channels[channel, WRITE_BURSTS]
        end = now + max(p[CL] + p[DQSCK], p[CWL]) + p[BL]
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
    constants, channels, _, _, log, _ = new_banked(dram, 1e9, commands=commands)
    done = np.zeros(1 << max(10, (len(addresses) - 1).bit_length()), np.int64)
    end = _replay(constants, channels, done, log, addresses, writes, per_clock, gap_clocks)
    return Replay(counts=count(dram, channels, int(end)), log=logged(log))


def logged(log: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What a log holds.

    Raises
    ------
    ValueError
        If more commands were issued than it had room for.
    """
    length = int(log[0, 0])
    if 1 < len(log) <= length:
        raise ValueError(f"Log must have room for {length} commands, not {len(log) - 1}")
    return log[1:min(length, len(log) - 1) + 1]
