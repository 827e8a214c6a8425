"""URLs as they may be shown: without their passwords, and rather with too little than with too much."""

from __future__ import annotations

import re
from urllib.parse import unquote

_HIDDEN = "***"
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?")
_HOSTS = re.compile(r"(\[[^\]]*\]|[^:,]*)(:\d*)?(,(\[[^\]]*\]|[^:,]*)(:\d*)?)*")
_SECRET = re.compile("pass|pwd|secret|token", re.IGNORECASE)


def masked(url: object) -> str:
    """Return a URL without its password; of what is no URL, nothing where one may stand.

    Args:
        url: Anything that somebody gave as a URL.
    """
    if not isinstance(url, str):
        return f"<{type(url).__name__}>"
    if "://" not in url:
        scheme, colon, rest = url.partition(":")
        # The words of libpq are no URL: host=... password=...
        return _HIDDEN if re.search("[@=]", scheme) else f"{scheme}{colon}{_HIDDEN if rest else ''}"
    found = _URL.fullmatch(url)
    if found is None:
        # A fragment means nothing to a storage: the # belongs to a password that was not escaped.
        return _HIDDEN
    scheme, authority, path, query = found.group("scheme", "authority", "path", "query")
    user, at, hosts = authority.rpartition("@")
    if "@" in path + (query or "") or not _HOSTS.fullmatch(hosts):
        # So does a / or a ? before the @, and what stands where a port should be.
        return f"{scheme}://{_HIDDEN}"
    name, colon, _ = user.partition(":")
    shown = f"{name}{colon}{_HIDDEN if colon else ''}{at}"
    return f"{scheme}://{shown}{hosts}{path}{_masked_query(query)}"


def _masked_query(query: str | None) -> str:
    """Return a query with what follows from the first password on left out: an & may belong to it."""
    if query is None:
        return ""
    shown: list[str] = []
    for parameter in query[1:].split("&"):
        name, equals, _ = parameter.partition("=")
        if _SECRET.search(unquote(name)) or not equals:
            shown.append(f"{name if equals else ''}{equals}{_HIDDEN}")
            break
        shown.append(parameter)
    return "?" + "&".join(shown)
