"""The commands export, import, report and embed-patches, with their arguments.

Belongs here: one function per command, thin. Does not belong: what they do (`exporting`, `importing`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pathassets.cli.arguments import AsJson, Home, study_at


def export_results(
    form: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="anndata, anndata-zarr, trident, slideflow, tiatoolbox, spatialdata, qupath, png, parquet or csv.",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="The folder to write to.")],
    home: Home = None,
    slide: Annotated[
        list[str] | None, typer.Option(help="Only this slide (id or its beginning, file, path). May be repeated.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Only this recipe, `<tiling>/<name>` or its name.")] = None,
    table: Annotated[
        list[str] | None, typer.Option(help="For parquet and csv: only this table. May be repeated.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="For png: width in pixels; without it at most 512 a side.", min=64, max=8192)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that hold something else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write results as files of other tools, each whole or not at all."""
    from pathassets.cli.exporting import ExportRequest, export_study

    names, tables = tuple(slide or ()), tuple(table or ())
    request = ExportRequest(form, to, names, recipe, tables, width=width, force=force, as_json=as_json)
    raise typer.Exit(export_study(study_at(home), request))


def import_results(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="qupath, trident (or CLAM) or slideflow.")],
    path: Annotated[Path, typer.Argument(help="The file: .geojson, .h5 or .pt.")],
    slide: Annotated[str, typer.Option(help="The slide that it belongs to: id or its beginning, file, path.")],
    home: Home = None,
    encoder: Annotated[str | None, typer.Option(help="What made the features.")] = None,
    name: Annotated[str | None, typer.Option(help="The recipe's name; the encoder's by default.")] = None,
    tile_px: Annotated[
        int | None, typer.Option(help="Tile edge, where the file does not say it.", min=8, max=8192)
    ] = None,
    mpp: Annotated[
        float | None, typer.Option(help="µm per pixel of tiles, where the file does not say it.", min=0.05, max=100)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier drawing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take in tissue drawn in QuPath, or features that another tool computed."""
    from pathassets.cli.importing import ImportRequest, import_file

    request = ImportRequest(form, path, slide, encoder, name, tile_px, mpp, force=force, as_json=as_json)
    raise typer.Exit(import_file(study_at(home), request))


def report(
    to: Annotated[Path, typer.Option("--to", help="The HTML file to write.")],
    slide: Annotated[str | None, typer.Argument(help="The slide: id or its beginning, file, path.")] = None,
    home: Home = None,
    cohort: Annotated[bool, typer.Option("--cohort", help="About the whole study.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that holds something else.")] = False,
) -> None:
    """One HTML file about a slide or the study, with pictures, that opens offline."""
    from pathassets.cli.exporting import report_study

    raise typer.Exit(report_study(study_at(home), slide, to, cohort=cohort, force=force))


def embed_folder(
    folder: Annotated[
        Path, typer.Argument(help="PNG, JPEG and TIFF pictures, in subfolders too; hidden files are passed over.")
    ],
    encoder: Annotated[str, typer.Option(help="Encoder to use; `pathassets encoders` lists them.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .h5ad or .parquet.")],
    weights: Annotated[Path | None, typer.Option(help="Local weight file of the encoder.")] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Use untrained weights.")] = False,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Embed a folder of patches into one file, without a study."""
    from pathassets.cli.exporting import embed_patches_to

    raise typer.Exit(
        embed_patches_to(
            folder, out, encoder, weights, random_weights=random_weights, device=device, force=force, as_json=as_json
        )
    )


COMMANDS: dict[str, Callable[..., None]] = {
    "export": export_results,
    "import": import_results,
    "report": report,
    "embed-patches": embed_folder,
}
