"""Traces for Ramulator 2 and DRAMsim3: their grammar, and the requests of a frame in them."""

import re

import numpy as np
import pytest

from splatforge.sim.dram_trace import FORMS, trace_text

REQUESTS = np.array([[5, 0x1000_0040, 0], [9, 0xFF_FFFF_FFE0, 1]])


def test_ramulator_reads_it():
    """LoadStoreTrace: two words, LD or ST, a number that 0x begins."""
    assert trace_text(REQUESTS, ".ramulator") == "LD 0x10000040\nST 0xffffffffe0\n"


def test_dramsim3_reads_it():
    """``is >> hex >> address >> operation >> dec >> cycle``."""
    text = trace_text(REQUESTS, ".dramsim3")
    assert text == "0x10000040 READ 5\n0xFFFFFFFFE0 WRITE 9\n"
    assert all(re.fullmatch(r"0x[0-9A-F]+ (READ|WRITE) \d+", line) for line in text.splitlines())


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_an_empty_file(form):
    assert trace_text(np.zeros((0, 3), np.int64), form) == ""


def test_unknown_form():
    with pytest.raises(ValueError, match=r"^Memory trace must end in \.ramulator or .*, not '.x'$"):
        trace_text(REQUESTS, ".x")
