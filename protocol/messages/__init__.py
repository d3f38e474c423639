"""The records that processes exchange, one file per subject."""
