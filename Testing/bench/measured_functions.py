"""Functions that the tests call in fresh processes; it imports little, so that what they hold stands out."""

from __future__ import annotations

from apformer.errors import BundleError


def hold(mebibytes: int) -> int:
    """Fill that much memory and let it go."""
    return len(bytes(b"x" * (mebibytes << 20)))


def chatter(answer: str) -> str:
    """Print, then answer."""
    print("this is not the answer")
    return answer


def refuse() -> None:
    """Fail as the engine does."""
    raise BundleError("It broke.", "There is no result.", "Mend it.")


def crash() -> None:
    """Fail as a bug does."""
    raise RuntimeError("some bug")
