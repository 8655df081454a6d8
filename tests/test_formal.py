"""The stream proofs, and that they fail when they must."""

import gc
from dataclasses import replace

import pytest
from amaranth.hdl import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from splatforge.hw.array import Array
from splatforge.hw.blend import Blend
from splatforge.hw.fetch import Fetch
from splatforge.hw.generate import COMPONENTS
from splatforge.hw.raster import Raster
from splatforge.verification import formal
from splatforge.verification.formal import (
    SMALL,
    SMALL_LUMINA,
    UNITS,
    ProofError,
    channels,
    prove,
    prove_unit,
)

pytestmark = pytest.mark.rtl

#: Every output channel of every unit.
OUTPUTS = {
    "alpha": {"o"},
    "array": {"o", "o_tile"},
    "blend": {"o"},
    "bsu": {"o_address", "o_entry"},
    "ccu": {"o_address", "o_feature", "o_entry"},
    "cfu": {"o_address", "o_token"},
    "falloff": {"o"},
    "fetch": {"o_address", "o_tile", "o_splat"},
    "ffu": {"o_address", "o_token"},
    "lists": {"o_answer", "o_address", "o_data"},
    "nru": {"o_lookup", "o_walk", "o_tile", "o"},
    "qsu": {"o_tile", "o_chunk", "o_query", "o_range", "o_entry", "o_address"},
    "radiance": {"o_answer", "o_address", "o_write_address", "o_write_data"},
    "registers": {"s_axil_b", "s_axil_r"},
    "resolve": {"o_address", "o_data"},
    "raster": {"m_axi_ar", "m_axi_aw", "m_axi_w", "s_axil_b", "s_axil_r"},
    "setup": {"o_group", "o_splat"}, "vsort": {"o_token"},
    "tilelists": {"o_address", "o_tile", "o_entry"},
    "vru": {"o_address", "o_tile", "o_splat"},
    "vsu": {"o_address", "o_group", "o_voxel"},
}


def test_every_unit_has_a_proof():
    assert set(UNITS) == set(OUTPUTS) == set(COMPONENTS) - {
        "gscore", "lumina", "streaminggs", "voyager"}


@pytest.mark.parametrize("unit", UNITS)
def test_stalled_streams_keep_their_payload(unit, tmp_path):
    proof = prove_unit(unit, tmp_path)
    assert proof.holds, proof.log
    assert set(proof.outputs) == OUTPUTS[unit]
    assert proof.log.count("Status: PASSED") == 2


@pytest.mark.matrix
@pytest.mark.parametrize("pixels", [2, 8])
def test_units_of_more_or_fewer_pixels(pixels, tmp_path):
    small = replace(SMALL_LUMINA.nru, unit_pixels=pixels, chunk_splats=16)
    proof = prove_unit("nru", tmp_path, design=replace(SMALL_LUMINA, nru=small))
    assert proof.holds, proof.log
    assert set(proof.outputs) == OUTPUTS["nru"]


class Buffer(wiring.Component):
    """Two words; with ``bug`` a word is lost when one arrives behind a stalled one."""

    def __init__(self, bug=False):
        self.bug = bug
        super().__init__({"i": In(stream.Signature(32)), "o": Out(stream.Signature(32))})

    def elaborate(self, platform):
        m = Module()
        spare, full = Signal(32), Signal()
        m.d.comb += self.i.ready.eq(~full)
        with m.If(~self.o.valid | self.o.ready | (self.i.valid if self.bug else 0)):
            with m.If(full):
                m.d.sync += [self.o.payload.eq(spare), self.o.valid.eq(1), full.eq(0)]
            with m.Else():
                m.d.sync += [self.o.payload.eq(self.i.payload), self.o.valid.eq(self.i.valid)]
        with m.Elif(self.i.valid & self.i.ready):
            m.d.sync += [spare.eq(self.i.payload), full.eq(1)]
        return m


def test_a_buffer_and_its_bug(tmp_path):
    assert prove("buffer", Buffer(), tmp_path / "good").holds
    broken = prove("buffer", Buffer(bug=True), tmp_path / "bad")
    assert not broken.holds
    assert "Assert failed" in broken.log
    assert (tmp_path / "bad" / "base.vcd").exists()


class ValidFalls(Blend):
    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(~self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m


class PixelsRunOn(Array):
    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(~self.o.ready & (self.i_tile.p.splats == 12345)):
            m.d.sync += self.o.payload.eq(0)
        return m


class AddressMoves(Fetch):
    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.i_beat.valid):
            m.d.comb += self.o_address.p.address.eq(self.splat_address)
        return m


@pytest.mark.parametrize(("name", "broken"), [
    ("blend", lambda: ValidFalls(SMALL.array)),
    ("array", lambda: PixelsRunOn(SMALL.array, SMALL.fetch.splat)),
    ("fetch", lambda: AddressMoves(SMALL.fetch, SMALL.shell)),
])
def test_seeded_bugs_of_units_are_found(name, broken, tmp_path, monkeypatch):
    monkeypatch.setattr(formal, "component", lambda name, design: broken())
    assert not prove_unit(name, tmp_path).holds


class AnyChannel(Raster):
    """One channel follows a free input while it stalls."""

    channel = ""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        port = getattr(self, self.channel)
        m.d.comb += port.eq(self.s_axil_wdata)
        return m


@pytest.mark.parametrize("channel", ["m_axi_araddr", "m_axi_awlen", "m_axi_wvalid"])
def test_seeded_bugs_of_the_core_are_found(channel, tmp_path, monkeypatch):
    monkeypatch.setattr(AnyChannel, "channel", channel)
    monkeypatch.setattr(formal, "component", lambda name, design: AnyChannel(design))
    assert not prove_unit("raster", tmp_path).holds


def test_an_invariant_that_does_not_hold_fails(tmp_path):
    false = ("(= [dut.full] false)",)
    assert not prove("buffer", Buffer(), tmp_path, invariants=false).holds


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_inputs_are_told_from_outputs():
    core = Raster(SMALL)
    found = {channel.name: channel.output for channel in channels(core)}
    del core
    gc.collect()
    assert {name for name, output in found.items() if output} == OUTPUTS["raster"]
    assert {name for name, output in found.items() if not output} == {
        "m_axi_r", "m_axi_b", "s_axil_aw", "s_axil_w", "s_axil_ar"}


def test_tools_that_fail_are_named(tmp_path, monkeypatch):
    with pytest.raises(ProofError, match=r"^The prover gave no verdict: "):
        prove("buffer", Buffer(), tmp_path / "wire", invariants=["(= [no_such_wire] true)"])
    monkeypatch.setattr(formal, "_PREPARE", "no_such_pass\n")
    with pytest.raises(ProofError, match=r"(?s)^Yosys failed: .*no_such_pass"):
        prove("buffer", Buffer(), tmp_path / "pass")
