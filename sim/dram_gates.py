"""The timing gates of a DRAM as a table, and logs of commands checked against it.

The table says again, as the standards and Ramulator do, what :mod:`splatforge.sim.dram` keeps in
other terms: nothing here looks into that machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.dram import COMMANDS, Dram

__all__ = ["Gate", "gates", "violations"]

#: Before any command.
PAST = -(np.int64(1) << 40)
#: Per-bank refresh goes over a rank in this many steps, see the standards.
REFRESH_STEPS = 8
(C_ACT, C_PRE, C_PRE_ALL, C_RD, C_WR, C_RDA, C_WRA, C_REF_ALL, C_REF_BANK) = range(len(COMMANDS))


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One timing rule: commands of `following` come at least `clocks` behind those of `preceding`.

    Parameters
    ----------
    name : str
        JEDEC's name.
    scope : str
        ``bank``, ``bank_group``, ``rank``, ``channel``, or ``other_rank``.
    preceding, following : tuple of str
        Names of :data:`splatforge.designs.dram.COMMANDS`.
    clocks : int
        Least distance.
    window : int
        Behind the last, or the fourth last.
    """

    name: str
    scope: str
    preceding: tuple[str, ...]
    following: tuple[str, ...]
    clocks: int
    window: int = 1


def gates(dram: Dram) -> tuple[Gate, ...]:
    """All timing rules of a memory, as the standards list them.

    They say again what the kernels keep in other terms, and are what logs are checked against.
    """
    t = dram.timing
    rd, wr, columns = ("RD", "RDA"), ("WR", "WRA"), ("RD", "RDA", "WR", "WRA")
    write_end = t.cwl + t.bl

    def gate(name: str, scope: str, preceding: Sequence[str], following: Sequence[str],
             clocks: int, window: int = 1) -> Gate:
        return Gate(name=name, scope=scope, preceding=tuple(preceding), following=tuple(following),
                    clocks=clocks, window=window)

    table = [
        gate("tRC", "bank", ["ACT"], ["ACT", "REFpb"], t.rc),
        gate("tRCD", "bank", ["ACT"], columns, t.rcd),
        gate("tRAS", "bank", ["ACT"], ["PRE"], t.ras),
        gate("tRP", "bank", ["PRE"], ["ACT", "REFpb"], t.rp),
        gate("tRTP", "bank", ["RD"], ["PRE"], t.rtp),
        gate("tWR", "bank", ["WR"], ["PRE"], write_end + t.wr),
        gate("tRTP+tRP", "bank", ["RDA"], ["ACT", "REFpb"], t.rtp + t.rp),
        gate("tWR+tRP", "bank", ["WRA"], ["ACT", "REFpb"], write_end + t.wr + t.rp),
        gate("tCCD_L", "bank_group", rd, rd, t.ccd_l),
        gate("tCCD_L", "bank_group", wr, wr, t.ccd_l),
        gate("tWTR_L", "bank_group", wr, rd, write_end + t.wtr_l),
        gate("tRRD_L", "bank_group", ["ACT"], ["ACT"], t.rrd_l),
        gate("tCCD_S", "rank", rd, rd, t.ccd_s),
        gate("tCCD_S", "rank", wr, wr, t.ccd_s),
        gate("tRTW", "rank", rd, wr, t.read_to_write),
        gate("tWTR_S", "rank", wr, rd, write_end + t.wtr_s),
        gate("tRRD_S", "rank", ["ACT", "REFpb"], ["ACT", "REFpb"], t.rrd_s),
        gate("tFAW", "rank", ["ACT"], ["ACT"], t.faw, 4),
        gate("tPPD", "rank", ["PRE", "PREab"], ["PRE", "PREab"], t.ppd),
        gate("tRAS", "rank", ["ACT"], ["PREab"], t.ras),
        gate("tRTP", "rank", ["RD"], ["PREab"], t.rtp),
        gate("tWR", "rank", ["WR"], ["PREab"], write_end + t.wr),
        gate("tRPab", "rank", ["PREab"], ["ACT", "REFab", "REFpb"], t.rp_all),
        gate("tRC", "rank", ["ACT"], ["REFab"], t.rc),
        gate("tRP", "rank", ["PRE"], ["REFab"], t.rp),
        gate("tRTP+tRP", "rank", ["RDA"], ["REFab"], t.rtp + t.rp),
        gate("tWR+tRP", "rank", ["WRA"], ["REFab"], write_end + t.wr + t.rp),
        gate("tRFCab", "rank", ["REFab"], ["ACT", "REFab", "REFpb"], t.rfc_all),
        gate("tRFCpb", "refreshed", ["REFpb"], ["ACT", "REFpb"], t.rfc_bank),
        gate("tRFCpb", "rank", ["REFpb"], ["REFab"], t.rfc_bank),
        gate("tPBR2PBR", "rank", ["REFpb"], ["REFpb"], t.pbr2pbr),
        gate("tCS", "other_rank", rd, rd, t.bl + t.cs),
        gate("tCS", "other_rank", wr, wr, t.bl + t.cs),
        gate("tCS", "other_rank", rd, wr, t.cl + t.bl + t.cs - t.cwl),
        gate("tCS", "other_rank", wr, rd, max(0, t.cwl + t.bl + t.cs - t.cl)),
    ]
    for names, clocks in ((("ACT",), t.act_clocks), (columns, t.column_clocks),
                          (("PRE", "PREab"), t.pre_clocks), (("REFab", "REFpb"), t.ref_clocks)):
        table.append(gate("command bus", "channel", names, COMMANDS, clocks))
    return tuple(table)


_SCOPES = ("bank", "bank_group", "rank", "channel", "other_rank", "refreshed")


@nb.njit(cache=True)
def _check(log, rules, ranks, groups, banks, channels, out):
    """First violations of the rules: (number in the log, rule or -1 to -3)."""
    places = channels * ranks * groups * banks
    last = np.full((len(rules), places, 4), PAST)
    rows = np.full(places, np.int64(-1))
    steps = min(REFRESH_STEPS, groups * banks)
    found = 0
    per_rank = groups * banks
    for n in range(len(log)):
        now, channel, command = log[n, 0], log[n, 1], log[n, 2]
        bank, row = log[n, 3], log[n, 4]
        place = channel * ranks * per_rank + bank
        rank = place // per_rank
        for r in range(len(rules)):
            scope, preceding, following = rules[r, 0], rules[r, 1], rules[r, 2]
            clocks, window = rules[r, 3], rules[r, 4]
            if scope == 0 or scope == 5:
                at = place
            elif scope == 1:
                at = place // banks
            elif scope == 3:
                at = channel
            else:
                at = rank
            if (following >> command) & 1:
                if scope == 4:
                    for other in range(channel * ranks, (channel + 1) * ranks):
                        if other != rank and now - last[r, other, 0] < clocks and found < len(out):
                            out[found, 0], out[found, 1] = n, r
                            found += 1
                elif now - last[r, at, window - 1] < clocks and found < len(out):
                    out[found, 0], out[found, 1] = n, r
                    found += 1
            if (preceding >> command) & 1:
                if scope == 5:
                    for other in range(place, (rank + 1) * per_rank, steps):
                        last[r, other, 0] = now
                else:
                    for k in range(3, 0, -1):
                        last[r, at, k] = last[r, at, k - 1]
                    last[r, at, 0] = now
        # What a bank may be told depends on its row as well.
        if command == C_ACT:
            wrong = rows[place] >= 0
            rows[place] = row
        elif command == C_REF_ALL:
            wrong = False
            for other in range(rank * per_rank, (rank + 1) * per_rank):
                wrong |= rows[other] >= 0
        elif command == C_REF_BANK:
            wrong = False
            for other in range(place, (rank + 1) * per_rank, steps):
                wrong |= rows[other] >= 0
        elif command == C_PRE:
            wrong = rows[place] < 0
            rows[place] = -1
        elif command == C_PRE_ALL:
            wrong = False
            for other in range(rank * per_rank, (rank + 1) * per_rank):
                rows[other] = -1
        else:
            wrong = rows[place] < 0 or rows[place] != row
            if command == C_RDA or command == C_WRA:
                rows[place] = -1
        if wrong and found < len(out):
            out[found, 0], out[found, 1] = n, -1
            found += 1
    return found


def violations(dram: Dram, log: npt.NDArray[np.int64], limit: int = 20) -> list[str]:
    """Replay a log of commands against every gate and every bank's state.

    Parameters
    ----------
    dram : Dram
        The memory.
    log : ndarray
        Commands of shape [n, 5] in the order of their clocks.
    limit : int
        How many to report.

    Returns
    -------
    list of str
        One line for each command that came too early or met a bank in the wrong state.
    """
    org, table = dram.organization, gates(dram)
    mask = {name: 1 << number for number, name in enumerate(COMMANDS)}
    rules = np.array([
        (_SCOPES.index(gate.scope), sum(mask[name] for name in gate.preceding),
         sum(mask[name] for name in gate.following), gate.clocks, gate.window)
        for gate in table], np.int64)
    out = np.zeros((limit, 2), np.int64)
    found = _check(np.ascontiguousarray(log, np.int64), rules, org.ranks, org.bank_groups,
                   org.banks, org.channels, out)
    lines = []
    for number, rule in out[:found].tolist():
        now, channel, command, bank, row = log[number].tolist()
        what = f"clock {now}: {COMMANDS[command]} of channel {channel}, bank {bank}, row {row}"
        if rule < 0:
            lines.append(f"{what} meets a bank in the wrong state")
        else:
            lines.append(f"{what} breaks {table[rule].name}, {table[rule].clocks} clocks behind "
                         f"{'/'.join(table[rule].preceding)} of the {table[rule].scope}")
    return lines
