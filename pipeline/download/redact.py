"""Takes credentials out of URLs before anything that a person or a file sees.

User names and passwords in front of the host and every value of the query are replaced by ``***``; parameter names, the
host and the path stay. All values go, not only those whose names sound secret: a pre-signed link hides its key under a
name that nobody thought of. What goes over the wire is not touched.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"
#: The loggers of the HTTP library that quote URLs, at various levels; a filter on their parent would not see their records.
_TALKATIVE = ("urllib3.connection", "urllib3.connectionpool", "urllib3.response", "urllib3.util.retry")


def redact(url: str) -> str:
    """Return the URL without credentials, query values and fragment; a text that is no URL becomes ``***``."""
    try:
        split = urlsplit(url)
    except ValueError:
        return HIDDEN
    userinfo, at, host = split.netloc.rpartition("@")
    netloc = f"{HIDDEN}@{host}" if at and userinfo else host
    query = "&".join(_redact_parameter(parameter) for parameter in split.query.split("&")) if split.query else ""
    return urlunsplit((split.scheme, netloc, split.path, query, ""))


def redact_text(text: str, *urls: str) -> str:
    """Return a library's message with every secret of these URLs replaced, wherever it stands.

    Args:
        text: a message that may quote a URL or a piece of one.
        urls: the URLs that were asked for, with their secrets.
    """
    for url in urls:
        text = text.replace(url, redact(url))
        try:
            split = urlsplit(url)
        except ValueError:
            continue
        secrets = [split.query, split.username or "", split.password or "", split.netloc.rpartition("@")[0]]
        secrets += [parameter.partition("=")[2] for parameter in split.query.split("&")]
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
    return text


class RedactedLogs(logging.Filter):
    """Takes the secrets of the URLs in ``urls`` out of what the HTTP library logs, within the ``with`` block."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: set[str] = set()

    def __enter__(self) -> Self:
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name in _TALKATIVE:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, with its message redacted."""
        record.msg, record.args = redact_text(record.getMessage(), *tuple(self.urls)), ()
        return True


def _redact_parameter(parameter: str) -> str:
    name, equals, _value = parameter.partition("=")
    return f"{name}={HIDDEN}" if equals else HIDDEN
