"""How close an image is to a reference image."""

from math import inf, log10
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["psnr_db", "ssim"]

# Side of the Gaussian window of SSIM, in pixels; smaller images have no SSIM.
_SSIM_WINDOW = 11


def psnr_db(
    image: npt.ArrayLike, reference: npt.ArrayLike, mask: npt.ArrayLike | None = None
) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1.

    Parameters
    ----------
    image, reference : array_like
        Colours of shape [height, width, 3], dimensionless, both clipped to [0, 1] first: what a
        display shows.
    mask : array_like, optional
        Pixels that count, boolean, shape [height, width]. Default: all.

    Returns
    -------
    float
        ``10 log10(1 / MSE)``; ``inf`` for equal images.

    Raises
    ------
    ValueError
        If the shapes differ, a value is not finite, or no pixel counts.
    """
    image, reference = _checked(image, reference)
    squared = (image - reference) ** 2
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != squared.shape[:2]:
            raise ValueError(
                f"Mask must be boolean of shape {squared.shape[:2]},"
                f" not {mask.dtype} of shape {mask.shape}"
            )
        squared = squared[mask]
    if squared.size == 0:
        raise ValueError("Images to compare must have at least one pixel that counts, not none")
    error = float(squared.mean())
    return inf if error == 0.0 else -10.0 * log10(error)


def ssim(image: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Structural similarity, with the Gaussian window and the constants of its authors.

    Parameters
    ----------
    image, reference : array_like
        Colours of shape [height, width, 3], both clipped to [0, 1] first; at least 11 x 11.

    Returns
    -------
    float
        Mean over pixels and channels, at most 1 (equal images).

    Raises
    ------
    ValueError
        If the shapes differ, a value is not finite, or the images are smaller than the window.

    References
    ----------
    Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to
    Structural Similarity", IEEE TIP 13(4), 2004, DOI 10.1109/TIP.2003.819861.
    """
    from skimage.metrics import structural_similarity

    image, reference = _checked(image, reference)
    if min(image.shape[:2]) < _SSIM_WINDOW:
        raise ValueError(
            f"Images for SSIM must be at least {_SSIM_WINDOW} x {_SSIM_WINDOW} pixels,"
            f" not {image.shape[1]} x {image.shape[0]}"
        )
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    similarity: Any = structural_similarity(
        image, reference, channel_axis=2, data_range=1.0, **settings
    )
    return float(similarity)


def _checked(
    image: npt.ArrayLike, reference: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    image, reference = np.asarray(image, np.float64), np.asarray(reference, np.float64)
    if reference.ndim != 3 or reference.shape[2] != 3:
        raise ValueError(f"Images must have shape [height, width, 3], not {reference.shape}")
    if image.shape != reference.shape:
        raise ValueError(
            f"Image must have the shape of its reference, {reference.shape}, not {image.shape}"
        )
    for name, array in (("Image", image), ("Reference", reference)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, not NaN or infinite anywhere")
    return np.clip(image, 0.0, 1.0), np.clip(reference, 0.0, 1.0)
