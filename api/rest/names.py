"""What people may call what they make: journeys, campaigns, segments, templates, topics, connections."""

from typing import Annotated

from pydantic import AfterValidator, StringConstraints


def _visible(name: str) -> str:
    if not name.strip():
        raise ValueError("Give a name that is not blank.")
    return name


Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Called = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_visible)]  # to the letter, as others name it
