"""The process of the command `batch-scoring`: signals first, because importing the subcommands takes a second."""

import sys
from collections.abc import Sequence

from batch_scoring.runtime import early_signals


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; its exit code, see `subcommands.run`.

    Args:
        arguments: those of this process if None, which Ctrl-C and SIGTERM then end at any moment.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if arguments is None:
        early_signals.hold_signals()
    from batch_scoring.runtime import signals

    if arguments is None:
        signals.watch("batch-scoring")
    with signals.at_end(lambda: _again(given)):
        from batch_scoring.cli import subcommands

        return subcommands.run(given)


def _again(arguments: Sequence[str]) -> str | None:
    """How to continue a backfill or an export that was interrupted before it began."""
    import shlex

    is_of_days = arguments[:1] in (["backfill"], ["export"])
    return f"continue with: {shlex.join(['batch-scoring', *arguments])}" if is_of_days else None


if __name__ == "__main__":
    sys.exit(main())
