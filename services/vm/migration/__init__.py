"""Live migration of guests between two hosts."""
