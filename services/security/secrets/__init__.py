"""Secrets from elsewhere: one interface, a module per kind of store, and a sealed cache."""
