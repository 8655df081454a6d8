"""Cycle model of :class:`splatforge.hw.nru.Nru`: what is issued, asked for and read out, and when.

:func:`offers` tells what the array shows in a cycle, :func:`step` what one cycle does. Which splats
are significant where, which one completes a record and which one ends a pixel is known before
(:class:`Work`); what a look-up finds comes from outside, as it does in hardware.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.nru import NruFrame
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.nru import UNIT_PIXELS, NruDesign
from splatforge.sim import nru_unit

__all__ = ["LATENCY", "SETTLE", "Inputs", "NruState", "Offers", "Work", "new_nru", "offers",
           "step", "work_of"]

#: Cycles from the issue of a splat until its fragments are in the queues.
LATENCY = 11
#: Cycles in which everything is quiet until that is believed.
SETTLE = 3
_STAGES = LATENCY - 1

WAIT, LOAD, LOCKSTEP, SETTLING, PICK, PASS, DRAIN, END = range(8)

# Registers: of the control, of the writer of the buffer, of the look-ups, of what leaves.
(PHASE, FRESH, AT, ROW, LOADED, CALM, MOST, RECORDING, STILL, ALIVE, PASSES, MOVE, REMAPPED,
 READ_HALF, TILE, FILLING, LEFT, PLACE, FILL_HALF, FILL_TILE, TAKEN, WANTED, OUT, LOOKUP_1,
 LOOKUP_2, LOOKUP, EMPTYING, LEAVING, TILE_OUT, ASKING, MARK, X, Y, CLOSING, GROUP, WALK, SIDE,
 CHUNK, CACHING, REMAPPING, REGISTERS) = range(41)
# Of a chunk.
FULL, SPLATS, LAST, OF, FIRST = range(5)
# What a pixel on its way out is; what goes to the cache is LAST_PIXEL behind the last one.
NOTHING, LAST_PIXEL = -1, 1 << 8


class Work(NamedTuple):
    """What there is to do, tile after tile; pixels by unit, bit or place q is its element q.

    Parameters
    ----------
    columns, rows : ndarray
        Of the tiles inside of the frame, shape [tiles].
    starts : ndarray
        First splat of every tile, shape [tiles + 1].
    significant : ndarray
        Pixels that each splat is significant for, shape [splats, units], uint8.
    complete : ndarray
        Place in the list of the splat that completes the record, or -1; shape [tiles, units, 4].
    ends : ndarray
        Place of the splat that ends the pixel, or the length of the list.
    """

    columns: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    significant: npt.NDArray[np.uint8]
    complete: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]


class NruState(NamedTuple):
    """Registers of the array, queues and what is on the way in them."""

    registers: npt.NDArray[np.int64]
    chunks: npt.NDArray[np.int64]
    #: Stage by stage: valid, first splat, places.
    front: npt.NDArray[np.int64]
    #: By unit: live, complete, asked, hit, to do; picked, whether there is one; mask of the last
    #: stage; complete and hit of the tile that leaves.
    pixels: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]
    masks: npt.NDArray[np.int64]
    told: npt.NDArray[np.int64]
    #: Stages of the way out: pixels.
    leaving: npt.NDArray[np.int64]


LIVE, COMPLETE, ASKED, HIT, TODO, PICKED, HAS, MASK, LEFT_COMPLETE, LEFT_HIT, ROWS = range(11)


class Inputs(NamedTuple):
    """What stands at the inputs in a cycle; `answer` is a pixel or -1."""

    tile: bool
    splat: bool
    lookup_ready: bool
    answer: int
    answer_hit: bool
    walk_ready: bool
    tile_ready: bool
    ready: bool


class Offers(NamedTuple):
    """What the outputs show; `lookup` and `walk` are a pixel or -1, 256 where a tile ends."""

    tile_ready: bool
    splat_ready: bool
    skip: bool
    lookup: int
    walk: int
    walk_hit: bool
    tile: bool
    group: bool
    lockstep: bool
    remapped: bool
    stalled: bool
    starved: bool
    bypassed: bool


def new_nru(design: NruDesign, caching: bool, remapping: bool) -> NruState:
    """State from reset."""
    units = design.units
    entries = design.queue_entries + nru_unit.TOLD + 2
    registers = np.zeros(REGISTERS, np.int64)
    registers[[FRESH, SIDE, CHUNK]] = 1, design.side, design.chunk_splats
    registers[[CACHING, REMAPPING]] = caching, remapping
    registers[[LOOKUP_1, LOOKUP_2, LOOKUP, WALK, TILE, TAKEN]] = -1
    return NruState(
        registers=registers, chunks=np.zeros((2, 5), np.int64),
        front=np.zeros((_STAGES + 1, 3), np.int64), pixels=np.zeros((ROWS, units), np.int64),
        units=np.stack([nru_unit.new_nru_unit(design)] * units),
        masks=np.zeros((units, entries), np.int64),
        told=np.zeros((units, entries, UNIT_PIXELS, 3), np.int64),
        leaving=np.full(8, NOTHING, np.int64))


def _by_unit(side: int, pixels: npt.NDArray) -> npt.NDArray:
    """Pixels of tiles, [..., 256] in raster order, as [..., units, 4]."""
    unit, pixel = np.divmod(np.arange(side * side * UNIT_PIXELS), UNIT_PIXELS)
    x, y = unit % side + side * (pixel & 1), unit // side + side * (pixel >> 1)
    return pixels[..., y * TILE_PX + x].reshape(*pixels.shape[:-1], side * side, UNIT_PIXELS)


def work_of(
    design: NruDesign, frame: NruFrame, columns: npt.ArrayLike, rows: npt.ArrayLike,
    starts: npt.NDArray[np.int64], significant: npt.NDArray[np.uint64] | None = None,
) -> Work:
    """Work of tiles that were blended in integers.

    Parameters
    ----------
    design : NruDesign
        The array.
    frame : NruFrame
        From :func:`splatforge.algos.nru.nru_fixed`.
    columns, rows : array_like
        Of the tiles inside of the frame.
    starts : ndarray
        First splat of every tile.
    significant : ndarray, optional
        As in `frame`, but of pixels that have ended as well: hardware tests these until it knows.
        Without it the few fragments between are left out.
    """
    words = frame.significant if significant is None else significant
    bits = np.unpackbits(
        np.ascontiguousarray(words, "<u8").view(np.uint8), axis=1, bitorder="little")
    places = _by_unit(design.side, bits)
    return Work(
        columns=np.asarray(columns, np.int64), rows=np.asarray(rows, np.int64),
        starts=np.asarray(starts, np.int64),
        significant=np.packbits(places, axis=2, bitorder="little")[..., 0],
        complete=np.ascontiguousarray(_by_unit(design.side, frame.complete)),
        ends=np.ascontiguousarray(_by_unit(design.side, frame.ends)))


@nb.njit(inline="always")
def _bits(mask):
    """How many bits of four are set."""
    return (mask & 1) + (mask >> 1 & 1) + (mask >> 2 & 1) + (mask >> 3 & 1)


@nb.njit(inline="always")
def _lowest(mask):
    """Number of the lowest bit of four, zero where none is set."""
    for n in range(4):
        if mask >> n & 1:
            return n
    return 0


@nb.njit(inline="always")
def _number(side, unit, pixel):
    """Number in the tile of a unit's pixel."""
    return ((unit // side + side * (pixel >> 1)) * 2 * side + unit % side + side * (pixel & 1))


@nb.njit(inline="always")
def _unit(side, number):
    """Unit and place of a pixel of the tile."""
    x, y = number % (2 * side), number // (2 * side)
    return y % side * side + x % side, x // side + 2 * (y // side)


@nb.njit(inline="always")
def _buffer(state):
    """Whether the tile in blending ends before its list, frees the other half, and skips."""
    v, chunks = state.registers, state.chunks
    ends = v[PHASE] == END and not v[EMPTYING]
    here, other = chunks[v[READ_HALF]], chunks[1 - v[READ_HALF]]
    drop = ends and not here[LAST]
    return ends, drop and other[FULL] != 0, drop and not (other[FULL] and other[LAST])


@nb.njit(inline="always")
def _issues(state):
    """Whether a splat is issued if the front moves, and four."""
    v, chunk = state.registers, state.chunks[state.registers[READ_HALF]]
    if v[PHASE] == LOCKSTEP:
        if v[MOST] == 0 or v[AT] == chunk[SPLATS]:
            return False, False
        return not (v[REMAPPING] and v[AT] % 4 == 0 and v[MOST] < 4 and not v[RECORDING]
                    and not _looking(state)), False
    if v[PHASE] == PASS:
        return False, v[ROW] != (chunk[SPLATS] + 3) // 4 and v[ALIVE] != 0
    return False, False


@nb.njit(inline="always")
def _looking(state):
    """Whether a look-up is wanted or out."""
    v = state.registers
    return v[CACHING] != 0 and (v[WANTED] != 0 or v[LOOKUP_1] >= 0 or v[LOOKUP_2] >= 0
                                or v[LOOKUP] >= 0 or v[OUT] > 0)


@nb.njit
def offers(state: NruState, walk_ready: bool, ready: bool) -> Offers:
    """What the outputs show; `bypassed` alone depends on the readiness of `o_walk` and `o`.

    Parameters
    ----------
    state : NruState
        From :func:`new_nru`.
    walk_ready, ready : bool
        Of the two.
    """
    v = state.registers
    _, _, skip = _buffer(state)
    one, four = _issues(state)
    walk, walk_hit = v[WALK], False
    if 0 <= walk < LAST_PIXEL:
        unit, pixel = _unit(v[SIDE], walk)
        walk_hit = state.pixels[LEFT_HIT, unit] >> pixel & 1 != 0
    seven = state.leaving[7]
    bypassed = False
    if 0 <= seven < LAST_PIXEL and v[CACHING] and (
            (not v[GROUP] or ready) and (v[WALK] < 0 or walk_ready)):
        unit, pixel = _unit(v[SIDE], seven)
        bypassed = state.pixels[LEFT_COMPLETE, unit] >> pixel & 1 == 0
    return Offers(
        v[FILLING] == 0 and not skip,
        v[FILLING] != 0 and v[LEFT] > 0 and state.chunks[v[FILL_HALF], FULL] == 0 and not skip,
        skip, v[LOOKUP], walk, walk_hit, v[TILE_OUT] != 0, v[GROUP] != 0,
        one and v[MOVE] != 0, four and v[MOVE] != 0, (one or four) and v[MOVE] == 0,
        v[PHASE] == WAIT and state.chunks[v[READ_HALF], FULL] == 0, bypassed)


@nb.njit
def step(state: NruState, work: Work, i: Inputs) -> None:
    """One cycle.

    Parameters
    ----------
    state : NruState
        From :func:`new_nru`; is changed.
    work : Work
        What there is to do.
    i : Inputs
        What stands at the inputs.
    """
    v, pixels, front = state.registers, state.pixels, state.front
    of_units, told = state.units, state.told
    units = pixels.shape[1]
    shown = offers(state, i.walk_ready, i.ready)
    ends, dropped, _ = _buffer(state)
    one, four = _issues(state)
    looking = _looking(state)
    here = state.chunks[v[READ_HALF]]
    move = v[MOVE] != 0
    begin = v[PHASE] == WAIT and here[FULL] != 0 and v[FRESH] != 0

    # What depends on registers of this cycle, for the next.
    quiet = True
    for n in range(1, _STAGES + 1):
        quiet = quiet and front[n, 0] == 0
    empty = quiet
    room, most, recording, alive, wanted, first = True, 0, False, False, False, -1
    for n in range(units):
        count = of_units[n, nru_unit.CAME] - of_units[n, nru_unit.WENT]
        room = room and count < of_units[n, nru_unit.DEPTH] - 1
        quiet = quiet and not nru_unit.offers(of_units, told, n)[4]
        live = pixels[LIVE, n]
        most = max(most, _bits(live))
        recording = recording or (live & ~pixels[COMPLETE, n]) != 0
        alive = alive or (pixels[HAS, n] != 0 and live >> pixels[PICKED, n] & 1 != 0)
        if pixels[COMPLETE, n] & ~pixels[ASKED, n]:
            wanted = True
            if first < 0:
                first = n
    recording = recording and v[CACHING] != 0

    # Entries into the queues, and the units. What they tell belongs to this cycle.
    splat, places = front[_STAGES, 1], front[_STAGES, 2]
    told_ended, told_complete = np.zeros(units, np.int64), np.zeros(units, np.int64)
    for n in range(units):
        entry = -1
        if front[_STAGES, 0] and move and pixels[MASK, n]:
            entry = of_units[n, nru_unit.CAME] % state.masks.shape[1]
            state.masks[n, entry] = pixels[MASK, n]
            start = work.starts[v[TILE]]
            for q in range(UNIT_PIXELS):
                pixel, place = q, splat - start
                if v[REMAPPED]:
                    pixel, place = pixels[PICKED, n], splat + q - start
                told[n, entry, q, 0] = pixel
                told[n, entry, q, 1] = place >= work.ends[v[TILE], n, pixel]
                told[n, entry, q, 2] = place == work.complete[v[TILE], n, pixel]
        _, told_ended[n], told_complete[n], _, _ = nru_unit.offers(of_units, told, n)
        nru_unit.step(of_units, state.masks, n, entry, begin)

    # The front.
    if move:
        splat, places = front[_STAGES - 1, 1], front[_STAGES - 1, 2]
        for n in range(units):
            mask = 0
            if front[_STAGES - 1, 0]:
                if v[REMAPPED]:
                    pixel = pixels[PICKED, n]
                    if pixels[HAS, n] and pixels[LIVE, n] >> pixel & 1:
                        for q in range(UNIT_PIXELS):
                            if places >> q & 1:
                                mask |= (work.significant[splat + q, n] >> pixel & 1) << q
                else:
                    mask = work.significant[splat, n] & pixels[LIVE, n]
            pixels[MASK, n] = mask
        for n in range(_STAGES, 1, -1):
            front[n] = front[n - 1]
        front[1, 0] = one or four
        if one:
            front[1, 1], front[1, 2] = here[FIRST] + v[AT], 15
            v[REMAPPED] = 0
        if four:
            left = here[SPLATS] - 4 * v[ROW]
            front[1, 1] = here[FIRST] + 4 * v[ROW]
            front[1, 2] = 15 if left >= 4 else (1 << left) - 1
            v[REMAPPED] = 1

    # Look-ups.
    go_on = v[LOOKUP] < 0 or i.lookup_ready
    v[OUT] += (v[LOOKUP] >= 0 and i.lookup_ready) - (i.answer >= 0)
    ask = -1
    if go_on:
        v[LOOKUP], v[LOOKUP_2], v[LOOKUP_1] = v[LOOKUP_2], v[LOOKUP_1], -1
        if v[CACHING] and not v[EMPTYING] and first >= 0:
            ask = _lowest(pixels[COMPLETE, first] & ~pixels[ASKED, first])
            v[LOOKUP_1] = _number(v[SIDE], first, ask)

    # Pixels; what is picked is what was live before.
    free = (v[PHASE] == LOCKSTEP and v[MOST] > 0 and v[AT] == here[SPLATS] and not here[LAST])
    tile = here[OF]
    _control(state, begin, ends, free, looking, empty, one, four)
    if ends:
        pixels[LEFT_COMPLETE] = pixels[COMPLETE]
        pixels[LEFT_HIT] = pixels[HIT]
    found_unit, found = -1, 0
    if i.answer >= 0 and i.answer_hit:
        found_unit, pixel = _unit(v[SIDE], i.answer)
        found = 1 << pixel
    for n in range(units):
        pixels[ASKED, n] &= pixels[COMPLETE, n]
        if ask >= 0 and n == first:
            pixels[ASKED, n] |= 1 << ask
        if begin:
            pixels[COMPLETE, n] = pixels[HIT, n] = pixels[LIVE, n] = 0
            for q in range(UNIT_PIXELS):
                number = _number(v[SIDE], n, q)
                if (number % (2 * v[SIDE]) < work.columns[tile]
                        and number // (2 * v[SIDE]) < work.rows[tile]):
                    pixels[LIVE, n] |= 1 << q
        else:
            hit = found if n == found_unit else 0
            pixels[LIVE, n] &= ~(told_ended[n] | hit)
            pixels[COMPLETE, n] |= told_complete[n]
            pixels[HIT, n] |= hit

    _leave(state, work, i, ends)
    if begin:
        v[TILE] = tile
    _fill(state, work, i, shown, free or ends, dropped)
    v[MOVE], v[MOST], v[RECORDING], v[STILL], v[ALIVE], v[WANTED] = (
        room, most, recording, quiet, alive, wanted)


@nb.njit(inline="always")
def _control(state, begin, ends, free, looking, empty, one, four):
    """The phase, and what counts the chunk's splats."""
    v, pixels = state.registers, state.pixels
    chunk = state.chunks[v[READ_HALF]]
    phase, calm = v[PHASE], v[CALM]
    v[CALM] = 0
    if phase == WAIT:
        v[AT] = v[LOADED] = 0
        if chunk[FULL]:
            v[PHASE] = LOAD if begin else LOCKSTEP
            v[FRESH] = 0
    elif phase == LOAD:
        v[LOADED] += 1
        if v[LOADED] == 2:
            v[PHASE] = LOCKSTEP
    elif phase == LOCKSTEP:
        if free:
            v[PHASE] = WAIT
        elif not one:
            v[PHASE] = SETTLING
        else:
            v[AT] += v[MOVE]
    elif phase == SETTLING:
        v[PASSES] = v[MOST]
        if v[STILL] and not looking:
            v[CALM] = calm + 1
        if calm == SETTLE:
            v[PHASE] = END if v[MOST] == 0 or v[AT] == chunk[SPLATS] else PICK
            pixels[TODO] = pixels[LIVE]
    elif phase == PICK:
        v[ROW] = v[AT] // 4
        if v[LOADED] % 2 == 0:
            v[PASSES] -= 1
            for n in range(pixels.shape[1]):
                todo = pixels[TODO, n]
                pixels[HAS, n], pixels[PICKED, n] = todo != 0, _lowest(todo)
                pixels[TODO, n] = todo & (todo - 1)
        else:
            v[PHASE] = PASS
        v[LOADED] += 1
    elif phase == PASS:
        if four:
            v[ROW] += v[MOVE]
        else:
            v[PHASE] = DRAIN
    elif phase == DRAIN:
        if empty:
            v[PHASE] = PICK
            if v[PASSES] == 0:
                v[PHASE], v[AT] = LOCKSTEP, chunk[SPLATS]
    elif ends:
        v[PHASE], v[FRESH] = WAIT, 1


@nb.njit(inline="always")
def _leave(state, work, i, ends):
    """Pixels of a finished tile on their way out."""
    v, leaving = state.registers, state.leaving
    move = (not v[GROUP] or i.ready) and (v[WALK] < 0 or i.walk_ready)
    closed = v[CLOSING] and not v[GROUP] and v[WALK] < 0
    asking, last_x = v[ASKING], v[X] + 1 == work.columns[v[LEAVING]]
    if i.ready:
        v[GROUP] = 0
    if i.walk_ready:
        v[WALK] = -1
    if move:
        four, seven = leaving[4], leaving[7]
        v[GROUP], v[WALK] = 0, -1
        if 0 <= four < LAST_PIXEL:
            x = four % (2 * v[SIDE])
            v[GROUP] = x % 4 == 3 or x + 1 == work.columns[v[LEAVING]]
        if v[CACHING] and seven == LAST_PIXEL:
            v[WALK] = seven
        elif v[CACHING] and seven >= 0:
            unit, pixel = _unit(v[SIDE], seven)
            if state.pixels[LEFT_COMPLETE, unit] >> pixel & 1:
                v[WALK] = seven
        if seven == LAST_PIXEL:
            v[CLOSING] = 1
        for n in range(7, 1, -1):
            leaving[n] = leaving[n - 1]
        leaving[1] = NOTHING
        if asking:
            leaving[1] = v[Y] * 2 * v[SIDE] + v[X]
        elif v[MARK]:
            leaving[1] = LAST_PIXEL
        v[MARK] = 0
        if asking:
            v[X] += 1
            if last_x:
                v[X] = 0
                v[Y] += 1
                if v[Y] == work.rows[v[LEAVING]]:
                    v[ASKING], v[MARK] = 0, 1
    if closed:
        v[CLOSING] = v[EMPTYING] = 0
    if v[TILE_OUT] and i.tile_ready:
        v[TILE_OUT] = v[X] = v[Y] = 0
        v[ASKING] = 1
    if ends:
        v[EMPTYING] = v[TILE_OUT] = 1
        v[LEAVING] = v[TILE]


@nb.njit(inline="always")
def _fill(state, work, i, shown, over, dropped):
    """Splats into the buffer; a half becomes free where its chunk is `over`."""
    v, chunks = state.registers, state.chunks
    half, left, place = v[FILL_HALF], v[LEFT], v[PLACE]
    take = i.splat and shown.splat_ready
    if v[FILLING] and not chunks[half, FULL] and not shown.skip and (
            left == 0 or (take and (left == 1 or place == v[CHUNK] - 1))):
        tile = v[FILL_TILE]
        chunks[half, FULL] = 1
        chunks[half, SPLATS] = place + take
        chunks[half, LAST] = left - take == 0
        chunks[half, OF] = tile
        chunks[half, FIRST] = work.starts[tile + 1] - left - place
        v[FILL_HALF] = 1 - half
        if left - take == 0:
            v[FILLING] = 0
    if take:
        v[LEFT] -= 1
        v[PLACE] = (place + 1) % v[CHUNK]
    if i.tile and shown.tile_ready:
        v[TAKEN] += 1
        v[FILLING], v[PLACE], v[FILL_TILE] = 1, 0, v[TAKEN]
        v[LEFT] = work.starts[v[TAKEN] + 1] - work.starts[v[TAKEN]]
    if shown.skip:
        v[FILLING] = 0
    if over:
        chunks[v[READ_HALF], FULL] = 0
        if dropped:
            chunks[1 - v[READ_HALF], FULL] = 0
        else:
            v[READ_HALF] = 1 - v[READ_HALF]
