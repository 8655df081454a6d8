"""Adam against its algorithm."""

import numpy as np

from splatforge.algos.adam import Adam


def test_adam_by_the_book():
    """Against the algorithm in float64, for a row of every step and one of every other."""
    rng = np.random.default_rng(0)
    values = {"a": rng.normal(size=(3, 2)).astype(np.float32)}
    adam = Adam.start(values)
    expected = values["a"].astype(np.float64)
    moments = np.zeros((2, 3, 2))
    steps = np.zeros(3)
    rate = np.array([0.1, 0.02])
    for k in range(20):
        ids = np.array([0, 2] if k % 2 else [0], np.int32)
        slope = rng.normal(size=(len(ids), 2)).astype(np.float32)
        adam.step(values, ids, {"a": slope}, {"a": rate})
        for row, i in enumerate(ids):
            steps[i] += 1
            moments[0, i] = 0.9 * moments[0, i] + 0.1 * slope[row]
            moments[1, i] = 0.999 * moments[1, i] + 0.001 * slope[row].astype(float) ** 2
            first = moments[0, i] / (1 - 0.9 ** steps[i])
            second = moments[1, i] / (1 - 0.999 ** steps[i])
            expected[i] -= rate * first / (np.sqrt(second) + 1e-15)
    np.testing.assert_allclose(values["a"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(adam.steps, [20, 0, 10])
