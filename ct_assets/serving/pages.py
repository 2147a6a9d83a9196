"""Pages for people: where everything is, the reports, and the API's documentation without internet."""

import importlib.util
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

_FILES = "/docs-files"
_STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}"


def add_pages(app: FastAPI, models: Sequence[str], reports: Path) -> None:
    """Add `/`, `/reports/`, `/docs` and `/redoc`.

    Args:
        app: Where to.
        models: Those that are served.
        reports: Folder of the reports; it may appear later.
    """

    @app.get("/", include_in_schema=False)
    def index() -> HTMLResponse:
        """Where everything is."""
        pages = ["docs", "reports/", "metrics", "healthz", "readyz"]
        served = _links((f"v1/models/{quote(name)}", name) for name in sorted(models))
        return _page(
            "ct_assets", f"<h2>Models</h2>{served}<h2>Pages</h2>{_links((page, '/' + page) for page in pages)}"
        )

    @app.get("/reports/", include_in_schema=False)
    def list_reports() -> HTMLResponse:
        """Every report, by model, the newest first."""
        found = sorted(reports.rglob("*.html"), key=lambda path: path.stat().st_mtime, reverse=True)
        names = [path.relative_to(reports).as_posix() for path in found]
        return _page(
            "Reports", _links((quote(name), name) for name in names) if names else "<p>There are none yet.</p>"
        )

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        """Swagger UI."""
        return get_swagger_ui_html(
            openapi_url=str(app.openapi_url),
            title="ct_assets: API",
            swagger_js_url=f"{_FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{_FILES}/swagger-ui.css",
            swagger_favicon_url=f"{_FILES}/favicon.png",
        )

    @app.get("/redoc", include_in_schema=False)
    def redoc() -> HTMLResponse:
        """ReDoc."""
        return get_redoc_html(
            openapi_url=str(app.openapi_url),
            title="ct_assets: API",
            redoc_js_url=f"{_FILES}/redoc.standalone.js",
            redoc_favicon_url=f"{_FILES}/favicon.png",
            with_google_fonts=False,
        )

    if (files := _docs_files()) is not None:
        app.mount(_FILES, StaticFiles(directory=files), name="docs-files")


def _docs_files() -> Path | None:
    """The files of Swagger UI and ReDoc, as fastapi-offline brings them; that package itself is not used."""
    package = importlib.util.find_spec("fastapi_offline")
    return Path(str(package.origin)).parent / "static" if package and package.origin else None


def _links(links: Iterable[tuple[str, str]]) -> str:
    return "<ul>" + "".join(f'<li><a href="{href}">{escape(text)}</a></li>' for href, text in links) + "</ul>"


def _page(title: str, body: str) -> HTMLResponse:
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return HTMLResponse(
        f"<!doctype html><html lang=en><head>{head}</head><body><h1>{escape(title)}</h1>{body}</body></html>"
    )
