"""The notebooks of examples/ run, and print what is committed in them."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splatforge.algos.quality import psnr_db

EXAMPLES = Path(__file__).parents[1] / "examples"
#: Of a notebook with its outputs: they are shown where notebooks are read, and are small.
MOST_BYTES = 120_000


def printed(notebook) -> str:
    return "".join(output.text for cell in notebook.cells for output in cell.get("outputs", ())
                   if output.output_type == "stream")


def pictures(notebook) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))))
            for cell in notebook.cells for output in cell.get("outputs", ())
            if "image/png" in output.get("data", {})]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_prints_what_it_says(path, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    # The kernel's own files stay here.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    said = nbformat.read(path, as_version=4)
    assert path.stat().st_size < MOST_BYTES
    run = nbformat.read(path, as_version=4)
    for cell in run.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    nbclient.NotebookClient(
        run, timeout=600, kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert printed(run) == printed(said) != ""
    for shown, committed in zip(pictures(run), pictures(said), strict=True):
        # A picture's bytes are Pillow's business.
        assert psnr_db(shown / 255.0, committed / 255.0) > 50


def test_ten_lines_are_ten():
    nbformat = pytest.importorskip("nbformat")
    first = next(cell for cell in nbformat.read(EXAMPLES / "ten_lines.ipynb", 4).cells
                 if cell.cell_type == "code")
    assert len([line for line in first.source.splitlines() if line.strip()]) == 10


def test_the_package_offers_its_names_and_imports_them_late():
    import subprocess
    import sys

    import splatforge

    for name in splatforge.__all__:
        assert getattr(splatforge, name) is not None
        assert name in dir(splatforge)
    with pytest.raises(AttributeError, match=r"^module 'splatforge' has no attribute 'nothing'$"):
        splatforge.nothing  # noqa: B018 - the access is what is tested
    code = "import sys, splatforge; print('numpy' in sys.modules)"
    late = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert late.stdout == "False\n"
