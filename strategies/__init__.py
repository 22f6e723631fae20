"""Flower strategies: who trains when, and what becomes of the thetas."""

from collections.abc import Callable

from flwr.serverapp.strategy import FedAvg, Strategy

from strategies.independent import Independent

STRATEGIES: dict[str, Callable[[int], Strategy]] = {
    "independent": lambda users: Independent(),
    "fedavg": lambda users: FedAvg(min_train_nodes=users, min_evaluate_nodes=users, min_available_nodes=users),
}
"""By the name in ``strategy.name``: a function of the number of users that makes the strategy."""

__all__ = ["STRATEGIES", "Independent"]
