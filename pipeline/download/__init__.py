"""Download: archives from a publisher's server to disk, the right bytes or an error that says why not."""

from pipeline.download.fingerprint import fingerprint
from pipeline.download.manager import DownloadManager, FileSpec
from pipeline.download.probe import Probe
from pipeline.download.redact import redact

__all__ = ["DownloadManager", "FileSpec", "Probe", "fingerprint", "redact"]
