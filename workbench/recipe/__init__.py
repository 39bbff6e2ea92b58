"""Recipes: one YAML file is one complete experiment, validated at load with file and line."""

from workbench.recipe.load import (
    Difference,
    diff,
    load_recipe,
    parse_overrides,
    recipe_hash,
    resolve,
    to_yaml,
)
from workbench.recipe.schema import Recipe

__all__ = [
    "Difference",
    "Recipe",
    "diff",
    "load_recipe",
    "parse_overrides",
    "recipe_hash",
    "resolve",
    "to_yaml",
]
