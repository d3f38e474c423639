"""The test kit that ships with the package.

For services: context, a memory twin of what a service runs in. For trees: driver, a supervisor on
virtual time, made of clock, spawner and transcript. For real processes: pytest_plugin, which fails
a test that leaves one behind. For the supervisor itself: simulation, random trees under random
faults; world, generate, invariants, model and orders are its parts.
"""
