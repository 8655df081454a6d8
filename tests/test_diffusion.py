"""The exact score, and steps from noise to data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.sim.systems.diffusion import (
    GaussianMixture,
    advance,
    ddim_levels,
    exact_denoiser,
    flow_levels,
    random_mixture,
    sample,
)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), angle=st.floats(0.02, 1.55))
def test_score_is_the_slope_of_the_log_density(seed, angle) -> None:
    generator = np.random.default_rng(seed)
    mixture = random_mixture(generator, modes=5, dimension=4)
    alpha, sigma = np.cos(angle), np.sin(angle)
    x = alpha * mixture.draw(generator, 3) + sigma * generator.standard_normal((3, 4))
    step = 1e-5
    slope = np.empty_like(x)
    for each in range(4):
        moved = np.zeros(4)
        moved[each] = step
        slope[:, each] = (mixture.log_density(x + moved, alpha, sigma)
                          - mixture.log_density(x - moved, alpha, sigma)) / (2 * step)
    score = mixture.score(x, alpha, sigma)
    np.testing.assert_allclose(score, slope, rtol=1e-5, atol=1e-5 * np.abs(score).max())
    np.testing.assert_allclose(mixture.noise(x, alpha, sigma), -sigma * score)


def test_a_density_has_mass_one() -> None:
    mixture = GaussianMixture(means=np.array([[-1.0], [2.0]]), deviations=np.array([0.3, 0.6]),
                              weights=np.array([0.25, 0.75]))
    x = np.linspace(-12, 12, 20001)[:, None]
    for alpha, sigma in ((1.0, 0.0), (0.8, 0.6)):
        density = np.exp(mixture.log_density(x, alpha, sigma))
        assert np.trapezoid(density, x[:, 0]) == pytest.approx(1, abs=1e-9)


def test_one_gaussian_by_hand() -> None:
    mixture = GaussianMixture(means=np.array([[3.0, 0.0]]), deviations=np.array([0.5]),
                              weights=np.array([1.0]))
    x = np.array([[1.0, -2.0]])
    variance = 0.6**2 * 0.5**2 + 0.8**2
    np.testing.assert_allclose(mixture.score(x, 0.6, 0.8),
                               -(x - [[1.8, 0.0]]) / variance)


@given(seed=st.integers(0, 2**32 - 1), start=st.floats(0.01, 1.56), end=st.floats(0, 1.56))
def test_a_step_keeps_data_and_noise(seed, start, end) -> None:
    generator = np.random.default_rng(seed)
    data, noise = generator.standard_normal((2, 3, 4))
    level, following = (np.array([np.cos(each), np.sin(each)]) for each in (start, end))
    x = level[0] * data + level[1] * noise
    np.testing.assert_allclose(advance(x, noise, level, following),
                               following[0] * data + following[1] * noise, atol=1e-9)


def test_a_step_of_the_flow_is_eulers() -> None:
    levels = flow_levels(10)
    data, noise = np.random.default_rng(0).standard_normal((2, 3, 4))
    x = levels[4, 0] * data + levels[4, 1] * noise
    euler = x + (levels[5, 1] - levels[4, 1]) * (noise - data)
    np.testing.assert_allclose(advance(x, noise, levels[4], levels[5]), euler)


@pytest.mark.parametrize("levels_of", [ddim_levels, flow_levels])
def test_samples_are_like_data(levels_of) -> None:
    generator = np.random.default_rng(3)
    mixture = random_mixture(generator)
    levels = levels_of(100)
    start = generator.standard_normal((2000, 16))
    got = sample(exact_denoiser(mixture, levels), start, levels)
    data = mixture.draw(generator, 2000)
    # 100 steps leave some noise: likelihood is near that of data, and nothing like the start's.
    likely, wanted, noise = (mixture.log_density(x).mean() for x in (got, data, start))
    assert abs(likely - wanted) < 0.1 * (wanted - noise)
    np.testing.assert_allclose(got.mean(0), data.mean(0), atol=0.15)


def test_more_steps_go_to_the_same_data() -> None:
    generator = np.random.default_rng(5)
    mixture, start = random_mixture(generator), generator.standard_normal((64, 16))
    fine = sample(exact_denoiser(mixture, flow_levels(800)), start, flow_levels(800))

    def error(steps: int) -> float:
        levels = flow_levels(steps)
        return float(np.median(np.abs(sample(exact_denoiser(mixture, levels), start, levels)
                                      - fine)))
    assert error(20) > 2 * error(80) > 2 * error(320)


@pytest.mark.parametrize(("changes", "message"), [
    ({"weights": np.array([0.5, 0.6])}, "Weights must have sum 1"),
    ({"weights": np.array([1.0])}, "must be one a mode, 2"),
    ({"deviations": np.array([0.1, 0.0])}, "must be above zero"),
])
def test_malformed_mixtures(changes, message) -> None:
    right = {"means": np.zeros((2, 3)), "deviations": np.ones(2), "weights": np.full(2, 0.5)}
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**(right | changes))


@pytest.mark.parametrize(("levels_of", "steps"), [(ddim_levels, 0), (ddim_levels, 1001),
                                                  (flow_levels, 0)])
def test_steps_out_of_range(levels_of, steps) -> None:
    with pytest.raises(ValueError, match=r"^Steps must be "):
        levels_of(steps)


def test_levels_fall_from_noise_to_data() -> None:
    for levels in (ddim_levels(50), flow_levels(50)):
        assert levels.shape == (51, 2)
        assert (np.diff(levels[:, 0]) > 0).all()
        assert (np.diff(levels[:, 1]) < 0).all()
        np.testing.assert_array_equal(levels[-1], [1, 0])
