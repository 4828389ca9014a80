"""Texts of a model from elsewhere: what its tokenizer's own file says about cutting and padding them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.inputs.texts import read_tokenizer
from batch_scoring.inference.manifest import Text

_UNKNOWN = ("[UNK]", "<unk>")
"""Usual tokens for unknown words, where the tokenizer names none."""


def text_of(columns: Sequence[str], tokenizer: bytes | None, given: Mapping[str, Any]) -> Text | None:
    """The text columns of a model, and how their tokens are cut and padded.

    Args:
        columns: of the spec.
        tokenizer: the content of tokenizer.json.
        given: fields of `Text`, which count before what the tokenizer says.

    Raises:
        UnsoundError: columns or the tokenizer are missing, or it is none, or neither says what is needed.
    """
    if not columns:
        if tokenizer is not None:
            raise UnsoundError("a tokenizer is given, but features.text of the spec names no columns")
        return None
    if tokenizer is None:
        raise UnsoundError(f"features.text names {', '.join(columns)}: give --tokenizer tokenizer.json")
    found = {**_said(tokenizer), **given}
    if missing := [name for name in ("longest", "unknown") if name not in found]:
        example = ", ".join(f'"{name}": …' for name in missing)
        raise UnsoundError(f"the tokenizer does not say {' or '.join(missing)}: --text '{{{example}}}'")
    try:
        return Text(columns=tuple(columns), **found)
    except ValidationError as error:
        reasons = "; ".join(f"{each['loc'][-1] if each['loc'] else 'text'}: {each['msg']}" for each in error.errors())
        raise UnsoundError(f"--text: {reasons}") from error


def _said(tokenizer: bytes) -> dict[str, int]:
    """The fields of `Text` that a tokenizer.json has."""
    reader = read_tokenizer(tokenizer, 1)
    content = json.loads(tokenizer)
    names = (content["model"].get("unk_token"), *_UNKNOWN)
    ids = [reader.token_to_id(name) for name in names if isinstance(name, str)]
    found = {
        "longest": (content.get("truncation") or {}).get("max_length"),
        "padding": (content.get("padding") or {}).get("pad_id"),
        "unknown": content["model"].get("unk_id", next((number for number in ids if number is not None), None)),
    }
    return {name: value for name, value in found.items() if value is not None}
