"""Gaussian scenes, cameras and trajectories: readers, writers and generators."""
