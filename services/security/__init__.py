"""The security level: keyring, cipher and the signed audit log."""
