import types

import pytest

from splatforge.algos.compiled import source_digest


def module(tmp_path, name, text):
    made = types.ModuleType(name)
    made.__file__ = str(tmp_path / f"{name}.py")
    (tmp_path / f"{name}.py").write_text(text)
    return made


def test_digest_follows_every_source(tmp_path):
    first, second = module(tmp_path, "first", "A = 1\n"), module(tmp_path, "second", "B = 1\n")
    before = source_digest(first, second)
    assert source_digest(first, second) == before
    (tmp_path / "second.py").write_text("B = 2\n")
    assert source_digest(first, second) != before


def test_module_without_a_file():
    with pytest.raises(ValueError, match=r"^Module must have a source file, not made$"):
        source_digest(types.SimpleNamespace(__file__=None, __name__="made"))
