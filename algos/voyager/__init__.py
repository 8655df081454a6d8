"""Voyager: level-of-detail trees and cuts in the cloud, splatting on the client."""

from splatforge.algos.voyager.render import pack, prepare, render, render_float

__all__ = ["pack", "prepare", "render", "render_float"]
