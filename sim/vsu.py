"""Cycle model of :class:`splatforge.hw.vsu.Vsu`: what it is at, and where rows and hits wait.

No number that is computed is here; which voxels are visible and which groups each meets the
bit-true model says (:class:`splatforge.algos.vsu.VsuFrame`), :func:`rows_of` in rows of the scan.
:func:`offers` tells what the unit shows in a cycle, :func:`step` what one cycle does.
"""

from collections import deque
from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.vsu import VsuFrame, vsu_schedule
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.shell import ShellDesign
from splatforge.designs.tokens import GROUP_TAG_BITS, GROUPS_AHEAD
from splatforge.designs.voxel import STREAM_CAMERA_BEATS, VOXEL_BEATS
from splatforge.designs.vsu import (
    DIGIT_BITS,
    DIGITS,
    ROWS_UNDER_WAY,
    TOKENS_UNDER_WAY,
    VsuDesign,
)
from splatforge.sim import folded
from splatforge.sim.reading import plain

__all__ = ["Rows", "behind", "cycles", "is_asking", "is_done", "is_idle", "is_loaded", "new_vsu",
           "offers", "rows_of", "step"]

# What the unit is at, the value of AT.
WAIT, CLEAR, LOAD, ADD, PASS, ANNOUNCE, TELL, SCAN, NEXT, DONE = range(10)

# Constants of the frame: beats of a burst, bursts in flight, beats of the buffer, the camera's
# address in beats, voxels kept, voxels in a row, rows that may wait, groups. Of the loader: the
# next address of the table in beats, and beats that have not been asked for; whether the camera has
# not; the burst that waits for the bus, 0 beats if none does; beats asked for that have not left
# the buffer; bursts in flight; beats of the camera that came. What the unit is at; the bin of the
# counts; voxels that are to come out of the arithmetic. Eight stages: in the first three the number
# of the voxel or -1, in the others whether there is a visible one; whether none was left to come;
# visible voxels; whether they were too many. Of the sort: the pass, the next voxel, and in which of
# its stages there is one, a bit each. Of the scan: the group, the next row, the next of the rows
# with hits; whether there was room for a row, and something that was over. Then the stages behind
# it, each with the number of its group or -1, the place of its first hit among all, how many there
# are, and whether it is an end: looked at, taken, found, held; picked, fetched, known, compared,
# offered. Whether the group of the one that is held was over. Of the queue behind what is found and
# of that in front of what is offered: the first and the number of what waits, and whether the first
# has been read out of the memory; tokens behind what is held. Counts. Whether another burst may be
# in flight, and fits, both as of a cycle ago.
(BURST, FLYING_LIMIT, BUFFER, CAMERA, VOXELS, LANES, WAITING_ROWS, GROUPS, PLACE, LEFT, ASKS_CAMERA,
 ADDRESS, ADDRESS_BEATS, RESERVED, FLYING, CAMERA_CAME, AT, NUMBER, RESULTS, STAGE_1, STAGE_2,
 STAGE_3, STAGE_4, STAGE_5, STAGE_6, STAGE_7, STAGE_8, ALL_IN, KEPT, OVERFLOW, DIGIT, SORTED, SORTS,
 GROUP, LINE, ROW, MOVE, LINGERS, LOOKED, LOOKED_AT, LOOKED_HITS, LOOKED_END, TAKEN, TAKEN_AT,
 TAKEN_HITS, TAKEN_END, FOUND, FOUND_AT, FOUND_HITS, FOUND_END, HELD, HELD_AT, HELD_HITS, HELD_END,
 PICKED, PICKED_AT, PICKED_END, FETCHED, FETCHED_AT, FETCHED_END, KNOWN, KNOWN_AT, KNOWN_END,
 COMPARED, COMPARED_AT, COMPARED_END, TOKEN, TOKEN_AT, TOKEN_END, HELD_LATE, QUEUE_FIRST, QUEUED,
 QUEUE_READ, TOKENS_FIRST, TOKENS, TOKENS_READ, UNDER_WAY, BUSY, STALLED, STREAMED, VISIBLE, HITS,
 FEW, FITS) = range(84)
#: Stages of the sort.
SORT_STAGES = 7
#: Then tokens that wait, three numbers each; the queue, four numbers a row; and the state of the
#: arithmetic.
TOKEN_QUEUE = 84
QUEUE = TOKEN_QUEUE + 3 * TOKENS_UNDER_WAY


_STAGES = LOOKED, TAKEN, FOUND, HELD, PICKED, FETCHED, KNOWN, COMPARED, TOKEN


class Rows(NamedTuple):
    """Rows of the scan with a hit, group after group.

    Group g has those from ``starts[g]`` to before ``starts[g + 1]``: each the number of the row,
    and the place of its first hit among those of all groups; they end with the next row's.
    """

    starts: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]


def rows_of(design: VsuDesign, frame: VsuFrame) -> Rows:
    """Rows with a hit of every group of a frame."""
    number = frame.places // design.scan_width
    group = np.repeat(np.arange(len(frame.starts) - 1), np.diff(frame.starts))
    begins = np.ones(len(number), bool)
    begins[1:] = (np.diff(number) != 0) | (np.diff(group) != 0)
    first = np.flatnonzero(begins)
    return Rows(
        starts=np.searchsorted(group[first], np.arange(len(frame.starts))).astype(np.int64),
        numbers=number[first].astype(np.int64),
        first=np.append(first, len(number)).astype(np.int64))


def new_vsu(
    design: VsuDesign, voxels: int, groups: int, *, camera_address: int, voxel_address: int,
    shell: ShellDesign = ShellDesign(),  # noqa: B008
) -> npt.NDArray[np.int64]:
    """State in the cycle behind ``start``.

    Parameters
    ----------
    design : VsuDesign
        The unit.
    voxels, groups : int
        Records of the table, groups of the frame.
    camera_address, voxel_address : int
        Of the records, in bytes.
    shell : ShellDesign
        Bus.
    """
    arithmetic = folded.new_folded(vsu_schedule(plain(design)), VOXEL_BEATS, design.buffer_beats)
    queue = 4 * (design.waiting_rows + ROWS_UNDER_WAY)
    state = np.zeros(QUEUE + queue + len(arithmetic), np.int64)
    state[QUEUE + queue:] = arithmetic
    state[BURST], state[FLYING_LIMIT] = design.burst_beats, design.outstanding_bursts
    state[BUFFER], state[VOXELS] = design.buffer_beats, design.voxels
    state[LANES], state[WAITING_ROWS] = design.scan_width, design.waiting_rows
    state[GROUPS] = groups
    state[CAMERA], state[PLACE] = (
        address // shell.data_bytes for address in (camera_address, voxel_address))
    state[LEFT], state[ASKS_CAMERA], state[RESULTS] = voxels * VOXEL_BEATS, 1, voxels
    state[AT], state[FEW], state[FITS] = CLEAR, 1, 1
    for stage in (STAGE_1, STAGE_2, STAGE_3, *_STAGES):
        state[stage] = -1
    return state


@nb.njit(inline="always")
def _older(group, oldest):
    """Whether the tags of two groups say that the first lies before the second."""
    return (group - oldest) >> (GROUP_TAG_BITS - 1) & 1 != 0


@nb.njit
def offers(state):
    """Beats of the burst that is asked for or 0, whether a group and a voxel are offered."""
    return state[ADDRESS_BEATS], state[AT] == TELL, state[TOKEN] >= 0


@nb.njit
def is_loaded(state):
    """Whether camera and table have been read."""
    return (state[CAMERA_CAME] == STREAM_CAMERA_BEATS and state[LEFT] == 0
            and state[FLYING] == 0)


@nb.njit
def is_done(state):
    """Whether all groups have been announced, and all that was found is taken."""
    done = state[AT] == DONE and state[QUEUED] == 0 and state[TOKENS] == 0
    for stage in _STAGES:
        done = done and state[stage] < 0
    return done


@nb.njit
def is_idle(state):
    """Whether no address waits and no burst is in flight."""
    return state[FLYING] == 0


@nb.njit
def behind(state, oldest):
    """Whether something of a group before `oldest` is here."""
    found = state[QUEUED] > 0 and _older(state[QUEUE + 4 * state[QUEUE_FIRST]], oldest)
    found = found or (state[TOKENS] > 0 and _older(
        state[TOKEN_QUEUE + 3 * state[TOKENS_FIRST]], oldest))
    for stage in _STAGES:
        found = found or (state[stage] >= 0 and _older(state[stage], oldest))
    return found


@nb.njit
def is_asking(state):
    """Whether it matters in the next cycle if something of a group that is over is on its way."""
    return state[AT] == PASS or state[AT] == ANNOUNCE or state[AT] == NEXT


@nb.njit(inline="always")
def _load(state, stop, address_ready, beat, last, freed):
    """The loader."""
    free = not stop and state[ADDRESS_BEATS] == 0 and state[FEW] != 0
    asks_camera = free and state[ASKS_CAMERA] != 0
    asks = free and not asks_camera and state[LEFT] > 0 and state[FITS] != 0
    state[FEW] = state[FLYING] < state[FLYING_LIMIT]
    state[FITS] = state[RESERVED] <= state[BUFFER] - state[BURST]
    if address_ready:
        state[ADDRESS_BEATS] = 0
    if asks_camera:
        state[ASKS_CAMERA] = 0
        state[ADDRESS] = state[CAMERA]
        state[ADDRESS_BEATS] = STREAM_CAMERA_BEATS
    if asks:
        length = min(state[LEFT], state[BURST] - state[PLACE] % state[BURST])
        state[ADDRESS] = state[PLACE]
        state[ADDRESS_BEATS] = length
        state[PLACE] += length
        state[LEFT] -= length
        state[RESERVED] += length
    state[FLYING] += asks_camera or asks
    state[FLYING] -= beat and last
    if freed:
        state[RESERVED] -= VOXEL_BEATS
    if beat and state[CAMERA_CAME] < STREAM_CAMERA_BEATS:
        state[CAMERA_CAME] += 1


@nb.njit(inline="always")
def _keep(state, streamed, visible):
    """Eight stages behind the arithmetic."""
    kept = state[STAGE_5] != 0 and state[KEPT] < state[VOXELS]
    if state[STAGE_5] != 0 and not kept:
        state[OVERFLOW] = 1
    state[KEPT] += kept
    state[VISIBLE] += kept
    state[STAGE_8], state[STAGE_7] = state[STAGE_7], state[STAGE_6]
    state[STAGE_6] = kept
    state[STAGE_5] = state[STAGE_4]
    state[STAGE_4] = state[STAGE_3] >= 0 and visible[state[STAGE_3]]
    state[STAGE_3] = state[STAGE_2]
    state[STAGE_2] = state[STAGE_1]
    state[STAGE_1] = state[STREAMED] if streamed else -1
    state[STREAMED] += streamed
    state[RESULTS] -= streamed


@nb.njit(inline="always")
def _sort(state):
    """One cycle of a pass; whether it is over."""
    rest = state[SORTED] < state[KEPT]
    over = not rest and state[SORTS] == 0
    state[SORTS] = (state[SORTS] << 1 | rest) & ((1 << SORT_STAGES) - 1)
    state[SORTED] = 0 if over else state[SORTED] + rest
    return over


@nb.njit(inline="always")
def _read(read, waiting, taken):
    """Whether the first of so many that wait has been read, from whether it had, and is taken."""
    return waiting > read if taken or not read else True


@nb.njit(inline="always")
def _find(state, rows, oldest, scans, voxel_ready):
    """The scan's stages, the last first; whether the row that is scanned goes on, and it ends."""
    wanted = (state[FOUND] >= 0 and state[FOUND_HITS] > 0
              and not _older(state[FOUND], oldest))
    move = state[MOVE] != 0
    state[MOVE] = state[QUEUED] < state[WAITING_ROWS]
    ends = state[LINE] * state[LANES] >= state[KEPT]

    # Held, picked, fetched, known, compared, offered.
    takes = state[TOKEN] < 0 or voxel_ready
    leaves = takes and state[TOKENS_READ] != 0
    state[TOKENS_READ] = _read(state[TOKENS_READ], state[TOKENS], takes)
    if takes:
        state[TOKEN] = -1
        if leaves:
            at = TOKEN_QUEUE + 3 * state[TOKENS_FIRST]
            if not _older(state[at], oldest):
                _move(state, TOKEN, at, 3)
            state[TOKENS_FIRST] = (state[TOKENS_FIRST] + 1) % TOKENS_UNDER_WAY
            state[TOKENS] -= 1
    if state[COMPARED] >= 0:
        at = TOKEN_QUEUE + 3 * ((state[TOKENS_FIRST] + state[TOKENS]) % TOKENS_UNDER_WAY)
        _move(state, at, COMPARED, 3)
        state[TOKENS] += 1
    room = state[UNDER_WAY] < TOKENS_UNDER_WAY
    dead = state[HELD] >= 0 and state[HELD_LATE] != 0
    goes = state[HELD] >= 0 and not dead and room
    moves_on = state[HELD] < 0 or dead or (room and state[HELD_HITS] == 1)
    state[UNDER_WAY] += goes
    state[UNDER_WAY] -= leaves
    _move(state, COMPARED, KNOWN, 3)
    _move(state, KNOWN, FETCHED, 3)
    _move(state, FETCHED, PICKED, 3)
    state[PICKED] = state[HELD] if goes else -1
    state[PICKED_AT], state[PICKED_END] = state[HELD_AT], state[HELD_END]
    if goes:
        state[HITS] += state[HELD_END] == 0
        state[HELD_AT] += 1
        state[HELD_HITS] -= 1
    capacity = state[WAITING_ROWS] + ROWS_UNDER_WAY
    leads = state[QUEUE_READ] != 0
    state[QUEUE_READ] = _read(state[QUEUE_READ], state[QUEUED], moves_on)
    if moves_on:
        state[HELD] = -1
        if leads:
            at = QUEUE + 4 * state[QUEUE_FIRST]
            _move(state, HELD, at, 4)
            first = state[QUEUE_FIRST] + 1
            state[QUEUE_FIRST] = first if first < capacity else 0
            state[QUEUED] -= 1
    state[HELD_LATE] = state[HELD] >= 0 and _older(state[HELD], oldest)

    # Found, taken, looked at.
    if wanted:
        place = state[QUEUE_FIRST] + state[QUEUED]
        _move(state, QUEUE + 4 * (place if place < capacity else place - capacity), FOUND, 4)
        state[QUEUED] += 1
    state[STALLED] += scans and not move
    _move(state, FOUND, TAKEN, 4)
    _move(state, TAKEN, LOOKED, 4)
    state[LOOKED] = -1
    if scans and move:
        state[LOOKED] = state[GROUP]
        state[LOOKED_END] = ends
        state[LOOKED_HITS] = ends
        state[BUSY] += not ends
        row = state[ROW]
        if row < rows.starts[state[GROUP] + 1] and rows.numbers[row] == state[LINE]:
            state[LOOKED_AT] = rows.first[row]
            state[LOOKED_HITS] = rows.first[row + 1] - rows.first[row]
            state[ROW] += 1
    return move, ends


@nb.njit(inline="always")
def _move(state, to, of, number):
    """Copy registers to others; a slice would be copied to the heap first."""
    for place in range(number):
        state[to + place] = state[of + place]


@nb.njit
def step(
    state, visible, rows, stop, address_ready, beat, last, oldest, others_behind, group_ready,
    voxel_ready,
):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_vsu`.
    visible : ndarray of bool
        Which voxels of the table are.
    rows : Rows
        From :func:`rows_of`.
    stop : bool
        Nothing more is to be asked for.
    address_ready : bool
        The bus takes an address.
    beat, last : bool
        A beat arrives; it is the last of its burst.
    oldest : int
        The oldest group that is wanted.
    others_behind : bool
        Something of a group before it is on its way elsewhere; looked at where :func:`is_asking`
        says so.
    group_ready, voxel_ready : bool
        A group, a voxel is taken if there is one.
    """
    at = state[AT]
    loads = at == LOAD
    loaded = state[ALL_IN] != 0
    # The table is in when the unit goes on from there: what it takes to read it stands still.
    if at <= LOAD:
        arithmetic = state[QUEUE + 4 * (state[WAITING_ROWS] + ROWS_UNDER_WAY):]
        _, result = folded.offers(arithmetic)
        state[ALL_IN] = (
            is_loaded(state) and state[RESULTS] == 0 and state[STAGE_1] < 0 and state[STAGE_2] < 0
            and state[STAGE_3] < 0 and not (state[STAGE_4] or state[STAGE_5] or state[STAGE_6]
                                            or state[STAGE_7] or state[STAGE_8]))
        freed = folded.step(arithmetic, beat and state[CAMERA_CAME] == STREAM_CAMERA_BEATS, loads)
        _load(state, stop, address_ready, beat, last, freed)
        _keep(state, result and loads, visible)
    lingers = state[LINGERS] != 0
    if is_asking(state):
        state[LINGERS] = behind(state, oldest) or others_behind or state[OVERFLOW] != 0
    sorted_out = at == PASS and _sort(state)
    dead = _older(state[GROUP], oldest)
    move, ends = _find(state, rows, oldest, at == SCAN and not dead, voxel_ready)

    bins = 1 << DIGIT_BITS
    if at == CLEAR:
        state[NUMBER] += 1
        if state[NUMBER] == bins:
            state[NUMBER] = 0
            state[AT] = LOAD
    elif at == LOAD:
        if loaded:
            state[AT] = ADD
    elif at == ADD:
        state[NUMBER] += 1
        if state[NUMBER] > bins + 1:
            state[AT] = PASS
    elif at == PASS:
        if sorted_out:
            state[DIGIT] += 1
            if state[DIGIT] == DIGITS:
                state[AT] = ANNOUNCE
    elif at == ANNOUNCE:
        state[LINE] = 0
        state[ROW] = rows.starts[state[GROUP]]
        ahead = (state[GROUP] - oldest) & ((1 << GROUP_TAG_BITS) - 1)
        if ahead <= GROUPS_AHEAD and not lingers:
            state[AT] = TELL
    elif at == TELL:
        if group_ready:
            state[AT] = SCAN
    elif at == SCAN:
        if dead:
            state[AT] = NEXT
        elif move:
            state[LINE] += 1
            if ends:
                state[AT] = NEXT
    elif at == NEXT:
        state[GROUP] += 1
        state[AT] = DONE if state[GROUP] == state[GROUPS] else ANNOUNCE


def cycles(
    design: VsuDesign, frame: VsuFrame, voxels: int,
    timing: MemoryTiming = MemoryTiming(),  # noqa: B008
    *, camera_address: int = 0, voxel_address: int = 4096,
) -> tuple[int, int]:
    """Cycles of a frame from behind ``start`` to its first group, and until all is taken at once.

    Parameters
    ----------
    design : VsuDesign
        The unit.
    frame : VsuFrame
        What it finds out.
    voxels : int
        Records of the table.
    timing : MemoryTiming
        The memory, which serves nothing else.
    camera_address, voxel_address : int
        Of the records, in bytes.
    """
    state = new_vsu(design, voxels, frame.columns * frame.rows, camera_address=camera_address,
                    voxel_address=voxel_address)
    rows = rows_of(design, frame)
    visible = np.zeros(voxels, bool)
    visible[frame.ids] = True
    num, den = timing.read_beats_per_cycle.numerator, timing.read_beats_per_cycle.denominator
    # Of every burst in flight the beats that are to come; when the last one did, in 1/num cycles.
    bursts: deque[tuple[int, int]] = deque()
    clock, now, first, oldest = -den, 0, 0, 0
    while not (is_done(state) and is_idle(state)):
        ready = len(bursts) < timing.outstanding
        came = last = False
        if bursts:
            accepted, left = bursts[0]
            due = max((accepted + timing.latency_cycles) * num, clock + den)
            if due <= now * num:
                clock, came, last = due, True, left == 1
                bursts[0] = accepted, left - 1
                if last:
                    bursts.popleft()
        beats, group, token = offers(state)
        if beats and ready:
            bursts.append((now, beats))
        if group and not first:
            first = now
        ended = token and state[TOKEN_END] != 0
        step(state, visible, rows, False, ready, came, last, oldest, False, True, True)
        # A group is over when its end has been taken.
        oldest += bool(ended)
        now += 1
    return first, now
