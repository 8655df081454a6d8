"""Cycle model of the coarse filters: the reader, the filters' stages, the queue, the tokens.

Which Gaussians pass is told, see :class:`splatforge.algos.cfu.CfuFrame`; no number that is computed
is here. :func:`offers` tells what the unit shows in a cycle, :func:`step` what one cycle does.
"""

from collections import deque

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.cfu import CfuFrame, Visits, cfu_schedule
from splatforge.designs.cfu import CfuDesign
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.shell import ShellDesign
from splatforge.designs.tokens import GROUP_TAG_BITS, GROUPS_AHEAD, SurvivorKind
from splatforge.sim import folded
from splatforge.sim.reading import plain

__all__ = [
    "ADDRESS", "GIVEN", "PASSED", "STALLED", "TOKEN", "TOKEN_GAUSSIAN", "TOKEN_VISIT", "behind",
    "cycles", "is_empty", "is_idle", "new_cfu", "offers", "step"]

#: Cycles from the one in which Gaussians are taken from the buffer to that in which they pass, with
#: filters and without.
_STAGES = 12, 1

# Constants: Gaussians in a cycle, beats of the buffer and of a burst, bursts in flight, voxels
# ahead, Gaussians of the queue, whether there are filters, stages, the scene's first beat; where
# the rings begin. Then counts of what the unit does. What follows is its registers: the voxel that
# is asked for, whether its group is over, how it stands with it, its next beat and those left;
# beats that are reserved, bursts in flight; the address that waits and its beats; the queue that
# the next beat goes to; levels of these queues and whether their output registers hold something;
# the voxel on its way to the headers, and whether they have room; the same of headers and of voxels
# that were opened, and how many came and went; whether the oldest header is known; a voxel on its
# way to the arithmetic, two registers; the voxel that follows, the one whose turn it is, whether
# its group is over, its Gaussians left, its number, the next of its Gaussians; half of a beat gone;
# queue of the next beat; places of the queue in use, and whether there were enough; Gaussians that
# came into it, were read and left, whether one was read, how many wait behind it, and whether one
# shows; voxels that ended, one, two and three cycles ago as well, and that are done; the voxel that
# is told, and whether its group is over; whether it was announced; the token that waits, its visit
# and its Gaussian; time. Whether one more burst may be in flight, and fits; whether the oldest
# header, which has been taken, leaves; the voxel on its way to those that were opened, and whether
# they have room; the place of the queue that comes next. That a group is over is what was seen in
# the cycle before, as is what there is room for. Places in rings start over at their ends, with no
# division in every cycle: those of headers and of voxels that were opened, what leaves the queue,
# and time, which goes round the stages.
(UNITS, BUFFER, BURST, BURSTS, AHEAD, DEPTH, FILTERS, STAGES, SCENE,
 AT_HEADERS, AT_OPENED, AT_STAGES, AT_QUEUE, AT_FOLDED,
 GIVEN, PASSED, STALLED,
 HELD, HELD_LATE, BEGUN, PLACE, LEFT, RESERVED, FLYING, ADDRESS, ADDRESS_BEATS, FILL,
 BEATS_0, BEATS_1, OUT_0, OUT_1,
 ENTERING, HEADER_ROOM, HEADERS, HEADERS_OUT, HEADERS_CAME, HEADERS_WENT,
 OPENED, OPENED_OUT, OPENED_CAME, OPENED_WENT, KNOWN,
 FRESH_0, FRESH_1, FOLLOWING, VOXEL, VOXEL_LATE, VOXEL_LEFT, NUMBER, AT, ODD, TURN,
 USED, CREDIT, INTO, READ, OUT, HERE, WAITS, SHOWS, ENDED, ENDED_1, ENDED_2, OVER, DONE,
 TOLD, TOLD_LATE, ANNOUNCED, TOKEN, TOKEN_VISIT, TOKEN_GAUSSIAN,
 TIME, FEW, FITS, HEADER_LEAVES, OPENS, OPEN_ROOM, INTO_AT) = range(78)
SIZE = 78


def new_cfu(
    design: CfuDesign, shell: ShellDesign = ShellDesign(), *, scene_address: int = 0,  # noqa: B008
) -> npt.NDArray[np.int64]:
    """State in the cycle behind ``start``.

    Parameters
    ----------
    design : CfuDesign
        The unit.
    shell : ShellDesign
        Bus.
    scene_address : int
        Of the scene, in bytes.
    """
    arithmetic = np.zeros(0, np.int64)
    if design.filters:
        arithmetic = folded.new_folded(cfu_schedule(plain(design)), 1, design.voxels_ahead)
    stages = _STAGES[0] if design.filters else _STAGES[1]
    rings = [design.voxels_ahead, design.voxels_ahead, 4 * stages, 2 * design.queue]
    starts = SIZE + np.concatenate([[0], np.cumsum(rings)])
    state = np.concatenate([np.zeros(starts[-1], np.int64), arithmetic])
    for name, value in (
        (UNITS, design.units), (BUFFER, design.buffer_beats), (BURST, design.burst_beats),
        (BURSTS, design.outstanding_bursts), (AHEAD, design.voxels_ahead), (DEPTH, design.queue),
        (FILTERS, design.filters), (STAGES, stages),
        (SCENE, scene_address // shell.data_bytes), (HELD, -1), (FOLLOWING, -1), (VOXEL, -1),
        (NUMBER, -1), (ENTERING, -1), (TOLD, -1), (FEW, 1), (FITS, 1), (OPENS, -1), (OPEN_ROOM, 1),
    ):
        state[name] = value
    state[AT_HEADERS:AT_FOLDED + 1] = starts
    return state


@nb.njit
def offers(state):
    """Whether a voxel is taken in this cycle, beats of the address that waits, and the token.

    The token is 0 for none, else one more than its kind; which it is stands in ``TOKEN_VISIT`` and
    ``TOKEN_GAUSSIAN`` (of all visits' Gaussians), the address, in beats, in ``ADDRESS``.
    """
    return state[HELD] < 0, state[ADDRESS_BEATS], state[TOKEN]


@nb.njit
def is_idle(state):
    """Whether no address waits and no burst is in flight."""
    return state[FLYING] == 0


@nb.njit
def is_empty(state):
    """Whether no voxel and no token is inside."""
    return (state[HELD] < 0 and state[ENTERING] < 0 and state[HEADERS] == 0
            and state[HEADERS_OUT] == 0 and state[FOLLOWING] < 0 and state[OPENS] < 0
            and state[OPENED] == 0 and state[OPENED_OUT] == 0 and state[TOLD] < 0
            and state[TOKEN] == 0)


@nb.njit(inline="always")
def _is_older(tag, oldest):
    return (tag - oldest) >> (GROUP_TAG_BITS - 1) & 1 != 0


@nb.njit(inline="always")
def _head(state, ring, out, went):
    """Oldest of a ring of voxels, if it shows; else -1."""
    return state[state[ring] + state[went]] if state[out] else -1


@nb.njit(inline="always")
def _on(state, place, size):
    """Go on by one in a ring."""
    state[place] = state[place] + 1 if state[place] + 1 < size else 0


@nb.njit
def behind(state, tags, oldest):
    """Whether something of a group before `oldest` is inside."""
    for visit in (
            state[HELD], _head(state, AT_HEADERS, KNOWN, HEADERS_WENT), state[FOLLOWING],
            state[OPENS], state[TOLD], state[TOKEN_VISIT] if state[TOKEN] else -1):
        if visit >= 0 and _is_older(tags[visit], oldest):
            return True
    return False


@nb.njit(inline="always")
def _fifo(state, level, out, push, pop):
    """One cycle of a queue whose oldest word has a register of its own."""
    inner = state[level] > 0 and (not state[out] or pop)
    state[level] += push
    state[level] -= inner
    state[out] = inner or (state[out] != 0 and not pop)


@nb.njit(inline="always")
def _tell(state, prefixes, token_ready):
    """Tokens leave; returns whether a Gaussian and whether a voxel is done with."""
    visit = state[TOLD]
    move = not state[TOKEN] or token_ready
    kind, pop, leave, number = -1, False, False, -1
    if visit >= 0:
        dead = state[TOLD_LATE] != 0
        entry = state[AT_QUEUE] + 2 * state[OUT]
        if prefixes[visit] == 0:
            kind = -1 if dead else 3
            leave = dead or move
        elif state[SHOWS] and state[entry + 1] == state[DONE]:
            if not dead and not state[ANNOUNCED]:
                kind = 0
            else:
                kind = -1 if dead else 1
                number = state[entry]
                pop = dead or move
        elif state[OVER] != state[DONE]:
            kind = 2 if state[ANNOUNCED] else -1
            leave = not state[ANNOUNCED] or move
    if token_ready:
        state[TOKEN] = 0
    if kind >= 0 and move:
        state[TOKEN] = kind + 1
        state[TOKEN_VISIT] = visit
        state[TOKEN_GAUSSIAN] = number
        state[ANNOUNCED] = kind < 2
    if leave and prefixes[visit] > 0:
        state[DONE] += 1
        state[ANNOUNCED] = 0
    return pop, leave


@nb.njit(inline="always")
def _give(state, row):
    """Gaussians are taken from the buffer, as a row: the first, how many, whether it is the last.

    Returns beats that leave, and whether it is the voxel's last row.
    """
    dead = state[VOXEL] >= 0 and state[VOXEL_LATE] != 0
    most = state[UNITS]
    if most == 1 and dead and not state[ODD]:
        most = 2
    first, second = state[OUT_0], state[OUT_1]
    if state[TURN]:
        first, second = second, first
    there = first != 0 and (state[UNITS] < 4 or second != 0 or state[VOXEL_LEFT] <= 2)
    credit = state[CREDIT] != 0
    go = state[VOXEL] >= 0 and there and (credit or dead)
    state[STALLED] += state[VOXEL] >= 0 and there and not credit and not dead
    row[0] = row[1] = row[2] = 0
    row[3] = state[NUMBER]
    if not go:
        return 0, False
    last = state[VOXEL_LEFT] <= most
    number = state[VOXEL_LEFT] if last else most
    popped = 2 if number > 2 else 1
    if state[UNITS] == 1 and not state[ODD] and not last and not dead:
        popped = 0
    row[0], row[1], row[2] = state[AT], 0 if dead else number, last
    state[GIVEN] += row[1]
    state[AT] += number
    state[VOXEL_LEFT] -= number
    state[ODD] = (state[ODD] + number) % 2 if not last else 0
    return popped, last


@nb.njit
def step(
    state, tags, prefixes, addresses, starts, passed, visit, stop, address_ready, beat, last,
    oldest, token_ready,
):  # fmt: skip
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_cfu`.
    tags, prefixes, addresses, starts, passed : ndarray
        Of all visits and their Gaussians, as in :class:`splatforge.algos.cfu.Visits` and
        :class:`splatforge.algos.cfu.CfuFrame`.
    visit : int
        Which of them is offered, or -1.
    stop : bool
        Nothing more is to be asked for.
    address_ready : bool
        The bus takes an address.
    beat, last : bool
        A beat arrives; it is the last of its burst.
    oldest : int
        Number of the oldest group that is still wanted.
    token_ready : bool
        A token is taken if there is one.
    """
    takes_visit = state[HELD] < 0 and visit >= 0
    header = _head(state, AT_HEADERS, KNOWN, HEADERS_WENT)
    header_room = state[HEADER_ROOM] != 0
    entering = state[ENTERING]
    state[HEADER_ROOM] = (
        state[HEADERS] + (state[HEADERS_OUT] != 0) + (entering >= 0) < state[AHEAD] - 1)
    opens, opened_room = state[OPENS], state[OPEN_ROOM] != 0
    state[OPEN_ROOM] = (
        state[OPENED] + (state[OPENED_OUT] != 0) + (opens >= 0) < state[AHEAD] - 1)
    may_ask = state[FEW] != 0 and state[FITS] != 0
    state[FEW] = state[FLYING] < state[BURSTS]
    state[FITS] = state[RESERVED] <= state[BUFFER] - state[BURST]
    following = state[FOLLOWING]
    into, ended = state[INTO], state[ENDED]
    used = state[USED]
    credit = used <= state[DEPTH] - 2 * state[UNITS]

    # What is behind the filters.
    pop, leave = _tell(state, prefixes, token_ready)
    stage = state[AT_STAGES] + 4 * state[TIME]
    oldest_row = state[stage:stage + 4]
    for n in range(oldest_row[1]):
        if passed[oldest_row[0] + n]:
            at = state[AT_QUEUE] + 2 * state[INTO_AT]
            state[at], state[at + 1] = oldest_row[0] + n, oldest_row[3]
            state[INTO] += 1
            _on(state, INTO_AT, state[DEPTH])
            state[PASSED] += 1
        else:
            used -= 1
    state[OVER], state[ENDED_2], state[ENDED_1] = state[ENDED_2], state[ENDED_1], ended
    state[ENDED] += oldest_row[2]
    # What was read waits in two registers, then in the one that shows.
    loads = not state[SHOWS] or pop
    waits = state[WAITS]
    if loads:
        state[SHOWS] = waits != 0
        state[WAITS] -= state[SHOWS]
    if waits < 2:
        state[WAITS] += state[HERE]
    if waits < 2 or not state[HERE]:
        state[HERE] = state[READ] != into
        state[READ] += state[HERE]
    if pop:
        _on(state, OUT, state[DEPTH])
    # The row that comes takes its place.
    popped, closed = _give(state, oldest_row)
    state[USED] = used + oldest_row[1] - pop
    state[CREDIT] = credit
    _on(state, TIME, state[STAGES])

    # The next voxel.
    enters = following >= 0 and opened_room and (
        prefixes[following] == 0 or state[VOXEL] < 0 or closed)
    if closed:
        state[VOXEL] = -1
    state[OPENS] = following if enters else -1
    if enters:
        state[FOLLOWING] = -1
        if prefixes[following] > 0:
            state[VOXEL], state[VOXEL_LEFT] = following, prefixes[following]
            state[AT] = starts[following]
            state[NUMBER] += 1
    if state[VOXEL] >= 0:
        state[VOXEL_LATE] = _is_older(tags[state[VOXEL]], oldest)
    told = state[TOLD]
    coming = _head(state, AT_OPENED, OPENED_OUT, OPENED_WENT) if told < 0 else -1
    if opens >= 0:
        state[state[AT_OPENED] + state[OPENED_CAME]] = opens
        _on(state, OPENED_CAME, state[AHEAD])
    _fifo(state, OPENED, OPENED_OUT, opens >= 0, told < 0)
    if coming >= 0:
        _on(state, OPENED_WENT, state[AHEAD])
    if told < 0:
        state[TOLD] = coming
    elif leave:
        state[TOLD] = -1
    if state[TOLD] >= 0:
        state[TOLD_LATE] = _is_older(tags[state[TOLD]], oldest)
    take = following < 0 and header >= 0
    if state[FILTERS]:
        arithmetic = state[state[AT_FOLDED]:]
        _, result = folded.offers(arithmetic)
        wants = take and prefixes[header] > 0
        folded.step(arithmetic, state[FRESH_1] != 0, wants)
        take = take and (result or not wants)
    if take:
        state[FOLLOWING] = header
    leaves = state[HEADER_LEAVES] != 0
    state[HEADER_LEAVES] = take
    state[KNOWN] = state[HEADERS_OUT] != 0 and not take and not leaves

    # Voxels and their bursts.
    drop = state[HELD] >= 0 and not state[BEGUN] and state[HELD_LATE] != 0
    ends = state[HELD] >= 0 and prefixes[state[HELD]] == 0
    ask = (state[HELD] >= 0 and not ends and not drop and not stop
           and state[ADDRESS_BEATS] == 0 and may_ask and (state[BEGUN] != 0 or header_room))
    enter = (state[HELD] >= 0 and not drop and not state[BEGUN] and header_room
             and (ends or ask))
    state[FRESH_1] = state[FRESH_0]
    state[FRESH_0] = enter and not ends
    if entering >= 0:
        state[state[AT_HEADERS] + state[HEADERS_CAME]] = entering
        _on(state, HEADERS_CAME, state[AHEAD])
    _fifo(state, HEADERS, HEADERS_OUT, entering >= 0, leaves)
    if leaves:
        _on(state, HEADERS_WENT, state[AHEAD])
    state[ENTERING] = state[HELD] if enter else -1
    if address_ready:
        state[ADDRESS_BEATS] = 0
    if drop or (enter and ends):
        state[HELD] = -1
    if ask:
        length = min(state[LEFT], state[BURST] - state[PLACE] % state[BURST])
        if length == state[LEFT]:
            state[HELD] = -1
        state[ADDRESS], state[ADDRESS_BEATS] = state[PLACE], length
        state[PLACE] += length
        state[LEFT] -= length
        state[RESERVED] += length
        state[BEGUN] = 1
    state[RESERVED] -= popped
    state[FLYING] += ask
    state[FLYING] -= beat and last
    if takes_visit:
        state[HELD], state[BEGUN] = visit, 0
        state[PLACE] = state[SCENE] + addresses[visit]
        state[LEFT] = (prefixes[visit] + 1) // 2
    if state[HELD] >= 0:
        state[HELD_LATE] = _is_older(tags[state[HELD]], oldest)

    # Beats.
    both = popped == 2
    if state[UNITS] < 4:
        _fifo(state, BEATS_0, OUT_0, beat, popped == 1)
    else:
        turn, fill = state[TURN], state[FILL]
        _fifo(state, BEATS_0, OUT_0, beat and fill == 0, both or (popped == 1 and turn == 0))
        _fifo(state, BEATS_1, OUT_1, beat and fill == 1, both or (popped == 1 and turn == 1))
        state[FILL] = fill ^ (1 if beat else 0)
        state[TURN] = turn ^ (popped & 1)


def cycles(
    design: CfuDesign, visits: Visits, frame: CfuFrame,
    timing: MemoryTiming = MemoryTiming(),  # noqa: B008
    *, scene_address: int = 0, interval: int = 1,
) -> int:
    """Cycles until all is told, voxels offered as early as can be, no group over before its end.

    Parameters
    ----------
    design : CfuDesign
        The unit.
    visits, frame : Visits, CfuFrame
        Voxels of the groups, and which Gaussians pass.
    timing : MemoryTiming
        The memory, which serves nothing else.
    scene_address : int
        Of the scene, in bytes.
    interval : int
        A token is taken in one cycle of so many.
    """
    state = new_cfu(design, scene_address=scene_address)
    num, den = timing.read_beats_per_cycle.numerator, timing.read_beats_per_cycle.denominator
    # Of every burst in flight the beats that are to come; when the last one did, in 1/num cycles.
    bursts: deque[tuple[int, int]] = deque()
    clock, now, sent, oldest = -den, 0, 0, int(visits.tags[0]) if len(visits.tags) else 0
    while sent < len(visits.prefixes) or not is_empty(state) or not is_idle(state):
        address_ready = len(bursts) < timing.outstanding
        came = last = False
        if bursts:
            accepted, left = bursts[0]
            due = max((accepted + timing.latency_cycles) * num, clock + den)
            if due <= now * num:
                clock, came, last = due, True, left == 1
                bursts[0] = accepted, left - 1
                if last:
                    bursts.popleft()
        taken, beats, token = offers(state)
        if beats and address_ready:
            bursts.append((now, beats))
        token_ready = now % interval == 0
        if token == 1 + SurvivorKind.GROUP_END and token_ready:
            oldest = (oldest + 1) % (1 << GROUP_TAG_BITS)
        # No group is announced more than six ahead of the oldest.
        offered = sent if sent < len(visits.prefixes) and (
            visits.tags[sent] - oldest) % (1 << GROUP_TAG_BITS) <= GROUPS_AHEAD else -1
        step(state, visits.tags, visits.prefixes, visits.addresses, frame.starts, frame.passed,
             offered, False, address_ready, came, last, oldest, token_ready)
        sent += bool(taken and offered >= 0)
        now += 1
    return now
