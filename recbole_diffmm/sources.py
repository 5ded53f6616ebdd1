"""Where settings come from: YAML files, the command line, folders of properties. Imports neither torch nor RecBole."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from recbole_diffmm.errors import UserError


class Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that 1e-4 is a number and that a key given twice is a mistake."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse a key that stands twice: YAML forbids it, PyYAML takes the last."""
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        keys = [key for key, _ in pairs if key.tag != "tag:yaml.org,2002:merge"]
        for i, key in enumerate(keys):
            if any(key.value == other.value and key.tag == other.tag for other in keys[:i]):
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load_yaml(text: str) -> Any:
    """Return what a YAML text holds: plain values only.

    Raises:
        yaml.YAMLError: It is no YAML, says of a value that it is what it cannot be, or holds itself.
    """
    try:
        content = yaml.load(text, Loader=Loader)  # a SafeLoader
        _require_finite(content, set(), set())
    except yaml.YAMLError:
        raise
    except RecursionError:
        raise yaml.YAMLError("is nested too deeply") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # PyYAML builds a date of a month 13, or an integer of 5,000 digits, without looking first.
        raise yaml.YAMLError(" ".join(str(error).split()) or type(error).__name__) from None
    return content


def _require_finite(content: Any, above: set[int], done: set[int]) -> None:
    """Refuse a list or mapping that an alias puts into itself; what many aliases share is looked at once."""
    if not isinstance(content, (dict, list)) or id(content) in done:
        return
    if id(content) in above:
        raise yaml.YAMLError("a list or mapping holds itself")
    above.add(id(content))
    for value in content.values() if isinstance(content, dict) else content:
        _require_finite(value, above, done)
    above.remove(id(content))
    done.add(id(content))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML file of keys and values.

    Raises:
        UserError: the file is missing, is no YAML, or holds something other than keys and values.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "cannot be read").lower() if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"config file {path}: {reason}; give the path of a readable YAML file") from None
    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or (str(error) if not mark else "") or "cannot be read"
        raise UserError(f"config file {path}{line}: not valid YAML ({problem})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"config file {path}: expected lines of 'key: value', got {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Turn `--key=value` arguments into typed values, read as YAML: 1e-4 is a float, [1, 2] a list, true a bool.

    Raises:
        UserError: an argument has another form, is no YAML, or gives a key twice with different values.
    """
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals or not key:
            raise UserError(f"cannot read argument {argument!r}; write --key=value")
        try:
            value = load_yaml(text)
        except yaml.YAMLError:
            raise UserError(
                f"cannot read the value of --{key}={text} as YAML; quote it as in a file, once more for the shell: "
                f"--{key}='\"{text}\"'"
            ) from None
        if key in values and values[key] != value:
            raise UserError(f"--{key} is given twice, as {values[key]!r} and {value!r}; give it once")
        values[key] = value
    return values


def properties_dir() -> Path:
    """The folder of this package's `properties`: at the top of a clone, inside an installed package.

    Raises:
        UserError: neither is there, so the installation is broken.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "properties", package.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise UserError("properties/overall.yaml is missing from the installation; reinstall recbole-diffmm")


def property_folders() -> list[Path]:
    """Folders searched for properties, weakest first: the package's, then `properties/` of the current folder."""
    folders = [properties_dir(), Path.cwd() / "properties"]
    return folders if folders[1].is_dir() and not folders[0].samefile(folders[1]) else folders[:1]


def shown(path: Path) -> str:
    """`path` relative to the current folder or the package's, where it lies in one."""
    for base in (Path.cwd(), properties_dir().parent):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)
