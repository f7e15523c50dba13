"""The probe's files: what a source offered, when.

``var/releases/<source>/<year>/<as_of>.json`` is one probe, ``release-<hash>.json`` beside it the release that it saw. Both are
plain JSON for a person to read; the ledger has the same.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigurationError
from pipeline.handoff import read_json, write_json

#: ``as_of`` in file names: sorts by time, and stands in no shell's way.
AS_OF_FORMAT = "%Y-%m-%dT%H%M%SZ"


def probe_path(state: Path, source: str, year: int, as_of: dt.datetime) -> Path:
    """Where the probe of a run's instant (UTC) is written."""
    return state / "releases" / source / str(year) / f"{as_of.strftime(AS_OF_FORMAT)}.json"


@dataclass(frozen=True)
class Release:
    """What a source offered for a tax year at one moment: the fingerprint of each archive that it has."""

    source: str
    year: int
    release: str
    profile: str
    fingerprints: Mapping[str, str]

    @classmethod
    def of(cls, source: str, year: int, profile: str, fingerprints: Mapping[str, str]) -> Release:
        """The release that these fingerprints make; its name is a hash of them."""
        name = hashlib.sha256(json.dumps(dict(fingerprints), sort_keys=True).encode()).hexdigest()[:12]
        return cls(source, year, name, profile, fingerprints)

    @staticmethod
    def path(state: Path, source: str, year: int, release: str) -> Path:
        """The release's own file."""
        return state / "releases" / source / str(year) / f"release-{release}.json"

    def write(self, state: Path) -> None:
        """Write the release's file."""
        write_json(self.path(state, self.source, self.year, self.release), self)

    @classmethod
    def read(cls, state: Path, source: str, year: int, release: str) -> Release:
        """Read a release back.

        Raises:
            ConfigurationError: no probe has seen such a release.
        """
        path = cls.path(state, source, year, release)
        if not path.is_file():
            raise ConfigurationError(f"no file {path}", "a release that a probe has seen", "run SyncSource, which probes first")
        return cls(**read_json(path))
