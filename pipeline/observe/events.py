"""Stage events as log lines: ``load.part table=hcad.real_acct part=3 rows=50000 seconds=0.81``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger("pipeline")


def log_event(event: str, figures: Mapping[str, Any]) -> None:
    """Write one event of a stage to the log; text from data is escaped, so that it cannot forge a line."""
    logger.info("%s %s", event, " ".join(f"{name}={_figure(value)}" for name, value in figures.items()))


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    plain = text.isprintable() and text.isascii() and " " not in text
    return text if plain else ascii(text)
