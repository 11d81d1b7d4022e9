"""By which proxy an address is reached: none on loopback, elsewhere what the environment says."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from lcbatch.errors import ConfigError

_VARIABLES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_BY_HTTP = frozenset({"http", "https"})


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or number."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def around_proxies(host: str) -> dict[str, None]:
    """What keeps an HTTP client of httpx's make from asking a proxy for this host, for its `mounts`, where it is loopback.

    A proxy's localhost is another machine, and a key that is sent in the clear here would travel in the clear to there.
    """
    if not is_loopback(host):
        return {}
    return {f"all://[{host}]" if ":" in host else f"all://{host}": None}


def with_scheme(proxy: str) -> str:
    """A proxy's URL; `host:port` alone is http, as curl reads it."""
    return proxy if "://" in proxy else f"http://{proxy}"


def proxy_variable(scheme: str, host: str, env: Mapping[str, str]) -> str | None:
    """The variable that names a proxy for such an address, as httpx looks for it. None where there is none."""
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined] # noqa: PLC0415 - 20 ms, for few

    found = {name.lower(): name for name in sorted(env) if name.lower().endswith("_proxy") and env[name]}
    exempt = {"no": env[found["no_proxy"]]} if "no_proxy" in found else {}
    if proxy_bypass_environment(host, exempt):
        return None
    return found.get(f"{scheme}_proxy") or found.get("all_proxy")


def refuse_malformed(env: Mapping[str, str]) -> None:
    """Raise ConfigError for a variable that names a proxy and is no URL: each row would fail for it. It may hold a password."""
    for name, value in env.items():
        if name.lower() not in _VARIABLES or not value:
            continue
        try:
            parts = urlsplit(with_scheme(value.strip()))
            usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            usable = False
        if not usable or (name.lower() != "all_proxy" and parts.scheme not in _BY_HTTP):
            raise ConfigError(
                f"{name} in the environment is no http(s) URL",
                hint="write it like http://proxy.example:3128, or unset it",
            )
