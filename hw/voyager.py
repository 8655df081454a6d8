"""Voyager's client: AXI4 in front, Gaussians and a camera in, framebuffer out."""

from splatforge.designs.voyager import VoyagerDesign
from splatforge.hw.gscore import Gscore

__all__ = ["Voyager"]


class Voyager(Gscore):
    """Render a packed scene as :class:`splatforge.hw.gscore.Gscore` does, exponentials looked up.

    Bit-true model: :func:`splatforge.algos.voyager.render`. Cycle model:
    :mod:`splatforge.sim.voyager`.

    All units are GSCore's, but for :class:`splatforge.hw.falloff.Falloff` in the rendering array.
    Latency, throughput, stalls and what ends a frame that goes wrong are GSCore's, too.

    Parameters
    ----------
    design : VoyagerDesign
        All parameters.

    Members
    -------
    m_axi_* :
        AXI4 manager, see :class:`splatforge.hw.gscore.Gscore`.
    s_axil_* :
        AXI4-Lite subordinate; ``splatforge verilog`` writes its register map.
    irq : ``Out(1)``
        High while an enabled interrupt is pending.
    """

    def __init__(self, design: VoyagerDesign = VoyagerDesign()) -> None:  # noqa: B008
        super().__init__(design)
