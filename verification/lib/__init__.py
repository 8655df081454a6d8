"""Stream drivers, the Verilator build and the memory behind a frame."""
