"""ParaStep: what ranks and links take, and what reuse costs where the score is exact."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.sim.systems.cards import device
from splatforge.sim.systems.diffusion import ddim_levels, exact_denoiser, random_mixture, sample
from splatforge.sim.systems.generators import GENERATORS, generator
from splatforge.sim.systems.links import Link
from splatforge.sim.systems.parastep import (
    Plan,
    compare,
    evaluations,
    ideal_speedup,
    run,
    simulate,
    speedup,
    transferred,
)
from splatforge.sim.systems.parastep_quality import errors, likeness, reuse_then_predict
from splatforge.sim.systems.roofline import Machine
from splatforge.sim.systems.timeline import Timeline

_NVLINK = Link(latency_s=8e-6, bytes_per_s=230e9)


def seconds(plan: Plan) -> float:
    return simulate(plan).latency_s


# --- what is counted -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERATORS)
def test_weights_are_as_many_as_their_authors_say(name) -> None:
    made = generator(name)
    # AudioLDM2-large is printed as 750 M and as 712 M; embeddings of positions are left out.
    assert made.denoiser.parameters == pytest.approx(made.parameters, rel=0.05)


def test_parts_known_from_elsewhere() -> None:
    """Weights of T5-XXL's encoder without its tokens, of SD's decoder, of CLIP ViT-H."""
    by_name = {each.name: each for made in map(generator, GENERATORS)
               for each in (*made.before, *made.after)}
    assert by_name["T5-XXL"].parameters == pytest.approx(4.63e9, rel=0.01)
    assert by_name["decoder, FP32"].parameters == pytest.approx(49.5e6, rel=0.01)
    assert by_name["CLIP ViT-H"].parameters == pytest.approx(630e6, rel=0.01)


def test_operations_of_sdxl() -> None:
    """5.98 TFLOP of matrices and convolutions for one latent of 128x128, and attention by hand."""
    net = generator("sdxl").denoiser
    attention = sum(each.flop for each in net.operators if each.name == "attention")
    by_hand = 2 * 4 * (10 * 4096 * (4096 + 77) * 640 + 60 * 1024 * (1024 + 77) * 1280)
    assert attention == pytest.approx(by_hand)
    rest = sum(each.flop for each in net.operators if each.name in ("linear", "convolution"))
    assert rest / 2 == pytest.approx(5.98e12, rel=0.02)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_batch_does_more_with_the_same_weights(name) -> None:
    one, three = generator(name).denoiser, generator(name, 3).denoiser
    assert three.parameters == one.parameters
    assert three.flop == pytest.approx(3 * one.flop, rel=1e-3)
    assert three.size_bytes < 3 * one.size_bytes


# --- ranks and links -----------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(["svd", "cogvideox", "audioldm2"]), ranks=st.integers(1, 16),
       warm_up=st.integers(0, 30), steps=st.integers(1, 60))
def test_calls_bytes_and_the_ideal(name, ranks, warm_up, steps) -> None:
    warm_up = min(warm_up, steps)
    plan = Plan(generator=name, ranks=ranks, warm_up=warm_up, steps=steps)
    outcome = simulate(plan)
    assert outcome.calls == evaluations(steps, warm_up, ranks)
    # Every step behind the warm-up that rank 0 does not take itself is sent; so is each latent
    # that another cycle starts from, to all others.
    cycles = -(-(steps - warm_up) // ranks)
    noises = steps - warm_up - cycles
    broadcasts = max(cycles - 1, 0) * (ranks - 1)
    assert outcome.size_bytes == pytest.approx(
        (noises + broadcasts) * generator(name).latent_bytes)
    gain = seconds(replace(plan, policy="sequential")) / outcome.latency_s
    assert gain <= ideal_speedup(steps, warm_up, ranks) * (1 + 1e-9)


def test_one_rank_is_no_faster_than_one_device() -> None:
    plan = Plan(generator="svd", ranks=1)
    assert seconds(plan) == pytest.approx(seconds(replace(plan, policy="sequential")))


@settings(max_examples=15, deadline=None)
@given(policy=st.sampled_from(["parastep", "asyncdiff", "ulysses", "ring"]),
       slower=st.floats(1, 1e4))
def test_a_slower_link_never_helps(policy, slower) -> None:
    fast = Plan(generator="cogvideox", policy=policy, link=_NVLINK)
    slow = replace(fast, link=replace(_NVLINK, bytes_per_s=_NVLINK.bytes_per_s / slower))
    assert seconds(slow) >= seconds(fast) * (1 - 1e-12)


def test_a_slow_link_turns_the_order() -> None:
    """Ulysses wins over NVLink, ParaStep over a network: its bytes are thousands of times fewer."""
    def ahead(bytes_per_s: float) -> bool:
        plan = Plan(generator="cogvideox", link=Link(latency_s=1e-5, bytes_per_s=bytes_per_s))
        return seconds(plan) < seconds(replace(plan, policy="ulysses"))
    assert not ahead(230e9)
    assert ahead(1.25e9)
    assert [ahead(10**power) for power in range(8, 12)] == [True, True, False, False]
    assert (transferred("cogvideox", policy="ulysses").value
            > 1000 * transferred("cogvideox").value)


def test_more_warm_up_is_slower_and_a_heavier_decoder_too() -> None:
    times = [seconds(Plan(generator="svd", warm_up=each)) for each in (0, 5, 15, 50)]
    assert times == sorted(times)
    outcome = simulate(Plan(generator="svd"))
    alone = simulate(Plan(generator="svd", policy="sequential"))
    # What runs once is Amdahl's serial part.
    amdahl = outcome.fixed_s + 11 * outcome.call_s
    assert outcome.latency_s == pytest.approx(amdahl, rel=0.02)
    assert alone.latency_s == pytest.approx(alone.fixed_s + 50 * alone.call_s, rel=0.02)


def test_ranks_fill_up_with_full_cycles() -> None:
    gains = [speedup("svd", ranks=count).value for count in (1, 2, 4, 8, 16)]
    assert gains == sorted(gains)
    # 45 steps in cycles of 46 take no less time than in cycles of 45.
    assert (seconds(Plan(generator="svd", ranks=46))
            >= seconds(Plan(generator="svd", ranks=45)) - 1e-3)


def test_a_batch_on_one_device_gains_only_where_it_is_idle() -> None:
    """SVD fills a device by itself; AudioLDM's kernels are short."""
    assert speedup("svd", policy="batchstep").value < 1.05
    assert speedup("audioldm2", policy="batchstep").value > 1.3


def test_asynchronous_bytes_by_hand() -> None:
    """Two components of SDXL: hidden and kept tensors where it is cut, and the noise, each step."""
    plan = Plan(generator="sdxl", policy="asyncdiff", ranks=2, warm_up=0, steps=1)
    made = generator("sdxl")
    # Cut where half of the time is behind it: to the kept tensors of the lowest level.
    machine = Machine.of(device("a100_80gb"))
    operators = made.denoiser.operators
    whole = machine.time_s(operators)
    cut = min(made.cuts, key=lambda each: abs(machine.time_s(operators[:each.operators])
                                              - whole / 2))
    assert simulate(plan).size_bytes == 2.0 * 2 * cut.elements + made.latent_bytes


def test_the_same_shares_in_one_timeline() -> None:
    time = Timeline()
    first = time.add("a", "rank 0", 2.0)
    other = time.add("b", "rank 1", 1.0)
    both = time.add("c", "rank 1", 3.0, [first])
    assert (both.start_s, both.end_s, other.end_s) == (2.0, 5.0, 1.0)
    assert time.end_s == 5.0
    assert time.busy_s("rank 1") == 4.0
    assert time.critical_s() == {"a": 2.0, "c": 3.0}
    with pytest.raises(ValueError, match=r"^d: duration must be non-negative, not -1"):
        time.add("d", "rank 0", -1)


@pytest.mark.parametrize(("options", "message"), [
    ({"generator": "flux"}, "Generator must be one of svd"),
    ({"policy": "magic"}, "Policy must be one of sequential"),
    ({"ranks": 0}, "Ranks must be at least 1, not 0"),
    ({"warm_up": 51}, "Warm-up must be 0 to 50 steps, not 51"),
    ({"steps": 0}, "Steps must be at least 1, not 0"),
    ({"policy": "ulysses"}, "ulysses needs a transformer"),
    ({"generator": "cogvideox", "policy": "patches"}, "patches needs a UNet"),
    ({"device": "abacus"}, "Device must be one of"),
    ({"policy": "asyncdiff", "ranks": 99}, "svd: ranks must be at most"),
])
def test_plans_that_cannot_be(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**options)


# --- quality -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact() -> dict:
    found = errors((2, 4, 8), (1, 5, 40), seeds=10, batch=48)
    return {(each.ranks, each.warm_up): each for each in found}


@pytest.fixture(scope="module")
def unrelated() -> dict:
    found = errors((2, 4), (5,), seeds=10, batch=48, unrelated=True)
    return {(each.ranks, each.warm_up): each for each in found}


def test_one_rank_and_all_warm_up_are_exact() -> None:
    random = np.random.default_rng(0)
    levels, mixture = ddim_levels(20), random_mixture(random)
    denoise, start = exact_denoiser(mixture, levels), random.standard_normal((8, 16))
    wanted = sample(denoise, start, levels)
    for ranks, warm_up in ((1, 0), (1, 7), (4, 20)):
        got, calls = reuse_then_predict(denoise, start, levels, ranks=ranks, warm_up=warm_up)
        np.testing.assert_array_equal(got, wanted)
        assert calls == evaluations(20, warm_up, ranks)


def test_a_constant_noise_is_reused_without_error() -> None:
    """Where every step says the same, any number of ranks gives the same."""
    levels = ddim_levels(20)
    noise = np.random.default_rng(0).standard_normal((8, 16))
    start = noise + 0.1
    wanted = sample(lambda *_: noise, start, levels)
    got, _ = reuse_then_predict(lambda *_: noise, start, levels, ranks=8, warm_up=1)
    np.testing.assert_allclose(got, wanted)


def test_error_grows_with_ranks_and_falls_with_warm_up(exact) -> None:
    mean = {setting: each.reused.mean() for setting, each in exact.items()}
    for warm_up in (1, 5, 40):
        assert mean[2, warm_up] < mean[4, warm_up] < mean[8, warm_up]
    assert mean[8, 40] < 0.5 * mean[8, 1]
    assert mean[4, 40] < mean[4, 1]


def test_reuse_helps_where_steps_are_alike(exact) -> None:
    for each in exact.values():
        if each.warm_up < 40:
            assert (each.reused < each.waited).all()
    assert likeness(seeds=2, batch=16) > 0.99


def test_reuse_hurts_where_steps_are_unrelated(unrelated) -> None:
    """The control: what held in every seed above fails in nearly every one."""
    for each in unrelated.values():
        assert each.reused.mean() > 1.05 * each.waited.mean()
        assert (each.reused < each.waited).sum() <= 2
    assert likeness(seeds=2, batch=16, unrelated=True) < 0.9


@pytest.mark.parametrize(("options", "message"), [
    ({"ranks": 0, "warm_up": 0}, "Ranks must be at least 1, not 0"),
    ({"ranks": 2, "warm_up": 21}, "Warm-up must be 0 to 20 steps, not 21"),
])
def test_settings_of_reuse_out_of_range(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        reuse_then_predict(lambda x, _: x, np.zeros((1, 2)), ddim_levels(20), **options)


@pytest.mark.parametrize("options", [{"seeds": -2}, {"seed": -1}])
def test_seeds_that_are_none(options) -> None:
    with pytest.raises(ValueError, match=r"^parastep: seeds and seed must be non-negative"):
        run(**options)


def test_a_policy_that_so_many_ranks_cannot_have_is_left_out() -> None:
    runs = compare(generator="svd", ranks=64)
    assert "asyncdiff" not in runs
    assert "ulysses" not in compare(generator="sd3", ranks=25)
    assert {"sequential", "parastep", "patches"} <= set(runs)
    for each in runs.values():
        assert any("asyncdiff is left out: svd: ranks must be at most" in text
                   for text in each.assumptions)


def test_run_and_compare() -> None:
    got = run(generator="audioldm2", seeds=1)
    assert got.metrics["speedup"] <= got.metrics["ideal_speedup"]
    assert got.not_covered
    assert {each.title for each in got.curves}
    runs = compare(generator="audioldm2")
    assert runs["sequential"].metrics["speedup"] == 1
    assert runs["parastep"].metrics["speedup"] == pytest.approx(got.metrics["speedup"])
    assert "ulysses" not in runs
    assert "patches" in runs
