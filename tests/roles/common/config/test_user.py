import math

import pytest
from pydantic import ValidationError

from roles.common.config.recipe import Recipe
from roles.common.config.user import UserConfig


def test_the_defaults_are_the_papers() -> None:
    config = UserConfig()
    assert config.training == Recipe(epochs=200)
    assert (config.alpha, config.width, config.depth, config.crop_padding, config.flip) == (0.005, 64, 5, 4, True)


@pytest.mark.parametrize("alpha", [-0.1, math.nan, math.inf])
def test_alpha_is_a_number_from_0_up(alpha: float) -> None:
    with pytest.raises(ValidationError):
        UserConfig(alpha=alpha)
