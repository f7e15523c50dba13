"""The five classes can be called as they were specified: methods, parameters, their order and their defaults."""

import inspect
from inspect import Parameter

import pytest

from pipeline.download import DownloadManager
from pipeline.extract import ExtractManager
from pipeline.load.manager import LoadManager
from pipeline.orchestrator import ETLOrchestrator
from pipeline.transform import DataTransformer


def specified():
    """The methods as specified, written as Python writes them."""

    class Download:
        def download_file(self, url, dest_path, checksum=None, max_retries=3): ...
        def download_batch(self, file_specs, max_parallel=3): ...
        def verify_checksum(self, file_path, expected_hash): ...

    class Extract:
        def extract_archive(self, archive_path, dest_dir, validate=True): ...
        def stream_extract(self, archive_path, file_filter=None): ...
        def verify_archive(self, archive_path): ...

    class Transform:
        def parse_fixed_width(self, file_path, schema): ...
        def validate_record(self, record, validation_rules): ...
        def normalize_data(self, record, normalization_rules): ...
        def deduplicate(self, records, key_fields): ...

    class Load:
        def bulk_upsert(self, records, model_class, batch_size=5000): ...
        def checkpoint_progress(self, import_id, records_processed): ...
        def resume_from_checkpoint(self, import_id): ...
        def rollback_import(self, import_id): ...

    class Orchestrate:
        def execute_pipeline(self, pipeline_config): ...
        def handle_stage_error(self, stage, error): ...
        def collect_metrics(self): ...
        def send_notifications(self, status): ...

    pairs = {
        DownloadManager: Download, ExtractManager: Extract, DataTransformer: Transform, LoadManager: Load, ETLOrchestrator: Orchestrate,
    }  # fmt: skip
    for ours, theirs in pairs.items():
        for name, method in vars(theirs).items():
            if inspect.isfunction(method):
                yield ours, name, method


METHODS = [pytest.param(*method, id=f"{method[0].__name__}.{method[1]}") for method in specified()]


def differences(ours, theirs):
    """In what a method differs from its specification; a parameter that was required may have got a default."""
    found = []
    mine, wanted = list(inspect.signature(ours).parameters.values()), list(inspect.signature(theirs).parameters.values())
    for place, parameter in enumerate(wanted):
        here = mine[place] if place < len(mine) else None
        if here is None or here.name != parameter.name or here.kind is not Parameter.POSITIONAL_OR_KEYWORD:
            found.append(f"parameter {place} is {here}, not {parameter}")
        elif parameter.default is not Parameter.empty and here.default != parameter.default:
            found.append(f"{here.name} is {here.default!r} by default, not {parameter.default!r}")
    for further in mine[len(wanted) :]:
        if further.default is Parameter.empty and further.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            found.append(f"{further.name} is required besides")
    return found


@pytest.mark.parametrize(("owner", "name", "method"), METHODS)
def test_a_method_is_called_as_specified(owner, name, method):
    assert differences(getattr(owner, name), method) == []


@pytest.mark.parametrize(("owner", "name", "method"), METHODS)
def test_a_method_says_what_it_does(owner, name, method):
    assert getattr(owner, name).__doc__


def test_eighteen_methods_are_compared():
    assert len(METHODS) == 18


def a(self, x, y=1): ...
def renamed(self, z, y=1): ...
def other_default(self, x, y=2): ...
def lost_default(self, x, y): ...
def swapped(self, y=1, x=None): ...
def keyword_only(self, x, *, y=1): ...
def one_more(self, x, y=1, *, token): ...
def shorter(self, x): ...


@pytest.mark.parametrize("method", [renamed, other_default, lost_default, swapped, keyword_only, one_more, shorter])
def test_a_signature_that_breaks_a_caller_is_found(method):
    assert differences(method, a)


def optional_more(self, x=None, y=1, *, further=None): ...


def test_a_signature_that_breaks_no_caller_is_fine():
    assert differences(optional_more, a) == differences(a, a) == []
