"""Bringing a node up: the phases, and the checks before the first of them."""
