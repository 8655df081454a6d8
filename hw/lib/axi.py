"""Port lists of the AXI4 and AXI4-Lite buses, flat names as integrators expect them.

Source: Arm IHI 0022 (AMBA AXI protocol specification), AXI4 and AXI4-Lite.
"""

from amaranth.lib.wiring import In, Out

from splatforge.designs.shell import ShellDesign

__all__ = [
    "BURST_INCR", "OKAY", "READ_BANKS", "READ_CHUNKS", "READ_COARSE", "READ_DESCRIPTOR",
    "READ_FEATURES", "READ_FINE", "READ_GAUSSIANS", "READ_LISTS", "READ_SPLATS", "READ_TABLE",
    "READ_VOXELS", "SLVERR", "axi4_lite_members", "axi4_members", "size_code",
]

BURST_INCR = 1
OKAY = 0
SLVERR = 2

#: Read IDs of the manager; data of different IDs may be interleaved by the memory.
READ_DESCRIPTOR = 0
READ_TABLE = 1
READ_SPLATS = 2
#: Of GSCore: camera and Gaussians in the first pass, lists to partition in the second; chunks;
#: feature records in front of the array.
READ_GAUSSIANS = READ_LISTS = 1
READ_CHUNKS = 2
READ_FEATURES = 3
#: Of StreamingGS: camera and table of voxels; coarse halves of voxels; codebooks and indices of
#: Gaussians.
READ_VOXELS = 1
READ_COARSE = 2
READ_FINE = 3
#: Of Lumina: banks of the radiance cache. Table and lists share an ID, features have GSCore's.
READ_BANKS = 2


def size_code(design: ShellDesign) -> int:
    """AxSIZE of a full beat."""
    return design.data_bytes.bit_length() - 1


def axi4_members(design: ShellDesign, prefix: str = "m_axi_") -> dict:
    """Members of an AXI4 manager."""
    address, data = design.address_bits, design.data_bits
    members = {}
    for channel in ("aw", "ar"):
        members |= {
            f"{channel}id": Out(2), f"{channel}addr": Out(address), f"{channel}len": Out(8),
            f"{channel}size": Out(3), f"{channel}burst": Out(2), f"{channel}cache": Out(4),
            f"{channel}prot": Out(3), f"{channel}valid": Out(1), f"{channel}ready": In(1),
        }
    members |= {
        "wdata": Out(data), "wstrb": Out(data // 8), "wlast": Out(1), "wvalid": Out(1),
        "wready": In(1),
        "bid": In(2), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
        "rid": In(2), "rdata": In(data), "rresp": In(2), "rlast": In(1), "rvalid": In(1),
        "rready": Out(1),
    }
    return {prefix + name: member for name, member in members.items()}


def axi4_lite_members(design: ShellDesign, prefix: str = "s_axil_") -> dict:
    """Members of an AXI4-Lite subordinate of 32 data bits."""
    address = design.register_address_bits
    members = {
        "awaddr": In(address), "awprot": In(3), "awvalid": In(1), "awready": Out(1),
        "wdata": In(32), "wstrb": In(4), "wvalid": In(1), "wready": Out(1),
        "bresp": Out(2), "bvalid": Out(1), "bready": In(1),
        "araddr": In(address), "arprot": In(3), "arvalid": In(1), "arready": Out(1),
        "rdata": Out(32), "rresp": Out(2), "rvalid": Out(1), "rready": In(1),
    }
    return {prefix + name: member for name, member in members.items()}
