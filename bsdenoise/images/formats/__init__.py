"""Image file formats, one module each; `bsdenoise.images` chooses among them.

A format's module has `open_file` (headers, then pixels on demand), `check` and `write`.
"""
