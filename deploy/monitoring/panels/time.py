"""The row "Where does time go?" of the dashboard."""

from deploy.monitoring.panels.panel import TARGETS, Panel, buckets, mean, quantile

TITLE = "Where does time go?"
ROW = (
    Panel(
        "Mean time of an image",
        "timeseries",
        {
            "decode": mean("decode"),
            "queue": mean("queue"),
            "inference": mean("inference"),
            "upload and the rest": f"clamp_min({mean('request')} - ({mean('decode')}) - ({mean('queue')})"
            f" - ({mean('inference')}), 0)",
        },
        "s",
        "The parts of `resnet_request_seconds`: `resnet_decode_seconds`, `resnet_queue_seconds`, "
        "`resnet_inference_seconds`, and what remains.",
        8,
        stacked=True,
    ),
    Panel(
        "Requests by time",
        "heatmap",
        buckets("resnet_request_seconds"),
        "s",
        "`resnet_request_seconds`: how many took how long.",
        8,
    ),
    Panel(
        "Images by time in the queue",
        "heatmap",
        buckets("resnet_queue_seconds"),
        "s",
        "`resnet_queue_seconds`: under 1 ms while engine threads are idle.",
        8,
    ),
    Panel(
        "Images by size of their batch",
        "heatmap",
        buckets("resnet_batch_size"),
        "short",
        "`resnet_batch_size`: 1 while the server is idle; larger batches use the processor better.",
        8,
    ),
    Panel(
        "Images by format",
        "timeseries",
        {"{{format}}": f"sum by (format) (rate(resnet_pictures_total{{{TARGETS}}}[$__rate_interval]))"},
        "short",
        "`resnet_pictures_total`: formats differ in their decoding time.",
        8,
        stacked=True,
    ),
    Panel(
        "p99 of each part",
        "timeseries",
        {part: quantile(0.99, f"resnet_{part}_seconds") for part in ("decode", "queue", "inference")},
        "s",
        "Large photos show in decoding, overload in the queue, a large model in inference.",
        8,
    ),
)
