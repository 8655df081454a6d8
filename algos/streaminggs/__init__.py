"""StreamingGS's algorithm: a scene in voxels, and frames streamed from it, voxel after voxel."""
