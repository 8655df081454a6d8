"""What trained Gaussians are like: quantiles of opacity, size, shape and SH energy.

The table ``data/statistics.json`` was measured from real captures by :func:`measure` through
``python -m splatforge.scenes.statistics FOLDER``; the generators draw from it and the tests
compare with it.

Quantities, each a list of quantiles at :data:`LEVELS`:

``opacity``
    After the sigmoid.
``log_size``
    Logarithm of the largest standard deviation, over the extent of the scene and times the square
    root of the number of Gaussians, which removes units and resolution.
``log_stretch``, ``log_flatness``
    Logarithm of the largest over the middle and of the middle over the smallest standard
    deviation. Flatness ends at e^4, where a Gaussian is a disc to every renderer.
``sh_energy_1`` to ``sh_energy_3``
    Root mean square of the coefficients of a band; where the capture has the band.
"""

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from splatforge.scenes.scene import SH_COEFFICIENTS, Scene

Float64Array = npt.NDArray[np.float64]

#: Shares at which quantiles are taken.
LEVELS = np.concatenate([[0.005, 0.02], np.linspace(0.05, 0.95, 19), [0.98, 0.995]])

_TABLE = Path(__file__).parent / "data" / "statistics.json"
_FLATTEST = 4.0
# The captures of each profile: objects, and the ten parts of one city.
_PROFILES = {
    "object": (
        "inari_fox_50k.ply",
        "plant_114k.splat",
        "tarot_115k.splat",
        "fourth_st_131k_sh3.spz",
        "statue_angel_71k.sog",
        "statue_massa_59k.sog",
        "statue_trumpet_89k.sog",
    ),
    "city": tuple(f"semarang_city_{i}_sh3.sog" for i in range(10)),
}


def scene_extent(means: npt.ArrayLike) -> float:
    """Return the diagonal of the box that holds the middle 90 % of the centres along each axis."""
    low, high = np.percentile(np.asarray(means, dtype=np.float64), (5, 95), axis=0)
    return float(np.linalg.norm(high - low))


def measure(scene: Scene) -> dict[str, Float64Array]:
    """Return the quantiles of every quantity of the module docstring that ``scene`` has."""
    log_scales = np.sort(scene.log_scales.astype(np.float64), axis=1)
    size = log_scales[:, 2] - np.log(scene_extent(scene.means)) + 0.5 * np.log(scene.gaussians)
    values = {
        "opacity": 1 / (1 + np.exp(-scene.opacity_logits.astype(np.float64))),
        "log_size": size,
        "log_stretch": log_scales[:, 2] - log_scales[:, 1],
        "log_flatness": np.minimum(log_scales[:, 1] - log_scales[:, 0], _FLATTEST),
    }
    for degree in range(1, scene.sh_degree + 1):
        band = scene.sh[:, SH_COEFFICIENTS[degree - 1] : SH_COEFFICIENTS[degree]]
        values[f"sh_energy_{degree}"] = np.sqrt((band.astype(np.float64) ** 2).mean(axis=(1, 2)))
    return {name: np.quantile(value, LEVELS) for name, value in values.items()}


@cache
def captures(profile: str) -> dict[str, dict[str, Float64Array]]:
    """Return the quantiles of each real capture of a profile, ``object`` or ``city``."""
    table = json.loads(_TABLE.read_text())["profiles"][profile]
    return {
        name: {quantity: np.array(values) for quantity, values in quantities.items()}
        for name, quantities in table.items()
    }


def quantiles(profile: str, quantity: str) -> Float64Array:
    """Return the mean quantile function of a profile over the captures that have the quantity."""
    found = [table[quantity] for table in captures(profile).values() if quantity in table]
    return np.mean(found, axis=0)


def distance(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the mean distance of two quantile functions (the 1-Wasserstein distance)."""
    gap = np.abs(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))
    return float(np.trapezoid(gap, LEVELS) / (LEVELS[-1] - LEVELS[0]))


def measure_folder(folder: Path) -> str:
    """Return the JSON text of the table, measured from the captures in ``folder``."""
    # Late: the readers need nothing from here, but this is a program of its own.
    from splatforge.scenes.files import load

    profiles = {}
    for profile, names in _PROFILES.items():
        profiles[profile] = {
            name: {
                quantity: [round(float(value), 5) for value in values]
                for quantity, values in measure(load(folder / name)).items()
            }
            for name in names
        }
    return json.dumps({"levels": LEVELS.round(4).tolist(), "profiles": profiles}, indent=1) + "\n"


if __name__ == "__main__":
    _TABLE.write_text(measure_folder(Path(sys.argv[1])))
