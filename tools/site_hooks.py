"""What mkdocs does on top: the pages at the root of the repository belong to the site as well.

Links between them and docs/ are written so that they work in the repository; here they are turned to the site's
layout. Words behind ``` that our tests read become titles, or go."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

#: Pages at the root that the site shows too.
ROOT_PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages at the root."""
    from mkdocs.structure.files import File

    for name in ROOT_PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=for_site(text, at_root=True)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of a page."""
    return markdown if page.file.src_uri in ROOT_PAGES else for_site(markdown, at_root=False)


def for_site(text: str, *, at_root: bool) -> str:
    """Return a page's text with the links that cross the border of docs/ turned, and with mkdocs' words behind ```.

    Args:
        text: Markdown.
        at_root: Whether the page lies at the root of the repository, and not in docs/.
    """
    if at_root:
        return re.sub(r"\]\(docs/decisions\)", "](decisions/index.md)", text).replace("](docs/", "](")
    text = re.sub(r"^```(\w+) file=(\S+)$", r'```\1 title="\2"', text, flags=re.MULTILINE)
    text = re.sub(r"^```console exit=\d$", "```console", text, flags=re.MULTILINE)
    names = "|".join(re.escape(name) for name in ROOT_PAGES)
    return re.sub(rf"\]\(((?:\.\./)*)\.\./({names})", r"](\1\2", text)
