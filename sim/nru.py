"""Cycle model of :class:`splatforge.hw.nru.Nru`: what is issued, asked for and read out, and when.

:func:`offers` tells what the array shows in a cycle, :func:`step` what one cycle does. Which splats
are significant where, which one completes a record and which one ends a pixel is known before
(:class:`Work`); what a look-up finds comes from outside, as it does in hardware. What is one bit of
every unit is in words, as in :mod:`splatforge.sim.nru_unit`: a cycle takes the time of what is in
it.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.nru import NruFrame
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.nru import NruDesign
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
 ACROSS, PIXELS, UNIT_WORDS, ALL_WORDS, CHUNK, CACHING, REMAPPING, OLDEST, TESTED) = range(46)
# From SIDE on: rows of units, units in a row, pixels of a unit; words of a bit of each unit, and of
# each pixel. Behind all of them words of units, of the first 64 by pixel, then of the others: live,
# complete, asked, hit, to do, picked; by place: the last stage of the tests; by pixel: complete and
# hit of the tile that leaves.
(LIVE, COMPLETE, ASKED, HIT, TODO, PICKED, PLACES, LEFT_COMPLETE, LEFT_HIT,
 CHUNKS) = range(46, 46 + 10 * nru_unit.PIXEL_WORDS, nru_unit.PIXEL_WORDS)
# The two chunks, and of each:
FULL, SPLATS, LAST, OF, FIRST, CHUNK_SIZE = range(6)
# A ring of the stages of the tests: valid, first splat, places.
FRONT = CHUNKS + 2 * CHUNK_SIZE
# Stages of the way out: pixels.
WAY = FRONT + 3 * _STAGES
SIZE = WAY + 8
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
        Words of units: of the first 64 those whose pixel 0, 1, ... a splat is significant for, then
        of the others; shape [splats, words * unit_pixels].
    complete : ndarray
        Place in the list of the splat that completes the record, or -1; shape
        [tiles, units, unit_pixels].
    ends : ndarray
        Place of the splat that ends the pixel, or the length of the list.
    """

    columns: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    significant: npt.NDArray[np.int64]
    complete: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]


class NruState(NamedTuple):
    """Registers of the array, and its units'."""

    registers: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]


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
    registers = np.zeros(SIZE, np.int64)
    words = nru_unit.words_of(design.units)
    registers[[FRESH, SIDE, ACROSS, PIXELS, UNIT_WORDS, ALL_WORDS, CHUNK]] = (
        1, design.side, design.units_x, design.unit_pixels, words, words * design.unit_pixels,
        design.chunk_splats)
    registers[[CACHING, REMAPPING]] = caching, remapping
    registers[[LOOKUP_1, LOOKUP_2, LOOKUP, WALK, TILE, TAKEN]] = -1
    registers[WAY:] = NOTHING
    return NruState(registers=registers, units=nru_unit.new_units(design, design.units))


def _by_unit(design: NruDesign, pixels: npt.NDArray) -> npt.NDArray:
    """Pixels of tiles, [..., 256] in raster order, as [..., units, unit_pixels]."""
    across, own = design.units_x, design.unit_pixels
    unit, pixel = np.divmod(np.arange(design.units * own), own)
    x = unit % across + across * (pixel % design.pixels_x)
    y = unit // across + design.side * (pixel // design.pixels_x)
    return pixels[..., y * TILE_PX + x].reshape(*pixels.shape[:-1], design.units, own)


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
    unit_words = nru_unit.words_of(design.units)
    of_units = np.zeros((len(words), unit_words * design.unit_pixels), np.int64)
    _split(np.ascontiguousarray(words, np.uint64).view(np.int64), design.side, design.units_x,
           design.unit_pixels, of_units)
    return Work(
        columns=np.asarray(columns, np.int64), rows=np.asarray(rows, np.int64),
        starts=np.asarray(starts, np.int64), significant=of_units,
        complete=np.ascontiguousarray(_by_unit(design, frame.complete)),
        ends=np.ascontiguousarray(_by_unit(design, frame.ends)))


@nb.njit(inline="always")
def _any(v, words):
    """Of 64 units those that have a bit at any of their pixels."""
    units = np.int64(0)
    for n in range(v[PIXELS]):
        units |= v[words + n]
    return units


@nb.njit(inline="always")
def _most(v, words):
    """At how many pixels that unit has a bit which has most of them."""
    most = np.int64(0)
    for first in range(words, words + v[ALL_WORDS], v[PIXELS]):
        # Counts of 64 units, a word of each of their bits.
        one = two = four = eight = np.int64(0)
        for n in range(v[PIXELS]):
            carry = v[first + n]
            one, carry = one ^ carry, one & carry
            two, carry = two ^ carry, two & carry
            four, carry = four ^ carry, four & carry
            eight |= carry
        # The units whose counts have all bits that the greatest has.
        among, greatest = np.int64(-1), np.int64(0)
        if eight:
            among, greatest = eight, np.int64(8)
        if among & four:
            among, greatest = among & four, greatest + 4
        if among & two:
            among, greatest = among & two, greatest + 2
        if among & one:
            greatest += 1
        most = max(most, greatest)
    return most


@nb.njit(inline="always")
def _place(v, number):
    """Where the bit of a pixel of the tile is: in which word, at which place."""
    unit, pixel = _unit(v[SIDE], v[ACROSS], number)
    return v[PIXELS] * (unit >> 6) + pixel, unit & 63


@nb.njit(inline="always")
def _has(v, words, number):
    """Whether a pixel of the tile is in the words."""
    word, place = _place(v, number)
    return v[words + word] >> place & 1 != 0


@nb.njit(inline="always")
def _number(side, across, unit, pixel):
    """Number in the tile of a unit's pixel."""
    columns = 2 * side // across
    return ((unit // across + side * (pixel // columns)) * 2 * side
            + unit % across + across * (pixel % columns))


@nb.njit(inline="always")
def _unit(side, across, number):
    """Unit and place of a pixel of the tile."""
    x, y = number % (2 * side), number // (2 * side)
    return y % side * across + x % across, x // across + 2 * side // across * (y // side)


@nb.njit(inline="always")
def _chunk(v, half):
    """Where the registers of a chunk are."""
    return CHUNKS + CHUNK_SIZE * half


@nb.njit(inline="always")
def _buffer(v):
    """Whether the tile in blending ends before its list, frees the other half, and skips."""
    ends = v[PHASE] == END and not v[EMPTYING]
    here, other = _chunk(v, v[READ_HALF]), _chunk(v, 1 - v[READ_HALF])
    drop = ends and not v[here + LAST]
    return ends, drop and v[other + FULL] != 0, drop and not (v[other + FULL] and v[other + LAST])


@nb.njit(inline="always")
def _issues(v):
    """Whether a splat is issued if the front moves, and as many as a unit has pixels."""
    here = _chunk(v, v[READ_HALF])
    one = several = False
    if v[PHASE] == LOCKSTEP:
        if v[MOST] != 0 and v[AT] != v[here + SPLATS]:
            one = not (v[REMAPPING] and v[AT] & v[PIXELS] - 1 == 0 and v[MOST] < v[PIXELS]
                       and not v[RECORDING] and not _looking(v))
    elif v[PHASE] == PASS:
        several = v[PIXELS] * v[ROW] < v[here + SPLATS] and v[ALIVE] != 0
    return one, several


@nb.njit(inline="always")
def _looking(v):
    """Whether a look-up is wanted or out."""
    return v[CACHING] != 0 and (v[WANTED] != 0 or v[LOOKUP_1] >= 0 or v[LOOKUP_2] >= 0
                                or v[LOOKUP] >= 0 or v[OUT] > 0)


@nb.njit(inline="always")
def _takes(v, skip):
    """Whether a tile is taken, and a splat."""
    return (v[FILLING] == 0 and not skip,
            v[FILLING] != 0 and v[LEFT] > 0 and v[_chunk(v, v[FILL_HALF]) + FULL] == 0
            and not skip)


@nb.njit(cache=True)
def _split(words, side, across, pixels, of_units):
    """Pixels in raster order, four words of 64, to words of units by their pixel."""
    for splat in range(len(words)):
        for word in range(words.shape[1]):
            left = words[splat, word]
            while left:
                y, x = divmod(64 * word + nru_unit.lowest(left), TILE_PX)
                left &= left - 1
                if x < 2 * side and y < 2 * side:
                    unit, pixel = _unit(side, across, 2 * side * y + x)
                    of_units[splat, pixels * (unit >> 6) + pixel] |= 1 << (unit & 63)


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
    _, _, skip = _buffer(v)
    one, several = _issues(v)
    walk = v[WALK]
    walk_hit = bool(0 <= walk < LAST_PIXEL and _has(v, LEFT_HIT, walk))
    seven = v[WAY + 7]
    bypassed = bool(
        0 <= seven < LAST_PIXEL and v[CACHING] and (not v[GROUP] or ready)
        and (v[WALK] < 0 or walk_ready) and not _has(v, LEFT_COMPLETE, seven))
    tile_ready, splat_ready = _takes(v, skip)
    return Offers(
        tile_ready, splat_ready, skip, v[LOOKUP], walk, walk_hit, v[TILE_OUT] != 0, v[GROUP] != 0,
        one and v[MOVE] != 0, several and v[MOVE] != 0, (one or several) and v[MOVE] == 0,
        v[PHASE] == WAIT and v[_chunk(v, v[READ_HALF]) + FULL] == 0, bypassed)


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
    v, of_units = state.registers, state.units
    ends, dropped, skip = _buffer(v)
    tile_ready, splat_ready = _takes(v, skip)
    one, several = _issues(v)
    looking = _looking(v)
    here = _chunk(v, v[READ_HALF])
    move = v[MOVE] != 0
    begin = v[PHASE] == WAIT and v[here + FULL] != 0 and v[FRESH] != 0

    # What depends on registers of this cycle, for the next.
    _, narrow, told, busy = nru_unit.offers(of_units)
    empty = v[TESTED] == 0
    quiet = empty and not busy
    most = _most(v, LIVE)
    recording, alive, wanting = np.int64(0), np.int64(0), np.int64(0)
    for n in range(v[ALL_WORDS]):
        recording |= v[LIVE + n] & ~v[COMPLETE + n]
        alive |= v[PICKED + n] & v[LIVE + n]
        wanting |= v[COMPLETE + n] & ~v[ASKED + n]

    # Entries into the queues, and the front.
    if move:
        last = FRONT + 3 * v[OLDEST]
        if v[last]:
            for word in range(v[UNIT_WORDS]):
                offered = _any(v, PLACES + v[PIXELS] * word)
                of_units[nru_unit.OFFERED + word] = offered
                if offered:
                    _entries(v, of_units, work.ends, work.complete, word, offered,
                             v[last + 1] - work.starts[v[TILE]])
        v[TESTED] += (one or several) - v[last]
        v[last] = one or several
        if one:
            v[last + 1], v[last + 2] = v[here + FIRST] + v[AT], (1 << v[PIXELS]) - 1
        if several:
            done = v[PIXELS] * v[ROW]
            v[last + 1] = v[here + FIRST] + done
            v[last + 2] = (1 << min(v[PIXELS], v[here + SPLATS] - done)) - 1
        v[OLDEST] = v[OLDEST] + 1 if v[OLDEST] + 1 < _STAGES else 0
        last = FRONT + 3 * v[OLDEST]
        if v[last]:
            _tests(v, work.significant, v[last + 1], v[last + 2])
        if one:
            v[REMAPPED] = 0
        if several:
            v[REMAPPED] = 1

    # Look-ups.
    go_on = v[LOOKUP] < 0 or i.lookup_ready
    v[OUT] += (v[LOOKUP] >= 0 and i.lookup_ready) - (i.answer >= 0)
    ask, ask_place = np.int64(-1), np.int64(0)
    if go_on:
        v[LOOKUP], v[LOOKUP_2], v[LOOKUP_1] = v[LOOKUP_2], v[LOOKUP_1], -1
        if v[CACHING] and not v[EMPTYING] and wanting:
            # The lowest unit that wants to, its lowest pixel.
            units, word = np.int64(0), np.int64(-1)
            while not units:
                word += 1
                for n in range(v[PIXELS] * word, v[PIXELS] * (word + 1)):
                    units |= v[COMPLETE + n] & ~v[ASKED + n]
            ask_place, first = nru_unit.lowest(units), v[PIXELS] * word
            ask = first
            while not (v[COMPLETE + ask] & ~v[ASKED + ask]) >> ask_place & 1:
                ask += 1
            v[LOOKUP_1] = _number(v[SIDE], v[ACROSS], 64 * word + ask_place, ask - first)

    # Pixels; what is picked is what was live before.
    free = (v[PHASE] == LOCKSTEP and v[MOST] > 0 and v[AT] == v[here + SPLATS]
            and not v[here + LAST])
    tile = v[here + OF]
    _control(v, begin, ends, free, looking, empty, one, several)
    for n in range(v[ALL_WORDS]):
        if ends:
            v[LEFT_COMPLETE + n], v[LEFT_HIT + n] = v[COMPLETE + n], v[HIT + n]
        v[ASKED + n] &= v[COMPLETE + n]
        v[LIVE + n] &= ~of_units[told + n]
        v[COMPLETE + n] |= of_units[told + nru_unit.COMPLETE + n]
    if ask >= 0:
        v[ASKED + ask] |= 1 << ask_place
    if i.answer >= 0 and i.answer_hit:
        word, place = _place(v, i.answer)
        v[LIVE + word] &= ~(1 << place)
        v[HIT + word] |= 1 << place
    if begin:
        _begin(v, work.columns[tile], work.rows[tile])
    nru_unit.step(of_units, begin)

    _leave(v, work.columns, work.rows, i, ends)
    if begin:
        v[TILE] = tile
    _fill(v, work.starts, i, tile_ready, splat_ready, skip, free or ends, dropped)
    v[MOVE], v[MOST], v[RECORDING], v[STILL], v[ALIVE], v[WANTED] = (
        not narrow, most, recording != 0 and v[CACHING] != 0, quiet, alive != 0, wanting != 0)


@nb.njit
def _entries(v, of_units, ends, complete, word, offered, first):
    """What goes into the queues: fragments of the last stage, `first` their place in the list."""
    tile, remapped, words = v[TILE], v[REMAPPED] != 0, v[PIXELS] * word
    while offered:
        at = nru_unit.lowest(offered)
        offered &= offered - 1
        unit, picked = 64 * word + at, 0
        if remapped:
            while not v[PICKED + words + picked] >> at & 1:
                picked += 1
        entry = 0
        for q in range(v[PIXELS]):
            if not v[PLACES + words + q] >> at & 1:
                continue
            pixel, place = q, first
            if remapped:
                pixel, place = picked, first + q
            bits = 1
            if place >= ends[tile, unit, pixel]:
                bits |= 1 << nru_unit.ENDS
            if place == complete[tile, unit, pixel]:
                bits |= 1 << nru_unit.COMPLETES
            entry |= bits << q | pixel << nru_unit.PIXEL + 3 * q
        of_units[nru_unit.ENTRIES + unit] = entry


@nb.njit
def _tests(v, significant, splat, asked):
    """What of a splat, or of several, is significant for pixels that are live or picked."""
    if not v[REMAPPED]:
        for n in range(v[ALL_WORDS]):
            v[PLACES + n] = significant[splat, n] & v[LIVE + n]
        return
    for first in range(0, v[ALL_WORDS], v[PIXELS]):
        for place in range(v[PIXELS]):
            units = np.int64(0)
            if asked >> place & 1:
                for n in range(first, first + v[PIXELS]):
                    units |= significant[splat + place, n] & v[PICKED + n] & v[LIVE + n]
            v[PLACES + first + place] = units


@nb.njit
def _begin(v, columns, rows):
    """Pixels of a tile that begins: those within the frame are live."""
    for n in range(v[ALL_WORDS]):
        v[LIVE + n] = v[COMPLETE + n] = v[HIT + n] = 0
    for number in range(4 * v[SIDE] * v[SIDE]):
        if number % (2 * v[SIDE]) < columns and number // (2 * v[SIDE]) < rows:
            word, place = _place(v, number)
            v[LIVE + word] |= 1 << place


@nb.njit(inline="always")
def _control(v, begin, ends, free, looking, empty, one, several):
    """The phase, and what counts the chunk's splats."""
    chunk = _chunk(v, v[READ_HALF])
    phase, calm = v[PHASE], v[CALM]
    v[CALM] = 0
    if phase == WAIT:
        v[AT] = v[LOADED] = 0
        if v[chunk + FULL]:
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
            v[PHASE] = END if v[MOST] == 0 or v[AT] == v[chunk + SPLATS] else PICK
            for n in range(v[ALL_WORDS]):
                v[TODO + n] = v[LIVE + n]
    elif phase == PICK:
        v[ROW] = v[AT] // v[PIXELS]
        if v[LOADED] % 2 == 0:
            v[PASSES] -= 1
            # Of every unit its lowest.
            for first in range(0, v[ALL_WORDS], v[PIXELS]):
                before = np.int64(0)
                for n in range(first, first + v[PIXELS]):
                    todo = v[TODO + n]
                    v[PICKED + n] = todo & ~before
                    v[TODO + n] = todo & before
                    before |= todo
        else:
            v[PHASE] = PASS
        v[LOADED] += 1
    elif phase == PASS:
        if several:
            v[ROW] += v[MOVE]
        else:
            v[PHASE] = DRAIN
    elif phase == DRAIN:
        if empty:
            v[PHASE] = PICK
            if v[PASSES] == 0:
                v[PHASE], v[AT] = LOCKSTEP, v[chunk + SPLATS]
    elif ends:
        v[PHASE], v[FRESH] = WAIT, 1


@nb.njit(inline="always")
def _leave(v, columns, rows, i, ends):
    """Pixels of a finished tile on their way out."""
    if not v[EMPTYING]:
        if ends:
            v[EMPTYING] = v[TILE_OUT] = 1
            v[LEAVING] = v[TILE]
        return
    move = (not v[GROUP] or i.ready) and (v[WALK] < 0 or i.walk_ready)
    closed = v[CLOSING] and not v[GROUP] and v[WALK] < 0
    asking, last_x = v[ASKING], v[X] + 1 == columns[v[LEAVING]]
    if i.ready:
        v[GROUP] = 0
    if i.walk_ready:
        v[WALK] = -1
    if move:
        four, seven = v[WAY + 4], v[WAY + 7]
        v[GROUP], v[WALK] = 0, -1
        if 0 <= four < LAST_PIXEL:
            x = four % (2 * v[SIDE])
            v[GROUP] = x % 4 == 3 or x + 1 == columns[v[LEAVING]]
        if v[CACHING] and seven == LAST_PIXEL:
            v[WALK] = seven
        elif v[CACHING] and seven >= 0:
            if _has(v, LEFT_COMPLETE, seven):
                v[WALK] = seven
        if seven == LAST_PIXEL:
            v[CLOSING] = 1
        for n in range(7, 1, -1):
            v[WAY + n] = v[WAY + n - 1]
        v[WAY + 1] = NOTHING
        if asking:
            v[WAY + 1] = v[Y] * 2 * v[SIDE] + v[X]
        elif v[MARK]:
            v[WAY + 1] = LAST_PIXEL
        v[MARK] = 0
        if asking:
            v[X] += 1
            if last_x:
                v[X] = 0
                v[Y] += 1
                if v[Y] == rows[v[LEAVING]]:
                    v[ASKING], v[MARK] = 0, 1
    if closed:
        v[CLOSING] = v[EMPTYING] = 0
    if v[TILE_OUT] and i.tile_ready:
        v[TILE_OUT] = v[X] = v[Y] = 0
        v[ASKING] = 1


@nb.njit(inline="always")
def _fill(v, starts, i, tile_ready, splat_ready, skip, over, dropped):
    """Splats into the buffer; a half becomes free where its chunk is `over`."""
    left, place = v[LEFT], v[PLACE]
    chunk = _chunk(v, v[FILL_HALF])
    take = i.splat and splat_ready
    if v[FILLING] and not v[chunk + FULL] and not skip and (
            left == 0 or (take and (left == 1 or place == v[CHUNK] - 1))):
        tile = v[FILL_TILE]
        v[chunk + FULL] = 1
        v[chunk + SPLATS] = place + take
        v[chunk + LAST] = left - take == 0
        v[chunk + OF] = tile
        v[chunk + FIRST] = starts[tile + 1] - left - place
        v[FILL_HALF] = 1 - v[FILL_HALF]
        if left - take == 0:
            v[FILLING] = 0
    if take:
        v[LEFT] -= 1
        v[PLACE] = (place + 1) % v[CHUNK]
    if i.tile and tile_ready:
        v[TAKEN] += 1
        v[FILLING], v[PLACE], v[FILL_TILE] = 1, 0, v[TAKEN]
        v[LEFT] = starts[v[TAKEN] + 1] - starts[v[TAKEN]]
    if skip:
        v[FILLING] = 0
    if over:
        v[_chunk(v, v[READ_HALF]) + FULL] = 0
        if dropped:
            v[_chunk(v, 1 - v[READ_HALF]) + FULL] = 0
        else:
            v[READ_HALF] = 1 - v[READ_HALF]
