# SPDX-License-Identifier: Apache-2.0
"""How Sphinx makes the manual: the pages here, what lies beside ``docs/``, and what the code says of itself.

Law: nothing is fetched, and whatever Sphinx warns of is an error ('make manual').
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.util.docutils import SphinxDirective

from vhost_iommu import __version__
from vhost_iommu.cli import parser, verbs

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

TOP = Path(__file__).resolve().parents[1]

project = "vhost_iommu"
author = "the authors of vhost_iommu"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_static", "example"]
nitpicky = True
#: Types that signatures name: most are inside, or documented elsewhere, of which nothing here fetches inventories.
nitpick_ignore_regex = [("py:.*", ".*")]
highlight_language = "text"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # links name headings as a forge does

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"vhost_iommu {version}"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

#: What lies beside docs/, and the page that shows it.
BESIDE = {"ARCHITECTURE.md": "architecture.md", "CHANGELOG.md": "changelog.md", "qemu-configs": "machine-files.md"}


class Commands(SphinxDirective):
    """A section for each verb, with what its --help says."""

    def run(self) -> list[nodes.Node]:
        text = "\n\n".join(
            f"## {verb.prog}\n\n```text\n{verb.format_help()}```" for verb in (parser(), *verbs(parser()).values())
        )
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Machines(SphinxDirective):
    """A section for each machine file that comes with us: the whole file."""

    def run(self) -> list[nodes.Node]:
        files = sorted((TOP / "qemu-configs").glob("*.toml"))
        for file in files:
            self.env.note_dependency(file)
        text = "\n\n".join(f"## {file.stem}\n\n```toml\n{file.read_text()}```" for file in files)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def lead_to_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Links to what lies beside docs/ lead to the page that shows it, and not to a file to download."""
    up = "../" * name.count("/")
    for beside, page in BESIDE.items():
        source[0] = re.sub(rf"\]\({up}\.\./{re.escape(beside)}/?(?=[)#])", f"]({up}{page}", source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("commands", Commands)
    app.add_directive("machines", Machines)
    app.connect("source-read", lead_to_pages)
    return {"parallel_read_safe": True}
