"""eLLM: sizes, policies, and how they move with what goes in."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splatforge.sim.systems.cards import device, model
from splatforge.sim.systems.ellm import (
    POLICIES,
    Setting,
    activation_bytes,
    batch_ratio,
    capacity,
    goodput,
    run,
    serve,
)
from splatforge.sim.systems.serving import Request
from splatforge.sim.systems.workload import draw

A100, LLAMA = device("a100_80gb"), model("llama3_8b")
SETTING = Setting(card=A100, network=LLAMA)


def test_the_batch_at_128k_is_three_times_as_large():
    found = capacity(A100, LLAMA, context=131_072, longest=262_144)
    assert (found.static_batch, found.elastic_batch) == (1, 3)
    assert found.static_pool / 2**30 == pytest.approx(30.0, abs=0.1)
    assert found.elastic_pool / 2**30 == pytest.approx(57.0, abs=0.1)


@given(st.sampled_from([2**power for power in range(10, 18)]),
       st.sampled_from(["a100_80gb", "h100_80gb", "h20_96gb", "l40"]))
def test_elastic_memory_never_holds_less(context, name):
    found = capacity(device(name), LLAMA, context=context, longest=131_072)
    assert found.elastic_batch >= found.static_batch
    assert found.elastic_tokens_per_s >= found.static_tokens_per_s
    assert 0 <= found.isolation_loss <= 1


def test_a_longer_reserve_costs_batch_and_no_reserve_costs_none():
    batches = [capacity(A100, LLAMA, context=8192, longest=longest).static_batch
               for longest in (8192, 65_536, 262_144)]
    assert batches == sorted(batches, reverse=True)
    assert batches[0] > batches[2]
    none = capacity(A100, LLAMA, context=1024, longest=1024)
    assert none.isolation_loss < 0.01


def test_there_is_no_ratio_to_nothing():
    """A reserve for 524K tokens leaves no room: all of the rate is lost, and no ratio is zero."""
    found = capacity(A100, LLAMA, context=131_072, longest=524_288)
    assert (found.static_batch, found.elastic_batch) == (0, 3)
    assert found.batch_ratio == math.inf
    assert found.isolation_loss == 1
    assert math.isnan(capacity(A100, LLAMA, context=2**20, longest=2**20).batch_ratio)
    said = run(longest=524_288, count=1).metrics
    assert "batch_ratio" not in said
    assert said["isolation_loss"] == 1
    with pytest.raises(ValueError, match="a100_80gb must have room for llama3_8b with 131072 tok"):
        batch_ratio(longest=524_288)


def test_activations_grow_with_tokens_and_are_split_over_ranks():
    assert activation_bytes(LLAMA, 2000) == 2 * activation_bytes(LLAMA, 1000)
    assert activation_bytes(LLAMA, 1000, ranks=8) < activation_bytes(LLAMA, 1000) / 2


def test_ranks_share_layers_and_speak():
    network = model("llama3_70b")
    with pytest.raises(ValueError, match="must fit on a100_80gb"):
        capacity(A100, network, context=8192, longest=8192)
    four, eight = (capacity(A100, network, context=8192, longest=65_536, ranks=ranks)
                   for ranks in (4, 8))
    assert eight.elastic_batch > 2 * four.elastic_batch
    # Faster, but never by what the devices are more: they add up after every half layer.
    one, two = (Setting(card=A100, network=LLAMA, ranks=ranks).times().iteration_s(
        0, 0.0, 0, 0, 8, 80_000) for ranks in (1, 2))
    assert one / 2 < two < one
    with pytest.raises(ValueError, match="Ranks must divide the 8 heads"):
        Setting(card=A100, network=LLAMA, ranks=3).times()


def burst(count, given_tokens, answer, gap_s=0.0):
    return [Request(arrival_s=gap_s * number, input_tokens=given_tokens, output_tokens=answer,
                    number=number) for number in range(count)]


def test_the_engine_reaches_the_batch_of_the_sizes():
    """Three prompts of nearly 128K: the third cache has room, but not beside its activations.

    Prefilled to the host it comes when they are gone: the published batch of three needs that.
    """
    static, elastic, host = (serve(SETTING, policy, burst(3, 126_000, 1500)).metrics
                             for policy in ("static", "elastic", "elastic_cpu"))
    assert [each["batch_largest"] for each in (static, elastic, host)] == [1, 2, 3]
    assert host["ttft_mean_s"] < elastic["ttft_mean_s"] < static["ttft_mean_s"]
    assert elastic["chunks_inflated"] > 0


def test_the_host_takes_prompts_that_the_device_has_no_room_for():
    requests = 6, 126_000, 1500
    elastic, host = (serve(SETTING, policy, burst(*requests)).metrics
                     for policy in ("elastic", "elastic_cpu"))
    assert host["ttft_mean_s"] < elastic["ttft_mean_s"]
    slow = serve(Setting(card=A100, network=LLAMA, host_bytes=0.0), "elastic_cpu",
                 burst(*requests)).metrics
    assert slow["ttft_mean_s"] == elastic["ttft_mean_s"]


def test_at_saturation_first_tokens_come_seven_times_as_fast():
    """Long prompts with long answers, faster than a cache of one can decode: queues differ."""
    load = 10, 120_000, 3000, 30.0
    static, elastic = (serve(SETTING, policy, burst(*load)).metrics["ttft_p50_s"]
                       for policy in ("static", "elastic_cpu"))
    assert static > 7 * elastic


@pytest.mark.parametrize(("options", "message"), [
    ({"count": -5}, "count and seed must be non-negative, not -5 and 0"),
    ({"seed": -1}, "count and seed must be non-negative, not 2 and -1"),
    ({"ttft_scale": float("nan")}, "ttft_scale must be positive and finite, not nan"),
    ({"load": float("inf")}, "Load must be positive, not inf"),
])
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        run(**{"count": 2, **options})


@pytest.mark.parametrize("policy", POLICIES)
def test_all_tokens_come_and_a_faster_device_is_faster(policy):
    requests = draw("mooncake", count=30)
    slow, fast = (serve(Setting(card=device(name), network=LLAMA), policy,
                        requests.requests(load=0.02)) for name in ("a100_80gb", "h100_80gb"))
    for outcome in (slow, fast):
        assert outcome.metrics["requests"] == 30
        assert sum(request.output_tokens for request in outcome.served.requests) == int(
            requests.output_tokens.sum())
    assert fast.metrics["ttft_mean_s"] < slow.metrics["ttft_mean_s"]
    assert fast.attained >= slow.attained


def test_more_load_is_never_more_in_time():
    requests = draw("azure_conv", count=400)
    attained = [serve(SETTING, "elastic", requests.requests(load=load)).attained
                for load in (0.5, 4.0, 32.0)]
    assert attained == sorted(attained, reverse=True)
    assert attained[0] > attained[2]


def test_goodput_grows_with_wider_targets():
    load = draw("mooncake", count=40)
    tight, wide = (goodput(Setting(card=A100, network=LLAMA, ttft_scale=scale, tpot_scale=scale),
                           "elastic_cpu", load, steps=4) for scale in (5.0, 20.0))
    assert 0 < tight <= wide


def test_runs_are_the_same_each_time():
    options = {"count": 200, "load": 2.0}
    assert run(**options).metrics == run(**options).metrics
    assert run(**options).metrics != run(**options, seed=1).metrics


def test_what_is_refused():
    with pytest.raises(ValueError, match="Policy must be one of static"):
        serve(SETTING, "greedy", [])
    with pytest.raises(ValueError, match="must fit on rtx_4090"):
        serve(Setting(card=device("rtx_4090"), network=model("mpt_30b")), "elastic", [])
    with pytest.raises(ValueError, match="Context must be 1 to the longest"):
        run(context=300_000)
    with pytest.raises(ValueError, match="Longest context must leave room"):
        serve(Setting(card=A100, network=LLAMA, longest=1_000_000), "static", [])
    with pytest.raises(ValueError, match=r"utilisation must be in \(0, 1\]"):
        Setting(card=A100, network=LLAMA, utilisation=1.5)
