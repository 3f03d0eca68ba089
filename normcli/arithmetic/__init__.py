"""Arithmetic: from a plan and arrays to named quantities."""
