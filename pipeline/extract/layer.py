"""Finds the wanted layer among an archive's map data, by what is in it, and gives one line of text for each of its polygons.

The wanted layer is the one of polygons that has the wanted fields; where several have them, the one among them that is called as the
member is. None, or two, stops with a list of what there is. Its coordinate system is the one that the file states, and must be the
declared one: nothing is guessed, and nothing moved from another system. Lines come in the layer's order, a header first: line
``n + 1`` is the layer's polygon ``n``. Polygons are read a batch at a time and memory depends on no layer's length but for
sixteen bytes a polygon, with which the repeated ones are counted. The position is that of the centroid, computed in the layer's own plane
and then brought to degrees; a polygon that has none (empty, damaged, not a number) has blank fields there, and never a zero.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from pipeline.catalog.meta_schema import GEOMETRY
from pipeline.errors import ConfigurationError, LayerError, MemberError
from pipeline.extract.layer_files import Dataset
from pipeline.extract.wanted import WantedLayer, WantedMember
from pipeline.extras import GIS, missing
from pipeline.handoff import OnEvent, ignore

if TYPE_CHECKING:
    import pyproj

#: Polygons of one batch: a parcel has some 20 corners, so that is 3 MB; a batch costs 2 ms on top, for opening the file.
BATCH_POLYGONS: Final = 5_000
_SEPARATORS: Final = re.compile(r"[\x00-\x1f\x7f]")
#: Hundredths of a foot or metre, and 1e-7 degree (11 mm): finer than any parcel is surveyed.
_DECIMALS: Final = {"geometry.longitude": 7, "geometry.latitude": 7}
_LOOK: Final = "look at what the publisher sent; the last good one stays"


@dataclass(frozen=True)
class Layer:
    """A layer as its file describes it: where it is, what a person calls it, its fields, kind of geometry, system and length."""

    path: Path
    name: str
    shown: str
    called: str
    fields: tuple[str, ...]
    geometry: str
    crs: str | None
    polygons: int

    @property
    def has_polygons(self) -> bool:
        """Whether its features are areas."""
        return any(kind in self.geometry for kind in ("Polygon", "Surface"))

    def field(self, names: Sequence[str]) -> str | None:
        """Its own name of a wanted field; None: it has none of that."""
        folded = {field.casefold(): field for field in self.fields}
        return next((folded[name.strip().casefold()] for name in names if name.strip().casefold() in folded), None)

    def has_fields(self, wanted: WantedLayer) -> bool:
        """Whether every wanted field is there."""
        return all(self.field(names) is not None for names in wanted.fields if names[0] not in GEOMETRY)


def require_gis() -> None:
    """Stop where layers cannot be read.

    Raises:
        ConfigurationError: the extra ``gis`` is not installed.
    """
    if lacking := missing(GIS):
        raise ConfigurationError(f"a map layer is to be read, and {', '.join(lacking)} is not installed", "the extra gis",
                                 "pip install 'hcad-pipeline[gis]', or leave the layer's table out")  # fmt: skip


def find_layer(datasets: Iterable[Dataset], member: WantedMember, wanted: WantedLayer, archive: str) -> Layer | None:
    """The layer that a member is made of.

    Args:
        datasets: what of the archive is map data.
        member: the wanted member.
        wanted: its layer.
        archive: the archive's name, for messages.

    Returns:
        The layer; None: there is none, and the member is not required.

    Raises:
        MemberError: there is none, or more than one.
        LayerError: it lacks a file, cannot be read, or is in another coordinate system.
    """
    called = {name.casefold() for name in (member.name, *member.aliases)}
    broken, layers = [], []
    for dataset in datasets:
        found = [] if dataset.broken else _layers_of(dataset)
        if isinstance(found, str) or dataset.broken:
            broken.append((dataset, dataset.broken or str(found)))
        else:
            layers += found
    fits = [layer for layer in layers if layer.has_polygons and layer.has_fields(wanted)]
    if len(fits) > 1:
        fits = [layer for layer in fits if layer.called.casefold() in called] or fits
    for dataset, why in broken:
        if not fits or dataset.stem.casefold() in called:
            raise LayerError(f"{archive}: {dataset.shown}, {why}", "a layer with all of its files", _LOOK)
    if len(fits) == 1:
        _check_crs(fits[0], wanted, archive)
        return fits[0]
    if not fits and not member.required:
        return None
    _refuse(archive, layers, fits, wanted, member)


def layer_lines(layer: Layer, wanted: WantedLayer, archive: str, on_event: OnEvent = ignore) -> Iterator[bytes]:
    """Yield the lines of a layer, a batch of them at a time.

    Args:
        layer: the layer, as :func:`find_layer` gave it.
        wanted: what each line holds.
        archive: the archive's name, for messages.
        on_event: is told ``extract.layer`` at the end: archive, layer, polygons, ``without_point`` (no position), ``stacked`` (polygons
            where another one has the same centroid), ``repeated`` (whose first field another one has, too), ``cleaned`` (texts in which a
            control character became a blank), seconds.

    Raises:
        LayerError: it cannot be read to its end.
    """
    started = time.monotonic()
    lines = _Lines(wanted, layer)
    yield "\t".join(names[0] for names in wanted.fields).encode("utf-8") + b"\n"
    at = 0
    while at < layer.polygons:
        geometry, values = _batch(layer, lines.read, at, archive)
        if not len(geometry):
            break
        at += len(geometry)
        yield lines.of(geometry, values)
    if at != layer.polygons:
        raise LayerError(f"{archive}: {layer.shown} gave {at} of the {layer.polygons} polygons that it states", "all of them", _LOOK)
    figures = lines.figures()
    on_event(
        "extract.layer",
        {"archive": archive, "layer": layer.shown, "polygons": at, **figures, "seconds": round(time.monotonic() - started, 3)},
    )


class _Lines:
    """Makes lines of batches of polygons, and counts what is remarkable in them."""

    def __init__(self, wanted: WantedLayer, layer: Layer) -> None:
        self._heads = [names[0] for names in wanted.fields]
        found = [layer.field(names) for names in wanted.fields if names[0] not in GEOMETRY]
        self.read = [name for name in found if name is not None]
        self._to_degrees = _to_degrees(wanted.crs)
        self._points: list[npt.NDArray[np.uint64]] = []
        self._owners: list[npt.NDArray[np.uint64]] = []
        self._without = self._cleaned = 0

    def of(self, geometry: npt.NDArray[Any], values: Sequence[npt.NDArray[Any]]) -> bytes:
        """The lines of a batch: the polygons as well-known binary, and the columns of :attr:`read`."""
        positions = self._positions(geometry)
        texts = iter([self._texts(column) for column in values])
        columns = [positions[head] if head in GEOMETRY else next(texts) for head in self._heads]
        first = next((column for head, column in zip(self._heads, columns, strict=True) if head not in GEOMETRY), [])
        self._owners.append(np.fromiter((hash(text) & 0xFFFFFFFFFFFFFFFF for text in first if text), np.uint64))
        return "".join(map("{}\n".format, map("\t".join, zip(*columns, strict=True)))).encode("utf-8")

    def figures(self) -> dict[str, int]:
        """What was counted."""
        return {
            "without_point": self._without,
            "stacked": _in_company(self._points),
            "repeated": _in_company(self._owners),
            "cleaned": self._cleaned,
        }

    def _positions(self, geometry: npt.NDArray[Any]) -> dict[str, list[str]]:
        """The texts of what is taken of the polygons; blank where there is no position."""
        import shapely

        with np.errstate(invalid="ignore"):
            shapes = shapely.from_wkb(geometry, on_invalid="ignore")
            # An empty centroid has no coordinates; asking such a point for its x stops where a corner is no number.
            found, rows = shapely.get_coordinates(shapely.centroid(shapes), return_index=True)
        x, y = np.full((2, len(shapes)), np.nan)
        x[rows], y[rows] = found.T
        longitude, latitude = self._to_degrees.transform(x, y)
        numbers = dict(zip(GEOMETRY, (x, y, longitude, latitude, shapely.area(shapes)), strict=True))
        # One that is no number, wherever it arose, is no position: all of them together, or none.
        is_there = np.isfinite(np.vstack(list(numbers.values()))).all(axis=0)
        self._without += int((~is_there).sum())
        hundredths = np.column_stack((x, y))[is_there].round(2).view(np.uint64)
        self._points.append(hundredths[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ hundredths[:, 1])
        return {
            name: [f"{number:.{_DECIMALS.get(name, 2)}f}" if there else "" for number, there in zip(column, is_there.tolist(), strict=True)]
            for name, column in ((name, column.tolist()) for name, column in numbers.items())
        }

    def _texts(self, values: npt.NDArray[Any]) -> list[str]:
        """A field's values as text: what separates lines and fields in it is a blank, counted; None and NaN are nothing."""
        texts = [_text(value) for value in values.tolist()]
        for place, text in enumerate(texts):
            if not text.isprintable() and (cleaned := _SEPARATORS.sub(" ", text)) != text:
                texts[place] = cleaned
                self._cleaned += 1
        return texts


def _text(value: object) -> str:
    if value is None or value != value:  # NaN, NaT
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _in_company(hashes: Sequence[npt.NDArray[np.uint64]]) -> int:
    """How many of the values are there more than once, each time counted."""
    if not hashes:
        return 0
    ordered = np.sort(np.concatenate(hashes))
    is_same = ordered[1:] == ordered[:-1]
    return int((np.append(is_same, False) | np.append(False, is_same)).sum())


def _to_degrees(crs: str) -> pyproj.Transformer:
    """From the plane to degrees (WGS 84), the same on every machine: without grids that one has and another has not."""
    import pyproj

    pyproj.network.set_network_enabled(False)  # type: ignore[attr-defined]
    return pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True, allow_ballpark=False)


def _layers_of(dataset: Dataset) -> list[Layer] | str:
    """The layers of a shapefile or geodatabase; or why it cannot be read."""
    import pyogrio

    found = []
    try:
        for name, geometry in pyogrio.list_layers(dataset.path).tolist():
            if geometry is None:
                continue
            stated = pyogrio.read_info(dataset.path, layer=name, force_feature_count=True)
            is_shapefile = dataset.path.suffix == ".shp"
            shown, called = (dataset.shown, dataset.stem) if is_shapefile else (f"{dataset.shown}/{name}", name)
            fields = tuple(str(field) for field in stated["fields"])
            found.append(Layer(dataset.path, name, shown, called, fields, str(geometry), stated["crs"], int(stated["features"])))
    except (RuntimeError, OSError, UnicodeError) as error:
        return f"which cannot be read ({error})"
    return found


def _batch(layer: Layer, fields: Sequence[str], at: int, archive: str) -> tuple[npt.NDArray[Any], list[npt.NDArray[Any]]]:
    """The polygons of a layer from ``at`` on, arcs as chains of lines, and the columns of these fields."""
    from pyogrio import raw

    try:
        stated, _, geometry, columns = raw.read(
            layer.path, layer=layer.name, columns=list(fields), force_2d=True, skip_features=at, max_features=BATCH_POLYGONS
        )
    except (RuntimeError, OSError, UnicodeError) as error:
        raise LayerError(f"{archive}: {layer.shown} cannot be read at polygon {at + 1} ({error})", "a whole layer", _LOOK) from error
    by_name = dict(zip(stated["fields"].tolist(), columns, strict=True))
    return geometry, [by_name[name] for name in fields]


def _check_crs(layer: Layer, wanted: WantedLayer, archive: str) -> None:
    """The layer states the declared coordinate system; a height that comes with it does not matter."""
    import pyproj

    declared = pyproj.CRS.from_user_input(wanted.crs)
    if layer.crs is None:
        raise LayerError(f"{archive}: {layer.shown} states no coordinate system (no .prj)", f"{wanted.crs}, {declared.name}", _LOOK)
    try:
        stated = pyproj.CRS.from_user_input(layer.crs)
    except pyproj.exceptions.CRSError as error:
        raise LayerError(f"{archive}: {layer.shown} states {layer.crs[:200]!r}", f"{wanted.crs}, {declared.name}", _LOOK) from error
    plane = stated.sub_crs_list[0] if stated.is_compound else stated
    if not plane.equals(declared, ignore_axis_order=True):
        raise LayerError(
            f"{archive}: {layer.shown} is in {stated.name} ({layer.crs[:60]})",
            f"{wanted.crs}, {declared.name}",
            "positions of another system are not moved: if the publisher changed it for good, state it as crs of a further layout",
        )


def _refuse(archive: str, layers: Sequence[Layer], fits: Sequence[Layer], wanted: WantedLayer, member: WantedMember) -> NoReturn:
    """Raise MemberError with what there is."""
    fields = ", ".join(names[0] for names in wanted.fields if names[0] not in GEOMETRY)
    if fits:
        raise MemberError(
            f"{archive}: {len(fits)} layers of polygons have the fields {fields}: {', '.join(layer.shown for layer in fits)}",
            f"one, or one that is called {' or '.join((member.name, *member.aliases))}",
            "add the right one's name to the member's aliases",
        )
    there = "; ".join(f"{layer.shown} ({layer.geometry}: {', '.join(layer.fields) or 'no field'})" for layer in layers[:20])
    raise MemberError(
        f"{archive}: no layer of polygons has the fields {fields}; there is {there or 'no map data'}",
        "one",
        "add the new name of a field to its column's aliases, or ask the publisher",
    )
