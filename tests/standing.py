"""What stands in a unit's RTL before synthesis: flip-flops, and memories."""

import re
from collections import Counter

from splatforge.hw.generate import component, to_rtlil
from splatforge.sim.parts import MACRO_BITS

__all__ = ["standing"]


def standing(name, design):
    """(flip-flop bits, memories that can be written) of the RTL before synthesis."""
    bits, memories, inside = Counter(), {}, {}
    written = Counter()
    for line in to_rtlil(component(name, design), name).splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "module":
            module, kind = words[1], ""
            inside[module], memories[module] = Counter(), []
        elif words[0] == "cell":
            kind = words[1]
            inside[module][kind] += 1
            written[module] += kind.startswith("$memwr")
        elif words[:2] == ["parameter", "\\WIDTH"] and kind == "$dff":
            bits[module] += int(words[2])
        elif match := re.match(r"memory width (\d+) size (\d+)", line.strip()):
            memories[module].append((int(match[2]), int(match[1])))

    def total(module):
        # A module that has a memory and never writes is a table. Equal memories of one are banks.
        counts = Counter(memories[module] if written[module] else [])
        own = [(*shape, copies) for shape, copies in counts.items() for _ in range(copies)]
        sums = [(copies, *total(kind)) for kind, copies in inside[module].items()
                if kind in inside]
        return (bits[module] + sum(copies * of for copies, of, _ in sums),
                own + [each for copies, _, of in sums for each in copies * of])

    found, all_memories = total(f"\\{name}")
    small = [words * width for words, width, banks in all_memories
             if words * width * banks <= MACRO_BITS]
    return found + sum(small), sorted(
        (words, width) for words, width, banks in all_memories
        if words * width * banks > MACRO_BITS)
