"""`pathassets explain`: what a slide's asset, an asset of the study, or a digest came from.

Belongs here: choosing what is meant and laying it out for a terminal or a program. Does not belong: the facts
(`steps/provenance.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pathassets.cli.console import print_json, say
from pathassets.config import Study
from pathassets.errors import ConfigError
from pathassets.steps.cohort_provenance import cohort_accounts
from pathassets.steps.digests import Meaning, find_digest
from pathassets.steps.naming import (
    DIGEST,
    ambiguous,
    find_assets,
    find_slides,
    one_asset,
    one_slide,
    slide_names,
    unknown,
)
from pathassets.steps.nodes import chain
from pathassets.steps.provenance import BAD, Account, Looking, SlideBook, State
from pathassets.steps.sources import is_unread

FILE = ("path", "size_bytes", "content_sha256", "created_at", "vendor", "reader", "decoder", "width_px", "height_px", "mpp",
        "mpp_origin", "objective_power", "other_paths", "duplicate_of")  # fmt: skip
_LABEL = 24
SHOWN = 40  # --json has them all
_UNREAD = "never read: the id stands for the path; `pathassets run` reads it as soon as it can be read"


def explain(study: Study, name: str, asset: str | None, *, as_json: bool) -> int:
    """Tells what `name` (of its `asset`) came from; exit code 1 when that is missing, failed or damaged.

    Raises:
        ConfigError: Nothing, or more than one thing, is called so.
    """
    session = Looking(study)
    if asset is not None:
        return _tell_asset(session, one_slide(session, name), asset, as_json)
    cohort = cohort_accounts(session)
    slides, keys = find_slides(session, name), find_assets(cohort, name)
    digests = find_digest(session, name) if DIGEST.fullmatch(name) else []
    if slides and name != slides[0] and (keys or digests):
        raise ambiguous(name, [*slides, *keys, *(meaning.digest for meaning in digests)])
    if slides:
        return _tell_slide(SlideBook(session, one_slide(session, name)), as_json)
    if keys:
        return _tell_account(cohort[one_asset(cohort, name)](), as_json)
    if digests:
        return _tell_digests(session, digests, as_json)
    raise _unknown(session, name, cohort)


def _unknown(session: Looking, name: str, cohort: Iterable[str]) -> ConfigError:
    of_slides = ["/".join(node.key) for node in chain(session.study)]
    if find_assets(of_slides, name):
        return ConfigError(
            f"{name} is an asset of each slide", remedy=f"Name the slide: `pathassets explain SLIDE {name}`."
        )
    remedy = "Name a slide (id, file or path), an asset of the whole study, or a digest."
    return unknown("slide, asset or digest", name, [*slide_names(session), *cohort], remedy)


def _tell_asset(session: Looking, slide_id: str, asset: str, as_json: bool) -> int:
    book, cohort = SlideBook(session, slide_id), cohort_accounts(session)
    key = one_asset([*book.assets, *cohort], asset)
    account = cohort[key]() if key in cohort else book.account(key)
    return _tell_account(account, as_json, book.file() if account.slide_id else None)


def _tell_slide(book: SlideBook, as_json: bool) -> int:
    accounts, file = [book.account(asset) for asset in book.assets], book.file()
    if as_json:
        print_json({"slide_id": book.slide_id, "file": _file(file), "assets": [as_plain(a) for a in accounts]})
    else:
        say(book.slide_id)
        _print_pairs(_file(file) or {"file": "its row cannot be read: `pathassets verify`"})
        for account in accounts:
            say(f"  {account.asset:44} {_standing(account)}")
            for line in _reasons(account):
                say(f"      {line}")
    return 1 if any(account.state in BAD for account in accounts) else 0


def _tell_account(account: Account, as_json: bool, file: Mapping[str, Any] | None = None) -> int:
    if as_json:
        print_json(as_plain(account) | ({"file": _file(file)} if file is not None else {}))
    else:
        say(f"{account.asset}{f' of {account.slide_id}' if account.slide_id else ''}: {account.state}")
        for line in _reasons(account):
            say(f"  {line}")
        _print_pairs(_facts(account))
        if account.upstream:
            say("made from")
            for line in _tree(account, file or {}):
                say(f"  {line}")
    return 1 if account.state in BAD else 0


def _tell_digests(session: Looking, meanings: Sequence[Meaning], as_json: bool) -> int:
    """Everything that the digest is; where that is one asset of one slide, its account too."""
    owners = {(meaning.slide_id, meaning.asset) for meaning in meanings if meaning.asset and meaning.slides == 1}
    owner = next(iter(owners)) if len(owners) == 1 else (None, None)
    superseded = [meaning for meaning in meanings if meaning.key and not _is_named(session, meaning)]
    if as_json:
        found = [asdict(m) | {"superseded": m in superseded} for m in meanings]
        print_json({"meanings": found, "slide_id": owner[0], "asset": owner[1]})
        return 0
    for meaning in meanings:
        whose = meaning.slide_id or (f"{meaning.slides} slides" if meaning.slides > 1 else "")
        left = " (no row names it any more: `pathassets gc` removes it by age)" if meaning in superseded else ""
        what = " ".join(filter(None, (meaning.asset, f"of {whose}" if whose else "", meaning.key)))
        say(f"{meaning.digest}  {meaning.what}: {what}{left}")
    if owner[0] and owner[1]:
        say("")
        return _tell_asset(session, owner[0], owner[1], as_json=False)
    return 0


def _is_named(session: Looking, meaning: Meaning) -> bool:
    from pathassets.store.census import take_census

    return meaning.slide_id is not None and meaning.key in take_census(session.root, meaning.slide_id).groups()


def as_plain(account: Account) -> dict[str, Any]:
    """An account as JSON has it; what it was made from nested in it."""
    made = {name: _moment(value) for name, value in account.made.items()}
    return asdict(account) | {"made": made, "upstream": [as_plain(parent) for parent in account.upstream]}


def _file(row: Mapping[str, Any] | None) -> dict[str, Any]:
    found = {name: row[name] for name in FILE if row.get(name) not in (None, [])} if row else {}
    if row and is_unread(row):
        del found["content_sha256"]
        found["content"] = _UNREAD
    return {"registered_at" if name == "created_at" else name: _moment(value) for name, value in found.items()}


def _moment(value: Any) -> Any:
    """Tables keep UTC without saying so; whoever reads JSON is told."""
    return value.replace(tzinfo=UTC).isoformat() if isinstance(value, datetime) else value


def _standing(account: Account) -> str:
    made = account.made.get("at")
    return f"{account.state:9} {made:%Y-%m-%d %H:%M:%S} UTC" if made is not None else str(account.state)


def _reasons(account: Account) -> Iterator[str]:
    if account.why:
        yield account.why
    for change in account.changes:
        yield f"{change.name}: {_shown(change.before)} -> {_shown(change.now)}"
    if account.remedy and account.state is not State.CURRENT:
        yield account.remedy


def _facts(account: Account) -> dict[str, Any]:
    """The account in the order in which a person asks: when, by what, from what, what is there."""
    made = dict(account.made)
    at, run, seconds = made.pop("at", None), made.pop("run_id", None), made.pop("seconds", None)
    when = f"{at:%Y-%m-%d %H:%M:%S} UTC" if at is not None else "not recorded"
    took = f", in {seconds:.1f} s" if seconds is not None else ""
    libraries = made.pop("libraries", None) or {}
    holds = {name: value for name, value in account.holds.items() if value is not None}
    card = holds.pop("card", None)
    return {
        "made": f"{when}{took}{f', by run {run}' if run else ''}" if account.made else None,
        **made,
        "options": _pairs(account.options),
        **_options_above(account),
        **_computed_above(account),
        "inputs": _pairs(account.inputs),
        "libraries": _pairs(libraries),
        **holds,
        "card": _pairs(card or {}),
    }


def _above(account: Account) -> Iterator[Account]:
    """All that it was made from, the slide first."""
    for parent in account.upstream:
        yield from _above(parent)
        yield parent


def _options_above(account: Account) -> dict[str, str]:
    """The tiling, how tissue is found: all that was decided on the way here."""
    return {f"options of {parent.asset}": _pairs(parent.options) for parent in _above(account)}


_COMPUTED = ("encoder", "weights_sha256", "random_weights", "device", "precision")


def _computed_above(account: Account) -> dict[str, str]:
    """With which weights, where and how precisely the vectors were computed from which this was made."""
    found = {
        parent.asset: {name: parent.holds[name] for name in _COMPUTED if parent.holds.get(name) is not None}
        for parent in _above(account)
    }
    return {f"vectors of {asset}": _pairs(computed) for asset, computed in found.items() if computed}


def _print_pairs(facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        if value not in (None, "", {}):
            say(f"  {name:{_LABEL}} {_shown(value)}")


def _pairs(values: Mapping[str, Any]) -> str:
    shown = [f"{name} = {_shown(value)}" for name, value in list(values.items())[:SHOWN]]
    return ", ".join(shown) + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else "nothing" if value is None else str(value)


def _tree(account: Account, file: Mapping[str, Any]) -> Iterator[str]:
    """The chain upstream, a branch for each thing that went in, the slide's file at its root."""
    yield f"{account.asset}  {account.made.get('result_digest') or ''}  {account.state}"
    branches = [list(_tree(parent, file)) for parent in account.upstream]
    if account.asset == "slide" and file:
        sha = "" if is_unread(file) else f", sha256 {file['content_sha256'] or ''}"
        branches.append([f"{file['path']}  {file.get('size_bytes') or 0:,} bytes{sha}"])
    for number, (first, *rest) in enumerate(branches, 1):
        last = number == len(branches)
        yield f"{'└─' if last else '├─'} {first}"
        yield from (f"{'   ' if last else '│  '}{line}" for line in rest)
