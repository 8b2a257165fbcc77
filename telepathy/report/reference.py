"""The reference of all settings, written from the schemas that check them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from telepathy.config import schema
from telepathy.files import read_yaml

INTRODUCTION = """# Configuration

Every key of `config.yaml` and of a task's YAML, written by `make docs` from the schemas that check them
(`telepathy/config.schema.yaml`, `telepathy/tasks/task.schema.yaml`): what is not listed here is refused. A study's
`settings` change a method's settings by its kind or by its name, for the whole study or for one task; later layers win:
defaults, the study's and the task's settings by kind, `methods` (with `inherit`), the study's and the task's by name.
"""

TITLES = {"model": "A model: `models.<name>`", "study": "A study: `studies.<name>`"}
"""Headings of what the schema defines once; anything else is a key of a study."""

NAMING = ("kind", "title", "group")
"""Keys that are listed first."""

Schema = Mapping[str, Any]


def reference() -> str:
    """Render the reference as Markdown."""
    config, task = schema(), read_yaml(Path(__file__).parents[1] / "tasks" / "task.schema.yaml")
    parts = [INTRODUCTION, _section("`config.yaml`", config)]
    shared = {name: entry for name, entry in config["$defs"].items() if entry.get("type") == "object"}
    parts += [_section(TITLES.get(name, f"`{name}` of a study"), entry) for name, entry in shared.items()]
    for kind, entry in config["$defs"]["method"].items():
        parts.append(_section(f"A method of `kind: {kind}`", entry))
    parts.append(_section("A task's YAML", task))
    return "\n".join(parts)


def _section(title: str, entry: Schema) -> str:
    head = ["", f"## {title}", ""]
    if "description" in entry:
        head += [_sentence(entry["description"]), ""]
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows, *(f"| {' | '.join(row)} |" for row in _rows(entry))]) + "\n"


def _rows(entry: Schema, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    required, keys = set(entry.get("required", ())), entry.get("properties", {})
    for name in sorted(keys, key=lambda name: name not in NAMING):
        value = keys[name]
        if "const" in value:
            continue
        needed = "**required**" if name in required else ""
        default = f"`{_plain(value['default'])}`" if "default" in value else needed
        yield f"`{prefix}{name}`", _type(value), default, _sentence(value.get("description", ""))
        yield from _rows(value, f"{prefix}{name}.")
        for inner in _inner(value):
            yield from _rows(inner, f"{prefix}{name}{'[]' if value.get('type') == 'array' else '.<name>'}.")


def _inner(value: Schema) -> list[Schema]:
    """What lists and free mappings hold, where it has keys of its own."""
    held = [value[key] for key in ("items", "additionalProperties") if isinstance(value.get(key), dict)]
    choices = [choice for entry in held for choice in entry.get("oneOf", [entry])]
    return [choice for choice in choices if "properties" in choice]


def _type(value: Schema) -> str:
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return " or ".join(f"`{_plain(choice)}`" for choice in value["enum"])
    if "type" not in value and "oneOf" in value:
        return " or ".join(_type(choice) for choice in value["oneOf"])
    if "$ref" in value:
        return "see below"
    kind = value.get("type", "any")
    if kind == "array" and "items" in value:
        return f"list of {_type(value['items'])}"
    named = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return named + _bounds(value)


def _bounds(value: Schema) -> str:
    words = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
    said = [f"{word} {value[key]:g}" for key, word in words.items() if key in value]
    return f", {', '.join(said)}" if said else ""


def _plain(value: Any) -> str:
    """A value as YAML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sentence(text: str) -> str:
    """A description as a cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
