"""Where does an application find its log, in the words of a description?

Floor 8: may import config. Thread rule: a pure function.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from tidelog.config import Target, parse_url

__all__ = ["servers_of"]

JSON: TypeAlias = dict[str, Any]

_SASL = {"plain": "plain", "scram-sha-256": "scramSha256", "scram-sha-512": "scramSha512"}


def servers_of(url: Any) -> tuple[JSON, JSON]:
    """(servers, security schemes) of a log's URL; without one, the place is said where the application is run."""
    if url is None:
        return {"log": _embedded({"description": "The log that the application is run with."})}, {}
    target = parse_url(url)
    if target.engine == "kafka":
        return _kafka(target)
    if target.engine == "memory":
        return {"log": _embedded({"description": "A log in memory, for one process.", "x-tidelog-url": "memory:"})}, {}
    return {"log": _embedded({"description": "A directory that processes share.", "x-tidelog-url": target.path})}, {}


def _embedded(more: JSON) -> JSON:
    return {"host": "localhost", "protocol": "tidelog", **more}


def _kafka(target: Target) -> tuple[JSON, JSON]:
    sasl = target.options.get("sasl")
    servers: JSON = {}
    for number, host in enumerate(target.servers, 1):
        servers[f"kafka-{number}"] = {"host": host, "protocol": "kafka-secure" if target.tls else "kafka"}
        if sasl:
            servers[f"kafka-{number}"]["security"] = [{"$ref": "#/components/securitySchemes/sasl"}]
    return servers, {"sasl": {"type": _SASL[sasl]}} if sasl else {}
