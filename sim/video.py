"""What a video of the same frames takes: H.264 and H.265 by ffmpeg, as remote rendering sends them.

ffmpeg comes with the PyPI wheel imageio-ffmpeg (``pip install splatforge[video]``).
"""

import subprocess
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splatforge.algos.quality import psnr_db

__all__ = ["ENCODERS", "Video", "encode_video", "raw_video_rate"]

#: Name -> encoder, format of the stream, constant rate factor that is the encoder's default.
ENCODERS = {"h264": ("libx264", "h264", 23), "h265": ("libx265", "hevc", 28)}
_TIMEOUT_S = 300


@dataclass(frozen=True, kw_only=True)
class Video:
    """An encoded video.

    Parameters
    ----------
    encoder : str
        Of :data:`ENCODERS`.
    crf : int
        Constant rate factor.
    size_bytes : int
        Of the elementary stream.
    first_bytes : int
        Of the same encoder's stream of the first frame alone.
    psnr_db : float
        Of all its pixels, decoded again.
    """

    encoder: str
    crf: int
    size_bytes: int
    first_bytes: int
    psnr_db: float


def raw_video_rate(width: int, height: int, rate_hz: float) -> float:
    """Bits a second of a video of 8-bit RGB as it is."""
    return 24.0 * width * height * rate_hz


def encode_video(
    frames: npt.NDArray[np.uint8], encoder: str, *, rate_hz: float, crf: int | None = None
) -> Video:
    """Encode frames for low latency (no frame waits for a later one), preset ``medium``.

    Parameters
    ----------
    frames : ndarray
        8-bit RGB, shape [N, height, width, 3], both even.
    encoder : str
        Of :data:`ENCODERS`.
    rate_hz : float
        Frames a second.
    crf : int, optional
        Constant rate factor, 0 to 51. Default: the encoder's own.

    Raises
    ------
    ValueError
        The frames or a parameter are not that.
    ModuleNotFoundError
        There is no imageio-ffmpeg.
    RuntimeError
        ffmpeg has failed.
    """
    if encoder not in ENCODERS:
        raise ValueError(f"Encoder must be one of {', '.join(ENCODERS)}, not {encoder!r}")
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"Frames must be 8-bit RGB, not {frames.dtype} of shape {frames.shape}")
    count, height, width, _ = frames.shape
    if height % 2 or width % 2:
        raise ValueError(f"Frames must have an even width and height, not {width}x{height}")
    library, form, usual = ENCODERS[encoder]
    crf = usual if crf is None else crf
    if not 0 <= crf <= 51:
        raise ValueError(f"Constant rate factor must be 0 to 51, not {crf!r}")
    extra = ["-x265-params", "log-level=error:pools=1"] if library == "libx265" else []
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    encode = [*raw, "-r", f"{rate_hz:g}", "-i", "-", "-c:v", library, "-preset", "medium", "-tune",
              "zerolatency", "-crf", str(crf), "-pix_fmt", "yuv420p", "-threads", "1", *extra, "-f",
              form, "-"]
    stream = _run(encode, frames.tobytes())
    first = _run(encode, frames[:1].tobytes()) if count > 1 else stream
    decoded = _run(["-f", form, "-i", "-", *raw, "-fps_mode", "passthrough", "-"], stream)
    if len(decoded) != frames.nbytes:
        raise RuntimeError(f"ffmpeg must decode {count} frames, not {len(decoded)} bytes")
    back = np.frombuffer(decoded, np.uint8).reshape(-1, width, 3)
    psnr = psnr_db(back / np.float32(255), frames.reshape(-1, width, 3) / np.float32(255))
    return Video(encoder=encoder, crf=crf, size_bytes=len(stream), first_bytes=len(first),
                 psnr_db=psnr)


def _run(arguments: list[str], data: bytes) -> bytes:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "video needs imageio-ffmpeg: pip install splatforge[video]") from None
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", *arguments]
    try:
        result = subprocess.run(command, input=data, capture_output=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"ffmpeg has not ended within {_TIMEOUT_S} s") from None
    if result.returncode:
        said = result.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        raise RuntimeError(f"ffmpeg has failed: {said[-1]}")
    return result.stdout
