"""Networks of the host by a document: bridges, VLANs, VXLAN segments, addresses and subnets."""
