"""`train-resnet recipes` and `cost`: the recipes, and the costs of the networks."""

import dataclasses
import json
from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    table = "table"
    json = "json"


def recipes() -> None:
    """List the recipes, each with its length, and the expected test error with its source."""
    from training.recipes.catalog import RECIPES

    row = "{:24} {:>13} {:>6}  {:18}  {}"
    typer.echo(row.format("recipe", "length", "error", "of", "source"))
    for recipe in RECIPES.values():
        length = f"{recipe.steps:,} steps" if recipe.steps else f"{recipe.epochs:g} epochs"
        error = f"{recipe.expected_error:.2f}%" if recipe.expected_error is not None else "-"
        typer.echo(row.format(recipe.name, length, error, recipe.expected_on, recipe.source))


def cost(
    output: Annotated[Format, typer.Option("--format", help="table, or json for programs.")] = Format.table,
) -> None:
    """Count parameters and multiply-adds of every network of the paper, with VGG-16 and VGG-19 for comparison."""
    from training.networks.cost import all_costs, relative_to_vgg19

    costs = all_costs()
    if output is Format.json:
        rows = [dataclasses.asdict(cost) | relative_to_vgg19(cost) for cost in costs]
        typer.echo(json.dumps({"networks": rows}, indent=1))
        return
    header = ("network", "shortcut", "stride in", "parameters", "of VGG-19", "multiply-adds", "of VGG-19")
    typer.echo("{:12} {:8} {:9} {:>12} {:>10} {:>15} {:>10}".format(*header))
    for cost in costs:
        parameters, multiply_adds = relative_to_vgg19(cost).values()
        typer.echo(
            f"{cost.network:12} {cost.shortcut or '-':8} {cost.stride_in or '-':9} {cost.parameters:12,} "
            f"{parameters:10.2%} {cost.multiply_adds / 1e6:13,.1f} M {multiply_adds:10.2%}"
        )
