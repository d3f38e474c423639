"""Backups of the database: one file of pg_dump's beside a manifest, and back again.

    <file>       pg_dump's custom format, of one consistent snapshot
    <file>.json  the manifest: what it is, its SHA-256, and how many rows each table has

A backup is there as a whole or not at all, and never overwrites anything. A restore changes the
database in one step at its very end, and keeps the one that was there before.
"""
