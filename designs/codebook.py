"""Codebooks of StreamingGS: what a Gaussian is but for its place and its largest scale.

Source: Zhang et al., "StreamingGS", DAC 2025: per-attribute codebooks on chip, 250 KB in total, and
indices alone in memory (accelerators.md, 1.2). How many, how long and how wide they are is not told
there.
"""

from dataclasses import dataclass

__all__ = ["ENTRY_WORDS", "FINE_BYTES", "VECTORS", "CodebookDesign", "codebook_degree",
           "entry_beats"]

#: Bytes of a Gaussian's indices in memory, one beat of the bus.
FINE_BYTES = 16
#: Numbers of binary16 in a beat: an entry of a codebook in memory begins with a beat of its own.
ENTRY_WORDS = 8
#: On chip at most so many bytes of entries.
MOST_BYTES = 250 * 1024
#: SH vectors, one per degree, of the functions of :func:`splatforge.algos.ffu.fine_basis`.
_SH = tuple((f"sh{degree}", tuple(
    f"{k}_{channel}" for k in range(degree**2, (degree + 1)**2)
    for channel in ("red", "green", "blue"))) for degree in range(1, 4))
#: Vectors in the order of memory, with the names of their numbers: the quaternion times sqrt(2);
#: the two smaller scales, by the largest one; -log2 of the opacity, and by how many standard
#: deviations a Gaussian of it reaches (:func:`splatforge.algos.ffu.reach_of`); the colour where all
#: else is zero; and what the direction adds to it.
VECTORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("rotation", ("w", "x", "y", "z")), ("ratios", ("1", "2")), ("opacity", ("log", "reach")),
    ("color", ("red", "green", "blue")), *_SH)


@dataclass(frozen=True, kw_only=True)
class CodebookDesign:
    """How many codebooks there are of every vector, and how long they are.

    A vector is the sum of one entry of each of its codebooks, its stages; the second quantizes what
    the first leaves. Numbers are binary16, without denormals. By default 120 bits and 245,760
    bytes: what is lost is lost in SH, and there two stages of equal length are worth more than a
    longer one (of sh3 of fourth_st alone: 10 bits 48.0 dB, 12 bits 50.4, 10 and 10 bits 52.7; a
    third stage of 9, 8 and 8 bits 53.8).

    Parameters
    ----------
    rotation, ratios, opacity, color, sh1, sh2, sh3 : tuple of int
        Bits of the index of each stage of the vector, 1 to 14.
    sh_degree : int
        Up to which degree of SH there are codebooks, 0 to 3. Scenes of a lower one have zeros in
        those that they do not use.

    Raises
    ------
    ValueError
        If a parameter is out of its range, a Gaussian's indices do not fit a beat, or the codebooks
        do not fit 250 KiB.
    """

    rotation: tuple[int, ...] = (12, 10)
    ratios: tuple[int, ...] = (10,)
    opacity: tuple[int, ...] = (8,)
    color: tuple[int, ...] = (11, 9)
    sh1: tuple[int, ...] = (10, 10)
    sh2: tuple[int, ...] = (10, 10)
    sh3: tuple[int, ...] = (10, 10)
    sh_degree: int = 3

    def __post_init__(self) -> None:
        if self.sh_degree not in range(4):
            raise ValueError(f"SH degree must be 0 to 3, not {self.sh_degree!r}")
        for name, _ in VECTORS:
            stages = getattr(self, name)
            if not stages or not all(1 <= bits <= 14 for bits in stages):
                raise ValueError(
                    f"Codebooks of {name} must be one or more of 1 to 14 bits, not {stages!r}")
        if self.index_bits > 8 * FINE_BYTES:
            raise ValueError(
                f"Indices must fit {8 * FINE_BYTES} bits, not {self.index_bits}")
        if self.size_bytes > MOST_BYTES:
            raise ValueError(f"Codebooks must fit {MOST_BYTES} bytes, not {self.size_bytes}")

    def vectors(self) -> tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...]:
        """Name, names of numbers, and index bits per stage of every vector that there is."""
        return tuple((name, numbers, getattr(self, name)) for name, numbers in VECTORS
                     if name not in [f"sh{k}" for k in range(self.sh_degree + 1, 4)])

    def fields(self) -> tuple[tuple[str, int, bool], ...]:
        """(name, width in bits, signed) of every index of a Gaussian from bit 0 upward.

        An index is called like its codebook: its vector's name with the number of the stage.
        """
        return tuple((f"{name}{stage}", bits, False) for name, _, stages in self.vectors()
                     for stage, bits in enumerate(stages))

    def codebooks(self) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
        """Name, entries, and names of an entry's numbers of every codebook, as in memory."""
        return tuple(
            (f"{name}{stage}", 1 << bits, tuple(f"{name}{stage}_{number}" for number in numbers))
            for name, numbers, stages in self.vectors() for stage, bits in enumerate(stages))

    @property
    def index_bits(self) -> int:
        """Bits of all indices of a Gaussian."""
        return sum(width for _, width, _ in self.fields())

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries on chip."""
        return sum(2 * entries * len(numbers) for _, entries, numbers in self.codebooks())

    @property
    def beats(self) -> int:
        """Beats of all codebooks in memory, each entry padded to whole ones."""
        return self.loaded_beats(self.sh_degree)

    def loaded_beats(self, sh_degree: int) -> int:
        """Beats of the codebooks that a scene of `sh_degree` needs: those of SH come last."""
        return sum(entries * entry_beats(len(numbers)) for name, entries, numbers in
                   self.codebooks() if codebook_degree(name) <= sh_degree)


def codebook_degree(name: str) -> int:
    """SH degree for which a scene needs the codebook of that name."""
    return int(name[2]) if name.startswith("sh") else 0


def entry_beats(numbers: int) -> int:
    """Beats of an entry of so many numbers."""
    return -(-numbers // ENTRY_WORDS)
