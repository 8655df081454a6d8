"""Parts that the components share: fixed-point arithmetic, AXI, memories."""
