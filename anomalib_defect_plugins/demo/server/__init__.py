"""Guards and clean-up of the demo's web server."""
