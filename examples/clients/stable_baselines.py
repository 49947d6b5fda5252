"""PPO of Stable-Baselines3 balances a pole, with another optimizer in its policy.

    policy_kwargs={"optimizer_class": AdamW, "optimizer_kwargs": {"eps": 1e-5, ...}}

The rate is PPO's `learning_rate`, which it writes into the optimizer before each update. Its eps
of 1e-5 is only for torch's own Adam without arguments: any other class has to be told.

`save` keeps the class, its arguments and the optimizer's state. A second agent, loaded from what
the first one saved halfway, ends with the same weights, bit for bit. Carts and random numbers are
not saved: from there on both have new ones, the same for both.

CartPole gives a reward of 1 for each step until the pole falls, at most 500.

    python examples/clients/stable_baselines.py
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from fusedstep.torch import AdamW

PARTS, STEPS = 6, 2048
"""A run has so many parts, of so many steps each; the agent is saved after half of the parts."""


def carts(seed: int) -> VecEnv:
    """Eight of them, side by side."""
    return make_vec_env("CartPole-v1", n_envs=8, seed=seed)


def novice(optimizer_class: type[torch.optim.Optimizer]) -> PPO:
    """An agent that has learned nothing yet."""
    return PPO(
        "MlpPolicy",
        carts(seed=0),
        learning_rate=0.001,
        n_steps=128,
        policy_kwargs={
            "optimizer_class": optimizer_class,
            "optimizer_kwargs": {"eps": 1e-5, "weight_decay": 0.01},
        },
        seed=0,
        device="cpu",
    )


class Run(NamedTuple):
    rewards: list[float]
    """Means of sixteen episodes: before the first part, and after each."""
    weights: Tensor
    """All parameters at the end, one after the other."""
    optimizer: torch.optim.Optimizer
    """The one that took the steps."""


def judge(agent: PPO) -> float:
    reward, _ = evaluate_policy(agent, carts(seed=2), 16, deterministic=False)
    return float(reward)


def train(optimizer_class: type[torch.optim.Optimizer], folder: Path, resume: bool = False) -> Run:
    """Train, and save the agent in the folder halfway; or go on from that one."""
    half = PARTS // 2
    agent = PPO.load(folder / "half", device="cpu") if resume else novice(optimizer_class)
    rewards = [] if resume else [judge(agent)]
    for part in range(half if resume else 0, PARTS):
        if part == half:
            if not resume:
                agent.save(folder / "half")
            agent.set_env(carts(seed=1))
            agent.set_random_seed(1)
        agent.learn(STEPS, reset_num_timesteps=False)
        rewards.append(judge(agent))
    weights = torch.nn.utils.parameters_to_vector(agent.policy.parameters()).detach()
    return Run(rewards, weights, agent.policy.optimizer)


def main() -> None:
    torch.set_num_threads(1)  # a second one costs more time than it saves here
    with TemporaryDirectory() as folder:
        first = train(AdamW, Path(folder))
        second = train(AdamW, Path(folder), resume=True)
    for part, reward in enumerate(first.rewards):
        print(f"{part * STEPS:6} steps    reward {reward:5.1f}")
    same = torch.equal(first.weights, second.weights)
    print(f"     resumed    reward {second.rewards[-1]:5.1f}    the same weights: {same}")


if __name__ == "__main__":
    main()
