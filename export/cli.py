"""`export-onnx`: a trained network becomes one model file that the service runs.

export-onnx --depth 20                                    your newest ResNet-20 under runs/, else the shipped one
export-onnx --depth 50                                    yours, else published ImageNet weights, else the shipped one
export-onnx --depth 50 --weights published                published ImageNet weights, or an error
export-onnx --checkpoint runs/pets --data pets/test       that run, measured on these images
export-onnx --depth 50 --pretrained torchvision-v2        published ImageNet weights
export-onnx --weights FILE                                weights in torchvision's, timm's or Hugging Face's names
export-onnx --weights MODEL.mar                           a model archive of TorchServe, with its labels and its name
export-onnx --checkpoint runs/pets --precision int8       the same in integers, refused if it loses too much
export-onnx --depth 50 --weights random                   untrained, for tests without training
export-onnx --checkpoint runs/pets --sign key.pem         with a signature, model.sig, beside the file
export-onnx check models/pets-resnet20/1/model.onnx       compares the file with its card, on this machine
export-onnx inspect models/pets-resnet20/1/model.onnx     prints its contents
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from export.options import Format, Precision, PrecisionOptions, Provider, Target

if TYPE_CHECKING:
    from export.export import Exported
    from service.model_files.card import Confidence, PrecisionLoss

_Depth = Annotated[int | None, typer.Option(help="Layers of the network: 20, 50, …")]
_Variants = Annotated[
    list[str] | None,
    typer.Option(help="plain, A, B, C (shortcuts), v1, v1.5 (bottlenecks); commas between several."),
]
_Checkpoint = Annotated[Path | None, typer.Option(help="A run folder of train-resnet, or a checkpoint in it.")]
_Pretrained = Annotated[
    str | None, typer.Option(help="Published ImageNet weights: torchvision-v1, torchvision-v2, timm-a1, …")
]
_Weights = Annotated[
    str, typer.Option(help="trained; published; a .pth, .safetensors or TorchServe .mar file; or random, for tests.")
]
_Seed = Annotated[int | None, typer.Option(help="Seed of random weights; default: 0.", min=0)]
_Labels = Annotated[Path | None, typer.Option(help="Text file with one class name a line.")]
_Data = Annotated[
    Path | None,
    typer.Option(help="Images to measure with, in any form that `train-resnet run` reads."),
]
_Unknown = Annotated[
    Path | None,
    typer.Option(
        help="Images of none of the classes, a folder or a tar; measures how the file separates them from known ones."
    ),
]
_Calibration = Annotated[
    Path | None,
    typer.Option(help="For int8: a folder (or a tar) of a few hundred images like those to be served."),
]

_Precision = Annotated[Precision, typer.Option(help="fp32; or faster: fp16 on GPUs, int8.")]
_Target = Annotated[Target, typer.Option(help="For int8: the processor that will run the file.")]
_MaxAccuracyLoss = Annotated[
    float, typer.Option(min=0, max=100, help="Points of top-1 that fp16 or int8 may lose against fp32; 100: any.")
]
_Output = Annotated[
    Path | None,
    typer.Option(help="The file to write; default: models/<dataset>-<network>/<next version>/model.onnx."),
]
_Sign = Annotated[
    Path | None,
    typer.Option(help="Private key, P-256 in PEM form: its signature of the file is written beside it, as model.sig."),
]
_ModelKeys = Annotated[
    Path | None,
    typer.Option(help="PEM file of public keys: also check the signature in model.sig, before anything else."),
]

main = typer.Typer(name="export-onnx", add_completion=False, pretty_exceptions_enable=False)


def _fail(message: str) -> NoReturn:
    typer.echo(f"export-onnx: {message}", err=True)
    raise typer.Exit(1)


def _log(line: str) -> None:
    typer.echo(line, err=True)


@main.callback(invoke_without_command=True)
def export_onnx(
    context: typer.Context,
    depth: _Depth = None,
    variant: _Variants = None,
    checkpoint: _Checkpoint = None,
    pretrained: _Pretrained = None,
    weights: _Weights = "trained",
    seed: _Seed = None,
    labels: _Labels = None,
    data: _Data = None,
    precision: _Precision = Precision.FP32,
    unknown: _Unknown = None,
    calibration: _Calibration = None,
    target: _Target = Target.X86,
    max_accuracy_loss: _MaxAccuracyLoss = 0.5,
    output: _Output = None,
    sign: _Sign = None,
) -> None:
    """Export a network to one .onnx file, checked against PyTorch and measured before it gets its name."""
    if context.invoked_subcommand is not None:
        _refuse_options_before_a_command(context)
        return
    with _failing_in_one_line():
        from export.export import export
        from export.next_step import next_steps
        from export.resolve_source import WeightsRequest, choose
        from export.signing import make_signer

        _refuse_folder(output)
        _refuse_options_of_other_precisions(context, precision)
        _refuse_missing(calibration=calibration, data=data, unknown=unknown)
        signer = None if sign is None else make_signer(sign)
        _obey_cpu_quota()
        options = PrecisionOptions(precision, target, calibration, max_accuracy_loss, unknown)
        request = WeightsRequest(depth, tuple(variant or ()), checkpoint, pretrained, weights, seed, labels, data)
        source = choose(request, options, _log)
        exported = export(source, data=data, output=output, options=options, log=_log, sign=signer)
        typer.echo(_summary(exported))
        typer.echo("\n".join(next_steps(exported.path)))


@main.command()
def check(
    file: Annotated[Path, typer.Argument(help="A model.onnx that export-onnx wrote.")],
    data: Annotated[
        Path | None, typer.Option(help="Labelled images, in any form that `train-resnet run` reads.")
    ] = None,
    provider: Annotated[
        Provider, typer.Option("--provider", "--providers", help="Provider that runs the file.")
    ] = Provider.CPU,
    model_keys: _ModelKeys = None,
) -> None:
    """Compare a model file with the claims of its card. Exits with 1 at any difference."""
    with _failing_in_one_line():
        from export.verification.check import as_table, check_file

        findings = check_file(file, data, provider, _log, model_keys)
        typer.echo(as_table(findings))
        if failed := [finding.name for finding in findings if not finding.passed]:
            _fail(f"{file} differs from its card: {', '.join(failed)}")


@main.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A model.onnx that export-onnx wrote.")],
    output: Annotated[Format, typer.Option("--format", help="`json` prints one object.")] = Format.TABLE,
) -> None:
    """Print the contents of a model file: card, inputs, outputs, size, operators, and the precision of each layer."""
    with _failing_in_one_line():
        from export.verification.inspect_file import as_json, as_table, inspect_file

        found = inspect_file(file)
        typer.echo(as_json(found) if output is Format.JSON else as_table(found))


@contextlib.contextmanager
def _failing_in_one_line() -> Iterator[None]:
    from export.errors import ExportError

    try:
        yield
    except ExportError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed; install this project with the extras export and cpu: make install")
    except KeyboardInterrupt:
        _fail("stopped; nothing was written")


def _obey_cpu_quota() -> None:
    """Limit PyTorch's threads to the cores of this container; PyTorch itself counts those of the machine."""
    import torch

    from service.system.cores import available_cores

    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))


def _refuse_options_before_a_command(context: typer.Context) -> None:
    for name in context.params:
        if _is_typed(context, name):
            _fail(f"--{name.replace('_', '-')} is for an export; {context.invoked_subcommand} has options of its own")


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _refuse_folder(output: Path | None) -> None:
    from export.errors import ExportError

    if output is not None and output.is_dir():
        raise ExportError(f"{output} is a folder; give --output the name of a file in it, such as {output}/model.onnx")


def _refuse_missing(**paths: Path | None) -> None:
    """Raise ExportError for a missing path, before anything is downloaded or converted."""
    from export.errors import ExportError

    for name, path in paths.items():
        if path is not None and not path.expanduser().exists():
            raise ExportError(f"there is no folder or tar file {path}; give --{name} one")


def _refuse_options_of_other_precisions(context: typer.Context, precision: Precision) -> None:
    from export.errors import ExportError

    for name in ("calibration", "target"):
        if precision is not Precision.INT8 and _is_typed(context, name):
            raise ExportError(f"--{name} is for --precision int8; add that, or leave it out")
    if precision is Precision.FP32 and _is_typed(context, "max_accuracy_loss"):
        raise ExportError("--max-accuracy-loss is for --precision fp16 and int8; add one, or leave it out")


def _summary(exported: "Exported") -> str:
    card = exported.card
    parity, accuracy, calibration = card.parity, card.accuracy, card.calibration
    lines = [
        f"{exported.path}: {card.network}, {len(card.labels)} classes, {card.precision}, {exported.size / 1e6:.1f} MB",
        f"parity: {parity.agreeing_images} of {parity.images} images have PyTorch's label, probabilities differ by at "
        f"most {parity.largest_probability_difference:.1e}",
    ]
    if card.precision_loss:
        lines.append(_loss(card.precision, card.precision_loss))
    if accuracy:
        lines.append(
            f"accuracy: {accuracy.top1:.2%} top-1, {accuracy.top5:.2%} top-5 on {accuracy.images:,} images of "
            f"{accuracy.dataset}"
        )
    else:
        lines.append("accuracy: not measured, because no labelled images were found; give them with --data")
    if card.published:
        claim = card.published
        lines.append(f"published: {claim.top1:.2%} top-1, {claim.top5:.2%} top-5 on {claim.dataset}; not measured here")
    if calibration:
        lines.append(
            f"calibration: temperature {calibration.temperature:.3f}, expected calibration error "
            f"{calibration.expected_calibration_error:.2%} on {calibration.images:,} held-out images"
        )
    if card.confidence:
        lines.append(_confidence(card.confidence))
    return "\n".join(lines)


def _confidence(confidence: "Confidence") -> str:
    line = (
        f"confidence: by {confidence.score.replace('_', ' ')}, from {confidence.threshold:.4g} on, which 95% of "
        f"{confidence.known_images:,} held-out images reach"
    )
    if confidence.auroc is None or confidence.auroc_interval is None:
        return f"{line}; --unknown FOLDER measures how well it separates unknown images from known ones"
    low, high = confidence.auroc_interval
    return (
        f"{line}; AUROC {confidence.auroc:.3f} ({low:.3f} to {high:.3f}) of {confidence.compared_known_images:,} known "
        f"against {confidence.compared_unknown_images:,} unknown images ({confidence.unknown})"
    )


def _loss(precision: str, loss: "PrecisionLoss") -> str:
    top1 = "" if loss.top1_loss is None else f", {loss.top1_loss:+.2f} points of top-1 lost"
    return (
        f"{precision} against fp32: {loss.agreement:.2%} of {loss.images:,} images of {loss.dataset} keep their "
        f"label{top1}"
    )
