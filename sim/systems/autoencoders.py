"""Autoencoders between pixels and latents, and a vocoder: what runs once, around the steps."""

from collections.abc import Sequence

from splatforge.sim.systems.layers import residual_block, self_attention
from splatforge.sim.systems.tally import Tally

__all__ = ["image_decoder", "image_encoder", "video_decoder", "vocoder"]


def image_decoder(net: Tally, channels: Sequence[int], rows: int, columns: int, *,
                   latent: int, outputs: int, frames: int = 1, temporal: bool = False,
                   resnets: int = 3) -> None:
    """Decoder of a KL autoencoder, coarse to fine; `channels` fine to coarse."""
    width = channels[-1]
    positions = float(frames * rows * columns)

    def residual(inputs: int, outputs_: int) -> None:
        residual_block(net, inputs, outputs_, positions, 0)
        if temporal:
            residual_block(net, outputs_, outputs_, positions, 0, taps=3)
            net.elementwise(outputs_, positions, 3)

    net.convolution(latent, width, positions)
    residual(width, width)
    net.group_norm(width, positions, activation=False)
    self_attention(net, width, rows * columns, 1, frames)
    residual(width, width)
    for number, level in enumerate(reversed(channels)):
        for _ in range(resnets):
            residual(width, level)
            width = level
        if number + 1 < len(channels):
            positions *= 4
            net.elementwise(width, positions, 1.25)
            net.convolution(width, width, positions)
    net.group_norm(width, positions)
    net.convolution(width, outputs, positions)
    if temporal:
        net.convolution(outputs, outputs, positions, 3)


def image_encoder(net: Tally, channels: Sequence[int], rows: int, columns: int, *,
                   latent: int, resnets: int = 2) -> None:
    """Encoder of the same: `rows` and `columns` of the image."""
    width, positions = channels[0], float(rows * columns)
    net.convolution(3, width, positions)
    for number, level in enumerate(channels):
        for _ in range(resnets):
            residual_block(net, width, level, positions, 0)
            width = level
        if number + 1 < len(channels):
            positions /= 4
            net.convolution(width, width, positions, finer=4)
    residual_block(net, width, width, positions, 0)
    net.group_norm(width, positions, activation=False)
    self_attention(net, width, positions, 1, 1)
    residual_block(net, width, width, positions, 0)
    net.group_norm(width, positions)
    net.convolution(width, 2 * latent, positions)


def video_decoder(net: Tally, channels: Sequence[int], frames: int, rows: int, columns: int, *,
                  latent: int, outputs: int = 3, resnets: int, doubled: Sequence[int],
                  modulated: bool = False, causal: bool = True, halved: bool = False,
                  spatial: bool = True) -> None:
    """Decoder of an autoencoder over frames, convolutions of 27 taps, coarse to fine.

    Parameters
    ----------
    net : Tally
        Takes the layers.
    channels : sequence of int
        Of the levels, fine to coarse.
    frames, rows, columns : int
        Of the latents.
    latent, outputs : int
        Channels of what goes in and comes out.
    resnets : int
        Residual blocks of a level.
    doubled : sequence of int
        Levels, counted from the coarsest, behind which there are twice the frames.
    modulated : bool
        Whether the latents scale and shift every norm (CogVideoX).
    causal : bool
        Whether the first frame stands alone: frames become 2 f - 1.
    halved : bool
        Whether what makes a level finer halves its channels (Wan).
    spatial : bool
        Whether levels differ in rows and columns.
    """
    def norm(width: int) -> None:
        net.group_norm(width, positions, activation=False)
        if modulated:
            for _ in range(2):
                net.convolution(latent, width, positions, 1)
            net.elementwise(width, positions, 3)
            net.elementwise(width, positions, 3)
        net.elementwise(width, positions)

    def convolution(inputs: int, outputs: int) -> None:
        if causal:  # the frames before are put in front, and a border around: two copies
            net.elementwise(inputs, positions)
            net.elementwise(inputs, positions)
        net.convolution(inputs, outputs, positions, 27)

    def residual(inputs: int, outputs: int) -> None:
        norm(inputs)
        convolution(inputs, outputs)
        norm(outputs)
        convolution(outputs, outputs)
        if inputs != outputs:
            net.convolution(inputs, outputs, positions, 1)
        net.elementwise(outputs, positions, 3)

    width, positions = channels[-1], float(frames * rows * columns)
    convolution(latent, width)
    residual(width, width)
    residual(width, width)
    for number, level in enumerate(reversed(channels)):
        for _ in range(resnets):
            residual(width, level)
            width = level
        if number + 1 < len(channels):
            if number in doubled:
                frames = 2 * frames - (1 if causal else 0)
            if spatial:
                rows, columns = 2 * rows, 2 * columns
            positions = float(frames * rows * columns)
            finer = width // 2 if halved else width
            net.elementwise(width, positions, 1.25)
            net.convolution(width, finer, positions)
            width = finer
    norm(width)
    convolution(width, outputs)


def vocoder(net: Tally, mel_frames: int) -> None:
    """HiFi-GAN of AudioLDM: waves of 16 kHz, 160 samples for each frame of 64 mel bins."""
    width, positions = 1024, float(mel_frames)
    net.convolution(64, width, positions, 7)
    for rate, kernel in zip((5, 4, 2, 2, 2), (16, 16, 8, 4, 4), strict=True):
        positions *= rate
        net.elementwise(width, positions / rate)
        net.convolution(width, width // 2, positions, kernel // rate or 1)
        width //= 2
        for taps in (3, 7, 11):
            for _ in range(3):  # dilations 1, 3, 5
                for _ in range(2):
                    net.elementwise(width, positions)
                    net.convolution(width, width, positions, taps)
                net.elementwise(width, positions, 3)
    net.elementwise(width, positions)
    net.convolution(width, 1, positions, 7)
