"""Untrusted text in HTML pages: escaping, data inside scripts, and a content security policy.

A customer's cell, a column's or a file's name may hold markup. Nothing here draws; the pages' own modules do, with
these functions.
"""

import base64
import hashlib
from collections.abc import Iterable
from html import escape

from batch_scoring.runtime.printable import printable

_IN_SCRIPTS = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def escaped(text: str) -> str:
    """Text escaped for HTML, and for plotly, which reads HTML: no markup, no bidirectional controls."""
    return escape(printable(text))


def script_json(document: str) -> str:
    """A JSON document escaped for a script element: the same values, and nothing that ends the element.

    The characters occur in a JSON document's strings alone, where an escape means the same.
    """
    return document.translate(_IN_SCRIPTS)


def policy(scripts: Iterable[str]) -> str:
    """A content security policy by which a page runs these inline scripts, shows what is in its file, and no more.

    Inline event handlers, `javascript:` links, `eval` and every connection are refused. Styles may be inline: plotly
    and Evidently write theirs while they draw.
    """
    hashes = " ".join(sorted(f"'sha256-{_hash(script)}'" for script in scripts)) or "'none'"
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def policy_element(scripts: Iterable[str]) -> str:
    """The policy in the page itself: a file is opened from a disk and from S3 too. Stands before every script."""
    return f'<meta http-equiv="Content-Security-Policy" content="{policy(scripts)}">'


def _hash(script: str) -> str:
    """The hash as a browser computes it: every line break counts as a line feed."""
    read = script.replace("\r\n", "\n").replace("\r", "\n")
    return base64.b64encode(hashlib.sha256(read.encode()).digest()).decode()
