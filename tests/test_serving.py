"""The serving engine, its elastic memory, its requests."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.sim.systems import workload as loads
from splatforge.sim.systems.cards import device, model
from splatforge.sim.systems.elastic import CHUNK_BYTES, ElasticMemory, SloControl
from splatforge.sim.systems.roofline import Machine
from splatforge.sim.systems.serving import (
    Engine,
    Fcfs,
    PagedMemory,
    Request,
    RooflineTimes,
    prefill_pairs,
)

TRACES = Path(__file__).parents[2] / "shared" / "traces"
LENGTHS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 90), st.integers(1, 60)),
                   min_size=1, max_size=25)


class Steps:
    """A second for prompts, a second for a step."""

    def iteration_s(self, prefill_tokens, pairs, prefill_context, prompts, running, context):
        return 1.0


def requests(rows) -> list[Request]:
    return [Request(arrival_s=arrival, input_tokens=given, output_tokens=answer, number=number)
            for number, (arrival, given, answer) in enumerate(rows)]


def elastic(chunks=40, *, block=8, activation=0.05, host=0, **costs) -> ElasticMemory:
    return ElasticMemory(chunks, block_tokens=block, host_blocks=host,
                         activation_bytes_per_token=activation * CHUNK_BYTES, **costs)


def memories():
    return [PagedMemory(40, 8), elastic(), elastic(host=30)]


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(0, 2), st.sampled_from([0, 16]))
def test_every_request_is_answered_and_memory_is_empty_behind_it(rows, which, chunk):
    memory = memories()[which if not chunk else 0]
    engine = Engine(Steps(), memory, Fcfs(), max_batched_tokens=200, chunk_tokens=chunk)
    engine.add(requests(rows))
    served = engine.run()
    assert len(served.requests) + len(served.refused) == len(rows)
    for request in served.requests:
        assert request.arrival_s < request.first_token_s <= request.finish_s
        assert request.finish_s - request.first_token_s >= request.output_tokens - 1
    assert not engine.running
    assert engine._context == 0
    assert engine._blocks == 0
    assert not any(engine._crossing)
    if isinstance(memory, PagedMemory):
        assert memory.used == 0
    else:
        assert memory.kv_used == memory.act_used == memory.host_used == 0
        assert sum(memory.states().values()) == memory.chunks


@settings(max_examples=40, deadline=None)
@given(LENGTHS)
def test_chunks_are_conserved_in_every_iteration(rows):
    memory = elastic(24, host=16, map_s=1e-3, unmap_s=1e-3)
    engine = Engine(Steps(), memory, Fcfs(), max_batched_tokens=200)
    seen = []

    def watch(now_s, gap_s, fresh):
        states = memory.states()
        seen.append(now_s)
        assert sum(states.values()) == memory.chunks
        assert min(states.values()) >= 0
        assert 0 <= memory.host_used <= memory.host_blocks

    engine.on_iteration = watch
    engine.add(requests(rows))
    engine.run()
    assert seen == sorted(seen)


def test_a_sequence_takes_its_prompt_and_a_step_for_every_other_token():
    engine = Engine(Steps(), PagedMemory(10, 8), Fcfs())
    engine.add(requests([(3.0, 5, 4)]))
    (one,) = engine.run().requests
    assert (one.first_token_s, one.finish_s) == (4.0, 7.0)
    assert (one.ttft_s, one.tpot_s) == (1.0, 1.0)


def test_sequences_share_steps():
    engine = Engine(Steps(), PagedMemory(100, 8), Fcfs())
    engine.add(requests([(0.0, 5, 11), (0.0, 5, 6)]))
    served = engine.run()
    # One iteration for both prompts, ten steps.
    assert served.end_s == 11.0
    assert served.batch_steps == 15
    assert served.largest_batch == 2


def test_a_chunked_prompt_goes_beside_decoding():
    engine = Engine(Steps(), PagedMemory(100, 8), Fcfs(), chunk_tokens=10)
    engine.add(requests([(0.0, 5, 30), (1.5, 40, 2)]))
    first, second = sorted(engine.run().requests, key=lambda request: request.number)
    assert first.finish_s == 30.0
    # From second 2 on nine tokens an iteration: five of them.
    assert second.first_token_s == 7.0


def test_the_last_one_gives_way_where_the_cache_is_full():
    engine = Engine(Steps(), PagedMemory(6, 8), Fcfs())
    engine.add(requests([(0.0, 16, 20), (0.0, 16, 20)]))
    served = engine.run()
    assert served.preemptions >= 1
    first, second = sorted(served.requests, key=lambda request: request.number)
    assert first.preemptions == 0
    assert second.preemptions >= 1
    assert first.finish_s == 20.0 < second.finish_s


def test_what_never_fits_is_refused():
    engine = Engine(Steps(), PagedMemory(4, 8), Fcfs(), max_batched_tokens=64)
    engine.add(requests([(0.0, 33, 2), (0.0, 65, 2), (0.0, 8, 2)]))
    served = engine.run()
    assert {request.number for request in served.refused} == {0, 1}
    assert [request.number for request in served.requests] == [2]
    with pytest.raises(ValueError, match="must have tokens in and out"):
        engine.add(requests([(0.0, 0, 1)]))


def test_a_cache_on_the_host_comes_back_when_there_is_room():
    memory = elastic(20, activation=0.01, host=20)
    engine = Engine(Steps(), memory, Fcfs(), host_bytes_per_s=8.0, token_bytes=1.0)
    engine.add(requests([(0.0, 100, 30), (0.5, 100, 3)]))
    first, second = sorted(engine.run().requests, key=lambda request: request.number)
    # Its prompt at once, layer by layer at 8 tokens a second; its rest behind the first.
    assert second.first_token_s == pytest.approx(1.0 + 12.5)
    assert second.finish_s > first.finish_s
    assert memory.host_used == 0


def test_admission_is_atomic():
    memory = elastic(10, activation=1.0)
    assert memory.admit(6, 5) == ""
    assert memory.states()["free"] == 10
    assert memory.admit(5, 5) == "device"
    assert memory.states() == {"free": 0, "kv_used": 5, "kv_idle": 0, "act_used": 5, "act_idle": 0}


def test_inflation_takes_what_activations_left_mapped():
    memory = elastic(10, activation=1.0, map_s=1.0, unmap_s=0.5)
    assert memory.admit(2, 8) == "device"
    assert memory.delay_s() == 10.0
    memory.end()
    assert memory.states()["act_idle"] == 8
    # Decoding finds up to 50 MB mapped ahead.
    assert memory.grow(3)
    assert memory.delay_s() == 0.0
    assert memory.inflated == 3
    memory.free(5)
    # Deflation waits until activations lack chunks, and then has to unmap.
    assert memory.admit(0, 7) == "device"
    assert (memory.deflated, memory.delay_s()) == (2, 3.0)


def test_the_controller_moves_the_buffer():
    memory = elastic(10, host=64)
    control = SloControl(memory=memory, tpot_s=1.0)
    for _ in range(3):
        control.note(2.0, True)
    assert memory.host_limit == 32
    for _ in range(2):
        control.note(0.5, True)
    assert memory.host_limit == 64
    for gap in (2.0, 0.5, 2.0, 0.5, 0.5, 2.0):
        control.note(gap, False)
    assert memory.host_limit == 64


def test_pairs_of_chunks_are_those_of_the_whole():
    assert prefill_pairs(100) == sum(prefill_pairs(10, before) for before in range(0, 100, 10))


@given(st.integers(1, 4000), st.integers(1, 200), st.integers(200, 200_000))
def test_iterations_take_longer_with_more_in_them(tokens, running, context):
    times = RooflineTimes(Machine.of(device("a100_80gb")), model("llama3_8b"))
    base = times.iteration_s(tokens, prefill_pairs(tokens), tokens, 1, running, context)
    more = (
        times.iteration_s(tokens + 256, prefill_pairs(tokens + 256), tokens + 256, 1, running,
                          context),
        times.iteration_s(tokens, prefill_pairs(tokens), tokens, 1, running, context + 1000))
    assert min(more) > base
    fast = RooflineTimes(Machine.of(device("h100_80gb")), model("llama3_8b"))
    assert fast.iteration_s(tokens, 0.0, tokens, 1, running, context) < base


def test_decoding_alone_takes_as_long_as_its_bytes():
    machine = Machine(flop_per_s=1e18, bytes_per_s=1e12, launch_s=0.0, pcie_bytes_per_s=1e10)
    card = model("llama3_8b")
    times = RooflineTimes(machine, card)
    matrices = card.layers * card.layer_parameters + card.hidden * card.vocab
    cache = 100_000 * card.kv_bytes_per_token()
    assert times.iteration_s(0, 0.0, 0, 0, 1, 100_000) == pytest.approx(
        (2 * matrices + cache) / 1e12, rel=0.01)


def test_ranks_share_matrices_but_no_norms():
    """On a machine that moves bytes only: what each rank has in full does not shrink."""
    machine = Machine(flop_per_s=1e18, bytes_per_s=1e12, launch_s=0.0, pcie_bytes_per_s=1e10)
    card = model("llama2_7b")
    one, two, four = (RooflineTimes(machine, card, ranks=ranks).dense_s(4096)
                      for ranks in (1, 2, 4))
    # Norms and residuals read and write nine tensors of tokens x width: 2 + 4 + 3.
    full_s = card.layers * 9 * 2 * 4096 * card.hidden / 1e12
    assert two == pytest.approx((one - full_s) / 2 + full_s)
    assert four == pytest.approx((one - full_s) / 4 + full_s)


# Workloads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", loads.TRACES)
def test_drawn_requests_have_the_statistics_of_their_trace(name):
    known = loads._committed()[name]
    drawn = loads.draw(name, count=8000)
    assert drawn.input_tokens.mean() == pytest.approx(known["input_mean"], rel=0.08)
    assert drawn.output_tokens.mean() == pytest.approx(known["output_mean"], rel=0.08)
    gaps = np.diff(drawn.arrival_s)
    assert np.all(gaps >= 0)
    # Few gaps make most of the time: the rate of all, and the gaps themselves.
    assert np.diff(loads.draw(name, count=100_000).arrival_s).mean() == pytest.approx(
        1 / known["rate_per_s"], rel=0.12)
    for level in (16, 32, 48):
        share, gap_s = loads._LEVELS[level], known["gap_quantiles_s"][level]
        assert np.quantile(gaps, share) == pytest.approx(gap_s, rel=0.25, abs=1e-9)
    assert np.array_equal(drawn.input_tokens, loads.draw(name, count=8000).input_tokens)
    assert not np.array_equal(drawn.input_tokens, loads.draw(name, seed=1, count=8000).input_tokens)


@pytest.mark.parametrize("name", loads.TRACES)
def test_committed_statistics_are_those_of_the_traces(name):
    if not TRACES.is_dir():
        pytest.skip("request traces are not in ../shared/traces; they are not committed")
    kept = dict(loads._committed()[name])
    assert kept.pop("source")
    assert loads.statistics(loads.read_trace(name, TRACES)) == kept


def test_what_is_wrong_with_a_trace_is_said(tmp_path):
    with pytest.raises(ValueError, match="Trace must be one of"):
        loads.draw("azure")
    path = tmp_path / loads.TRACES["azure_conv"]
    path.parent.mkdir()
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a trace of arrivals and lengths"):
        loads.read_trace("azure_conv", tmp_path)
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    with pytest.raises(ValueError, match="must hold a request"):
        loads.read_trace("azure_conv", tmp_path)
    with pytest.raises(ValueError, match="Load must be positive"):
        loads.draw("mooncake", count=3).requests(load=math.nan)
