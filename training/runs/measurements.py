"""The measurements of a run: at the end of each epoch, and of its final weights."""

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.data.splits import Part
from training.evaluation.class_metrics import balanced_accuracy, confusion_matrix
from training.evaluation.evaluate import errors_of, fit_temperature, logits_of
from training.evaluation.layer_probes import layer_responses
from training.networks.resnet import ResNet
from training.runs.setup import Run
from training.trainer.loop import Training
from training.trainer.precise_batch_norm import make_statistics_precise

_POINTS_OF_A_TEST_CURVE = 40  # each costs an evaluation of the test set
RESPONSE_IMAGES = 1000  # of the training set, always the same ones
_CLASSES = {"CIFAR-10": 10, "ImageNet": 1000, "Tiny ImageNet": 200}  # of the data with which recipes are compared

Weights = dict[str, Tensor]


def measure_epoch(run: Run, weights: Weights) -> dict[str, float]:
    """Return loss and errors of held-out images, or at some epochs of the test set, for metrics.jsonl."""
    if len(run.data.held_out_part.labels):
        logits, labels = answers(run, weights, run.data.held_out_part)
        errors = errors_of(logits, labels)
        balanced = 100 * (1 - balanced_accuracy(confusion_matrix(logits.argmax(1), labels, logits.shape[1])))
        return {
            "held_out_loss": round(errors.loss, 5),
            "held_out_error": round(errors.top1, 3),
            "held_out_balanced_error": round(balanced, 3),
        }
    test_part = run.data.test_part
    if test_part is not None and _is_time_to_test(run.training):
        errors = errors_of(*answers(run, weights, test_part))
        return {"test_loss": round(errors.loss, 5), "test_error": round(errors.top1, 3)}
    return {}


def _is_time_to_test(training: Training) -> bool:
    """Return whether this epoch has a point of the test curve. Without held-out images it decides nothing."""
    epochs = training.total_steps / training.epoch_steps
    return training.step == training.total_steps or training.epoch % math.ceil(epochs / _POINTS_OF_A_TEST_CURVE) == 0


def weights_so_far(run: Run) -> Weights:
    """Return the best weights if the recipe selects them, else the current ones."""
    best = run.selection.weights if run.selection else {}
    return best or run.training.weights_to_keep()


def final_weights(run: Run) -> Weights:
    """Return the weights to evaluate, export and serve, with precise batch-norm statistics if the recipe has them."""
    weights = weights_so_far(run)
    images = run.training.recipe.precise_bn_images
    if not images:
        return weights
    network = _network(run, weights)
    make_statistics_precise(network, run.training.unmixed_parts(images), run.training.hardware, run.training.world)
    run.progress.log("batch-norm statistics: averages over training images")
    return dict(network.state_dict())


def final_results(run: Run, weights: Weights) -> dict[str, Any]:
    """Evaluate the training images, the held-out images and the test set, without augmentation."""
    train_errors = errors_of(*answers(run, weights, run.data.training_part))
    results: dict[str, Any] = {"train": dataclasses.asdict(train_errors)}
    if len(run.data.held_out_part.labels):
        logits, labels = answers(run, weights, run.data.held_out_part)
        errors = errors_of(logits, labels)
        results["held_out"] = dataclasses.asdict(errors)
        results["calibration"] = dataclasses.asdict(fit_temperature(logits, labels, caution=1.0))
        run.progress.log(f"held-out error {errors.top1:.2f}% on {errors.images:,} images")
    if (test_part := run.data.test_part) is not None:
        errors = errors_of(*answers(run, weights, test_part))
        results["test"] = dataclasses.asdict(errors)
        recipe = run.training.recipe
        is_comparable = len(run.data.train_set.classes) == _CLASSES.get(recipe.expected_on.partition(",")[0])
        expected = f"{recipe.expected_error:g}% of {recipe.expected_on}" if recipe.expected_error is not None else ""
        beside = f" (the recipe's full length: {expected})" if expected and is_comparable else ""
        run.progress.log(f"test error {errors.top1:.2f}% on {errors.images:,} images{beside}")
    return results


def final_layer_responses(run: Run, weights: Weights) -> dict[str, float]:
    """Return the paper's figure 7, measured on a fixed sample of the training set."""
    count = min(RESPONSE_IMAGES, len(run.data.train_set))
    sample = run.data.train_set.chosen(np.linspace(0, len(run.data.train_set) - 1, count, dtype=np.int64))
    responses = layer_responses(_network(run, weights), sample, run.training.images.normalize.channels_first)
    return {name: float(f"{value:.4g}") for name, value in responses.items()}


def answers(run: Run, weights: Weights, part: Part) -> tuple[Tensor, Tensor]:
    """Return logits float32 (N, classes) and labels int64 (N,); the processes of a run divide the images."""
    world, hardware = run.training.world, run.training.hardware
    images = part.dataset.chosen(part.indices[world.part(len(part.indices))])
    to_input = run.training.images.normalize.channels_first
    mine = logits_of(_network(run, weights), images, to_input, threads=hardware.evaluation_threads)
    return world.join_rows(mine, len(part.indices)), torch.from_numpy(part.labels)


def _network(run: Run, weights: Weights) -> ResNet:
    """Return a copy of the network with these weights, uncompiled."""
    model = copy.deepcopy(run.training.model)
    model.load_state_dict(weights)
    return model
