"""A pipeline.yaml as YAML, without the one thing that YAML readers pass over: a key that stands twice.

What its fields mean is `spec.py`'s business, and what they refer to `faults.py`'s.
"""

from collections.abc import Iterator
from typing import Any

import yaml


def parse(text: str) -> tuple[Any, list[str]]:
    """The content of a YAML document, and a line for each key that stands twice in a mapping.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data(), loader.repeated
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Looks at the keys as they stand in the file: a merge (`<<`) may still give a key that the mapping replaces."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[str] = []
        self._path: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401  (PyYAML's own)
        name = str(index.value if isinstance(index, yaml.Node) else index)
        self._path.append(name)
        try:
            return super().compose_node(parent, index)
        finally:
            self._path.pop()

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401
        node = super().compose_mapping_node(anchor)
        self.repeated += self._repeated_in(node)
        return node

    def _repeated_in(self, mapping: yaml.MappingNode) -> Iterator[str]:
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in mapping.value:
            before = first.setdefault((key.tag, str(key.value)), key)
            if before is not key:
                name = ".".join([*self._path[1:], str(key.value)])
                lines = f"line {before.start_mark.line + 1} and line {key.start_mark.line + 1}"
                yield f"{name}: stands twice, in {lines}; YAML would drop the first: expected once, with all of both"
