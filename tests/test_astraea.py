"""ASTRAEA's operations, bytes and times: by hand, and as they move with one input."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.sim.systems import astraea
from splatforge.sim.systems.cards import device
from splatforge.sim.systems.roofline import Machine
from splatforge.sim.systems.video_models import (
    VIDEO_MODELS,
    cache_bytes,
    call_tally,
    decoder_tally,
    video_model,
)

_MATRICES = ("linear", "attention")


def matrices(model, share=1.0, method="astraea", **options) -> float:
    """Operations of a call without what is element by element."""
    net = call_tally(model, share, method, **options)
    return sum(each.flop for each in net.operators if each.name in _MATRICES)


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(["wan_2s", "wan_4s"]), share=st.floats(0.05, 1))
def test_operations_by_hand(name, share) -> None:
    """Keys and values of all tokens, the rest of the chosen ones."""
    shape = video_model(name)
    n, d, text = shape.tokens, shape.width, shape.text_tokens
    block = (n * 4 * d**2 + share * n * (4 * d**2 + 4 * d**2 + 4 * d * shape.ff)
             + share * 4 * n**2 * d + share * 4 * n * text * d + text * 4 * d**2)
    assert matrices(shape, share) == pytest.approx(shape.blocks * block)


def test_calibration_means_one_thing() -> None:
    """Calls are calibrated, text encoder, decoder and links are not: in latency and in scaling."""
    options = {"original_s": 155.01}
    assert astraea.latency("wan_4s", **options).value == pytest.approx(155.01)
    for gpus in (1, 2, 8):
        assert astraea.scaling("wan_4s", gpus, **options).value == pytest.approx(
            155.01 / astraea.latency("wan_4s", 0.5, gpus=gpus, **options).value)
    serial = astraea.run(model="wan_4s", seeds=0).metrics["serial_s"]
    half = astraea.latency("wan_4s", 0.5, whole_steps=True, **options)
    assert half.value == pytest.approx((155.01 - serial) / 2 + serial)
    assert half.points == {"astraea.wan_4s_original_lat_a100_s"}
    with pytest.raises(ValueError, match="original_s must be 0 or above the"):
        astraea.latency("wan_4s", original_s=0.01)


@pytest.mark.parametrize("options", [{"seeds": -1}, {"seed": -1}])
def test_seeds_that_are_none(options) -> None:
    with pytest.raises(ValueError, match="astraea: seeds and seed must be non-negative"):
        astraea.run(**options)


def test_tokens_of_the_clips() -> None:
    assert {name: each.tokens for name, each in VIDEO_MODELS.items()} == {
        "wan_2s": 14_040, "wan_4s": 26_520, "opensora_2s": 23_850, "opensora_4s": 47_700,
        "hunyuan_5s": 67_320}


@pytest.mark.parametrize("name", VIDEO_MODELS)
def test_published_operations(name) -> None:
    """The project page's, of all tokens."""
    published = {"wan_2s": 7.29, "wan_4s": 19.87, "opensora_2s": 3.29, "opensora_4s": 6.59,
                 "hunyuan_5s": 217.27}
    assert astraea.flops(name).to("PFLOP").value == pytest.approx(published[name], rel=0.035)


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(list(VIDEO_MODELS)), low=st.floats(0.05, 0.9),
       more=st.floats(0.01, 0.1))
def test_more_tokens_are_more_of_everything(name, low, more) -> None:
    few, many = (call_tally(video_model(name), each, "astraea") for each in (low, low + more))
    machine = Machine.of(device("a100_80gb"))
    assert few.flop < many.flop
    assert few.parameters == many.parameters
    assert machine.time_s(few.operators) < machine.time_s(many.operators)


@pytest.mark.parametrize("name", VIDEO_MODELS)
def test_a_share_gains_less_than_its_inverse(name) -> None:
    """Keys, values and choosing are paid for all tokens; all of them chosen gains nothing."""
    gains = [astraea.speedup(name, share).value for share in (0.3, 0.5, 0.7, 1.0)]
    assert gains == sorted(gains, reverse=True)
    assert gains[-1] == 1
    for share, gain in zip((0.3, 0.5, 0.7), gains, strict=False):
        assert 1 < gain < 1 / share


def test_longer_clips_gain_more_by_the_same_share() -> None:
    """Attention, which is quadratic, is saved in full; what all tokens pay is linear."""
    assert astraea.speedup("wan_4s", 0.5).value > astraea.speedup("wan_2s", 0.5).value


def test_choosing_costs_bandwidth() -> None:
    """On a device of more operations and the same bandwidth, choosing is a larger part."""
    part = {name: astraea.selection_share("wan_4s", device=name).value
            for name in ("a100_80gb", "h100_80gb", "rtx_4090")}
    assert all(0 < each < 0.1 for each in part.values())
    balance = {name: device(name).fp16.value / device(name).bandwidth.value for name in part}
    assert sorted(part, key=part.__getitem__) == sorted(balance, key=balance.__getitem__)


def test_leaving_out_keys_saves_more() -> None:
    shape = video_model("wan_4s")
    assert matrices(shape, 0.5, "select_qk") < matrices(shape, 0.5)
    assert matrices(shape, 1.0, "select_qk") == matrices(shape, 1.0)


def test_sparse_attention_by_hand() -> None:
    shape = video_model("wan_2s")
    saved = matrices(shape, method="sparse") - matrices(shape, method="sparse", density=0.3)
    assert saved == pytest.approx(0.7 * shape.blocks * 4 * shape.tokens**2 * shape.width)


def test_broadcast_and_toca_have_their_limits() -> None:
    whole = astraea.flops("wan_2s").value
    assert astraea.broadcast_flops("wan_2s", 1, 1).value == pytest.approx(whole)
    assert astraea.toca_flops("wan_2s", 1, 0.8).value == pytest.approx(whole)
    assert (astraea.broadcast_flops("wan_2s", 5, 9).value
            < astraea.broadcast_flops("wan_2s", 2, 6).value < whole)
    assert (astraea.toca_flops("wan_2s", 2, 0.85).value
            < astraea.toca_flops("wan_2s", 2, 0.8).value < whole)


@pytest.mark.parametrize("name", ["wan_2s", "opensora_4s"])
def test_several_devices(name) -> None:
    gains = [astraea.scaling(name, count).value for count in (1, 2, 4, 8)]
    assert gains == sorted(gains)
    assert gains[0] == pytest.approx(astraea.speedup(name, 0.5).value)
    # Encoder, decoder, launches and exchange are not shared out.
    assert gains[3] < 8 * gains[0]


def test_each_device_launches_every_kernel() -> None:
    """A machine whose launches take all the time is no faster for there being more of them."""
    shape = video_model("wan_2s")
    net = call_tally(shape)
    machine = Machine.of(device("a100_80gb"))
    launches = shape.calls * net.launches * machine.launch_s
    one, four = (astraea._calls_s("wan_2s", 1.0, "a100_80gb", "value", gpus=count)
                 for count in (1, 4))
    assert one == pytest.approx(shape.calls * machine.time_s(net.operators))
    assert four == pytest.approx((one - launches) / 4 + launches)
    assert 0.02 < launches / four < 0.5


@pytest.mark.parametrize(("slow", "fast"), [
    ("a100_80gb", "h100_80gb"), ("v100_32gb", "a100_80gb"), ("h20_96gb", "a100_80gb")])
def test_other_devices(slow, fast) -> None:
    """More operations a second, less time, although the H20 has the faster memory."""
    for name in ("wan_4s", "hunyuan_5s"):
        times = [astraea.latency(name, device=each).value for each in (slow, fast)]
        assert times[1] < times[0]
        bound = device(fast).fp16.value / device(slow).fp16.value
        assert times[0] / times[1] < 1.05 * bound


def test_a_point_follows_what_was_calibrated_on_it() -> None:
    ours = astraea.latency("wan_4s", 0.5, original_s=155.01)
    assert ours.points == {"astraea.wan_4s_original_lat_a100_s"}
    # Encoder and decoder are not calibrated: not quite what the roofline has for all.
    assert ours.value == pytest.approx(155.01 / astraea.speedup("wan_4s", 0.5).value, rel=0.01)
    assert astraea.latency("wan_4s", 1.0, original_s=155.01).value == pytest.approx(155.01)
    assert not astraea.latency("wan_4s", 0.5).points
    assert astraea.scaling("wan_4s", 2, original_s=155.01).points == ours.points


def test_half_of_the_steps_take_half_of_the_calls() -> None:
    whole, half = (astraea.latency("wan_4s", share, whole_steps=True).value
                   for share in (1.0, 0.5))
    assert 0.5 * whole < half < 0.53 * whole


def test_cache_by_hand() -> None:
    assert cache_bytes(video_model("wan_2s")) == 2 * 14_040 * 1536 * 30 * 2
    ours = astraea.memory("hunyuan_5s", 45.81)
    assert ours.value == pytest.approx(45.81 + 2 * 67_320 * 3072 * 60 / 1e9)
    assert ours.points == {"astraea.hunyuan_5s_original_mem_gb"}


def test_decoders() -> None:
    # Stable Diffusion's decoder of 49 M weights is one of Open-Sora's two; Wan's has 73 M.
    assert decoder_tally(video_model("wan_2s")).parameters == pytest.approx(73e6, rel=0.05)
    with pytest.raises(ValueError, match="hunyuan_5s: its decoder is not modelled"):
        decoder_tally(video_model("hunyuan_5s"))
    longer = decoder_tally(replace(video_model("wan_2s"), frames=17))
    assert longer.flop > 1.8 * decoder_tally(video_model("wan_2s")).flop


@pytest.mark.parametrize(("call", "message"), [
    (lambda: astraea.flops("sora"), "Video model must be one of wan_2s"),
    (lambda: astraea.speedup("wan_2s", 0.0), r"Share must be in \(0, 1\], not 0"),
    (lambda: astraea.scaling("wan_2s", 0), "GPUs must be at least 1, not 0"),
    (lambda: astraea.scaling("wan_2s", 13),
     "GPUs must be at most 12 for wan_2s, as many as it has heads, which Ulysses deals out, not"),
    (lambda: astraea.run(model="opensora_2s", gpus=16), "GPUs must be at most 15 for opensora_2s"),
    (lambda: astraea.sparse_flops("wan_2s", 1.0), r"Density must be in \(0, 1\], not 0"),
    (lambda: astraea.latency("wan_2s", device="abacus"), "Device must be one of"),
    (lambda: call_tally(video_model("wan_2s"), 0.5, "magic"), "Method must be one of original"),
])
def test_what_cannot_be(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_compare() -> None:
    runs = astraea.compare(model="wan_2s")
    assert runs["original"].metrics["speedup"] == 1
    # Whole steps left out are faster than tokens left out: they save keys and values too.
    assert (1 < runs["astraea"].metrics["speedup"] < runs["timestep_level"].metrics["speedup"] < 2)
    assert runs["astraea"].metrics["cache_gb"] > 0
