from deploy.environment import ROOT


def test_a_provider_breaks_its_connection_only_for_the_listed_reasons() -> None:
    """By `port.broken`, whose argument the types check: runs held for another reason would not be found when it is mended."""
    sources = (ROOT / "activities" / "providers").glob("*.py")
    assert [path.name for path in sources if "SendOutcome.CONNECTION_BROKEN" in path.read_text()] == ["port.py"]
