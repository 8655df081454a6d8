"""Fixtures that every suite shares."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"

# Simulations take seconds to build; the workers of a run, and the next run, share them.
os.environ.setdefault("SPLATFORGE_CACHE", str(Path(__file__).parents[1] / "build" / "cache"))


def _find(folder: str, name: str) -> Path:
    path = SHARED / folder / name
    if not path.exists():
        pytest.skip(f"needs the real capture {name} in {SHARED / folder}, which is not there")
    return path


@pytest.fixture(scope="session")
def shared_scene() -> Callable[[str], Path]:
    """Path of a real capture by file name; skips where the captures are absent."""
    return lambda name: _find("scenes", name)


@pytest.fixture(scope="session")
def shared_cameras() -> Callable[[str], Path]:
    """Path of a real camera or head-motion file by name; skips where it is absent."""
    return lambda name: _find("cameras", name)


@pytest.fixture
def run_testbench(tmp_path: Path) -> Callable[..., None]:
    """Run the cocotb bench of a unit; skips where Python cannot be embedded."""
    from find_libpython import find_libpython

    if find_libpython() is None:
        pytest.skip("cocotb embeds Python, and this Python has no shared library"
                    " (Debian, Ubuntu: apt install libpython3-dev)")
    from splatforge.verification.lib import runner

    return lambda name, *, seed, design=None: runner.run_testbench(
        name, tmp_path, seed=seed, design=design)
