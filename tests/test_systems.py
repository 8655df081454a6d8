"""What GPU-side systems share: cards, roofline, links, the registry, the verbs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splatforge.cli import main
from splatforge.sim.systems import cards
from splatforge.sim.systems.links import Link
from splatforge.sim.systems.roofline import (
    Machine,
    Operator,
    attention,
    banded,
    decoder_layer,
    linear,
)
from splatforge.sim.systems.run import SYSTEMS, SystemRun, options_of, run_system

MACHINE = Machine.of(cards.device("a100_80gb"))
LINK = Link(latency_s=1e-5, bytes_per_s=1e11)


@pytest.mark.parametrize(("name", "billions"), [
    ("llama2_7b", 6.74), ("llama2_13b", 13.02), ("llama3_8b", 8.03), ("llama3_70b", 70.6),
    ("mpt_30b", 30.0), ("qwen2_7b", 7.62)])
def test_shapes_give_the_published_number_of_weights(name, billions):
    assert cards.model(name).parameters / 1e9 == pytest.approx(billions, rel=0.02)


def test_devices_are_whole():
    for card in cards.devices().values():
        assert 20e9 < card.memory.low <= card.memory.high < 200e9
        assert card.peak("fp16").value > card.peak("fp32").value
    with pytest.raises(ValueError, match="did you mean 'a100_80gb'"):
        cards.device("a100_80g")
    with pytest.raises(ValueError, match="precision must be fp16 or fp32"):
        cards.device("rtx_3090").peak("fp8")


def test_measured_efficiencies_give_measured_times():
    """Vidur's A100: the gate-up projection of Llama3-8B, 29.5 ms at 28,672 tokens, 0.143 at 1."""
    for tokens, measured_s in ((28_672, 29.5e-3), (1, 0.143e-3)):
        assert MACHINE.time_s(linear("up", tokens, 4096, 28_672)) == pytest.approx(
            measured_s, rel=0.08)


@given(st.integers(1, 4096), st.integers(1, 65_536), st.integers(1, 64))
def test_time_grows_with_work_and_falls_with_rates(tokens, more, sequences):
    network = cards.model("llama3_8b")
    small = decoder_layer(network, tokens, tokens + more, sequences=sequences)
    large = decoder_layer(network, tokens, tokens + more + 512, sequences=sequences)
    assert MACHINE.time_s(large) > MACHINE.time_s(small)
    fast = Machine.of(cards.device("h100_80gb"))
    assert fast.time_s(small) < MACHINE.time_s(small)
    assert (Machine.of(cards.device("a100_80gb"), end="fast").time_s(small)
            < MACHINE.time_s(small)
            < Machine.of(cards.device("a100_80gb"), end="slow").time_s(small))


def test_a_layer_counts_its_weights_twice_per_token():
    network = cards.model("llama3_8b")
    layer = decoder_layer(network, 1, 1)
    flop = sum(each.flop for each in layer if each.name in ("qkv", "output", "up", "down"))
    assert flop == 2 * network.layer_parameters


def test_causal_attention_is_half_of_all_pairs():
    full = attention(1024, 1024, 8, 8, 64)
    half = attention(1024, 1024, 8, 8, 64, causal=True)
    assert half.flop / full.flop == pytest.approx(0.5, rel=1e-3)
    assert half.size_bytes == full.size_bytes


def test_what_bounds_an_operator():
    assert MACHINE.bound_by(linear("decode", 1, 4096, 4096)) == "memory"
    assert MACHINE.bound_by(linear("prefill", 8192, 4096, 4096)) == "compute"
    assert MACHINE.bound_by(Operator(name="tiny", flop=1.0)) == "launch"


@given(st.floats(0, 1e9), st.integers(2, 64))
def test_collectives(size, ranks):
    assert LINK.all_reduce_s(size, ranks) == pytest.approx(
        LINK.reduce_scatter_s(size, ranks) + LINK.all_gather_s(size, ranks))
    assert LINK.broadcast_s(size, ranks) >= LINK.send_s(size) * (1 - 1e-9)
    assert LINK.all_reduce_s(size, ranks) >= 2 * (ranks - 1) / ranks * size / LINK.bytes_per_s
    assert LINK.broadcast_s(size, 1) == LINK.all_reduce_s(size, 1) == 0
    assert LINK.all_reduce_s(size + 1e6, ranks) > LINK.all_reduce_s(size, ranks)


def test_links_give_measured_times():
    """Vidur's NCCL times of 67 MB: two in a DGX A100 0.294 ms, over eight all-reduced 0.675 ms."""
    link = Link.between(cards.device("a100_80gb"))
    assert link.send_s(67_108_864) == pytest.approx(0.294e-3, rel=0.05)
    assert link.all_reduce_s(67_108_864, 8) == pytest.approx(0.675e-3, rel=0.2)
    assert Link.between(cards.device("h100_80gb")).send_s(67_108_864) == pytest.approx(
        0.193e-3, rel=0.07)
    assert Link.between(cards.device("l40")).name == "l40 pcie"


def test_bands_hold_their_value():
    number = banded(lambda end: {"value": 2.0, "slow": 3.0, "fast": 1.0}[end], "s", "test")
    assert (number.low, number.value, number.high) == (1.0, 2.0, 3.0)


def test_a_run_says_what_it_leaves_out():
    with pytest.raises(ValueError, match="must say what it does not cover"):
        SystemRun(system="x", metrics={}, not_covered=())
    with pytest.raises(ValueError, match="time_s must be finite"):
        SystemRun(system="x", metrics={"time_s": float("nan")}, not_covered=("all",))


@pytest.mark.parametrize("name", SYSTEMS)
def test_options_have_defaults_and_are_checked(name):
    options = options_of(name)
    assert "seed" in options
    with pytest.raises(ValueError, match="option must be one of"):
        run_system(name, nothing="1")


def test_options_that_are_text_become_what_they_are():
    with pytest.raises(ValueError, match="context must be a whole number, not 'many'"):
        run_system("ellm", context="many")


def test_verbs(tmp_path, capsys):
    assert main(["systems", "list", "--json", str(tmp_path / "list.json")]) == 0
    listed = json.loads((tmp_path / "list.json").read_text())["systems"]
    assert set(listed) == set(SYSTEMS)
    plot = tmp_path / "plot.svg"
    assert main(["systems", "compare", "ellm", "--plot", str(plot), "--json", "-"]) == 0
    assert plot.read_bytes().startswith(b"<svg")
    # Runs without curves are drawn all the same, all of them.
    plot = tmp_path / "plot.json"
    assert main(["systems", "compare", "parastep", "--plot", str(plot), "--json", "-"]) == 0
    rows = json.loads(plot.read_text())["data"]["values"]
    assert {"sequential", "parastep", "asyncdiff"} <= {row.get("run") for row in rows}
    assert main(["systems", "run", "elm"]) == 2
    assert main(["systems", "run", "ellm", "--set", "context"]) == 2
    assert main(["systems", "run", "ellm", "--plot", str(tmp_path / "plot.gif")]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-3:] == [
        "splatforge: System must be one of " + ", ".join(SYSTEMS)
        + ", not 'elm' (did you mean 'ellm'?)",
        "splatforge: --set must be OPTION=VALUE, not 'context'",
        (f"splatforge: {tmp_path}/plot.gif: extension must be .svg or .png or .html or .json, "
        "not '.gif'")]


def test_run_writes_metrics_and_claims(tmp_path):
    target = tmp_path / "run.json"
    assert main(["systems", "run", "ellm", "--json", str(target)]) == 0
    record = json.loads(target.read_text())
    assert record["system"] == "ellm"
    assert record["metrics"]
    assert record["not_covered"]
    assert {claim["paper"] for claim in record["claims"]} == {"ellm"}
