"""Linux processes: forking, reaping, ending whole trees, and what a child's process is set to."""
