import pytest
from tcp_bench import TcpBench


@pytest.fixture
def bench(request):
    """Makes benches; after the test every connection is aborted and every chunk accounted for."""
    made = []

    def make(**options):
        made.append(TcpBench(**options))
        return made[-1]

    yield make
    failures = []
    for one in made:
        for step in (one.shut, one.close):
            try:
                step()
            except AssertionError as failure:
                failures.append(failure)
    if failures:
        raise failures[0]
