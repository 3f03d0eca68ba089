"""Showing: what was found as text, a module for each output format."""
