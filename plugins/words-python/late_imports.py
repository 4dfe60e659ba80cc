"""Imports what Python and common packages import only when they need it.

The component has the modules that were imported while it was built, and no files to import others from: an `import` within a
function finds only those. What your packages import late belongs into this list, too.
"""

import importlib

MODULES = """
_strptime base64 binascii bisect calendar collections.abc copy csv dataclasses datetime decimal difflib email.message email.parser
email.utils enum fractions functools hashlib heapq hmac html html.entities html.parser io itertools linecache math numbers operator
pprint random re secrets statistics string struct textwrap threading tokenize traceback types typing unicodedata urllib.parse uuid
warnings xml.etree.ElementTree zlib
encodings.ascii encodings.cp1252 encodings.idna encodings.iso8859_1 encodings.iso8859_15 encodings.latin_1 encodings.punycode
encodings.unicode_escape encodings.utf_16 encodings.utf_16_be encodings.utf_16_le encodings.utf_32 encodings.utf_8 encodings.utf_8_sig
"""

for name in MODULES.split():
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # this build of Python does not have it
