"""File problems as `SlideError`s: what is wrong with a file, and what its user can do.

Belongs here: the wording and the reasons for files that are no readable slides. Does not belong: trying to read them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pathassets.errors import Reason, SlideError
from pathassets.slides.parts import missing_part

COPY_AGAIN = "Copy the file again from its source and compare the sizes."
CONVERT = (
    "Convert it to a tiled 8-bit RGB pyramid, for example with `vips tiffsave IN OUT.tif --tile --pyramid "
    "--compression jpeg --bigtiff`, and register the copy."
)

LINK = "Put back what the link leads to, or make the link anew."

# One tile is decoded at once: 64 Mpx are 192 MB. Larger "tiles" are whole images in a single strip, or lies.
MAX_TILE_PX = 2**26
_HEAD_BYTES = 4096
# How files begin that people take for slides; what is a slide is decided by the readers, this only names what is not.
_KINDS = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"ZISRAWFILE", "a Zeiss CZI file, which OpenSlide cannot read"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"<?xml", "an XML document"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
)
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_file(path: Path) -> os.stat_result:
    """The file's `stat`, once it is known to be a file with content that may be read.

    Raises:
        SlideError: `file_missing`, `not_a_slide` (a folder, a pipe), `file_empty`, `file_unreadable` (a folder that may not be entered
            too).
    """
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_size:
            with path.open("rb"):
                return found
        if stat.S_ISDIR(found.st_mode):
            os.scandir(path).close()  # one that may not be entered is no matter of its name
    except (OSError, ValueError) as error:
        raise os_problem(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no ordinary file"
        raise SlideError(
            f"{path} is {kind}, not a slide",
            reason=Reason.NOT_A_SLIDE,
            remedy="Rename it, or register the slide files themselves.",
        )
    raise SlideError(f"{path} is empty (0 bytes)", reason=Reason.FILE_EMPTY, remedy=COPY_AGAIN)


def os_problem(path: Path, error: Exception) -> SlideError:
    """What the operating system says about a file."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError):
        target = link_target(path)
        return SlideError(
            f"{path} is a link to {target}, which is not there" if target else f"{path} does not exist",
            reason=Reason.FILE_MISSING,
            remedy=LINK if target else "Put it back, or register it again where it is now.",
        )
    if isinstance(error, PermissionError):
        return SlideError(
            f"{path} may not be read by this user",
            reason=Reason.FILE_UNREADABLE,
            remedy="Give this user the right to read it (and to enter its folders).",
        )
    detail = getattr(error, "strerror", None) or str(error)
    return SlideError(
        f"{path} cannot be read: {detail}",
        reason=Reason.FILE_UNREADABLE,
        remedy="Check the disk or network drive that it is on.",
    )


def link_target(path: str | Path) -> str:
    """Where a link leads; empty for what is no link."""
    try:
        return os.readlink(path)
    except (OSError, ValueError):
        return ""


def is_tiff(path: Path) -> bool:
    """Whether the file begins as TIFF or BigTIFF files do."""
    return head(path)[:4] in TIFF_MAGIC


def head(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
        SlideError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise os_problem(path, error) from error


def unreadable(path: Path, cause: object, remedy: str = COPY_AGAIN) -> SlideError:
    """A slide that is damaged."""
    return SlideError(f"{path} cannot be opened: {cause}", reason=Reason.FILE_UNREADABLE, remedy=remedy)


def unsupported(path: Path, what: str) -> SlideError:
    """An image that is whole, of a kind whose colours would come out wrong."""
    return SlideError(f"{path} has {what}", reason=Reason.UNSUPPORTED_PIXELS, remedy=CONVERT)


def not_a_slide(path: Path) -> SlideError:
    """A file that no reader knows: named by what it lacks, or seems to be."""
    lacking = missing_part(str(path))
    if lacking:
        remedy = f"Copy the folder {Path(lacking).parent.name}/ with all its files to where {path.name} lies."
        return unreadable(path, f"it is only a part of its slide, and {lacking} is missing", remedy)
    start = head(path)
    if not start.strip(b"\0"):
        return unreadable(path, "it begins with zeros only, as files do whose copy did not finish")
    return SlideError(
        f"{path} is {_kind(start)}, not a whole-slide image",
        reason=Reason.NOT_A_SLIDE,
        remedy=f"Remove it from the folder. If it is a slide: {CONVERT[0].lower()}{CONVERT[1:]}",
    )


def _kind(start: bytes) -> str:
    if start[128:132] == b"DICM":
        return "a DICOM file"
    for magic, kind in _KINDS:
        if start.startswith(magic):
            return kind
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        # a multi-byte character cut at the end of the sample is still text
        return "of an unknown kind" if error.start < len(start) - 4 else "a text file"
    return "of an unknown kind" if b"\0" in start else "a text file"
