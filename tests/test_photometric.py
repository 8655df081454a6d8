"""The loss against its definition, and its gradient against differences."""

import numba
import numpy as np
import pytest

from splatforge.algos.photometric import PhotometricLoss
from splatforge.algos.quality import ssim


def pictures(height, width, seed=0, noise=0.1):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    target = 0.5 + 0.3 * np.sin(0.3 * x[..., None] + 0.2 * y[..., None] + np.arange(3))
    target = (target + rng.normal(0, 0.05, (height, width, 3))).clip(0.02, 0.98)
    image = (target + rng.normal(0, noise, target.shape)).clip(0.01, 0.99)
    return image.astype(np.float32), target.astype(np.float32)


@pytest.mark.parametrize("size", [(11, 11), (12, 40), (33, 11), (50, 67)])
@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_value_is_the_definition(size, weight):
    image, target = pictures(*size)
    loss, gradient = PhotometricLoss(target, dssim_weight=weight)(image)
    far = np.abs(image.astype(np.float64) - target)
    l1 = np.where(far < 1 / 1020, 510 * far**2, far - 1 / 2040).mean()
    assert loss == pytest.approx((1 - weight) * l1 + weight * (1 - ssim(image, target)), abs=2e-6)
    assert gradient.shape == image.shape
    assert gradient.dtype == np.float32


@pytest.mark.parametrize("size", [(11, 11), (29, 37)])
def test_gradient_against_differences(size):
    """Along single pixels, corners among them, and along the gradient itself."""
    image, target = pictures(*size, seed=3)
    loss = PhotometricLoss(target, dssim_weight=0.8, bend=0.01)
    _, gradient = loss(image)

    def exact(picture):
        far = np.abs(picture - target)
        l1 = np.where(far < 0.01, 50 * far**2, far - 0.005)
        return 0.2 * l1.mean() + 0.8 * (1 - ssim(picture, target))

    tolerance = 1e-4 * float(np.abs(gradient).max())
    rng = np.random.default_rng(1)
    height, width = size
    places = [(0, 0, 0), (height - 1, width - 1, 2), (0, width - 1, 1),
              *zip(rng.integers(0, height, 12), rng.integers(0, width, 12), rng.integers(0, 3, 12),
                   strict=True)]
    for place in places:
        sums = []
        for sign in (1, -1):
            moved = image.astype(np.float64)
            moved[place] += sign * 1e-6
            sums.append(exact(moved))
        slope = (sums[0] - sums[1]) / 2e-6
        assert gradient[place] == pytest.approx(slope, rel=1e-3, abs=tolerance)


def test_equal_pictures_are_at_rest():
    _, target = pictures(30, 40, noise=0)
    loss, gradient = PhotometricLoss(target)(target)
    assert loss == pytest.approx(0, abs=1e-6)
    assert np.abs(gradient).max() < 1e-8


def test_flat_pictures_stay_finite():
    loss, gradient = PhotometricLoss(np.zeros((20, 20, 3)))(np.ones((20, 20, 3)))
    assert loss == pytest.approx(0.8 * (1 - 1 / 2040) + 0.2 * (1 - 1e-4 / (1 + 1e-4)), rel=1e-4)
    assert np.isfinite(gradient).all()


def test_threads_change_nothing():
    image, target = pictures(70, 50)
    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            results.append(PhotometricLoss(target)(image))
    finally:
        numba.set_num_threads(before)
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_wrong_input():
    with pytest.raises(ValueError, match=r"at least 11 x 11 pixels, not \(10, 30, 3\)$"):
        PhotometricLoss(np.zeros((10, 30, 3)))
    with pytest.raises(ValueError, match=r"^Target must be finite"):
        PhotometricLoss(np.full((20, 20, 3), np.nan))
    with pytest.raises(ValueError, match=r"^Weight of D-SSIM must be between 0 and 1, not 1.5$"):
        PhotometricLoss(np.zeros((20, 20, 3)), dssim_weight=1.5)
    with pytest.raises(ValueError, match=r"^Bend of L1 must be positive and finite, not 0$"):
        PhotometricLoss(np.zeros((20, 20, 3)), bend=0)
    with pytest.raises(ValueError, match=r"^Image must have the shape of its target, \(20, 20"):
        PhotometricLoss(np.zeros((20, 20, 3)))(np.zeros((20, 21, 3)))
