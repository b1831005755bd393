"""HTML from jinja2 templates, which lie in the ``templates`` folder of the room that uses them."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_ROOT = Path(__file__).parent.parent


def render(template: str, **values: Any) -> "Markup":
    """A template filled in. Values are escaped, so that no text becomes markup, unless they are ``Markup`` themselves.

    Args:
        template: its path inside riff, such as ``tasks/templates/sheet.html``.
        values: by the names that the template uses.
    """
    from markupsafe import Markup

    return Markup(_environment().get_template(template).render(values))


def read_asset(path: str) -> "Markup":
    """A style sheet or a script as it stands, to be put into a page; ``path`` as for :func:`render`."""
    from markupsafe import Markup

    return Markup((_ROOT / path).read_text(encoding="utf-8"))


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from riff.version import __version__

    found = Environment(
        loader=FileSystemLoader(_ROOT), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.globals.update(asset=read_asset, version=__version__)
    return found
