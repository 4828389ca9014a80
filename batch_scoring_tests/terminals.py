"""A command on a terminal of its own."""

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence

from batch_scoring.config.loader import PROJECT


class Terminal:
    """A command on a terminal; Ctrl-C reaches all of its processes, as there."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, ignored: Sequence[int] = ()) -> None:
        """`ignored`: signals that the command ignores from the start."""
        self._master, slave = pty.openpty()

        def prepare() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            for number in ignored:
                signal.signal(number, signal.SIG_IGN)

        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment,
            cwd=PROJECT,
            preexec_fn=prepare,
        )
        os.close(slave)
        self.text = ""

    def read_until(self, holds: Callable[[str], object], seconds: float = 60) -> None:
        """Read what is shown until that holds, or nobody writes any more."""
        until = time.monotonic() + seconds
        while not holds(self.text):
            assert time.monotonic() < until, self.text
            if select.select([self._master], [], [], 0.02)[0]:
                try:
                    read = os.read(self._master, 65536)
                except OSError:  # all of its processes are gone
                    return
                self.text += read.decode(errors="replace")

    def tell(self, number: int) -> None:
        if number == signal.SIGINT:
            os.write(self._master, b"\x03")
        else:
            self.process.send_signal(number)

    def end(self) -> tuple[int, list[str]]:
        """The exit code, and the lines that were shown but for the terminal's own echo."""
        self.read_until(lambda _: False)
        os.close(self._master)
        return self.process.wait(30), [line for line in re.split(r"[\r\n]+", self.text.replace("^C", "")) if line]
