"""`safelight put`, `get`, `ls` and `why`: photos by way of the gateway, from a shell.

What is asked for goes to standard output, everything else to standard error. Sending is in safelight.uploading.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer

from safelight import console, remote, uploading
from safelight.console import AsJson
from safelight.progress import Bars
from safelight.remote import Gateway

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
Target = Annotated[str, typer.Argument(help="bucket/key, or a photo's id.", show_default=False)]


def put(
    *,
    files: Annotated[list[Path], typer.Argument(help="Photos, or folders of them.", show_default=False)],
    bucket: Annotated[
        str, typer.Option(help="Bucket to store into.", envvar="SAFELIGHT_DEFAULT_BUCKET", show_envvar=False)
    ] = "photos",
    prefix: Annotated[str, typer.Option(help="What the keys begin with; end a folder with a slash.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until previews and facts are there.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds that --wait waits for one photo.")] = 300,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Files at a time.")] = 4,
    retry_seconds: Annotated[float, typer.Option(min=0, help="How long one file is tried again.")] = 120,
    as_json: AsJson = False,
) -> None:
    """Send photos and folders of photos.

    A file's key is the prefix and its name; a file of a folder keeps the folder's name and its path in there.
    Of a folder only what begins like a photo is sent. A photo that is under the same key is replaced.

      safelight put beach.jpg
      safelight put ~/Pictures/2026-trip --prefix trips/ --wait
      safelight put *.jpg --bucket archive --parallel 8 --json | jq '.failures'

    What fails passingly is tried again, without ever storing a photo twice.

    Exit code: 0 all are stored (with --wait: and ready); 1 some are not, the summary says why; 2 wrong usage, or no
    gateway.
    """
    try:
        planned = uploading.plan(files, prefix=prefix)
    except uploading.CannotPlan as error:
        console.fail(str(error))
    if not planned.wishes:
        console.fail(f"There is no photo in {', '.join(map(str, files))}.", code=1)
    wait_seconds = timeout if wait else None

    async def send(gateway: Gateway) -> list[uploading.Result]:
        await gateway.get("/v1/photos", {"limit": 1})  # a wrong address or key is told once, not for each file
        with Bars(planned.wishes) as bars:
            return await uploading.send_all(
                gateway, planned.wishes, bucket=bucket, parallel=parallel, wait_seconds=wait_seconds, meter=bars
            )

    results = remote.run(send, retry_seconds=retry_seconds)
    _show_sent(planned, results, as_json=as_json)
    raise typer.Exit(any(result.failed for result in results))


def get(
    *,
    targets: Annotated[list[str], typer.Argument(help="bucket/key or ids of photos.", show_default=False)],
    preset: Annotated[str | None, typer.Option(help="This preview instead of the original: thumb, preview.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="File or folder to write to; - is standard output.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch originals, or previews of them. What arrives is compared with the SHA-256 that was stored.

    For example:

      safelight get photos/trip/beach.jpg
      safelight get photos/trip/beach.jpg --preset thumb -o thumb.webp
      safelight get photos/trip/beach.jpg -o - | exiftool -

    Exit code: 0 fetched; 1 not there, or not what was stored; 2 wrong usage, or no gateway.
    """
    folder = Path(output) if output is not None and output != "-" and Path(output).is_dir() else None
    if len(targets) > 1 and output is not None and folder is None:
        console.fail(f"{len(targets)} photos need a folder to be written to: {output} is none.")

    async def fetch(gateway: Gateway) -> list[dict[str, Any]]:
        return [await _fetch(gateway, target, preset, output, folder, force) for target in targets]

    fetched = remote.run(fetch)
    if as_json and output != "-":
        console.print_json({"photos": fetched})
    elif output != "-":
        for item in fetched:
            typer.echo(item["file"])


def ls(
    *,
    place: Annotated[str, typer.Argument(help="bucket, or bucket/prefix.", show_default="everything")] = "",
    status: Annotated[str | None, typer.Option(help="processing, ready, partial or rejected.")] = None,
    taken_after: Annotated[str | None, typer.Option(help="Taken then or later, as 2026-05-17 or with a time.")] = None,
    taken_before: Annotated[str | None, typer.Option(help="Taken before.")] = None,
    camera: Annotated[str | None, typer.Option(help="Part of the camera's make and model.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most; all if left out.")] = None,
    long: Annotated[bool, typer.Option("--long", "-l", help="With time, size, status and id.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
) -> None:
    """List photos, newest first.

    For example:

      safelight ls
      safelight ls photos/trips/ --long
      safelight ls --status rejected --json | jq -r .rejection.code | sort | uniq -c

    Exit code: 0, with or without photos; 2 wrong usage, or no gateway.
    """
    bucket, _, prefix = place.partition("/")
    query = {
        **{"bucket": bucket or None, "prefix": prefix or None, "status": status, "camera": camera},
        **{"taken_after": taken_after, "taken_before": taken_before},
    }

    async def show(gateway: Gateway) -> None:
        async for photo in gateway.page("/v1/photos", query, member="photos", most=limit):
            if as_json:
                console.print_json(photo, compact=True)
            else:
                typer.echo(_line(photo) if long else f"{photo['bucket']}/{photo['key']}")

    remote.run(show)


def why(
    target: Annotated[str, typer.Argument(help="bucket/key, a photo's id, or a job's number.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Say in plain sentences what happened to a photo, and what to do next.

    Whether it never arrived, waits, is paused, will be tried again, died, was rejected, or is ready, and where.

      safelight why photos/trip/beach.jpg
      safelight why 01975a3c-7d2e-7a4e-9b1f-0d5c2a9e4b11

    Exit code: 0 it is ready; 1 it is not; 2 wrong usage, or no gateway.
    """
    explained = remote.run(lambda gateway: gateway.get("/v1/explain", _which(target)))
    if as_json:
        console.print_json(explained)
    else:
        typer.echo(f"{explained['bucket']}/{explained['key']}: {explained['summary']}")
        if explained["photo_id"]:
            typer.echo(f"  Photo {explained['photo_id']}, status {explained['status']}.")
        for finding in explained["findings"]:
            typer.echo(f"  - {finding['said']}")
            if finding["do"]:
                typer.echo(f"      {finding['do']}")
    raise typer.Exit(explained["verdict"] != "ready")


def _which(target: str) -> dict[str, str]:
    if _UUID.fullmatch(target):
        return {"photo_id": target}
    if target.isascii() and target.isdigit():
        return {"job_id": target}
    bucket, slash, key = target.removeprefix("s3://").partition("/")
    if not (slash and key):
        console.fail(f"{target!r} is neither bucket/key, nor a photo's id, nor a job's number.")
    return {"bucket": bucket, "key": key}


async def find_photo(gateway: Gateway, target: str) -> dict[str, Any]:
    """The photo, by id or bucket/key. Ends the command with exit code 1 where there is none."""
    which = _which(target)
    if "job_id" in which:
        console.fail(f"{target} is a job's number. Name a photo: bucket/key, or its id.")
    if "photo_id" in which:
        photo: dict[str, Any] = await gateway.get(f"/v1/photos/{target}")
        return photo
    found = (await gateway.get("/v1/photos", which))["photos"]
    if not found:
        console.fail(f"There is no photo {target}. `safelight why {target}` says what became of it.", code=1)
    return dict(found[0])


async def _fetch(  # noqa: PLR0917 - what the user asked for
    gateway: Gateway, target: str, preset: str | None, output: str | None, folder: Path | None, force: bool
) -> dict[str, Any]:
    photo = await find_photo(gateway, target)
    path, name, sha256 = _what(photo, preset)
    file = (folder or Path()) / name if output is None or folder else Path(output)
    if output != "-":
        file = _judge_target(file, force=force)
    async with gateway.download(path) as pieces:
        try:
            digest = await _write(pieces, None if output == "-" else file, sha256)
        except OSError as error:
            if output == "-":  # or Python would try again at its end to write what is left
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            where, why = "Standard output" if output == "-" else file, error.strerror or error
            console.fail(f"{where} cannot be written: {why}. Make room or the folder, or name another with -o.", code=1)
    told = {"file": "-" if output == "-" else str(file), "sha256": digest, "id": photo["id"]}
    return {**told, "bucket": photo["bucket"], "key": photo["key"]}


def _judge_target(file: Path, *, force: bool) -> Path:
    """Where to write: what a link leads to is replaced, not the link. Ends the command where that may not be."""
    if file.exists() and not force:
        console.fail(f"{file} is there already. Give --force to replace it, or -o for another name.", code=1)
    if file.exists() and not file.is_file():
        console.fail(f"{file} is no file that could be replaced. Name another with -o; - is standard output.", code=1)
    return file.resolve() if file.is_symlink() else file


def _what(photo: dict[str, Any], preset: str | None) -> tuple[str, str, str | None]:
    """Path at the gateway, a name for the file, and the SHA-256 that it must have where that is known."""
    name = photo["key"].rsplit("/", 1)[-1]
    if preset is None:
        return photo["links"]["original"], name, photo["sha256"]
    made = {item["preset"]: item for item in photo["artifacts"]}
    if preset not in made:
        there = f"There are: {', '.join(sorted(made))}." if made else "It has no previews."
        where = f"{photo['bucket']}/{photo['key']}"
        console.fail(f"It has no preview {preset!r}. {there} `safelight why {where}` says why.", code=1)
    extension = made[preset]["key"].rsplit(".", 1)[-1]
    return made[preset]["url"], f"{name.rsplit('.', 1)[0]}.{preset}.{extension}", made[preset]["sha256"]


async def _write(pieces: AsyncIterator[bytes], file: Path | None, sha256: str | None) -> str:
    """Write it whole or not at all; returns its SHA-256."""
    digest = hashlib.sha256()
    if file is None:
        async for piece in pieces:
            digest.update(piece)
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        _compare(digest.hexdigest(), sha256)
        return digest.hexdigest()
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name[:100]}.", delete=False) as kept:
        try:
            async for piece in pieces:
                digest.update(piece)
                kept.write(piece)
            kept.flush()
            _compare(digest.hexdigest(), sha256)
            os.chmod(kept.name, 0o666 & ~_umask())
            os.replace(kept.name, file)
        except BaseException:
            os.unlink(kept.name)
            raise
    return digest.hexdigest()


def _compare(arrived: str, stored: str | None) -> None:
    if stored not in (None, arrived):
        console.fail("What arrived is not what was stored: its SHA-256 differs. Fetch it again.", code=1)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _line(photo: dict[str, Any]) -> str:
    at, size = photo["created_at"][:19].replace("T", " "), console.size(photo["size_bytes"])
    return f"{at}  {size:>9}  {photo['status']:<10}  {photo['id']}  {photo['bucket']}/{photo['key']}"


def _show_sent(planned: uploading.Planned, results: list[uploading.Result], *, as_json: bool) -> None:
    failed = [result for result in results if result.failed]
    if as_json:
        console.print_json(
            {
                "stored": sum(result.photo is not None for result in results),
                "failed": len(failed),
                "left_out": [str(path) for path in planned.left_out],
                "photos": [
                    {"file": str(item.wish.path), "seconds": round(item.seconds, 3), **_brief(item.photo)}
                    for item in results
                    if item.photo is not None
                ],
                "failures": [
                    {"file": str(item.wish.path), "code": item.code, "detail": item.detail} for item in failed
                ],
            }
        )
        return
    for result in results:
        if result.photo is not None:
            typer.echo(f"{result.photo['bucket']}/{result.photo['key']}")
    for result in failed:
        typer.echo(f"{result.wish.path}: {result.detail} ({result.code})", err=True)
    if planned.left_out:
        typer.echo(f"Left out, because they are no photos: {len(planned.left_out)} files.", err=True)
    typer.echo(f"{len(results) - len(failed)} of {len(results)} photos done, {len(failed)} failed.", err=True)


def _brief(photo: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "bucket", "key", "etag", "sha256", "size_bytes", "content_type", "status", "rejection")
    previews = {item["preset"]: f"{item['bucket']}/{item['key']}" for item in photo["artifacts"]}
    return {name: photo[name] for name in names} | {"previews": previews}
