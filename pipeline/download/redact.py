"""Takes credentials out of URLs before anything that a person or a file sees.

User names and passwords in front of the host, every value of the query and the fragment are replaced by ``***``; parameter names, the
host and most of the path stay. All values go, not only those whose names sound secret: a pre-signed link hides its key under a
name that nobody thought of. Of the path go the values of ``name=value`` pieces, what follows a piece such as ``token`` or ``sig``, and
every piece that reads like a key and not like words: a UUID, 32 or more hexadecimal digits, or 20 or more characters in which letters of
both cases and digits take turns. A name taken for a key costs legibility, a key taken for a name more, so the doubt is on that side. What
goes over the wire is not touched.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"
#: What a piece of a path says of the next one.
_ANNOUNCES = frozenset(
    ("accesstoken", "apikey", "auth", "credential", "jwt", "key", "password", "sas", "secret", "session", "sig", "signature", "token")
)
_KEY = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32,}", re.IGNORECASE)
_MAY_BE_A_KEY = re.compile(r"[\w\-=~+%.!]{20,}", re.ASCII)
_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")
#: From one character to the next: a digit beside a letter, or a capital after a small letter. Words and dates in names have few of them
#: (below 0.15 of the length), random letters and digits 0.4 and more.
_TURN = re.compile(r"(?<=[0-9])(?=[A-Za-z])|(?<=[A-Za-z])(?=[0-9])|(?<=[a-z])(?=[A-Z])")
_TURNS_OF_A_KEY = 0.2
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
    return urlunsplit((split.scheme, netloc, _redact_path(split.path), query, ""))


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
        secrets += _secrets_of_path(split.path)
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


def _redact_path(path: str) -> str:
    return "".join(HIDDEN if is_secret else piece for piece, is_secret in _pieces(path))


def _secrets_of_path(path: str) -> list[str]:
    return [piece for piece, is_secret in _pieces(path) if is_secret]


def _pieces(path: str) -> Iterator[tuple[str, bool]]:
    """The path in pieces, delimiters among them, and whether each is a secret."""
    announced, is_value = False, False
    for piece in re.split(r"([/;=])", path):
        if piece in ("/", ";", "=", ""):
            # What follows a sign of equality is a value up to the next delimiter of another kind, padding included.
            is_value = piece == "=" or (is_value and piece == "")
            announced = announced and piece != ";"
            yield piece, False
            continue
        yield piece, is_value or (announced and _EXTENSION.search(piece) is None) or _reads_like_a_key(piece)
        announced = re.sub(r"[^a-z]", "", piece.lower()) in _ANNOUNCES


def _reads_like_a_key(piece: str) -> bool:
    stem = _EXTENSION.sub("", piece)
    if _KEY.fullmatch(stem):
        return True
    return bool(_MAY_BE_A_KEY.fullmatch(stem)) and len(_TURN.findall(stem)) / len(stem) >= _TURNS_OF_A_KEY
