"""Reaches for the world outside with Python's own libraries, for the tests: what is denied comes back as the error's text."""

import json
import os
import random
import sys
import time
from base64 import b64encode
from pathlib import Path

from componentize_py_types import Err
from http_client import request
from wit_world import exports
from wit_world.imports.types import Failure_Discard, Job

MANIFEST = Path(__file__).with_name("manifest.toml").read_text()


class Manifest(exports.Manifest):
    def describe(self) -> str:
        return MANIFEST


class Handler(exports.Handler):
    def handle(self, job: Job) -> bytes:
        order = json.loads(job.payload)
        try:
            return json.dumps(ORDERS[order.pop("do")](**order)).encode()
        except OSError as why:
            raise Err(Failure_Discard(str(why)))


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
    filled_headers = {filled(name): basic(filled(value)) for name, value in (headers or {}).items()}
    response = request(filled(url), "POST" if body else "GET", filled_headers, filled(body).encode())
    answer = {"status": response.status, "headers": response.headers, "body": response.text()}
    if headers is not None:
        print(answer)
    return answer


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
