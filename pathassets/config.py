"""Study: `pathassets.toml` and `PATHASSETS_*` as one frozen, validated object.

Belongs here: reading the settings file, the environment (nobody else reads it), the home folder's names. Does not belong:
writing that file (`editing`), the store's inner paths (`store/layout.py`), anything done with the settings.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tomlkit
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError
from tomlkit.exceptions import TOMLKitError

from pathassets.encoders.slide import check_recipe
from pathassets.errors import ConfigError
from pathassets.links import checked_url
from pathassets.recipes import (
    DomainOptions,
    EmbeddingOptions,
    Recipe,
    ResourceOptions,
    TextOptions,
    Tiling,
    TissueOptions,
    VectorOptions,
    is_file,
)
from pathassets.settings_errors import check_shapes, first_problem, named
from pathassets.slides.places import has_password, is_uri
from pathassets.store.layout import STORE
from pathassets.store.root import bucket_of

if TYPE_CHECKING:
    import polars as pl
    import zarr

CONFIG_FILE = "pathassets.toml"
DEFAULT_TILING = "px224_mpp050"
ExportFormat = Literal[
    "anndata", "anndata-zarr", "trident", "slideflow", "tiatoolbox", "spatialdata", "qupath", "png", "parquet", "csv"
]
DEFAULT_TERMS = (
    "mucosa", "submucosa", "muscularis", "adipose", "stroma", "lymphocytes", "tumor", "necrosis", "blood",
)  # fmt: skip


def home_from_environment() -> Path:
    """The home folder when no `--home` is given: `PATHASSETS_HOME`, or the current directory."""
    return Path(os.environ.get("PATHASSETS_HOME") or Path.cwd())


class Study(BaseSettings):
    """Everything a run needs to know, read from `<home>/pathassets.toml`, overridden by `PATHASSETS_<FIELD>`.

    Attributes:
        home: The folder that holds the settings, the store, Dagster's state and `results.duckdb`.
        name: Shown in reports.
        store: Where results go: a folder, relative to home, or `s3://bucket/prefix`.
        inbox: What the inbox sensor watches: folders, relative to home, and object stores such as `s3://lab/slides`.
        automation: Whether Dagster's automation conditions ask for a slide's assets; if not, the inbox sensor does.
        cache_gb: Room for local copies of remote slides, GB.
        device: `auto`, `cuda`, `cuda:1`, `mps` or `cpu`; several share the slides out: `cuda:0,cuda:1`, `cuda:all`.
        workers: Threads that read tiles; 0 = one per core.
        memory_share: Largest share of the free memory that tiles on their way to the device may take.
        stall_seconds: A slide fails when opening it, one read of its overview, or reading one batch of its tiles takes longer.
        batch_size: Tiles per forward pass for all recipes; None = each recipe's own.
        licences: Licences of weights that may be used, as cards name them, or `commercial`; none = all.
        exports: Formats that Dagster keeps up to date in `<home>/exports`, each an asset.
        slides_per_run: Slides in one Dagster run; the encoder is loaded once for all of them.
        dagster_url: Where Dagster's UI is served, for links from the dashboard; empty = not known.
        dashboard_url: Where the dashboard is served, for links from Dagster's UI; empty = not known.
        resources: What one run asks of a cluster.
        tissue: How tissue is found.
        tilings: Named tilings.
        recipes: What is computed; each is a tiling seen by an encoder.
    """

    model_config = SettingsConfigDict(env_prefix="PATHASSETS_", env_nested_delimiter="__", frozen=True, extra="forbid")

    home: Path
    name: str = "study"
    store: str = Field(default=STORE, min_length=1)
    inbox: tuple[str, ...] = ("inbox",)
    automation: bool = False
    cache_gb: float = Field(default=200.0, gt=0)
    device: str = "auto"
    workers: int = Field(default=0, ge=0, le=256)
    memory_share: float = Field(default=0.8, gt=0, le=1)
    stall_seconds: float = Field(default=300.0, gt=0)
    batch_size: int | None = Field(default=None, ge=1, le=8192)
    licences: tuple[str, ...] = ()
    exports: tuple[ExportFormat, ...] = ()
    slides_per_run: int = Field(default=16, ge=1, le=256)
    dagster_url: str = ""
    dashboard_url: str = ""
    resources: ResourceOptions = ResourceOptions()
    tissue: TissueOptions = TissueOptions()
    embeddings: EmbeddingOptions = EmbeddingOptions()
    vectors: VectorOptions = VectorOptions()
    domains: DomainOptions = DomainOptions()
    text: TextOptions = TextOptions(terms=DEFAULT_TERMS)
    tilings: dict[str, Tiling] = Field(default_factory=lambda: {DEFAULT_TILING: Tiling(name=DEFAULT_TILING, mpp=0.5)})
    recipes: tuple[Recipe, ...] = ()

    def __init__(self, home: Path | str | None = None, /, **settings: Any) -> None:
        folder = Path(home).expanduser().resolve() if home is not None else home_from_environment().resolve()
        try:
            super().__init__(home=folder, **settings)
        except (ValidationError, SettingsError, TypeError, AttributeError) as error:
            plain = (str(error).splitlines() or [""])[0]
            what, remedy = first_problem(error, Study) if isinstance(error, ValidationError) else (plain, "")
            raise ConfigError(
                f"the settings of {folder} (from {CONFIG_FILE}, PATHASSETS_* or options): {what}",
                remedy=remedy or f"Correct {CONFIG_FILE}; `pathassets init` in an empty folder writes a commented one.",
            ) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options win over the environment, and that over the file: one night's run can be changed without editing it."""
        home = init_settings()["home"]
        return init_settings, _WithoutHome(settings_cls, env_settings), _FileSource(settings_cls, home)

    @model_validator(mode="before")
    @classmethod
    def _resolve_recipes(cls, data: Any) -> Any:
        return _with_recipes(data) if isinstance(data, dict) else data

    @field_validator("store")
    @classmethod
    def _known_kind_of_store(cls, store: str) -> str:
        if "://" in store:
            bucket_of(store)
        return store

    @field_validator("dagster_url", "dashboard_url")
    @classmethod
    def _address_of_a_server(cls, url: str) -> str:
        return checked_url(url)

    @model_validator(mode="after")
    def _distinct_names(self) -> Study:
        keys = [recipe.key for recipe in self.recipes]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"two recipes have the name {twice[0]!r}; give one of them a `name` of its own")
        return self

    @model_validator(mode="after")
    def _tiles_that_slide_encoders_take(self) -> Study:
        for recipe in self.recipes:
            check_recipe(recipe)
        return self

    @model_validator(mode="after")
    def _no_secrets(self) -> Study:
        if any(has_password(place) for place in self.inbox):
            raise ValueError(
                "a URI of `inbox` holds a password, which every table would show; keep it in the environment"
            )
        return self

    @property
    def store_uri(self) -> str:
        """Absolute address of the store's root: a path, or `s3://bucket/prefix`."""
        return self.store if "://" in self.store else str((self.home / Path(self.store).expanduser()).resolve())

    @property
    def results_path(self) -> Path:
        """The DuckDB snapshot."""
        return self.home / "results.duckdb"

    @property
    def dagster_home(self) -> Path:
        """Dagster's state."""
        return self.home / ".dagster"

    @property
    def log_path(self) -> Path:
        """Where tracebacks go that users should not have to read."""
        return self.home / ".dagster" / "pathassets.log"

    @property
    def manifest_path(self) -> Path:
        """The optional manifest of slides."""
        return self.home / "slides.csv"

    @property
    def inbox_paths(self) -> tuple[Path, ...]:
        """Absolute inbox folders, without the object stores."""
        return tuple((self.home / folder).resolve() for folder in self.inbox if not is_uri(folder))

    @property
    def inbox_places(self) -> tuple[str, ...]:
        """Absolute inbox folders and the URIs of object stores, each once."""
        places = (place.rstrip("/") if is_uri(place) else str((self.home / place).resolve()) for place in self.inbox)
        return tuple(dict.fromkeys(places))

    @property
    def copies_path(self) -> Path:
        """Local copies of remote slides."""
        return self.home / ".cache" / "slides"

    @property
    def used_tilings(self) -> tuple[Tiling, ...]:
        """The tilings that some recipe uses, each once, in order of first use."""
        return tuple({recipe.tiling.name: recipe.tiling for recipe in self.recipes}.values())

    def scan(self, table: str) -> pl.LazyFrame:
        """All rows of a table as they are in the store this moment (the snapshot may be older)."""
        from pathassets.store import Tables, open_root

        return Tables(open_root(self.store_uri)).scan(table)

    def arrays(self, uri: str) -> zarr.Group:
        """Arrays to be read, wherever the store lies: `anndata.read_zarr(study.arrays(uri))` with a `uri` from a table."""
        import zarr

        from pathassets.store import open_root

        root = open_root(self.store_uri)
        absolute = uri if "://" in uri else str(self.home / uri)
        return zarr.open_group(root.zarr(root.key_of(absolute)), mode="r")


class _WithoutHome(PydanticBaseSettingsSource):
    """The environment without PATHASSETS_HOME, which is only the default for a home that nobody named."""

    def __init__(self, settings_cls: type[BaseSettings], inner: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._inner = inner

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._inner.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in self._inner().items() if name != "home"}


class _FileSource(PydanticBaseSettingsSource):
    """`pathassets.toml`."""

    def __init__(self, settings_cls: type[BaseSettings], home: Path) -> None:
        super().__init__(settings_cls)
        self._home = home

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return _file_settings(self._home).get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in _file_settings(self._home).items() if name != "home"}


def _file_settings(home: Path) -> dict[str, Any]:
    path = home / CONFIG_FILE
    if not path.is_file():
        return {}
    try:
        data = tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", remedy="Correct the line that is named.") from error
    check_shapes(data, str(path))
    study = data.pop("study", {})
    return {**data, **study}


def _with_recipes(data: dict[str, Any]) -> dict[str, Any]:
    """Tilings and recipes refer to each other by name in the file; here they become whole objects."""
    tilings = {name: _tiling(name, value) for name, value in (data.get("tilings") or {}).items()}
    tilings.setdefault(DEFAULT_TILING, Tiling(name=DEFAULT_TILING, mpp=0.5))
    if data.get("vectors"):
        data = {**data, "vectors": _located(data["home"], _plain(data["vectors"]))}
    raw = data.get("recipes")
    recipes = [{"encoder": "demo-vlm"}] if raw is None else raw
    made = tuple(_recipe(item, tilings, data) for item in recipes)
    used = {recipe.tiling.name: recipe.tiling for recipe in made}
    return {**data, "tilings": {**tilings, **used}, "recipes": made}


def _tiling(name: str, value: Any) -> Tiling:
    try:
        return value if isinstance(value, Tiling) else Tiling(**{**value, "name": name})
    except ValidationError as error:
        raise named(f"tilings.{name}", error) from error


def _recipe(item: Any, tilings: dict[str, Tiling], data: dict[str, Any]) -> Recipe:
    """A recipe takes the study's options where it has none of its own."""
    if isinstance(item, Recipe):
        return item
    item = dict(item)
    tiling = item.get("tiling") or _own_tiling(item, tilings, data)
    if isinstance(tiling, str):
        if tiling not in tilings:
            raise ValueError(f"recipe asks for tiling {tiling!r}; there are {', '.join(sorted(tilings))}")
        tiling = tilings[tiling]
    item["tiling"] = tiling
    shared = {"text": {"terms": DEFAULT_TERMS}}
    for part in ("embeddings", "predictions", "vectors", "domains", "text"):
        item[part] = {**shared.get(part, {}), **_plain(data.get(part)), **_plain(item.get(part))}
    item["vectors"] = _located(data["home"], item["vectors"])
    for file in ("weights", "tokenizer"):
        if item.get(file):
            item[file] = str(Path(data["home"]) / Path(str(item[file])).expanduser())
    if isinstance(kwargs := item.get("encoder_kwargs"), dict) and isinstance(kwargs.get("config"), str):
        item["encoder_kwargs"] = {**kwargs, "config": str(Path(data["home"]) / Path(kwargs["config"]).expanduser())}
    try:
        return Recipe(**item)
    except ValidationError as error:
        raise named(f"recipe {item.get('name') or item.get('encoder')}", error) from error


def _own_tiling(item: dict[str, Any], tilings: dict[str, Tiling], data: dict[str, Any]) -> str | Tiling:
    """The tiling of a recipe that names none: the first of the settings, where they have any; else what its encoder's authors cut."""
    from pathassets.encoders import recommended_tiles

    authors = None if data.get("tilings") else recommended_tiles(str(item.get("encoder", "demo-vlm")))
    if authors is None:
        return next(iter(tilings))
    return Tiling(tile_px=authors[0], mpp=authors[1])


def _located(home: Any, vectors: dict[str, Any]) -> dict[str, Any]:
    """Options of slide vectors with the files that they name as absolute paths."""

    def path(file: Any) -> str:
        return str((Path(home) / str(file)).expanduser())

    found = dict(vectors)
    if isinstance(found.get("methods"), list | tuple):
        found["methods"] = [path(name) if is_file(str(name)) else name for name in found["methods"]]
    if isinstance(found.get("weights"), dict):
        found["weights"] = {name: path(file) for name, file in found["weights"].items()}
    return found


def _plain(options: Any) -> dict[str, Any]:
    return dict(options) if isinstance(options, dict) else (options.model_dump(exclude_unset=True) if options else {})


def check_home(home: Path) -> None:
    """Refuses a home that cannot be one, before anything is written.

    Raises:
        ConfigError: It is no folder, or its name holds what Dagster or DuckDB take for a pattern.
    """
    if home.exists() and not home.is_dir():
        raise ConfigError(f"{home} is not a folder", remedy="Name a folder with --home.")
    if any(sign in str(home.absolute()) for sign in "[]?"):
        remedy = "Name a folder without [, ] and ? with --home."
        raise ConfigError(f"{home}: Dagster and DuckDB would take its name for a pattern", remedy=remedy)


def init_home(home: Path, *, with_inbox: bool = True) -> list[Path]:
    """Writes a commented `pathassets.toml` and an inbox where there are none; returns what was made."""
    from pathassets.store.local_root import put_new
    from pathassets.templates import CONFIG_TEMPLATE, DAGSTER_YAML

    made = []
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{home} cannot be made: {error}", remedy="Name a folder that you may write with --home."
        ) from error
    for path, text in ((home / CONFIG_FILE, CONFIG_TEMPLATE), (home / ".dagster" / "dagster.yaml", DAGSTER_YAML)):
        if not path.exists() and put_new(path, text):
            made.append(path)
    if with_inbox and not (home / "inbox").exists():
        (home / "inbox").mkdir(exist_ok=True)
        made.append(home / "inbox")
    return made
