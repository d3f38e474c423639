"""The child's half: what runs inside a supervised Python process."""
