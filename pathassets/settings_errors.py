"""Settings that are none: what is wrong with `pathassets.toml`, in the words of its file.

Belongs here: the shapes that its tables have, and what pydantic finds, said so that a person can mend it. Does not belong:
reading the file, what settings mean (`config`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pathassets.errors import ConfigError, PathassetsError
from pathassets.recipes import Recipe, Tiling

# Written in brackets; `study` holds plain settings, the others options of one thing.
TABLES = ("study", "resources", "tissue", "embeddings", "predictions", "vectors", "domains", "text", "tilings")


def check_shapes(data: Mapping[str, Any], file: str) -> None:
    """Refuses a table that is none, before anybody looks into it.

    Args:
        data: What the file says.
        file: Its name, for the message.

    Raises:
        ConfigError: Naming the table and how it is written.
    """
    for name in TABLES:
        if not isinstance(data.get(name, {}), dict):
            raise _no_table(file, name, data[name], f"[{name}]")
    for name, tiling in data.get("tilings", {}).items():
        if not isinstance(tiling, dict):
            raise _no_table(file, f"tilings.{name}", tiling, "[tilings.NAME]")
    recipes = data.get("recipes", [])
    if not isinstance(recipes, list):
        raise _no_table(file, "recipes", recipes, "[[recipes]]")
    for recipe in recipes:
        if not isinstance(recipe, dict):
            raise _no_table(file, "recipes", recipe, "[[recipes]]")


def first_problem(error: ValidationError, *models: type[BaseModel]) -> tuple[str, str]:
    """What is wrong, with the setting's name, and what to do; the latter may be empty.

    Args:
        error: What pydantic found.
        models: Those that the error may be about, beside recipes and tilings.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, PathassetsError):
        what, remedy = cause.message, cause.remedy
    elif first["type"] == "extra_forbidden":
        known: tuple[type[BaseModel], ...] = (*models, Recipe, Tiling)
        model = next((m for m in known if m.__name__ == error.title), None)
        what, remedy = f"is no setting{_near(model, first['loc'])}", ""
    elif first["type"] == "tuple_type":
        what, remedy = f"must be a list: write {where} = {json.dumps([first['input']], default=str)}", ""
    else:
        what, remedy = first["msg"].removeprefix("Value error, "), ""
    return f"{where}: {what}" if where else what, remedy


def named(owner: str, error: ValidationError) -> ValueError:
    """What is wrong with one of several things that look alike, with its name."""
    return ValueError(f"{owner}: {first_problem(error)[0]}")


def _near(model: type[BaseModel] | None, loc: tuple[int | str, ...]) -> str:
    """The known setting that was meant, where one is near."""
    for part in loc[:-1]:
        found = model.model_fields[str(part)].annotation if model and str(part) in model.model_fields else None
        model = found if isinstance(found, type) and issubclass(found, BaseModel) else None
    names = [*(model.model_fields if model else ()), *(TABLES if len(loc) == 1 else ())]
    near = difflib.get_close_matches(str(loc[-1]), names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _no_table(file: str, name: str, value: Any, written: str) -> ConfigError:
    return ConfigError(
        f"{name} in {file} is {json.dumps(value, default=str)}, which is no table",
        remedy=f"Write {written} on a line of its own, and its settings below.",
    )
