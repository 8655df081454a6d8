"""Video models that ASTRAEA runs on: a call of the denoiser with a share of its tokens chosen.

Shapes are those of the released configurations. A chosen token asks (queries), goes through
attention to the text and the feed-forward part; keys and values are of all tokens. Operators are
those of an implementation in which nothing is fused but attention.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from splatforge.sim.systems.autoencoders import image_decoder, video_decoder
from splatforge.sim.systems.layers import encoder_layers
from splatforge.sim.systems.tally import Tally

__all__ = [
    "METHODS",
    "VIDEO_MODELS",
    "VideoModel",
    "cache_bytes",
    "call_tally",
    "decoder_tally",
    "text_tally",
    "video_model",
]


@dataclass(frozen=True, kw_only=True)
class VideoModel:
    """A diffusion transformer over tokens of video.

    Parameters
    ----------
    name, title, source : str
        Key in :data:`VIDEO_MODELS`; for people; who says so.
    width, ff, heads, blocks : int
        Of the transformer.
    frames, frame_tokens : int
        Latent frames and tokens of each.
    rows, columns : int
        Of a latent frame.
    text_tokens : int
        Of the text.
    steps, guidance : int
        Steps, and calls in each.
    joint : bool
        Whether the text goes through the blocks beside the video, instead of being attended to.
    split : bool
        Whether blocks attend within a frame and along frames by turns, instead of to all.
    """

    name: str
    title: str
    source: str
    width: int
    ff: int
    heads: int
    blocks: int
    frames: int
    frame_tokens: int
    rows: int
    columns: int
    text_tokens: int
    steps: int
    guidance: int
    joint: bool = False
    split: bool = False

    @property
    def tokens(self) -> int:
        """Of the video."""
        return self.frames * self.frame_tokens

    @property
    def calls(self) -> int:
        """Of the denoiser."""
        return self.steps * self.guidance


def _wan(name: str, title: str, frames: int) -> VideoModel:
    return VideoModel(
        name=name, title=title, source="Wan2.1-T2V-1.3B: config of the release; 832x480",
        width=1536, ff=8960, heads=12, blocks=30, frames=frames, frame_tokens=30 * 52, rows=60,
        columns=104, text_tokens=512, steps=50, guidance=2)


def _opensora(name: str, title: str, frames: int) -> VideoModel:
    return VideoModel(
        name=name, title=title, source="Open-Sora 1.2, STDiT3-XL/2: config of the release; 480x848",
        width=1152, ff=4608, heads=16, blocks=56, frames=frames, frame_tokens=30 * 53, rows=60,
        columns=106, text_tokens=300, steps=30, guidance=2, split=True)


#: By name.
VIDEO_MODELS: Mapping[str, VideoModel] = {each.name: each for each in (
    _wan("wan_2s", "Wan 2.1 1.3B, 33 frames", 9),
    _wan("wan_4s", "Wan 2.1 1.3B, 65 frames", 17),
    _opensora("opensora_2s", "Open-Sora 1.2, 51 frames", 15),
    _opensora("opensora_4s", "Open-Sora 1.2, 102 frames", 30),
    VideoModel(
        name="hunyuan_5s", title="HunyuanVideo, 129 frames",
        source="HunyuanVideo: config of the release, 20 double and 40 single blocks; 544x960",
        width=3072, ff=12288, heads=24, blocks=60, frames=33, frame_tokens=34 * 60, rows=68,
        columns=120, text_tokens=256, steps=50, guidance=1, joint=True))}

#: What is done to the blocks: all of it; tokens chosen (ASTRAEA); tokens chosen among queries and
#: keys alike (ToCa); attention sparse (SVG).
METHODS = ("original", "astraea", "select_qk", "sparse")


def video_model(name: str) -> VideoModel:
    """The video model of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in VIDEO_MODELS:
        raise ValueError(f"Video model must be one of {', '.join(VIDEO_MODELS)}, not {name!r}")
    return VIDEO_MODELS[name]


def _self_attention(net: Tally, model: VideoModel, block: int, share: float, method: str,
                    density: float) -> None:
    """Queries of chosen tokens over keys of all, or of what is chosen or dense of them."""
    width, tokens = model.width, model.tokens + (model.text_tokens if model.joint else 0)
    keys_of = share if method == "select_qk" else 1.0
    if model.split:
        length = model.frame_tokens if block % 2 == 0 else model.frames
        sequences = tokens / length
    else:
        length, sequences = tokens, 1.0
    net.elementwise(width, tokens * keys_of)
    net.elementwise(width, tokens * keys_of, 3)  # scale and shift
    net.linear(width, width, tokens * share)
    for _ in range(2):
        net.linear(width, width, tokens * keys_of)
    for part in (share, keys_of):  # norms and rotation of queries and keys
        net.elementwise(width, tokens * part)
        net.elementwise(width, tokens * part)
    net.attention(length * share, length * keys_of * density, width, model.heads,
                  sequences=sequences)
    net.linear(width, width, tokens * share)
    net.elementwise(width, tokens * share, 3)


def _cross_attention(net: Tally, model: VideoModel, share: float) -> None:
    width, tokens = model.width, model.tokens
    net.elementwise(width, tokens * share)
    net.linear(width, width, tokens * share)
    for _ in range(2):
        net.linear(width, width, model.text_tokens)
    net.attention(tokens * share, model.text_tokens, width, model.heads, within=False)
    net.linear(width, width, tokens * share)
    net.elementwise(width, tokens * share, 3)


def _feed_forward(net: Tally, model: VideoModel, share: float) -> None:
    width, tokens = model.width, model.tokens + (model.text_tokens if model.joint else 0)
    net.elementwise(width, tokens * share)
    net.elementwise(width, tokens * share, 3)
    net.feed_forward(width, model.ff, tokens * share, gated=False)
    net.elementwise(width, tokens * share, 3)


def _selection(net: Tally, model: VideoModel, share: float) -> None:
    """Scores of all tokens, the chosen ones picked out and put back among what is cached."""
    width, tokens = model.width, model.tokens
    net.elementwise(width, tokens)  # the change since the step before, from both inputs
    for _ in range(4):  # 32-bit scores and their indices sorted, 8 bits a pass
        net.elementwise(8 / net.element_bytes, tokens)
    net.elementwise(width, tokens * share)  # picked
    net.elementwise(width, tokens * share)  # put into the cache
    net.elementwise(width, tokens * (1 - share))  # the others taken from it


def call_tally(model: VideoModel, share: float = 1.0, method: str = "original", *,
               density: float = 1.0, self_attention: float = 1.0, frame_attention: float = 1.0,
               cross_attention: float = 1.0, selection: bool = True) -> Tally:
    """Layers of one call of the denoiser.

    Parameters
    ----------
    model : VideoModel
        Whose.
    share : float
        Of tokens that are chosen, in (0, 1].
    method : str
        Of :data:`METHODS`.
    density : float
        Of attention that is computed, in (0, 1].
    self_attention, frame_attention, cross_attention : float
        Share of calls in which a block computes its self-attention (along frames, where blocks
        take turns) and its attention to the text, instead of adding what it added before.
    selection : bool
        Whether choosing tokens is in it.

    Raises
    ------
    ValueError
        If a share is outside its range.
    """
    if method not in METHODS:
        raise ValueError(f"Method must be one of {', '.join(METHODS)}, not {method!r}")
    for name, value in (("Share", share), ("Density", density)):
        if not 0 < value <= 1:
            raise ValueError(f"{name} must be in (0, 1], not {value!r}")
    net = Tally(name=model.title)
    choosing = method in ("astraea", "select_qk") and share < 1
    for block in range(model.blocks):
        of_self = frame_attention if model.split and block % 2 else self_attention
        _shared(net, of_self, lambda part, number=block: _self_attention(
            part, model, number, share, method, density))
        if not model.joint:
            _shared(net, cross_attention, lambda part: _cross_attention(part, model, share))
        _feed_forward(net, model, share)
        if choosing and selection:
            _selection(net, model, share)
    return net


def _shared(net: Tally, often: float, part: Callable[[Tally], None]) -> None:
    """A part that runs in a share of the calls."""
    alone = Tally(name=net.name)
    part(alone)
    net.operators += [each * often for each in alone.operators]
    net.parameters += alone.parameters


def cache_bytes(model: VideoModel) -> float:
    """What each block keeps: its output for every token, in both halves of guidance."""
    return 2.0 * model.tokens * model.width * model.blocks * model.guidance


def text_tally(model: VideoModel) -> Tally:
    """T5-XXL, or its like, on the text."""
    net = Tally(name="text encoder", batch=model.guidance)
    encoder_layers(net, 24, 4096, 10240, 64, model.text_tokens, gated=True)
    return net


def decoder_tally(model: VideoModel) -> Tally:
    """The autoencoder that makes frames of latents.

    Raises
    ------
    ValueError
        For HunyuanVideo, whose decoder works on overlapping tiles: it is not modelled.
    """
    net = Tally(name="decoder")
    if model.split:  # a decoder over frames, then Stable Diffusion's frame by frame
        frames = {15: 51, 30: 102}[model.frames]
        video_decoder(net, (128, 256, 256, 512), model.frames, model.rows, model.columns,
                      latent=4, outputs=4, resnets=4, doubled=(1, 2), causal=False, spatial=False)
        image_decoder(net, (128, 256, 512, 512), model.rows, model.columns, latent=4, outputs=3,
                      frames=frames)
    elif not model.joint:
        video_decoder(net, (96, 192, 384, 384), model.frames, model.rows, model.columns,
                      latent=16, resnets=3, doubled=(0, 1), halved=True)
    else:
        raise ValueError(f"{model.name}: its decoder is not modelled")
    return net
