"""The test kit that ships with the package: memory twins, a manual clock, fixtures."""
