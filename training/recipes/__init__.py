"""The form of a recipe, and the recipes of this project."""
