"""Components that several tabs share."""
