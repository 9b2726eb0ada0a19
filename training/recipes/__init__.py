"""What a recipe is, and the recipes of this project."""
