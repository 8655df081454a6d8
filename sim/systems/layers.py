"""Groups of layers that image, video and audio generators are made of."""

from splatforge.sim.systems.tally import Tally

__all__ = ["cross_attention", "encoder_layers", "residual_block", "self_attention",
           "transformer_block"]


def residual_block(net: Tally, inputs: int, outputs: int, positions: float, row: float, *,
            time: int = 0, taps: int = 9) -> None:
    """Norm, convolution, twice; the time's embedding between; a residual."""
    net.group_norm(inputs, positions)
    net.convolution(inputs, outputs, positions, taps, row=row)
    if time:
        net.linear(time, outputs, 1)
        net.elementwise(outputs, positions)
    net.group_norm(outputs, positions)
    net.convolution(outputs, outputs, positions, taps, row=row)
    if inputs != outputs:
        net.convolution(inputs, outputs, positions, 1)
    net.elementwise(outputs, positions, 3)


def self_attention(net: Tally, width: int, tokens: float, heads: int, sequences: float) -> None:
    """Norm, queries, keys and values, attention among the tokens of a sequence, a residual.

    Parameters
    ----------
    net : Tally
        Takes the operators.
    width, heads : int
        Of the layer.
    tokens, sequences : float
        Of a sequence; how many there are.
    """
    net.elementwise(width, tokens * sequences, 2)
    for _ in range(3):
        net.linear(width, width, tokens * sequences)
    net.attention(tokens, tokens, width, heads, sequences=sequences)
    net.linear(width, width, tokens * sequences)
    net.elementwise(width, tokens * sequences, 3)


def cross_attention(net: Tally, width: int, tokens: float, heads: int, sequences: float,
                     context: int, context_tokens: float) -> None:
    """The same over the tokens of a context, such as a text, of its own width.

    Parameters
    ----------
    net, width, tokens, heads, sequences
        As of :func:`self_attention`.
    context : int
        Width of the context.
    context_tokens : float
        Tokens of it that every sequence has.
    """
    net.elementwise(width, tokens * sequences, 2)
    net.linear(width, width, tokens * sequences)
    net.linear(context, width, context_tokens * sequences)
    net.linear(context, width, context_tokens * sequences)
    net.attention(tokens, context_tokens, width, heads, sequences=sequences, within=False)
    net.linear(width, width, tokens * sequences)
    net.elementwise(width, tokens * sequences, 3)


def transformer_block(net: Tally, width: int, tokens: float, heads: int, sequences: float,
                       context: int | None, context_tokens: float) -> None:
    """Self-attention, attention to a context (or itself again), gated feed-forward part."""
    self_attention(net, width, tokens, heads, sequences)
    if context is None:
        self_attention(net, width, tokens, heads, sequences)
    else:
        cross_attention(net, width, tokens, heads, sequences, context, context_tokens)
    net.elementwise(width, tokens * sequences, 2)
    net.feed_forward(width, 4 * width, tokens * sequences, gated=True)
    net.elementwise(width, tokens * sequences, 3)


def encoder_layers(net: Tally, layers: int, width: int, ff: int, heads: int, tokens: float, *,
             gated: bool = False, inner: int | None = None) -> None:
    """Layers of a transformer that reads all tokens at once."""
    inner = inner or width
    for _ in range(layers):
        net.elementwise(width, tokens)
        for _ in range(3):
            net.linear(width, inner, tokens)
        net.attention(tokens, tokens, inner, heads)
        net.linear(inner, width, tokens)
        net.elementwise(width, tokens, 3)
        net.elementwise(width, tokens)
        net.feed_forward(width, ff, tokens, gated=gated)
        net.elementwise(width, tokens, 3)
