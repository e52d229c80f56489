"""The tabs of the demo, one module each."""
