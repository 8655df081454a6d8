"""Adam for scenes: rows that a frame did not list are left alone.

Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1. A frame
says nothing about Gaussians out of its view; for them neither moments nor steps advance, so that
each Gaussian's parameters move as if its own frames were all there were.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.workers import Workers

__all__ = ["Adam"]

Float32Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]

# Rows per unit of parallel work.
_CHUNK = 2048


@njit(cache=True, nogil=True)
def _step_kernel(chunk, ids, steps, slopes, values, first, second, rates, beta1, beta2, epsilon):
    columns = values.shape[1]
    for v in range(chunk * _CHUNK, min(len(ids), (chunk + 1) * _CHUNK)):
        i = ids[v]
        step = np.float64(steps[i])
        keep1, keep2 = np.float32(beta1), np.float32(beta2)
        gain1, gain2 = np.float32(1.0 - beta1), np.float32(1.0 - beta2)
        scale1 = np.float32(1.0 / (1.0 - beta1**step))
        scale2 = np.float32(1.0 / (1.0 - beta2**step))
        floor = np.float32(epsilon)
        for j in range(columns):
            slope = slopes[v, j]
            m = keep1 * first[i, j] + gain1 * slope
            s = keep2 * second[i, j] + gain2 * slope * slope
            first[i, j], second[i, j] = m, s
            values[i, j] -= rates[j] * (scale1 * m) / (np.sqrt(s * scale2) + floor)


@dataclass(kw_only=True, eq=False)
class Adam:
    """Moments of named arrays with one row per Gaussian, and how often each row was stepped.

    Parameters
    ----------
    first, second : dict of numpy.ndarray
        Moving averages of slopes and of their squares, one array [N, columns], float32, per name.
    steps : numpy.ndarray
        Steps so far, shape [N], int32.
    beta1, beta2, epsilon : float
        As in the paper; epsilon in units of the slopes.
    """

    first: dict[str, Float32Array]
    second: dict[str, Float32Array]
    steps: Int32Array
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-15

    @classmethod
    def start(cls, values: Mapping[str, Float32Array], *, epsilon: float = 1e-15) -> "Adam":
        """Moments of zero for arrays of shape [N, ...]."""
        rows = len(next(iter(values.values())))
        shapes = {name: (rows, array.size // max(rows, 1)) for name, array in values.items()}
        return cls(
            first={name: np.zeros(shape, np.float32) for name, shape in shapes.items()},
            second={name: np.zeros(shape, np.float32) for name, shape in shapes.items()},
            steps=np.zeros(rows, np.int32),
            epsilon=epsilon,
        )

    def step(
        self,
        values: Mapping[str, Float32Array],
        ids: Int32Array,
        slopes: Mapping[str, Float32Array],
        rates: Mapping[str, npt.ArrayLike],
    ) -> None:
        """Move the rows ``ids`` of every array down their slopes, in place.

        Parameters
        ----------
        values : dict of numpy.ndarray
            What is optimized, [N, ...], float32, C-contiguous.
        ids : numpy.ndarray
            Rows, shape [V], int32, each at most once.
        slopes : dict of numpy.ndarray
            Derivatives of the rows, [V, ...], float32.
        rates : dict of array_like
            Step size of each array, in its units: one, or one per column.
        """
        self.steps[ids] += 1
        with Workers() as workers:
            for name, array in values.items():
                rows = array.reshape(len(array), -1)
                rate = np.empty(rows.shape[1], np.float32)
                rate[:] = np.asarray(rates[name]).reshape(-1)
                workers.run_chunks(
                    _step_kernel, -(-len(ids) // _CHUNK), ids, self.steps,
                    slopes[name].reshape(len(ids), rows.shape[1]), rows, self.first[name],
                    self.second[name], rate, self.beta1, self.beta2, self.epsilon,
                )  # fmt: skip
