"""Turns an archive into a folder of members, measured and cut into parts, or into an error and nothing.

The folder appears by one rename, with ``manifest.json`` in it: a kill at any instant leaves the working folder, which the next
extraction removes. Each member is inflated once; while its bytes pass they are written, hashed, checked against the CRC,
measured and cut. Nothing is held whole: memory depends neither on a member's length nor on a line's. An unsafe entry,
wanted or not, refuses the archive; damage in a member that nobody wants is a warning.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.catalog.model import Limits
from pipeline.errors import ArchiveError, ArchiveTooLarge, ChecksumMismatch, UnsafeArchive
from pipeline.extract.archive import Kind, readable, reading
from pipeline.extract.cut import LineCutter
from pipeline.extract.folder import create_file, existing_manifest, working_folder, write_all, writing
from pipeline.extract.layer import find_layer, layer_lines, require_gis
from pipeline.extract.layer_files import LayerFiles
from pipeline.extract.nested import entries_within
from pipeline.extract.opening import open_archive
from pipeline.extract.recheck import differences
from pipeline.extract.wanted import MANIFEST, Selection, WantedMember
from pipeline.handoff import Manifest, Member, OnEvent, ignore, publish_folder, write_json

PART_BYTES = 64 << 20
#: Where the files of map layers lie in the working folder while lines are made of them.
_LAYERS = ".layers"


@dataclass(frozen=True)
class ArchiveReport:
    """What a full reading found: the kind of archive, how many files, and their bytes in all."""

    kind: Kind
    members: int
    bytes: int


class ExtractManager:
    """Extracts, streams and verifies archives.

    Args:
        part_bytes: a part ends with the first line that makes it this long.
        limits: how many members, bytes a member and bytes out for bytes in an archive may have.
        on_event: is told ``extract.member`` (archive, member, bytes, lines, parts, seconds) and, as a warning,
            ``extract.unneeded_member_damaged`` (archive, member, error); and ``extract.layer``, see :func:`.layer.layer_lines`.
    """

    def __init__(self, *, part_bytes: int = PART_BYTES, limits: Limits, on_event: OnEvent = ignore) -> None:
        self._part_bytes = part_bytes
        self._limits = limits
        self._on_event = on_event

    def extract_archive(
        self,
        archive_path: Path,
        dest_dir: Path,
        validate: bool = True,
        *,
        members: Sequence[WantedMember] | None = None,
        sha256: str | None = None,
        archive_name: str | None = None,
        nested: bool = False,
    ) -> Manifest:
        """Extract the wanted members into ``dest_dir``; a folder that is there already is returned as it is.

        Args:
            archive_path: the archive.
            dest_dir: is made by one rename, with the members and ``manifest.json`` in it.
            validate: read the unneeded members too (damage there is a warning), and compare the archive with ``sha256``.
                Wanted members are always checked in full.
            members: what is wanted; None: every file, under its own path. Members that are made of map layers are not mixed with others.
            sha256: the archive's, when it is known; else it is computed.
            archive_name: the archive's name in the manifest and in messages, when the file is called otherwise.
            nested: look for members in zip archives inside the archive too, one level deep.

        Returns:
            The manifest; ``Member.name`` is the wanted member's declared name.

        Raises:
            ArchiveError: damage in a wanted member or in the archive's structure, or ``dest_dir`` is not what an extraction made.
            UnsafeArchive: an entry, wanted or not, that no safe archive has.
            ArchiveTooLarge: a limit is exceeded.
            UnreadableMember: a wanted member is encrypted, or compressed in a way that is not read.
            MemberError: a required member is missing, or a wanted one is there twice.
            ChecksumMismatch: the archive is not the one of ``sha256``.
            DiskError: writing or reading failed.
            LayerError: a map layer lacks a file, is in another coordinate system, or cannot be read.
            ConfigurationError: the wanted names are no file names, or contradict each other; or what reads layers is not installed.
        """
        finished = existing_manifest(dest_dir)
        if finished is not None:
            return finished
        name = archive_name or archive_path.name
        selection = Selection(name, members)
        if sha256 is None or validate:
            sha256 = archive_sha256(archive_path, name, sha256)
        with working_folder(dest_dir) as part:
            layers = [member for member in members or () if member.layer]
            made = self._extract_layers(part, archive_path, name, layers, validate, nested) if layers else (
                self._extract_into(part, archive_path, name, selection, validate, nested)
            )
            extracted = tuple(made)
            with writing(dest_dir):
                write_json(part / MANIFEST, Manifest(name, sha256, extracted))
                publish_folder(part, dest_dir)
        published = existing_manifest(dest_dir)
        if published is None:
            raise ArchiveError(f"{dest_dir} is gone right after it was made", "the folder", "see who removes files there")
        return published

    def stream_extract(
        self, archive_path: Path, file_filter: Callable[[str], bool] | None = None, *, nested: bool = False
    ) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield the files of an archive without writing any: the path that :meth:`extract_archive` itself takes.

        Args:
            archive_path: the archive.
            file_filter: is asked with each file's path inside the archive; None: all.
            nested: yield the files of zip archives inside the archive instead of those archives, one level deep; their paths
                begin with the inner archive's. Such an archive is held in a temporary file without a name while it is read.

        Yields:
            Path and chunks of bytes, in the archive's order. The chunks are to be read before the next file is asked for; a
            file's CRC is checked with its last chunk, so one that is not read to its end is not checked.

        Raises:
            ArchiveError: damage.
            UnsafeArchive: an unsafe entry, whether the filter takes it or not.
            ArchiveTooLarge: a limit is exceeded.
            UnreadableMember: a file that is read is encrypted, or compressed in a way that is not read.
            DiskError: reading failed.
        """
        return self._stream(archive_path, archive_path.name, file_filter or (lambda name: True), _require_open, nested, None)

    def verify_archive(self, archive_path: Path) -> ArchiveReport:
        """Read every member to its end, checksums included.

        Raises:
            ArchiveError: damage anywhere, or one of its kinds: an unsafe entry, a limit exceeded, a member that cannot be read.
            DiskError: reading failed.
        """
        with readable(archive_path, archive_path.name) as file:
            kind = open_archive(file, archive_path.name, self._limits).kind
        members = size = 0
        for _, chunks in self.stream_extract(archive_path):
            members += 1
            size += sum(map(len, chunks))
        return ArchiveReport(kind, members, size)

    def verify_members(self, folder: Path) -> tuple[str, ...]:
        """Read every member of an extracted folder again and compare it with the manifest.

        Returns:
            In what they differ, a sentence each; empty when all is as it was measured.

        Raises:
            ArchiveError: there is no manifest, or none that can be read.
            DiskError: reading failed.
        """
        return differences(folder)

    def _stream(
        self,
        path: Path,
        archive: str,
        accepts: Callable[[str], bool],
        on_listed: Callable[[ArchiveError | None], None],
        nested: bool,
        scratch: Path | None,
    ) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield what is accepted.

        ``on_listed`` is called once all names are known, before the first byte if possible, with what keeps an inner archive closed.
        """
        hidden: ArchiveError | None = None
        with readable(path, archive) as file:
            opened = open_archive(file, archive, self._limits)
            is_listed = opened.is_listed and not nested
            entries = opened.entries()
            if nested:
                entries = entries_within(opened, archive, path.stat().st_size, self._limits, scratch)
            if is_listed:
                entries = iter([entry for entry in entries if accepts(entry.name)])
                on_listed(None)
            for entry in entries:
                hidden = hidden or entry.hides
                if is_listed or accepts(entry.name):
                    yield entry.name, entry.chunks()
            if not is_listed:
                on_listed(hidden)

    def _extract_into(
        self, folder: Path, path: Path, archive: str, selection: Selection, validate: bool, nested: bool
    ) -> Iterator[Member]:
        """Write the wanted members into the working folder, and yield what they are."""
        files: dict[str, str | None] = {}

        def accepts(name: str) -> bool:
            files[name] = selection.file_for(name)
            return validate or files[name] is not None

        for name, chunks in self._stream(path, archive, accepts, selection.check, nested, folder):
            file = files[name]
            if file is None:
                self._read_unneeded(archive, name, chunks)
            else:
                yield self._extract_member(folder, file, archive, chunks)

    def _extract_layers(
        self, folder: Path, path: Path, archive: str, members: Sequence[WantedMember], validate: bool, nested: bool
    ) -> Iterator[Member]:
        """Write the map layers' files into the working folder, make the wanted members of them, and yield what these are."""
        require_gis()
        files, wanted, scratch = LayerFiles(archive), dict[str, str | None](), folder / _LAYERS

        def accepts(name: str) -> bool:
            wanted[name] = files.file_for(name)
            return validate or wanted[name] is not None

        for name, chunks in self._stream(path, archive, accepts, files.check, nested, folder):
            file = wanted[name]
            if file is None:
                self._read_unneeded(archive, name, chunks)
            else:
                self._write(folder, f"{_LAYERS}/{file}", chunks)
        for member in members:
            if member.layer and (layer := find_layer(files.datasets(scratch), member, member.layer, archive)):
                lines = layer_lines(layer, member.layer, archive, self._on_event)
                yield self._extract_member(folder, member.name, archive, lines)
        if scratch.exists():
            with writing(scratch):
                shutil.rmtree(scratch)

    def _extract_member(self, folder: Path, file: str, archive: str, chunks: Iterator[bytes]) -> Member:
        """The one pass over a member: written, hashed, measured and cut while it is inflated."""
        started = time.monotonic()
        cutter, digest = LineCutter(self._part_bytes), hashlib.sha256()

        def passing() -> Iterator[bytes]:
            for chunk in chunks:
                digest.update(chunk)
                cutter.feed(chunk)
                yield chunk

        self._write(folder, file, passing())
        measure = cutter.finish()
        self._on_event(
            "extract.member",
            {
                "archive": archive,
                "member": file,
                "bytes": measure.bytes,
                "lines": measure.lines,
                "parts": len(measure.parts),
                "seconds": round(time.monotonic() - started, 3),
            },
        )
        return Member(name=file, file=file, sha256=digest.hexdigest(), **vars(measure))

    def _write(self, folder: Path, file: str, chunks: Iterator[bytes]) -> None:
        with writing(folder / file):
            descriptor = create_file(folder, file)
        try:
            for chunk in chunks:
                with writing(folder / file):
                    write_all(descriptor, chunk)
        finally:
            os.close(descriptor)

    def _read_unneeded(self, archive: str, name: str, chunks: Iterator[bytes]) -> None:
        try:
            for _ in chunks:
                pass
        except (UnsafeArchive, ArchiveTooLarge):
            raise
        except ArchiveError as error:
            self._on_event("extract.unneeded_member_damaged", {"archive": archive, "member": name, "error": str(error)})


def _require_open(hidden: ArchiveError | None) -> None:
    """Raise what keeps an inner archive closed: what was asked for may lie in it."""
    if hidden is not None:
        raise hidden


def archive_sha256(path: Path, archive: str, expected: str | None) -> str:
    """Hash an archive.

    Args:
        path: the file.
        archive: its name, for messages.
        expected: the sha256 that it must have; None: any.

    Raises:
        ChecksumMismatch: it has another one.
        DiskError: it cannot be read.
    """
    with readable(path, archive) as file, reading(archive):
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and found != expected.lower():
        raise ChecksumMismatch(
            f"{archive} on disk has sha256 {found}",
            f"sha256 {expected.lower()}, as when it was downloaded",
            "remove the archive; the next run downloads it again",
        )
    return found
