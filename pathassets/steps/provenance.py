"""Provenance: what each result was made from, by what and when, and whether it still is what would be made now.

Belongs here: the account of a slide's assets. Does not belong: assets of the whole study (`cohort_provenance`), names
(`naming`), printing (`cli`). Looking changes nothing: neither the store, nor what Dagster believes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from pathassets.errors import PathassetsError, StoreError
from pathassets.recipes import Recipe
from pathassets.steps.chain import digest_of, step_module
from pathassets.steps.consistency import STEP_OF, TABLES_OF, outcome_key, part_of
from pathassets.steps.made_from import inputs_of, options_of
from pathassets.steps.nodes import Node, Step, chain
from pathassets.steps.outcomes import Outcome
from pathassets.steps.repair import slide_findings
from pathassets.steps.session import Session
from pathassets.store import layout
from pathassets.store.census import take_census
from pathassets.store.verify import Finding

RUN = "`pathassets run` makes it."
IMPORT_AGAIN = "No run makes it; `pathassets import` takes in another file."
NOT_RECORDED = "was not recorded by the version that made it"
_ROW = ("uri", "n_tiles", "n_bad_tiles", "dim", "dtype", "tile_px", "mpp", "precision", "precision_cosine",
        "precision_max_rel_error", "compiled", "batch_size", "device", "encoder", "weights_sha256",
        "random_weights")  # fmt: skip


class State(StrEnum):
    """How a result stands to what would be made now."""

    CURRENT = "current"
    CHANGED = "changed"
    UPSTREAM = "upstream changed"
    MISSING = "missing"
    FAILED = "failed"
    DAMAGED = "damaged"
    NOT_ASKED = "not asked for"
    ADOPTED = "adopted"
    UNTOLD = "cannot be told"


BAD = {State.MISSING, State.FAILED, State.DAMAGED}


@dataclass(frozen=True)
class Change:
    """Something that a result was made from and that is another now.

    Attributes:
        name: An option, an input, or a version.
        before: What it was.
        now: What it is.
    """

    name: str
    before: Any
    now: Any


@dataclass(frozen=True)
class Account:
    """What there is to tell about an asset.

    Attributes:
        asset: Its key, as `<tiling>/<recipe>/<step>`.
        slide_id: The slide; None for assets of the whole study.
        state: How it stands to what would be made now.
        why: Why it is not simply current, and what is not plainly ok about it.
        remedy: What to do.
        changes: What has changed since.
        made: When, by which run, with which versions; its digests.
        options: Options in force when it was made.
        inputs: Digests of what it was made from.
        holds: What it consists of.
        upstream: The accounts of what it was made from.
    """

    asset: str
    slide_id: str | None
    state: State
    why: str = ""
    remedy: str = ""
    changes: tuple[Change, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    holds: Mapping[str, Any] = field(default_factory=dict)
    upstream: tuple[Account, ...] = ()


class Looking(Session):
    """A session that notes nothing: what it finds the weights to be is for this look alone."""

    def weights_sha256(self, recipe: Recipe, *, download: bool = False) -> str:
        """See `Session`."""
        from pathassets.encoders import weights_digest

        return weights_digest(
            recipe.encoder,
            weights=recipe.weights,
            random_weights=recipe.random_weights,
            encoder_kwargs=recipe.encoder_kwargs,
        )

    def _note(self, key: str, text: str) -> None:
        """See `Session`."""


class SlideBook:
    """All that is known of one slide's assets; reads each of its table files once.

    Args:
        session: The study.
        slide_id: A slide that is registered, or of which there are outcomes.
    """

    def __init__(self, session: Looking, slide_id: str) -> None:
        self.session, self.slide_id = session, slide_id
        self.nodes = {"/".join(node.key): node for node in chain(session.study)}
        self.census = take_census(session.root, slide_id)
        self.outcomes = {outcome_key(row): Outcome(**row) for row in self.census.outcomes}
        self._findings = list(slide_findings(session, self.census, deep=False))
        self._accounts: dict[str, Account] = {}

    @property
    def assets(self) -> list[str]:
        """The slide's assets: those asked for, then others that were made once."""
        return list(dict.fromkeys([*self.nodes, *self.outcomes]))

    def account(self, asset: str) -> Account:
        """What there is to tell about an asset and all that it was made from."""
        if asset not in self._accounts:
            self._accounts[asset] = self._make(asset)
        return self._accounts[asset]

    def file(self) -> dict[str, Any]:
        """The slide's file, as its row says; empty where that cannot be read."""
        try:
            frame = self.session.tables.read("slides", self.slide_id)
        except StoreError:
            return {}
        return {} if frame is None or frame.is_empty() else frame.row(0, named=True)

    def _make(self, asset: str) -> Account:
        node, outcome = self.nodes.get(asset), self.outcomes.get(asset)
        upstream = self._upstream(node, outcome)
        if outcome is None:
            why, remedy = _never_made(upstream)
            return Account(asset, self.slide_id, State.MISSING, why, remedy, upstream=upstream)
        told = _told(asset, outcome, upstream, self._holds(node, outcome))
        damage = [finding for finding in self._findings if self._is_about(finding, outcome)]
        if damage:
            why = "; ".join(f"{finding.key} {finding.message}" for finding in damage)
            return replace(told, state=State.DAMAGED, why=why, remedy=damage[0].remedy)
        if not outcome.usable:
            return told
        if node is None:
            return self._unasked(told)
        return self._compared(told, node, outcome)

    def _unasked(self, told: Account) -> Account:
        """Of what no recipe of the settings asks for: adopted, made of what was adopted, or left over."""
        if told.options.get("adopted_from"):
            return replace(told, state=State.ADOPTED, why=_adopted_from(told), remedy=told.remedy or IMPORT_AGAIN)
        adopted = next((parent for parent in told.upstream if parent.state is State.ADOPTED), None)
        if adopted is not None:
            return replace(told, state=State.ADOPTED, why=f"made here of what was adopted: {_adopted_from(adopted)}")
        why = "nothing in pathassets.toml asks for it any more"
        return replace(told, state=State.NOT_ASKED, why=why, remedy="Name its recipe there again to keep it current.")

    def _upstream(self, node: Node | None, outcome: Outcome | None) -> tuple[Account, ...]:
        """Of an asset that nobody asks for any more, what it was made from as it was recorded."""
        if node is None:
            inputs = json.loads(outcome.inputs) if outcome is not None and outcome.inputs else {}
            return tuple(self.account(name) for name in inputs if name in self.outcomes)
        upstream = tuple(self.account("/".join(parent.key)) for parent in node.upstream)
        if node.step is Step.TEXT_SIMILARITY and node.recipe is not None:
            from pathassets.steps.cohort_provenance import terms_account

            return (*upstream, terms_account(self.session, node.recipe))
        return upstream

    def _compared(self, told: Account, node: Node, outcome: Outcome) -> Account:
        """Held against what would be made now."""
        above = {parent.key: self.outcomes.get("/".join(parent.key)) for parent in node.upstream}
        digests = {key: str(found.result_digest) for key, found in above.items() if found is not None}
        try:
            own = step_module(node.step).inputs(self.session, self.slide_id, node)
        except PathassetsError as error:
            return replace(told, state=State.UNTOLD, why=error.message, remedy=error.remedy)
        if digest_of(self.slide_id, node, digests, own) != outcome.digest:
            found = option_changes(asdict(outcome), options_of(node), inputs_of(node.step, digests, own))
            changes = found or (Change("code version", outcome.code_version, node.options_digest),)
            return replace(told, state=State.CHANGED, changes=changes, remedy=RUN)
        late = [account.asset for account in told.upstream if account.state is not State.CURRENT]
        if late:
            why = f"{', '.join(late)} is not current: it may have to be made again after it"
            return replace(told, state=State.UPSTREAM, why=why, remedy=RUN)
        return told

    def _is_about(self, finding: Finding, outcome: Outcome) -> bool:
        row = asdict(outcome)
        keys = {layout.table_key(table, self.slide_id, part_of(row)) for table in TABLES_OF.get(outcome.step, ())}
        groups = tuple(named.home.removesuffix("zarr") for named in self.census.named if named.file in keys)
        if outcome.step == Step.TISSUE:
            keys.add(layout.tissue_labels_key(self.slide_id))
        return finding.key in keys or (bool(groups) and finding.key.startswith(groups))

    def _holds(self, node: Node | None, outcome: Outcome) -> dict[str, Any]:
        part = part_of(asdict(outcome))
        holds: dict[str, Any] = {}
        for table in TABLES_OF.get(outcome.step, ()):
            facts = self.census.files.get(layout.table_key(table, self.slide_id, part))
            if facts is not None and table != "embeddings":
                holds[f"rows of {table}"] = facts.rows
        for named in self.census.named:
            if (named.row["recipe"], STEP_OF[named.table]) != (outcome.recipe, outcome.step):
                continue
            if named.is_embeddings:
                holds |= {name: named.row[name] for name in _ROW} | self._card(node, named.row["encoder"])
            else:
                holds[f"arrays {named.row['name']}"] = {"uri": named.row["uri"], "contents": named.row["contents"]}
        return holds

    def _card(self, node: Node | None, encoder: str) -> dict[str, Any]:
        """The encoder's card, as it was published; a named encoder's own where nothing was."""
        cards = self.session.tables.read("encoders")
        found = cards.filter(name=encoder).to_dicts() if cards is not None else []
        if not found:
            from pathassets.encoders import list_cards

            found = [card.to_row() for card in list_cards() if card.name == encoder]
        return {"card": {name: value for name, value in found[0].items() if value is not None}} if found else {}


def option_changes(row: Mapping[str, Any], options: Mapping[str, Any], inputs: Mapping[str, Any]) -> tuple[Change, ...]:
    """What a row's options and inputs were and are now, where that is another thing.

    Args:
        row: With `options` and `inputs` as they were recorded.
        options: Of now.
        inputs: Of now.
    """
    if row["options"] is None or row["inputs"] is None:
        return (Change("what it was made from", NOT_RECORDED, None),)
    before = {**json.loads(row["options"]), **json.loads(row["inputs"])}
    now = json.loads(json.dumps({**options, **inputs}, default=str))  # as it would be recorded
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return tuple(Change(name, before.get(name), now.get(name)) for name in names)


def _never_made(upstream: tuple[Account, ...]) -> tuple[str, str]:
    """Why an asset is not there, and what to do: where something above it has failed, a run alone does not help."""
    failed = _failed_above(upstream)
    if failed is None:
        return "was never made", RUN
    return f"was never made, because {failed.asset} failed: {failed.why}", failed.remedy or RUN


def _failed_above(upstream: tuple[Account, ...]) -> Account | None:
    """The first step above that failed, nearest to the slide's file."""
    for account in upstream:
        found = _failed_above(account.upstream) or (account if account.state is State.FAILED else None)
        if found is not None:
            return found
    return None


def _adopted_from(account: Account) -> str:
    """Which file adopted results came from, by the hash that says whether it is still the same one."""
    options, sha256 = account.options, account.inputs.get("file_sha256", "?")
    return f"{options['adopted_from']} file with sha256 {sha256}, said to be made by {options.get('encoder', 'nobody knows what')}"


def _told(asset: str, outcome: Outcome, upstream: tuple[Account, ...], holds: dict[str, Any]) -> Account:
    """What the outcome itself says."""
    state = State.CURRENT if outcome.usable else State.FAILED
    why, remedy = outcome.message or "", outcome.remedy or ""
    if outcome.reason:
        why = f"{why} [{outcome.reason}]".strip()
    options = json.loads(outcome.options) if outcome.options else {}
    made = {
        "at": outcome.created_at,
        "run_id": outcome.run_id,
        "seconds": outcome.seconds,
        "status": outcome.status,
        "digest": outcome.digest,
        "result_digest": outcome.result_digest,
        "code_version": outcome.code_version,
        "algorithm_version": options.pop("algorithm_version", None),
        "pathassets_version": outcome.pathassets_version,
        "libraries": json.loads(outcome.libraries) if outcome.libraries else {},
    }
    inputs = json.loads(outcome.inputs) if outcome.inputs else {}
    return Account(asset, outcome.slide_id, state, why, remedy, (), made, options, inputs, holds, upstream)
