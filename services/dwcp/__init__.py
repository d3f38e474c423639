"""The DWCP level: files between nodes over several TCP streams, compressed and verified."""
