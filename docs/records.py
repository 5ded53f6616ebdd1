"""Writes docs/records.md from the schema of records.

python docs/records.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from recbole_diffmm.record import SCHEMA_VERSION, Record

HEADER = f"""# Records

A run leaves one JSON file, `<Model>-<dataset>-s<seed>-<hash>.json`, written whole when the run has ended, and edited by
nobody. Every table and page is made from these files. The name's hash is that of the resolved configuration, so that
the same configuration always has the same name; what moves no number, or none beyond rounding (folders, logging, GPU
number, cuda_graphs), is not in it.

Schema version {SCHEMA_VERSION}. A file is validated when it is written and when it is read; one of another version, or
one that was edited since, is refused: `checksum` is that of its content, `per_user.hash` that of the file beside it. A
second run of the same configuration moves the first one's record to `earlier/`. Made by `python docs/records.py` from
`recbole_diffmm/record.py`.

`recbole-diffmm leaderboard` calls a record *stale* when `code.hash` is no longer that of the code at hand, or a file
of `data.files` that is at hand has another hash. The code's hash covers what a run of that model imports of this
package, without comments and docstrings, and RecBole's version: another model's file does not change it, nor does
what makes a bundled dataset, whose files are named by their content.
"""


def text() -> str:
    """Return the document."""
    parts = [HEADER]
    for model in _parts(Record):
        title = "the record" if model is Record else f"`{model.__name__}`"
        lines = [f"## {title[0].upper()}{title[1:]}", "", " ".join((model.__doc__ or "").split()), ""]
        lines += ["| key | type | meaning |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            inner = next(iter(_models(field.annotation)), None)
            meaning = field.description or (" ".join((inner.__doc__ or "").split()) if inner else "")
            lines.append(f"| `{name}` | {_type(field.annotation)} | {meaning.replace('|', chr(92) + '|')} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _parts(model: type[BaseModel]) -> list[type[BaseModel]]:
    found = [model]
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            found += [part for part in _parts(inner) if part not in found]
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _type(annotation: Any) -> str:
    models = _models(annotation)
    name = str(getattr(annotation, "__name__", annotation) if not get_args(annotation) else annotation)
    for model in models:
        name = name.replace(f"{model.__module__}.{model.__name__}", model.__name__)
    name = name.replace("typing.", "").replace("NoneType", "null").replace("None", "null").replace("Literal", "one of ")
    # Of an annotated type only the type is for readers: what it may be stands in the meaning.
    name = re.sub(r"Annotated\[(\w+), FieldInfo\(.*?\)\](?=[,\]]|$)", r"\1", name)
    return name.replace("|", "or")


if __name__ == "__main__":
    Path(__file__).with_name("records.md").write_text(text(), encoding="utf-8")
