"""A request as bytes on a socket of its own, so that nothing repairs what is meant to be wrong."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

ANSWER_SECONDS = 20


@dataclass(kw_only=True)
class Draft:
    """A request before it is sent; everything as it stands on the wire. A query's value None: no `=`.

    `sent`: how many bytes of the body are sent, all of them if None; then the client is silent, or hangs up.
    """

    method: str
    path: str
    query: list[tuple[str, str | None]] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    sent: int | None = None
    hangs_up: bool = False

    def header(self, name: str) -> str:
        return next(value for key, value in self.headers if key.lower() == name.lower())

    def set(self, name: str, value: str) -> None:
        """In place of what it was, or at the end."""
        self.drop(name)
        self.headers.append((name, value))

    def drop(self, name: str) -> None:
        self.headers = [item for item in self.headers if item[0].lower() != name.lower()]

    def replace(self, name: str, old: str, new: str) -> None:
        """Within the value of a header."""
        value = self.header(name)
        assert old in value, f"{name}: {value} does not hold {old}"
        self.set(name, value.replace(old, new, 1))

    def parameter(self, name: str) -> str:
        return next(value or "" for key, value in self.query if key == name)

    def set_parameter(self, name: str, value: str) -> None:
        assert any(key == name for key, _ in self.query), f"no {name}"
        self.query = [(key, value if key == name else old) for key, old in self.query]

    def drop_parameter(self, name: str) -> None:
        self.query = [item for item in self.query if item[0] != name]

    def render(self) -> bytes:
        query = "&".join(name if value is None else f"{name}={value}" for name, value in self.query)
        names = {name.lower() for name, _ in self.headers}
        headers = [*self.headers, ("Connection", "close")]
        if names.isdisjoint({"content-length", "transfer-encoding"}) and (self.body or self.method != "GET"):
            headers.append(("Content-Length", str(len(self.body))))
        lines = [f"{self.method} {self.path}{'?' + query if query else ''} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body[: self.sent]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`status` 0: the connection ended without an answer."""

    status: int
    code: str
    text: str


async def send(draft: Draft, host: str) -> Answer:
    """One request, and what came back until the connection ended."""
    address, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(address, int(port))
    try:
        writer.write(draft.render())
        if draft.hangs_up:
            await writer.drain()
            writer.transport.abort()
            return Answer(status=0, code="", text="")
        async with asyncio.timeout(ANSWER_SECONDS):
            data = await reader.read()
    except (ConnectionError, TimeoutError) as error:
        return Answer(status=0, code=repr(error), text="")
    finally:
        writer.close()
    head, _, body = data.decode("utf-8", "replace").partition("\r\n\r\n")
    status = head.split(" ", 2)[1] if head else "0"
    return Answer(status=int(status), code=body.partition("<Code>")[2].partition("</Code>")[0], text=head + body)
