"""Interpreter of pickles that describes tensors, keeps plain values, and can do nothing else.

Python's own unpicklers import what a pickle names and call it, and a few bytes of a pickle make them allocate all
memory. Here a name stays a name: what is not a tensor, a number, a text or a container of these becomes an
`OpaqueObject`. The work is limited: of the instructions, and of what a single one of them may copy, hash or compare.
"""

import pickletools
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, cast

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.checkpoints.constructors import CONSTRUCTORS, LONGEST_NAME, Global, pairs
from batch_scoring.inference.checkpoints.stored import OpaqueObject

if TYPE_CHECKING:
    pass

MOST_STEPS = 5_000_000
"""Of a pickle, a copied item being one. That of ten thousand tensors with their optimiser takes a million."""

MOST_BYTES = 2**28
"""Of a pickle, without the weights: a file may be larger than memory, or say so."""

RUNNING = {
    *("os", "posix", "nt", "subprocess", "pty", "runpy", "importlib", "ctypes", "commands"),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("eval", "exec", "compile", "open")),
    *(f"{module}.__import__" for module in ("builtins", "__builtin__")),
}
"""What no honest checkpoint names. It would not run here either, but the file should not be used anywhere."""


class _Limited:
    """A stream of which at most `MOST_BYTES` are read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, MOST_BYTES

    def read(self, size: int) -> bytes:
        """Read bytes; fewer at the end of the stream."""
        self._spend(size)
        return self._stream.read(size)

    def readline(self) -> bytes:
        """Read up to a line break."""
        line = self._stream.readline(self._left + 1)
        self._spend(len(line))
        return line

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise UnsoundError(f"a pickle is longer than {MOST_BYTES:,} bytes")


class InertUnpickler:
    """Reads one pickle after another from a stream."""

    def __init__(self, stream: IO[bytes], persistent: Callable[[tuple[Any, ...]], object]) -> None:
        """Take a stream.

        Args:
            stream: binary, at the first pickle.
            persistent: returns what a persistent id stands for, usually a storage.
        """
        self._stream = _Limited(stream)
        self._persistent = persistent
        self._foreign: dict[str, None] = {}

    @property
    def foreign(self) -> tuple[str, ...]:
        """The names of all objects that were not made, in their order."""
        return tuple(self._foreign)

    def load(self) -> object:
        """Read the next pickle; the stream is then at the byte after it.

        Raises:
            UnsoundError: it is malformed, or loading it elsewhere would run code.
        """
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._steps = 0
        for instruction, argument, _ in pickletools.genops(cast("IO[bytes]", self._stream)):
            self._count(1)
            self._execute(instruction.name, argument)
        return self._pop()

    def _execute(self, name: str, argument: Any) -> None:  # noqa: ANN401  (whatever genops decodes)
        push = self._stack.append
        match name:
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "UNICODE" | "STRING" | "BINSTRING":
                push(argument)
            case "SHORT_BINSTRING" | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
                push(argument)
            case "BININT" | "BININT1" | "BININT2" | "INT" | "LONG" | "LONG1" | "LONG4" | "FLOAT" | "BINFLOAT":
                push(argument)
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self._memo[argument] = self._stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                push(self._memo[argument])
            case "MARK":
                self._marked.append(self._stack)
                self._stack = []
            case "TUPLE":
                self._push(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._push(tuple(reversed([self._pop() for _ in range(int(name[-1]))])))
            case "EMPTY_TUPLE":
                push(())
            case "NONE":
                push(None)
            case "NEWTRUE" | "NEWFALSE":
                push(name == "NEWTRUE")
            case "BINPERSID":
                self._persisted(self._pop())
            case "GLOBAL":
                self._name(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                attribute, module = self._pop(), self._pop()
                self._name(module, attribute)
            case "REDUCE" | "NEWOBJ":
                arguments, function = self._pop(), self._pop()
                self._call(function, arguments)
            case "NEWOBJ_EX":
                _, arguments, function = self._pop(), self._pop(), self._pop()
                self._call(function, arguments)
            case "OBJ":
                function, *others = self._since_mark()
                self._call(function, tuple(others))
            case "INST":
                arguments = tuple(self._since_mark())
                self._name(*argument.split(" ", 1))
                self._call(self._pop(), arguments)
            case "BUILD":
                self._build(self._pop())
            case "EMPTY_DICT":
                push({})
            case "DICT":
                items = self._since_mark()
                self._push({})
                self._set(items)
            case "SETITEM":
                value, key = self._pop(), self._pop()
                self._set([key, value])
            case "SETITEMS":
                self._set(self._since_mark())
            case "EMPTY_LIST":
                push([])
            case "LIST":
                self._push(self._since_mark())
            case "APPEND":
                self._extend([self._pop()])
            case "APPENDS":
                self._extend(self._since_mark())
            case "EMPTY_SET":
                push(OpaqueObject("builtins.set"))
            case "FROZENSET":
                self._since_mark()
                self._push(OpaqueObject("builtins.frozenset"))
            case "ADDITEMS" | "POP_MARK":
                self._since_mark()
            case "POP":
                self._pop()
            case "DUP":
                push(self._stack[-1])
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise UnsoundError(f"a pickle has the instruction {name}, which torch.save never writes")

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise UnsoundError(f"a pickle takes more than {MOST_STEPS:,} steps")

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:  # noqa: ANN401
        return self._stack.pop()

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        """Append to a list; what a list of another class holds is left out."""
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        """Set items of a dict; those whose keys are neither numbers nor texts are left out."""
        if isinstance(target := self._stack[-1], dict):
            target.update(pairs(zip(items[::2], items[1::2], strict=True)))

    def _name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnsoundError("a pickle imports what is not a name")
        if len(module) + len(name) > LONGEST_NAME:
            raise UnsoundError(f"a pickle imports a name of {len(module) + len(name)} characters")
        if module.partition(".")[0] in RUNNING or f"{module}.{name}" in RUNNING:
            raise UnsoundError(
                f"wants to import {module}.{name}: loading it could run code, so it was not loaded; expected tensors, "
                "numbers and strings only, saved as a state dict and not as a whole module"
            )
        self._push(Global(module, name))

    def _call(self, function: object, arguments: object) -> None:
        """Push the description of a tensor, or an object that stands for the result."""
        make = CONSTRUCTORS.get(str(function)) if isinstance(function, Global) else None
        if make and isinstance(arguments, tuple):
            self._count(sum(_length(part) for part in (arguments, *arguments)))
            self._push(make(*arguments))
        else:
            self._push(self._opaque(function))

    def _opaque(self, function: object) -> OpaqueObject:
        name = str(function) if isinstance(function, Global) else "an object"
        self._foreign.setdefault(name)
        return OpaqueObject(name)

    def _build(self, state: object) -> None:
        """Keep an object's attributes as items."""
        if isinstance(target := self._stack[-1], OpaqueObject):
            for part in state[:2] if isinstance(state, tuple) else (state,):
                self._count(_length(part))
                target.update(pairs(part.items()) if isinstance(part, dict) else {})

    def _persisted(self, identity: object) -> None:
        if not isinstance(identity, tuple):
            raise UnsoundError("a pickle refers to what is not in the file")
        self._push(self._persistent(identity))


def _length(value: object) -> int:
    return len(value) if isinstance(value, list | tuple | dict) else 1
