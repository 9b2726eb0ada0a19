"""Export of spans: the variables, the form on the wire, and that nothing is ever delayed by a collector."""

from collections.abc import Iterator

import pytest

from service.telemetry.otlp import BadEndpoint, Collector, Span, SpanExporter, attribute, collector
from tests.support.servers.collector import CollectorServer


def spans_of(record: int) -> Iterator[Span]:
    yield {"name": f"span {record}", "attributes": [attribute("number", record)]}


def target(server: CollectorServer, headers: dict[str, str] | None = None) -> Collector:
    return Collector(False, server.address, "/v1/traces", headers or {}, {"service.name": "tested"})


def test_without_an_endpoint_there_is_no_collector() -> None:
    assert collector({}) is None
    assert collector({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) is None


def test_the_variables_of_opentelemetry_name_the_collector() -> None:
    found = collector(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example.org:4318/otlp/",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc, x-tenant=7",
            "OTEL_SERVICE_NAME": "classifier",
            "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=pod-1,deployment.environment=test",
        }
    )
    assert found is not None
    assert (found.is_https, found.address, found.path) == (True, "collector.example.org:4318", "/otlp/v1/traces")
    assert found.headers == {"authorization": "Bearer abc", "x-tenant": "7"}
    assert found.resource["service.name"] == "classifier"
    assert found.resource["k8s.pod.name"] == "pod-1"
    assert found.resource["service.version"]


@pytest.mark.parametrize("wrong", ["collector:4318", "ftp://a:1", "http://", "http://a:99999", "http://a:x"])
def test_an_endpoint_that_is_no_address_is_an_error(wrong: str) -> None:
    with pytest.raises(BadEndpoint, match="OTEL_EXPORTER_OTLP_ENDPOINT is no address"):
        collector({"OTEL_EXPORTER_OTLP_ENDPOINT": wrong})


def test_records_arrive_as_spans_of_the_resource() -> None:
    with CollectorServer() as server:
        exporter: SpanExporter[int] = SpanExporter(target(server, {"X-Tenant": "7"}), spans_of)
        for number in range(5):
            exporter.put(number)
        spans = server.wait_for_spans(5)
        exporter.flush()
        assert [span["name"] for span in spans] == [f"span {number}" for number in range(5)]
        assert spans[3]["attributes"] == [{"key": "number", "value": {"intValue": "3"}}]
        assert set(server.paths) == {"/v1/traces"}
        assert server.headers[0]["content-type"] == "application/json"
        assert server.headers[0]["x-tenant"] == "7"
        resource = server.exports[0]["resourceSpans"][0]["resource"]
        assert resource == {"attributes": [{"key": "service.name", "value": {"stringValue": "tested"}}]}
        assert exporter.dropped == 0


def test_records_beyond_the_buffer_are_dropped_and_counted_while_the_collector_hangs() -> None:
    with CollectorServer() as server:
        server.may_answer.clear()
        exporter: SpanExporter[int] = SpanExporter(target(server), spans_of, most_records=10)
        exporter.put(0)
        server.wait_for_exports(1)  # the thread waits for its response
        for number in range(25):
            exporter.put(number)
        assert exporter.dropped == 15
        server.may_answer.set()
        server.wait_for_spans(11)
        exporter.flush()
        assert exporter.dropped == 15


def test_traces_that_the_collector_refuses_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with CollectorServer(status=503) as server:
        exporter: SpanExporter[int] = SpanExporter(target(server), spans_of)
        for number in range(2):
            exporter.put(number)
            server.wait_for_exports(number + 1)
            exporter.flush()
    assert exporter.dropped == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"the collector of traces at {server.address} does not accept them: status 503"
    ]


def test_a_collector_that_is_not_there_costs_its_traces_only() -> None:
    with CollectorServer() as server:
        pass  # its port is closed now
    exporter: SpanExporter[int] = SpanExporter(target(server), spans_of)
    exporter.put(1)
    exporter.flush()
    assert exporter.dropped == 1
