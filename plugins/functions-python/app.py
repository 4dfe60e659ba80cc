"""Counts the lines, words and characters of a text. Nothing in it is made for one host."""

import late_imports  # noqa: F401
import wit_world
from componentize_py_types import Err


class WitWorld(wit_world.WitWorld):
    def count(self, text: str) -> wit_world.Totals:
        if not text:
            raise Err("the text is empty")
        return wit_world.Totals(lines=len(text.splitlines()), words=len(text.split()), characters=len(text))
