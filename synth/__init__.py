"""Our RTL through Yosys and nextpnr: area, gates, critical paths, LUTs, routed Fmax."""
