"""The kit of a plugin's author: writes a package with a model that trains, a test of the contract, and a page."""
