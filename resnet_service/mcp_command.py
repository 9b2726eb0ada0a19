"""The command `resnet-mcp`, which exits with one line where the package `mcp` is missing."""

import sys


def main() -> None:
    """Run the command."""
    try:
        from resnet_service.mcp_server import main as run
    except ImportError as error:
        sys.exit(f"resnet-mcp: {error}")
    run()


if __name__ == "__main__":
    main()
