"""UNets of residual blocks and transformers, over frames too where they are of video."""

from collections.abc import Sequence
from dataclasses import dataclass

from splatforge.sim.systems.layers import residual_block, transformer_block
from splatforge.sim.systems.tally import Tally

__all__ = ["Cut", "Unet"]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A place to cut a network in two.

    Parameters
    ----------
    operators : int
        Before it.
    elements : float
        Of activations that cross it, of one sample.
    """

    operators: int
    elements: float


@dataclass(frozen=True, kw_only=True)
class Unet:
    """A UNet of residual blocks and transformers.

    Parameters
    ----------
    channels : sequence of int
        Of the levels, fine to coarse.
    depths : sequence of int
        Transformer blocks behind each residual block of a level; 0 for none.
    heads : sequence of int
        Of the levels.
    contexts : sequence of int or None
        One transformer for each, in a row: width of what it attends to; ``None`` for itself.
    context_tokens : sequence of float
        Of these contexts.
    layers : int
        Residual blocks of a level on the way down; one more on the way up.
    rows, columns, frames : int
        Of the finest level.
    inputs, outputs : int
        Channels of what goes in and comes out.
    temporal : bool
        Whether each residual block has one over frames behind it, and each transformer block too.
    """

    channels: Sequence[int]
    depths: Sequence[int]
    heads: Sequence[int]
    contexts: Sequence[int | None]
    context_tokens: Sequence[float]
    rows: int
    columns: int
    frames: int = 1
    layers: int = 2
    inputs: int = 4
    outputs: int = 4
    temporal: bool = False

    def _level(self, level: int) -> tuple[float, float]:
        """Positions of all frames, and of a row of each."""
        scale = 2**level
        columns = self.columns / scale
        return self.frames * (self.rows / scale) * columns, self.frames * columns

    def _residual(self, net: Tally, level: int, inputs: int) -> None:
        width = self.channels[level]
        positions, row = self._level(level)
        time = 4 * self.channels[0]
        residual_block(net, inputs, width, positions, row, time=time)
        if self.temporal:
            residual_block(net, width, width, positions, 0, time=time, taps=3)
            net.elementwise(width, positions, 3)

    def _transformers(self, net: Tally, level: int, depth: int) -> None:
        width, heads = self.channels[level], self.heads[level]
        positions, _ = self._level(level)
        each = positions / self.frames
        for context, context_tokens in zip(self.contexts, self.context_tokens, strict=True):
            if not depth:
                continue
            net.group_norm(width, positions, activation=False)
            net.linear(width, width, positions)
            if self.temporal:  # the embedding of the frame's number
                net.linear(width, 4 * width, self.frames)
                net.linear(4 * width, width, self.frames)
            for _ in range(depth):
                transformer_block(net, width, each, heads, self.frames, context, context_tokens)
                if self.temporal:
                    net.elementwise(width, positions, 2)
                    net.feed_forward(width, 4 * width, positions, gated=True)
                    transformer_block(net, width, self.frames, heads, each, context,
                                       context_tokens)
                    net.elementwise(width, positions, 3)
            net.linear(width, width, positions)
            net.elementwise(width, positions, 3)

    def tally(self, net: Tally) -> tuple[Cut, ...]:
        """All its layers, and where it may be cut in two: between residual blocks.

        What crosses on the way down are the tensors that are kept for the way up, of which the
        last is what goes on; on the way up it is what goes on and what is still kept.
        """
        first = self.channels[0]
        positions, row = self._level(0)
        net.linear(first, 4 * first, 1)
        net.linear(4 * first, 4 * first, 1)
        net.convolution(self.inputs, first, positions, row=row)
        kept, width, cuts = [(first, first * positions)], first, list[Cut]()

        def cut(beside: float = 0.0) -> None:
            cuts.append(Cut(operators=len(net.operators),
                            elements=beside + sum(size for _, size in kept)))
        for level, channels in enumerate(self.channels):
            here, row = self._level(level)
            for _ in range(self.layers):
                self._residual(net, level, width)
                self._transformers(net, level, self.depths[level])
                width = channels
                kept.append((width, width * here))
                cut()
            if level + 1 < len(self.channels):
                below, row = self._level(level + 1)
                net.convolution(width, width, below, row=row, finer=4)
                kept.append((width, width * below))
                cut()
        last = len(self.channels) - 1
        self._residual(net, last, width)
        self._transformers(net, last, self.depths[last] or 1)
        self._residual(net, last, width)
        for level in reversed(range(len(self.channels))):
            here, row = self._level(level)
            for _ in range(self.layers + 1):
                self._residual(net, level, width + kept.pop()[0])
                self._transformers(net, level, self.depths[level])
                width = self.channels[level]
                cut(width * here)
            if level:
                above, row = self._level(level - 1)
                net.elementwise(width, above, 1.25)
                net.convolution(width, width, above, row=row)
        net.group_norm(first, positions)
        net.convolution(first, self.outputs, positions, row=row)
        return tuple(cuts)
