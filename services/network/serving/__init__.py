"""What serves the node's networks: DHCP, DNS, address translation and forwarding."""
