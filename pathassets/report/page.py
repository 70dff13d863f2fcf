"""Page: sections of tables and pictures as one HTML file.

Belongs here: the template and what it shows. Does not belong: what stands in a report.

Everything that a report shows may come from a user's file names, terms and tables: the template escapes every value. A page
holds no script and no address, and its policy forbids the browser to ask anybody for anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pathassets.figures.images import data_uri

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #ddd}h3{font-size:1rem;margin-bottom:.3rem}
table{border-collapse:collapse;margin:.6rem 0;font-size:.9rem}td,th{padding:.2rem .7rem .2rem 0;text-align:left;vertical-align:top}
th{border-bottom:1px solid #bbb;font-weight:600}td.number{text-align:right;font-variant-numeric:tabular-nums}
td{overflow-wrap:break-word;max-width:26rem}td img{display:block;margin-bottom:.2rem}
figure{display:inline-block;margin:.4rem 1rem .4rem 0;vertical-align:top}
figure img{display:block;border:1px solid #ddd}figure.tile img{max-width:112px}
figure.tile{margin-right:.4rem}figcaption{font-size:.8rem;color:#555;max-width:30rem}figure.tile figcaption{max-width:112px}
.wide{overflow-x:auto}td.code,code{font-family:ui-monospace,monospace;font-size:.8rem}td.code{overflow-wrap:anywhere;min-width:9rem;white-space:pre-line}
.swatch{display:inline-block;width:.8em;height:.8em;margin-right:.4em}p.note{color:#555}
"""
_TEMPLATE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<title>{{ title }}</title><style>{{ style }}</style></head><body>
<h1>{{ title }}</h1>
{% if lead %}<p class="note">{{ lead }}</p>{% endif %}
{% for section in sections %}
<h{{ section.level }}>{{ section.title }}</h{{ section.level }}>
{% if section.note %}<p class="note">{{ section.note|coded }}</p>{% endif %}
{% if section.table %}<div class="wide"><table>{% if section.table.columns %}<thead><tr>
{% for name in section.table.columns %}<th>{{ name }}</th>{% endfor %}</tr></thead>{% endif %}<tbody>
{% for row in section.table.rows %}<tr>{% for cell in row %}<td{% if cell.kind %} class="{{ cell.kind }}"{% endif %}>
{%- if cell.colour %}<span class="swatch" style="background:{{ cell.colour }}"></span>{% endif -%}
{%- if cell.image %}<img src="{{ cell.image }}" alt="">{% endif -%}{{ cell.text|coded }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}
{% for picture in section.pictures %}<figure{% if picture.is_tile %} class="tile"{% endif %}>
<img src="{{ picture.source }}" alt="{{ picture.caption }}"><figcaption>{{ picture.caption }}</figcaption></figure>{% endfor %}
{% endfor %}
</body></html>
"""


@dataclass(frozen=True)
class Picture:
    """A picture with what stands below it.

    Attributes:
        image: WebP.
        caption: One line.
        is_tile: Shown small, beside others.
    """

    image: bytes
    caption: str
    is_tile: bool = False

    @property
    def source(self) -> str:
        """The picture as an address that holds it."""
        return data_uri(self.image)


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        value: What is shown; numbers are shown short.
        colour: `#rrggbb` of a swatch before it.
        picture: WebP before it.
        code: Whether it is a digest or the like, which may be broken anywhere.
    """

    value: Any
    colour: str = ""
    picture: bytes | None = None
    code: bool = False

    @property
    def kind(self) -> str:
        """`number`, which stands on the right, `code`, or nothing."""
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        return "number" if number else "code" if self.code else ""

    @property
    def image(self) -> str:
        """The picture as an address that holds it."""
        return data_uri(self.picture) if self.picture else ""

    @property
    def text(self) -> str:
        """The value as text."""
        if self.value is None:
            return ""
        return f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value)


@dataclass(frozen=True)
class Table:
    """A table: names of columns, and rows of cells."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: Its heading.
        note: A sentence below it.
        table: A table.
        pictures: Pictures below that.
        level: 2, or 3 for a part of a part.
    """

    title: str
    note: str = ""
    table: Table | None = None
    pictures: Sequence[Picture] = ()
    level: int = 2


def facts(values: Mapping[str, Any]) -> Table:
    """Names and values as a table of two columns without a heading; what is empty is left out."""
    rows = [(Cell(name), Cell(Cell(value).text)) for name, value in values.items() if value not in (None, "", [], {})]
    return Table((), rows)


def percent(share: float | None) -> float | None:
    """A share from 0 to 1 in per cent, with one decimal."""
    return None if share is None else round(100 * share, 1)


def html(title: str, sections: Sequence[Section], lead: str = "") -> str:
    """The page."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["coded"] = _coded
    template = environment.from_string(_TEMPLATE)
    return template.render(title=title, lead=lead, sections=sections, style=Markup(_STYLE), policy=_POLICY)  # noqa: S704


def _coded(text: str) -> Any:
    """Text, escaped, in which what stands between two backticks is code."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) < 3 or len(parts) % 2 == 0:
        return text
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(part) if i % 2 else escape(part) for i, part in enumerate(parts))
