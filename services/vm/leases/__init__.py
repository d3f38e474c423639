"""Who may run a machine and write its disks: leases in PostgreSQL with epochs that only grow."""
