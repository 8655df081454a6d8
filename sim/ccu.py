"""Cycle model of :class:`splatforge.hw.ccu.Ccu`: it steps what decides when a Gaussian moves.

No number that is computed is here but a Gaussian's tiles: how many are walked, and which of them
are met, as the bit-true model says (:class:`splatforge.algos.ccu.CcuFrame`). :func:`offers` tells
what the unit shows in a cycle, :func:`step` what one cycle does.
"""

from collections import deque

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.ccu import CcuFrame, ccu_schedule
from splatforge.designs.ccu import CAMERA_BEATS, CcuDesign, gaussian_beats
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.shell import ShellDesign
from splatforge.sim import folded

__all__ = ["cycles", "is_done", "is_idle", "new_ccu", "offers", "starts_of", "step"]

#: Cycles that the multiplier takes for a Gaussian.
_PRODUCTS = 7
#: Cycles behind ``start`` until it is known how many beats there are.
_START = 2

# Constants of the frame: beats of a burst, bursts in flight, beats of the buffer, the camera's
# address in beats. Of the loader: the next address of the Gaussians in beats, and beats that have
# not been asked for; whether the camera has not; the burst that waits for the bus, 0 beats if none
# does; beats asked for that have not left the buffer; bursts in flight; beats of the camera that
# came. Gaussians that are to come out of the arithmetic. Then the places behind it, each -1 or the
# number of the Gaussian that it holds, and more about some: the multiplier's step, the walk's tile.
# Of the last stage: whether its Gaussian has been met before, the next met tile of all. Whether a
# feature is offered; numbers of the entry that is and of the one that waits behind it, from 1, or
# 0, and whether that one has a feature with it. Counts. Cycles until the camera can be asked for.
# Whether the buffer had room for a burst a cycle ago, and one more might be in flight.
(BURST, FLYING_LIMIT, BUFFER, CAMERA, PLACE, LEFT, ASKS_CAMERA, ADDRESS, ADDRESS_BEATS, RESERVED,
 FLYING, CAMERA_CAME, RESULTS, FIRST, SECOND, THIRD, FOURTH, FIFTH, STEP, WALK, WALK_TILE, REGIONS,
 REGIONS_TILE, MET, MET_TILE, SEEN, NEXT, FEATURE, ENTRY, WAITS, WAITS_FIRST, BUSY, STALLED,
 PROJECTED, VISIBLE, PAIRS, STARTS, ROOM, FEW) = range(39)
#: Then the state of the arithmetic.
FOLDED = 39


def new_ccu(
    design: CcuDesign, gaussians: int, sh_degree: int, *, camera_address: int, scene_address: int,
    shell: ShellDesign = ShellDesign(),  # noqa: B008
) -> npt.NDArray[np.int64]:
    """State in the cycle behind ``start``.

    Parameters
    ----------
    design : CcuDesign
        The unit.
    gaussians, sh_degree : int
        Records, and their degree.
    camera_address, scene_address : int
        Of the records, in bytes.
    shell : ShellDesign
        Bus.
    """
    beats = gaussian_beats(sh_degree)
    arithmetic = folded.new_folded(ccu_schedule(design), beats, design.buffer_beats)
    state = np.zeros(FOLDED + len(arithmetic), np.int64)
    state[FOLDED:] = arithmetic
    state[BURST], state[FLYING_LIMIT] = design.burst_beats, design.outstanding_bursts
    state[BUFFER] = design.buffer_beats
    state[CAMERA], state[PLACE] = (
        address // shell.data_bytes for address in (camera_address, scene_address))
    state[LEFT], state[ASKS_CAMERA], state[RESULTS] = gaussians * beats, 1, gaussians
    state[STARTS], state[ROOM], state[FEW] = _START, 1, 1
    for place in (FIRST, SECOND, THIRD, FOURTH, FIFTH, WALK, REGIONS, MET):
        state[place] = -1
    return state


def starts_of(frame: CcuFrame) -> npt.NDArray[np.int64]:
    """For every Gaussian its first entry, and behind the last the number of all; [N + 1]."""
    return np.concatenate([[0], np.cumsum(frame.met, dtype=np.int64)])


@nb.njit
def offers(state):
    """Beats of the burst that is asked for or 0, whether a feature and an entry are offered."""
    return state[ADDRESS_BEATS], state[FEATURE] != 0, state[ENTRY] != 0


@nb.njit
def is_done(state):
    """Whether the camera has come, all Gaussians are projected and all that was sent is taken."""
    done = (state[CAMERA_CAME] == CAMERA_BEATS and state[RESULTS] == 0 and state[FEATURE] == 0
            and state[ENTRY] == 0)
    for place in (FIRST, SECOND, THIRD, FOURTH, FIFTH, WALK, REGIONS, MET):
        done = done and state[place] < 0
    return done


@nb.njit
def is_idle(state):
    """Whether no address waits and no burst is in flight."""
    return state[FLYING] == 0


@nb.njit(inline="always")
def _send(state, starts, places, feature_ready, entry_ready):
    """The last stage; returns whether the walk goes on."""
    number = state[MET]
    go = not state[WAITS]
    hit = (go and number >= 0 and state[NEXT] < starts[number + 1]
           and places[state[NEXT]] == state[MET_TILE])
    entry, first = state[WAITS], state[WAITS_FIRST] != 0
    if hit:
        state[NEXT] += 1
        entry, first = state[NEXT], not state[SEEN]
        state[PAIRS] += 1
        state[VISIBLE] += first
        state[SEEN] = 1
    if entry_ready:
        state[ENTRY] = 0
    if feature_ready:
        state[FEATURE] = 0
    free = not state[ENTRY] and not (first and state[FEATURE])
    state[WAITS], state[WAITS_FIRST] = 0, 0
    if entry and free:
        state[ENTRY] = entry
        if first:
            state[FEATURE] = 1
    elif entry:
        state[WAITS], state[WAITS_FIRST] = entry, first
    return go


@nb.njit(inline="always")
def _load(state, stop, address_ready, beat, last, freed, beats):
    """The loader, which is told how many beats leave the buffer."""
    free = not stop and state[ADDRESS_BEATS] == 0 and state[FEW] != 0
    state[FEW] = state[FLYING] < state[FLYING_LIMIT]
    asks_camera = free and state[ASKS_CAMERA] != 0 and state[STARTS] == 0
    asks = free and state[ASKS_CAMERA] == 0 and state[LEFT] > 0 and state[ROOM] != 0
    state[ROOM] = state[RESERVED] <= state[BUFFER] - state[BURST]
    state[STARTS] = max(state[STARTS] - 1, 0)
    if address_ready:
        state[ADDRESS_BEATS] = 0
    if asks_camera:
        state[ASKS_CAMERA] = 0
        state[ADDRESS] = state[CAMERA]
        state[ADDRESS_BEATS] = CAMERA_BEATS
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
        state[RESERVED] -= beats
    if beat and state[CAMERA_CAME] < CAMERA_BEATS:
        state[CAMERA_CAME] += 1
    elif beat:
        state[BUSY] += 1


@nb.njit
def step(
    state, walked, starts, places, stop, address_ready, beat, last, feature_ready, entry_ready
):
    """One cycle.

    Parameters
    ----------
    state : ndarray
        From :func:`new_ccu`.
    walked, starts, places : ndarray
        Tiles that are walked for every Gaussian; its first entry, from :func:`starts_of`; the place
        of every entry's tile among those that are walked.
    stop : bool
        Nothing more is to be asked for.
    address_ready : bool
        The bus takes an address.
    beat, last : bool
        A beat arrives; it is the last of its burst.
    feature_ready, entry_ready : bool
        A feature record, an entry is taken if there is one.
    """
    arithmetic = state[FOLDED:]
    _, result = folded.offers(arithmetic)
    takes = state[FIRST] < 0
    state[STALLED] += folded.is_stalled(arithmetic)
    freed = folded.step(arithmetic, beat and state[CAMERA_CAME] == CAMERA_BEATS, takes)
    _load(state, stop, address_ready, beat, last, freed, arithmetic[folded.BEATS])

    # The walk, its end first.
    ended = state[MET] >= 0 and state[MET_TILE] == walked[state[MET]] - 1
    go = _send(state, starts, places, feature_ready, entry_ready)
    if go and ended:
        state[SEEN] = 0
    ready = state[FIFTH] >= 0 and state[STEP] == _PRODUCTS
    last_tile = state[WALK] >= 0 and state[WALK_TILE] == walked[state[WALK]] - 1
    loads = ready and state[WALK] < 0
    if go:
        state[MET], state[MET_TILE] = state[REGIONS], state[REGIONS_TILE]
        state[REGIONS], state[REGIONS_TILE] = state[WALK], state[WALK_TILE]
        if state[WALK] >= 0:
            state[WALK_TILE] += 1
            if last_tile:
                state[WALK] = -1

    # The stages in front of it: each takes only when it is empty.
    takes_fifth = state[FOURTH] >= 0 and state[FIFTH] < 0
    takes_fourth = state[THIRD] >= 0 and state[FOURTH] < 0
    takes_third = state[SECOND] >= 0 and state[THIRD] < 0
    takes_second = state[FIRST] >= 0 and state[SECOND] < 0
    if state[FIFTH] < 0:
        state[STEP] = 0
    elif not ready:
        state[STEP] += 1
    if loads:
        state[WALK] = state[FIFTH]
        state[WALK_TILE] = 0
        state[FIFTH] = -1
    if takes_fifth:
        # What has no tile to walk is dropped.
        if walked[state[FOURTH]] > 0:
            state[FIFTH] = state[FOURTH]
        state[FOURTH] = -1
    if takes_fourth:
        state[FOURTH] = state[THIRD]
        state[THIRD] = -1
    if takes_third:
        state[THIRD] = state[SECOND]
        state[SECOND] = -1
    if takes_second:
        state[SECOND] = state[FIRST]
        state[FIRST] = -1
    if result and takes:
        state[FIRST] = state[PROJECTED]
        state[PROJECTED] += 1
        state[RESULTS] -= 1


def cycles(
    design: CcuDesign, frame: CcuFrame, sh_degree: int,
    timing: MemoryTiming = MemoryTiming(),  # noqa: B008
    *, camera_address: int = 0, scene_address: int = 4096,
) -> int:
    """Cycles of a frame from behind ``start`` until all is sent, every output taken at once.

    Parameters
    ----------
    design : CcuDesign
        The unit.
    frame : CcuFrame
        What leaves it.
    sh_degree : int
        Of the records.
    timing : MemoryTiming
        The memory, which serves nothing else.
    camera_address, scene_address : int
        Of the records, in bytes.
    """
    state = new_ccu(
        design, len(frame.walked), sh_degree, camera_address=camera_address,
        scene_address=scene_address)
    starts = starts_of(frame)
    num, den = timing.read_beats_per_cycle.numerator, timing.read_beats_per_cycle.denominator
    # Of every burst in flight the beats that are to come; when the last one did, in 1/num cycles.
    bursts: deque[tuple[int, int]] = deque()
    clock = -den
    now = 0
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
        beats, _, _ = offers(state)
        if beats and ready:
            bursts.append((now, beats))
        step(state, frame.walked, starts, frame.places, False, ready, came, last, True, True)
        now += 1
    return now
