"""Opening a slide: which reader takes it, and in which words it is refused.

Belongs here: the chain of readers and the trial read. Does not belong: the readers, the wording (`problems`).

A file is what its content says, whatever its name. OpenSlide is asked first; what it refuses may be a TIFF that the
second reader understands. Before a slide counts as open, some of its pixels have been decoded: there are files that open
and hold none.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pathassets.errors import PathassetsError, SlideError
from pathassets.slides.compressed_tiles import make_fast
from pathassets.slides.info import make_info
from pathassets.slides.ome import parse_ome
from pathassets.slides.openslide_reader import OpenSlideReader
from pathassets.slides.problems import check_file, is_tiff, not_a_slide, os_problem, unreadable
from pathassets.slides.reader import Reader
from pathassets.slides.slide import Slide
from pathassets.slides.tiff_index import check_pixels, check_whole, is_scrambled_by_openslide, open_tiff
from pathassets.slides.tiff_reader import TiffReader

# Where one decoded pixel proves that a level can be read: the middle, and a quarter in from each corner.
_TRIALS = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
# Files of these makers are plain TIFF all through, so that their index can be checked against their size.
_PLAIN_TIFFS = ("generic-tiff", "aperio")


def open_slide(path: str | Path, *, mpp: float | None = None, exact: bool = False) -> Slide:
    """Opens a whole-slide image.

    Args:
        path: The file; for formats of many files the one that OpenSlide wants (`.mrxs`, any `.dcm` of the series).
        mpp: Resolution of level 0 in µm/px that the manifest gives; wins over what the file says.
        exact: Decode tiles at full size always, also where a half, quarter or eighth of it is asked for. Decoding them
            smaller costs less and differs from the mean over blocks, in the mean over sharp tissue, by less than a grey level
            (JPEG), or by up to 2.3 at half size and 0.9 at a quarter (JPEG2000).

    Returns:
        The slide. Its resolution may be missing or implausible: `check_mpp(slide.info)` refuses that.

    Raises:
        SlideError: `file_missing`, `file_empty`, `file_unreadable`, `not_a_slide` or `unsupported_pixels`, each with what
            the user can do.
    """
    path = Path(path).absolute()
    size_bytes = check_file(path).st_size
    reader = _open_reader(path, exact)
    try:
        _try_pixels(path, reader)
    except SlideError:
        reader.close()
        raise
    return Slide(
        reader, make_info(path, reader.name, reader.facts, mpp=mpp, size_bytes=size_bytes, decoder=reader.decoder)
    )


def _open_reader(path: Path, exact: bool) -> Reader:
    try:
        reader = OpenSlideReader(path)
    except SlideError:
        raise
    except Exception as error:  # noqa: BLE001  # OpenSlide's refusals, and what ctypes makes of a hostile header
        return _second_reader(path, error)
    try:
        if reader.facts.vendor in _PLAIN_TIFFS and is_tiff(path):
            return _checked(path, reader, exact)
    except SlideError:
        reader.close()
        raise
    return reader


def _second_reader(path: Path, refusal: Exception) -> Reader:
    from openslide import OpenSlideUnsupportedFormatError

    if is_tiff(path):
        return TiffReader(path)
    if isinstance(refusal, OpenSlideUnsupportedFormatError):
        raise not_a_slide(path) from refusal
    if isinstance(refusal, OSError):
        raise os_problem(path, refusal) from refusal
    raise unreadable(path, refusal) from refusal


def _checked(path: Path, reader: OpenSlideReader, exact: bool) -> Reader:
    """The reader for a plain TIFF that OpenSlide opens, once its index is known to be whole and its colours to be RGB.

    An OME-TIFF hides its coarser levels and its resolution where OpenSlide does not look; and some TIFFs OpenSlide shows
    with every tile upside down. Those go to the second reader.
    """
    with open_tiff(path) as tiff:
        page = tiff.pages.first
        check_pixels(path, page)
        reader.beyond = check_whole(path, tiff)
        scrambled = is_scrambled_by_openslide(page)
        hides_levels = len(reader.facts.level_dimensions) == 1 and bool(page.subifds)
        if tiff.is_ome:
            mpp, power = parse_ome(tiff.ome_metadata)
            reader.facts = replace(reader.facts, vendor_mpp=mpp, objective_power=power)
        if not (scrambled or hides_levels):
            return make_fast(path, reader, tiff, exact=exact)
    try:
        better = TiffReader(path)
    except PathassetsError:
        if scrambled:
            raise
        return reader
    reader.close()
    return better


def _try_pixels(path: Path, reader: Reader) -> None:
    """Decodes a pixel of a level; one is enough, for a damaged tile must not cost the slide."""
    failure: Exception | None = None
    for level in reversed(range(len(reader.facts.level_dimensions))):
        width, height = reader.facts.level_dimensions[level]
        for x, y in _TRIALS:
            try:
                reader.read_level(level, int(x * width), int(y * height), 1, 1)
            except Exception as error:  # noqa: BLE001  # decoders raise what they like
                failure = error
            else:
                return
    raise unreadable(path, f"none of its pixels can be decoded ({failure})") from failure
