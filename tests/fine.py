"""Gaussians in voxels, and codebooks that hold them."""

import numpy as np

from splatforge.algos.ccu import camera_numbers
from splatforge.algos.ffu import fine_vectors, opacity_entries
from splatforge.designs.codebook import CodebookDesign
from splatforge.designs.feature import FeatureFormat

EDGE = 0.75


def voxel_numbers(scene, view):
    """Base minus eye, edge, and place in its voxel of every Gaussian, by name."""
    means = scene.means.astype(float)
    base = np.floor(means / EDGE) * EDGE - EDGE
    place = (means - base) / EDGE
    eye = camera_numbers(view)
    return {**{f"d_{axis}": base[:, k] - eye[f"eye_{axis}"] for k, axis in enumerate("xyz")},
            "size": np.full(len(means), EDGE),
            **{f"q_{axis}": place[:, k] for k, axis in enumerate("xyz")}}


def fine_numbers(scene, view):
    """Numbers of every word of a decoded record of one stage, not yet rounded."""
    vectors = fine_vectors(scene, FeatureFormat())
    numbers = voxel_numbers(scene, view) | {"scale": vectors["scale"]}
    codebooks = one_stage(8, scene.sh_degree)
    for name, entry, _ in codebooks.vectors():
        numbers |= {f"{name}0_{number}": vectors[name][:, k] for k, number in enumerate(entry)}
    return numbers


def one_stage(bits, sh_degree, **change):
    """Codebooks of ``2**bits`` entries each."""
    stages = dict.fromkeys(
        ("rotation", "ratios", "opacity", "color", "sh1", "sh2", "sh3"), (bits,))
    return CodebookDesign(**(stages | change), sh_degree=sh_degree)


def halves(numbers):
    """Words of binary16 nearest to numbers; denormals are zero."""
    near = np.asarray(numbers).astype(np.float16)
    return np.where(np.abs(near) < 2.0**-14, np.float16(0), near).view(np.uint16)


def codebooks_of(design, scene):
    """Codebooks with an entry for each of the first Gaussians, the second stage small and any."""
    rng = np.random.default_rng(scene.gaussians)
    vectors = fine_vectors(scene, FeatureFormat())
    books = {}
    for name, entries, names in design.codebooks():
        vector, stage = name[:-1], int(name[-1])
        if stage:
            books[name] = halves(rng.normal(0, 0.01, (entries, len(names))))
            continue
        at = np.arange(entries) % scene.gaussians
        if vector == "opacity":
            books[name] = opacity_entries(vectors["opacity"][at, 0], FeatureFormat())
        elif vector in vectors:
            books[name] = halves(vectors[vector][at])
        else:
            books[name] = np.zeros((entries, len(names)), np.uint16)
    return books
