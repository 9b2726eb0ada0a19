"""The row "What changed?" of the dashboard."""

from deploy.monitoring.panels.panel import PREDICTIONS, TARGETS, Panel

TITLE = "What changed?"
ROW = (
    Panel(
        "Model changes",
        "timeseries",
        {"{{outcome}}": f"sum by (outcome) (increase(resnet_reloads_total{{{TARGETS}}}[$__rate_interval]))"},
        "short",
        "`resnet_reloads_total`: the annotations of the other panels show loaded and refused versions.",
    ),
    Panel(
        "Log lines and traces dropped",
        "timeseries",
        {
            "log, {{instance}}": f"increase(resnet_log_lines_dropped_total{{{TARGETS}}}[$__rate_interval])",
            "traces, {{instance}}": f"increase(resnet_traces_dropped_total{{{TARGETS}}}[$__rate_interval])",
        },
        "short",
        "`resnet_log_lines_dropped_total`: the log is read too slowly. `resnet_traces_dropped_total`: the collector.",
    ),
    Panel(
        "Uptime",
        "timeseries",
        {"{{instance}}": f"resnet_uptime_seconds{{{TARGETS}}}"},
        "s",
        "`resnet_uptime_seconds`: falls to 0 at a restart.",
    ),
    Panel(
        "Builds",
        "table",
        {"": f"sum by (instance, version, python, runtime) (resnet_build_info{{{TARGETS}}})"},
        "short",
        "`resnet_build_info`: versions of the service, of Python and of the runtime.",
    ),
    Panel(
        "Labels, share of the images",
        "timeseries",
        {
            "{{model}} {{label}}": f"topk(10, sum by (model, label) (rate({PREDICTIONS}))"
            f" / ignoring (label) group_left () sum by (model) (rate({PREDICTIONS})))"
        },
        "percentunit",
        "`resnet_predictions_total`: only with `--label-metrics`.",
        8,
        stacked=True,
    ),
    Panel(
        "Mean confidence",
        "timeseries",
        {
            "{{model}}": f"sum by (model) (rate(resnet_confidence_sum{{{TARGETS}}}[$__rate_interval]))"
            f" / sum by (model) (rate(resnet_confidence_count{{{TARGETS}}}[$__rate_interval]))"
        },
        "percentunit",
        "`resnet_confidence`: only with `--label-metrics`.",
        8,
    ),
    Panel(
        "Drift against 7 days",
        "timeseries",
        {
            "labels {{model}}": f"resnet:label_drift:1h{{{TARGETS}}}",
            "confidence {{model}}": f"resnet:confidence_drop:1h{{{TARGETS}}}",
        },
        "percentunit",
        "The part of the last hour's images whose labels differ from the week's mixture, and the drop of confidence.",
        8,
        red_above=0.3,
    ),
)
