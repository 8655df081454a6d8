"""A cache of blocks before a remote store, and jobs that wait for it.

Jobs ask for one block after another and compute on each; the job whose time is least goes next. A
block that is not there comes over one link, first come, first served, `latency_s` after it was
sent. Blocks belong to units (datasets), which share the capacity by quotas; a unit may read ahead.

Nothing is shared between processes, writes are not modelled, and a block that is asked for while it
is under way is waited for, not fetched again.
"""

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

__all__ = ["EVICTIONS", "BlockCache", "Jobs", "Served", "Store", "lru_hits", "stack_distances"]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: What leaves a full unit: the block unused for longest; the one of two taken at random that is;
#: none, what is new does not come in; what has been read before what has not.
EVICTIONS = ("lru", "2-random", "uniform", "eager")
_LRU, _TWO, _UNIFORM, _EAGER = range(4)
_NEVER = np.inf


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where blocks come from.

    Parameters
    ----------
    latency_s : float
        Of a request, not negative.
    bytes_per_s : float
        Of the link that all share, positive.
    block_bytes : int
        Size of a block, positive.
    """

    latency_s: float = 0.02
    bytes_per_s: float = 1.25e9
    block_bytes: int = 4 << 20

    def __post_init__(self) -> None:
        if not (self.latency_s >= 0 and self.bytes_per_s > 0 and self.block_bytes > 0):
            raise ValueError("Store must have a latency that is not negative and positive rate and "
                             f"block, not {self.latency_s!r} s, {self.bytes_per_s!r} B/s, "
                             f"{self.block_bytes!r} B")


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What is asked for.

    Parameters
    ----------
    accesses : tuple of numpy.ndarray
        Blocks of every job, in order.
    compute_s : tuple of float
        Time that each job computes on a block.
    """

    accesses: tuple[Integers, ...]
    compute_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.accesses or len(self.accesses) != len(self.compute_s):
            raise ValueError("Jobs must have as many accesses as compute times, at least one, not "
                             f"{len(self.accesses)} and {len(self.compute_s)}")
        if min(self.compute_s) < 0:
            raise ValueError(f"Jobs must not compute for {min(self.compute_s)!r} s")


@dataclass(frozen=True, kw_only=True)
class Served:
    """What became of the jobs.

    Parameters
    ----------
    accesses, hits, late : numpy.ndarray
        Of shape [jobs]: blocks asked for; those that were there; those under way.
    time_s : numpy.ndarray
        Of shape [jobs]: when each was done.
    fetched : int
        Blocks that came over the link.
    """

    accesses: Integers
    hits: Integers
    late: Integers
    time_s: Floats
    fetched: int

    @property
    def hit_ratio(self) -> float:
        """Blocks that were there over all asked for."""
        return float(self.hits.sum() / max(1, self.accesses.sum()))

    @property
    def mean_time_s(self) -> float:
        """Mean completion time of the jobs."""
        return float(self.time_s.mean())


@nb.njit(cache=True)
def _unlink(block, links, ends, used, where):
    """Take a block out of its list."""
    own = where[block]
    newer, older = links[block, 0], links[block, 1]
    if newer >= 0:
        links[newer, 1] = older
    else:
        ends[own, 0] = older
    if older >= 0:
        links[older, 0] = newer
    else:
        ends[own, 1] = newer
    used[own] -= 1
    where[block] = -1


@nb.njit(cache=True)
def _link(block, own, end, links, ends, used, where):
    """Put a block at an end of a list: 0 stays longest, 1 leaves first."""
    other = ends[own, end]
    links[block, 1 - end], links[block, end] = other, -1
    if other >= 0:
        links[other, end] = block
    else:
        ends[own, 1 - end] = block
    ends[own, end] = block
    where[block] = own
    used[own] += 1


@nb.njit(cache=True)
def _drop(block, links, ends, used, where, arrival, members, place):
    """A block leaves the cache."""
    own = where[block]
    if own == 0 and place[block] >= 0:
        final = members[used[0] - 1]
        members[place[block]] = final
        place[final] = place[block]
        place[block] = -1
    _unlink(block, links, ends, used, where)
    arrival[block] = _NEVER


@nb.njit(cache=True)
def _roll(dice, sides):
    """A number below `sides`; the generator of POSIX's drand48."""
    dice[0] = (dice[0] * 25214903917 + 11) & 0xFFFFFFFFFFFF
    return (dice[0] >> 17) % sides


@nb.njit(cache=True)
def _admit(block, own, end, quota, rule, links, ends, used, where, arrival, members, place, stamp,
           dice):
    """Whether a block may come into a list, with what leaves for it."""
    if quota[own] < 1:
        return False
    while used[own] >= quota[own]:
        if rule[own] == _UNIFORM and used[own] == quota[own]:
            return False
        victim = ends[own, 1]
        if rule[own] == _TWO:
            first, second = members[_roll(dice, used[own])], members[_roll(dice, used[own])]
            victim = first if stamp[first] <= stamp[second] else second
        _drop(victim, links, ends, used, where, arrival, members, place)
    if own == 0:
        place[block] = used[0]
        members[used[0]] = block
    _link(block, own, end, links, ends, used, where)
    return True


@nb.njit(cache=True)
def _serve_kernel(steps, blocks, starts, position, clock, compute, unit, file_end, unit_end, quota,
                  rule, ahead, inside, links, ends, used, where, arrival, members, place, stamp,
                  dice, link, store, counts, log):
    """Serve up to `steps` accesses of the jobs; return how many."""
    jobs, units = len(clock), len(ahead)
    latency, transfer = store[0], store[1]
    done = 0
    while done < steps:
        job, least = -1, _NEVER
        for each in range(jobs):
            if position[each] < starts[each + 1] and clock[each] < least:
                job, least = each, clock[each]
        if job < 0:
            break
        block = blocks[position[job]]
        position[job] += 1
        own, now = unit[block], clock[job]
        stamp[block] = counts[3, 0] = counts[3, 0] + 1
        counts[0, job] += 1
        log[done] = block
        done += 1
        if where[block] >= 0:
            if arrival[block] <= now:
                counts[1, job] += 1
            else:
                counts[2, job] += 1
                now = arrival[block]
            if where[block] == own:
                kind = rule[own]
                if kind != _UNIFORM and kind != _TWO:
                    _unlink(block, links, ends, used, where)
                    _link(block, own, 1 if kind == _EAGER else 0, links, ends, used, where)
            else:
                # Read ahead, and read: it stays if its unit has room.
                came = arrival[block]
                _drop(block, links, ends, used, where, arrival, members, place)
                if _admit(block, own, 0, quota, rule, links, ends, used, where, arrival, members,
                          place, stamp, dice):
                    arrival[block] = came
        else:
            link[0] = max(link[0], now) + transfer
            link[1] += 1
            now = link[0] + latency
            if _admit(block, own, 1 if rule[own] == _EAGER else 0, quota, rule, links, ends, used,
                      where, arrival, members, place, stamp, dice):
                arrival[block] = now
        if ahead[own] > 0:
            limit = file_end[block] if inside[own] else unit_end[block]
            for other in range(block + 1, min(block + 1 + ahead[own], limit)):
                if where[other] >= 0:
                    continue
                # What a uniform unit reads ahead waits beside it.
                into = units + own if rule[own] == _UNIFORM else own
                if _admit(other, into, 0, quota, rule, links, ends, used, where, arrival, members,
                          place, stamp, dice):
                    link[0] = max(link[0], clock[job]) + transfer
                    link[1] += 1
                    arrival[other] = link[0] + latency
                    stamp[other] = counts[3, 0]
        clock[job] = now + compute[job]
    return done


@nb.njit(cache=True)
def _shrink_kernel(quota, links, ends, used, where, arrival, members, place):
    for own in range(len(quota)):
        while used[own] > quota[own]:
            _drop(ends[own, 1], links, ends, used, where, arrival, members, place)


class BlockCache:
    """A cache that serves jobs, a stretch of accesses at a time.

    Parameters
    ----------
    jobs : Jobs
        What is asked for.
    unit : array_like
        Of shape [blocks]: unit of every block, rising.
    file : array_like
        Of shape [blocks]: file of every block, rising.
    store : Store
        Where blocks come from.
    seed : int
        Of ``2-random``.

    Raises
    ------
    ValueError
        If a job asks for a block that there is not, or the tables do not fit.
    """

    def __init__(self, jobs: Jobs, unit: npt.ArrayLike, file: npt.ArrayLike, store: Store, *,
                 seed: int = 0) -> None:
        self.unit, self._file = np.asarray(unit, np.int64), np.asarray(file, np.int64)
        number = len(self.unit)
        if self._file.shape != self.unit.shape or (np.diff(self.unit) < 0).any() \
                or (np.diff(self._file) < 0).any():
            raise ValueError("Unit and file must be rising tables of one length")
        self.units = int(self.unit[-1]) + 1
        self._blocks = np.concatenate([np.asarray(each, np.int64) for each in jobs.accesses])
        if len(self._blocks) and not 0 <= self._blocks.min() <= self._blocks.max() < number:
            raise ValueError(f"Jobs must ask for blocks below {number}, not "
                             f"{self._blocks.min()} to {self._blocks.max()}")
        self._starts = np.cumsum([0, *map(len, jobs.accesses)])
        self._position = self._starts[:-1].copy()
        self._clock, self._compute = np.zeros(len(jobs.accesses)), np.array(jobs.compute_s, float)
        self._file_end = np.searchsorted(self._file, self._file, side="right")
        self._unit_end = np.searchsorted(self.unit, self.unit, side="right")
        lists = 2 * self.units
        self.quota, self.rule = np.zeros(lists, np.int64), np.zeros(lists, np.int64)
        self.rule[self.units:] = _EAGER
        self.ahead, self.inside = np.zeros(self.units, np.int64), np.ones(self.units, np.int64)
        self._links, self._ends = np.full((number, 2), -1), np.full((lists, 2), -1)
        self._used, self._where = np.zeros(lists, np.int64), np.full(number, -1)
        self._arrival = np.full(number, _NEVER)
        self._members, self._place = np.zeros(number, np.int64), np.full(number, -1)
        self._stamp, self._link = np.zeros(number, np.int64), np.zeros(2)
        self._store = np.array([store.latency_s, store.block_bytes / store.bytes_per_s])
        self._counts = np.zeros((4, max(1, len(jobs.accesses))), np.int64)
        self._dice = np.array([(seed << 16) + 0x330E], np.int64)

    @property
    def used(self) -> Integers:
        """Blocks held for each unit, read ahead or not."""
        return self._used[:self.units] + self._used[self.units:]

    def configure(self, unit: int, *, eviction: str, quota: int, ahead: int = 0,
                  inside: bool = True) -> None:
        """Set a unit.

        Parameters
        ----------
        unit : int
            Which.
        eviction : str
            Of :data:`EVICTIONS`; ``2-random`` for the first unit alone.
        quota : int
            Blocks that it may hold, with those that it reads ahead.
        ahead : int
            Blocks to read ahead of each that is read.
        inside : bool
            Whether reading ahead ends with the file, and not with the unit.

        Raises
        ------
        ValueError
            If there is no such eviction, or a number is negative.
        """
        if eviction not in EVICTIONS or (eviction == "2-random" and unit):
            raise ValueError(f"Eviction must be one of {', '.join(EVICTIONS)} (2-random of the "
                             f"first unit alone), not {eviction!r}")
        if quota < 0 or ahead < 0:
            raise ValueError(f"Quota and ahead must not be negative, not {quota!r} and {ahead!r}")
        self.rule[unit] = EVICTIONS.index(eviction)
        beside = min(ahead, quota) if eviction == "uniform" else 0
        self.quota[unit], self.quota[self.units + unit] = quota - beside, beside
        self.ahead[unit], self.inside[unit] = ahead, inside

    def serve(self, accesses: int) -> Integers:
        """Serve so many accesses, or what is left.

        Returns
        -------
        numpy.ndarray
            The blocks, in the order they were asked for.
        """
        _shrink_kernel(self.quota, self._links, self._ends, self._used, self._where, self._arrival,
                       self._members, self._place)
        log = np.empty(accesses, np.int64)
        done = _serve_kernel(
            accesses, self._blocks, self._starts, self._position, self._clock, self._compute,
            self.unit, self._file_end, self._unit_end, self.quota, self.rule, self.ahead,
            self.inside, self._links, self._ends, self._used, self._where, self._arrival,
            self._members, self._place, self._stamp, self._dice, self._link, self._store,
            self._counts, log)
        return log[:done]

    def served(self) -> Served:
        """What became of the jobs so far."""
        return Served(accesses=self._counts[0].copy(), hits=self._counts[1].copy(),
                      late=self._counts[2].copy(), time_s=self._clock.copy(),
                      fetched=int(self._link[1]))


@nb.njit(cache=True)
def _distance_kernel(blocks, number, distances):
    size = len(blocks)
    tree = np.zeros(size + 1, np.int64)
    last = np.full(number, -1)
    for now in range(size):
        block = blocks[now]
        before = last[block]
        if before >= 0:
            # Different blocks since: latest accesses that lie behind the last one of this.
            total, place = 0, now
            while place > 0:
                total += tree[place]
                place -= place & -place
            place = before + 1
            while place > 0:
                total -= tree[place]
                place -= place & -place
            distances[now] = total
            place = before + 1
            while place <= size:
                tree[place] -= 1
                place += place & -place
        else:
            distances[now] = -1
        last[block] = now
        place = now + 1
        while place <= size:
            tree[place] += 1
            place += place & -place


def stack_distances(blocks: npt.ArrayLike) -> Integers:
    """Different blocks asked for since the last time, -1 for the first.

    Parameters
    ----------
    blocks : array_like
        Of shape [accesses], not negative.

    References
    ----------
    Mattson, Gecsei, Slutz, Traiger: "Evaluation techniques for storage hierarchies", IBM Systems
    Journal 9(2), 1970.
    """
    _, dense = np.unique(np.asarray(blocks, np.int64), return_inverse=True)
    distances = np.empty(len(dense), np.int64)
    _distance_kernel(dense, int(dense.max(initial=-1)) + 1, distances)
    return distances


def lru_hits(distances: npt.ArrayLike, sizes: npt.ArrayLike) -> Integers:
    """Hits of LRU caches of some sizes, of :func:`stack_distances`."""
    seen = np.sort(np.asarray(distances)[np.asarray(distances) >= 0])
    return np.searchsorted(seen, np.asarray(sizes), side="left")
