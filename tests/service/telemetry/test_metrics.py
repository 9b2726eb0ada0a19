"""Statistics: right numbers, and no more series than the server has routes, models and codes."""

import contextlib
import os
import re
import resource

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.errors import Overloaded
from service.images.preprocessing import ImageInfo
from service.inference.results import Classification, ModelInfo, Prediction
from service.telemetry.metrics import Metrics, Sources
from service.telemetry.prometheus import Snapshot, counter, merge, process_snapshot, render, without_gauges


def samples(metrics: Metrics | Snapshot) -> dict[str, float]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    snapshot = metrics.snapshot() if isinstance(metrics, Metrics) else metrics
    return {
        " ".join((sample.name, *(value for _, value in sorted(sample.labels.items())))): sample.value
        for family in text_string_to_metric_families(render(snapshot).decode())
        for sample in family.samples
    }


TINY = ModelInfo("tiny", "1", "abc", "CPUExecutionProvider", "fp32")


def classification(inference_s: float = 0.003) -> Classification:
    return Classification([], ImageInfo("JPEG", 1, 1), 0.0015, 0.0, inference_s, 2)


def test_answers_are_counted_by_route_method_and_status() -> None:
    metrics = Metrics()
    for status in (200, 200, 415):
        metrics.note_answer("/classify", "POST", status)
    found = samples(metrics)
    assert found["resnet_requests_total POST /classify 200"] == 2
    assert found["resnet_requests_total POST /classify 415"] == 1


def test_odd_methods_make_no_new_series() -> None:
    metrics = Metrics()
    for number in range(50):
        metrics.note_answer("other", f"HACK{number}", 405)
    assert samples(metrics)["resnet_requests_total other other 405"] == 50


def test_refusals_are_counted_by_code() -> None:
    metrics = Metrics()
    metrics.note_refusal(Overloaded("full"))
    assert samples(metrics)["resnet_refusals_total overloaded"] == 1


def test_a_classification_lands_in_its_buckets() -> None:
    metrics = Metrics()
    metrics.note_classification(TINY, classification(inference_s=0.003), 0.3)
    metrics.note_classification(TINY, classification(inference_s=0.002), 100.0)
    found = samples(metrics)
    assert found["resnet_pictures_total JPEG"] == 2
    assert found["resnet_inference_seconds_bucket 0.001 tiny"] == 0
    assert found["resnet_inference_seconds_bucket 0.002 tiny"] == 1  # a bound belongs to its own bucket
    assert found["resnet_inference_seconds_bucket 0.005 tiny"] == 2
    assert found["resnet_inference_seconds_sum tiny"] == pytest.approx(0.005)
    assert found["resnet_request_seconds_bucket 5.0 tiny"] == 1
    assert found["resnet_request_seconds_bucket +Inf tiny"] == found["resnet_request_seconds_count tiny"] == 2
    assert found["resnet_batch_size_bucket 1.0 tiny"] == 0
    assert found["resnet_batch_size_bucket 2.0 tiny"] == 2


def test_what_is_going_on_now_can_be_seen() -> None:
    metrics = Metrics(sources=Sources(gauges={"resnet_queue_depth": lambda: 7}))
    metrics.in_flight = 9
    metrics.note_models([TINY])
    found = samples(metrics)
    assert found["resnet_queue_depth"] == 7
    assert found["resnet_requests_in_flight"] == 9
    assert found["resnet_model_info tiny fp32 CPUExecutionProvider abc 1"] == 1
    assert found["process_resident_memory_bytes"] > 0


def busy(requests: int, in_flight: int) -> Metrics:
    metrics = Metrics()
    for _ in range(requests):
        metrics.note_answer("/classify", "POST", 200)
        metrics.note_classification(TINY, classification(), 0.3)
    metrics.in_flight = in_flight
    metrics.note_models([TINY])
    return metrics


def test_the_statistics_of_several_processes_add_up() -> None:
    found = samples(merge((busy(2, 1).snapshot(), Metrics().snapshot(), busy(3, 4).snapshot())))
    assert found["resnet_requests_total POST /classify 200"] == 5
    assert found["resnet_requests_in_flight"] == 5
    assert found["resnet_request_seconds_count tiny"] == 5
    assert found["resnet_request_seconds_sum tiny"] == pytest.approx(1.5)
    assert found["resnet_model_info tiny fp32 CPUExecutionProvider abc 1"] == 1
    assert found["resnet_processes"] == 2  # one has no model yet


def test_a_process_that_has_ended_leaves_its_counts_and_nothing_else() -> None:
    found = samples(merge((without_gauges(busy(2, 7).snapshot()), busy(1, 1).snapshot())))
    assert found["resnet_requests_total POST /classify 200"] == 3
    assert found["resnet_requests_in_flight"] == 1
    assert found["resnet_processes"] == 1


def test_adding_up_changes_none_of_the_parts() -> None:
    parts = [busy(1, 1).snapshot(), busy(2, 2).snapshot()]
    first = samples(merge(parts))
    assert samples(merge(parts)) == first


def aged(seconds: float) -> Sources:
    return Sources({"resnet_log_lines_dropped": lambda: 3}, {"resnet_queue_age_seconds": lambda: seconds})


def test_the_age_of_the_queue_is_the_oldest_processs_and_dropped_lines_are_a_sum() -> None:
    young, old = Metrics(sources=aged(0.5)), Metrics(sources=aged(2.0))
    found = samples(merge((young.snapshot(), old.snapshot())))
    assert found["resnet_queue_age_seconds"] == 2.0
    assert found["resnet_log_lines_dropped_total"] == 6


def test_deaths_are_counted_by_reason() -> None:
    found = samples(merge((counter("resnet_process_deaths", "signal 9"), counter("resnet_process_deaths", "signal 9"))))
    assert found["resnet_process_deaths_total signal 9"] == 2


def test_what_the_machine_gives_is_known() -> None:
    found = samples(process_snapshot())
    assert found["process_open_fds"] > 0
    assert found["process_cpu_seconds_total"] > 0
    assert found["process_start_time_seconds"] > 1e9


def test_a_process_without_a_free_descriptor_still_says_how_it_is() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        found = samples(Metrics())
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(taken) > 0
    assert found["process_open_fds"] == 200
    assert found["process_resident_memory_bytes"] > 1_000_000


def seen(label: str, index: int, probability: float) -> Classification:
    return Classification([Prediction(label, index, probability)], ImageInfo("JPEG", 1, 1), 0.0, 0.0, 0.0, 1)


def test_predictions_are_counted_only_where_an_operator_wants_them() -> None:
    metrics = Metrics()
    metrics.note_classification(TINY, seen("cat", 0, 0.9), 0.3)
    assert [name for name in samples(metrics) if "prediction" in name or "confidence" in name] == []


def test_the_first_labels_of_a_card_have_their_own_counters_and_all_others_share_one() -> None:
    metrics = Metrics(counted_labels=2)
    metrics.note_classification(TINY, seen("cat", 0, 0.9), 0.3)
    metrics.note_inference(TINY, [seen("dog", 1, 0.5), seen("cat", 0, 0.4)], 0.3)
    for number in range(2, 50):
        metrics.note_classification(TINY, seen(f"bird {number}", number, 0.99), 0.3)
    found = samples(merge((metrics.snapshot(), Metrics(counted_labels=2).snapshot())))
    counts = {name: count for name, count in found.items() if name.startswith("resnet_predictions_total")}
    assert counts == {
        "resnet_predictions_total cat tiny": 2,
        "resnet_predictions_total dog tiny": 1,
        "resnet_predictions_total other tiny": 48,
    }


def test_confidence_is_a_histogram_of_the_best_labels_probability() -> None:
    metrics = Metrics(counted_labels=1)
    for probability in (0.35, 0.4, 0.97, 1.0):
        metrics.note_classification(TINY, seen("cat", 0, probability), 0.3)
    found = samples(metrics)
    assert found["resnet_confidence_bucket 0.3 tiny"] == 0
    assert found["resnet_confidence_bucket 0.4 tiny"] == 2
    assert found["resnet_confidence_bucket 0.99 tiny"] == 3
    assert found["resnet_confidence_count tiny"] == 4
    assert found["resnet_confidence_sum tiny"] == pytest.approx(2.72)


def test_rows_without_labels_count_no_prediction() -> None:
    metrics = Metrics(counted_labels=1)
    metrics.note_inference(TINY, [classification()], 0.3)
    metrics.note_classification(TINY, classification(), 0.3)
    assert not any(name.startswith("resnet_predictions_total") for name in samples(metrics))


def test_a_label_with_a_line_break_stays_one_label() -> None:
    metrics = Metrics(counted_labels=1)
    metrics.note_classification(TINY, seen("grey\ncat", 0, 0.9), 0.3)
    assert samples(metrics)["resnet_predictions_total grey cat tiny"] == 1


def test_numbers_of_other_parts_are_read_for_each_snapshot_and_add_up() -> None:
    threads = [2]
    one, other = Metrics(), Metrics()
    for metrics in (one, other):
        metrics.add(Sources({"resnet_engine_busy_seconds": lambda: 1.5}, {"resnet_engine_threads": lambda: threads[0]}))
    found = samples(merge((one.snapshot(), other.snapshot())))
    assert found["resnet_engine_busy_seconds_total"] == 3.0
    assert found["resnet_engine_threads"] == 4
    threads[0] = 0
    assert samples(one)["resnet_engine_threads"] == 0


def test_the_versions_of_the_programs_are_known() -> None:
    text = render(Metrics().snapshot()).decode()
    assert re.search(
        r'resnet_build_info\{python="3\.\d+\.\d+",runtime="onnxruntime\S* [\d.]+",version="[\d.]+"} 1', text
    )
