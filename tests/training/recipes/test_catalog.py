import dataclasses

import pytest

from training.networks.resnet import architecture
from training.recipes.catalog import RECIPES, chosen
from training.recipes.recipe import Recipe, changed, steps_per_epoch


def test_the_papers_rate_is_divided_by_ten_at_32k_and_48k_steps() -> None:
    recipe = RECIPES["paper-resnet56"]
    rates = [recipe.learning_rate_at(step, 64_000) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_a_shorter_run_keeps_the_shape_of_its_schedule() -> None:
    for recipe in RECIPES.values():
        for moment in (0.01, 0.04, 0.3, 0.5, 0.6, 0.75, 0.9):
            long, short = (
                recipe.learning_rate_at(round(moment * 64_000), 64_000),
                recipe.learning_rate_at(round(moment * 800), 800),
            )
            assert short == pytest.approx(long, rel=1e-6)


def test_the_cosine_climbs_from_zero_and_ends_at_zero() -> None:
    recipe = Recipe(name="x", network="resnet20", epochs=1, learning_rate=0.2, warmup=0.1)
    rates = [recipe.learning_rate_at(step, 1000) for step in range(1001)]
    assert rates[0] == 0 and rates[-1] == pytest.approx(0, abs=1e-12)
    assert max(rates) == pytest.approx(0.2, rel=0.05) and rates.index(max(rates)) == 100


def test_every_recipe_names_a_network_that_exists_and_a_length() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        architecture(recipe.network, recipe.shortcut, recipe.stride_in)
        assert recipe.total_steps(50_000) > 0


def test_epochs_are_whole_batches_and_a_small_set_is_one_batch() -> None:
    assert steps_per_epoch(50_000, 128) == 390
    assert steps_per_epoch(30, 128) == 1
    recipe = dataclasses.replace(RECIPES["modern-resnet20"], epochs=2.5)
    assert recipe.total_steps(48_000) == round(2.5 * 375)


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["paper-resnet20"].learning_rate = 1.0  # type: ignore[misc]


def test_any_field_can_be_changed_by_name() -> None:
    recipe = RECIPES["paper-resnet20"]
    new = changed(
        recipe, ["learning_rate=0.05", "shortcut=B", "milestones=[0.4, 0.8]", "nesterov=true", "ema_decay=null"]
    )
    expected = dataclasses.replace(
        recipe, learning_rate=0.05, shortcut="B", milestones=(0.4, 0.8), nesterov=True, ema_decay=None
    )
    assert new == expected
    assert changed(recipe, []) == recipe


def test_a_length_that_is_set_takes_the_place_of_the_other() -> None:
    assert changed(RECIPES["paper-resnet20"], ["epochs=3"]).total_steps(1280) == 30
    assert changed(RECIPES["modern-resnet20"], ["steps=7"]).total_steps(1280) == 7


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("speed=9", "write field=value with one of network, shortcut"),
        ("lr=9", "did you mean 'learning_rate'?"),
        ("wamup=0.1", "did you mean 'warmup'?"),
        ("label-smoothing=0.1", "did you mean 'label_smoothing'?"),
        ("learning_rate", "write field=value"),
        ("name=mine", "write field=value"),
        ("batch_size=many", "--set batch_size=many: Input should be a valid integer"),
        ("batch_size=0", "--set batch_size=0: Input should be greater than or equal to 1"),
        ("epochs=null", "without a length"),
        ("crop_area=[0.1, 2]", "--set crop_area=2: Input should be less than or equal to 1"),
        ("schedule=linear", "--set schedule=linear: Input should be 'cosine' or 'steps'"),
        ("momentum=0", "add --set nesterov=false"),
        ("momentum=1", "--set momentum=1: Input should be less than 1"),
        ("ema_decay=1.5", "--set ema_decay=1.5: Input should be less than 1"),
        ("label_smoothing=2", "--set label_smoothing=2: Input should be less than 1"),
        ("mixup=-1", "--set mixup=-1: Input should be greater than or equal to 0"),
        ("learning_rate=1e39", "--set learning_rate=1e\\+39: Input should be less than or equal to"),
        ("clip_norm=0", "--set clip_norm=0: Input should be greater than 0"),
        ("warmup=3", "--set warmup=3: Input should be less than or equal to 1"),
        ("weight_decay=nan", "--set weight_decay=nan: Input should be a finite number"),
        ("learning_rate=Infinity", "--set learning_rate=inf: Input should be a finite number"),
        ("crop_area=[0, 1]", "--set crop_area=0: Input should be greater than 0"),
        ("scale_range=[480, 256]", r"--set scale_range=\[480, 256\]: write the smaller number first"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused_by_name(assignment: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        changed(RECIPES["modern-resnet20"], [assignment])


def test_a_misspelt_recipe_is_answered_with_the_one_that_is_meant() -> None:
    for given, meant in (("modern-resnet-20", "modern-resnet20"), ("finetun", "finetune"), ("Everyday-ResNet18", None)):
        with pytest.raises(
            ValueError, match=rf"no recipe is called '{given}'; did you mean '{meant or given.lower()}'\?"
        ):
            chosen(given)


@pytest.mark.parametrize(("shortcut", "error"), [("A", 25.03), ("B", 24.52), ("C", 24.19)])
def test_the_papers_error_is_that_of_the_requested_shortcut(shortcut: str, error: float) -> None:
    assert chosen("paper-resnet34", [f"shortcut={shortcut}"]).expected_error == error


def test_another_network_has_no_error_to_expect() -> None:
    assert chosen("paper-resnet20").expected_error == 8.75
    assert chosen("paper-resnet20", ["shortcut=A"]).expected_error == 8.75
    assert chosen("paper-resnet20", ["shortcut=B"]).expected_error is None
    assert chosen("paper-resnet50", ["stride_in=3x3"]).expected_error is None
    assert chosen("modern-resnet20", ["network=resnet14"]).expected_error is None


def test_every_recipe_says_where_it_comes_from_and_what_its_error_is_of() -> None:
    for recipe in RECIPES.values():
        assert recipe.source
        kind = {32: "CIFAR-10", 64: "Tiny ImageNet"}.get(recipe.image_size, "ImageNet")
        assert recipe.expected_on.startswith(kind if recipe.weights is None else "your own")


def test_the_papers_imagenet_recipe_covers_every_depth_in_its_own_form() -> None:
    for depth, error in ((18, 27.88), (34, 24.52), (50, 22.85), (101, 21.75), (152, 21.43)):
        recipe = RECIPES[f"paper-resnet{depth}"]
        described = architecture(recipe.network, recipe.shortcut, recipe.stride_in)
        assert recipe.expected_error == error and described.stride_in == ("1x1" if depth >= 50 else None)
        assert (recipe.batch_size, recipe.steps, recipe.scale_range) == (256, 600_000, (256, 480))
        rates = [recipe.learning_rate_at(step, 600_000) for step in (0, 199_999, 200_000, 399_999, 400_000, 599_999)]
        assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize(
    ("images", "norm_batch", "groups"),
    [(128, 64, 2), (16, 64, 1), (127, 64, 1), (200, 64, 3), (1024, None, 1), (64, 64, 1), (256, 32, 8)],
)
def test_no_batch_norm_group_is_smaller_than_the_recipe_says(images: int, norm_batch: int | None, groups: int) -> None:
    assert dataclasses.replace(RECIPES["modern-resnet20"], norm_batch=norm_batch).norm_groups(images) == groups


def test_the_papers_batch_norm_sees_half_of_each_batch() -> None:
    """128 images on two GPUs (section 4.2)."""
    recipe = RECIPES["paper-resnet20"]
    assert (recipe.batch_size, recipe.norm_batch, recipe.norm_groups(128)) == (128, 64, 2)


def test_batch_norm_over_all_processes_is_one_group() -> None:
    assert dataclasses.replace(RECIPES["paper-resnet50"], sync_bn=True).norm_groups(256) == 1


def test_images_grow_during_a_run_as_the_recipe_says() -> None:
    recipe = dataclasses.replace(RECIPES["everyday-resnet18"], progressive_sizes=((0.0, 32), (0.5, 48), (0.75, 64)))
    assert [recipe.side_at(step, 100) for step in (0, 49, 50, 74, 75, 99)] == [32, 32, 48, 48, 64, 64]
    assert dataclasses.replace(recipe, progressive_sizes=((0.5, 48),)).side_at(0, 100) == 64
    assert RECIPES["modern-resnet20"].side_at(0, 100) == 32


def test_sizes_in_disorder_are_refused() -> None:
    with pytest.raises(ValueError, match="the earliest first"):
        chosen("everyday-resnet18", ["progressive_sizes=[[0.5, 48], [0.0, 32]]"])
    assert chosen("everyday-resnet18", ["progressive_sizes=[[0, 40]]"]).side_at(9, 10) == 40
