"""Every error this package raises on purpose, and the reason codes that reach users.

Belongs here: the error tree and the enum of reason codes. Does not belong: handling of errors.

    PathassetsError                 what, where, and what to do next
    ├── StudyError                  the study cannot start (exit code 2)
    │   ├── ConfigError             pathassets.toml or a manifest says something impossible (also ValueError)
    │   ├── StoreError              the store cannot be written or does not hold what it says (also OSError)
    │   └── StoreUnreachableError   the store does not answer: nothing is known of what it holds
    ├── SlideError                  one slide cannot go on; the others do (also ValueError)
    └── EncoderError                an encoder cannot be had or used (also RuntimeError)
        ├── UnknownEncoderError     no card has this name (also KeyError)
        └── TextTowerError          an encoder's tiles cannot be compared with words; tiles alone are not concerned

Each carries a `Reason`, the same code that stands in the table `outcomes`.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Machine-readable reasons; the column `reason` of `outcomes`. Lower-case, stable, never re-used."""

    FILE_MISSING = "file_missing"
    FILE_EMPTY = "file_empty"
    FILE_UNREADABLE = "file_unreadable"
    FILE_CHANGED = "file_changed"
    NOT_A_SLIDE = "not_a_slide"
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    PIXELS_UNREADABLE = "pixels_unreadable"
    MPP_MISSING = "mpp_missing"
    MPP_FROM_POWER = "mpp_from_power"
    MPP_IMPLAUSIBLE = "mpp_implausible"
    MPP_ANISOTROPIC = "mpp_anisotropic"
    RESOLUTION_TOO_COARSE = "resolution_too_coarse"
    RESOLUTION_UPSAMPLED = "resolution_upsampled"
    POWER_MISSING = "power_missing"
    LEVEL_MISSING = "level_missing"
    MASK_UNREADABLE = "mask_unreadable"
    NO_TISSUE = "no_tissue"
    NO_TILES = "no_tiles"
    TOO_FEW_TILES = "too_few_tiles"
    BAD_TILES = "bad_tiles"
    PLAN_CHANGED = "plan_changed"
    PRECISION_LOW = "precision_low"
    TOO_MANY_BAD_TILES = "too_many_bad_tiles"
    UNKNOWN_WORDS = "unknown_words"
    WEIGHTS_MISSING = "weights_missing"
    WEIGHTS_MISMATCH = "weights_mismatch"
    TEXT_TOWER_MISSING = "text_tower_missing"
    TOKENIZER_MISSING = "tokenizer_missing"
    TOKENIZER_MISMATCH = "tokenizer_mismatch"
    ENCODER_UNKNOWN = "encoder_unknown"
    ENCODER_MISMATCH = "encoder_mismatch"
    TILING_MISMATCH = "tiling_mismatch"
    TOO_FEW_SLIDES = "too_few_slides"
    ENCODER_FAILED = "encoder_failed"
    NON_FINITE = "non_finite"
    OUT_OF_MEMORY = "out_of_memory"
    DEVICE_MISSING = "device_missing"
    DISK_FULL = "disk_full"
    STORE_READ_ONLY = "store_read_only"
    STORE_UNREACHABLE = "store_unreachable"
    STORE_CORRUPT = "store_corrupt"
    LOCKED = "locked"
    CONFIG_INVALID = "config_invalid"
    MANIFEST_INVALID = "manifest_invalid"
    UPSTREAM_FAILED = "upstream_failed"
    INTERNAL = "internal"


class PathassetsError(Exception):
    """What happened, where, and what to do next.

    Args:
        message: What happened and where, one sentence.
        reason: The code that programs act on.
        remedy: What the user can do, one sentence; empty when there is nothing to do.
    """

    def __init__(self, message: str, *, reason: Reason, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]" + (f" {self.remedy}" if self.remedy else "")


class StudyError(PathassetsError):
    """The study as a whole cannot start or go on."""


class ConfigError(StudyError, ValueError):
    """`pathassets.toml`, an option or a manifest says something impossible."""

    def __init__(self, message: str, *, reason: Reason = Reason.CONFIG_INVALID, remedy: str = "") -> None:
        super().__init__(message, reason=reason, remedy=remedy)


class StoreError(StudyError, OSError):
    """The store cannot be written or does not hold what it says."""


class StoreUnreachableError(StudyError):
    """The store does not answer. No `StoreError`: nothing may be made again, or removed, because it could not be asked."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message, reason=Reason.STORE_UNREACHABLE, remedy=remedy)


class SlideError(PathassetsError, ValueError):
    """One slide cannot go on; it becomes a row in `outcomes` and the others go on."""


class EncoderError(PathassetsError, RuntimeError):
    """An encoder cannot be built, loaded or run."""


class UnknownEncoderError(EncoderError, KeyError):
    """No card has this name."""


class TextTowerError(EncoderError):
    """Words cannot be embedded: there is no text tower, or it, its tokenizer or a library of theirs cannot be had."""
