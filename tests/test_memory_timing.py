import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.designs.memory import MemoryTiming
from splatforge.sim.memory import (
    CLOCK,
    RESPONSE,
    cycle_of,
    memory_constants,
    new_port,
    next_beat,
    room,
)

sys.path.insert(0, str(Path(__file__).parent))
from axi_memory import ReadPort, WritePort

timings = st.builds(
    MemoryTiming,
    latency_cycles=st.integers(1, 40),
    read_beats_per_cycle=st.fractions(Fraction(1, 9), 1, max_denominator=9),
    write_beats_per_cycle=st.fractions(Fraction(1, 9), 1, max_denominator=9),
    outstanding=st.integers(1, 5),
)
#: Bursts as (cycles after the one before at the earliest, beats).
bursts = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), min_size=1, max_size=12)


def test_a_lone_burst_by_hand():
    """The example of the contract: accepted at 7 with latency 5, beats at 12, 13, 14, 15."""
    assert model_reads(MemoryTiming(latency_cycles=5), [(7, 4)]) == ([7], [[12, 13, 14, 15]])
    half = MemoryTiming(latency_cycles=5, read_beats_per_cycle=Fraction(2, 3))
    assert model_reads(half, [(0, 4)]) == ([0], [[5, 7, 8, 10]])
    one = MemoryTiming(latency_cycles=5, outstanding=1)
    assert model_reads(one, [(0, 2), (0, 1)]) == ([0, 7], [[5, 6], [12]])


def model_reads(timing, asked):
    """Cycles of acceptance and of beats, by the cycle model's functions."""
    latency, num, den, _, _, limit = memory_constants(timing)
    clock = new_port()[CLOCK]
    accepted, beats, ends = [], [], []
    earliest = 0
    for gap, count in asked:
        cycle = room(len(ends), limit, ([0] * limit + ends)[-limit], earliest + gap)
        times = []
        for _ in range(count):
            clock = next_beat(clock, cycle + latency, num, den)
            times.append(int(cycle_of(clock, num)))
        ends.append(times[-1])
        accepted.append(int(cycle))
        beats.append(times)
        earliest = cycle + 1
    return accepted, beats


@given(timings, bursts)
@settings(deadline=None, max_examples=200)
def test_reads_against_the_stepped_memory(timing, asked):
    port = ReadPort(timing)
    accepted, beats = [], [[] for _ in asked]
    earliest = 0
    for cycle in range(5000):
        ready = port.ready()
        taken = port.take(cycle)
        if taken:
            beats[taken[0]].append(cycle)
        number = len(accepted)
        if ready and number < len(asked) and cycle >= earliest + asked[number][0]:
            port.accept(cycle, asked[number][1], number)
            accepted.append(cycle)
            earliest = cycle + 1
        if beats[-1][asked[-1][1] - 1:]:
            break
    assert model_reads(timing, asked) == (accepted, beats)


@given(timings, bursts)
@settings(deadline=None, max_examples=200)
def test_writes_against_the_stepped_memory(timing, asked):
    """Addresses as early as allowed; a beat is there one cycle after the one before was taken."""
    latency, _, _, num, den, limit = memory_constants(timing)
    port_state = new_port()
    clock, response = port_state[CLOCK], port_state[RESPONSE]
    ends, want, taken, address = [], [], -1, -1
    for gap, count in asked:
        address = room(
            len(ends), limit, ([0] * limit + ends)[-limit], max(address + 1, taken + 1 + gap))
        taken = address
        for _ in range(count):
            clock = next_beat(clock, taken + 1, num, den)
            taken = int(cycle_of(clock, num))
            want.append(taken)
        response = max(response + 1, taken + latency)
        ends.append(int(response))

    port = WritePort(timing)
    got, answered, earliest, offered, left = [], [], 0, 0, 0
    for cycle in range(5000):
        ready = port.ready()
        if port.answer(cycle):
            answered.append(cycle)
        # The burst's own beats follow its address; the next address follows the last beat.
        if left and cycle > offered and port.beat_ready(cycle, True):
            port.take(cycle)
            got.append(cycle)
            offered = cycle
            left -= 1
            earliest = cycle + 1
        elif not left and ready and len(answered) + port.outstanding < len(asked):
            gap, count = asked[len(answered) + port.outstanding]
            if cycle >= earliest + gap:
                port.accept(0, count)
                left, offered = count, cycle
        if len(answered) == len(asked):
            break
    assert (got, answered) == (want, ends)


@pytest.mark.parametrize("rate", [Fraction(1), Fraction(3, 4), Fraction(5, 16), Fraction(1, 9)])
def test_sustained_rate_is_the_rate(rate):
    timing = MemoryTiming(read_beats_per_cycle=rate, outstanding=64)
    _, beats = model_reads(timing, [(0, 16)] * 40)
    cycles = [cycle for burst in beats for cycle in burst]
    span = cycles[-1] - cycles[0]
    assert abs(span * rate - (len(cycles) - 1)) < 1
