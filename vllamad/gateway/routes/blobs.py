"""Uploads of the files a model is to be made of: streamed to the disk, hashed on the way."""

from __future__ import annotations

import trio
from quart import Response, request

from vllamad.errors import BadInput
from vllamad.gateway.context import Context
from vllamad.models.store.upload_blobs import BLOB_LIMIT, BlobWriter, blob_path
from vllamad.translate.content.compression import IDENTITY


async def blob(context: Context) -> Response:
    """`HEAD` and `POST /api/blobs/DIGEST`."""
    digest = str((request.view_args or {})["digest"])
    path = blob_path(context.settings.models_dir, digest)
    present = await trio.to_thread.run_sync(path.is_file)
    if request.method == "HEAD":
        return Response(b"", status=200 if present else 404)
    if (request.content_length or 0) > BLOB_LIMIT:
        raise BadInput(f"cannot take a blob over {BLOB_LIMIT} bytes", status=413)
    encoding = request.headers.get("Content-Encoding", IDENTITY)
    if encoding.lower() != IDENTITY:
        raise BadInput(f"cannot take a blob encoded as {encoding[:40]}", status=415)
    if present:
        await _skip()
        return Response(b"", status=200)
    await _store(BlobWriter(context.settings.models_dir, digest))
    return Response(b"", status=201)


async def _store(upload: BlobWriter) -> None:
    await trio.to_thread.run_sync(upload.begin)
    try:
        async for piece in request.body:
            await trio.to_thread.run_sync(upload.write, piece)
        await trio.to_thread.run_sync(upload.finish)
    finally:
        with trio.CancelScope(shield=True):  # closing a file and unlinking it takes no time
            await trio.to_thread.run_sync(upload.end)


async def _skip() -> None:
    """Hear the client out: closing while it still sends would reset our answer away."""
    async for _ in request.body:
        pass
