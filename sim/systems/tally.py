"""What a network of an image, video or audio generator does, tallied layer by layer.

The layers are those of its public configuration; a tally holds their operators, which a
:class:`~splatforge.sim.systems.roofline.Machine` times, and the number of weights, which the size
that its authors print checks.
"""

from dataclasses import dataclass, field

from splatforge.sim.systems.roofline import Operator, attention, elementwise, linear

__all__ = ["Tally"]


@dataclass(kw_only=True)
class Tally:
    """Layers in the order they run.

    Parameters
    ----------
    name : str
        Of the network.
    batch : float
        Samples that go through it at once; weights are read once for all.
    element_bytes : float
        Of weights and activations.
    operators : list
        Of all layers so far.
    parameters : float
        Weights so far, norms left out.
    attended : list
        Elements of keys and values of each self-attention, of one sample: what ranks that share
        a sample must exchange.
    norms : int
        Group norms so far, whose statistics such ranks share.
    halo : float
        Elements of a row of activations before each convolution, of one sample, summed: what
        such ranks exchange at each border.
    """

    name: str
    batch: float = 1.0
    element_bytes: float = 2.0
    operators: list[Operator] = field(default_factory=list)
    parameters: float = 0.0
    attended: list[float] = field(default_factory=list)
    norms: int = 0
    halo: float = 0.0

    @property
    def flop(self) -> float:
        """Of all layers."""
        return sum(each.flop for each in self.operators)

    @property
    def size_bytes(self) -> float:
        """Read and written by all layers."""
        return sum(each.size_bytes for each in self.operators)

    @property
    def launches(self) -> float:
        """Kernels of all layers."""
        return sum(each.launches for each in self.operators)

    def linear(self, inputs: int, outputs: int, tokens: float, *, shared: bool = False) -> None:
        """A matrix on the tokens of each sample, or on `tokens` in all where `shared`."""
        self.parameters += inputs * outputs
        self.operators.append(linear("linear", tokens if shared else tokens * self.batch, inputs,
                                     outputs, self.element_bytes))

    def convolution(self, inputs: int, outputs: int, positions: float, taps: int = 9,
                    *, row: float = 0.0, finer: float = 1.0) -> None:
        """A convolution of `taps` taps at the positions that it writes.

        Parameters
        ----------
        row : float
            Positions of a row, for :attr:`halo`.
        finer : float
            Positions that it reads for one that it writes: 4 for a stride of 2 in two directions.
        """
        self.parameters += inputs * outputs * taps
        there = positions * self.batch
        weight_bytes = self.element_bytes * inputs * outputs * taps
        self.operators.append(Operator(
            name="convolution", flop=2 * there * inputs * outputs * taps, weight_bytes=weight_bytes,
            size_bytes=weight_bytes + self.element_bytes * there * (finer * inputs + outputs)))
        self.halo += row * inputs

    def attention(self, queries: float, keys: float, width: int, heads: int, *,
                  sequences: float = 1.0, within: bool = True) -> None:
        """Fused attention of each of `sequences` sequences of a sample.

        Parameters
        ----------
        within : bool
            Whether keys are tokens of the sample itself.
        """
        one = attention(queries, keys, heads, heads, width // heads,
                        element_bytes=self.element_bytes)
        times = sequences * self.batch
        self.operators.append(Operator(name="attention", flop=times * one.flop,
                                       size_bytes=times * one.size_bytes))
        if within:
            self.attended.append(2 * keys * width * sequences)

    def elementwise(self, width: float, tokens: float, passes: float = 2.0) -> None:
        """A kernel that reads and writes `passes` tensors of tokens x width of each sample."""
        self.operators.append(elementwise("element-wise", tokens * self.batch, width,
                                          passes=passes, element_bytes=self.element_bytes))

    def group_norm(self, width: int, positions: float, *, activation: bool = True) -> None:
        """Statistics, then the norm; a kernel of an activation after it."""
        self.norms += 1
        self.elementwise(width, positions, 3)
        if activation:
            self.elementwise(width, positions)

    def feed_forward(self, width: int, inner: int, tokens: float, *, gated: bool) -> None:
        """Two matrices and an activation; with a gate the first is twice as wide."""
        self.linear(width, 2 * inner if gated else inner, tokens)
        self.elementwise(inner, tokens, 3 if gated else 2)
        self.linear(inner, width, tokens)
