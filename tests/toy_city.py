"""A city of two levels: groups of four that are one from afar."""

import numpy as np

from splatforge.algos.voyager.city import Searched
from splatforge.scenes import Camera, Scene
from splatforge.scenes.scene import merge


class ToyCity:
    """Groups along a street; the cut has the four of a group within `near` of the eye."""

    def __init__(self, groups=1000, seed=0, near=7.0):
        rng = np.random.default_rng(seed)
        count = 4 * groups
        centres = np.stack([rng.uniform(-4, 4, groups), rng.uniform(-2, 2, groups),
                            rng.uniform(0, 60, groups)], axis=1)
        fine = Scene(
            means=np.repeat(centres, 4, axis=0) + rng.normal(0, 0.3, (count, 3)),
            log_scales=rng.uniform(-3, -1.5, (count, 3)), quats=rng.normal(size=(count, 4)),
            opacity_logits=rng.uniform(-1, 4, count), sh=rng.normal(0, 0.3, (count, 16, 3)))
        coarse = Scene(
            means=centres, log_scales=np.full((groups, 3), -1.0),
            quats=np.tile([1.0, 0, 0, 0], (groups, 1)), opacity_logits=np.full(groups, 2.0),
            sh=fine.sh.reshape(groups, 4, 16, 3).mean(axis=1))
        self.all = merge([coarse, fine])
        self.centres, self.near, self.groups = centres, near, groups

    @property
    def nodes(self):
        return self.all.gaussians

    def scene(self, ids):
        return self.all.select(ids)

    def finder(self):
        before = np.empty(0, np.int64)

        def find(camera):
            nonlocal before
            now, last = self.cut(camera), before
            before = now
            return Searched(left=np.setdiff1d(last, now), entered=np.setdiff1d(now, last),
                            visited=self.nodes, time_s=0.0)
        return find

    def cut(self, camera):
        close = np.linalg.norm(self.centres - camera.position, axis=1) < self.near
        children = self.groups + 4 * np.flatnonzero(close)[:, None] + np.arange(4)
        return np.sort(np.concatenate([np.flatnonzero(~close), children.ravel()]))


def street(frames, step=0.15, size=(64, 48)):
    """Cameras that go along the street."""
    cameras = []
    for k in range(frames):
        w2c = np.eye(4)
        w2c[2, 3] = 5 - step * k
        cameras.append(Camera(width=size[0], height=size[1], fx=size[0] / 2, fy=size[0] / 2,
                              cx=size[0] / 2, cy=size[1] / 2, w2c=w2c))
    return tuple(cameras)
