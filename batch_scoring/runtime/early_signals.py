"""Signals blocked from the first line of a command until `signals.watch` handles them: imports take time."""

# the C module: `signal` builds enumerations, which takes as long as starting Python
import _signal  # type: ignore[import-not-found]


def hold_signals() -> None:
    """Block SIGINT, SIGTERM and SIGHUP: during imports they would end the process with a traceback, or silently."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP))
