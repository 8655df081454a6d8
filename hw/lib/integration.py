"""What an integrator gets beside the Verilog: FuseSoC core, waivers, a smoke test, Vivado's Tcl."""

from splatforge.designs.shell import DESCRIPTOR_VERSION, HEAD_REGISTERS, IDENTITY

__all__ = ["WAIVERS", "core_file", "smoke_test", "vivado_tcl", "waiver_file"]

#: Rules of Verilator's ``-Wall`` that all Verilog of Amaranth breaks, and why that is no fault.
#: What is not among them (latches, several drivers, loops, missing pins) is an error.
WAIVERS = {
    "CASEINCOMPLETE": "a value that no branch names keeps what was assigned before the case",
    "DECLFILENAME": "one file holds the modules of the whole core",
    "PROCASSINIT": "registers have initial values, which FPGAs load; the reset gives the same ones",
    "UNUSEDSIGNAL": "sums are as wide as they may become, and are cut where they are stored",
    "VARHIDDEN": "modules are separate scopes; a field of a record is called like an instance",
    "WIDTHEXPAND": "operands of different widths: the language extends them by their sign",
    "WIDTHTRUNC": "sums and shifts are cut to what holds them; a test for zero takes all bits",
}


def waiver_file(name: str) -> str:
    """Verilator's configuration for the core `name`: its rules are off in its one file."""
    lines = ["`verilator_config", "// Of `verilator -Wall`, for Verilog that Amaranth has written."]
    for rule, reason in WAIVERS.items():
        lines += [f"// {reason}", f'lint_off -rule {rule} -file "*{name}.v"']
    return "\n".join(lines) + "\n"


def core_file(name: str, version: str) -> str:
    """FuseSoC description (CAPI2) of the core `name`.

    The targets ``lint`` and ``sim`` are Verilator's: ``fusesoc --cores-root . run --target=lint
    splatforge-NAME``.
    """
    return f"""CAPI=2:
name: ::splatforge-{name}:{version}
description: 3D Gaussian Splatting {name} core with AXI4 and AXI4-Lite
filesets:
  rtl:
    files:
      - {name}.v
    file_type: verilogSource
  waivers:
    files:
      - {name}_waivers.vlt
    file_type: vlt
  smoke:
    files:
      - {name}_smoke.cpp
    file_type: cppSource
targets:
  default:
    filesets: [rtl]
    toplevel: {name}
  lint:
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wall]
    filesets: [waivers, rtl]
    toplevel: {name}
  sim:
    flow: sim
    flow_options:
      tool: verilator
      verilator_options: [-Wall, --no-timing]
    filesets: [waivers, rtl, smoke]
    toplevel: {name}
"""


def smoke_test(name: str) -> str:
    """C++ main that resets the core `name` and reads its first two registers over AXI4-Lite."""
    offset = {register.name: register.offset for register in HEAD_REGISTERS}
    return f"""// Resets the {name} core and reads IDENTITY and VERSION over AXI4-Lite.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "V{name}.h"
#include "verilated.h"

static VerilatedContext context;
static V{name} core{{&context}};

static void cycle() {{
    core.clk = 0;
    core.eval();
    core.clk = 1;
    core.eval();
}}

// What can be seen before the next edge.
static void settle() {{
    core.clk = 0;
    core.eval();
}}

static void wait_for(const CData& signal, const char* called) {{
    for (int waited = 0; waited < 100; ++waited) {{
        settle();
        if (signal) return;
        cycle();
    }}
    fprintf(stderr, "{name}: %s must rise within 100 cycles\\n", called);
    exit(1);
}}

static uint32_t read_register(uint32_t offset) {{
    core.s_axil_araddr = offset;
    core.s_axil_arvalid = 1;
    wait_for(core.s_axil_arready, "s_axil_arready");
    cycle();
    core.s_axil_arvalid = 0;
    core.s_axil_rready = 1;
    wait_for(core.s_axil_rvalid, "s_axil_rvalid");
    const uint32_t value = core.s_axil_rdata;
    cycle();
    core.s_axil_rready = 0;
    return value;
}}

int main(int argc, char** argv) {{
    context.commandArgs(argc, argv);
    core.rst = 1;
    for (int n = 0; n < 4; ++n) cycle();
    core.rst = 0;
    const uint32_t identity = read_register(0x{offset["IDENTITY"]:02x});
    const uint32_t version = read_register(0x{offset["VERSION"]:02x});
    core.final();
    printf("{name}: IDENTITY %08x, VERSION %08x\\n", identity, version);
    return identity == 0x{IDENTITY:08x} && (version & 0xffff) == {DESCRIPTOR_VERSION} ? 0 : 1;
}}
"""


def vivado_tcl(name: str) -> str:
    """Vivado's commands for the core `name` alone, without its pins: nobody has run them yet."""
    return f"""# UNTESTED: written after Vivado's Tcl reference (UG835); nobody has run it yet.
#
#   vivado -mode batch -source {name}_vivado.tcl -tclargs PART PERIOD_NS
#
# Synthesis, placement and routing of the core out of context: utilisation and timing.
set part [expr {{$argc > 0 ? [lindex $argv 0] : "xczu7ev-ffvc1156-2-e"}}]
set period_ns [expr {{$argc > 1 ? [lindex $argv 1] : 5.0}}]
set folder [file dirname [file normalize [info script]]]

read_verilog [file join $folder {name}.v]
synth_design -top {name} -part $part -mode out_of_context
create_clock -name clk -period $period_ns [get_ports clk]
opt_design
place_design
route_design
report_utilization -hierarchical -file {name}_utilization.txt
report_timing_summary -file {name}_timing.txt
write_checkpoint -force {name}_routed.dcp
"""
