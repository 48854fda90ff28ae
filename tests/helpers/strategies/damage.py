"""Damage to files: what disks, networks and editors do to bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

__all__ = ["Damage", "damages"]


@dataclass(frozen=True)
class Damage:
    """What happens to a file.

    Attributes:
        kind: of the damage.
        place: where, as a share of the file's length.
        length: of bytes that it concerns.
        value: that is written there, if one is.
    """

    kind: str
    place: float
    length: int
    value: int

    def __call__(self, content: bytes) -> bytes:
        """The file afterwards."""
        start = min(int(self.place * len(content)), max(len(content) - 1, 0))
        end = min(start + self.length, len(content))
        before, inside, after = content[:start], content[start:end], content[end:]
        match self.kind:
            case "bit":
                return before + bytes([inside[0] ^ 1 << self.value % 8]) + content[start + 1 :] if inside else content
            case "byte":
                return before + bytes([self.value]) + content[start + 1 :]
            case "fill":
                return before + bytes([self.value]) * len(inside) + after
            case "cut":
                return before
            case "lose":
                return before + after
            case "insert":
                return before + bytes([self.value]) * self.length + inside + after
            case "repeat":
                return before + inside + inside + after
            case "reverse":
                return before + inside[::-1] + after
        return b""


damages = st.builds(
    Damage,
    st.sampled_from(["bit", "bit", "byte", "byte", "fill", "cut", "lose", "insert", "repeat", "reverse", "empty"]),
    st.floats(0, 1, exclude_max=True) | st.floats(0, 0.02) | st.floats(0.98, 1, exclude_max=True),
    st.sampled_from([1, 2, 3, 4, 8, 16, 100, 1000]),
    st.integers(0, 255),
)


def several(most: int = 2) -> Any:
    """One damage, or a few."""
    return st.lists(damages, min_size=1, max_size=most)
