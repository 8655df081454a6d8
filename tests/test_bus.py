"""The memory a cycle at a time against the rules of the memory that works events out."""

from fractions import Fraction

import numpy as np
import pytest

from splatforge.designs.dram import PRESETS
from splatforge.designs.memory import BankedMemory, MemoryTiming
from splatforge.sim import bus
from splatforge.sim.memory import cycle_of, memory_constants, next_beat, room

TIMINGS = (
    MemoryTiming(),
    MemoryTiming(latency_cycles=7, outstanding=3),
    MemoryTiming(latency_cycles=30, outstanding=4, read_beats_per_cycle=Fraction(2, 3),
                 write_beats_per_cycle=Fraction(3, 5)),
)


@pytest.mark.parametrize("timing", TIMINGS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_reads_come_when_the_rules_say(timing, seed):
    rng = np.random.default_rng(seed)
    count = 60
    wants = np.cumsum(rng.integers(0, rng.choice((2, 12)), count))
    beats = rng.integers(1, 9, count)
    latency, num, den, _, _, limit = memory_constants(timing)
    ends, expected, clock, accepted = [], [], np.int64(-1) << 40, -1
    for n in range(count):
        accepted = room(n, limit, ends[max(0, n - limit)] if n else 0, max(wants[n], accepted + 1))
        for _ in range(beats[n]):
            clock = next_beat(clock, accepted + latency, num, den)
        ends.append(cycle_of(clock, num))
        expected.append((accepted, ends[-1]))

    m, banked = bus.new_bus(timing)
    asked, came, now = [], [], 0
    while len(came) < count:
        go = len(asked) < count and wants[len(asked)] <= now and bus.may_read(m, banked)
        beat = bus.read_beat(m, banked, now)
        if go:
            bus.read(m, banked, now, 0, beats[len(asked)])
            asked.append(now)
        if beat == 1:
            came.append(now)
        bus.advance(m, banked, now)
        now += 1
    assert list(zip(asked, came, strict=True)) == expected


@pytest.mark.parametrize("timing", TIMINGS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_writes_are_answered_when_the_rules_say(timing, seed):
    """Beats that wait keep their place in the rate; responses come in order."""
    rng = np.random.default_rng(seed)
    count = 60
    beats = rng.integers(1, 5, count)
    pauses = rng.integers(0, rng.choice((1, 9)), (count, 5))
    latency, _, _, num, den, limit = memory_constants(timing)
    expected, clock, accepted, taken, answer = [], np.int64(-1) << 40, -1, -1, -1
    for n in range(count):
        ended = expected[max(0, n - limit)][1] if n else 0
        accepted = room(n, limit, ended, max(accepted, taken) + 1)
        taken = accepted
        for k in range(beats[n]):
            clock = next_beat(clock, taken + 1 + pauses[n, k], num, den)
            taken = cycle_of(clock, num)
        answer = max(answer + 1, taken + latency)
        expected.append((taken, answer))

    m, banked = bus.new_bus(timing)
    seen, answers, now = [], [], 0
    number, left, pause = 0, 0, 0
    while len(answers) < count:
        ask = left == 0 and number < count and bus.may_write(m, banked)
        valid = left > 0 and pause == 0
        beat = bus.may_write_beat(m, banked, now, valid)
        if bus.respond(m, banked, now):
            answers.append(now)
        if pause:
            pause -= 1
        if ask:
            bus.write(m, banked, 0, beats[number])
            left, pause = beats[number], pauses[number, 0]
            number += 1
        if beat:
            bus.write_beat(m, banked, now)
            left -= 1
            pause = pauses[number - 1, beats[number - 1] - left]
            if left == 0:
                seen.append(now)
        bus.advance(m, banked, now)
        now += 1
    assert list(zip(seen, answers, strict=True)) == expected


def test_a_banked_memory_gives_what_was_asked_for_in_order():
    memory = BankedMemory(dram=PRESETS["lpddr4-3200"], clock_hz=1e9)
    m, banked = bus.new_bus(memory)
    assert banked
    beats, ends, asked, now, count = [4, 1, 16, 2], [], 0, 1, 0
    while len(ends) < len(beats):
        go = asked < len(beats) and bus.may_read(m, banked)
        beat = bus.read_beat(m, banked, now)
        if beat >= 0:
            count += 1
        if beat == 1:
            ends.append(count)
        if go:
            bus.read(m, banked, now, asked * 4096, beats[asked])
            asked += 1
        bus.advance(m, banked, now)
        now += 1
        assert now < 10_000
    assert ends == np.cumsum(beats).tolist()


def test_more_bursts_than_the_model_follows_are_refused():
    with pytest.raises(ValueError, match="fewer than 1024"):
        bus.new_bus(MemoryTiming(outstanding=1024))
