"""Settings as commented YAML: every field with its description and default."""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from cluster import place
from cluster.config import Settings


def as_yaml(settings: Settings) -> str:
    """A file that `config.load` reads back to the same settings."""
    return "\n".join(_section(settings, 0)) + "\n"


def as_values(settings: Settings) -> dict[str, Any]:
    """Plain values for JSON and for files that a job reads."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    return values


def write(settings: Settings, path: Path) -> None:
    """A settings file for a job, readable by its owner only: a database URL may hold a password."""
    place.write_private(path, yaml.safe_dump(as_values(settings)))


def _section(model: BaseModel, depth: int) -> list[str]:
    indent, lines = "  " * depth, []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            text = (type(value).__doc__ or "").strip().partition("\n")[0]
            own_doc = type(value).__doc__ != BaseModel.__doc__ and text
            lines += ["" if depth == 0 else None, f"{indent}# {text}" if own_doc else None, f"{indent}{name}:"]
            lines += _section(value, depth + 1)
            continue
        if field.description:
            lines.append(f"{indent}# {field.description}")
        if isinstance(value, dict) and value and all(isinstance(one, BaseModel) for one in value.values()):
            lines.append(f"{indent}{name}:")
            for key, one in value.items():
                lines += [f"{indent}  {_scalar(key)}:", *_section(one, depth + 2)]
        else:
            lines.append(f"{indent}{name}: {_scalar(model.model_dump(mode='json', include={name})[name])}")
    return [line for line in lines if line is not None]


def _scalar(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("...\n").strip()
