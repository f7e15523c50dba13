"""The Luigi tasks: ``luigi --module pipeline.tasks SyncAll --workers 2``.

Luigi decides whether and when; what is done is in the stages. Importing this package without a configuration stops at once:
Luigi's own exit code for a run whose tasks failed is 0.
"""

from pipeline.errors import ConfigurationError
from pipeline.settings import is_configured

if not is_configured():
    raise ConfigurationError(
        "Luigi has read no configuration of ours: a failed run would end with exit code 0",
        "a [retcode] section, as in config/luigi.cfg",
        "start it with LUIGI_CONFIG_PATH=config/luigi.cfg, or use hcad-pipeline run",
    )

from pipeline.observe import attempts  # registers its handlers on Luigi's events
from pipeline.tasks import leftovers
from pipeline.tasks.confirm import ConfirmRelease
from pipeline.tasks.download import DownloadArchive
from pipeline.tasks.extract import ExtractArchive
from pipeline.tasks.load import CheckRelease, PublishRelease, StagePart, StageTable
from pipeline.tasks.probe import ProbeRelease
from pipeline.tasks.sync import SyncAll, SyncSource
from pipeline.tasks.transform import TransformPart

attempts.register()
leftovers.register()

__all__ = [
    "CheckRelease",
    "ConfirmRelease",
    "DownloadArchive",
    "ExtractArchive",
    "ProbeRelease",
    "PublishRelease",
    "StagePart",
    "StageTable",
    "SyncAll",
    "SyncSource",
    "TransformPart",
]
