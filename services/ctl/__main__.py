"""Start ``novacronctl``."""

import gc

# Imports make much that lives as long as the process; looking through it finds no garbage.
gc.set_threshold(100_000)

from services.ctl.main import main  # noqa: E402 - the threshold has to be set before

if __name__ == "__main__":
    main()
