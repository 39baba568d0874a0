"""Path parameters that hold an id: any string, slashes and line breaks included.

The framework's own `path` stops at a line break, so that an event whose id has one could be stored and never be read.
"""

from __future__ import annotations

from starlette.convertors import PathConvertor, register_url_convertor

ANY_ID = "anyid"
"""The convertor's name: `f"/{{event_id:{ANY_ID}}}"`."""


class _AnyText(PathConvertor):
    regex = r"[\s\S]*"


register_url_convertor(ANY_ID, _AnyText())
