"""Inference with exported and trained models."""
