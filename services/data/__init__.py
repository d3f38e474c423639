"""The data level: PostgreSQL, Redis, and what the platform keeps in them."""
