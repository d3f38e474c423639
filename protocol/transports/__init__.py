"""Bytes to sockets: ZeroMQ with CURVE keys, and an in-memory twin for tests."""
