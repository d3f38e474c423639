"""What processes say to each other: records, envelopes, names, keys and transports."""
