"""Deployment of trained models: bundles, their checks, a service and a watched folder."""
