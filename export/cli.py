"""`export-onnx`: a trained network becomes one model file that the service runs.

export-onnx --depth 20                                    the only trained ResNet-20 under runs/
export-onnx --checkpoint runs/pets --data pets/test       that run, measured on these pictures
export-onnx --depth 50 --pretrained torchvision-v2        published ImageNet weights
export-onnx --weights FILE                                weights in torchvision's, timm's or Hugging Face's names
export-onnx --depth 50 --weights random                   untrained, for trying things out
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from export.export import Exported

main = typer.Typer(name="export-onnx", add_completion=False, pretty_exceptions_enable=False)


def _fail(message: str) -> NoReturn:
    typer.echo(f"export-onnx: {message}", err=True)
    raise typer.Exit(1)


def _say(line: str) -> None:
    typer.echo(line, err=True)


@main.command()
def export_onnx(
    depth: Annotated[int | None, typer.Option(help="Layers of the network: 20, 50, …")] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="plain, A, B, C (shortcuts), v1, v1.5 (bottlenecks); commas between several."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A run folder of train-resnet, or a checkpoint in it.")
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Published ImageNet weights: torchvision-v1, torchvision-v2, timm-a1, …")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="trained; a .pth or .safetensors file; or random, for trying things out.")
    ] = "trained",
    seed: Annotated[int | None, typer.Option(help="Of random weights; default: 0.", min=0)] = None,
    labels: Annotated[Path | None, typer.Option(help="Text file with one class name a line.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Pictures to measure with: a folder (or a tar of one) with a folder for each class."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The file to write; default: models/<dataset>-<network>/<next version>/model.onnx."),
    ] = None,
) -> None:
    """Export a network to one .onnx file, checked against PyTorch and measured before it gets its name."""
    from export.errors import ExportError

    try:
        from export.choose import Asked, choose
        from export.export import export

        _refuse_folder(output)
        asked = Asked(depth, tuple(variant or ()), checkpoint, pretrained, weights, seed, labels, data)
        source = choose(asked, _say)
        exported = export(source, data=data, output=output, say=_say)
    except ExportError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed; install this project with the extras export and cpu")
    except KeyboardInterrupt:
        _fail("stopped; nothing was written")
    typer.echo(_summary(exported))


def _refuse_folder(output: Path | None) -> None:
    from export.errors import ExportError

    if output is not None and output.is_dir():
        raise ExportError(f"{output} is a folder; give --output the name of a file in it, such as {output}/model.onnx")


def _summary(exported: "Exported") -> str:
    card = exported.card
    parity, accuracy, calibration = card.parity, card.accuracy, card.calibration
    lines = [
        f"{exported.path}: {card.network}, {len(card.labels)} classes, {card.precision}, {exported.size / 1e6:.1f} MB",
        f"parity: {parity.agreeing_images} of {parity.images} pictures get PyTorch's label, probabilities differ by at "
        f"most {parity.largest_probability_difference:.1e}",
    ]
    if accuracy:
        lines.append(
            f"accuracy: {accuracy.top1:.2%} top-1, {accuracy.top5:.2%} top-5 on {accuracy.images:,} pictures of "
            f"{accuracy.dataset}"
        )
    else:
        lines.append("accuracy: not measured, as there are no labelled pictures at hand; give them with --data")
    if card.published:
        claim = card.published
        lines.append(f"published: {claim.top1:.2%} top-1, {claim.top5:.2%} top-5 on {claim.dataset}; not measured here")
    if calibration:
        lines.append(
            f"calibration: temperature {calibration.temperature:.3f}, expected calibration error "
            f"{calibration.expected_calibration_error:.2%} on {calibration.images:,} held-out pictures"
        )
    return "\n".join(lines)
