"""Reaches for the world outside with Python's own libraries, for the tests: what is denied comes back as the error's text."""

import json
import os
import random
import sys
import time
from base64 import b64encode
from pathlib import Path
from urllib.parse import urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import outgoing_handler
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.wasi_http_types import Fields, Method_Post, OutgoingBody, OutgoingRequest, Scheme_Http, Scheme_Https
from wit_world.imports.wharf_plugin_types import Failure_Discard, Job

MANIFEST = Path(__file__).with_name("manifest.toml").read_text()


class Manifest(exports.Manifest):
    def describe(self) -> str:
        return MANIFEST


class Handler(exports.Handler):
    def handle(self, job: Job) -> bytes:
        order = json.loads(job.payload)
        try:
            return json.dumps(ORDERS[order.pop("do")](**order)).encode()
        except (OSError, Refused) as why:
            raise Err(Failure_Discard(str(why)))


class Refused(Exception):
    pass


def say(text: str) -> None:
    print(text)
    print(text, file=sys.stderr)


def write(path: str, text: str) -> int:
    return Path(path).write_text(text)


def get(url: str) -> dict:
    answer = send(url)
    return {"status": answer["status"], "body": answer["body"]}


def filled(text: str) -> str:
    """Puts variables of the environment in place of their names in braces."""
    for name, value in os.environ.items():
        text = text.replace("{" + name + "}", value)
    return text


def basic(value: str) -> str:
    """Encodes what follows `Basic `."""
    scheme, _, rest = value.partition(" ")
    return f"Basic {b64encode(rest.encode()).decode()}" if scheme == "Basic" else value


def send(url: str, headers: dict | None = None, body: str = "") -> dict:
    fields = Fields()
    for name, value in (headers or {}).items():
        fields.append(filled(name), basic(filled(value)).encode())
    answer = exchange(filled(url), fields, filled(body).encode())
    if headers is not None:
        print(answer)
    return answer


def exchange(url: str, fields: Fields, body: bytes) -> dict:
    parts = urlsplit(url)
    request = OutgoingRequest(fields)
    request.set_scheme(Scheme_Https() if parts.scheme == "https" else Scheme_Http())
    request.set_authority(parts.netloc)
    request.set_path_with_query(parts.path + (f"?{parts.query}" if parts.query else ""))
    outgoing = None
    if body:
        request.set_method(Method_Post())
        outgoing = request.body()
    try:
        pending = outgoing_handler.handle(request, None)
        if outgoing:
            with outgoing.write() as stream:
                stream.blocking_write_and_flush(body)
            OutgoingBody.finish(outgoing, None)
        pending.subscribe().block()
        answer = pending.get().value
    except Err as refused:
        raise Refused(f"GET {url}: {refused.value}")
    if not isinstance(answer, Ok):
        raise Refused(f"GET {url}: {answer.value}")
    # What was taken of a response must go before the response does.
    with answer.value as response, response.consume() as body, body.stream() as stream:
        text = b""
        try:
            while True:
                text += stream.blocking_read(65536)
        except Err as ended:
            if not isinstance(ended.value, StreamError_Closed):
                raise
        with response.headers() as fields:
            headers = {name: value.decode() for name, value in fields.entries()}
        return {"status": response.status(), "headers": headers, "body": text.decode()}


ORDERS = {
    "say": say,
    "env": lambda: dict(os.environ),
    "list": lambda path: sorted(os.listdir(path)),
    "read": lambda path: Path(path).read_text(),
    "write": write,
    "get": get,
    "send": send,
    "time": time.time,
    "random": lambda: [random.SystemRandom().getrandbits(64), os.urandom(8).hex()],
}
