"""Guests that show what they lose: ticks, packets, writes, pages."""
