"""StreamingGS's algorithm: a scene in voxels, and frames streamed from it, voxel after voxel.

:mod:`~splatforge.algos.streaminggs.partition` cuts a scene into voxels,
:mod:`~splatforge.algos.streaminggs.quantize` makes codebooks, :mod:`~splatforge.algos.streaminggs.
order` orders voxels, :mod:`~splatforge.algos.streaminggs.frame` streams a frame in floating point,
:mod:`~splatforge.algos.streaminggs.render` in integers, and :mod:`~splatforge.algos.streaminggs.
tune` fine-tunes a scene for its borders.
"""

from splatforge.algos.streaminggs.frame import render_float
from splatforge.algos.streaminggs.render import pack, prepare, render, store

__all__ = ["pack", "prepare", "render", "render_float", "store"]
