"""What ranks and links do, and when: tasks in the order that each of them takes them.

A task starts when its resource has done the tasks before it and all that it waits for has ended.
Ranks and links of this kind never choose between tasks, so an event heap would give the same times.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Task", "Timeline"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A stretch of one resource's time.

    Parameters
    ----------
    name, resource : str
        What, where.
    start_s, end_s : float
        When.
    size_bytes : float
        That it sends; 0 for computing.
    held_by : Task or None
        The task whose end it started at, of its resource or of those it waited for.
    """

    name: str
    resource: str
    start_s: float
    end_s: float
    size_bytes: float = 0.0
    held_by: "Task | None" = field(default=None, repr=False)


class Timeline:
    """Tasks of all resources."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self._last: dict[str, Task] = {}

    def add(self, name: str, resource: str, duration_s: float, after: Iterable[Task] = (), *,
            size_bytes: float = 0.0) -> Task:
        """The next task of a resource, behind those of others that it waits for.

        Raises
        ------
        ValueError
            If the duration is negative.
        """
        if not duration_s >= 0:
            raise ValueError(f"{name}: duration must be non-negative, not {duration_s!r} s")
        waits = list(after)
        if resource in self._last:
            waits.append(self._last[resource])
        held_by = max(waits, key=lambda task: task.end_s, default=None)
        start = held_by.end_s if held_by else 0.0
        task = Task(name=name, resource=resource, start_s=start, end_s=start + duration_s,
                    size_bytes=size_bytes, held_by=held_by)
        self._last[resource] = task
        self.tasks.append(task)
        return task

    @property
    def end_s(self) -> float:
        """When all is done."""
        return max((task.end_s for task in self.tasks), default=0.0)

    @property
    def size_bytes(self) -> float:
        """Sent in all."""
        return sum(task.size_bytes for task in self.tasks)

    def busy_s(self, resource: str) -> float:
        """How long a resource works."""
        return sum(task.end_s - task.start_s for task in self.tasks if task.resource == resource)

    def critical_s(self) -> dict[str, float]:
        """Time by name of the tasks that the end hangs on, from the last one back."""
        task = max(self.tasks, key=lambda each: each.end_s, default=None)
        shares = dict[str, float]()
        while task is not None:
            shares[task.name] = shares.get(task.name, 0.0) + task.end_s - task.start_s
            task = task.held_by
        return shares
