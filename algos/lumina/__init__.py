"""Lumina's algorithm: sorting shared over a window of frames, colours cached by what pixels blend.

:mod:`~splatforge.algos.lumina.sharing` divides frames into windows and makes their lists,
:mod:`~splatforge.algos.lumina.frame` renders frames in floating point,
:mod:`~splatforge.algos.lumina.render` in integers, with what is in memory before each. The cache is
:mod:`splatforge.algos.radiance`, blending :mod:`splatforge.algos.nru`;
:mod:`~splatforge.algos.lumina.tune` fine-tunes a scene for the cache.
"""

from splatforge.algos.lumina.frame import render_float, render_sequence_float
from splatforge.algos.lumina.render import (
    pack,
    prepare,
    prepare_sequence,
    render,
    render_sequence,
)

__all__ = ["pack", "prepare", "prepare_sequence", "render", "render_float", "render_sequence",
           "render_sequence_float"]
