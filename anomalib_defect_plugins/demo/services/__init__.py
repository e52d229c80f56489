"""The work behind the tabs, independent of their components."""
