"""The memory of the timing contract, stepped cycle by cycle in the slowest, most obvious way."""

from fractions import Fraction

from splatforge.designs.memory import MemoryTiming

__all__ = ["ReadPort", "WritePort"]


class ReadPort:
    """Read bursts in order of acceptance; times are exact fractions of a cycle."""

    def __init__(self, timing: MemoryTiming) -> None:
        self.timing = timing
        self.queue: list[list] = []
        self.outstanding = 0
        self.beat_over = Fraction(-1 << 40)

    def ready(self) -> bool:
        """Whether an address is accepted before the coming edge."""
        return self.outstanding < self.timing.outstanding

    def accept(self, cycle: int, beats: int, tag: object = None) -> None:
        self.outstanding += 1
        self.queue.append([cycle + self.timing.latency_cycles, beats, 0, tag])

    def take(self, cycle: int) -> tuple[object, int, bool] | None:
        """Beat that transfers at `cycle`, as (tag, number, last), if there is one."""
        if not self.queue:
            return None
        burst = self.queue[0]
        period = 1 / self.timing.read_beats_per_cycle
        due = max(Fraction(burst[0]), self.beat_over + period)
        if due > cycle:
            return None
        self.beat_over = due
        burst[2] += 1
        last = burst[2] == burst[1]
        if last:
            self.queue.pop(0)
            # Gone from the next edge on.
            self.outstanding -= 1
        return burst[3], burst[2] - 1, last


class WritePort:
    """Write bursts: addresses first, then beats at a rate, then responses in order."""

    def __init__(self, timing: MemoryTiming) -> None:
        self.timing = timing
        self.queue: list[list] = []
        self.outstanding = 0
        self.seen: int | None = None
        self.beat_over = Fraction(-1 << 40)
        self.answers: list[int] = []

    def ready(self) -> bool:
        return self.outstanding < self.timing.outstanding

    def accept(self, address: int, beats: int) -> None:
        self.outstanding += 1
        self.queue.append([address, beats, 0])

    def beat_ready(self, cycle: int, valid: bool) -> bool:
        """Whether a beat is accepted before the edge `cycle`; `valid` is whether one is there."""
        if not self.queue or not valid:
            return False
        if self.seen is None:
            self.seen = cycle
        period = 1 / self.timing.write_beats_per_cycle
        return max(Fraction(self.seen), self.beat_over + period) <= cycle

    def take(self, cycle: int) -> tuple[int, bool]:
        """Accept a beat; its address and whether it was the burst's last."""
        assert self.seen is not None
        period = 1 / self.timing.write_beats_per_cycle
        self.beat_over = max(Fraction(self.seen), self.beat_over + period)
        self.seen = None
        burst = self.queue[0]
        burst[2] += 1
        last = burst[2] == burst[1]
        if last:
            self.queue.pop(0)
            self.answers.append(cycle + self.timing.latency_cycles)
        return burst[0] + 16 * (burst[2] - 1), last

    def answer(self, cycle: int) -> bool:
        """Whether a response transfers at `cycle`."""
        if self.answers and self.answers[0] <= cycle:
            self.answers.pop(0)
            self.outstanding -= 1
            return True
        return False
