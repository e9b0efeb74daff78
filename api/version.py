"""The version of this installation, as the API shows it."""

from typing import Final

VERSION: Final = "0.1.0"
