"""What is resident when a stage of the model is served: adapters, or caches of prefixes.

A cache holds so many of them. Whoever loads when a stage is served (LRU) misses whatever is not
there; whoever loads when its request begins to wait (EPWQ) hits where it waits longer than a load
takes; whoever knows what comes next loads while the stage before it runs (Hermes).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["LOADING", "Loading", "Use", "hit_ratio"]

Loading = Literal["lru", "epwq", "hermes"]
LOADING: tuple[Loading, ...] = ("lru", "epwq", "hermes")


@dataclass(frozen=True, kw_only=True)
class Use:
    """One stage of the model.

    Parameters
    ----------
    app, stage : str
        Of which application.
    foreseen_s, queued_s, served_s : float
        When it was likely enough to come, no later than the next; when its first request began to
        wait; when the first of them was answered.
    """

    app: str
    stage: str
    foreseen_s: float
    queued_s: float
    served_s: float

    def __post_init__(self) -> None:
        if not self.foreseen_s <= self.queued_s <= self.served_s:
            raise ValueError(f"Use must be foreseen, queued and served in this order, not {self}")


def hit_ratio(uses: Iterable[Use], slots: int, load_s: float, loading: Loading, *,
              per_stage: bool = False) -> float:
    """Share of the uses that find what they need loaded.

    Parameters
    ----------
    uses : iterable of Use
        In any order.
    slots : int
        How many are resident at once.
    load_s : float
        Of one; loads do not wait for each other.
    loading : str
        Of :data:`LOADING`. What goes is what was used or asked for longest ago, of what no waiting
        or foreseen use needs; a load ahead of use is given up where all that is there is needed.
    per_stage : bool
        Whether each stage needs its own, or all stages of an application share one.

    Raises
    ------
    ValueError
        If slots or the load are out of range, or loading is none.
    """
    if slots < 1:
        raise ValueError(f"slots must be positive, not {slots!r}")
    if not 0 <= load_s < math.inf:
        raise ValueError(f"load_s must be non-negative and finite, not {load_s!r}")
    if loading not in LOADING:
        raise ValueError(f"loading must be one of {', '.join(LOADING)}, not {loading!r}")
    events = list[tuple[float, int, str]]()
    for use in uses:
        key = f"{use.app}.{use.stage}" if per_stage else use.app
        if loading != "lru":
            events.append((use.foreseen_s if loading == "hermes" else use.queued_s, 0, key))
        events.append((use.served_s, 1, key))
    there = dict[str, float]()  # key -> when it is loaded, least recently touched first
    needed = dict[str, int]()
    hits = served = 0
    for now_s, kind, key in sorted(events):
        needed[key] = needed.get(key, 0) + (1 if kind == 0 else -1 if loading != "lru" else 0)
        served += kind
        hits += kind == 1 and there.get(key, math.inf) <= now_s
        # What is used late is loaded by then: the stage waited for it.
        ready_s = there.pop(key, now_s + load_s)
        if len(there) == slots:
            idle = next((other for other in there if not needed.get(other)), None)
            if idle is None and kind == 0:
                continue
            del there[next(iter(there)) if idle is None else idle]
        there[key] = min(ready_s, now_s) if kind else ready_s
    return hits / served if served else 0.0
