"""The virtual machine level: libvirt's domains, their states and their events."""
