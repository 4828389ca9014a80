"""The command `batch-scoring` as a process: what it can do is in `subcommands.py`, which takes a second to import."""

import shlex
import sys

from batch_scoring import signals


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; its exit code, see `subcommands.main`.

    Args:
        arguments: those of this process if None, which Ctrl-C and SIGTERM end then at any moment.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if arguments is None:
        signals.watch("batch-scoring")
    with signals.at_end(lambda: f"go on with: {again(given)}" if given[:1] == ["backfill"] else None):
        from batch_scoring import subcommands

        return subcommands.main(given)


def again(arguments: list[str]) -> str:
    """The command line that these arguments make."""
    return shlex.join(["batch-scoring", *arguments])


if __name__ == "__main__":
    sys.exit(main())
