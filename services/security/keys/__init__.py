"""Data keys: made, kept wrapped under the master key, rotated, and told what they are still for."""
