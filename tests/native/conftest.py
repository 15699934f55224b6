import pytest
from fake import Bench


@pytest.fixture
def bench():
    """Makes benches and closes them, with their audit, after the test."""
    made = []

    def make(**options):
        made.append(Bench(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()
