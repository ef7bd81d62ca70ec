"""Real pictures for schemathesis, which otherwise sends random bytes and never gets past the decoder.

    visage serve --db gallery.db --key-file keys --port 8080
    VISAGE_PICTURES=DIR SCHEMATHESIS_HOOKS=tests/openapi_pictures.py \
        schemathesis run http://127.0.0.1:8080/openapi.json --checks all -H "Authorization: Bearer KEY"

DIR holds PNG or JPEG pictures, each with one face. Whatever the description calls a picture, in a form, a raw body
or base64, is one of them; wrong types, missing fields and the like are still schemathesis's own.
"""

import base64
import os
import pathlib

import schemathesis
from hypothesis import strategies

FILES = sorted(pathlib.Path(os.environ["VISAGE_PICTURES"]).rglob("*.*"))
KINDS = {"image/png": {".png"}, "image/jpeg": {".jpg", ".jpeg"}, "application/octet-stream": {".png", ".jpg", ".jpeg"}}


def pictures(suffixes):
    found = [path.read_bytes() for path in FILES if path.suffix.lower() in suffixes]
    return strategies.sampled_from(found) if found else None


every = pictures({".png", ".jpg", ".jpeg"})
schemathesis.openapi.format("binary", every)
schemathesis.openapi.format("base64-picture", every.map(lambda picture: base64.b64encode(picture).decode()))
for kind, suffixes in KINDS.items():
    if (found := pictures(suffixes)) is not None:
        schemathesis.openapi.media_type(kind, found)


def mark(part):
    """Gives every base64 string of the description the format that is registered above."""
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        mark(inner)
    if isinstance(part, dict) and part.get("contentEncoding") == "base64":
        part["format"] = "base64-picture"


@schemathesis.hook
def before_load_schema(context, raw_schema):
    mark(raw_schema)
