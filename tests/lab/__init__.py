"""Hosts of their own on one machine, joined by links that can be made bad; see docs/lab.md."""
