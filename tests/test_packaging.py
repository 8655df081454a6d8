"""What is packaged is what is in the tree, and a wheel works where the tree is not."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CONFIG = PROJECT["tool"]["setuptools"]
FOLDERS = [*(folder for folder in CONFIG["package-dir"].values() if folder != "splatforge"),
           "tests", "bench"]
LOCK = (ROOT / "requirements.lock").read_text("utf-8").splitlines()


def in_tree(folder: str) -> list[Path]:
    """Files of a package folder, without what tools leave there."""
    return [path for path in sorted((ROOT / folder).rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"]


def test_every_package_is_listed():
    found = set()
    for name, folder in CONFIG["package-dir"].items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join((name, *init.parent.relative_to(ROOT / folder).parts)))
    assert sorted(CONFIG["packages"]) == sorted(found)


def test_every_data_file_is_listed():
    for name, folder in CONFIG["package-dir"].items():
        for path in in_tree(folder):
            if path.suffix == ".py":
                continue
            relative = str(path.relative_to(ROOT / folder))
            patterns = CONFIG["package-data"].get(name, [])
            assert any(fnmatch.fnmatch(relative, pattern) for pattern in patterns), path


def test_folder_names_are_not_importable(tmp_path):
    code = f"import importlib.util as u; print([n for n in {FOLDERS} if u.find_spec(n)])"
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert result.stdout.strip() == "[]"


def test_lock_holds_every_requirement():
    locked: dict[str, list[str]] = {}
    for line in LOCK:
        if match := re.match(r"([\w.-]+)==([^\s;]+)", line):
            locked.setdefault(canonicalize_name(match[1]), []).append(match[2])
    extras = PROJECT["project"]["optional-dependencies"]
    for text in [*PROJECT["project"]["dependencies"], *extras["verify"], *extras["dev"]]:
        requirement = Requirement(text)
        if requirement.name == "splatforge":
            continue
        versions = locked.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement.name} is not in requirements.lock: make lock"
        for version in versions:
            assert requirement.specifier.contains(version), f"{text}, not {version}: make lock"


def test_lock_holds_versions_only():
    for line in LOCK:
        assert line.startswith("#") or re.match(r"^[\w.-]+==[^\s/]+( ; .+)?$", line), line


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built without a download, from a copy: a build leaves folders behind."""
    source = tmp_path_factory.mktemp("source")
    for folder in CONFIG["package-dir"].values():
        shutil.copytree(ROOT / folder, source / folder,
                        ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.nbi", "*.nbc"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        check=True, capture_output=True, text=True, cwd=out,
    )
    (path,) = out.glob("*.whl")
    return path


def test_wheel_holds_the_tree_under_one_name(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = set()
    for package, folder in CONFIG["package-dir"].items():
        prefix = package.replace(".", "/")
        expected |= {f"{prefix}/{path.relative_to(ROOT / folder).as_posix()}"
                     for path in in_tree(folder)}
    assert names == expected


def test_wheel_imports_from_an_empty_folder(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "import pkgutil, importlib, splatforge, pathlib\n"
        f"assert pathlib.Path(splatforge.__file__).is_relative_to({str(site)!r})\n"
        "names = [m.name for m in pkgutil.walk_packages(splatforge.__path__, 'splatforge.')\n"
        "         if not m.name.endswith('__main__')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(len(names))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(site), "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=empty, env=environment, capture_output=True,
        text=True, check=False,
    )
    assert result.returncode == 0, result.stderr
    modules = [path for folder in CONFIG["package-dir"].values() for path in in_tree(folder)
               if path.suffix == ".py" and path.name != "__main__.py"]
    assert int(result.stdout) == len(modules) - 1  # the package itself is not walked
    version = subprocess.run(
        [sys.executable, "-P", "-m", "splatforge", "--version"], cwd=empty, env=environment,
        capture_output=True, text=True, check=True,
    )
    assert version.stdout.strip() == f"splatforge {PROJECT['project']['version']}"
    assert not list(empty.iterdir())
