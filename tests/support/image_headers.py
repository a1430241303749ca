"""The first bytes of pictures."""

from __future__ import annotations

import struct

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 60000, 50000) + b"\x08\x02\0\0\0"
