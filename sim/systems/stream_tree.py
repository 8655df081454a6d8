"""What pattern a stream of accesses has: a tree of paths, a window at every node, a test.

An access to ``dataset / file / block`` is, to the dataset, an access to one of its files, and to
the file one to one of its blocks; each node keeps the last children that were asked for, as long as
they change. A node that has seen enough is tested: a step to the neighbour more often than not is
*sequential*; what is not to be told from uniform draws is *random*; all else is *skewed*.

That the draws are uniform is rejected at an error rate of `alpha` in all, shared evenly by two
tests: the gaps of consecutive pairs against the triangular distribution (Kolmogorov-Smirnov, pairs
that do not overlap, places spread over their item, so that the distribution is exact), and the
number of different children in the window (few of them: exact occupancy). A shuffle has fewer
repetitions than uniform draws, and passes.

The paper names the tree, the patterns and that a hypothesis is tested; tests, window and thresholds
are ours.
"""

from functools import cache

import numba as nb
import numpy as np
import numpy.typing as npt

__all__ = ["PATTERNS", "AccessStreamTree", "distinct_at_most", "pattern_of"]

PATTERNS = ("unknown", "sequential", "random", "skewed")
Integers = npt.NDArray[np.int64]

#: Share of steps to a neighbour from which on a stream is sequential.
_SEQUENTIAL = 0.5
_JITTER_SEED = 20250612


@cache
def distinct_at_most(draws: int, items: int) -> npt.NDArray[np.float64]:
    """Probability that uniform draws of items show at most 0, 1, ... `draws` different ones."""
    probability = np.zeros(draws + 1)
    probability[0] = 1.0
    seen = np.arange(draws + 1) / items
    for _ in range(draws):
        fresh = probability * np.clip(1 - seen, 0, 1)
        probability = probability * np.clip(seen, 0, 1)
        probability[1:] += fresh[:-1]
    return np.minimum(np.cumsum(probability), 1.0)


@cache
def _farthest(pairs: int, alpha: float) -> float:
    """Distance of Kolmogorov and Smirnov that so many draws exceed in a share of `alpha`."""
    # Half a second to import, and most verbs want no pattern.
    from scipy.stats import kstwo

    return float(kstwo.isf(alpha, pairs))


def pattern_of(children: npt.ArrayLike, items: int, alpha: float = 0.01) -> str:
    """Pattern of a window of accesses.

    Parameters
    ----------
    children : array_like
        Of shape [accesses], at least 4: which child, 0 to `items` - 1, in order.
    items : int
        Children that there are.
    alpha : float
        How often uniform draws are called something else, at most; in (0, 1).

    Returns
    -------
    str
        ``sequential``, ``random`` or ``skewed``.

    Raises
    ------
    ValueError
        If there are too few accesses, a child is out of range or `alpha` is.
    """
    window = np.asarray(children, np.int64)
    if window.ndim != 1 or len(window) < 4:
        raise ValueError(f"Children must be at least 4 accesses, not shape {window.shape}")
    if window.min() < 0 or window.max() >= items:
        raise ValueError(f"Children must be 0 to {items - 1}, not {window.min()} to {window.max()}")
    if not 0 < alpha < 1:
        raise ValueError(f"Alpha must be between 0 and 1, not {alpha!r}")
    if items == 1:
        return "sequential"
    steps = np.diff(window)
    # A neighbour by chance comes twice in `items` steps: of few items that says nothing.
    if max((steps == 1).mean(), (steps == -1).mean()) > max(_SEQUENTIAL, 3 / items):
        return "sequential"
    if distinct_at_most(len(window), items)[len(np.unique(window))] < alpha / 2:
        return "skewed"
    places = (window + np.random.default_rng(_JITTER_SEED).random(len(window))) / items
    pairs = len(window) // 2
    gaps = np.sort(np.abs(places[1:2 * pairs:2] - places[:2 * pairs:2]))
    wanted = 1 - (1 - gaps)**2
    above, below = np.arange(1, pairs + 1) / pairs, np.arange(pairs) / pairs
    distance = max((above - wanted).max(), (wanted - below).max())
    return "skewed" if distance > _farthest(pairs, alpha / 2) else "random"


@nb.njit(cache=True)
def _record_kernel(leaves, nodes, children, units, last, count, ring, steps, runs):
    """Append to the rings of one level; count steps, and those to the next, by unit."""
    window = ring.shape[1]
    for leaf in leaves:
        node, child = nodes[leaf], children[leaf]
        before = last[node]
        if child == before:
            continue
        if before >= 0:
            unit = units[leaf]
            steps[unit] += 1
            if child == before + 1:
                runs[unit] += 1
        last[node] = child
        ring[node, count[node] % window] = child
        count[node] += 1


class AccessStreamTree:
    """Windows of accesses at all inner nodes of a tree of paths.

    Parameters
    ----------
    paths : array_like
        Of shape [leaves, depth], depth at least 2, in lexicographic order, no two alike: the path
        of every block, as numbers. A node of the first level is a unit, such as a dataset.
    window : int
        Accesses that make a pattern, at least 4.
    alpha : float
        As of :func:`pattern_of`.

    Raises
    ------
    ValueError
        If the paths are no such table or the window is too short.
    """

    def __init__(self, paths: npt.ArrayLike, *, window: int = 100, alpha: float = 0.01) -> None:
        table = np.asarray(paths, np.int64)
        if table.ndim != 2 or table.shape[1] < 2 or not len(table):
            raise ValueError("Paths must be a table of at least one row and two columns, "
                             f"not {table.shape}")
        if window < 4:
            raise ValueError(f"Window must be at least 4, not {window!r}")
        # Whether the prefix of each length differs from the row before.
        new = np.ones(table.shape, bool)
        new[1:] = np.logical_or.accumulate(table[1:] != table[:-1], axis=1)
        differs = (table[1:] != table[:-1]).argmax(1)
        rising = np.take_along_axis(table[1:] - table[:-1], differs[:, None], 1)[:, 0] > 0
        if len(table) > 1 and not (new[1:, -1].all() and rising.all()):
            raise ValueError("Paths must be in lexicographic order, no two alike")
        self.window, self.alpha = window, alpha
        #: Node of each leaf, level by level: units first, leaves last.
        self.nodes: list[Integers] = [np.cumsum(new[:, level]) - 1
                                      for level in range(table.shape[1])]
        self.units = int(self.nodes[0][-1]) + 1
        self._levels: list[dict[str, Integers]] = []
        for level in range(1, table.shape[1]):
            parents, own = self.nodes[level - 1], self.nodes[level]
            starts = np.flatnonzero(np.r_[True, parents[1:] != parents[:-1]])
            children = own - own[starts][parents]
            number = int(parents[-1]) + 1
            self._levels.append({
                "nodes": parents, "children": children,
                "items": np.bincount(parents[np.r_[True, own[1:] != own[:-1]]]),
                "last": np.full(number, -1), "count": np.zeros(number, np.int64),
                "ring": np.zeros((number, window), np.int64),
                "steps": np.zeros(self.units, np.int64), "runs": np.zeros(self.units, np.int64)})

    def record(self, leaves: npt.ArrayLike) -> None:
        """Take accesses in.

        Parameters
        ----------
        leaves : array_like
            Of shape [accesses]: rows of the paths, in order.
        """
        accessed = np.asarray(leaves, np.int64)
        for each in self._levels:
            _record_kernel(accessed, each["nodes"], each["children"], self.nodes[0], each["last"],
                           each["count"], each["ring"], each["steps"], each["runs"])

    def pattern(self, level: int, node: int) -> str:
        """Pattern of a node's accesses to its children, ``unknown`` before a window is full.

        Parameters
        ----------
        level : int
            Of the node: 0 is a unit.
        node : int
            Its number on the level.
        """
        each = self._levels[level]
        count = int(each["count"][node])
        if count < self.window:
            return "unknown"
        ring = np.roll(each["ring"][node], -(count % self.window))
        return pattern_of(ring, int(each["items"][node]), self.alpha)

    def unit_pattern(self, unit: int) -> str:
        """Pattern of a unit: of the node nearest to the root that has more than one child."""
        node = unit
        for level, each in enumerate(self._levels):
            if each["items"][node] > 1 or level == len(self._levels) - 1:
                return self.pattern(level, node)
            node = int(self.nodes[level + 1][np.searchsorted(each["nodes"], node)])
        raise AssertionError("unreachable: the last level returns")

    def next_share(self, unit: int) -> float:
        """Share of steps inside a unit's files that go to the next block; 0 before it is known."""
        each = self._levels[-1]
        steps = int(each["steps"][unit])
        return float(each["runs"][unit]) / steps if steps >= self.window else 0.0
