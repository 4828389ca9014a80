"""Which environment variables are secrets, by name and by value: none of them belongs into a spec.

A spec's values stand in Dagster's UI, in its database and in messages.
"""

import re

_WORD = re.compile(
    r"(^|_)(ALERT|AUTH|CREDENTIALS?|DSN|PASS|PASSPHRASE|PASSWD|PASSWORDS?|PRIVATE|SECRETS?|SIGNATURE|TOKENS?|WEBHOOK)(_|$)"
    r"|(^|_|API|ACCESS|SECRET)KEYS?(_ID)?$|(_PWD|CONNECTION_STRING|DATABASE_URL)$"
)
_NO_SECRETS = frozenset({"ID_KEY", "INPUT_KEY", "LABEL_KEY", "PARTITION_KEY", "PRIMARY_KEY", "ROW_KEY", "TAINT_KEY"})
"""Names, and endings of names, of keys that open nothing."""
_WITH_PASSWORD = re.compile(r"\w://[^/\s@]*:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY")


def is_secret_name(name: str) -> bool:
    """Whether a variable of that name holds a secret, as names go: ALERT_URLS, AWS_SECRET_ACCESS_KEY, DB_PASSWORD."""
    upper = name.upper()
    if any(upper == key or upper.endswith(f"_{key}") for key in _NO_SECRETS):
        return False
    return bool(_WORD.search(upper))


def is_secret_value(value: str) -> bool:
    """Whether a value holds a password, as an address with a user's, or a private key."""
    return bool(_WITH_PASSWORD.search(value))
