"""Session: what the steps of one run share: the study, the store, loaded encoders, the manifest, who is watching.

Belongs here: things that are opened once and used by many slides. Does not belong: what a step does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pathassets import __version__
from pathassets.config import Study
from pathassets.errors import EncoderError, Reason, SlideError, TextTowerError
from pathassets.recipes import Recipe, digest, is_file, slide_vector_name
from pathassets.steps.annotations import annotation_path
from pathassets.steps.made_from import as_json, library_versions
from pathassets.steps.nodes import Node
from pathassets.steps.sources import slide_file
from pathassets.store import Root, Tables, layout, open_root
from pathassets.store.cache import file_sha256

if TYPE_CHECKING:
    from pathassets.encoders.encoder import Encoder
    from pathassets.encoders.slide.encoder import SlideEncoder
    from pathassets.slides import Manifest, Slide


class Watcher(Protocol):
    """Who is told how far a run is: a terminal's progress bar, or Dagster's log."""

    def slide(self, slide_id: str, step: str) -> None:
        """A step of a slide begins."""

    def tiles(self, slide_id: str, done: int, total: int) -> None:
        """`done` of `total` tiles are embedded."""

    def waits(self, what: str, holder: str) -> None:
        """Another process works on a slide, or has the device, and is waited for."""


class Silence:
    """A watcher that says nothing."""

    def slide(self, slide_id: str, step: str) -> None:
        """See `Watcher`."""

    def tiles(self, slide_id: str, done: int, total: int) -> None:
        """See `Watcher`."""

    def waits(self, what: str, holder: str) -> None:
        """See `Watcher`."""


@dataclass
class Session:
    """What a run's steps share.

    Attributes:
        study: The settings.
        run_id: Dagster's run, recorded in every row; None outside Dagster.
        watcher: Who is told about progress.
        force: Make results that are current again.
    """

    study: Study
    run_id: str | None = None
    watcher: Watcher = field(default_factory=Silence)
    force: bool = False
    _encoders: dict[str, Encoder] = field(default_factory=dict)
    _slide_encoders: dict[str, SlideEncoder] = field(default_factory=dict)
    _loading: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def root(self) -> Root:
        """The store."""
        return open_root(self.study.store_uri)

    @cached_property
    def tables(self) -> Tables:
        """The store's tables."""
        return Tables(self.root)

    @cached_property
    def manifest(self) -> Manifest:
        """`slides.csv` of the home folder; empty where there is none."""
        from pathassets.slides import read_manifest

        return read_manifest(self.study.manifest_path)

    def slide_row(self, slide_id: str) -> dict[str, Any]:
        """The slide's row of `slides`.

        Raises:
            SlideError: `file_missing` when no such slide was registered.
        """
        frame = self.tables.read("slides", slide_id)
        if frame is None or frame.is_empty():
            raise SlideError(
                f"no slide {slide_id!r} is registered in this study",
                reason=Reason.FILE_MISSING,
                remedy="Register it with `pathassets run PATH`.",
            )
        return frame.row(0, named=True)

    def manifest_entry(self, path: str) -> dict[str, Any]:
        """What the manifest says of a slide file; empty when it says nothing."""
        return self.manifest.lookup(path)

    def mask_path(self, slide_id: str) -> Path | None:
        """The mask file that the manifest names for a slide, relative to the home folder; else what was drawn for it."""
        named = self.manifest_entry(self.slide_row(slide_id)["path"]).get("tissue_mask")
        drawn = annotation_path(self.study.home, slide_id)
        return (self.study.home / str(named)).expanduser() if named else drawn if drawn.is_file() else None

    def file_sha256(self, path: Path) -> str | None:
        """Digest of a file; None where it cannot be read."""
        try:
            return file_sha256(path)
        except OSError:
            return None

    def encoder(self, recipe: Recipe) -> Encoder:
        """The recipe's encoder, loaded once for all slides and devices of the run."""
        which = (recipe.encoder, recipe.weights, recipe.tokenizer, recipe.random_weights, recipe.encoder_kwargs)
        key = digest(*which, recipe.embeddings)
        with self._loading:  # slides are begun side by side
            if key not in self._encoders:
                self._encoders.clear()  # one encoder in memory at a time: a foundation model fills a device alone
                self._encoders[key] = self._load(recipe)
            return self._encoders[key]

    def _load(self, recipe: Recipe) -> Encoder:
        from pathassets.encoders import load_encoder

        self._check_licence(recipe)
        found = load_encoder(
            recipe.encoder,
            weights=recipe.weights,
            random_weights=recipe.random_weights,
            tokenizer=recipe.tokenizer,
            device=self.study.device,
            precision=recipe.embeddings.precision,
            include_preds=recipe.embeddings.include_preds,
            dense=recipe.embeddings.dense,
            **recipe.encoder_kwargs,
        )
        check_pin(recipe, found.weights_sha256)
        return found

    def _check_licence(self, recipe: Recipe) -> None:
        """Refuses weights that `licences` does not allow, before they are fetched or used."""
        from pathassets.encoders import check_licence, get_card

        if self.study.licences and not recipe.random_weights:
            check_licence(get_card(recipe.encoder, recipe.encoder_kwargs), self.study.licences)

    def weights_sha256(self, recipe: Recipe, *, download: bool = False) -> str:
        """What identifies the recipe's weights, without building the network; noted for `remembered_weights`.

        Raises:
            EncoderError: `weights_missing`; `weights_mismatch` when they are not those that the recipe pins.
        """
        from pathassets.encoders import weights_digest

        self._check_licence(recipe)
        found = weights_digest(
            recipe.encoder,
            weights=recipe.weights,
            random_weights=recipe.random_weights,
            encoder_kwargs=recipe.encoder_kwargs,
            download=download,
        )
        check_pin(recipe, found)
        self._note(_weights_key(recipe), found)
        return found

    def slide_encoder(self, recipe: Recipe, method: str) -> SlideEncoder:
        """One of the recipe's slide encoders, loaded once for all slides of the run."""
        from pathassets.encoders.slide import load_slide_encoder

        weights, device = recipe.vectors.weights.get(method), self.study.device
        random = recipe.random_weights and weights is None
        key = digest(method, weights, random, device)
        with self._loading:
            if key not in self._slide_encoders:
                self._check_slide_licence(method, random=random)
                found = load_slide_encoder(method, weights=weights, random_weights=random, device=device)
                self._slide_encoders[key] = found
            return self._slide_encoders[key]

    def slide_weights(self, recipe: Recipe, *, download: bool = False) -> dict[str, str]:
        """What identifies the weights of the recipe's slide encoders, by method; noted for `remembered_slide_weights`."""
        from pathassets.encoders.slide import slide_weights_digest

        found = {}
        for method in recipe.vectors.encoders:
            weights = recipe.vectors.weights.get(method)
            random = recipe.random_weights and weights is None
            self._check_slide_licence(method, random=random)
            sha256 = slide_weights_digest(method, weights=weights, random_weights=random, download=download)
            found[slide_vector_name(method)] = sha256
        if found:
            self._note(_slide_weights_key(recipe), as_json(found))
        return found

    def _check_slide_licence(self, method: str, *, random: bool) -> None:
        from pathassets.encoders import check_licence
        from pathassets.encoders.slide import get_slide_card

        if self.study.licences and not random and not is_file(method):
            check_licence(get_slide_card(method), self.study.licences)

    def remembered_slide_weights(self, recipe: Recipe) -> Any:
        """What the last run found the weights of the recipe's slide encoders to be; see `remembered_weights`."""
        found = self.root.read_if_there(_slide_weights_key(recipe))
        return json.loads(found) if found else "not-seen-yet"

    def _note(self, key: str, text: str) -> None:
        self.root.put_if_changed(key, text.encode())

    def words_digest(self, recipe: Recipe) -> str | None:
        """What identifies how the recipe's encoder cuts words up; the reason, where it cannot; None where there is nothing to tell."""
        from pathassets.encoders import words_digest

        try:
            return words_digest(
                recipe.encoder, weights=recipe.weights, tokenizer=recipe.tokenizer, encoder_kwargs=recipe.encoder_kwargs
            )
        except TextTowerError as error:
            return str(error.reason)

    def remembered_weights(self, recipe: Recipe) -> str:
        """What the last run found the recipe's weights to be: definitions are loaded too often to hash gigabytes."""
        found = self.root.read_if_there(_weights_key(recipe))
        return found.decode() if found else "not-seen-yet"

    @contextmanager
    def open_slide(self, slide_id: str, *, watched: bool = False) -> Iterator[Slide]:
        """The slide's pixels, at the resolution that its row says.

        Args:
            slide_id: The slide.
            watched: Give it up when opening it, or one read, takes more than `stall_seconds`.

        Raises:
            SlideError: The file is gone, has changed since its id was made, or cannot be read.
        """
        from pathassets.slides import open_slide
        from pathassets.slides.watched import watched_slide

        row = self.slide_row(slide_id)
        if watched:
            with slide_file(self, row) as path, watched_slide(path, self.study.stall_seconds, mpp=row["mpp"]) as slide:
                yield slide
            return
        with slide_file(self, row) as path, open_slide(path, mpp=row["mpp"]) as slide:
            yield slide


def weights_keys(study: Study) -> set[str]:
    """Where the store notes what the weights of the study's recipes are."""
    return {key(recipe) for recipe in study.recipes for key in (_weights_key, _slide_weights_key)}


def check_pin(recipe: Recipe, found: str) -> None:
    """Refuses other weights than those that a recipe pins.

    Raises:
        EncoderError: `weights_mismatch`.
    """
    if not found.startswith(recipe.weights_sha256):
        raise EncoderError(
            f"the weights of {recipe.key} have the SHA-256 {found[:16]}…, and the recipe wants {recipe.weights_sha256[:16]}…",
            reason=Reason.WEIGHTS_MISMATCH,
            remedy="Bring the file that was meant; or correct `weights_sha256` of the recipe, if this one is.",
        )


def _weights_key(recipe: Recipe) -> str:
    token = digest(recipe.encoder, recipe.weights, recipe.random_weights, recipe.encoder_kwargs)
    return layout.cache_key("weights", token)


def _slide_weights_key(recipe: Recipe) -> str:
    return layout.cache_key("weights", digest("slide", recipe.vectors, recipe.random_weights))


def made_by(session: Session, node: Node, result_digest: str) -> dict[str, str | None]:
    """The columns by which every row says what made it."""
    return {
        "digest": result_digest,
        "code_version": node.options_digest,
        "run_id": session.run_id,
        "pathassets_version": __version__,
    }


def study_made_by(
    session: Session, result_digest: str, *, options: dict[str, Any], inputs: dict[str, Any], libraries: tuple[str, ...]
) -> dict[str, Any]:
    """The same for tables of the whole study, whose assets have no outcome to say what they were made from."""
    return {
        "digest": result_digest,
        "code_version": digest(options),
        "run_id": session.run_id,
        "pathassets_version": __version__,
        "options": as_json(options),
        "inputs": as_json(inputs),
        "libraries": library_versions(libraries),
    }
