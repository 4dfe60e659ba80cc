"""Sends HTTP requests, to the places that the operator grants.

A plugin that imports this module imports `wasi:http`, too: build.sh adds what `http_client.wit` lists.
"""

import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from componentize_py_types import Err
from wit_world.imports import http_types as types
from wit_world.imports import outgoing_handler
from wit_world.imports.streams import StreamError_Closed

# As much as one call may write, and one may read.
WRITTEN_AT_ONCE = 4096
READ_AT_ONCE = 65536


class RequestError(OSError):
    """No whole response came: the request was not valid or not granted, or the connection failed."""


@dataclass
class Response:
    status: int
    headers: dict[str, str]  # names in small letters; values of one name are joined with a comma
    body: bytes

    def text(self) -> str:
        return self.body.decode()

    def json(self) -> object:
        return json.loads(self.body)


def request(url: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b"") -> Response:
    """Sends a request, and waits for the whole response. A redirect is a response: it is not followed."""
    scheme = urlsplit(url).scheme
    if scheme not in ("http", "https"):
        raise RequestError(f"{method.upper()} {url}: expected http:// or https://, got {scheme or 'no scheme'}")
    try:
        return received(sent(url, method.upper(), headers or {}, body))
    except Err as failed:
        raise RequestError(f"{method.upper()} {url}: {failed.value or 'it is no valid request'}") from None


def sent(url: str, method: str, headers: dict[str, str], body: bytes) -> types.IncomingResponse:
    fields = types.Fields()
    for name, value in headers.items():
        fields.append(name, value.encode())
    if body and not any(name.lower() == "content-length" for name in headers):
        fields.append("content-length", str(len(body)).encode())
    parts = urlsplit(url)
    outgoing = types.OutgoingRequest(fields)
    known = getattr(types, f"Method_{method.capitalize()}", None)
    outgoing.set_method(known() if known and method != "OTHER" else types.Method_Other(method))
    outgoing.set_scheme(types.Scheme_Http() if parts.scheme == "http" else types.Scheme_Https())
    outgoing.set_authority(parts.netloc)
    outgoing.set_path_with_query((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    content = outgoing.body() if body else None
    pending = outgoing_handler.handle(outgoing, None)
    if content:
        try:
            with content.write() as stream:
                for start in range(0, len(body), WRITTEN_AT_ONCE):
                    stream.blocking_write_and_flush(body[start : start + WRITTEN_AT_ONCE])
            types.OutgoingBody.finish(content, None)
        except Err:
            # Nobody takes the rest of the body: the answer says why.
            pass
    with pending, pending.subscribe() as ready:
        ready.block()
        answer = pending.get().value
    if isinstance(answer, Err):
        raise answer
    return answer.value


def received(response: types.IncomingResponse) -> Response:
    # What was taken of a response must go before the response does.
    with response:
        headers: dict[str, str] = {}
        with response.headers() as fields:
            for name, value in fields.entries():
                name, value = name.lower(), value.decode("latin-1")
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        with response.consume() as content, content.stream() as stream:
            parts = []
            try:
                while True:
                    parts.append(stream.blocking_read(READ_AT_ONCE))
            except Err as ended:
                if not isinstance(ended.value, StreamError_Closed):
                    raise
        return Response(response.status(), headers, b"".join(parts))
