"""The derivative through the inner update: against finite differences, double backward and an enumerated MDP."""

import itertools

import pytest

torch = pytest.importorskip("torch")
from kshot_baselines import adaptation, derivatives, episodes, meta_update, policies  # noqa: E402
from kshot_baselines.adaptation import Inner, flat, unflat  # noqa: E402
from kshot_baselines.episodes import Batch  # noqa: E402
from kshot_baselines.policies import OWN, Outputs, Shape  # noqa: E402

TASKS, EPISODES, STEPS = 3, 4, 5
GAUSSIAN, CATEGORICAL = Shape((2, 5, 4, 2), "tanh", False), Shape((2, 5, 4, 3), "tanh", True)
RELU = Shape((2, 5, 4, 2), "relu", False)
LATENT = Shape((4, 5, 4, 2), "tanh", False, 2)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]
F64 = {"dtype": torch.float64}


def options():
    """Every option of the inner update, on both kinds of actions."""
    every = itertools.product(adaptation.OBJECTIVES, (1, 2), (False, True))
    cases = [(GAUSSIAN, *x) for x in every]
    cases += [(CATEGORICAL, "vpg", 1, False), (CATEGORICAL, "dice", 2, True), (RELU, "lvc", 1, True)]
    # MAESN: latents alone with one step size or learned ones, and with the policy's parameters.
    return [*cases, *((LATENT, *x) for x in (("vpg", 2, False, OWN), ("vpg", 2, True, OWN), ("dice", 1, True, ())))]


def double(params, device):
    return {k: (x.double() + 0.1 * torch.randn_like(x.double())).to(device) for k, x in params.items()}


def batch_of(shape, params, device):
    """Steps of policies with these parameters, some of whose episodes end early."""
    n = EPISODES * STEPS
    observation = torch.randn(TASKS, n, shape.sizes[0], **F64, device=device)
    old = policies.outputs(shape, params, observation)
    action = policies.distribution(shape, old).sample()
    mask = torch.ones(TASKS, EPISODES, STEPS, **F64, device=device)
    mask[0, 1, 3:] = mask[2, 0, 1:] = 0
    mask = mask.flatten(1)
    advantage = torch.randn(TASKS, n, **F64, device=device) * mask
    return Batch(observation, action, Outputs(*old), advantage, mask / mask.sum(1, keepdim=True), STEPS)


class Setting:
    """An inner update, what is learned, batches, and a reference by automatic differentiation alone."""

    def __init__(self, case, device="cpu", first_order=False):
        torch.manual_seed(1)
        self.shape, objective, steps, learned, *only = case
        self.inner = Inner(self.shape, objective, 0.3, 0.9, first_order, *only)
        params = double(policies.initial(self.shape) | policies.prior(self.shape, TASKS), device)
        self.meta = params
        if learned:
            sizes = adaptation.learned_step_shapes(self.inner)
            self.meta = {**params, **{k: torch.full(size, 0.3, **F64, device=device) for k, size in sizes.items()}}
        self.learned = adaptation.learned_steps(self.meta)
        if learned:  # all different
            self.meta = {k: x * (1 + 0.1 * torch.rand_like(x)) for k, x in self.meta.items()}
        self.batches, now = [], policies.for_tasks(params, TASKS)
        for _ in range(steps):
            self.batches.append(batch_of(self.shape, now, device))
            now = adaptation.adapted(self.inner, self.meta, self.batches, TASKS)
        self.post = batch_of(self.shape, now, device)
        self.a = adaptation.adapt(self.inner, self.meta, self.batches, TASKS)
        self.p = derivatives.run(self.shape, self.a.path[-1], self.post.observation)

    def reference(self, vector, constant=False):
        """Return θ_K by autograd, with its graph; constant: with the inner gradients of this setting's own meta."""
        meta = unflat(vector, self.meta)
        sizes = adaptation.step_sizes(self.inner, meta)
        params = policies.for_tasks(adaptation.policy_of(meta), TASKS)
        for k, b in enumerate(self.batches):
            if constant:
                g = self.a.gradients[k]
            else:
                if not params["0.bias"].requires_grad:
                    params = {name: x.detach().requires_grad_() for name, x in params.items()}
                value = adaptation.inner_loss(self.inner, b)(policies.outputs(self.shape, params, b.observation))
                names = [name for name in params if params[name].numel()]
                found = torch.autograd.grad(value, [params[name] for name in names], create_graph=True)
                g = dict(zip(names, found, strict=True))
            params = {name: x - sizes[name] * g.get(name, 0 * x) for name, x in params.items()}
        return params

    def post_outputs(self, params):
        return policies.outputs(self.shape, params, self.post.observation)


def differences(function, x, step=1e-5):
    """Return the gradient of a number by central finite differences."""
    found = torch.empty_like(x)
    for i in range(len(x)):
        d = torch.zeros_like(x)
        d[i] = step
        found[i] = (function(x + d) - function(x - d)) / (2 * step)
    return found


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", options(), ids=str)
def test_the_meta_gradient_is_that_of_finite_differences(case, device):
    s = Setting(case, device)
    loss = meta_update.surrogate(s.shape, s.post)
    found = flat(meta_update.meta_gradient(s.a, s.p, loss, learned=s.learned))

    def value(vector):
        return loss(s.post_outputs(adaptation.adapted(s.inner, unflat(vector, s.meta), s.batches, TASKS)))

    expected = differences(value, flat(s.meta))
    assert found.shape == expected.shape
    assert relative(found, expected) < 1e-6
    assert torch.allclose(flat(s.a.path[-1]), flat(s.reference(flat(s.meta))).detach())


@pytest.mark.parametrize("case", options(), ids=str)
def test_first_order_holds_the_inner_gradient_constant(case):
    s = Setting(case, first_order=True)
    loss = meta_update.surrogate(s.shape, s.post)
    found = flat(meta_update.meta_gradient(s.a, s.p, loss, learned=s.learned))
    expected = differences(lambda x: loss(s.post_outputs(s.reference(x, constant=True))), flat(s.meta))
    assert relative(found, expected) < 1e-6
    exact = Setting(case)
    assert relative(found, flat(meta_update.meta_gradient(exact.a, exact.p, loss, learned=s.learned))) > 1e-3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("case", options(), ids=str)
def test_the_fisher_product_is_that_of_the_kls_hessian(case, first_order, device):
    s = Setting(case, device, first_order)
    product = meta_update.fisher_product(s.shape, s.a, s.p, s.post, s.learned)
    kl = meta_update.divergence(s.shape, s.post, old=s.p.out)
    theta = flat(s.meta).requires_grad_()
    first = torch.autograd.grad(kl(s.post_outputs(s.reference(theta, first_order))), theta, create_graph=True)[0]
    assert first.abs().max() < 1e-12
    v = torch.randn_like(theta)
    (expected,) = torch.autograd.grad(first, theta, v)
    assert relative(flat(product(unflat(v, s.meta))), expected) < 1e-6


def test_part_of_the_episodes_gives_an_approximation_of_the_fisher_product():
    s = Setting((GAUSSIAN, "vpg", 1, True))
    v = unflat(torch.randn_like(flat(s.meta)), s.meta)

    def product(a, post):
        p = derivatives.run(s.shape, s.a.path[-1], post.observation)
        return flat(meta_update.fisher_product(s.shape, a, p, post, s.learned)(v))

    exact = product(s.a, s.post)
    torch.testing.assert_close(product(adaptation.on_parts(s.inner, s.a, 1.0), s.post), exact)
    half, of_half = (episodes.first_episodes(b, 0.5) for b in (s.post, s.batches[0]))
    found = product(adaptation.on_parts(s.inner, s.a, 0.5), half)
    torch.testing.assert_close(found, product(adaptation.adapt(s.inner, s.meta, [of_half], TASKS), half))
    assert relative(found, exact) > 1e-3
    assert half.observation.shape == (TASKS, 2 * STEPS, 2)
    torch.testing.assert_close(half.weight.sum(1), torch.ones(TASKS, **F64))
    assert episodes.first_episodes(s.post, 0.01).weight.shape == (TASKS, STEPS)


@pytest.mark.parametrize("case", options(), ids=str)
def test_promps_gradient_is_that_of_finite_differences(case):
    """Away from the policies that sampled, so that the clip and both KLs are at work."""
    s = Setting(case)
    settings = meta_update.Clipped(epochs=1, clip=0.05, kl_penalty=0.7)
    vector = flat(s.meta) + 0.05 * torch.randn_like(flat(s.meta))
    loss = meta_update.surrogate(s.shape, s.post, settings.clip)

    def value(x):
        a = adaptation.adapt(s.inner, unflat(x, s.meta), s.batches, TASKS)
        kls = [meta_update.divergence(s.shape, b)(q.out) for b, q in zip(s.batches, a.passes, strict=True)]
        return loss(s.post_outputs(a.path[-1])) + settings.kl_penalty * sum(kls) / len(kls)

    a = adaptation.adapt(s.inner, unflat(vector, s.meta), s.batches, TASKS)
    found = flat(meta_update.clipped_gradient(s.shape, a, s.post, settings, s.learned))
    assert relative(found, differences(value, vector, 1e-6)) < 1e-6


def test_the_clipped_surrogate_is_that_of_a_hand_computation():
    shape = Shape((1, 2), "tanh", True)
    half = torch.full((1, 3, 2), 0.5, **F64).log()
    new = torch.tensor([[[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]]], **F64).log()
    advantage, weight = torch.tensor([[1.0, -1.0, 2.0]], **F64), torch.full((1, 3), 1 / 3, **F64)
    action, nothing = torch.tensor([[0, 0, 1]]), torch.empty(1, 0, **F64)
    b = Batch(torch.zeros(1, 3, 1), action, Outputs(half, nothing), advantage, weight, 3)
    out = Outputs(new, nothing)
    assert float(meta_update.surrogate(shape, b)(out)) == pytest.approx(-(1.8 - 1.8 + 2 * 0.8) / 3)
    assert float(meta_update.surrogate(shape, b, clip=0.3)(out)) == pytest.approx(-(1.3 - 1.8 + 2 * 0.8) / 3)


# --- DiCE on an MDP whose episodes can all be listed: states 0 and 1, two actions, three steps ------------------------

GAMMA, LENGTH, START = 0.7, 3, 0
REWARD = torch.tensor([[1.0, -0.5], [0.3, 2.0]], **F64)  # of a state and an action
BASELINE = torch.tensor([0.4, -1.2], **F64)


def enumerated():
    """Return all episodes of the MDP where action a leads to state a: states and actions, (8, 3)."""
    action = torch.tensor(list(itertools.product((0, 1), repeat=LENGTH)))
    state = torch.cat([torch.full((len(action), 1), START), action[:, :-1]], 1)
    return state, action


def expected_return(logits):
    """Return the expected discounted return of a policy, (2, 2) logits."""
    state, action = enumerated()
    log_p = logits.log_softmax(-1)[state, action].sum(1)
    return (log_p.exp() * (REWARD[state, action] * GAMMA ** torch.arange(LENGTH)).sum(1)).sum()


def mean_derivatives(objective, logits):
    """Return gradient and Hessian of the inner objective, as the mean over all episodes at their probabilities."""
    state, action = enumerated()
    shape = Shape((2, 2), "tanh", True)
    params = {"0.weight": logits[None], "0.bias": torch.zeros(1, 2, **F64), "log_std": torch.empty(1, 0, **F64)}
    reward = REWARD[state, action]
    to_go = torch.stack([(reward * GAMMA ** torch.arange(LENGTH))[:, t:].sum(1) / GAMMA**t for t in range(LENGTH)], 1)
    p = logits.log_softmax(-1)[state, action].sum(1, keepdim=True).exp().expand(-1, LENGTH)
    observation = torch.nn.functional.one_hot(state.reshape(1, -1), 2).double()
    old = policies.outputs(shape, params, observation)
    advantage = (to_go - BASELINE[state]).reshape(1, -1)
    b = Batch(observation, action.reshape(1, -1), old, advantage, p.reshape(1, -1), LENGTH)
    loss = adaptation.inner_loss(Inner(shape, objective, 0.1, GAMMA, False), b)
    run = derivatives.run(shape, params, observation)
    found, product = derivatives.gradient_and_hessian(shape, run, loss)
    zeros = {"0.bias": torch.zeros(1, 2, **F64), "log_std": torch.empty(1, 0, **F64)}
    rows = [product({"0.weight": e.reshape(1, 2, 2), **zeros})["0.weight"].flatten() for e in torch.eye(4, **F64)]
    return found["0.weight"].flatten(), torch.stack(rows)


def test_dice_is_unbiased_to_second_order_and_the_others_are_not():
    logits = torch.tensor([[0.3, -0.2], [-0.6, 0.1]], **F64)
    true_gradient = -torch.autograd.functional.jacobian(expected_return, logits).flatten()
    true_hessian = -torch.autograd.functional.hessian(expected_return, logits).reshape(4, 4)
    g, hessian = mean_derivatives("dice", logits)
    torch.testing.assert_close(g, true_gradient)
    torch.testing.assert_close(hessian, true_hessian)
    for objective in ("vpg", "lvc"):
        assert relative(mean_derivatives(objective, logits)[1], true_hessian) > 0.1


def test_where_the_policy_sampled_itself_all_objectives_have_one_gradient_but_for_the_discount():
    s = {kind: Setting((GAUSSIAN, kind, 1, False)) for kind in adaptation.OBJECTIVES}
    vpg, lvc, dice = (s[kind].a.gradients[0] for kind in adaptation.OBJECTIVES)
    torch.testing.assert_close(flat(vpg), flat(lvc))
    assert relative(flat(dice), flat(vpg)) > 0.01
    time = 0.9 ** torch.arange(STEPS, **F64).repeat(EPISODES)
    b = s["vpg"].batches[0]
    weighed = adaptation.inner_gradient(s["vpg"].inner, s["vpg"].a.path[0], b._replace(advantage=b.advantage * time))
    torch.testing.assert_close(flat(dice), flat(weighed))


def test_a_step_goes_down_by_the_step_size_of_each_parameter():
    s = Setting((GAUSSIAN, "vpg", 1, True))
    before, after = s.a.path
    for name, x in before.items():
        torch.testing.assert_close(after[name], x - s.meta[adaptation.STEP + name] * s.a.gradients[0][name])
    losses = [
        float(adaptation.inner_loss(s.inner, s.batches[0])(policies.outputs(s.shape, p, s.batches[0].observation)))
        for p in (before, after)
    ]
    assert losses[1] < losses[0]


def test_the_inner_update_leaves_alone_what_it_is_not_to_change():
    s = Setting((LATENT, "vpg", 1, True, OWN))
    before, after = s.a.path
    assert s.learned == OWN
    for name, x in before.items():
        assert torch.equal(after[name], x.expand_as(after[name])) == (name not in OWN)


def test_a_penalty_of_meta_is_part_of_a_trust_region_step():
    """One so heavy that the loss hardly counts goes downhill; one that is constant changes nothing."""
    s = Setting((LATENT, "vpg", 1, True, OWN))
    trust = meta_update.Trust(0.01, 10, 1e-2, 1.0)

    def step(penalty=None):
        return meta_update.trust_region_step(s.inner, s.meta, s.a, s.post, trust, penalty)

    def heavy(meta):
        return 1e4 * meta["latent_mean"].square().sum()

    plain, metrics = step()
    same, shifted = step(lambda meta: 0 * meta["latent_mean"].sum() + 7)
    assert torch.equal(flat(plain), flat(same))
    assert shifted["loss"] == pytest.approx(metrics["loss"] + 7)
    found, metrics = step(heavy)
    assert metrics["accepted"]
    assert heavy(found) < heavy(s.meta) < heavy(plain) * 1.5
    assert metrics["kl"] <= 0.01
