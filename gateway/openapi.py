"""/openapi.json (OpenAPI 3.1) made of the table of routes, and Swagger UI at /docs from local files."""

from __future__ import annotations

import importlib.util
import json
import re
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aiohttp import web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin

from gateway.routes import ROUTES
from gateway.routing import Answer, Route
from gateway.schemas import ProblemSchema

_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "bucket": {"description": "Name of a bucket that exists.", "schema": {"type": "string"}, "example": "photos"},
    "key": {
        "description": "Key of the photo; may hold slashes.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 1024},
        "example": "2026/beach.jpg",
    },
    "photo_id": {"description": "Id of a photo.", "schema": {"type": "string", "format": "uuid"}},
    "upload_id": {"description": "Id of a direct upload.", "schema": {"type": "string", "format": "uuid"}},
    "preset": {"description": "Name of a preset.", "schema": {"type": "string"}, "example": "thumb"},
    "webhook_id": {"description": "Id of a webhook.", "schema": {"type": "string", "format": "uuid"}},
    "delivery_id": {
        "description": "Id of a delivery.",
        "schema": {"type": "integer", "format": "int64", "minimum": 1},
    },
    "job_id": {"description": "Id of a job.", "schema": {"type": "integer", "format": "int64", "minimum": 1}},
    "processor": {
        "description": "Name of a processor, as in GET /v1/stats.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]+$"},
    },
}
_HEADERS = {"Idempotency-Key": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"}}
_UI_FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_UI_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Safelight API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/swagger-ui-standalone-preset.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_UI_START = """window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  layout: "BaseLayout",
});
"""
# Swagger UI writes inline styles and data: images; scripts come from here alone.
_UI_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_DESCRIPTION = """Photos in, previews and EXIF facts out.

Every request but the health checks needs `Authorization: Bearer <access key>.<secret key>`. Errors are
`application/problem+json`; programs key on their `code`, and `detail` says what to do.

A key may be limited to buckets and prefixes: photos elsewhere do not exist for it, and it may upload nothing there."""


def describe() -> dict[str, Any]:
    """The OpenAPI document."""
    spec = APISpec(
        title="Safelight",
        version=version("safelight"),
        openapi_version="3.1.0",
        plugins=[MarshmallowPlugin(schema_name_resolver=_schema_name)],
        info={"description": _DESCRIPTION, "license": {"name": "MIT", "identifier": "MIT"}},
        tags=[
            {"name": "photos", "description": "Uploads, previews, facts."},
            {"name": "events", "description": "What happens, as it happens."},
            {"name": "uploads", "description": "Photos that clients put into the storage themselves."},
            {"name": "webhooks", "description": "Events sent to others, signed by the Standard Webhooks convention."},
            {"name": "queue", "description": "Stats, jobs, dead letters."},
            {"name": "session", "description": "For browsers."},
            {"name": "bucket events", "description": "What storages tell of their objects."},
            {"name": "health", "description": "For load balancers."},
        ],
    )
    spec.components.security_scheme("key", {"type": "http", "scheme": "bearer", "description": "A key's token."})
    hook = {"type": "http", "scheme": "bearer", "description": "SAFELIGHT_HOOK_TOKEN, for storages."}
    spec.components.security_scheme("hook", hook)
    spec.components.schema("Problem", schema=ProblemSchema)
    for route in ROUTES:
        spec.path(
            path=re.sub(r"\{(\w+)(?::[^}]*)?\}", r"{\1}", route.path),
            operations={route.method.lower(): _operation(route)},
        )
    return spec.to_dict()


def add_routes(app: web.Application) -> None:
    """Serve the document and the UI. Both are open: they say nothing that the source does not."""
    document = json.dumps(describe()).encode()
    folder = _ui_folder()
    files = {name: (folder / name).read_bytes() for name in _UI_FILES}

    async def get_document(_request: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json", headers={"Cache-Control": "no-cache"})

    async def get_page(_request: web.Request) -> web.Response:
        return web.Response(
            text=_UI_PAGE,
            content_type="text/html",
            headers={"Content-Security-Policy": _UI_POLICY, "Cache-Control": "no-cache"},
        )

    async def get_file(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name == "start.js":
            return web.Response(text=_UI_START, content_type="text/javascript")
        if name not in files:
            raise web.HTTPNotFound
        return web.Response(
            body=files[name], content_type=_UI_FILES[name], headers={"Cache-Control": "public, max-age=86400"}
        )

    app.router.add_get("/openapi.json", get_document)
    app.router.add_get("/docs", get_page)
    app.router.add_get("/docs/{name}", get_file)


def _operation(route: Route) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, **_PATH_PARAMETERS[name]}
        for name in re.findall(r"\{(\w+)", route.path)
    ]
    if route.query:
        parameters.append({"in": "query", "schema": route.query})
    parameters += [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": text,
            "schema": _HEADERS.get(name, {"type": "string"}),
        }
        for name, text in route.request_headers.items()
    ]
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "tags": [route.tag],
        "summary": route.summary,
        "description": route.description,
        "parameters": parameters,
        "responses": {str(status): _response(answer) for status, answer in route.answers.items()},
        "security": [{"key": []}] if route.scope else [{route.own_scheme: []}] if route.own_scheme else [],
    }
    if route.scope:
        limited = "" if route.opens_to_limited else " Closed to keys that are limited to buckets or prefixes."
        browser = f", in a browser's session `{route.scope_by_cookie}`" if route.scope_by_cookie else ""
        operation["description"] = f"{route.description}\n\nNeeds the scope `{route.scope}`{browser}.{limited}".strip()
    for status in _problem_statuses(route):
        operation["responses"][str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    if route.raw_body:
        operation["requestBody"] = {"required": True, "content": route.raw_body}
    elif route.body:
        operation["requestBody"] = {"required": False, "content": {"application/json": {"schema": route.body}}}
    return operation


def _problem_statuses(route: Route) -> list[int]:
    statuses = set(route.problems) | {500}
    if route.scope:
        statuses |= {401, 403, 429, 503}
    if route.query or route.body or route.request_headers:
        statuses |= {422}
    if route.body:
        statuses |= {408}
    return sorted(statuses - set(route.answers))


def _response(answer: Answer) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description}
    if answer.schema:
        response["content"] = {"application/json": {"schema": answer.schema}}
    elif answer.content_types != ("application/json",):
        response["content"] = {
            name: {"schema": {"type": "string", "format": "binary"}} for name in answer.content_types
        }
    if answer.headers:
        response["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    return response


def _schema_name(schema: Any) -> str:
    name = schema.__name__ if isinstance(schema, type) else type(schema).__name__
    return name.removesuffix("Schema")


def _ui_folder() -> Path:
    found = importlib.util.find_spec("swagger_ui_bundle")
    assert found is not None
    assert found.submodule_search_locations
    (folder,) = Path(found.submodule_search_locations[0]).glob("vendor/swagger-ui-*")
    return folder
