"""The decisions of a supervisor: pure state machines without clock, process or socket."""
