"""Testbenches, whole-frame co-simulation and formal properties of the Verilog."""
