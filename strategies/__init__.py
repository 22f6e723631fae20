"""Flower strategies: who trains when, and what becomes of the thetas."""

from collections.abc import Callable

from flwr.serverapp.strategy import FedAvg, Strategy

from strategies.independent import Independent

STRATEGIES: dict[str, Callable[[int, int], Strategy]] = {
    "independent": lambda users, validating: Independent(),
    "fedavg": lambda users, validating: FedAvg(
        fraction_evaluate=validating / users,
        min_train_nodes=users,
        min_evaluate_nodes=validating,
        min_available_nodes=users,
    ),
}
"""By the name in ``strategy.name``: a function that makes the strategy, of the number of users and of how many of them
validate what it has made of their thetas."""

__all__ = ["STRATEGIES", "Independent"]
