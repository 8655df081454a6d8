"""LiveVLM: what a cut cache still knows, and memory and times from cards."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.sim.systems import livevlm
from splatforge.sim.systems.cards import device, model
from splatforge.sim.systems.livevlm import (
    BUDGET,
    FRAME_TOKENS,
    SYSTEMS,
    memory_bytes,
    most_frames,
    stream_fps,
    ttft_s,
)
from splatforge.sim.systems.roofline import Machine
from splatforge.sim.systems.streaming_kv import (
    POLICIES,
    Policy,
    answered,
    compress,
    make_video,
    quality,
)

CARD, BOARD = model("qwen2_7b"), device("rtx_4090d")
MACHINE = Machine.of(BOARD)
OURS, REKV, FIFO, WHOLE = (SYSTEMS[each] for each in ("livevlm", "rekv", "fifo", "one-shot"))
#: An eighth of the tokens of these videos.
VIDEO, KEPT = {"frames": 128}, 256


def found(**more) -> dict[str, np.ndarray]:
    videos = [make_video(seed, **VIDEO, **more) for seed in range(10)]
    return {name: np.array([quality(video, policy, KEPT) for video in videos])
            for name, policy in POLICIES.items()}


# --- needles ---


def test_ten_seeds_of_needles_that_the_stream_looks_for() -> None:
    share = {name: each[:, 0] for name, each in found().items()}
    # On every seed, not on average.
    assert (share["livevlm"] >= share["fifo"] + 0.4).all()
    assert share["livevlm"].min() > 0.85
    assert share["fifo"].mean() < 0.35
    assert share["rekv"].min() > 0.85
    # Attention over all is diluted by what it keeps.
    assert share["livevlm"].mean() > share["one-shot"].mean() > share["fifo"].mean()


def test_where_it_must_not_help() -> None:
    """Needles that look like any other token: attention knows no more of them than the clock."""
    control = found(salient=False)
    share = {name: each[:, 0] for name, each in control.items()}
    difference = share["livevlm"] - share["fifo"]
    # 160 needles: three standard errors of a share of one eighth, twice.
    assert abs(difference.mean()) < 3 * np.sqrt(2 * 0.125 * 0.875 / 160)
    assert control["livevlm"][:, 1].mean() == pytest.approx(KEPT / 2048, abs=0.08)
    # What keeps all is as good as before.
    assert share["rekv"].min() > 0.85


def test_needles_that_came_last_are_known_to_all() -> None:
    share = {name: each[:, 0].mean() for name, each in found(latest=0.125).items()}
    assert share["fifo"] == share["livevlm"] == 1


def test_more_room_more_needles() -> None:
    videos = [make_video(seed, salient=False, **VIDEO) for seed in range(5)]
    held = [np.mean([quality(video, POLICIES["livevlm"], budget)[1] for video in videos])
            for budget in (64, 512, 1024, 2048)]
    assert held == sorted(held)
    assert held[-1] == 1


def test_what_stays_is_spread() -> None:
    video = make_video(3, salient=False, **VIDEO)
    every = np.arange(len(video.keys))
    spread = compress(video, every, KEPT, Policy(keeps="attention", scatter=1.0))
    alone = compress(video, every, KEPT, Policy(keeps="attention", scatter=0.0))
    gaps = [np.diff(each).max() for each in (spread, alone)]
    assert gaps[0] <= gaps[1]
    # In every eighth of the video, at least half of its share.
    assert np.histogram(spread, 8, (0, len(every)))[0].min() >= KEPT / 16


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), budget=st.integers(1, 300),
       name=st.sampled_from([each for each in POLICIES if POLICIES[each].keeps != "all"]))
def test_the_budget_holds(seed: int, budget: int, name: str) -> None:
    video = make_video(seed, frames=20, needles=4)
    held = compress(video, np.arange(320), budget, POLICIES[name])
    assert len(held) == min(320, budget)
    assert (np.diff(held) > 0).all()
    recent = min(budget, 32)
    assert (held[-recent:] == np.arange(320 - recent, 320)).all()


def test_looking_at_all_pages_is_looking_at_all() -> None:
    video = make_video(1, frames=16, needles=4)
    held = np.arange(256)
    weights = np.exp(video.keys @ video.questions.T / 8)
    answers = (weights / weights.sum(0)).T @ video.values
    right = (answers @ video.values[video.needles].T).argmax(1) == np.arange(4)
    assert (answered(video, held) == right).all()
    assert not answered(video, np.setdiff1d(held, video.needles)).all()


# --- cards ---


def test_memory_stands_still_when_the_cache_is_full() -> None:
    full = BUDGET // FRAME_TOKENS + 1
    for system in (OURS, FIFO, REKV):
        assert memory_bytes(system, CARD, 10**4) == memory_bytes(system, CARD, 10**6)
        assert most_frames(system, CARD, BOARD.memory.value) is None
    assert memory_bytes(OURS, CARD, full) == memory_bytes(OURS, CARD, 10**6)
    growth = memory_bytes(WHOLE, CARD, 257) - memory_bytes(WHOLE, CARD, 256)
    assert growth == pytest.approx(FRAME_TOKENS * (
        57_344 + 2 * (3 * 18_944 + 3 * 3584) + 4 * 152_064))
    assert memory_bytes(OURS, CARD, 256) < memory_bytes(REKV, CARD, 256) \
        < memory_bytes(WHOLE, CARD, 256)


@pytest.mark.parametrize("gpu", ["rtx_3090", "rtx_4090d", "a40", "a100_80gb"])
def test_frames_that_fit_are_the_most(gpu: str) -> None:
    memory = device(gpu).memory.value
    fits = most_frames(WHOLE, CARD, memory)
    assert fits
    assert memory_bytes(WHOLE, CARD, fits) <= memory < memory_bytes(WHOLE, CARD, fits + 1)
    more = most_frames(WHOLE, CARD, 1.5 * memory)
    assert more is not None
    assert more > fits
    assert most_frames(WHOLE, CARD, 1e9) == most_frames(OURS, CARD, 1e9) == 0


def test_time_to_the_first_token_moves_as_it_should() -> None:
    one, two, four = (ttft_s(WHOLE, MACHINE, CARD, each) for each in (128, 256, 512))
    # Tokens and their squares: more than twice, less than four times.
    assert 2 < two / one < four / two < 4
    for system in (OURS, FIFO):
        assert ttft_s(system, MACHINE, CARD, 512) == ttft_s(system, MACHINE, CARD, 4096)
    assert ttft_s(OURS, MACHINE, CARD, 256) < ttft_s(REKV, MACHINE, CARD, 256) < two / 50
    # ReKV waits for the host: a faster link helps it, and nobody else.
    fast = Machine(flop_per_s=MACHINE.flop_per_s, bytes_per_s=MACHINE.bytes_per_s,
                   launch_s=MACHINE.launch_s, pcie_bytes_per_s=2 * MACHINE.pcie_bytes_per_s)
    assert ttft_s(REKV, fast, CARD, 256) < ttft_s(REKV, MACHINE, CARD, 256)
    assert ttft_s(OURS, fast, CARD, 256) == ttft_s(OURS, MACHINE, CARD, 256)
    # At least the weights have to be read.
    assert ttft_s(OURS, MACHINE, CARD, 256) > CARD.layers * 2 * CARD.layer_parameters \
        / MACHINE.bytes_per_s


def test_a_long_question_is_told_and_takes_memory() -> None:
    short, long = (livevlm.run(frames=1, question=each) for each in (32, 20_000))
    assert "questions of 20000 tokens" in long.assumptions
    assert "questions of 32 tokens" in short.assumptions
    kept = model("qwen2_7b").kv_bytes_per_token(2.0)
    grown = long.metrics["memory_bytes"] - short.metrics["memory_bytes"]
    assert grown > (20_000 - livevlm.FRAME_TOKENS) * kept
    few, many = (livevlm.compare(frames=8, question=each)["one-shot"].metrics["memory_bytes"]
                 for each in (32, 64))
    assert many > few


def test_patches_of_a_frame_see_each_other() -> None:
    """Scores and values of all pairs of 729 patches, whatever other frames there are."""
    machine = Machine(flop_per_s=1.0, bytes_per_s=1e30, launch_s=0.0, pcie_bytes_per_s=1.0)
    taken = livevlm._encode_s(machine, 5)
    matrices = 2 * 729 * (4 * 1152**2 + 2 * 1152 * 4304)
    pairs = 4 * 729**2 * 16 * 72
    assert taken == pytest.approx(5 * 27 * (matrices + pairs), rel=0.01)


def test_streams() -> None:
    assert stream_fps(WHOLE, MACHINE, CARD) == 0
    better = Machine.of(device("h100_80gb"))
    for system in (OURS, FIFO, REKV):
        assert 0 < stream_fps(system, MACHINE, CARD) < stream_fps(system, better, CARD)
    assert stream_fps(OURS, MACHINE, CARD) < stream_fps(FIFO, MACHINE, CARD)


def test_run_and_compare() -> None:
    run = livevlm.run()
    # The published share of scoring is below 1 %.
    assert 0 < run.metrics["scoring_share"] < 0.01
    assert run.metrics["memory_growth_to_100k_frames"] == 1
    assert run.metrics["needles_found"] > run.metrics["needles_found_not_salient"]
    compared = livevlm.compare(frames=512)
    assert set(compared) == set(SYSTEMS)
    assert compared["livevlm"].metrics["needles_found"] \
        > compared["fifo"].metrics["needles_found"]
    assert "frames_that_fit" in compared["one-shot"].metrics
    small, wide = livevlm.run(budget=3000).metrics, livevlm.run(retrieve=0.8).metrics
    assert small["memory_bytes"] == run.metrics["memory_bytes"] - 9000 * 57_344
    assert small["ttft_s"] < run.metrics["ttft_s"] < wide["ttft_s"]
    ratio = livevlm.ttft_ratio()
    assert 1 < ratio.low < ratio.value < ratio.high
    assert 1 < livevlm.memory_ratio().value < 1.5


@pytest.mark.parametrize(("call", "message"), [
    (lambda: livevlm.run(frames=0), "livevlm: frames and question must be positive"),
    (lambda: livevlm.run(budget=0), "livevlm: budget must be positive, not 0"),
    (lambda: livevlm.compare(retrieve=0.0), r"Retrieve must be in \(0, 1\]"),
    (lambda: livevlm.memory_ratio("dispider"), "Baseline must be one of livevlm, rekv"),
    (lambda: make_video(0, needles=0), "Frames, frame tokens and needles must be positive"),
    (lambda: make_video(0, frames=1, needles=17), "Frames, frame tokens and needles"),
    (lambda: Policy(keeps="some"), "Keeps must be all, latest or attention, not 'some'"),
    (lambda: Policy(keeps="all", retrieve=0), r"Retrieve must be in \(0, 1\]"),
    (lambda: quality(make_video(0, frames=2), POLICIES["fifo"], 0), "Budget must be positive"),
])
def test_refuses(call, message) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
