"""The rendering array: how many lanes, and how they lie over a tile."""

from dataclasses import dataclass

from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.blend import BlendDesign
from splatforge.designs.fetch import SUBTILE_PX, SUBTILES, TILE_PX, SplatFormat

__all__ = ["ArrayDesign"]


@dataclass(frozen=True, kw_only=True)
class ArrayDesign:
    """Lanes of the rendering array.

    The lanes cover one block of pixels at a time: 4x4, 8x4, 8x8, 16x8 or 16x16 pixels for 16 to
    256 lanes. A splat costs one cycle per block that it can reach and that still has a live pixel.

    Parameters
    ----------
    lanes : int
        16, 32, 64, 128 or 256.
    alpha : AlphaDesign
        Formats of the alpha evaluation.
    blend : BlendDesign
        Formats of blending.
    group_tiles : int
        0: tiles come one after another, each with the number of its splats. 1, 2 or 4: groups of so
        many tiles a side come one after another, whose splats say which tile they belong to, and
        end when it is said that there are no more; the state of all their tiles is held at once.

    Raises
    ------
    ValueError
        If the number of lanes or of tiles is not one of those.
    """

    lanes: int = 64
    alpha: AlphaDesign = AlphaDesign()
    blend: BlendDesign = BlendDesign()
    group_tiles: int = 0

    def __post_init__(self) -> None:
        if self.group_tiles not in (0, 1, 2, 4):
            raise ValueError(
                f"Tiles of a group's side must be 0, 1, 2 or 4, not {self.group_tiles!r}")
        if self.lanes not in (16, 32, 64, 128, 256):
            raise ValueError(f"Lanes must be 16, 32, 64, 128 or 256, not {self.lanes!r}")

    @property
    def block_width(self) -> int:
        """Columns of a block in pixels."""
        return {16: 4, 32: 8, 64: 8, 128: 16, 256: 16}[self.lanes]

    @property
    def block_height(self) -> int:
        """Rows of a block in pixels."""
        return self.lanes // self.block_width

    @property
    def blocks_x(self) -> int:
        """Blocks side by side in a tile."""
        return TILE_PX // self.block_width

    @property
    def blocks(self) -> int:
        """Blocks of a tile, row-major."""
        return TILE_PX * TILE_PX // self.lanes

    @property
    def side(self) -> int:
        """Tiles along a side of what is blended at once."""
        return max(1, self.group_tiles)

    @property
    def places(self) -> int:
        """Blocks of what is blended at once, tile after tile."""
        return self.side**2 * self.blocks

    def block_subtiles(self) -> tuple[int, ...]:
        """For each block the 16-bit mask of its subtiles."""
        masks = [0] * self.blocks
        side = TILE_PX // SUBTILE_PX
        for subtile in range(SUBTILES):
            row, column = divmod(subtile, side)
            block = (row * SUBTILE_PX // self.block_height) * self.blocks_x
            block += column * SUBTILE_PX // self.block_width
            masks[block] |= 1 << subtile
        return tuple(masks)

    def check_splat(self, splat: SplatFormat) -> None:
        """Check that the lanes can take such splats.

        Raises
        ------
        ValueError
            If a format differs from what they expect, or a linear form could wrap in a tile.
        """
        alpha, blend = self.alpha, self.blend
        if splat.log_opacity != alpha.log_opacity or splat.color != blend.color:
            raise ValueError("Splat records must hold opacity and colour in the array's formats")
        for name in ("u0", "v0", "a", "b", "c"):
            if getattr(splat, name).frac_bits > alpha.form_sum.frac_bits:
                raise ValueError(f"Form sum must be at least as fine as the splat's {name}")
        # At the tile's last pixel, x = y = 15, with every field at its end: a sum that wrapped
        # would come back as a small, significant one.
        top = {name: 2.0 ** (getattr(splat, name).int_bits - getattr(splat, name).signed)
               for name in ("u0", "v0", "a", "b", "c")}
        reach = max(top["u0"] + (TILE_PX - 1) * (top["a"] + top["b"]),
                    top["v0"] + (TILE_PX - 1) * top["c"])
        if not alpha.form_sum.signed or reach > 2.0 ** (alpha.form_sum.int_bits - 1):
            raise ValueError(f"Form sum must be signed and hold {reach:g}, not {alpha.form_sum}")
