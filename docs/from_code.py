"""What the pages take from the code when they are built: diagrams, unit tables, lists.

Sphinx finds :func:`setup`; the functions before it know nothing of Sphinx and are tested alone.
"""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from inspect import getdoc
from typing import Any

from amaranth.hdl import Elaboratable, Shape, Signal
from amaranth.lib import stream, wiring

from splatforge.designs.accelerators import ACCELERATORS
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import Floating
from splatforge.designs.shell import AcceleratorDesign
from splatforge.hw.generate import COMPONENTS, UNITS, component

#: Sentences of a docstring that say how fast a unit is begin so.
_PACE = re.compile(r"\b(Latency|Throughput|[Ll]atency is|[Tt]hroughput is)\b")
_ROLE = re.compile(r":\w+:`(?:[^`<]*\.)?([^`<.]+)`")


def summary(text: str) -> str:
    """First sentence of a docstring, without its full stop and without markup."""
    return plain(text.strip().split("\n\n")[0]).removesuffix(".")


def plain(text: str) -> str:
    """Text of a docstring in Markdown: roles and double quotes become code."""
    text = _ROLE.sub(r"`\1`", " ".join(text.split()))
    return text.replace("``", "`")


def pace(text: str) -> str:
    """The paragraph of a unit's docstring that says its latency and throughput."""
    body = text.split("\nParameters\n")[0]
    found = [paragraph for paragraph in body.split("\n\n") if _PACE.search(paragraph)]
    return plain(" ".join(found))


def parameters_of(unit: str, design: AcceleratorDesign) -> tuple[str, Any]:
    """Dotted name and the part of a design that holds the parameters of `unit`; None of none."""
    if unit == "registers":
        return "shell", design.shell
    wanted = f"{unit}design"

    def search(name: str, part: Any) -> tuple[str, Any]:
        if type(part).__name__.lower() == wanted:
            return name, part
        for field in fields(part):
            inside = getattr(part, field.name)
            if is_dataclass(inside):
                found = search(f"{name}.{field.name}".lstrip("."), inside)
                if found[1] is not None:
                    return found
        return "", None

    return search("", design)


def is_format(value: Any) -> bool:
    """Whether a parameter is a number format."""
    return isinstance(value, Fixed | Floating)


def leaves(part: Any) -> Iterator[tuple[str, Any]]:
    """Parameters of a unit: its own, and formats of the records that it handles by path."""
    for field in fields(part):
        value = getattr(part, field.name)
        if is_format(value) or not is_dataclass(value):
            yield field.name, value
        elif not type(value).__name__.endswith("Design"):
            yield from ((f"{field.name}.{name}", inner) for name, inner in leaves(value))


def spelled(value: Any) -> str:
    """A parameter's value as a page shows it."""
    if isinstance(value, Floating):
        return f"float, {value.exponent_bits} + {value.fraction_bits} bits"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def units_of(name: str) -> list[str]:
    """Units of an accelerator, the whole first."""
    return sorted(UNITS[name], key=lambda unit: (unit != name, unit))


def unit_table(name: str) -> list[str]:
    """Units of an accelerator in a row each, in Markdown: what they do, and their latency."""
    lines = ["| unit | what it does | cycles of latency |", "|---|---|--:|"]
    for unit in units_of(name):
        latency = COMPONENTS[unit].latency
        lines.append(f"| [`{unit}`](#{name}-{unit}) | {summary(getdoc(COMPONENTS[unit]) or '')} | "
                     f"{latency if isinstance(latency, int) else 'by parameters'} |")
    return lines


def unit_sections(name: str) -> list[str]:
    """Units of an accelerator in Markdown, each with parameters, formats and pace."""
    design = ACCELERATORS[name].design
    lines = []
    for unit in units_of(name):
        text = getdoc(COMPONENTS[unit]) or ""
        where, part = parameters_of(unit, design)
        found = [(f"{where}.{key}".lstrip("."), value)
                 for key, value in (leaves(part) if part is not None else ())]
        numbers = [f"`{key}` = {spelled(value)}" for key, value in found if not is_format(value)]
        formats = [f"`{key}` {spelled(value)}" for key, value in found if is_format(value)]
        # In a definition list rows of any length are readable on a narrow screen.
        lines += [f"({name}-{unit})=", "", f"### `{unit}`", "", f"{summary(text)}.", ""]
        for heading, content in (
            ("Parameters", "; ".join(numbers) or "those of its units"),
            ("Number formats", "; ".join(formats) or "none of its own"),
            ("Latency and throughput", pace(text) or "those of its units"),
        ):
            lines += [heading, f": {content}", ""]
    return lines


def _streams(component: Any) -> Iterator[tuple[str, Any]]:
    """Stream members of a component."""
    for name, member in component.signature.members.items():
        if member.is_signature and isinstance(member.signature, stream.Signature):
            yield name, getattr(component, name)


def _mark_used(part: Any, seen: set[int]) -> None:
    """Tell Amaranth that components which are looked at and not built are not forgotten."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, Elaboratable):
        part._MustUse__used = True  # pyright: ignore[reportAttributeAccessIssue]
        part = vars(part)
    inside = part.values() if isinstance(part, dict) else part
    if isinstance(part, dict | list | tuple):
        for each in inside:
            _mark_used(each, seen)


def connections(name: str) -> tuple[list[str], list[tuple[str, str, str, int]]]:
    """Submodules of an accelerator's top, and the streams between them.

    Read off the top's own statements: where the ``valid`` of an input follows that of an output.

    Returns
    -------
    tuple
        Names of the submodules; and of each stream who gives it, who takes it, what it is called
        where it is taken, and the bits of its payload.
    """
    top: Any = component(name, ACCELERATORS[name].design)
    module = top.elaborate(None)
    _mark_used([top, module], set())
    module._flush()
    submodules = {part: given[0] if isinstance(given, tuple) else given
                  for part, given in module._named_submodules.items()}
    valid: dict[int, tuple[str, str, Any]] = {}
    parts = {}
    for part, each in submodules.items():
        if isinstance(getattr(each, "signature", None), wiring.Signature):
            parts[part] = each
            for port, interface in _streams(each):
                if isinstance(interface.valid, Signal):
                    valid[id(interface.valid)] = part, port, interface
    edges = set()
    statements = [each for domain in module._statements.values() for each in domain]
    for statement in statements:
        taken = valid.get(id(getattr(statement, "lhs", None)))
        if taken is None:
            continue
        for signal in statement.rhs._rhs_signals():
            given = valid.get(id(signal))
            if given is not None and given[0] != taken[0]:
                width = Shape.cast(taken[2].payload.shape()).width
                edges.add((given[0], taken[0], taken[1].split("_", 1)[-1], width))
    return list(parts), sorted(edges)


def diagram(name: str) -> str:
    """Block diagram of an accelerator for Graphviz: units, and the streams between them."""
    parts, edges = connections(name)
    lines = [
        "digraph {", '  graph [size="7,12", bgcolor="transparent", nodesep=0.3, ranksep=0.45];',
        ('  node [shape=box, style="rounded,filled", fillcolor="#eef3fb", color="#4a6da7", '
         'fontname="sans-serif", fontsize=11];'),
        '  edge [color="#667085", fontname="sans-serif", fontsize=9, fontcolor="#667085"];',
    ]
    inside = {"array": [unit for unit in ("alpha", "falloff", "blend") if unit in UNITS[name]],
              "shell": ["registers"]}
    for part in parts:
        label = part + "".join(f"\\n{unit}" for unit in inside.get(part, ()))
        color = ', fillcolor="#f5f5f5"' if part not in UNITS[name] else ""
        lines.append(f'  {part} [label="{label}"{color}];')
    merged: dict[tuple[str, str], list[str]] = {}
    for giver, taker, called, width in edges:
        # Of ports of an arbiter the number says nothing.
        called = re.sub(r"_\d+$", "", called) if not called.isdigit() else "address"
        merged.setdefault((giver, taker), []).append(f"{called} {width}")
    for (giver, taker), called in merged.items():
        label = "\\n".join(dict.fromkeys(called))
        lines.append(f'  {giver} -> {taker} [label="{label}"];')
    lines += [
        '  memory [label="memory\\nAXI4", shape=cylinder, fillcolor="#fff7e6"];',
        '  software [label="software\\nAXI4-Lite", shape=ellipse, fillcolor="#fff7e6"];',
        "  software -> shell; shell -> memory [dir=both];", "}"]
    return "\n".join(lines)


def systems_table() -> list[str]:
    """GPU-side systems with their options, in Markdown."""
    from splatforge.sim.systems.run import SYSTEMS, options_of

    lines = []
    for name, (module, about) in SYSTEMS.items():
        lines += [f"## `{name}`", "", f"{about[0].upper()}{about[1:]} (`{module}`).", "",
                  f"```sh\nsplatforge systems run {name}\n```", "", "| option | default |",
                  "|---|---|"]
        for option, value in options_of(name).items():
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            lines.append(f"| `{option}` | {'none' if shown is None or shown == '' else shown} |")
        lines.append("")
    return lines


def presets_table() -> list[str]:
    """Accelerators and their named configurations, in Markdown."""
    lines = ["| design | presets |", "|---|---|"]
    lines += [f"| [{name}](accelerators/{name}.md) | "
              + ", ".join(f"`{preset}`" for preset in each.presets) + " |"
              for name, each in ACCELERATORS.items()]
    return lines


def notebook(path: Any) -> list[str]:
    """Cells of a notebook in Markdown: code, and what it printed or showed."""
    import nbformat

    lines = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            lines += [cell.source, ""]
            continue
        lines += ["```python", cell.source, "```", ""]
        for output in cell.outputs:
            if output.output_type == "stream":
                lines += ["```text", output.text.rstrip("\n"), "```", ""]
            elif "image/png" in output.get("data", {}):
                image = output.data["image/png"].replace("\n", "")
                source = f"data:image/png;base64,{image}"
                lines += [
                    "```{raw} html", f'<img alt="what the cell shows" src="{source}">', "```", ""]
    return lines


def setup(app: Any) -> dict[str, bool]:
    """Directives of the pages: ``diagram``, ``units``, ``sections``, ``systems`` and others."""
    from pathlib import Path

    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.ext.graphviz import graphviz
    from sphinx.util.docutils import SphinxDirective

    class Diagram(SphinxDirective):
        required_arguments = 1

        def run(self) -> list[nodes.Node]:
            name = self.arguments[0]
            node = graphviz()
            node["code"] = diagram(name)
            node["options"] = {"docname": self.env.docname}
            node["alt"] = f"block diagram of {name}: units and the streams between them"
            return [node]

    class Generated(SphinxDirective):
        optional_arguments = 1
        make: Any

        def run(self) -> list[nodes.Node]:
            lines = type(self).make(*self.arguments)
            holder = nodes.section()
            holder.document = self.state.document
            self.state.nested_parse(
                StringList(lines, source=f"<{self.name}>"), 0, holder, match_titles=True)
            return holder.children

    def shown(path: str) -> list[str]:
        return notebook(Path(app.srcdir, path))

    app.add_directive("diagram", Diagram)
    made: dict[str, Any] = {"units": unit_table, "sections": unit_sections,
                            "systems": systems_table, "presets": presets_table,
                            "notebook": shown}
    for called, make in made.items():
        app.add_directive(
            called, type(called, (Generated,), {"make": staticmethod(make)}))
    return {"parallel_read_safe": False, "parallel_write_safe": True}
