"""Run in the environment of the tools: each object of a YAML stream against the schema of its kind, strictly.

An object of a custom kind is read by the published models of that kind and written again. A field that the models do
not know is lost on that way, and therefore found. Prints one line for each problem.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes_validate
import yaml

VERSION = "1.37"


def pydantic(module: str, name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def again(found: dict[str, Any]) -> dict[str, Any]:
        model = getattr(__import__(module, fromlist=[name]), name)
        written: dict[str, Any] = model.model_validate(found).model_dump(mode="json", by_alias=True, exclude_unset=True)
        return written

    return again


def kserve(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Models of the package `kserve` list their fields; those of Kubernetes inside them can be written again."""

    def again(found: dict[str, Any]) -> dict[str, Any]:
        written: dict[str, Any] = known_fields(found, name)
        return written

    return again


def known_fields(found: Any, kind: str) -> Any:
    """Return what the models know of a value, whose type is written as in `list[V1Container]`."""
    import kserve as models
    from kubernetes import client

    if kind.startswith("list["):
        return [known_fields(one, kind[5:-1]) for one in found]
    if kind.startswith("dict("):
        return {key: known_fields(one, kind[5:-1].split(", ", 1)[1]) for key, one in found.items()}
    if (ours := getattr(models, kind, None)) is not None:
        fields = {json_name: ours.openapi_types[field] for field, json_name in ours.attribute_map.items()}
        return {key: known_fields(one, fields[key]) for key, one in found.items() if key in fields}
    if (theirs := getattr(client, kind, None)) is not None:
        return theirs.from_dict(found).model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


def train_job(found: dict[str, Any]) -> dict[str, Any]:
    """The models of the trainer accept no quantities, so those of Kubernetes read the resources."""
    trainer = dict(found["spec"]["trainer"])
    resources = known_fields(trainer.pop("resourcesPerNode"), "V1ResourceRequirements")
    rest = {**found, "spec": {**found["spec"], "trainer": trainer}}
    written = pydantic("kubeflow_trainer_api.models", "TrainerV1alpha1TrainJob")(rest)
    written["spec"]["trainer"]["resourcesPerNode"] = resources
    return written


CUSTOM: dict[tuple[str, str], Callable[[dict[str, Any]], dict[str, Any]]] = {
    ("keda.sh/v1alpha1", "ScaledObject"): pydantic("cloudcoil.models.keda.v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com/v1", "PodMonitor"): pydantic("cloudcoil.models.prometheus_operator.v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"): pydantic(
        "cloudcoil.models.prometheus_operator.v1", "PrometheusRule"
    ),
    ("trainer.kubeflow.org/v1alpha1", "TrainJob"): train_job,
    ("serving.kserve.io/v1alpha1", "ClusterServingRuntime"): kserve("V1alpha1ClusterServingRuntime"),
    ("serving.kserve.io/v1beta1", "InferenceService"): kserve("V1beta1InferenceService"),
}


def problems(found: dict[str, Any]) -> Iterator[str]:
    again = CUSTOM.get((found["apiVersion"], found["kind"]))
    if again is None:
        kubernetes_validate.validate(found, VERSION, strict=True)
    elif (written := again(found)) != found:
        yield from differences(found, written, found["kind"])


def differences(expected: Any, written: Any, place: str) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(written, dict):
        for name in expected.keys() | written.keys():
            yield from differences(expected.get(name), written.get(name), f"{place}.{name}")
    elif isinstance(expected, list) and isinstance(written, list) and len(expected) == len(written):
        for number, pair in enumerate(zip(expected, written, strict=True)):
            yield from differences(*pair, f"{place}[{number}]")
    elif expected != written:
        yield f"{place}: {expected!r} is read as {written!r}"


def main() -> None:
    count = 0
    for found in yaml.safe_load_all(sys.stdin):
        count += 1
        try:
            for problem in problems(found):
                print(problem)  # noqa: T201
        except Exception as error:  # of any of the packages
            print(f"{found['kind']}: {type(error).__name__}: {' '.join(str(error).split())[:500]}")  # noqa: T201
    print(f"{count} objects")  # noqa: T201


if __name__ == "__main__":
    main()
