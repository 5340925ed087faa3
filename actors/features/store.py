"""A tree of frozen dataclasses <-> named arrays and JSON facts, exactly and without pickle.

Arrays and tuples of strings go to `arrays` (strings as UTF-8 bytes with their ends), numbers, texts and
booleans to `facts`. Names are paths: `context.basis.center_C`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from cluster.errors import ModelError

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")


def pack(thing: Any, prefix: str = "") -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the facts of a dataclass whose fields are arrays, scalars, strings, tuples or dataclasses."""
    arrays: Arrays = {}
    facts: dict[str, Any] = {}
    for field in dataclasses.fields(thing):
        if not field.init:
            continue
        _put(prefix + field.name, getattr(thing, field.name), arrays, facts)
    return arrays, facts


def _put(name: str, value: Any, arrays: Arrays, facts: dict[str, Any]) -> None:
    if isinstance(value, np.ndarray):
        arrays[name] = np.ascontiguousarray(value)
    elif isinstance(value, tuple) and all(isinstance(part, str) for part in value):
        arrays |= _strings(name, value)
    elif isinstance(value, tuple):
        facts[f"{name}#"] = len(value)
        for i, part in enumerate(value):
            _put(f"{name}.{i}", part, arrays, facts)
    elif dataclasses.is_dataclass(value):
        facts[f"{name}#"] = type(value).__name__
        below = pack(value, f"{name}.")
        arrays |= below[0]
        facts |= below[1]
    else:
        facts[name] = value


def _strings(name: str, values: tuple[str, ...]) -> Arrays:
    texts = [value.encode("utf-8", "surrogatepass") for value in values]
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return {f"{name}.ends": ends, f"{name}.utf8": np.frombuffer(b"".join(texts), np.uint8).copy()}


def unpack(cls: type[T], arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], prefix: str = "") -> T:
    """The inverse of `pack`. A field that is missing whole, as from before there was such a field, has its default.

    Raises:
        ModelError: an array or a fact of `cls` is missing.
    """
    try:
        hints = get_type_hints(cls)
        fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
        later = {name for name, f in fields.items() if f.default is not dataclasses.MISSING}
        saved = [name for name in fields if name not in later or _saved(prefix + name, arrays, facts)]
        return cls(**{name: _get(hints[name], prefix + name, arrays, facts) for name in saved})
    except KeyError as error:
        raise ModelError(
            f"feature map: {error.args[0]!r} is missing from the saved version; publish the version again"
        ) from error


def _saved(name: str, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> bool:
    """Whether anything of a field is there."""
    return any(key == name or key.startswith((f"{name}.", f"{name}#")) for key in (*arrays, *facts))


def _get(hint: Any, name: str, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> Any:
    if name in arrays:
        return arrays[name]
    if f"{name}.ends" in arrays:
        text, start, values = arrays[f"{name}.utf8"].tobytes(), 0, []
        for end in arrays[f"{name}.ends"].tolist():
            values.append(text[start:end].decode("utf-8", "surrogatepass"))
            start = end
        return tuple(values)
    classes = [c for c in (hint, *get_args(hint)) if isinstance(c, type) and dataclasses.is_dataclass(c)]
    count = facts.get(f"{name}#")
    if count is None:
        return facts[name]
    if get_origin(hint) is tuple:
        return tuple(unpack(classes[0], arrays, facts, f"{name}.{i}.") for i in range(count))
    return unpack(next(c for c in classes if c.__name__ == count), arrays, facts, f"{name}.")


def fingerprint(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> str:
    """SHA-256 over names, types, shapes and bytes of all arrays, and the facts as canonical JSON."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
