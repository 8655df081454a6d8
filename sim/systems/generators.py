"""Generators that ParaStep runs: their denoisers, and what runs once before and after the steps.

Layers are those of the released configurations in diffusers (Hugging Face) and, for AudioLDM 2, of
the authors' repository; sizes that they print check the weights that are counted here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from splatforge.sim.systems.autoencoders import (
    image_decoder,
    image_encoder,
    video_decoder,
    vocoder,
)
from splatforge.sim.systems.layers import encoder_layers
from splatforge.sim.systems.tally import Tally
from splatforge.sim.systems.unet import Cut, Unet

__all__ = ["GENERATORS", "Generator", "generator"]


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A generator as its pipeline runs it.

    Parameters
    ----------
    name, title : str
        Key in :data:`GENERATORS`; for people.
    steps, warm_up : int
        Defaults of ParaStep's repository.
    denoiser : Tally
        One call of the denoiser, both halves of guidance in one batch.
    before, after : Tally
        What runs once: encoders; decoders.
    latent_bytes : float
        Of what one call of the denoiser returns after guidance: what ranks send.
    parameters : float
        Weights of the denoiser as its authors print them.
    cuts : tuple of Cut
        Where the denoiser may be cut into components.
    width, tokens, blocks, heads : int
        Of a transformer; 0 for a UNet.
    """

    name: str
    title: str
    steps: int
    warm_up: int
    denoiser: Tally
    before: tuple[Tally, ...]
    after: tuple[Tally, ...]
    latent_bytes: float
    parameters: float
    cuts: tuple[Cut, ...]
    width: int = 0
    tokens: int = 0
    blocks: int = 0
    heads: int = 0


def _svd(copies: int) -> Generator:
    frames, rows, columns = 14, 72, 128
    unet = Unet(channels=(320, 640, 1280, 1280), depths=(1, 1, 1, 0), heads=(5, 10, 20, 20),
                 contexts=(1024,), context_tokens=(1,), rows=rows, columns=columns, frames=frames,
                 inputs=8, temporal=True)
    net = Tally(name="UNet", batch=2 * copies)
    cuts = unet.tally(net)
    clip = Tally(name="CLIP ViT-H")
    encoder_layers(clip, 32, 1280, 5120, 16, 257)
    first = Tally(name="encoder of the first frame, FP32", element_bytes=4)
    image_encoder(first, (128, 256, 512, 512), 8 * rows, 8 * columns, latent=4)
    decoder = Tally(name="decoder")
    image_decoder(decoder, (128, 256, 512, 512), rows, columns, latent=4, outputs=3,
                   frames=frames, temporal=True)
    return Generator(
        name="svd", title="Stable Video Diffusion, 14 frames of 576x1024", steps=50, warm_up=5,
        denoiser=net, before=(clip, first), after=(decoder,), parameters=1.52e9,
        latent_bytes=2.0 * frames * 4 * rows * columns, cuts=cuts)


def _cogvideox(copies: int) -> Generator:
    frames, rows, columns, width, layers, heads, text = 13, 60, 90, 1920, 30, 30, 226
    tokens = frames * (rows // 2) * (columns // 2)
    joint = tokens + text
    net = Tally(name="transformer", batch=2 * copies)
    net.linear(16 * 4, width, tokens)
    net.linear(4096, width, text)
    net.linear(width, 512, 1)
    net.linear(512, 512, 1)
    cuts = list[Cut]()
    for _ in range(layers):
        cuts.append(Cut(operators=len(net.operators), elements=float(joint * width)))
        for _ in range(2):  # an adaptive norm before each half, scale and shift; gate after it
            net.linear(512, 6 * width, 1)
            net.elementwise(width, joint)
            net.elementwise(width, joint, 3)
        for _ in range(3):
            net.linear(width, width, joint)
        net.elementwise(width, joint, 4)  # norms of queries and keys
        net.attention(joint, joint, width, heads)
        net.linear(width, width, joint)
        net.elementwise(width, joint, 4)
        net.feed_forward(width, 4 * width, joint, gated=False)
        net.elementwise(width, joint, 4)
    net.elementwise(width, joint, 4)
    net.linear(width, 16 * 4, tokens)
    text_encoder = Tally(name="T5-XXL", batch=2)
    encoder_layers(text_encoder, 24, 4096, 10240, 64, text, gated=True)
    decoder = Tally(name="decoder")
    video_decoder(decoder, (128, 256, 256, 512), frames, rows, columns, latent=16,
                          resnets=4, doubled=(0, 1), modulated=True)
    return Generator(
        name="cogvideox", title="CogVideoX-2b, 49 frames of 480x720", steps=50, warm_up=13,
        denoiser=net, before=(text_encoder,), after=(decoder,), parameters=1.69e9,
        latent_bytes=2.0 * frames * 16 * rows * columns, cuts=tuple(cuts), width=width,
        tokens=joint, blocks=layers, heads=heads)


def _audioldm2(copies: int) -> Generator:
    mel_frames, bins, waveforms = 1024, 64, 3
    rows, columns = mel_frames // 4, bins // 4
    unet = Unet(channels=(128, 256, 384, 640), depths=(0, 2, 2, 2), heads=(4, 8, 12, 20),
                 contexts=(None, 768, 1024, None), context_tokens=(0, 8, 32, 0), rows=rows,
                 columns=columns, inputs=8, outputs=8)
    net = Tally(name="UNet", batch=2 * waveforms * copies)
    cuts = unet.tally(net)
    clap = Tally(name="CLAP's text encoder", batch=2)
    encoder_layers(clap, 12, 768, 3072, 12, 32)
    flan = Tally(name="FLAN-T5 large", batch=2)
    encoder_layers(flan, 24, 1024, 2816, 16, 32, gated=True)
    gpt = Tally(name="GPT-2, 8 steps", batch=2)
    for step in range(8):
        encoder_layers(gpt, 12, 768, 3072, 12, 33 + step)
    decoder = Tally(name="decoder", batch=waveforms)
    image_decoder(decoder, (128, 256, 512), rows, columns, latent=8, outputs=1)
    waves = Tally(name="HiFi-GAN", batch=waveforms)
    vocoder(waves, mel_frames)
    return Generator(
        name="audioldm2", title="AudioLDM2-large, three waveforms of 10 s", steps=200, warm_up=5,
        denoiser=net, before=(clap, flan, gpt), after=(decoder, waves), parameters=0.75e9,
        latent_bytes=2.0 * waveforms * 8 * rows * columns, cuts=cuts)


def _sdxl(copies: int) -> Generator:
    rows = columns = 128
    unet = Unet(channels=(320, 640, 1280), depths=(0, 2, 10), heads=(5, 10, 20),
                 contexts=(2048,), context_tokens=(77,), rows=rows, columns=columns)
    net = Tally(name="UNet", batch=2 * copies)
    cuts = unet.tally(net)
    small = Tally(name="CLIP ViT-L text encoder", batch=2)
    encoder_layers(small, 12, 768, 3072, 12, 77)
    big = Tally(name="OpenCLIP bigG text encoder", batch=2)
    encoder_layers(big, 32, 1280, 5120, 20, 77)
    decoder = Tally(name="decoder, FP32", element_bytes=4)
    image_decoder(decoder, (128, 256, 512, 512), rows, columns, latent=4, outputs=3)
    return Generator(
        name="sdxl", title="Stable Diffusion XL, 1024x1024", steps=50, warm_up=5, denoiser=net,
        before=(small, big), after=(decoder,), parameters=2.57e9,
        latent_bytes=2.0 * 4 * rows * columns, cuts=cuts)


def _sd3(copies: int) -> Generator:
    rows = columns = 128
    tokens, text = (rows // 2) * (columns // 2), 77 + 256
    width, layers, heads = 1536, 24, 24
    net = Tally(name="transformer", batch=2 * copies)
    net.linear(16 * 4, width, tokens)
    net.linear(4096, width, text)
    cuts = list[Cut]()
    for layer in range(layers):
        cuts.append(Cut(operators=len(net.operators), elements=float((tokens + text) * width)))
        last = layer == layers - 1  # of the text it computes no more than what attention takes
        for part in (tokens, text):
            net.linear(width, (2 if last and part == text else 6) * width, 1)
            net.elementwise(width, part)
            net.elementwise(width, part, 3)
            for _ in range(3):
                net.linear(width, width, part)
        net.attention(tokens + text, tokens + text, width, heads)
        for part in (tokens,) if last else (tokens, text):
            net.linear(width, width, part)
            net.elementwise(width, part, 4)
            net.elementwise(width, part)
            net.elementwise(width, part, 3)
            net.feed_forward(width, 4 * width, part, gated=False)
            net.elementwise(width, part, 4)
    net.linear(width, 16 * 4, tokens)
    small, big = Tally(name="CLIP ViT-L", batch=2), Tally(name="OpenCLIP bigG", batch=2)
    encoder_layers(small, 12, 768, 3072, 12, 77)
    encoder_layers(big, 32, 1280, 5120, 20, 77)
    t5 = Tally(name="T5-XXL", batch=2)
    encoder_layers(t5, 24, 4096, 10240, 64, 256, gated=True)
    decoder = Tally(name="decoder")
    image_decoder(decoder, (128, 256, 512, 512), rows, columns, latent=16, outputs=3)
    return Generator(
        name="sd3", title="Stable Diffusion 3 medium, 1024x1024", steps=50, warm_up=5,
        denoiser=net, before=(small, big, t5), after=(decoder,), parameters=2.03e9,
        latent_bytes=2.0 * 16 * rows * columns, cuts=tuple(cuts), width=width,
        tokens=tokens + text, blocks=layers, heads=heads)


#: Name -> what makes it, of so many inputs at once.
GENERATORS: dict[str, Callable[[int], Generator]] = {
    "svd": _svd, "cogvideox": _cogvideox, "audioldm2": _audioldm2, "sdxl": _sdxl,
    "sd3": _sd3}


@cache
def generator(name: str, copies: int = 1) -> Generator:
    """The generator of that name.

    Parameters
    ----------
    copies : int
        Inputs that its denoiser takes at once.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in GENERATORS:
        raise ValueError(f"Generator must be one of {', '.join(GENERATORS)}, not {name!r}")
    return GENERATORS[name](copies)
