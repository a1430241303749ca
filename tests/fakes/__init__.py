"""Stand-ins for what is outside: the engine, the hub."""

from __future__ import annotations

import os

ENGINE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "engine.py")
