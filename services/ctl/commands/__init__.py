"""The commands of novacronctl, one per file; each is imported only when it is run."""
