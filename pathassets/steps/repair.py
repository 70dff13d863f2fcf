"""Repair: results that cannot be used are marked as to be made again, so that the next run makes them.

Belongs here: taking back what is damaged, with the outcome that vouches for it; putting back a row that the snapshot still has.
Does not belong: finding damage (`store/verify.py`, `consistency`), making results (a run does), slides' files.

Nothing is invented: a row that is put back is the published one, and names arrays that are whole. An outcome goes before its
results, so that a repair that is killed leaves a state that the next run, or the next repair, understands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import polars as pl

from pathassets.errors import PathassetsError, Reason, StoreError
from pathassets.steps.consistency import STEP_OF, TABLES_OF, check_outcomes
from pathassets.steps.nodes import Step
from pathassets.steps.session import Session
from pathassets.store import layout
from pathassets.store.census import NAMING, Census, Named, take_census
from pathassets.store.garbage import Kind, Waste, remove
from pathassets.store.groups import delete_group, is_done
from pathassets.store.query import query
from pathassets.store.verify import Fault, Finding, check_group, check_tables

_LEFTOVERS = {Fault.TEMPORARY: Kind.TEMPORARY, Fault.LOCK: Kind.LOCK}
PASSES = 3
AGAIN = "the next run makes it again"


@dataclass(frozen=True)
class Deed:
    """What a repair did about something.

    Attributes:
        key: What it is about.
        done: What was done, in words.
        repaired: Whether that was all there is to do; else its remedy is still to be followed.
    """

    key: str
    done: str
    repaired: bool = True


def repair(session: Session, findings: Iterable[Finding], *, deep: bool = False) -> list[Deed]:
    """Takes back what is damaged and removes what was left half-written.

    Args:
        session: The study.
        findings: What a check found.
        deep: Look at every byte again, as the check did.

    Returns:
        What was done, and what could not be.
    """
    findings = list(findings)
    slides = sorted({finding.slide_id for finding in findings if finding.slide_id and not finding.harmless})
    deeds = [deed for slide_id in slides for deed in _repair_slide(session, slide_id, deep)]
    for finding in findings:
        if finding.slide_id is None or finding.fault in _LEFTOVERS:
            deeds += _repair_other(session, finding)
    return deeds


def slide_findings(session: Session, census: Census, *, deep: bool) -> Iterator[Finding]:
    """What is wrong with the tables, groups and outcomes in a census."""
    yield from check_tables(census)
    for named in census.named:
        yield from check_group(session.root, named, deep=deep)
    yield from check_outcomes(session.root, census)


def _repair_slide(session: Session, slide_id: str, deep: bool) -> Iterator[Deed]:
    """Looks again under the slide's lock: what was found may have been made again since."""
    try:
        with session.root.lock(layout.slide_lock(slide_id)):
            for _ in range(PASSES):
                bench = _Bench(session, slide_id)
                findings = list(slide_findings(session, bench.census, deep=deep))
                if not findings:
                    return
                yield from filter(None, map(bench.mend, findings))
                deep = False  # bytes do not change; what else follows from what was taken back
    except StoreError as error:
        if error.reason is not Reason.LOCKED:
            raise
        yield Deed(slide_id, f"left alone: {error.message}", repaired=False)


class _Bench:
    """One slide under repair, its lock held."""

    def __init__(self, session: Session, slide_id: str) -> None:
        self.session, self.slide_id = session, slide_id
        self.root, self.tables = session.root, session.tables
        self.census = take_census(session.root, slide_id)
        self._handled: set[str] = set()

    def mend(self, finding: Finding) -> Deed | None:
        """What was done about a finding; None when it went with another."""
        key = finding.key
        named = next((n for n in self.census.named if key.startswith(_stem(n.home))), None)
        about = named.home if named is not None and key.startswith("arrays/") else key
        if about in self._handled:
            return None
        self._handled.add(about)
        if key.startswith("tables/"):
            return self._mend_file(finding)
        if key.startswith("arrays/") and named is not None:
            return self._drop_group(named)
        if key == layout.tissue_labels_key(self.slide_id):
            self._take_back(Step.TISSUE, layout.SHARED_PART)
            self.root.delete(key)
            return Deed(key, f"removed with the pieces of tissue: {AGAIN}")
        return Deed(key, "nothing here can repair it", repaired=False)

    def _mend_file(self, finding: Finding) -> Deed:
        table, part = (layout.table_slide(finding.key) or ("", None))[0], layout.table_part(finding.key)
        if table == "slides":
            return self._mend_slide_row(finding.key)
        if table == "outcomes" or finding.fault is Fault.UNPROVED:
            step = STEP_OF.get(table)
            if self._outcomes_put_back(part, step):
                return Deed(finding.key, "vouched for again by the outcome that was published")
        if table in NAMING and self._linked_again(table, part):
            return Deed(finding.key, "put back as it was published: its arrays are whole")
        if table in STEP_OF:
            self._take_back(STEP_OF[table], part)
        self.tables.delete(table, self.slide_id, part)
        return Deed(finding.key, f"removed with what was made beside it: {AGAIN}")

    def _outcomes_put_back(self, part: str, step: Step | None) -> bool:
        """Whether the published outcomes of a part fit the rows that are there; of those that do, whether `step` is one."""
        tiling, _, recipe = part.partition("__")
        where = (
            "recipe = ?"
            if recipe
            else "tiling = ? AND recipe IS NULL"
            if part != layout.SHARED_PART
            else "tiling IS NULL"
        )
        values = [f"{tiling}/{recipe}"] if recipe else [part] if part != layout.SHARED_PART else []
        rows = self._published("outcomes", f"slide_id = ? AND {where}", [self.slide_id, *values])
        if rows is None:
            return False
        try:
            there = self.tables.read("outcomes", self.slide_id, part)
        except StoreError:
            there = None
        missing = rows if there is None else pl.concat([there, rows.join(there, on="step", how="anti")], how="diagonal")
        census = replace(self.census, unreadable={}, outcomes=missing.to_dicts())
        wrong = {finding.key for finding in check_outcomes(self.root, census)}
        fitting = missing.filter([not wrong & self._keys_of(str(name), part) for name in missing["step"]])
        if fitting.is_empty() or (step is not None and step not in fitting["step"]):
            return False
        self.tables.write("outcomes", fitting, slide_id=self.slide_id, part=part)
        return True

    def _keys_of(self, step: str, part: str) -> set[str]:
        return {layout.table_key(table, self.slide_id, part) for table in TABLES_OF.get(step, ())}

    def _take_back(self, step: Step, part: str) -> None:
        """The outcome first, then the rows: what vouches for a result is never there without it."""
        self._forget_outcome(step, part)
        for table in TABLES_OF[step]:
            self.tables.delete(table, self.slide_id, part)

    def _mend_slide_row(self, key: str) -> Deed:
        self._forget_outcome(Step.SLIDE, layout.SHARED_PART)
        row = self._published("slides", "slide_id = ?", [self.slide_id])
        if row is not None:
            self.tables.write("slides", row, slide_id=self.slide_id)
            return Deed(key, "put back as it was published; the next run opens the slide again")
        self.root.delete(key)
        lost = "removed; nothing here knows where the slide's file lies: `pathassets run FILE` finds all results again"
        return Deed(key, lost, repaired=False)

    def _linked_again(self, table: str, part: str) -> bool:
        """Whether the published row fits the outcome and a finished group, and was put back."""
        recipe = part.replace("__", "/")
        row = self._published(table, "slide_id = ? AND recipe = ?", [self.slide_id, recipe])
        if row is None or row.height != 1:
            return False
        digest = str(row["digest"][0])
        name = str(row["name"][0]) if "name" in row.columns else layout.EMBEDDINGS
        first, again = layout.group_places(self.slide_id, digest, name)
        home = again if is_done(self.root, again) and not is_done(self.root, first) else first
        said = {
            o["result_digest"] for o in self.census.outcomes if (o["recipe"], o["step"]) == (recipe, STEP_OF[table])
        }
        named = Named(home, home, layout.table_key(table, self.slide_id, part), row.row(0, named=True))
        if digest not in said or not is_done(self.root, home) or any(check_group(self.root, named)):
            return False
        self.tables.write(table, row.with_columns(uri=pl.lit(home)), slide_id=self.slide_id, part=part)
        return True

    def _published(self, table: str, where: str, values: list[str]) -> pl.DataFrame | None:
        """Rows of the snapshot, as they would be written; None where it has none or cannot be read."""
        quoted = [value.replace("'", "''") for value in values]
        for value in quoted:
            where = where.replace("?", f"'{value}'", 1)
        try:
            frame = query(self.session.study.home, f"SELECT * FROM main.{table} WHERE {where}", root=self.root)
        except PathassetsError:
            return None
        return None if frame.is_empty() else frame

    def _drop_group(self, named: Named) -> Deed:
        """The row before the arrays: it never names what is going away."""
        self._take_back(STEP_OF[named.table], layout.table_part(named.file))
        _, slide_id, digest, file = named.home.split("/")
        with self.root.lock(layout.array_lock(slide_id, digest, file.removesuffix(".zarr"))):
            delete_group(self.root, named.home)
        return Deed(named.home, f"removed with its row: {AGAIN}")

    def _forget_outcome(self, step: Step, part: str) -> None:
        """Removes a step's outcome, so that it is not current; a file that cannot be read goes as a whole."""
        try:
            frame = self.tables.read("outcomes", self.slide_id, part)
        except StoreError:
            self.tables.delete("outcomes", self.slide_id, part)
            return
        if frame is None:
            return
        kept = frame.filter(pl.col("step") != str(step))
        if kept.is_empty():
            self.tables.delete("outcomes", self.slide_id, part)
        else:
            self.tables.write("outcomes", kept, slide_id=self.slide_id, part=part)


def _repair_other(session: Session, finding: Finding) -> Iterator[Deed]:
    """What belongs to no slide: tables of the study, leftovers, the snapshot."""
    root, key = session.root, finding.key
    if finding.fault in _LEFTOVERS:
        gone = remove(root, Waste(_LEFTOVERS[finding.fault], key, 0, 0.0))
        yield Deed(key, "removed") if gone else Deed(key, "left alone: it is in use", repaired=False)
    elif finding.fault is Fault.UNREADABLE and key.startswith("tables/"):
        root.delete(key)
        yield Deed(key, f'removed: {AGAIN}, with --select "*"')
    elif finding.fault is Fault.SNAPSHOT:
        layout.published_path(session.study.home).unlink(missing_ok=True)
        yield Deed(key, "will be made from nothing by the next run, or by `pathassets publish`")


def _stem(group: str) -> str:
    return group.removesuffix(".zarr") + "."
