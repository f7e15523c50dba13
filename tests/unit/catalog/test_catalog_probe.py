"""How a source is probed, what stands in for its archives, and which bytes are pinned: read, laid over by profiles, refused."""

import pytest

from pipeline.catalog import load_source
from pipeline.catalog.model import ProbeRule
from pipeline.catalog.profiles import elsewhere
from pipeline.errors import CatalogError

ENVIRON = {"TINY_URL": "http://127.0.0.1:1"}
LISTED = """\
[probe]
listing = "https://tiny.example/list"
listing_sections = ["CAMA/Real Property"]
listing_complete = "certified"
fingerprint = ["etag", "listing"]
year_policy = "newest"
lookback_years = 3

[archives.roll]
fallback = "{year}/old.zip"
sha256 = { 2024 = "%s" }
""" % ("ab" * 32)


def listed(write, *, more=""):
    folder = write(source=("[archives.roll]\n", LISTED))
    path = folder / "source.toml"
    path.write_text(path.read_text().replace('base_url = "https://tiny.example/roll"', f'base_url = "https://tiny.example/roll"\n{more}'))
    return folder


def test_without_a_word_the_archives_addresses_are_asked_and_the_year_is_strict(write):
    source = load_source(write())
    assert source.probe == ProbeRule() and (source.mirrors, source.allow_http) == ((), False)
    assert not source.archive("roll").has_stand_in and not source.archive("roll").sha256


def test_declared_probe_is_read_with_every_key(write):
    source = load_source(listed(write, more='allow_http = true\nmirrors = ["https://mirror.example/roll/"]'))
    assert source.probe == ProbeRule(
        "https://tiny.example/list", (("CAMA", "Real Property"),), "certified", ("etag", "listing"), "newest", 3
    )
    archive = source.archive("roll")
    assert (archive.sha256, archive.has_stand_in) == ({2024: "ab" * 32}, True)
    assert source.url(archive, 2024) == "https://tiny.example/roll/2024/roll.zip"
    assert source.url(archive, 2024, is_fallback=True) == "https://tiny.example/roll/2024/old.zip"
    assert source.url(archive, 2024, mirror=source.mirrors[0]) == "https://mirror.example/roll/2024/roll.zip"
    assert source.allow_http


def test_profile_with_another_server_asks_neither_the_listing_nor_the_mirrors_and_pins_nothing(write):
    source = load_source(listed(write, more='mirrors = ["https://mirror.example/"]'), profile="sample", environ=ENVIRON)
    assert source.probe == ProbeRule(fingerprint=("etag",), year_policy="newest", lookback_years=3)
    assert source.mirrors == () and source.archive("roll").sha256 == {} and source.archive("roll").fallback


def test_profile_lays_its_probe_over_key_by_key(write):
    folder = listed(write)
    path = folder / "source.toml"
    path.write_text(path.read_text() + '\n[profile.sample.probe]\nlookback_years = 0\n[profile.same]\n[profile.same.probe]\nyear_policy = "strict"\n')
    assert load_source(folder, profile="sample", environ=ENVIRON).probe.lookback_years == 0
    same = load_source(folder, profile="same").probe
    assert (same.year_policy, same.listing, same.lookback_years) == ("strict", "https://tiny.example/list", 3)


def test_source_elsewhere_keeps_its_rule_but_for_the_listing(write):
    assert elsewhere(load_source(listed(write))).probe == ProbeRule(fingerprint=("etag",), year_policy="newest", lookback_years=3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[probe]\nlisting = "https://x.example/"\n', "a listing without listing_sections"),
        ('[probe]\nlisting_sections = ["a/b"]\n', "listing_sections without a listing"),
        ('[probe]\nlisting_complete = "dated"\n', "listing_complete without a listing"),
        ('[probe]\nfingerprint = ["listing"]\n', "a listing that is not declared"),
        ('[probe]\nfingerprint = ["date"]\n', "fingerprint"),
        ('[probe]\nfingerprint = []\n', "fingerprint"),
        ('[probe]\nlisting = "ftp://x.example/"\nlisting_sections = ["a/b"]\n', "listing"),
        ('[probe]\nlisting = "https://x.example/?t=1"\nlisting_sections = ["a/b"]\n', "listing"),
        ('[probe]\nlisting = "https://x.example/"\nlisting_sections = ["ab"]\n', "listing_sections"),
        ('[probe]\nyear_policy = "latest"\n', "year_policy"),
        ("[probe]\nlookback_years = -1\n", "lookback_years"),
        ("[probe]\nlook = 1\n", "look"),
        ('[archives.roll]\nfallback = "../x.zip"\n', "a path below base_url"),
        ('[archives.roll]\nfallback = "{year}/roll.zip"\n', "the same path"),
        ('[archives.roll]\nsha256 = { 2024 = "abc" }\n', "sha256"),
        (f'[archives.roll]\nsha256 = {{ new = "{"ab" * 32}" }}\n', "sha256"),
    ],
)
def test_mistake_is_refused_with_its_place(write, text, words):
    text = text if "[archives.roll]" in text else f"{text}[archives.roll]\n"
    with pytest.raises(CatalogError, match=r"source\.toml") as caught:
        load_source(write(source=("[archives.roll]\n", text)))
    assert words in str(caught.value)
