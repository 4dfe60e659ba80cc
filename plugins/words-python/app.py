"""Counts the words of a text: one chunk for each line as it is counted, the totals as the result."""

import json
import sys
import time
from pathlib import Path

import late_imports  # noqa: F401
from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import attempt
from wit_world.imports.types import Failure_Discard, Failure_Retry, Failure_RetryAfter, Job, Message

# Read while the component is built: each call begins with this module as it was then.
MANIFEST = Path(__file__).with_name("manifest.toml").read_text()


class Manifest(exports.Manifest):
    def describe(self) -> str:
        return MANIFEST


class Handler(exports.Handler):
    # `count` is the only task that the manifest declares: the host sends no other.
    def handle(self, job: Job) -> bytes:
        order = parsed(job.payload)
        if "fail" in order:
            fail(order["fail"])
        return line_of(count(order))


class Subscriber(exports.Subscriber):
    def receive(self, message: Message) -> bytes:
        words = sum(len(line.split()) for line in lines(parsed(message.payload)["text"]))
        return line_of({"words": words, "language": "python"})


def count(order: dict) -> dict:
    all_lines = lines(order["text"])
    totals = {"lines": 0, "words": 0, "characters": len(order["text"])}
    for line in all_lines:
        if attempt.cancelled():
            raise discard(f"cancelled after line {totals['lines']} of {len(all_lines)}")
        words = len(line.split())
        totals["lines"] += 1
        totals["words"] += words
        try:
            attempt.emit(line_of({"line": totals["lines"], "words": words}))
        except Err as refused:
            raise discard(refused.value)
        attempt.progress(totals["lines"] / len(all_lines), f"line {totals['lines']} of {len(all_lines)}")
        time.sleep(order.get("pause-ms", 0) / 1000)
    return totals


def lines(text: str) -> list[str]:
    # Not `splitlines`, which divides at more than a line's end.
    all_lines = text.split("\n")
    if all_lines[-1] == "":
        all_lines.pop()
    return all_lines


def fail(how: str) -> None:
    """Fails as the order asks: to see what the host makes of it."""
    print(f"failing on request: {how}", file=sys.stderr)
    match how:
        case "retry":
            raise Err(Failure_Retry("asked to fail"))
        case "retry-after":
            raise Err(Failure_RetryAfter(("asked to fail", 1000)))
        case "discard":
            raise discard("asked to fail")
        case _:
            raise RuntimeError("asked to panic")  # any other exception is a trap: its traceback is in the report


def discard(why: str) -> Err:
    return Err(Failure_Discard(why))


def parsed(payload: bytes) -> dict:
    try:
        order = json.loads(payload)
    except ValueError as error:
        raise discard(f'the payload is not {{"text": "..."}}: {error}')
    if not isinstance(order, dict) or not isinstance(order.get("text"), str):
        raise discard('the payload is not {"text": "..."}: it has no text')
    return order


def line_of(value: dict) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
