"""Cycle, traffic, energy and area models. Never imports hw."""
