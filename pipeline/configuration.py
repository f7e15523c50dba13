"""Where the configuration and the state lie, found without reading either.

A checkout uses its own ``config/luigi.cfg`` and ``var/``; an installed wheel uses the configuration that it carries, and
``var/`` in the folder it is started from. Both are overridden by the environment. Luigi reads its configuration when it is
imported, so :func:`use_configuration` must be called before that.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

#: Environment variables of this program, beside DATABASE_URL and LUIGI_CONFIG_PATH.
STATE = "HCAD_PIPELINE_STATE"
PROFILE = "HCAD_PIPELINE_PROFILE"
MIRROR = "HCAD_PIPELINE_MIRROR"
RUN_ID = "HCAD_PIPELINE_RUN_ID"
TOKENS = "HCAD_PIPELINE_TOKENS"


def checkout() -> Path | None:
    """The root of the checkout that this package is part of, or None for an installed one."""
    root = PACKAGE.parent
    return root if (root / "config" / "luigi.cfg").is_file() and (root / "schemas").is_dir() else None


def home() -> Path:
    """The folder that relative paths of the configuration start from: the checkout, else the working folder."""
    return checkout() or Path.cwd()


def config_folder() -> Path:
    """The shipped configuration: of the checkout, or of the wheel."""
    root = checkout()
    return root / "config" if root else PACKAGE / "shipped" / "config"


def use_configuration() -> Path:
    """Point Luigi at a configuration unless LUIGI_CONFIG_PATH does; returns its path."""
    return Path(os.environ.setdefault("LUIGI_CONFIG_PATH", str(config_folder() / "luigi.cfg")))


def progress_folder(state: Path, run_id: int) -> Path:
    """Where the downloads of a run write their progress while somebody looks."""
    return state / "progress" / f"run-{run_id}"
