"""The row "How much headroom?" of the dashboard."""

from deploy.monitoring.panels.panel import TARGETS, Panel, total

TITLE = "How much headroom?"
ROW = (
    Panel(
        "Load of each server",
        "timeseries",
        {"{{instance}}": f"resnet:load:rate1m{{{TARGETS}}}"},
        "percentunit",
        "`resnet_engine_busy_seconds_total` ÷ `resnet_engine_threads`, or `process_cpu_seconds_total` ÷ "
        "`resnet_cores` if that is more, times 1 + refused ÷ answered. The replicas are scaled on it; target 70%.",
        red_above=0.9,
    ),
    Panel(
        "Engine threads and cores in use",
        "timeseries",
        {
            "engine {{instance}}": f"resnet:busy:rate1m{{{TARGETS}}}",
            "cores {{instance}}": f"resnet:cpu:rate1m{{{TARGETS}}}",
        },
        "percentunit",
        "The bottleneck: threads that run models, or the cores, on which uploads and responses run, too.",
    ),
    Panel(
        "Queue and requests in flight",
        "timeseries",
        {"queue": total("resnet_queue_depth"), "in flight": total("resnet_requests_in_flight")},
        "short",
        "`resnet_queue_depth` images; `resnet_requests_in_flight`, uploads included.",
    ),
    Panel(
        "Age of the queue",
        "timeseries",
        {"{{instance}}": f"resnet_queue_age_seconds{{{TARGETS}}}"},
        "s",
        "`resnet_queue_age_seconds`: 0 at usual loads; the limit is `--max-queue-age-s`.",
        red_above=1,
    ),
    Panel(
        "Connections",
        "timeseries",
        {"{{instance}}": f"resnet_connections{{{TARGETS}}}"},
        "short",
        "`resnet_connections`: of clients and load balancers.",
    ),
    Panel(
        "Limits in use",
        "timeseries",
        {
            "memory {{instance}}": f"resnet_memory_bytes{{{TARGETS}}} / resnet_memory_limit_bytes{{{TARGETS}}}",
            "uploads {{instance}}": f"resnet_upload_memory_bytes{{{TARGETS}}}"
            f" / resnet_upload_memory_limit_bytes{{{TARGETS}}}",
            "files {{instance}}": f"process_open_fds{{{TARGETS}}} / process_max_fds{{{TARGETS}}}",
        },
        "percentunit",
        "Memory of the control group, memory of uploads, file descriptors.",
        red_above=0.9,
    ),
    Panel(
        "Memory",
        "timeseries",
        {
            "in use {{instance}}": f"resnet_memory_bytes{{{TARGETS}}}",
            "resident {{instance}}": f"process_resident_memory_bytes{{{TARGETS}}}",
        },
        "bytes",
        "`resnet_memory_bytes` counts against the limit; `process_resident_memory_bytes` counts shared pages twice.",
    ),
    Panel(
        "Workers and engine threads",
        "timeseries",
        {"workers": total("resnet_processes"), "engine threads": total("resnet_engine_threads")},
        "short",
        "`resnet_processes`, `resnet_engine_threads`: fewer than usual while a worker is replaced.",
    ),
)
