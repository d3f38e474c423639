"""Machines that start with the host: by their priorities, once per boot of the host."""
