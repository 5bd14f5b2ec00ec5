"""The dashboard's addresses: one shell for all pages, and the files that it loads. Open to anyone: they hold nothing
but themselves, and whatever they show they ask of the API with the visitor's own session.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from gateway.ui.assets import Asset, load_assets

PAGES = ("/", "/photos/{photo_id}", "/queue", "/jobs", "/dead")
_FOLDER = Path(__file__).parent / "static"
# Nothing inline, nothing from elsewhere, and no string ever becomes markup or script.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_SHELL_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
}
_FILE_HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def add_routes(app: web.Application) -> None:
    assets = load_assets(_FOLDER)

    async def get_page(request: web.Request) -> web.Response:
        return _send(request, assets.shell, _SHELL_HEADERS)

    async def get_file(request: web.Request) -> web.Response:
        asset = assets.files.get(request.match_info["name"])
        # Another version's name must not be answered with this version's file, and be kept so for a year.
        if asset is None or request.match_info["version"] != assets.version:
            raise web.HTTPNotFound
        return _send(request, asset, _FILE_HEADERS)

    for path in PAGES:
        app.router.add_get(path, get_page)
    app.router.add_get("/ui/{version}/{name}", get_file)


def _send(request: web.Request, asset: Asset, headers: dict[str, str]) -> web.Response:
    headers = {**headers, "ETag": asset.etag, "Vary": "Accept-Encoding"}
    if asset.etag.strip('"') in [tag.value for tag in request.if_none_match or ()]:
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = asset.content_type
    if asset.gzipped is not None and _takes_gzip(request):
        return web.Response(body=asset.gzipped, headers={**headers, "Content-Encoding": "gzip"})
    return web.Response(body=asset.content, headers=headers)


def _takes_gzip(request: web.Request) -> bool:
    offers = [item.strip().split(";") for item in request.headers.get("Accept-Encoding", "").lower().split(",")]
    return any(name.strip() == "gzip" and "q=0" not in "".join(more).replace("q=0.", "") for name, *more in offers)
