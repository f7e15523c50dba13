"""The closed set of reasons for which a run can stop.

Every error has a code, an exit code of ``hcad-pipeline run`` and one sentence of three parts: what was seen, what was
expected, what to do. ``docs/operations.md`` has a section for each code. Nothing else is raised on purpose; an exception
that is not in this file is a bug and ends with exit code 40.

Exit codes: 10 another run is at work, 20 not published yet, 30 transient (the next run goes on), 31 data refused or
held (a person must look), 40 bug or wrong configuration.
"""

from __future__ import annotations

from typing import ClassVar


class PipelineError(Exception):
    """A reason to stop.

    Args:
        seen: what was found, with names, line numbers and counts.
        expected: what should have been there.
        todo: what a person, or the next run, does about it.
    """

    code: ClassVar[str] = "E_BUG"
    exit_code: ClassVar[int] = 40
    #: The release is held: later runs do no work on it until it, or the recipe, is another one or a person accepts it.
    holds_release: ClassVar[bool] = False

    def __init__(self, seen: str, expected: str, todo: str) -> None:
        super().__init__(seen, expected, todo)
        self.seen, self.expected, self.todo = seen, expected, todo

    def __str__(self) -> str:
        return f"{self.code}: {self.seen}. Expected: {self.expected}. To do: {self.todo}."


class ConfigurationError(PipelineError):
    """A setting is missing, unknown or of the wrong kind."""

    code = "E_CONFIG"


class DatabaseRefused(ConfigurationError):
    """PostgreSQL does not let this user in, or its role lacks privileges."""

    code = "E_DATABASE_REFUSED"


class ReadOnlyDatabase(ConfigurationError):
    """PostgreSQL takes no writes: a standby, or one that is set to be read only."""

    code = "E_DATABASE_READ_ONLY"


class CatalogError(PipelineError):
    """A schema file does not follow the schema language."""

    code = "E_CATALOG"


class AccountingError(PipelineError):
    """Rows do not add up: those read and what became of them (a defect of this program), or those staged and those live."""

    code = "E_ACCOUNTING"


class RunLocked(PipelineError):
    """Another run is writing the same source."""

    code = "E_LOCKED"
    exit_code = 10


class NotPublished(PipelineError):
    """The district has not published this tax year yet."""

    code = "E_NOT_PUBLISHED"
    exit_code = 20


class TransientError(PipelineError):
    """The next run goes on from here by itself."""

    code = "E_TRANSIENT"
    exit_code = 30


class DownloadError(TransientError):
    """Connection, time-out, server error or short body, after all attempts."""

    code = "E_DOWNLOAD"


class ReleaseChanged(TransientError):
    """The publisher replaced an archive between the probe and the download."""

    code = "E_RELEASE_CHANGED"


class DiskError(TransientError):
    """Writing to the state directory failed."""

    code = "E_DISK"


class DatabaseUnavailable(TransientError):
    """PostgreSQL cannot be reached, or broke off.

    ``may_be_repeated``: its transaction was rolled back for certain, and another attempt may fare better.
    """

    code = "E_DATABASE"
    may_be_repeated: bool = False


class DatabaseBusy(DatabaseUnavailable):
    """A lock, a connection or a turn was not to be had in time, because others have it."""

    code = "E_DATABASE_BUSY"


class DatabaseFull(DatabaseUnavailable):
    """PostgreSQL has no room left, or too little to begin."""

    code = "E_DATABASE_FULL"


class SchedulerUnavailable(TransientError):
    """luigid cannot be reached."""

    code = "E_SCHEDULER"


class StagingStale(TransientError):
    """What was staged was compared with an import that is no longer current; staging starts again."""

    code = "E_STAGING_STALE"


class FencedOut(TransientError):
    """A newer run has taken over the source; this one may not write any more."""

    code = "E_FENCED"


class Interrupted(TransientError):
    """The run was told to stop."""

    code = "E_INTERRUPTED"


class RefusedError(PipelineError):
    """A person must look; what is published stays as it was."""

    code = "E_REFUSED"
    exit_code = 31


class DownloadRefused(RefusedError):
    """The server answered with a status that no retry will change."""

    code = "E_DOWNLOAD_REFUSED"


class ListingError(RefusedError):
    """The publisher's listing of what it has cannot be read, or contradicts itself."""

    code = "E_LISTING"


class AddressRefused(RefusedError):
    """A URL leads to an address or scheme that the source does not allow."""

    code = "E_ADDRESS"


class ChecksumMismatch(RefusedError):
    """The bytes are not those that were promised."""

    code = "E_CHECKSUM"


class ArchiveAltered(RefusedError):
    """The server sends other bytes than before under the same validators."""

    code = "E_ALTERED"


class NotAnArchive(RefusedError):
    """The body is something else (an HTML page, say) under an archive's name."""

    code = "E_NOT_ARCHIVE"


class ArchiveError(RefusedError):
    """The archive is damaged: its bytes do not hold together."""

    code = "E_ARCHIVE"


class UnsafeArchive(ArchiveError):
    """An entry leads out of the folder, is no plain file, or shares bytes with another one."""

    code = "E_ARCHIVE_UNSAFE"


class ArchiveTooLarge(ArchiveError):
    """More entries, more bytes, or more bytes out for bytes in than the source's limits."""

    code = "E_ARCHIVE_LIMIT"


class UnreadableMember(ArchiveError):
    """A wanted member is encrypted, or compressed in a way that is not read."""

    code = "E_ARCHIVE_METHOD"


class LayerError(ArchiveError):
    """A map layer lacks one of its files, is in another coordinate system, or cannot be read."""

    code = "E_LAYER"


class MemberError(RefusedError):
    """A wanted member is missing, or there more than once."""

    code = "E_MEMBER"


class VintageError(RefusedError):
    """The archive holds another tax year, or another county, than the one that it was fetched for."""

    code = "E_VINTAGE"
    holds_release = True


class LayoutError(RefusedError):
    """No declared layout fits the member."""

    code = "E_LAYOUT"
    holds_release = True


class HeaderError(RefusedError):
    """The header line lacks a wanted column, or has one that the contract refuses."""

    code = "E_HEADER"
    holds_release = True


class EmptyMember(RefusedError):
    """A member has no data record."""

    code = "E_EMPTY"
    holds_release = True


class PartRefused(RefusedError):
    """More than half of a part's records are refused, or PostgreSQL refuses too many of its rows: it is not the rows that are wrong."""

    code = "E_PART"


class GateRefused(RefusedError):
    """The checks between staging and publishing failed."""

    code = "E_GATE"
    holds_release = True


class ReleaseHeld(RefusedError):
    """The offered release was refused or rolled back earlier; no work is done on it."""

    code = "E_HELD"


class ShapeError(RefusedError):
    """The live table is not what the schema file says, and is not changed silently; or something of the user's own on it refuses rows."""

    code = "E_SHAPE"


class RollbackRefused(RefusedError):
    """The import asked for cannot be rolled back."""

    code = "E_ROLLBACK"


class HistoryGone(RefusedError):
    """What an import changed, or what a table was after it, is not known, or no longer."""

    code = "E_HISTORY"


class VerifyFailed(RefusedError):
    """What is on the disk or in the tables is not what was recorded of it."""

    code = "E_VERIFY"
