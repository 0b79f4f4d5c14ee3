"""kshot: task families for meta-reinforcement-learning, as Gymnasium environments.

    import gymnasium as gym
    import kshot

    env = gym.make("kshot/HalfCheetahVel-v0")               # one hidden goal velocity
    envs = gym.make_vec("kshot/HalfCheetahVel-v0", 64)      # 64 of them, one task a row
    result = kshot.evaluate(kshot.agents.random, "kshot/HalfCheetahVel-v0", split="ood-faster")
"""

from kshot.registry import VARIANTS, register, variant

__version__ = "0.1.0"

register()
