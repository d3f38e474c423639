"""What all tests share: one plugin per real server."""

pytest_plugins = ["tests.fixtures.fix_postgres", "tests.fixtures.fix_redis"]
