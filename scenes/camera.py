"""The pinhole camera, in OpenCV axes: +x right, +y down, +z forward, pixel centres at +0.5."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

#: Near plane in scene units below which a Gaussian is not drawn (Kerbl et al. 2023).
NEAR = 0.2

_SIZE_LIMIT = 65536


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """A pinhole camera.

    Parameters
    ----------
    width, height : int
        Image size in pixels.
    fx, fy : float
        Focal lengths in pixels.
    cx, cy : float
        Principal point in pixels from the upper left corner of the image.
    w2c : array_like
        World-to-camera transform, 4 x 4, row-major, rigid: a rotation and a translation.
    near : float
        Near plane in scene units.

    Raises
    ------
    ValueError
        A size is not positive, a number is not finite, or ``w2c`` is not rigid.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    w2c: Float64Array
    near: float = NEAR

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            size = getattr(self, name)
            if int(size) != size or not 1 <= size <= _SIZE_LIMIT:
                raise ValueError(
                    f"Camera {name} must be a whole number from 1 to {_SIZE_LIMIT}, not {size!r}"
                )
            object.__setattr__(self, name, int(size))
        for name in ("fx", "fy", "near"):
            value = float(getattr(self, name))
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"Camera {name} must be positive and finite, not {value!r}")
            object.__setattr__(self, name, value)
        for name in ("cx", "cy"):
            value = float(getattr(self, name))
            if not np.isfinite(value):
                raise ValueError(f"Camera {name} must be finite, not {value!r}")
            object.__setattr__(self, name, value)
        w2c = np.array(self.w2c, dtype=np.float64)
        if w2c.shape != (4, 4) or not np.isfinite(w2c).all():
            raise ValueError(f"Camera w2c must be a finite 4 x 4 matrix, not {w2c!r}")
        rotation = w2c[:3, :3]
        if (
            np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3
            or np.linalg.det(rotation) < 0
            or not np.array_equal(w2c[3], (0, 0, 0, 1))
        ):
            raise ValueError(
                f"Camera w2c must be rigid: a rotation, a translation and 0 0 0 1, not {w2c!r}"
            )
        w2c.setflags(write=False)
        object.__setattr__(self, "w2c", w2c)

    @classmethod
    def look_at(
        cls,
        eye: npt.ArrayLike,
        target: npt.ArrayLike,
        up: npt.ArrayLike,
        *,
        width: int,
        height: int,
        fx: float | None = None,
        fov_x_deg: float = 60.0,
        near: float = NEAR,
    ) -> "Camera":
        """Return the camera at ``eye`` that looks at ``target`` with square pixels.

        Parameters
        ----------
        eye, target : array_like
            Points of shape [3] in scene units.
        up : array_like
            Direction of shape [3] that points upwards in the image, of any length.
        width, height : int
            Image size in pixels.
        fx : float, optional
            Focal length in pixels; ``fov_x_deg`` is not used then.
        fov_x_deg : float
            Horizontal field of view in degrees, in (0, 180).
        near : float
            Near plane in scene units.

        Raises
        ------
        ValueError
            ``eye`` is at ``target``, ``up`` is along the view, or a number is out of range.
        """
        eye_point, target_point, up_direction = (
            np.asarray(point, dtype=np.float64) for point in (eye, target, up)
        )
        forward = target_point - eye_point
        distance = np.linalg.norm(forward)
        if not distance > 0:
            raise ValueError(f"Camera eye must differ from its target, not both be {eye!r}")
        forward = forward / distance
        right = np.cross(forward, up_direction)
        length = np.linalg.norm(right)
        if not length > 1e-9 * np.linalg.norm(up_direction):
            raise ValueError(f"Camera up must not be along the view direction, not {up!r}")
        right = right / length
        if fx is None:
            if not 0 < fov_x_deg < 180:
                raise ValueError(f"Camera fov_x_deg must be between 0 and 180, not {fov_x_deg!r}")
            fx = width / 2 / float(np.tan(np.radians(fov_x_deg) / 2))
        w2c = np.eye(4)
        w2c[:3, :3] = right, np.cross(forward, right), forward
        w2c[:3, 3] = -w2c[:3, :3] @ eye_point
        return cls(
            width=width,
            height=height,
            fx=fx,
            fy=fx,
            cx=width / 2,
            cy=height / 2,
            w2c=w2c,
            near=near,
        )

    @property
    def position(self) -> Float64Array:
        """Centre of projection in the world, shape [3]."""
        return -self.w2c[:3, :3].T @ self.w2c[:3, 3]

    def resized(self, width: int, height: int) -> "Camera":
        """Return the same view on ``width`` x ``height`` pixels.

        The pixels keep their aspect: where the new shape is wider or taller than the old one, the
        camera sees more, and what the old image showed stays whole and central.
        """
        factor = min(width / self.width, height / self.height)
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * factor,
            fy=self.fy * factor,
            cx=width / 2 + (self.cx - self.width / 2) * factor,
            cy=height / 2 + (self.cy - self.height / 2) * factor,
        )
