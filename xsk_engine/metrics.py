"""A running engine's figures for Prometheus and others that read OpenMetrics."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app
from prometheus_client.registry import Collector

from xsk_engine import privileges, shortage
from xsk_engine.engine import Engine
from xsk_engine.errors import UnavailableError
from xsk_engine.figures import FIGURES, FLOW, QUEUE, Figure, FlowFacts, of_queues, per_flow
from xsk_engine.plan import Plan
from xsk_engine.sinkreport import COUNTS, SinkFigures, reflected_counts

PREFIX = "xsk_engine_"
# Who connects and asks nothing has a thread and a descriptor for so long. Lower: cuts slow scrapers off;
# higher: more of them may pile up.
_REQUEST_S = 5.0
# And who asks or reads byte by byte, in all. Prometheus waits for 10 s.
_WHOLE_REQUEST_S = 10.0
# Higher: connections that nobody uses may take the descriptors that a run needs.
_MOST_REQUESTS = 16


class _EngineCollector(Collector):
    """Reads the counter pages when it is asked; without an engine there is nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._facts: Sequence[FlowFacts] = ()

    def watch(self, engine: Engine | None, facts: Sequence[FlowFacts] = ()) -> None:
        """From now on this engine, which is not closed before another or None is watched."""
        with self._lock:
            self._engine, self._facts = engine, facts

    def collect(self) -> Iterator[Any]:
        with self._lock:
            engine = self._engine
            if engine is None:
                return
            queues = list(zip(engine.config.queues, engine.queue_snapshots(), strict=False))
            flows = per_flow(self._facts, engine.flow_counts())
            interface = engine.config.interface
        by_queue = [([interface, str(queue)], of_queues(snapshot)) for queue, snapshot in queues]
        by_flow = [([interface, str(row["flow"]), row["name"]], row) for row in flows]
        for figure in FIGURES:
            if QUEUE in figure.scopes and figure.kind != "rate":
                yield _family(figure, "", ["interface", "queue"], by_queue)
            if FLOW in figure.scopes and figure.kind != "rate":
                yield _family(figure, "flow_", ["interface", "flow", "name"], by_flow)


def _family(
    figure: Figure, scope: str, labels: list[str], rows: Sequence[tuple[list[str], dict[str, Any]]]
) -> CounterMetricFamily | GaugeMetricFamily:
    make = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
    family = make(f"{PREFIX}{scope}{figure.name}", figure.text, labels=labels)
    for values, row in rows:
        if row[figure.name] is not None:
            family.add_metric(values, row[figure.name])
    return family


class SinkCollector(Collector):
    """Reads a sink's figures when it is asked; without one there is nothing."""

    def __init__(self) -> None:
        self.figures: Callable[[], SinkFigures] | None = None
        """of the moment, while there is a sink"""

    def collect(self) -> Iterator[Any]:
        figures = self.figures
        if figures is None:
            return
        now = figures()
        labels = [now.interface]
        others = {"overrun_packets": now.overrun_packets, **reflected_counts(now.reflected)}
        for name in (*COUNTS, *others):
            family = CounterMetricFamily(f"{PREFIX}sink_{name}", name.replace("_", " "), labels=["interface"])
            family.add_metric(labels, others[name] if name in others else getattr(now.arrivals, name))
            yield family
        latency = now.arrivals.latency
        quantiles = GaugeMetricFamily(
            f"{PREFIX}sink_latency_seconds", "one-way, of all so far", labels=["interface", "quantile"]
        )
        for percent in (50, 90, 99, 99.9, 100):
            quantiles.add_metric([*labels, f"{percent / 100:g}"], latency.percentile_ns(percent) / 1e9)
        yield quantiles


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_S

    def log_message(self, format: str, *args: Any) -> None:
        """Not on our stderr."""

    def get_stderr(self) -> io.StringIO:
        """Nor why an answer could not be sent."""
        return io.StringIO()


class _Server(ThreadingWSGIServer):
    """Answers so many at once, closes who comes beside them, and who takes too long."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._since: dict[socket.socket, float] = {}
        super().__init__(*arguments, **options)

    def server_bind(self) -> None:
        """Without asking a name server what the address is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._since[request] = time.monotonic()
        if len(self._since) > _MOST_REQUESTS:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second."""
        for request, since in list(self._since.items()):
            if time.monotonic() - since > _WHOLE_REQUEST_S:
                with contextlib.suppress(OSError):  # its thread has just closed it
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that goes away while it is answered is his affair."""


def _listen(host: str, port: int, app: Any) -> _Server:
    """OSError."""
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]

    class OfFamily(_Server):
        address_family = family

    server = OfFamily((str(where[0]), port), _Handler)
    server.set_app(app)
    return server


class MetricsServer:
    """Answers scrapes on host and port, from threads of its own, until close(). UnavailableError: the address
    is taken or not ours, or no thread can be started."""

    def __init__(self, address: tuple[str, int], collector: Collector | None = None) -> None:
        registry = CollectorRegistry()
        self._collector = _EngineCollector()
        registry.register(collector or self._collector)
        host, port = address
        try:
            self._server = _listen(host, port, make_wsgi_app(registry))
        except OSError as error:
            raise UnavailableError(
                "metrics", f"{host}:{port}", "it cannot listen there; choose another port", errno=error.errno
            ) from None
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
        try:
            with shortage.named("metrics", f"{host}:{port}"):
                self._thread.start()
        except BaseException:
            self._server.server_close()
            raise

    def _serve(self) -> None:
        privileges.drop()  # and with it what answers each scrape; it only reads figures
        self._server.serve_forever()

    async def watch(self, engine: Engine, plan: Plan) -> None:
        """Tells this engine's figures until it is cancelled."""
        self._collector.watch(engine, plan.flows)
        try:
            await asyncio.Event().wait()
        finally:
            self._collector.watch(None)

    def close(self) -> None:
        """Within a second. Idempotent."""
        if self._thread.is_alive():  # shutdown() waits for it
            self._server.shutdown()
        self._server.server_close()
        self._thread.join()
