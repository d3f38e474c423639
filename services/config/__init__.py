"""Configuration: files, variables and flags in, one validated record with origins out."""
