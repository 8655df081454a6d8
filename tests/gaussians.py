"""Random scenes and a camera in front of them."""

import numpy as np

from splatforge.scenes import Camera, Scene


def random_scene(count, seed, *, needles=False, sh_degree=0, antialiased=False):
    """Gaussians in front of a camera at the origin that looks along +z."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 6, count)
    means = np.stack([*(rng.uniform(-0.8, 0.8, (2, count)) * depth), depth], axis=1)
    log_scales = rng.uniform(-5, -1, (count, 3))
    if needles:
        log_scales[:, 0] += 3
        log_scales[:, 1:] -= 3
    return Scene(
        means=means.astype(np.float32), log_scales=log_scales.astype(np.float32),
        quats=rng.normal(size=(count, 4)).astype(np.float32),
        opacity_logits=rng.uniform(-7, 5, count).astype(np.float32),
        sh=rng.uniform(-1, 2, (count, (sh_degree + 1) ** 2, 3)).astype(np.float32),
        antialiased=antialiased)


def camera(width, height):
    """Camera at the origin that looks along +z, 53 degrees wide."""
    return Camera(width=width, height=height, fx=width, fy=width, cx=width / 2, cy=height / 2,
                  w2c=np.eye(4))
