"""Reads the labelled set that a coordinator owns, and holds it against the run's own space."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedkd.cli.configuration import compose, options
from fedkd.cli.overrides import quoted
from fedkd.data import Card, Dataset
from fedkd.knowledge import BadInput, NotInSpace

if TYPE_CHECKING:
    from fedkd.cli.run import Run


def owned_dataset(run: "Run", data: str, path: Path | None) -> Dataset:
    """The set that `data` names: a yaml of conf/data (with `path`), a table, or a folder of images.

    `BadInput` where it is none, has another space than the run's, or holds the records that were
    dealt out to the hospitals.
    """
    dataset = _read(run, data, path)
    ours = run.dataset()
    mine, theirs = ours.space, dataset.space
    for what in ("kind", "shape", "dtype", "classes"):
        if getattr(mine, what) != getattr(theirs, what):
            raise BadInput(
                f"{data}, with {what} {getattr(theirs, what)}",
                f"{getattr(mine, what)}, as the federation's records have",
                "choose labelled records of the same kind",
            )
    parts = [part for part in (dataset.records, dataset.test) if part is not None]
    for part in parts:
        try:
            mine.check(part.inputs)
        except NotInSpace as error:
            raise BadInput(f"{data}, outside the federation's ranges", str(error)) from None
    if dataset.digest == ours.digest:
        raise BadInput(
            f"{data}, the records that were dealt out to the hospitals of this run",
            "a labelled set that the coordinator owns, and that nobody learnt from",
            "their figures on the held-out test are in summary.json",
        )
    return dataset


def _read(run: "Run", data: str, path: Path | None) -> Dataset:
    from fedkd.cli.run import dataset_of

    place = Path(data).expanduser()
    if path is None and place.is_file():
        return _table(run, place)
    if path is None and place.is_dir():
        return _pictures(run, place)
    if data not in options("data", run.config_dir):
        raise BadInput(
            f"--data {data}",
            "a table's file, a folder of images, or one of "
            + ", ".join(options("data", run.config_dir)),
        )
    return dataset_of(_spec(data, path, run.config_dir))


def _pictures(run: "Run", place: Path) -> Dataset:
    """A folder of pictures, in the size and colours of the run's own records."""
    from fedkd.cli.run import dataset_of
    from fedkd.data.mapped import in_form

    space, spec = run.dataset().space, _spec("image_folder", place)
    if space.kind != "image":
        return dataset_of(spec)
    read = dataset_of({**spec, "size": space.shape[-1], "grey": space.shape[0] == 1})
    return in_form(read, space)


def _spec(name: str, path: Path | None, config_dir: Path | None = None) -> dict[str, Any]:
    overrides = [f"data={name}"]
    if path is not None:
        overrides.append(f"data.path={quoted(str(path.expanduser().resolve()))}")
    spec: dict[str, Any] = compose(overrides, config_dir)["data"]
    return spec


def _table(run: "Run", place: Path) -> Dataset:
    """A table by the schema beside it, or else by the run's own, without the sites' column."""
    from fedkd.data.sources.table import NOT_STATED, table
    from fedkd.data.tables import dataset_from_frame, read_table

    schema = run.dataset().schema
    if place.with_name(place.name + ".schema.yaml").is_file():
        return table(str(place))
    if schema is None:
        raise BadInput(f"the table {place}", "what the run's records are, which are no table")
    stated = dict.fromkeys(("version", "licence", "legal_basis", "origin"), NOT_STATED)
    card = Card(name=place.name, modality="table", **stated)
    alone = replace(schema, site=None)
    return dataset_from_frame(read_table(place, alone), alone, card)
