"""Exported and trained models applied to images."""
