"""Requests of a banked memory as traces for Ramulator 2 and DRAMsim3, to check ours with."""

import numpy as np
import numpy.typing as npt

__all__ = ["FORMS", "trace_text"]

#: Forms of a trace by the ending of its file name.
FORMS = {
    ".ramulator": "Ramulator 2 (2.1), frontend LoadStoreTrace: LD or ST, address",
    ".dramsim3": "DRAMsim3, option -t: address, READ or WRITE, memory clock",
}


def trace_text(requests: npt.NDArray[np.int64], form: str) -> str:
    """One line a request, each one access of the DRAM.

    Parameters
    ----------
    requests : ndarray
        Of shape [n, 3]: clock of entering the queue, byte address, 1 for a write.
    form : str
        One of :data:`FORMS`.

    Raises
    ------
    ValueError
        If there is no such form.
    """
    if form == ".ramulator":
        lines = [f"{'ST' if write else 'LD'} 0x{address:x}"
                 for _, address, write in requests.tolist()]
    elif form == ".dramsim3":
        lines = [f"0x{address:X} {'WRITE' if write else 'READ'} {clock}"
                 for clock, address, write in requests.tolist()]
    else:
        raise ValueError(f"Memory trace must end in {' or '.join(FORMS)}, not {form!r}")
    return "\n".join(lines) + "\n" if lines else ""
