"""Start ``novacron``, once it is certain that the packages are this project's."""

from services.node.environment import WrongEnvironmentError, check_packages

if __name__ == "__main__":
    try:
        check_packages()
    except WrongEnvironmentError as exc:
        import sys

        print(f"novacron: {exc}", file=sys.stderr)  # noqa: T201 - there is no log yet
        sys.exit(exc.exit_code)
    from services.node.main import main

    main()
