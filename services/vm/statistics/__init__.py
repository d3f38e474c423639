"""What running machines use: readings of libvirt's counters, rates, and the call for them."""
