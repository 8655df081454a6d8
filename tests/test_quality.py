import numpy as np
import pytest

from splatforge.algos.quality import psnr_db, ssim


def picture(seed: int = 0, height: int = 40, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


def test_equal_images():
    assert psnr_db(picture(), picture()) == np.inf
    assert ssim(picture(), picture()) == pytest.approx(1.0)


def test_psnr_of_a_known_error():
    image = np.full((5, 7, 3), 0.5)
    assert psnr_db(image + 0.1, image) == pytest.approx(20.0)
    image[0, 0, 0] += 0.01
    assert psnr_db(image, np.full((5, 7, 3), 0.5)) == pytest.approx(40 + 10 * np.log10(105))


def test_psnr_clips_to_what_a_display_shows():
    assert psnr_db(np.full((2, 2, 3), 7.0), np.ones((2, 2, 3))) == np.inf
    assert psnr_db(np.full((2, 2, 3), -3.0), np.zeros((2, 2, 3))) == np.inf


def test_psnr_of_masked_pixels():
    image, other = picture(), picture()
    other[3, 4] = 0
    mask = np.ones(image.shape[:2], bool)
    mask[3, 4] = False
    assert psnr_db(image, other) < 60
    assert psnr_db(image, other, mask) == np.inf
    only = psnr_db(image, other, ~mask)
    assert only == pytest.approx(-10 * np.log10((image[3, 4].astype(float) ** 2).mean()))


def test_ssim_orders_noise_below_brightness():
    image = np.clip(picture(height=64, width=64) * 0.1 + 0.4, 0, 1)
    noise = np.random.default_rng(1).normal(0, 0.1, image.shape)
    brighter = ssim(image + 0.1, image)
    noisy = ssim(image + noise, image)
    assert psnr_db(image + 0.1, image) == pytest.approx(psnr_db(image + noise, image), abs=0.5)
    assert 0 < noisy < brighter < 1


def test_ssim_by_its_definition():
    """Weights of the window as its authors give them, at every place that the window fits."""
    image = picture(3, 17, 15).astype(np.float64)
    reference = 0.5 * image + 0.5 * picture(4, 17, 15)
    side = np.arange(-5, 6)
    window = np.exp(-(side[:, None] ** 2 + side**2) / (2 * 1.5**2))[..., None]
    window /= window.sum()
    places = []
    for y in range(17 - 10):
        for x in range(15 - 10):
            a, b = image[y : y + 11, x : x + 11], reference[y : y + 11, x : x + 11]
            mean_a, mean_b = (window * a).sum((0, 1)), (window * b).sum((0, 1))
            variance_a = (window * a**2).sum((0, 1)) - mean_a**2
            variance_b = (window * b**2).sum((0, 1)) - mean_b**2
            covariance = (window * a * b).sum((0, 1)) - mean_a * mean_b
            places.append(
                (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
                / (mean_a**2 + mean_b**2 + 0.01**2) / (variance_a + variance_b + 0.03**2))
    assert ssim(image, reference) == pytest.approx(np.mean(places), abs=1e-9)


@pytest.mark.parametrize("measure", [psnr_db, ssim])
def test_images_are_checked(measure):
    with pytest.raises(
        ValueError, match=r"^Images must have shape \[height, width, 3\], not \(40, 30\)$"
    ):
        measure(picture()[..., 0], picture()[..., 0])
    with pytest.raises(
        ValueError,
        match=r"^Image must have the shape of its reference, \(40, 30, 3\), not \(39, 30, 3\)$",
    ):
        measure(picture()[1:], picture())
    bad = picture()
    bad[1, 1, 1] = np.nan
    with pytest.raises(ValueError, match=r"^Image must be finite, not NaN or infinite anywhere$"):
        measure(bad, picture())
    with pytest.raises(ValueError, match=r"^Reference must be finite"):
        measure(picture(), bad)


def test_masks_are_checked():
    rule = r"^Mask must be boolean of shape \(40, 30\), not "
    with pytest.raises(ValueError, match=rule + r"bool of shape \(40,\)$"):
        psnr_db(picture(), picture(), np.ones(40, bool))
    with pytest.raises(ValueError, match=rule + r"float64 of shape \(40, 30\)$"):
        psnr_db(picture(), picture(), np.ones((40, 30)))
    with pytest.raises(ValueError, match=r"^Images to compare must have at least one pixel"):
        psnr_db(picture(), picture(), np.zeros((40, 30), bool))


def test_ssim_needs_its_window():
    with pytest.raises(
        ValueError, match=r"^Images for SSIM must be at least 11 x 11 pixels, not 30 x 10$"
    ):
        ssim(picture(height=10), picture(height=10))
