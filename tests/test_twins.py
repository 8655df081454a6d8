"""Every component has its twins: one name across designs, algos, hw, sim, verification, tests."""

import ast
import importlib
from importlib.util import find_spec
from inspect import getdoc
from pathlib import Path

import pytest

from splatforge.designs import alpha as alpha_designs
from splatforge.designs import (
    array,
    blend,
    bsu,
    ccu,
    cfu,
    falloff,
    fetch,
    ffu,
    gscore,
    lists,
    lumina,
    nru,
    qsu,
    radiance,
    raster,
    resolve,
    setup,
    shell,
    streaminggs,
    tilelists,
    voyager,
    vru,
    vsort,
    vsu,
)
from splatforge.hw.generate import COMPONENTS

TESTS = Path(__file__).parent
NAMES = sorted(COMPONENTS)
#: What a component's parameters are called; the registers are part of the shell.
DESIGNS = {
    "alpha": alpha_designs.AlphaDesign, "array": array.ArrayDesign, "blend": blend.BlendDesign,
    "bsu": bsu.BsuDesign, "ccu": ccu.CcuDesign, "cfu": cfu.CfuDesign,
    "falloff": falloff.FalloffDesign, "fetch": fetch.FetchDesign,
    "ffu": ffu.FfuDesign,
    "gscore": gscore.GscoreDesign, "lists": lists.ListsDesign,
    "lumina": lumina.LuminaDesign, "nru": nru.NruDesign,
    "qsu": qsu.QsuDesign,
    "radiance": radiance.RadianceDesign, "raster": raster.RasterDesign,
    "registers": shell.ShellDesign,
    "resolve": resolve.ResolveDesign, "vru": vru.VruDesign,
    "setup": setup.SetupDesign, "streaminggs": streaminggs.StreaminggsDesign,
    "tilelists": tilelists.TilelistsDesign,
    "voyager": voyager.VoyagerDesign, "vsort": vsort.VsortDesign, "vsu": vsu.VsuDesign,
}


@pytest.mark.parametrize("folder", ["hw", "algos", "sim", "verification"])
@pytest.mark.parametrize("name", NAMES)
def test_twin_is_there(name, folder):
    assert find_spec(f"splatforge.{folder}.{name}"), f"{folder}/{name}.py is missing"


@pytest.mark.parametrize("name", NAMES)
def test_tests_run_the_bench(name):
    path = TESTS / f"test_{name}.py"
    assert path.exists()
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
             and isinstance(node.func, ast.Name) and node.func.id == "run_testbench"]
    assert [call.args[0].value for call in calls] == [name]


def test_components_are_all_there_is():
    """Every file of hw, but for the generator itself, is a component, and under its name."""
    folder = Path(importlib.import_module("splatforge.hw").__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "generate"} == set(NAMES)
    assert set(DESIGNS) == set(NAMES)
    for name, component in COMPONENTS.items():
        assert component.__module__ == f"splatforge.hw.{name}"
        assert component.__name__.lower() == name


@pytest.mark.parametrize("name", NAMES)
def test_docstring_states_the_contract(name):
    text = " ".join((getdoc(COMPONENTS[name]) or "").split())
    for words in (f":`splatforge.algos.{name}.", f":`splatforge.sim.{name}`", "Bit-true model:",
                  "Cycle model:", "Latency", "hroughput", "tall", "Parameters", "Members"):
        assert words in text, f"{name}: the docstring must state {words!r}"


@pytest.mark.parametrize("name", NAMES)
def test_docstring_names_its_twins(name):
    """What stands behind "Bit-true model:" exists and names the component in its turn."""
    text = " ".join((getdoc(COMPONENTS[name]) or "").split())
    target = text.split("Bit-true model:")[1].split("`")[1]
    module, attribute = target.rsplit(".", 1)
    twin = getattr(importlib.import_module(module), attribute)
    assert f"splatforge.hw.{name}." in (twin.__doc__ or "")


@pytest.mark.parametrize("name", NAMES)
def test_every_member_is_documented(name):
    text = getdoc(COMPONENTS[name]) or ""
    members = text.split("Members\n-------")[1]
    component = COMPONENTS[name]
    made = component.for_design(raster.RasterDesign()) if name == "registers" else component()
    made._MustUse__used = True
    for member in made.signature.members:
        prefix = member.split("_axi")[0] + "_axi"
        assert member in members or prefix in members, f"{name}: {member} must be documented"


@pytest.mark.parametrize("name", NAMES)
def test_latency_is_an_attribute(name):
    assert isinstance(COMPONENTS[name].latency, int)


@pytest.mark.parametrize("name", NAMES)
def test_design_documents_its_fields(name):
    design = DESIGNS[name]
    text = getdoc(design) or ""
    for field in design.__dataclass_fields__:
        assert field in text, f"{design.__name__}: {field} must be documented"
