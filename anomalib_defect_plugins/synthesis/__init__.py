"""Data sets of synthetic defects, and reports on how real they look."""
