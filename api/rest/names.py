"""What people may call what they make: journeys, campaigns, segments, templates, topics, connections."""

from typing import Annotated

from pydantic import StringConstraints

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
