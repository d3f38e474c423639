"""Segments: which packets may pass between the host's guests, kept in the kernel by nftables."""
