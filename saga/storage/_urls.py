"""URLs as they may be shown."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

_SECRET = frozenset({"password", "sslpassword", "passfile", "ssl_password"})
_HIDDEN = "***"


def masked(url: object) -> str:
    """Return a URL with its passwords replaced; of what is no URL, the type and nothing of its text."""
    if not isinstance(url, str):
        return f"<{type(url).__name__}>"
    scheme, separator, rest = url.partition("://")
    if not separator:
        return f"{url.partition(':')[0]}:{_HIDDEN}" if "@" in url else url
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{scheme}://{_HIDDEN}"
    # What stands before the last @ may be a password, whatever characters it has.
    credentials, at, place = rest.rpartition("@")
    if ":" in credentials:
        credentials = f"{credentials.partition(':')[0]}:{_HIDDEN}"
    place, question, _ = place.partition("?")
    shown = urlencode(
        [(name, _HIDDEN if name in _SECRET else value) for name, value in parse_qsl(parts.query)], safe="*/:"
    )
    return f"{scheme}://{credentials}{at}{place}{question}{shown}"
