"""The bundle in the repository is the one that its script makes and that its documentation describes."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLE = REPOSITORY / "tests" / "fixtures" / "sample"
SCRIPT = REPOSITORY / "scripts" / "make_sample.py"

#: Archive, member, lines, line end, index of the header line.
MEMBERS = [
    ("hcad/2019/Hearing_files.zip", "arb_protest_real.txt", 424_335, b"\r\n", None),
    ("hcad/2025/Real_acct_owner.zip", "real_acct.txt", 51, b"\r\n", 0),
    ("hcad/2025/Real_acct_owner.zip", "real_mnrl.txt", 7_263, b"\n", -1),
    ("hcad/2025/Real_acct_owner.zip", "real_neighborhood_code.txt", 12_021, b"\n", 0),
    ("travis/2019/Appraisal_Export.zip", "ABS_SUBD.TXT", 23_844, b"\r\n", None),
    ("travis/2019/Appraisal_Export.zip", "APPR_HDR.TXT", 1, b"\r\n", None),
    ("travis/2019/Appraisal_Export.zip", "COUNTRY.TXT", 245, b"\r\n", None),
    ("travis/2019/Appraisal_Export.zip", "ENTITY.TXT", 229, b"\r\n", None),
    ("travis/2019/Appraisal_Export.zip", "STATE_CD.TXT", 45, b"\r\n", None),
]
ARCHIVES = sorted({archive for archive, *_ in MEMBERS})
FIELDS = {"arb_protest_real.txt": 3, "real_acct.txt": 71, "real_mnrl.txt": 5, "real_neighborhood_code.txt": 3}
WIDTHS = {"ABS_SUBD.TXT": 50, "APPR_HDR.TXT": 244, "COUNTRY.TXT": 55, "ENTITY.TXT": 17, "STATE_CD.TXT": 124}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sample", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def read(archive: str, member: str) -> bytes:
    with zipfile.ZipFile(BUNDLE / archive) as packed:
        return packed.read(member)


def published_sums() -> dict[str, str]:
    lines = (BUNDLE / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_every_archive_has_its_published_hash_and_none_is_without() -> None:
    found = {path.relative_to(BUNDLE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in BUNDLE.rglob("*.zip")}
    assert found == published_sums()
    assert sorted(found) == ARCHIVES


@pytest.mark.parametrize(("archive", "member", "lines", "line_end", "header_at"), MEMBERS)
def test_member_has_its_rows_line_ends_and_shape(
    archive: str, member: str, lines: int, line_end: bytes, header_at: int | None
) -> None:
    content = read(archive, member)
    assert content.endswith(line_end)
    assert content.count(b"\r") == (lines if line_end == b"\r\n" else 0)
    records = content.split(line_end)[:-1]
    assert len(records) == lines
    if member in FIELDS:
        assert {record.count(b"\t") + 1 for record in records} == {FIELDS[member]}
        headers = [place for place, record in enumerate(records) if record.startswith((b"acct\t", b"cd\t"))]
        assert headers == ([] if header_at is None else [header_at % lines])
    else:
        assert {len(record) for record in records} == {WIDTHS[member]}


def test_archives_hold_the_declared_members_sorted_and_nothing_else(script: ModuleType) -> None:
    for archive in ARCHIVES:
        with zipfile.ZipFile(BUNDLE / archive) as packed:
            names = packed.namelist()
        assert names == sorted(member for name, member, *_ in MEMBERS if name == archive)
        assert names == [member.name for member in script.ARCHIVES[archive]]


@pytest.fixture(scope="module")
def remade(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle made once more, out of its own archives."""
    out: Path = tmp_path_factory.mktemp("remade") / "sample"
    shutil.copytree(BUNDLE, out)
    script.make_bundle(out)
    return out


def test_making_the_bundle_again_gives_the_same_files(remade: Path) -> None:
    sums = {name: hashlib.sha256((remade / name).read_bytes()).hexdigest() for name in ARCHIVES}
    assert (remade / "SHA256SUMS").read_text(encoding="ascii") == "".join(f"{sums[name]}  {name}\n" for name in ARCHIVES)
    for archive, member, *_ in MEMBERS:
        with zipfile.ZipFile(remade / archive) as packed:
            assert packed.read(member) == read(archive, member)
    if "zlib-ng" not in zlib.ZLIB_RUNTIME_VERSION:  # which deflates the same bytes into others
        assert sums == published_sums()
    assert not list(remade.rglob("*.part"))


def test_source_folder_and_own_archives_give_the_same_bundle(script: ModuleType, remade: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for archive, members in script.ARCHIVES.items():
        for member in members:
            source = data / member.source
            source.parent.mkdir(parents=True, exist_ok=True)
            content = read(archive, member.name)
            source.write_bytes(gzip.compress(content, 1) if source.suffix == ".gz" else content)
    script.make_bundle(tmp_path / "made", data)
    for name in [*ARCHIVES, "SHA256SUMS"]:
        assert (tmp_path / "made" / name).read_bytes() == (remade / name).read_bytes()


@pytest.mark.parametrize("damage", ["one byte", "one line", "no file"])
def test_wrong_input_is_named_and_leaves_the_bundle_as_it_was(script: ModuleType, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "sample"
    shutil.copytree(BUNDLE, out)
    archive = out / "travis/2019/Appraisal_Export.zip"
    members = {member.name: read("travis/2019/Appraisal_Export.zip", member.name) for member in script.ARCHIVES[ARCHIVES[2]]}
    if damage == "one byte":
        members["COUNTRY.TXT"] = members["COUNTRY.TXT"].replace(b"ANDORRA", b"ANDORRB")
    elif damage == "one line":
        members["COUNTRY.TXT"] = members["COUNTRY.TXT"][57:]
    else:
        del members["COUNTRY.TXT"]
    archive.write_bytes(script.pack(members))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(out)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1
    assert "COUNTRY.TXT" in done.stderr and "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_documentation_names_every_member_with_its_rows_and_every_hash() -> None:
    text = (REPOSITORY / "docs" / "sample-data.md").read_text(encoding="utf-8")
    for digest in published_sums().values():
        assert digest in text
    for archive, member, lines, _, header_at in MEMBERS:
        rows = lines if header_at is None else lines - 1
        assert Path(archive).name in text
        assert any(f"`{member}`" in line and f"| {rows:,} |" in line for line in text.splitlines()), member


def test_licence_is_the_full_apache_text_unchanged() -> None:
    digest = hashlib.sha256((REPOSITORY / "LICENSE").read_bytes()).hexdigest()
    # The text as the Apache Software Foundation publishes it, appendix included.
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
