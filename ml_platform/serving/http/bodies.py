"""Bodies of requests: read within bounds of size and time, unpacked, parsed."""

import asyncio
import re
import zlib
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from ml_platform.errors import RequestRefused, RequestTooLarge, UnsupportedMedia
from ml_platform.serving.inputs import SHOWN
from ml_platform.settings import ServingSettings
from ml_platform.spec.values import suggest

LENGTH = re.compile(r"[0-9]{1,18}")
UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
MISSING = re.compile(r"Object missing required field `(.*)`")
"""What msgspec says."""
T = TypeVar("T", bound=msgspec.Struct)
GZIP = 16 + zlib.MAX_WBITS
"""How zlib is asked to expect that a gzip header comes first."""


async def read_body(request: Request, settings: ServingSettings) -> bytes:
    """The body, unpacked where it says that it is gzip.

    Raises RequestTooLarge as soon as more than `most_bytes` have come, or would come out of what
    was packed; RequestRefused where it does not arrive in time or cannot be unpacked,
    UnsupportedMedia where it is packed in another way.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in {"identity", "gzip"}:
        raise UnsupportedMedia(f"content-encoding '{encoding[:40]}' is not read; send gzip or none")
    declared_bytes(request, settings)
    try:
        async with asyncio.timeout(settings.body_seconds):
            body = await _collect(request.stream(), settings)
    except TimeoutError:
        raise RequestRefused(
            f"the body did not arrive within {settings.body_seconds:g} seconds"
        ) from None
    except ClientDisconnect:
        raise RequestRefused("the client disconnected before the body had arrived") from None
    return _unpacked(body, settings) if encoding == "gzip" else body


def declared_bytes(request: Request, settings: ServingSettings) -> int:
    """How many bytes a request says that its body has; 0 where it does not say.

    Raises RequestTooLarge where they are more than are taken.
    """
    declared = read_length(request.headers.get("content-length", "")) or 0
    if declared > settings.most_bytes:
        raise _too_large(settings)
    return declared


def parse(body: bytes, kind: type[T]) -> T:
    """A request from JSON; RequestRefused, which names the field, where it is none of the type."""
    if not body.strip():
        raise RequestRefused("the body is empty; send JSON")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise RequestRefused(_in_words(str(error), kind)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = ""
        if b"NaN" in body or b"Infinity" in body:
            hint = "; NaN and Infinity are no JSON, send null for a value that is missing"
        raise RequestRefused(f"the body is no JSON: {error}{hint}") from None


def _in_words(said: str, kind: type[msgspec.Struct]) -> str:
    """What msgspec says of a body, with the field in front.

    >>> _in_words("Expected `array`, got `int` - at `$.inputs[0].shape`", msgspec.Struct)
    '`inputs[0].shape`: expected `array`, got `int`'
    """
    said, _, place = said.partition(" - at `$")
    if not place and said.startswith("Expected `object`"):
        return f"the body should be an object with {_fields(kind)}"
    where = f"`{place.removeprefix('.').removesuffix('`')[:SHOWN]}`" if place else "the body"
    if found := UNKNOWN.fullmatch(said):
        known = suggest(found[1][:SHOWN], kind.__struct_fields__) if not place else ""
        return f"{where}: there is no field `{found[1][:SHOWN]}`{known}"
    if found := MISSING.fullmatch(said):
        return f"{where}: `{found[1]}` is missing"
    return f"{where}: {said[:1].lower()}{said[1:]}"


def _fields(kind: type[msgspec.Struct]) -> str:
    """The fields that a request of a type has to have, or else those that it may have."""
    fields = msgspec.structs.fields(kind)
    names = [f"`{each.encode_name}`" for each in fields if each.required]
    return ", ".join(names) or "one of " + ", ".join(f"`{f.encode_name}`" for f in fields)


def read_length(text: str) -> int | None:
    """The number of bytes that a header names; None where it names none.

    >>> read_length("120"), read_length("²"), read_length("-1")
    (120, None, None)
    """
    # Header lines are latin-1, which has more digits than a length is written with.
    return int(text) if LENGTH.fullmatch(text) else None


async def _collect(stream: AsyncIterator[bytes], settings: ServingSettings) -> bytes:
    body = bytearray()
    async for part in stream:
        body += part
        if len(body) > settings.most_bytes:
            raise _too_large(settings)
    return bytes(body)


def _unpacked(body: bytes, settings: ServingSettings) -> bytes:
    unpacker = zlib.decompressobj(GZIP)
    try:
        unpacked = unpacker.decompress(body, settings.most_bytes + 1)
    except zlib.error as error:
        raise RequestRefused(f"the body is not valid gzip: {error}") from None
    if len(unpacked) > settings.most_bytes:
        raise _too_large(settings)
    if not unpacker.eof:
        raise RequestRefused("the gzip body ends too early")
    return unpacked


def _too_large(settings: ServingSettings) -> RequestTooLarge:
    return RequestTooLarge(f"the body is larger than {settings.most_bytes} bytes; send it in parts")
