"""Cycle model of :class:`splatforge.hw.ffu.Ffu`: it steps what decides when a token moves.

Tokens go by their numbers. No number that is computed is here but whether a Gaussian is kept, as
the bit-true model says (:class:`splatforge.algos.ffu.FfuFrame`). :func:`offers` and :func:`takes`
tell what the unit shows in a cycle, :func:`step` what one cycle does.
"""

from collections import deque

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.ffu import FfuFrame, decoded_beats, ffu_schedule, records_under_way
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.shell import ShellDesign
from splatforge.designs.tokens import SurvivorKind
from splatforge.sim import folded
from splatforge.sim.reading import plain

__all__ = ["behind", "cycles", "is_idle", "is_patient", "new_ffu", "offers", "step", "takes"]

Int64Array = npt.NDArray[np.int64]

#: Beats whose numbers have the same upper bits: no burst crosses 4 KiB.
_PAGE_BEATS = 256
_VOXEL, _GAUSSIAN = int(SurvivorKind.VOXEL), int(SurvivorKind.GAUSSIAN)

# Constants of the frame: beats of a burst, bursts in flight, of codebooks, beats of indices; places
# of the two queues of tokens; beats of a decoded record; the scene's address in beats. Of the runs:
# the open one's first beat and its length or 0, the same of the one that waits to be asked for. Of
# the fetch: the next beat of the codebooks, how many have not been asked for, and how many have not
# come; the burst that waits for the bus, 0 beats if none does, and whether it is theirs; beats of
# indices asked for that have not been decoded; bursts in flight; level of the queue of indices,
# and whether its output and the two registers behind it hold something. The queues of tokens in
# front of and beside the arithmetic: level, output, registers, places in their rings of what comes
# and of what goes. Whether a
# record's entries have been read, whether one goes to the arithmetic, and its next beat. The stages
# and the output: a token's number or -1. Counts. Whether beats of codebooks were left to ask for,
# and there was room for a burst of indices, a cycle ago. The token in front of all, or -1, and
# whether it was of a group that is over, and whether the next token in front of the arithmetic was.
(BURST, FLYING_LIMIT, BOOKS_LIMIT, BUFFER, WAITING, CONTEXT, BEATS, SCENE, RUN, RUN_BEATS, CLOSED,
 CLOSED_BEATS, BOOKS, BOOKS_LEFT, COMING, ADDRESS, ADDRESS_BEATS, PATIENT, RESERVED, FLYING,
 ARRIVED, ARRIVED_OUT, ARRIVED_HEAD, ARRIVED_SPARE, QUEUED, QUEUED_OUT, QUEUED_HEAD,
 QUEUED_SPARE, QUEUED_PUSHED, QUEUED_POPPED, BESIDE, BESIDE_OUT, BESIDE_HEAD, BESIDE_SPARE,
 BESIDE_PUSHED, BESIDE_POPPED, FETCHED, SENDING, BEAT, FIRST, SECOND, THIRD, OUT, CODED, BUSY,
 STALLED, PROJECTED, KEPT, SOME_LEFT, ROOM, TOKEN, TOKEN_DEAD, QUEUED_DEAD) = range(53)
#: Then the two rings of tokens, and the state of the arithmetic.
RINGS = 53


def new_ffu(
    design: FfuDesign, *, load: bool, codebook_address: int, scene_address: int,
    sh_degree: int = 3, shell: ShellDesign = ShellDesign(),  # noqa: B008
) -> Int64Array:
    """State in the cycle behind ``start``.

    Parameters
    ----------
    design : FfuDesign
        The unit.
    load : bool
        Whether the codebooks are read.
    codebook_address, scene_address : int
        Of the codebooks and the scene, in bytes.
    sh_degree : int
        Of the scene.
    shell : ShellDesign
        Bus.
    """
    # Read as a whole: no cache of schedules knows a watched design again.
    design = plain(design)
    plan = ffu_schedule(design)
    arithmetic = folded.new_folded(plan, len(plan.reads), decoded_beats(design))
    # Of each queue what it holds, and the registers behind it.
    rings = design.waiting + 3 + records_under_way(design) + 3
    state = np.zeros(RINGS + rings + len(arithmetic), np.int64)
    state[RINGS + rings:] = arithmetic
    state[BURST], state[FLYING_LIMIT] = design.burst_beats, design.outstanding_bursts
    state[BUFFER], state[BEATS] = design.buffer_beats, len(plan.reads)
    state[BOOKS_LIMIT] = design.codebook_bursts
    state[WAITING], state[CONTEXT] = design.waiting, records_under_way(design)
    state[SCENE], state[BOOKS] = (
        address // shell.data_bytes for address in (scene_address, codebook_address))
    state[BOOKS_LEFT] = state[COMING] = load * design.codebooks.loaded_beats(sh_degree)
    state[ROOM] = 1
    for place in (TOKEN, FIRST, SECOND, THIRD, OUT):
        state[place] = -1
    return state


@nb.njit(inline="always")
def _extends(state, kinds, places):
    """Whether the token in front is a Gaussian next to the last one of the open run."""
    number = state[TOKEN]
    return (state[RUN_BEATS] > 0 and kinds[number] == _GAUSSIAN and not state[TOKEN_DEAD]
            and places[number] == state[RUN] + state[RUN_BEATS]
            and state[RUN_BEATS] < state[BURST]
            and (state[SCENE] + places[number]) % _PAGE_BEATS != 0)


@nb.njit(inline="always")
def _goes(state, kinds, places):
    """Whether there is a token in front, and goes into the queue or is dropped."""
    return (state[TOKEN] >= 0 and (state[TOKEN_DEAD] != 0 or state[QUEUED] < state[WAITING] - 1)
            and (state[RUN_BEATS] == 0 or state[CLOSED_BEATS] == 0
                 or _extends(state, kinds, places)))


@nb.njit
def takes(state, kinds, places):
    """Whether a token, if one is offered, is taken in this cycle."""
    return state[TOKEN] < 0 or _goes(state, kinds, places)


@nb.njit
def offers(state):
    """Beats of the burst that is asked for or 0, and the number of the token offered or -1."""
    return state[ADDRESS_BEATS], state[OUT]


@nb.njit
def is_patient(state):
    """Whether the burst that waits is of codebooks."""
    return state[PATIENT] != 0


@nb.njit
def is_idle(state):
    """Whether no address waits and no burst is in flight."""
    return state[FLYING] == 0


@nb.njit(inline="always")
def _heads(state):
    """Tokens at the ends of the queue in front of the arithmetic and of that beside it."""
    return (state[RINGS + state[QUEUED_POPPED]],
            state[RINGS + state[WAITING] + 3 + state[BESIDE_POPPED]])


@nb.njit(inline="always")
def _on(state, place, size):
    """Go on by one in a ring."""
    state[place] = state[place] + 1 if state[place] + 1 < size else 0


@nb.njit
def behind(state, tags, oldest):
    """Whether something of a group before the oldest is inside."""
    queued, beside = _heads(state)
    late = ((state[QUEUED_HEAD] != 0 and tags[queued] < oldest)
            or (state[BESIDE_HEAD] != 0 and tags[beside] < oldest))
    for place in (TOKEN, FIRST, SECOND, THIRD, OUT):
        late = late or (state[place] >= 0 and tags[state[place]] < oldest)
    return late


@nb.njit(inline="always")
def _send(state, kinds, tags, kept, oldest, token_ready):
    """The output and the stages, their end first; returns whether the first stage is empty."""
    empty = state[FIRST] < 0
    takes_second = state[FIRST] >= 0 and state[SECOND] < 0
    takes_third = state[SECOND] >= 0 and state[THIRD] < 0
    free = state[OUT] < 0 or token_ready
    if token_ready:
        state[OUT] = -1
    if state[THIRD] >= 0:
        drop = tags[state[THIRD]] < oldest or not kept[state[THIRD]]
        if free and not drop:
            state[OUT] = state[THIRD]
            state[KEPT] += kinds[state[THIRD]] == _GAUSSIAN
        if free or drop:
            state[THIRD] = -1
    if takes_third:
        state[THIRD] = state[SECOND]
        state[SECOND] = -1
    if takes_second:
        state[SECOND] = state[FIRST]
        state[FIRST] = -1
    return empty


@nb.njit(inline="always")
def _move(state, level, pushed, taken):
    """One cycle of a queue whose oldest is in its output, and of the two registers behind it."""
    out, head, spare = level + 1, level + 2, level + 3
    there, waits = state[out] != 0, state[spare] != 0
    free = state[head] == 0 or taken
    inner = state[level] > 0 and not (there and waits)
    state[level] += pushed
    state[level] -= inner
    state[out] = inner or (there and waits)
    state[spare] = not free and (there or waits)
    if free:
        state[head] = there or waits


@nb.njit(inline="always")
def _ask(state, stop, address_ready, came, last, decoded):
    """The fetch: what is asked for, and what comes."""
    free = (not stop and state[ADDRESS_BEATS] == 0
            and state[FLYING] < state[FLYING_LIMIT])
    asks_books = free and state[SOME_LEFT] != 0 and state[FLYING] < state[BOOKS_LIMIT]
    asks = free and state[SOME_LEFT] == 0 and state[CLOSED_BEATS] > 0 and state[ROOM] != 0
    state[SOME_LEFT] = state[BOOKS_LEFT] > 0
    state[ROOM] = state[RESERVED] <= state[BUFFER] - state[BURST]
    if address_ready:
        state[ADDRESS_BEATS] = 0
    if asks_books:
        length = min(state[BOOKS_LEFT], state[BURST] - state[BOOKS] % state[BURST])
        state[ADDRESS] = state[BOOKS]
        state[ADDRESS_BEATS] = length
        state[PATIENT] = 1
        state[BOOKS] += length
        state[BOOKS_LEFT] -= length
    if asks:
        state[PATIENT] = 0
        state[ADDRESS] = state[SCENE] + state[CLOSED]
        state[ADDRESS_BEATS] = state[CLOSED_BEATS]
        state[RESERVED] += state[CLOSED_BEATS]
        state[CLOSED_BEATS] = 0
    state[FLYING] += asks_books or asks
    state[FLYING] -= came and last
    state[RESERVED] -= decoded
    arrives = came and state[COMING] == 0
    if came and state[COMING] > 0:
        state[COMING] -= 1
        state[CODED] += 1
    state[BUSY] += arrives
    _move(state, ARRIVED, arrives, decoded)


@nb.njit
def step(
    state, kinds, tags, places, kept, number, oldest, stop, address_ready, beat, last, token_ready
):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_ffu`.
    kinds, tags : ndarray
        Kind of every token, and the number of its group, which is never one that was before.
    places, kept : ndarray
        From :class:`splatforge.algos.ffu.FfuFrame`.
    number : int
        The token that is offered, or -1.
    oldest : int
        Number of the oldest group that is still wanted.
    stop : bool
        Nothing more is to be asked for.
    address_ready : bool
        The bus takes an address.
    beat, last : bool
        A beat arrives; it is the last of its burst.
    token_ready : bool
        A token is taken if there is one.
    """
    waiting, context = state[WAITING] + 3, state[CONTEXT] + 3
    arithmetic = state[RINGS + waiting + context:]
    ready, result = folded.offers(arithmetic)
    queued, beside = _heads(state)
    goes_in = _goes(state, kinds, places)
    extends = goes_in and _extends(state, kinds, places)

    # Out of the arithmetic, and beside it.
    feature = kinds[beside] == _GAUSSIAN
    empty = _send(state, kinds, tags, kept, oldest, token_ready)
    takes_first = empty and state[BESIDE_HEAD] != 0 and (not feature or result)
    if takes_first:
        state[FIRST] = beside
    passes = takes_first and feature
    state[PROJECTED] += passes
    state[STALLED] += folded.is_stalled(arithmetic)

    # Into it.
    dead = state[QUEUED_DEAD] != 0
    gaussian = kinds[queued] == _GAUSSIAN
    sent = state[SENDING] != 0 and ready and state[BEAT] == state[BEATS] - 1
    move = state[FETCHED] != 0 and (state[SENDING] == 0 or sent)
    room = state[BESIDE] < state[CONTEXT] - 1
    go = state[QUEUED_HEAD] != 0
    if gaussian:
        go = go and state[ARRIVED_HEAD] != 0 and (
            dead or (state[FETCHED] == 0 and room))
    elif kinds[queued] != _VOXEL:
        go = go and (dead or room)
    folded.step(arithmetic, state[SENDING] != 0, passes)
    if state[SENDING] and ready:
        state[BEAT] = 0 if sent else state[BEAT] + 1
    if sent:
        state[SENDING] = 0
    if move:
        state[SENDING] = 1
        state[FETCHED] = 0
    if go and gaussian and not dead:
        state[FETCHED] = 1
    goes_beside = go and not dead and kinds[queued] != _VOXEL

    _ask(state, stop, address_ready, beat, last, go and gaussian)

    # What comes.
    token, queues = state[TOKEN], goes_in and not state[TOKEN_DEAD]
    if goes_in:
        if state[RUN_BEATS] > 0 and not extends:
            state[CLOSED], state[CLOSED_BEATS] = state[RUN], state[RUN_BEATS]
            state[RUN_BEATS] = 0
        if extends:
            state[RUN_BEATS] += 1
        elif queues and kinds[token] == _GAUSSIAN:
            state[RUN], state[RUN_BEATS] = places[token], 1
    if token < 0 or goes_in:
        state[TOKEN] = number
    state[TOKEN_DEAD] = state[TOKEN] >= 0 and tags[state[TOKEN]] < oldest

    if queues:
        state[RINGS + state[QUEUED_PUSHED]] = token
        _on(state, QUEUED_PUSHED, waiting)
    _move(state, QUEUED, queues, go)
    if go:
        _on(state, QUEUED_POPPED, waiting)
    if goes_beside:
        state[RINGS + waiting + state[BESIDE_PUSHED]] = queued
        _on(state, BESIDE_PUSHED, context)
    _move(state, BESIDE, goes_beside, takes_first)
    if takes_first:
        _on(state, BESIDE_POPPED, context)
    state[QUEUED_DEAD] = state[QUEUED_HEAD] != 0 and tags[_heads(state)[0]] < oldest


def cycles(
    design: FfuDesign, kinds: Int64Array, frame: FfuFrame,
    timing: MemoryTiming = MemoryTiming(),  # noqa: B008
    *, load: bool = False, codebook_address: int = 0, scene_address: int = 1 << 20,
) -> int:
    """Cycles from behind ``start`` until all is sent, every token there and taken at once.

    Parameters
    ----------
    design : FfuDesign
        The unit.
    kinds : ndarray
        Kind of every token; all of one group.
    frame : FfuFrame
        What becomes of them.
    timing : MemoryTiming
        The memory, which serves nothing else.
    load : bool
        Whether the codebooks are read.
    codebook_address, scene_address : int
        In bytes.
    """
    state = new_ffu(
        design, load=load, codebook_address=codebook_address, scene_address=scene_address)
    tags = np.zeros(len(kinds), np.int64)
    num, den = timing.read_beats_per_cycle.numerator, timing.read_beats_per_cycle.denominator
    # Of every burst in flight the beats that are to come; when the last one did, in 1/num cycles.
    bursts: deque[tuple[int, int]] = deque()
    clock = -den
    now = given = left = 0
    while left < int(frame.kept.sum()):
        ready = len(bursts) < timing.outstanding
        came = last = False
        if bursts:
            accepted, rest = bursts[0]
            due = max((accepted + timing.latency_cycles) * num, clock + den)
            if due <= now * num:
                clock, came, last = due, True, rest == 1
                bursts[0] = accepted, rest - 1
                if last:
                    bursts.popleft()
        beats, out = offers(state)
        if beats and ready:
            bursts.append((now, int(beats)))
        number = given if given < len(kinds) else -1
        taken = number >= 0 and takes(state, kinds, frame.places)
        step(state, kinds, tags, frame.places, frame.kept, number, 0, False, ready, came, last,
             True)
        given += taken
        left += out >= 0
        now += 1
    return now
