"""Keep every page on its own, without scripts that fetch from elsewhere, readable aloud, and the glossary in reach."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def _is_thebe(script: Any) -> bool:
    """Whether a script belongs to Thebe, the live kernels that a page without a server cannot have."""
    filename = getattr(script, "filename", None) or ""
    body = getattr(script, "attributes", {}).get("body") or ""
    return "thebe" in str(filename).lower() or "thebe" in str(body).lower()


def leave_out_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Two extensions add Thebe's settings, which clash, and point at a server that is not ours."""
    for key in ("script_files", "css_files"):
        context[key] = [script for script in context.get(key, []) if not _is_thebe(script)]


def mend_reference_list(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Docutils calls the references a list but its entries no list items; a screen reader then counts none."""
    if "citation-list" in context.get("body", ""):
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def offer_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Let chapters link to `glossary.md#term-...` in plain Markdown, which looks for headings only."""
    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for glossary in doctree.findall(addnodes.glossary):
        for term in glossary.findall(nodes.term):
            for name in term["ids"]:
                slugs[name] = (term.line or 0, name, term.astext())


def setup(app: Sphinx) -> dict[str, Any]:
    """Run after everybody else has added theirs."""
    app.connect("html-page-context", leave_out_thebe, priority=950)
    app.connect("html-page-context", mend_reference_list)
    app.connect("doctree-read", offer_terms)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
