"""Start ``novacron``, once it is certain that the packages are this project's."""

import sys

from services.node.environment import WrongEnvironmentError, check_packages


def _start() -> None:
    # structlog.dev imports rich where it finds it, to draw tracebacks that we never draw. It would
    # take its time at every boot, and memory in every process.
    sys.modules["rich"] = None  # type: ignore[assignment]  # means: can't be imported
    import structlog  # noqa: F401 - imported for its effect

    del sys.modules["rich"]
    from services.node.main import main

    main()


if __name__ == "__main__":
    try:
        check_packages()
    except WrongEnvironmentError as exc:
        print(f"novacron: {exc}", file=sys.stderr)  # noqa: T201 - there is no log yet
        sys.exit(exc.exit_code)
    _start()
