"""How does a description become text, and text a description again: JSON, YAML?

Floor 8: may import errors. PyYAML is imported only when YAML is asked for. Thread rule: pure functions.

YAML is written and read by the rules of YAML 1.2, where JSON is a part of it: PyYAML's are those of 1.1, in which `no`
is false, a date is no text, and 1e3 is.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

from tidelog.errors import DecodeError, NotSupported

__all__ = ["read", "write_json", "write_yaml"]

JSON: TypeAlias = dict[str, Any]

_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+")
# Characters that every reader of YAML takes for themselves in every style; U+2028 and the like end lines for some.
_PLAIN = re.compile(r"[\n\x20-\x7e\xa1-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*")
_WHOLE = r"^[-+]?[0-9]+$"
_FLOAT = r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"


def write_json(document: JSON) -> str:
    """`document` as JSON, indented, with a line end."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_yaml(document: JSON) -> str:
    """`document` as YAML. Raises NotSupported, naming what to install, without PyYAML."""
    yaml = _yaml()

    class Writer(yaml.SafeDumper):  # type: ignore[misc,name-defined]
        def ignore_aliases(self, _: Any) -> bool:
            """Everything is written out where it stands."""
            return True

    def text(writer: Any, value: str) -> Any:
        quoted = _NUMBER.fullmatch(value) or not _PLAIN.fullmatch(value)
        style = '"' if quoted else "|" if "\n" in value else None
        return writer.represent_scalar("tag:yaml.org,2002:str", value, style)

    Writer.add_representer(str, text)
    return str(yaml.dump(document, Dumper=Writer, sort_keys=False, allow_unicode=True, width=120))


def read(text: str) -> JSON:
    """The description that `text` (JSON or YAML) holds.

    Raises DecodeError if it is neither or not an object, NotSupported, naming what to install, for YAML without PyYAML.
    """
    try:
        document = json.loads(text)
    except ValueError:
        document = _read_yaml(text)
    if not isinstance(document, dict):
        raise DecodeError("this is no description: its text is no object with the key asyncapi")
    return document


def _read_yaml(text: str) -> Any:
    yaml = _yaml()

    class Reader(yaml.SafeLoader):  # type: ignore[misc,name-defined]
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # the class's own table is this

    Reader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), [*"~nN", ""])
    Reader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), "tTfF")
    Reader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(_WHOLE), "-+0123456789")
    Reader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT), "-+.0123456789")
    # In YAML 1.1 a leading 0 makes a number octal.
    Reader.add_constructor("tag:yaml.org,2002:int", lambda reader, node: int(reader.construct_scalar(node)))
    try:
        return yaml.load(text, Loader=Reader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DecodeError(f"this is neither JSON nor YAML: {' '.join(str(error).split())}") from error


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise NotSupported(
            "YAML needs the package PyYAML: install it with pip install 'tidelog[docs]', or use JSON"
        ) from error
    return yaml
