"""Limits on images that others send: to the demo and to the service."""

MAX_FILES = 24
"""Maximum number of images per request."""

MAX_BYTES = 24 * 2**20
"""Maximum size of a file."""

MAX_PIXELS = 40_000_000
"""Maximum pixels of an image; decoding takes four bytes for each."""

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
    ".gif": "GIF",
    ".jp2": "JPEG2000",
    ".j2k": "JPEG2000",
}
"""Accepted suffixes and their formats; no other format is decoded."""
