"""Start ``novacronctl``."""

from services.ctl.main import main

if __name__ == "__main__":
    main()
