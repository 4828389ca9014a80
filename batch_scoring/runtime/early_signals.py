"""The first that a command does: signals wait until `signals.watch` hears of them, for all imports take time."""

# the standard library's own: `signal` makes enumerations, which takes as long as the start of Python
import _signal  # type: ignore[import-not-found]


def hold_signals() -> None:
    """Let no signal end this process with a traceback, or without a word, while it imports."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP))
