"""Request filter and session clean-up of the demo's web server."""
