"""Extract: an archive into a folder of members, measured and cut into parts, or an error and nothing."""

from pipeline.extract.manager import ArchiveReport, ExtractManager
from pipeline.extract.wanted import WantedMember, cut_id

__all__ = ["ArchiveReport", "ExtractManager", "WantedMember", "cut_id"]
